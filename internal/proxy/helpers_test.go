package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy/ca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// policyFunc allows or blocks by a function; hosts in pass are passed through.
type policyFunc struct {
	decide func(*inspect.Request) inspect.Verdict
	pass   map[string]bool
}

func (p policyFunc) Decide(_ context.Context, r *inspect.Request) inspect.Verdict { return p.decide(r) }

func (p policyFunc) Passthrough(h hostname.Name, _ uint16) bool { return p.pass[h.String()] }

func allowed() inspect.Verdict {
	return inspect.Verdict{Decision: inspect.Allowed, BodyLimit: -1}
}

// only allows the hosts named.
func only(hosts ...string) policyFunc {
	return policyFunc{decide: func(r *inspect.Request) inspect.Verdict {
		for _, h := range hosts {
			if r.Host.String() == h {
				return allowed()
			}
		}
		return inspect.Verdict{Reason: "domain not in allowlist: " + r.Host.String(), Status: 403}
	}}
}

// sink keeps records, and can fail.
type sink struct {
	mu      sync.Mutex
	records []audit.Record
	err     error
	added   chan struct{}
}

func newSink() *sink { return &sink{added: make(chan struct{}, 4096)} }

func (s *sink) Put(r audit.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.records = append(s.records, r)
	select {
	case s.added <- struct{}{}:
	default:
	}
	return nil
}

func (s *sink) all() []audit.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]audit.Record(nil), s.records...)
}

// await returns the first record that fits, once it is there.
func (s *sink) await(t *testing.T, what string, fits func(audit.Record) bool) audit.Record {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		for _, r := range s.all() {
			if fits(r) {
				return r
			}
		}
		select {
		case <-s.added:
		case <-deadline:
			t.Fatalf("no audit record: %s; have %+v", what, s.all())
		}
	}
}

func reasonHas(text string) func(audit.Record) bool {
	return func(r audit.Record) bool { return r.Decision == "blocked" && strings.Contains(r.Reason, text) }
}

// names dials test servers by name, and records what was dialled.
type names struct {
	mu     sync.Mutex
	addrs  map[string]string // "host:port" to address
	dialed []string
	err    error
}

func (n *names) Dial(ctx context.Context, host hostname.Name, port uint16) (net.Conn, error) {
	key := host.Authority(port)
	n.mu.Lock()
	n.dialed = append(n.dialed, key)
	addr, err := n.addrs[key], n.err
	n.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if addr == "" {
		return nil, fmt.Errorf("cannot resolve %s", key)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

func (n *names) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.dialed)
}

// world is an engine with its listeners and a server behind it.
type world struct {
	t      testing.TB
	e      *Engine
	audit  *sink
	dialer *names
	cage   *ca.Authority // trusted by the agent
	server *ca.Authority // trusted by the engine

	proxy, plain, tls net.Listener // transparent ones with a fixed port
	exact             net.Listener // transparent, port from LocalAddr

	mu   sync.Mutex
	seen []*http.Request
}

const (
	good = "api.example.com"
	evil = "evil.example.net"
)

// newWorld serves handler as https (port 443, h1 and h2) and http (port 80) of
// good, evil and 192.0.2.7.
func newWorld(t testing.TB, p Policy, handler http.Handler, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, audit: newSink(), dialer: &names{addrs: make(map[string]string)}}
	w.cage, w.server = newCA(t), newCA(t)
	recorded := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.seen = append(w.seen, r)
		w.mu.Unlock()
		handler.ServeHTTP(rw, r)
	})
	w.serveUpstream(recorded)
	o := Options{Policy: p, Dialer: w.dialer, Certificates: w.cage, RootCAs: pool(w.server), Audit: w.audit}
	for _, f := range change {
		f(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.e = e
	w.proxy, w.plain, w.tls, w.exact = listen(t), listen(t), listen(t), listen(t)
	go e.ServeProxy(w.proxy)
	go e.ServeTransparent(w.plain, 80)
	go e.ServeTransparent(w.tls, 443)
	go e.ServeTransparent(w.exact, 0)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e.Shutdown(ctx)
	})
	return w
}

