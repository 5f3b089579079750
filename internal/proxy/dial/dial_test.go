package dial

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/agentcage/agentcage/internal/hostname"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers is a resolver with a table; it counts what it was asked.
type answers struct {
	table map[string][]string
	asked atomic.Int32
}

func (a *answers) Lookup(_ context.Context, n hostname.Name) ([]netip.Addr, error) {
	a.asked.Add(1)
	list, ok := a.table[n.String()]
	if !ok {
		return nil, errors.New("no such name")
	}
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, nil
}

// server greets every connection and returns its port.
func server(t *testing.T) uint16 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "hello")
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func greeting(t *testing.T, c net.Conn, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
}

// noConnect fails the test when a socket is made.
func noConnect(t *testing.T) func(string, string, syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		t.Errorf("a socket was made for %s", address)
		return errors.New("no")
	}
}

var names = map[string][]string{
	"public.example":           {"93.184.215.14"},
	"loop.example":             {"127.0.0.1"},
	"poisoned.example":         {"93.184.215.14", "169.254.169.254"},
	"poisoned6.example":        {"2606:4700::1", "::1"},
	"mapped.example":           {"::ffff:10.0.0.1"},
	"nat64.example":            {"64:ff9b::7f00:1"},
	"zone.example":             {"fe80::1%lo"},
	"any.example":              {"0.0.0.0"},
	"cgn.example":              {"100.64.0.1"},
	"mcast.example":            {"224.0.0.1"},
	"empty.example":            {},
	"localhost":                {"93.184.215.14"},
	"a.localhost":              {"93.184.215.14"},
	"host.docker.internal":     {"93.184.215.14"},
	"host.containers.internal": {"192.168.1.1"},
}

// Rules 8 to 11, A15, A17: no socket for a name with one forbidden answer.
func TestRefuses(t *testing.T) {
	hosts := []string{
		"loop.example", "poisoned.example", "poisoned6.example", "mapped.example", "nat64.example", "zone.example",
		"any.example", "cgn.example", "mcast.example", "localhost", "a.localhost", "host.docker.internal",
		"host.containers.internal", "metadata.google.internal", "metadata.goog", "gateway.docker.internal", "hosts.example",
		"127.0.0.1", "169.254.169.254", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::a00:1]", "198.51.100.1",
	}
	for _, proxy := range []string{"", "127.0.0.1:1"} {
		d := Dialer{
			Resolver: &answers{table: names}, Proxy: proxy, Control: noConnect(t),
			Hosts: map[hostname.Name]netip.Addr{hostname.MustParse("hosts.example"): netip.MustParseAddr("10.0.0.1")},
		}
		for _, h := range hosts {
			var refused *RefusedError
			c, err := d.Dial(t.Context(), hostname.MustParse(h), 443)
			if c != nil || !errors.As(err, &refused) || refused.Host != hostname.MustParse(h) || refused.Reason == "" {
				t.Errorf("%s (proxy %q): %v", h, proxy, err)
			}
		}
	}
}

func TestZeroDialer(t *testing.T) {
	d := Dialer{Control: noConnect(t)}
	for _, h := range []string{"public.example", "127.0.0.1", "localhost"} {
		if _, err := d.Dial(t.Context(), hostname.MustParse(h), 443); err == nil {
			t.Errorf("connected to %s", h)
		}
	}
	if _, err := d.Dial(t.Context(), hostname.Name{}, 443); err == nil {
		t.Error("connected to no host")
	}
	d.Resolver = &answers{table: names}
	if _, err := d.Dial(t.Context(), hostname.MustParse("empty.example"), 443); err == nil {
		t.Error("connected to a name without addresses")
	}
}

// The control of all the refusals: a global answer gets its socket, at the
// address that was vetted and after one lookup.
func TestConnectsToTheVettedAddress(t *testing.T) {
	for host, want := range map[string]string{
		"public.example": "93.184.215.14:443", "93.184.215.14": "93.184.215.14:443", "[2606:4700::1]": "[2606:4700::1]:443",
	} {
		r := &answers{table: names}
		var got []string
		d := Dialer{Resolver: r, Control: func(_, address string, _ syscall.RawConn) error {
			got = append(got, address)
			return errors.New("far enough")
		}}
		_, err := d.Dial(t.Context(), hostname.MustParse(host), 443)
		if err == nil || len(got) != 1 || got[0] != want || r.asked.Load() > 1 {
			// Without IPv6 in the kernel there is no socket to control.
			if strings.Contains(host, ":") && errors.Is(err, syscall.EAFNOSUPPORT) {
				continue
			}
			t.Errorf("%s: %v, asked %d times, sockets %v", host, err, r.asked.Load(), got)
		}
	}
}

