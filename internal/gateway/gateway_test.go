package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/worker"
)

func TestMain(m *testing.M) {
	worker.MaybeMain()
	goleak.VerifyTestMain(m)
}

// log keeps records in memory.
type log struct {
	mu      sync.Mutex
	records []audit.Record
}

func (l *log) Put(r audit.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
	return nil
}

func (l *log) find(kind, decision string) []audit.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []audit.Record
	for _, r := range l.records {
		if r.Kind == kind && r.Decision == decision {
			out = append(out, r)
		}
	}
	return out
}

// world is an upstream, a gateway in front of it, and a client of the gateway.
type world struct {
	t        *testing.T
	gw       *Gateway
	log      *log
	client   *http.Client
	port     int
	ca       string
	received sync.Map // path → true
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, log: &log{}}
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.received.Store(r.URL.Path, true)
		io.WriteString(rw, "hello")
	}))
	up.StartTLS()
	t.Cleanup(up.Close)
	w.port = up.Listener.Addr().(*net.TCPAddr).Port
	w.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(w.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: up.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.gw, err = New(Options{Config: w.config("example.com"), Audit: w.log, Name: "test", HostNetwork: true}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.gw.ServeProxy(l)
	t.Cleanup(func() {
		w.client.CloseIdleConnections()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = w.gw.Shutdown(ctx) // cut at once
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.gw.CACertificate())
	proxyURL := &url.URL{Scheme: "http", Host: l.Addr().String()}
	w.client = &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxyURL), TLSClientConfig: &tls.Config{RootCAs: roots}}}
	return w
}

