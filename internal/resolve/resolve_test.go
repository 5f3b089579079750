package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/agentcage/agentcage/internal/hostname"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type handler func(w dns.ResponseWriter, q *dns.Msg)

// serve runs a DNS server over UDP and TCP and returns its address.
func serve(t *testing.T, h handler) string {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Skip("the UDP port of the same number is taken:", err)
	}
	for _, s := range []*dns.Server{{Listener: tcp}, {PacketConn: udp}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.Handler, s.NotifyStartedFunc = dns.HandlerFunc(h), func() { close(started) }
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return tcp.Addr().String()
}

// zone answers with records in zone-file form, NXDOMAIN for other names.
func zone(t *testing.T, lines ...string) handler {
	var rrs []dns.RR
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	return func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		known := false
		for _, rr := range rrs {
			if strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
				known = true
			}
			if rr.Header().Rrtype == q.Question[0].Qtype || rr.Header().Rrtype == dns.TypeCNAME {
				r.Answer = append(r.Answer, rr) // also those of other owners
			}
		}
		if !known {
			r.Answer, r.Rcode = nil, dns.RcodeNameError
		}
		_ = w.WriteMsg(r)
	}
}

func fail(rcode int) handler {
	return func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, rcode)) }
}

func lookup(t *testing.T, c interface {
	Lookup(context.Context, hostname.Name) ([]netip.Addr, error)
}, name string,
) (string, error) {
	t.Helper()
	a, err := c.Lookup(t.Context(), hostname.MustParse(name))
	return fmt.Sprint(a), err
}

