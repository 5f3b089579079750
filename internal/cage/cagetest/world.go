//go:build linux

package cagetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/proxy/ca"
)

// patience is how long the suite waits for something that must come.
const patience = 30 * time.Second

// Names of the servers outside. RFC 6761 keeps .test from being anybody's.
const (
	goodHost  = "good.test"
	evilHost  = "evil.test"
	innerHost = "inner.test" // resolves to a private address that nobody allowed
	sixHost   = "six.test"
)

// addresses of the servers: all of them on one port, so that the port alone
// tells nothing.
var addresses = map[string]string{goodHost: "127.0.0.11", evilHost: "127.0.0.12", innerHost: "127.0.0.13"}

// world is everything outside of a cage that an agent may want to reach.
type world struct {
	ca      []byte // PEM of the authority that the servers' certificates are from
	caFile  string
	port    int // of good, evil and inner, HTTP and HTTPS alike
	servers map[string]*server

	tcp      *canary // another port on the host's loopback: a service of the user's
	tcp6     *canary
	udp      *canary
	resolver *canary // a DNS server that an exfiltrating query would reach
	unix     *canary // a socket in the file system, as Docker's
	abstract *canary // a socket without a file, as D-Bus's

	client *http.Client // reaches the servers from outside, for positive controls
}

func newWorld(t *testing.T) *world {
	t.Helper()
	authority, err := ca.New("conformance suite")
	must(t, err)
	w := &world{ca: authority.PEM(), caFile: filepath.Join(t.TempDir(), "ca.pem"), servers: map[string]*server{}}
	must(t, os.WriteFile(w.caFile, w.ca, 0o600))
	w.listen(t, authority)
	w.tcp = tcpCanary(t, "tcp", "127.0.0.1:0")
	w.tcp6 = tcpCanary(t, "tcp", "[::1]:0")
	w.udp = udpCanary(t)
	w.resolver = dnsCanary(t)
	w.unix = tcpCanary(t, "unix", filepath.Join(shortDir(t), "host.sock"))
	w.abstract = tcpCanary(t, "unix", fmt.Sprintf("@agentcage-suite-%d", os.Getpid()))
	w.client = w.outside(authority)
	return w
}

// shortDir is a directory whose path leaves room for a socket's name
// (sun_path of unix(7) has 108 bytes).
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "ac")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// listen opens the same port on all of the servers' addresses.
func (w *world) listen(t *testing.T, authority *ca.Authority) {
	t.Helper()
	for range 20 {
		opened := map[string]net.Listener{}
		port := 0
		for _, host := range []string{goodHost, evilHost, innerHost} {
			l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", addresses[host], port))
			if err != nil {
				break
			}
			opened[host], port = l, l.Addr().(*net.TCPAddr).Port
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("[::1]:%d", port)); err == nil {
			opened[sixHost] = l
		}
		if len(opened) < len(addresses) || !haveIPv6() == (opened[sixHost] != nil) {
			for _, l := range opened {
				l.Close()
			}
			continue // another program has the port on one of the addresses
		}
		w.port = port
		for host, l := range opened {
			w.servers[host] = newServer(t, host, l, authority)
		}
		return
	}
	t.Fatal("no port is free on all of the suite's addresses")
}

func haveIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return err == nil
}

// outside is a client that finds the servers by name without any cage.
func (w *world) outside(authority *ca.Authority) *http.Client {
	roots := certPool(authority.PEM())
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		Proxy:             nil,
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			if a, ok := addresses[host]; ok {
				host = a
			} else if host == sixHost {
				host = "::1"
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		},
	}}
}

// url is a URL at one of the servers.
func (w *world) url(scheme, host, path string) string {
	return fmt.Sprintf("%s://%s:%d%s", scheme, host, w.port, path)
}

func (w *world) at(addr string) string { return net.JoinHostPort(addr, fmt.Sprint(w.port)) }