// config allows one name on the upstream's port.
func (w *world) config(allow string) *config.Config {
	w.t.Helper()
	c, err := config.Parse("cage.yaml", fmt.Appendf(nil, `name: test
domains:
  allow:
    - {host: %s, ports: [%d]}
upstream:
  ca_files: [%q]
  allow_private: [example.com]
  hosts: {example.com: 127.0.0.1}
`, allow, w.port, w.ca))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) get(path string) (int, string) {
	w.t.Helper()
	res, err := w.client.Get(fmt.Sprintf("https://example.com:%d%s", w.port, path))
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func (w *world) saw(path string) bool {
	_, ok := w.received.Load(path)
	return ok
}

// finder is an inspector of content that finds one word.
type finder string

func (finder) Name() string { return "finder" }

func (f finder) InspectContent(_ context.Context, c *inspect.Content) inspect.Result {
	if strings.Contains(string(c.Body), string(f)) {
		return inspect.Done(inspect.Finding{Reason: "found", Severity: inspect.Error})
	}
	return inspect.Done()
}

// TestContent: the chain of a policy decides what is in a request, and a config
// what becomes of a message.
func TestContent(t *testing.T) {
	for text, want := range map[string]bool{"close": false, "drop": true} {
		c, err := config.Parse("cage.yaml", []byte("name: x\nsecrets: false\nentropy: false\ncontent_type: false\nbudget: false\nwebsocket: {on_block: "+text+"}\n"))
		if err != nil {
			t.Fatal(err)
		}
		p, err := newPolicy(c, new(state), nil)
		if err != nil || p.DropMessages() != want {
			t.Errorf("%s: %v", text, err)
		}
		r := &inspect.Request{Method: "POST"}
		p.chain = inspect.NewChain() // the built-in ones read as well
		if p.Reads(r) != (inspect.Reads{}) {
			t.Errorf("without inspectors %+v is read", p.Reads(r))
		}
		p.chain = p.chain.WithContent(finder("needle"))
		if p.Reads(r) != (inspect.Reads{Request: true, Messages: true}) {
			t.Errorf("%+v is read", p.Reads(r))
		}
		for body, allowed := range map[string]bool{"hay": true, "hay and needle": false} {
			v := p.DecideContent(t.Context(), &inspect.Content{Request: r, Kind: inspect.KindRequest, Direction: inspect.ToServer, Body: []byte(body)})
			if v.Allowed() != allowed {
				t.Errorf("%s: %+v", body, v)
			}
		}
	}
}

// TestReload is rules.md 46, 97 and 24: a reload is complete or does not happen,
// and it says which.
func TestReload(t *testing.T) {
	w := newWorld(t)
	if code, _ := w.get("/before"); code != 200 || !w.saw("/before") {
		t.Fatalf("the allowed host answers %d", code)
	}
	bad := w.config("example.com")
	bad.Upstream.CAFiles = []string{filepath.Join(t.TempDir(), "missing.pem")}
	if err := w.gw.Reload(bad); err == nil {
		t.Error("a config with a missing file was taken")
	}
	if n := len(w.log.find(audit.KindReloadFail, "blocked")); n != 1 {
		t.Errorf("%d records of the failed reload", n)
	}
	if code, _ := w.get("/kept"); code != 200 || !w.saw("/kept") {
		t.Errorf("after a failed reload the old policy gives %d", code)
	}
	if err := w.gw.Reload(w.config("other.example")); err != nil {
		t.Fatal(err)
	}
	if code, body := w.get("/after"); code != 403 || w.saw("/after") || !strings.Contains(body, "domain not in allowlist: example.com") {
		t.Errorf("a host that is no longer allowed gives %d %s", code, body)
	}
	if n := len(w.log.find(audit.KindReload, "allowed")); n != 1 {
		t.Errorf("%d records of the reload", n)
	}
}

// TestReloadOfAuthorities: what changed about servers takes effect as well.
func TestReloadOfAuthorities(t *testing.T) {
	w := newWorld(t)
	if code, _ := w.get("/trusted"); code != 200 {
		t.Fatalf("the trusted server answers %d", code)
	}
	without := w.config("example.com")
	without.Upstream.CAFiles = nil
	if err := w.gw.Reload(without); err != nil {
		t.Fatal(err)
	}
	if code, body := w.get("/untrusted"); code != 502 || w.saw("/untrusted") {
		t.Errorf("without its authority the server gives %d %s", code, body)
	}
}

// TestOrder is rules.md 115: a name that is not allowed gets no bucket.
func TestOrder(t *testing.T) {
	c := config.Default()
	if err := c.Allow("example.com"); err != nil {
		t.Fatal(err)
	}
	c.RateLimit = config.RateLimit{RequestsPerSecond: 0.001, Burst: 1}
	p, err := newPolicy(c, new(state), nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(host string) inspect.Verdict {
		return p.Decide(t.Context(), &inspect.Request{Method: "GET", Scheme: "https", Host: hostname.MustParse(host), Port: 443, Path: "/", URL: &url.URL{Path: "/"}})
	}
	for range 3 {
		if v := ask("evil.example"); v.Status != 403 {
			t.Errorf("a forbidden host is answered with %d: %s", v.Status, v.Reason)
		}
	}
	if v := ask("example.com"); !v.Allowed() {
		t.Errorf("the first request is blocked: %s", v.Reason)
	}
	if v := ask("www.example.com"); v.Status != 429 || v.Reason != "rate limit exceeded" {
		t.Errorf("the second request of the zone gives %d %s", v.Status, v.Reason)
	}
}

// TestLoop: a name that leads back to the gateway is refused, although the
// config allows its private address.
func TestLoop(t *testing.T) {
	w := newWorld(t)
	for _, address := range []string{"127.0.0.1:0", ":0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		w.gw.ServeTransparent(l, 443)
		w.port = l.Addr().(*net.TCPAddr).Port
		if err := w.gw.Reload(w.config("example.com")); err != nil {
			t.Fatal(err)
		}
		if code, body := w.get("/loop"); code != 403 || !strings.Contains(body, "the gateway's own") {
			t.Errorf("%s: the gateway dialled itself: %d %s", address, code, body)
		}
	}
}

// TestRefusals is rules.md 33: what the kernel refused is in the audit log.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	refused := make(chan cage.Refusal, 3)
	refused <- cage.Refusal{Kind: audit.KindTCP, Dest: netip.MustParseAddrPort("203.0.113.7:22"), Count: 2}
	refused <- cage.Refusal{Kind: audit.KindUDP, Dest: netip.MustParseAddrPort("[2001:db8::1]:443")}
	refused <- cage.Refusal{Kind: audit.KindSocket, Detail: "AF_PACKET"}
	close(refused)
	if err := w.gw.recordRefusals(refused); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, kind := range []string{audit.KindTCP, audit.KindUDP, audit.KindSocket} {
		for _, r := range w.log.find(kind, "blocked") {
			got = append(got, fmt.Sprintf("%s %s:%d %s ×%d", r.Method, r.Host, r.Port, r.Reason, r.Count))
		}
	}
	want := []string{
		"CONNECT 203.0.113.7:22 port not allowed: 22 ×2",
		"UDP 2001:db8::1:443 UDP is not allowed: port 443 ×0",
		"SOCKET :0 socket not allowed: AF_PACKET ×0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestNewNeedsEverything(t *testing.T) {
	if _, err := New(Options{Config: config.Default()}); err == nil {
		t.Error("a gateway without an audit log was made")
	}
	if _, err := New(Options{Audit: &log{}}); err == nil {
		t.Error("a gateway without a config was made")
	}
	gw, err := New(Options{Config: config.Default(), Audit: &log{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := gw.Attach(cage.Listeners{}); err == nil {
		t.Error("a cage without listeners was attached")
	}
	if err := gw.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