func (w *world) serveUpstream(h http.Handler) {
	secure := httptest.NewUnstartedServer(h)
	secure.EnableHTTP2 = true
	// httptest's own certificate would be used where there is no server name.
	secure.TLS = &tls.Config{GetConfigForClient: func(hi *tls.ClientHelloInfo) (*tls.Config, error) {
		name := hi.ServerName
		if name == "" {
			name = "192.0.2.7"
		}
		c, err := w.server.Certificate(hostname.MustParse(name))
		if err != nil {
			return nil, err
		}
		return &tls.Config{Certificates: []tls.Certificate{*c}, NextProtos: []string{"h2", "http/1.1"}}, nil
	}}
	secure.Config.ErrorLog = quiet
	secure.StartTLS()
	plain := httptest.NewServer(h)
	plain.Config.ErrorLog = quiet
	w.t.Cleanup(func() { secure.CloseClientConnections(); secure.Close(); plain.CloseClientConnections(); plain.Close() })
	for _, host := range []string{good, evil, "192.0.2.7"} {
		w.dialer.addrs[host+":443"] = secure.Listener.Addr().String()
		w.dialer.addrs[host+":80"] = plain.Listener.Addr().String()
	}
}

func (w *world) requests() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*http.Request(nil), w.seen...)
}

// ways are the ways in. Each client reaches scheme://host through the engine.
var ways = []struct {
	name   string
	scheme string
	via    inspect.Via
	proto  int
	make   func(w *world) *http.Transport
}{
	{"absolute-form", "http", inspect.ViaProxy, 1, (*world).viaProxy},
	{"connect h1", "https", inspect.ViaConnect, 1, (*world).viaProxy},
	{"connect h2", "https", inspect.ViaConnect, 2, func(w *world) *http.Transport { return h2(w.viaProxy()) }},
	{"connect plain", "http", inspect.ViaConnectPlain, 1, (*world).viaConnectPlain},
	{"transparent tls h1", "https", inspect.ViaTransparentTLS, 1, (*world).viaTransparent},
	{"transparent tls h2", "https", inspect.ViaTransparentTLS, 2, func(w *world) *http.Transport { return h2(w.viaTransparent()) }},
	{"transparent http", "http", inspect.ViaTransparent, 1, (*world).viaTransparent},
}

func (w *world) transport() *http.Transport {
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(w.cage)}, DisableCompression: true}
	w.t.Cleanup(t.CloseIdleConnections)
	return t
}

func h2(t *http.Transport) *http.Transport {
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP2(true)
	return t
}

func (w *world) viaProxy() *http.Transport {
	t := w.transport()
	t.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: w.proxy.Addr().String()})
	return t
}

func (w *world) viaTransparent() *http.Transport {
	t := w.transport()
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		l := w.plain
		if strings.HasSuffix(addr, ":443") {
			l = w.tls
		}
		var d net.Dialer
		return d.DialContext(ctx, network, l.Addr().String())
	}
	return t
}

func (w *world) viaConnectPlain() *http.Transport {
	t := w.transport()
	t.DialContext = func(_ context.Context, _, addr string) (net.Conn, error) { return w.connect(addr) }
	return t
}

// connect opens a CONNECT tunnel.
func (w *world) connect(addr string) (net.Conn, error) {
	c, err := net.Dial("tcp", w.proxy.Addr().String())
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", addr, addr)
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, &http.Request{Method: "CONNECT"})
	if err != nil {
		c.Close()
		return nil, err
	}
	if res.StatusCode != 200 {
		c.Close()
		return nil, errors.New(res.Status)
	}
	return c, nil
}

// tlsIn does a handshake as the agent does.
func (w *world) tlsIn(c net.Conn, sni string, protos ...string) *tls.Conn {
	return tls.Client(c, &tls.Config{ServerName: sni, RootCAs: pool(w.cage), NextProtos: protos, InsecureSkipVerify: sni == ""})
}

func (w *world) dialTo(l net.Listener) net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// raw sends text and returns the first answer.
func raw(t testing.TB, c net.Conn, text string) (*http.Response, string) {
	t.Helper()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer to %q: %v", text, err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	return res, string(body)
}

func get(t testing.TB, rt http.RoundTripper, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, rt, req)
}

func do(t testing.TB, rt http.RoundTripper, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return res, string(body)
}

type refusal struct {
	Blocked              bool
	Error                string
	Reason, Host, By, ID string
}

func refusalOf(t testing.TB, body string) refusal {
	t.Helper()
	var r refusal
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatalf("no refusal: %q", body)
	}
	return r
}

func newCA(t testing.TB) *ca.Authority {
	t.Helper()
	a, err := ca.New("test")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func pool(a *ca.Authority) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(a.PEM())
	return p
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