func TestLookup(t *testing.T) {
	c := New([]string{serve(t, zone(t,
		"a.example. 60 IN A 192.0.2.1", "a.example. 60 IN A 192.0.2.2", "a.example. 60 IN AAAA 2001:db8::1",
		"four.example. 60 IN A 192.0.2.4", "six.example. 60 IN AAAA 2001:db8::6",
		"www.example. 60 IN CNAME cdn.example.", "cdn.example. 60 IN CNAME edge.Example.", "edge.example. 60 IN A 192.0.2.9",
		"out.example. 60 IN CNAME elsewhere.test.",
		"loop.example. 60 IN CNAME pool.example.", "pool.example. 60 IN CNAME loop.example.",
		"self.example. 60 IN CNAME self.example.",
		"text.example. 60 IN TXT x",
	))})
	for name, want := range map[string]string{
		"a.example": "[192.0.2.1 192.0.2.2 2001:db8::1]", "four.example": "[192.0.2.4]", "six.example": "[2001:db8::6]",
		"www.example": "[192.0.2.9]", "192.0.2.77": "[192.0.2.77]", "A.Example.": "[192.0.2.1 192.0.2.2 2001:db8::1]",
	} {
		if got, err := lookup(t, c, name); err != nil || got != want {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
	for _, name := range []string{"none.example", "text.example", "out.example", "example"} {
		if got, err := lookup(t, c, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
	for _, name := range []string{"loop.example", "self.example"} {
		if got, err := lookup(t, c, name); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
	if _, err := c.Lookup(t.Context(), hostname.Name{}); err == nil {
		t.Error("the zero name resolves")
	}
	if _, err := lookup(t, New(nil), "a.example"); err == nil {
		t.Error("resolved without a server")
	}
}

func TestLongAliasChain(t *testing.T) {
	var lines []string
	for i := range maxAliases + 1 {
		lines = append(lines, fmt.Sprintf("n%d.example. 60 IN CNAME n%d.example.", i, i+1))
	}
	lines = append(lines, fmt.Sprintf("n%d.example. 60 IN A 192.0.2.1", maxAliases+1))
	c := New([]string{serve(t, zone(t, lines...))})
	if _, err := lookup(t, c, "n0.example"); err == nil {
		t.Error("followed too far")
	}
	if got, err := lookup(t, c, "n5.example"); err != nil || got != "[192.0.2.1]" {
		t.Errorf("got %s, %v", got, err)
	}
}

// Rule 21: keep the order, ask in parallel, prefer a positive answer.
func TestOrderOfServers(t *testing.T) {
	one := serve(t, zone(t, "a.example. 60 IN A 192.0.2.1"))
	two := serve(t, zone(t, "a.example. 60 IN A 192.0.2.2", "b.example. 60 IN A 192.0.2.22"))
	down := serve(t, fail(dns.RcodeServerFailure))
	silent := serve(t, func(dns.ResponseWriter, *dns.Msg) {})
	for _, tt := range []struct {
		servers    []string
		name, want string
	}{
		{[]string{one, two}, "a.example", "[192.0.2.1]"},
		{[]string{two, one}, "a.example", "[192.0.2.2]"},
		{[]string{one, two}, "b.example", "[192.0.2.22]"}, // NXDOMAIN gives way
		{[]string{down, two}, "a.example", "[192.0.2.2]"},
		{[]string{silent, two}, "a.example", "[192.0.2.2]"},
		{[]string{"127.0.0.1:1", two}, "a.example", "[192.0.2.2]"},
	} {
		if got, err := lookup(t, New(tt.servers), tt.name); err != nil || got != tt.want {
			t.Errorf("%v: got %s, %v, want %s", tt.servers, got, err, tt.want)
		}
	}
	if _, err := lookup(t, New([]string{down, one}), "none.example"); !errors.Is(err, ErrNotFound) {
		t.Errorf("one server knows: %v", err)
	}
	if _, err := lookup(t, New([]string{down}), "a.example"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a failure is no answer: %v", err)
	}
}

// The family that fails does not take the other with it.
func TestOneFamilyFails(t *testing.T) {
	h := zone(t, "a.example. 60 IN A 192.0.2.1")
	for name, bad := range map[string]handler{"error": fail(dns.RcodeServerFailure), "silence": func(dns.ResponseWriter, *dns.Msg) {}} {
		c := New([]string{serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
			if q.Question[0].Qtype == dns.TypeAAAA {
				bad(w, q)
				return
			}
			h(w, q)
		})})
		if got, err := lookup(t, c, "a.example"); err != nil || got != "[192.0.2.1]" {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
}

func TestHostileServer(t *testing.T) {
	good := zone(t, "a.example. 60 IN A 192.0.2.1")
	lie := func(spoil func(*dns.Msg)) handler {
		return func(w dns.ResponseWriter, q *dns.Msg) {
			r := new(dns.Msg).SetReply(q)
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(203, 0, 113, 66)}}
			spoil(r)
			_ = w.WriteMsg(r)
		}
	}
	for name, first := range map[string]handler{
		"wrong id":       lie(func(r *dns.Msg) { r.Id++ }),
		"wrong name":     lie(func(r *dns.Msg) { r.Question[0].Name = "b.example." }),
		"wrong type":     lie(func(r *dns.Msg) { r.Question[0].Qtype = dns.TypeTXT }),
		"wrong class":    lie(func(r *dns.Msg) { r.Question[0].Qclass = dns.ClassCHAOS }),
		"no question":    lie(func(r *dns.Msg) { r.Question = nil }),
		"two questions":  lie(func(r *dns.Msg) { r.Question = append(r.Question, r.Question[0]) }),
		"no response":    lie(func(r *dns.Msg) { r.Response = false }),
		"another opcode": lie(func(r *dns.Msg) { r.Opcode = dns.OpcodeNotify }),
		"garbage":        func(w dns.ResponseWriter, _ *dns.Msg) { _, _ = w.Write([]byte("\x00\x01\xc0\x0c\xff")) },
		"pointer loop": func(w dns.ResponseWriter, q *dns.Msg) {
			p := []byte{0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 0xc0, 0x0c, 0, 1, 0, 1}
			p[0], p[1] = byte(q.Id>>8), byte(q.Id)
			_, _ = w.Write(p)
		},
		"nothing": func(dns.ResponseWriter, *dns.Msg) {},
	} {
		// The forgery comes first; the true answer behind it still counts.
		c := New([]string{serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
			first(w, q)
			good(w, q)
		})})
		if got, err := lookup(t, c, "a.example"); err != nil || got != "[192.0.2.1]" {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
	for name, spoil := range map[string]func(*dns.Msg){
		"other owner": func(r *dns.Msg) { r.Answer[0].Header().Name = "b.example." },
		"other class": func(r *dns.Msg) { r.Answer[0].Header().Class = dns.ClassCHAOS },
		"additional":  func(r *dns.Msg) { r.Extra, r.Answer = r.Answer, nil },
	} {
		if got, err := lookup(t, New([]string{serve(t, lie(spoil))}), "a.example"); err == nil {
			t.Errorf("%s: got %s", name, got)
		}
	}
	flood := New([]string{serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		for range 2 * maxIgnored {
			lie(func(r *dns.Msg) { r.Id++ })(w, q)
		}
	})})
	if got, err := lookup(t, flood, "a.example"); err == nil {
		t.Errorf("flood: got %s", got)
	}
}

func TestTruncatedGoesOverTCP(t *testing.T) {
	var lines []string
	for i := range 200 {
		lines = append(lines, fmt.Sprintf("big.example. 60 IN A 192.0.2.%d", i+1))
	}
	h := zone(t, lines...)
	var tcp atomic.Int32
	c := New([]string{serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			r := new(dns.Msg).SetReply(q)
			r.Truncated = true
			_ = w.WriteMsg(r)
			return
		}
		tcp.Add(1)
		h(w, q)
	})})
	a, err := c.Lookup(t.Context(), hostname.MustParse("big.example"))
	if err != nil || len(a) != maxAddrs || tcp.Load() == 0 {
		t.Errorf("%d addresses, %d times TCP, %v", len(a), tcp.Load(), err)
	}
}