// control shows that a server can be reached without a cage, by the same
// request. Without it, "nothing arrived" would mean nothing.
func (w *world) control(t *testing.T, host string) {
	t.Helper()
	srv := w.servers[host]
	before := len(srv.requests())
	res, err := w.client.Post(w.url("https", host, "/control"), "text/plain", strings.NewReader("control"))
	if err != nil {
		t.Fatalf("the control failed: %s cannot be reached from outside: %v", host, err)
	}
	res.Body.Close()
	if len(srv.requests()) != before+1 {
		t.Fatalf("the control failed: %s answered and recorded nothing", host)
	}
	srv.reset()
}

// received is a request as a server saw it.
type received struct {
	Server, Method, Host, URI, Proto, Body string
	TLS                                    bool
	Header                                 http.Header
}

// server speaks HTTP and HTTPS on one port and records what arrives.
type server struct {
	name string

	mu    sync.Mutex
	conns int
	got   []received
}

func newServer(t *testing.T, name string, l net.Listener, authority *ca.Authority) *server {
	t.Helper()
	s := &server{name: name}
	plain, secure := newQueue(l.Addr()), newQueue(l.Addr())
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	h := &http.Server{Handler: s, Protocols: protocols, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			asked := hello.ServerName
			if asked == "" {
				asked = name
			}
			n, err := hostname.Parse(asked)
			if err != nil {
				return nil, err
			}
			return authority.Certificate(n)
		},
	}}
	var serving sync.WaitGroup
	serving.Go(func() { _ = h.Serve(plain) })             // ends with Close
	serving.Go(func() { _ = h.ServeTLS(secure, "", "") }) // ends with Close
	serving.Go(func() { s.sort(l, plain.conns, secure.conns, plain.done) })
	t.Cleanup(func() {
		l.Close()
		plain.Close()
		secure.Close()
		h.Close()
		serving.Wait()
	})
	return s
}

// sort tells TLS from plain HTTP by the first byte.
func (s *server) sort(l net.Listener, plain, secure chan<- net.Conn, done <-chan struct{}) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns++
		s.mu.Unlock()
		go func() {
			r := bufio.NewReader(c)
			first, err := r.Peek(1)
			if err != nil {
				c.Close()
				return
			}
			to := plain
			if first[0] == 22 { // a TLS handshake record (RFC 8446 section 5.1)
				to = secure
			}
			select {
			case to <- &peeked{c, r}:
			case <-done:
				c.Close()
			}
		}()
	}
}

type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// queue is a listener whose connections come from elsewhere.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}
func (q *queue) Addr() net.Addr { return q.addr }
func (q *queue) Close() error   { q.once.Do(func() { close(q.done) }); return nil }

// ServeHTTP records a request and tells the client what was received.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<24))
	if err != nil {
		return // cut off: a server would do nothing with it
	}
	rec := received{s.name, r.Method, r.Host, r.RequestURI, r.Proto, string(body), r.TLS != nil, r.Header.Clone()}
	s.mu.Lock()
	s.got = append(s.got, rec)
	s.mu.Unlock()
	switch {
	case r.Header.Get("Upgrade") == "websocket":
		s.echoFrames(w, r)
	case strings.HasPrefix(r.URL.Path, "/redirect"):
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(http.StatusFound)
	case r.URL.Path == "/hang":
		<-r.Context().Done()
	default:
		w.Header().Set("Alt-Svc", `h3=":443"`)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(rec) // the client may be gone
	}
}

// echoFrames accepts a WebSocket and sends every byte after the handshake
// back, unmasked frame by frame; the suite sends one short text frame.
func (s *server) echoFrames(w http.ResponseWriter, r *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 section 1.3
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	_ = rw.Flush()
	head := make([]byte, 6)
	if _, err := io.ReadFull(rw, head); err != nil {
		return
	}
	payload := make([]byte, head[1]&0x7f)
	if _, err := io.ReadFull(rw, payload); err != nil {
		return
	}
	for i := range payload {
		payload[i] ^= head[2+i%4]
	}
	s.mu.Lock()
	s.got = append(s.got, received{Server: s.name, Method: "WEBSOCKET", Host: r.Host, Body: string(payload)})
	s.mu.Unlock()
	_, _ = rw.Write(append([]byte{0x81, byte(len(payload))}, payload...))
	_ = rw.Flush()
	_, _ = io.Copy(io.Discard, rw) // until the client closes
}

func (s *server) requests() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.got...)
}

