package gateway

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/proxy/dial"
	"github.com/agentcage/agentcage/internal/resolve"
)

// lookuper resolves a name to addresses.
type lookuper interface {
	Lookup(ctx context.Context, name hostname.Name) ([]netip.Addr, error)
}

// upstream is everything that a config decides about reaching servers.
type upstream struct {
	dialer   *dial.Dialer
	resolver lookuper
	roots    *x509.CertPool // nil: the system's, read when first needed
	private  func(hostname.Name, netip.Addr) bool
}

func newUpstream(c *config.Config, p *policy, g *Gateway, roots *x509.CertPool) (*upstream, error) {
	resolver, err := newResolver(c.Upstream, g.host)
	if err != nil {
		return nil, err
	}
	ranges, err := privateRanges(c.Upstream.AllowPrivate)
	if err != nil {
		return nil, err
	}
	private := func(name hostname.Name, addr netip.Addr) bool {
		return p.domains.Private(name) || ranges.allow(name, addr)
	}
	return &upstream{
		resolver: resolver,
		roots:    roots,
		private:  private,
		dialer:   &dial.Dialer{Resolver: resolver, AllowPrivate: private, Self: g.self.has, Proxy: c.Upstream.Proxy},
	}, nil
}

// hostsFirst answers from the config's table before it asks anybody. Both the
// engine and the DNS server resolve through it.
type hostsFirst struct {
	hosts map[hostname.Name]hostname.Name
	next  lookuper
}

func (h hostsFirst) Lookup(ctx context.Context, name hostname.Name) ([]netip.Addr, error) {
	if a, ok := h.hosts[name]; ok {
		return []netip.Addr{a.Addr()}, nil
	}
	return h.next.Lookup(ctx, name)
}

func newResolver(u config.Upstream, hostNetwork bool) (lookuper, error) {
	if len(u.DNSServers) > 0 {
		return hostsFirst{u.Hosts, resolve.New(u.DNSServers)}, nil
	}
	system, err := resolve.System(resolve.SystemOptions{KeepLoopback: hostNetwork, HostsFile: hostNetwork})
	if err != nil {
		return nil, err
	}
	return hostsFirst{u.Hosts, system}, nil
}

func rootCAs(files []string) (*x509.CertPool, error) {
	if len(files) == 0 {
		return nil, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("cannot read the system's certificates: %w", err)
	}
	for _, f := range files {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("cannot read upstream.ca_files: %w", err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("cannot use %s: it holds no certificate in PEM form", f)
		}
	}
	return roots, nil
}

// ranges is upstream.allow_private in a form that can be asked.
type ranges struct {
	names    []hostname.Name
	prefixes []netip.Prefix
}

func privateRanges(list []config.Private) (ranges, error) {
	var r ranges
	for _, p := range list {
		if !p.Name.IsZero() {
			r.names = append(r.names, p.Name)
			continue
		}
		prefix, err := netip.ParsePrefix(p.Range)
		if err != nil {
			return ranges{}, fmt.Errorf("cannot use upstream.allow_private: %w", err)
		}
		r.prefixes = append(r.prefixes, prefix)
	}
	return r, nil
}

func (r ranges) allow(name hostname.Name, addr netip.Addr) bool {
	for _, n := range r.names {
		if name.Within(n) {
			return true
		}
	}
	for _, p := range r.prefixes {
		if p.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// route is the way to the servers as the engine and the DNS server see it: it
// always leads through the newest config.
type route struct {
	current atomic.Pointer[upstream]
}

func newRoute(u *upstream) *route {
	r := &route{}
	r.set(u)
	return r
}

func (r *route) set(u *upstream) { r.current.Store(u) }

// Dial implements proxy.Dialer.
func (r *route) Dial(ctx context.Context, host hostname.Name, port uint16) (net.Conn, error) {
	return r.current.Load().dialer.Dial(ctx, host, port)
}

// Lookup implements the DNS server's resolver.
func (r *route) Lookup(ctx context.Context, name hostname.Name) ([]netip.Addr, error) {
	return r.current.Load().resolver.Lookup(ctx, name)
}

// usable reports whether an address may be shown to the cage for a name.
func (r *route) usable(name hostname.Name, addr netip.Addr) bool {
	return dial.Classify(addr) == dial.Global || r.current.Load().private(name, addr)
}

// addresses are the gateway's own listeners. A request that led back to one of
// them would go round for ever.
type addresses struct {
	mu   sync.Mutex
	list []netip.AddrPort
}

func (a *addresses) add(addr net.Addr) {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		a.mu.Lock()
		defer a.mu.Unlock()
		ap := tcp.AddrPort()
		a.list = append(a.list, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	}
}

func (a *addresses) has(ap netip.AddrPort) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	addr := ap.Addr().Unmap()
	return slices.ContainsFunc(a.list, func(own netip.AddrPort) bool {
		return own.Port() == ap.Port() && (own.Addr() == addr || own.Addr().IsUnspecified() && isLocal(addr))
	})
}

// isLocal reports whether a listener on the wildcard address has this one too.
// When the machine does not tell, it has.
func isLocal(a netip.Addr) bool {
	if a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	local, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(local, func(l net.Addr) bool {
		p, ok := l.(*net.IPNet)
		return ok && p.IP.Equal(net.IP(a.AsSlice()))
	})
}