func TestAllowPrivate(t *testing.T) {
	port := server(t)
	mirror := hostname.MustParse("loop.example")
	d := Dialer{Resolver: &answers{table: names}, AllowPrivate: func(h hostname.Name, a netip.Addr) bool {
		return h == mirror && a == netip.MustParseAddr("127.0.0.1")
	}}
	c, err := d.Dial(t.Context(), mirror, port)
	greeting(t, c, err)
	c, err = d.DialContext(t.Context(), "tcp", mirror.Authority(port))
	greeting(t, c, err)
	if _, err := d.Dial(t.Context(), hostname.MustParse("127.0.0.1"), port); err == nil {
		t.Error("the grant of a name is one of its address")
	}
	if _, err := d.DialContext(t.Context(), "udp", mirror.Authority(port)); err == nil {
		t.Error("UDP left")
	}
	d.Hosts = map[hostname.Name]netip.Addr{mirror: netip.MustParseAddr("127.0.0.2")}
	if _, err := d.Dial(t.Context(), mirror, port); err == nil {
		t.Error("Hosts is not vetted")
	}
	d = Dialer{Resolver: &answers{table: names}, Control: noConnect(t), AllowPrivate: func(hostname.Name, netip.Addr) bool { return true }}
	for _, h := range []string{"any.example", "mcast.example", "[::]", "255.255.255.255"} {
		if _, err := d.Dial(t.Context(), hostname.MustParse(h), port); err == nil {
			t.Errorf("a grant of everything reached %s", h)
		}
	}
}

func TestSelfIsRefused(t *testing.T) {
	port := server(t)
	self := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	d := Dialer{
		AllowPrivate: func(hostname.Name, netip.Addr) bool { return true },
		Self:         func(a netip.AddrPort) bool { return a == self },
		Control:      noConnect(t),
	}
	var refused *RefusedError
	if _, err := d.Dial(t.Context(), hostname.MustParse("127.0.0.1"), port); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
	d.Control = nil
	other := server(t)
	c, err := d.Dial(t.Context(), hostname.MustParse("127.0.0.1"), other)
	greeting(t, c, err)
}

// A first address that does not answer holds nothing up for long, and one that
// fails gives way at once.
func TestRace(t *testing.T) {
	port := server(t)
	stuck := make(chan struct{})
	defer close(stuck)
	dial := func(first func() error, second error) (net.Conn, error) {
		d := Dialer{
			Resolver:     &answers{table: map[string][]string{"a.example": {"127.0.0.9", "127.0.0.1"}}},
			AllowPrivate: func(hostname.Name, netip.Addr) bool { return true },
			Control: func(_, address string, _ syscall.RawConn) error {
				if strings.HasPrefix(address, "127.0.0.9:") {
					return first()
				}
				return second
			},
		}
		return d.Dial(t.Context(), hostname.MustParse("a.example"), port)
	}
	c, err := dial(func() error { <-stuck; return nil }, nil)
	greeting(t, c, err)
	down := func() error { return errors.New("down") }
	c, err = dial(down, nil)
	greeting(t, c, err)
	if _, err = dial(down, errors.New("down too")); err == nil || !strings.Contains(err.Error(), "down") {
		t.Errorf("got %v", err)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	stuck := make(chan struct{})
	defer close(stuck)
	ctx, cancel := context.WithCancel(t.Context())
	d := Dialer{
		AllowPrivate: func(hostname.Name, netip.Addr) bool { return true },
		Control:      func(string, string, syscall.RawConn) error { cancel(); <-stuck; return nil },
	}
	if _, err := d.Dial(ctx, hostname.MustParse("127.0.0.1"), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestInterleave(t *testing.T) {
	var in []netip.Addr
	for _, s := range []string{"1.1.1.1", "1.1.1.2", "1.1.1.1", "2606:4700::1", "1.1.1.3"} {
		in = append(in, netip.MustParseAddr(s))
	}
	if got := fmt.Sprint(interleave(in)); got != "[2606:4700::1 1.1.1.1 1.1.1.2 1.1.1.3]" {
		t.Error(got)
	}
}

// proxyServer answers every CONNECT with answer and reports the request line.
func proxyServer(t *testing.T, answer string) (string, chan string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				lines <- r.Method + " " + r.RequestURI + " " + r.Host
				_, _ = io.WriteString(c, answer)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String(), lines
}

func TestProxy(t *testing.T) {
	addr, lines := proxyServer(t, "HTTP/1.1 200 Connection established\r\nX: y\r\n\r\nhello")
	for _, host := range []string{"public.example", "93.184.215.14", "unknown-here.example"} {
		for _, prefix := range []string{"", "http://"} {
			d := Dialer{Resolver: &answers{table: names}, Proxy: prefix + addr}
			c, err := d.Dial(t.Context(), hostname.MustParse(host), 443)
			greeting(t, c, err)
			if got, want := <-lines, "CONNECT "+host+":443 "+host+":443"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}

func TestProxyAnswers(t *testing.T) {
	for _, answer := range []string{
		"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "HTTP/2 200\r\n\r\n",
		"HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 2*maxProxyHead) + "\r\n\r\n",
	} {
		addr, lines := proxyServer(t, answer)
		d := Dialer{Resolver: &answers{table: names}, Proxy: addr}
		c, err := d.Dial(t.Context(), hostname.MustParse("public.example"), 443)
		if err == nil {
			c.Close()
			t.Errorf("%.40q: connected", answer)
		}
		<-lines
	}
}

// A proxy that never answers does not outlive the context.
func TestProxySilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			_, _ = bufio.NewReader(c).ReadString('\n')
			cancel()
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	d := Dialer{Resolver: &answers{table: names}, Proxy: l.Addr().String()}
	if _, err := d.Dial(ctx, hostname.MustParse("public.example"), 443); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-done
}