// contacts counts connections, with or without a request on them.
func (s *server) contacts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

func (s *server) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns, s.got = 0, nil
}

// reset forgets what all servers have seen. Each check begins with it.
func (w *world) reset() {
	for _, s := range w.servers {
		s.reset()
	}
	for _, c := range []*canary{w.tcp, w.tcp6, w.udp, w.resolver, w.unix, w.abstract} {
		c.reset()
	}
}

// untouched fails when anything reached one of the servers.
func (w *world) untouched(t *testing.T, hosts ...string) {
	t.Helper()
	for _, h := range hosts {
		if n := w.servers[h].contacts(); n != 0 {
			t.Errorf("%s was connected to %d times: %+v", h, n, w.servers[h].requests())
		}
	}
}

// canary is a service that no cage may reach. It keeps all that it hears.
type canary struct {
	addr string

	mu    sync.Mutex
	heard bytes.Buffer
	conns int
	news  chan struct{} // closed and renewed when something is heard
}

func newCanary(addr string) *canary { return &canary{addr: addr, news: make(chan struct{})} }

func (c *canary) note(b []byte, conn bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn {
		c.conns++
	}
	c.heard.Write(b)
	close(c.news)
	c.news = make(chan struct{})
}

func (c *canary) reset() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard.Reset()
	c.conns = 0
}

func (c *canary) all() (string, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard.String(), c.conns
}

// await waits until the canary has heard a text.
func (c *canary) await(t *testing.T, text string) {
	t.Helper()
	ctx := deadline(t)
	for {
		c.mu.Lock()
		heard, news := strings.Contains(c.heard.String(), text), c.news
		c.mu.Unlock()
		if heard {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			t.Fatalf("the control failed: the canary at %s never heard %q", c.addr, text)
		}
	}
}

// silent shows that the canary hears what is sent from outside, and that it
// heard nothing else: whatever was sent before the control is in front of it.
func (c *canary) silent(t *testing.T, network string) {
	t.Helper()
	const mark = "control-from-outside"
	conn, err := net.Dial(network, c.addr)
	if err != nil {
		t.Fatalf("the control failed: %v", err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, mark); err != nil {
		t.Fatalf("the control failed: %v", err)
	}
	c.await(t, mark)
	heard, conns := c.all()
	if heard != mark || (network != "udp" && conns != 1) {
		t.Errorf("the service at %s was reached from the cage: %d connections, %q", c.addr, conns-1, heard)
	}
	c.reset()
}

func tcpCanary(t *testing.T, network, addr string) *canary {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		if strings.HasPrefix(addr, "[") {
			return nil // no IPv6 here
		}
		t.Fatal(err)
	}
	c := newCanary(l.Addr().String())
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.note(nil, true)
			go func() {
				defer conn.Close()
				buf := make([]byte, 4096)
				for {
					n, err := conn.Read(buf)
					if n > 0 {
						c.note(buf[:n], false)
						_, _ = io.WriteString(conn, "stolen") // the other end may be gone
					}
					if err != nil {
						return
					}
				}
			}()
		}
	}()
	return c
}

func udpCanary(t *testing.T) *canary {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	c := newCanary(p.LocalAddr().String())
	t.Cleanup(func() { p.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			c.note(buf[:n], false)
			_, _ = p.WriteTo([]byte("stolen"), from) // as above
		}
	}()
	return c
}

// dnsCanary is a recursive resolver as the attacker would like it: it hears
// every label and answers with the attacker's address.
func dnsCanary(t *testing.T) *canary {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	c := newCanary(p.LocalAddr().String())
	ready := make(chan struct{})
	s := &dns.Server{PacketConn: p, NotifyStartedFunc: func() { close(ready) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for _, question := range q.Question {
			c.note([]byte(question.Name+" "), false)
			if question.Qtype == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 12)})
			}
		}
		_ = w.WriteMsg(m)
	})}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("the suite's resolver ended: %v", err)
		}
	})
	<-ready
	t.Cleanup(func() { _ = s.Shutdown(); serving.Wait() })
	return c
}

// lanAddress finds an address of this machine that is not loopback.
func lanAddress() string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return ""
}
