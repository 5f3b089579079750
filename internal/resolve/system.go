package resolve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/agentcage/agentcage/internal/hostname"
)

// maxFile limits how much of a system file is read, in bytes.
const maxFile = 1 << 20

// Paths of the system's files (resolv.conf(5), hosts(5)). The second is where
// systemd-resolved keeps the servers that it asks itself.
const (
	resolvConf        = "/etc/resolv.conf"
	resolvedUpstreams = "/run/systemd/resolve/resolv.conf"
	hostsFile         = "/etc/hosts"
)

// SystemOptions say which of the system's settings are used.
type SystemOptions struct {
	// KeepLoopback keeps servers on a loopback address. They are of use only
	// to a process in the host's own network namespace.
	KeepLoopback bool

	// HostsFile answers from /etc/hosts first.
	HostsFile bool

	resolv, upstreams, hosts string // tests set them
}

// Resolver resolves names as the host is configured to, and follows when that
// changes. It may be used concurrently.
type Resolver struct {
	opt SystemOptions

	mu      sync.Mutex
	resolv  watched
	second  watched
	hosts   watched
	servers []string
	client  *Client
	table   map[hostname.Name][]netip.Addr
}

// System returns a Resolver with the servers of /etc/resolv.conf, or those of
// systemd-resolved when that names only loopback addresses. It fails when
// there are none.
func System(opt SystemOptions) (*Resolver, error) {
	r := &Resolver{opt: opt}
	r.resolv.path = or(opt.resolv, resolvConf)
	r.second.path = or(opt.upstreams, resolvedUpstreams)
	r.hosts.path = or(opt.hosts, hostsFile)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refresh()
	if r.client == nil {
		return nil, fmt.Errorf("cannot detect usable DNS servers: %s and %s name none that can be used from here; set dns_servers",
			r.resolv.path, r.second.path)
	}
	return r, nil
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Servers returns the servers in use, in their order.
func (r *Resolver) Servers() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.servers)
}

// Lookup is [Client.Lookup] with the settings of the moment.
func (r *Resolver) Lookup(ctx context.Context, name hostname.Name) ([]netip.Addr, error) {
	r.mu.Lock()
	r.refresh()
	client, addrs := r.client, slices.Clone(r.table[name])
	r.mu.Unlock()
	if len(addrs) > 0 {
		return addrs, nil
	}
	return client.Lookup(ctx, name)
}

// refresh reads what has changed. Servers that cannot be read are no reason to
// forget the ones that work: the host may be in the middle of a change.
func (r *Resolver) refresh() {
	// Both are looked at every time: the second may appear later.
	changed := r.resolv.changed()
	if r.second.changed() || changed {
		servers := r.opt.nameservers(r.resolv.read())
		if len(servers) == 0 {
			servers = r.opt.nameservers(r.second.read())
		}
		if len(servers) > 0 && !slices.Equal(servers, r.servers) {
			// A new client forgets the old answers: they are another network's.
			r.servers, r.client = servers, New(servers)
		}
	}
	if r.opt.HostsFile && r.hosts.changed() {
		r.table = parseHosts(r.hosts.read())
	}
}

// nameservers returns the usable servers of a resolv.conf, in order.
func (o SystemOptions) nameservers(text []byte) []string {
	var out []string
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		if len(f) < 2 || f[0] != "nameserver" || len(out) == maxServers {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil || !o.KeepLoopback && (a.Unmap().IsLoopback() || a.Unmap().IsUnspecified()) {
			continue
		}
		if s := withPort(a.String()); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// parseHosts reads hosts(5). Lines and names that are not valid are skipped,
// as every resolver does.
func parseHosts(text []byte) map[hostname.Name][]netip.Addr {
	table := make(map[hostname.Name][]netip.Addr)
	for line := range bytes.Lines(text) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		for _, s := range f[1:] {
			n, err := hostname.Parse(s)
			if err == nil && !n.IsIP() && len(table[n]) < maxAddrs && !slices.Contains(table[n], a) {
				table[n] = append(table[n], a)
			}
		}
	}
	return table
}

// watched is a file that is read again when it looks different.
type watched struct {
	path string
	seen bool
	info fs.FileInfo // nil when there is no such file
}

func (w *watched) changed() bool {
	info, err := os.Stat(w.path)
	if err != nil {
		info = nil
	}
	same := w.seen && (info == nil) == (w.info == nil)
	if same && info != nil {
		same = info.Size() == w.info.Size() && info.ModTime().Equal(w.info.ModTime()) && os.SameFile(info, w.info)
	}
	w.seen, w.info = true, info
	return !same
}

func (w *watched) read() []byte {
	text, err := readFile(w.path)
	if err != nil {
		return nil
	}
	return text
}

func readFile(path string) (_ []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, maxFile))
}