func TestCache(t *testing.T) {
	var asked atomic.Int32
	h := zone(t, "a.example. 60 IN A 192.0.2.1", "short.example. 0 IN A 192.0.2.2", "long.example. 999999 IN A 192.0.2.3")
	c := New([]string{serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Qtype == dns.TypeA {
			asked.Add(1)
		}
		h(w, q)
	})})
	now := time.Unix(1_000_000, 0)
	c.cache.now = func() time.Time { return now }
	step := func(name string, after time.Duration, want int32) {
		t.Helper()
		now = now.Add(after)
		before := asked.Load()
		a, err := c.Lookup(t.Context(), hostname.MustParse(name))
		if err == nil {
			a[0] = netip.Addr{} // the caller's own copy
		}
		if got := asked.Load() - before; got != want {
			t.Errorf("%s after %v: asked %d times", name, after, got)
		}
	}
	step("a.example", 0, 1)
	step("a.example", 59*time.Second, 0)
	step("a.example", time.Second, 1)
	step("short.example", 0, 1)
	step("short.example", minTTL-1, 0)
	step("short.example", 1, 1)
	step("long.example", 0, 1)
	step("long.example", maxTTL, 1)
	step("none.example", 0, 1)
	step("none.example", negativeTTL-1, 0)
	step("none.example", 1, 1)
	if got, err := lookup(t, c, "a.example"); err != nil || got != "[192.0.2.1]" {
		t.Errorf("the cache was changed: %s, %v", got, err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(time.Now)
	for i := range 3 * maxCached {
		c.put(hostname.MustParse(fmt.Sprintf("n%d.example", i)), nil, ErrNotFound, time.Hour)
		if len(c.entries) > maxCached {
			t.Fatal("the cache grows")
		}
	}
	if len(c.entries) < maxCached/2 {
		t.Error("the cache keeps little")
	}
}

func TestOneFlight(t *testing.T) {
	const callers = 20
	release := make(chan struct{})
	var asked atomic.Int32
	h := zone(t, "a.example. 60 IN A 192.0.2.1")
	c := New([]string{serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		<-release
		h(w, q)
	})})
	// One caller gives up before there is an answer; the others get theirs.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Lookup(ctx, hostname.MustParse("a.example")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if got, err := lookup(t, c, "a.example"); err != nil || got != "[192.0.2.1]" {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
	close(release)
	wg.Wait()
	if n := asked.Load(); n > 8 {
		t.Errorf("asked %d times", n)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestSystemServers(t *testing.T) {
	for _, tt := range []struct {
		name, resolv, upstreams string
		keep                    bool
		want                    string // "" is an error
	}{
		{"order kept", "# x\nnameserver 192.0.2.9\nnameserver 192.0.2.1\nnameserver 192.0.2.9\n", "", false, "[192.0.2.9:53 192.0.2.1:53]"},
		{"loopback left out", "nameserver 127.0.0.53\nnameserver 192.0.2.1\noptions edns0\nsearch corp.example\n", "", false, "[192.0.2.1:53]"},
		{"all loopback", "nameserver 127.0.0.53\nnameserver ::1\n", "nameserver 192.0.2.7\n", false, "[192.0.2.7:53]"},
		{"loopback in both", "nameserver 127.0.0.53\n", "nameserver 127.0.0.1\n", false, ""},
		{"loopback kept", "nameserver 127.0.0.53\n", "nameserver 192.0.2.7\n", true, "[127.0.0.53:53]"},
		{"mapped loopback", "nameserver ::ffff:127.0.0.1\nnameserver 0.0.0.0\n", "", false, ""},
		{"IPv6", "nameserver 2001:db8::53\nnameserver fe80::1%eth0\n", "", false, "[[2001:db8::53]:53 [fe80::1%eth0]:53]"},
		{"empty", "", "", true, ""},
		{"nonsense", "nameserver\nnameserver x\nnameserver 1.2.3\nNAMESERVER 192.0.2.1\n", "", true, ""},
	} {
		dir := t.TempDir()
		o := SystemOptions{KeepLoopback: tt.keep, resolv: filepath.Join(dir, "resolv"), upstreams: filepath.Join(dir, "up")}
		write(t, o.resolv, tt.resolv)
		write(t, o.upstreams, tt.upstreams)
		r, err := System(o)
		switch {
		case tt.want == "" && (err == nil || !strings.Contains(err.Error(), "set dns_servers")):
			t.Errorf("%s: got %v", tt.name, err)
		case tt.want != "" && (err != nil || fmt.Sprint(r.Servers()) != tt.want):
			t.Errorf("%s: got %v, %v", tt.name, r, err)
		}
	}
	if _, err := System(SystemOptions{resolv: "/nowhere/a", upstreams: "/nowhere/b"}); err == nil {
		t.Error("no files, no error")
	}
}

// Rule 21: the host's changes are followed while we run.
func TestSystemFollowsChanges(t *testing.T) {
	dir := t.TempDir()
	o := SystemOptions{HostsFile: true, resolv: filepath.Join(dir, "resolv"), upstreams: filepath.Join(dir, "up"), hosts: filepath.Join(dir, "hosts")}
	write(t, o.resolv, "nameserver 192.0.2.1\n")
	write(t, o.hosts, "# comment\n192.0.2.10 box.example box # x\n2001:db8::10 box\nbad line\n1.2.3 y\n192.0.2.11 bad..name ok.example\n")
	r, err := System(o)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"box": "[192.0.2.10 2001:db8::10]", "BOX.example.": "[192.0.2.10]", "ok.example": "[192.0.2.11]"} {
		if got, err := lookup(t, r, name); err != nil || got != want {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
	check := func(text, want string) {
		t.Helper()
		write(t, o.resolv, text)
		if got, err := lookup(t, r, "box"); err != nil || got == "[]" {
			t.Error(got, err)
		}
		if got := fmt.Sprint(r.Servers()); got != want {
			t.Errorf("after %q: %s", text, got)
		}
	}
	check("nameserver 192.0.2.2\n", "[192.0.2.2:53]")
	check("", "[192.0.2.2:53]") // in the middle of a change
	check("nameserver 127.0.0.53\n", "[192.0.2.2:53]")
	write(t, o.upstreams, "nameserver 192.0.2.3\n")
	check("nameserver 127.0.0.53\n#\n", "[192.0.2.3:53]")
	write(t, o.hosts, "192.0.2.20 box\n")
	if got, err := lookup(t, r, "box"); err != nil || got != "[192.0.2.20]" {
		t.Errorf("got %s, %v", got, err)
	}
}

// Without HostsFile the file has no say.
func TestHostsFileIsAnOption(t *testing.T) {
	dir := t.TempDir()
	server := serve(t, zone(t, "box.example. 60 IN A 192.0.2.99"))
	o := SystemOptions{resolv: filepath.Join(dir, "resolv"), hosts: filepath.Join(dir, "hosts")}
	write(t, o.resolv, "nameserver 192.0.2.1\n")
	write(t, o.hosts, "192.0.2.10 box.example\n")
	r, err := System(o)
	if err != nil {
		t.Fatal(err)
	}
	r.client = New([]string{server})
	if got, err := lookup(t, r, "box.example"); err != nil || got != "[192.0.2.99]" {
		t.Errorf("got %s, %v", got, err)
	}
}

// FuzzRead: no packet panics or yields more than the bounds.
func FuzzRead(f *testing.F) {
	m := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	m.Id = 0
	r := new(dns.Msg).SetReply(m)
	rr, _ := dns.NewRR("a.example. 60 IN A 192.0.2.1")
	cn, _ := dns.NewRR("a.example. 60 IN CNAME b.example.")
	r.Answer = []dns.RR{rr, cn}
	p, err := r.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		r := answers(p, m)
		if r == nil {
			return
		}
		a := read(r, m.Question[0])
		if len(a.addrs) > maxAddrs || a.ttl < 0 || a.ttl > maxTTL {
			t.Errorf("%d addresses, TTL %v", len(a.addrs), a.ttl)
		}
		for _, addr := range a.addrs {
			if !addr.Is4() {
				t.Errorf("%v answers a question for IPv4", addr)
			}
		}
	})
}

func FuzzParseFiles(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\n192.0.2.1 a b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if n := len(SystemOptions{}.nameservers(text)); n > maxServers {
			t.Errorf("%d servers", n)
		}
		for n := range parseHosts(text) {
			if n.IsZero() || n.IsIP() {
				t.Errorf("%q is a name", n)
			}
		}
	})
}
