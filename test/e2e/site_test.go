//go:build linux

package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
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

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/proxy/ca"
)

// The names of the suite's servers.
const (
	good = "good.test"
	evil = "evil.test"
)

// request is what a server received.
type request struct {
	Method, Host, URI, Proto, Body string
	TLS                            bool
	Header                         http.Header `json:"-"`
}

// site is a set of servers under several names on one port of loopback: HTTP
// and HTTPS alike, with an authority that no system trusts.
type site struct {
	port   int
	caFile string
	mux    map[string]http.Handler // by host name; others are echoed

	mu   sync.Mutex
	got  map[string][]request
	hits map[string]int // connections by name, with TLS
	raw  int
}

func newSite(t *testing.T) *site { return newSiteAt(t, "127.0.0.1:0") }

func newSiteAt(t *testing.T, addr string) *site {
	t.Helper()
	authority, err := ca.New("e2e servers")
	must(t, err)
	s := &site{caFile: filepath.Join(t.TempDir(), "upstream-ca.pem"), mux: map[string]http.Handler{}, got: map[string][]request{}, hits: map[string]int{}}
	must(t, os.WriteFile(s.caFile, authority.PEM(), 0o644))
	l, err := net.Listen("tcp", addr)
	must(t, err)
	s.port = l.Addr().(*net.TCPAddr).Port
	h := &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0)}
	config := &tls.Config{
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			s.mu.Lock()
			s.hits[hello.ServerName]++
			s.mu.Unlock()
			n, err := hostname.Parse(hello.ServerName)
			if err != nil {
				return nil, err
			}
			return authority.Certificate(n)
		},
	}
	h.TLSConfig = config
	plain, secure := &fed{addr: l.Addr(), c: make(chan net.Conn), done: make(chan struct{})}, &fed{addr: l.Addr(), c: make(chan net.Conn), done: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Serve(plain) })             // ends with Close
	wg.Go(func() { _ = h.ServeTLS(secure, "", "") }) // ends with Close
	wg.Go(func() { s.sort(l, plain, secure) })
	t.Cleanup(func() {
		l.Close()
		plain.Close()
		secure.Close()
		h.Close()
		wg.Wait()
	})
	return s
}

func (s *site) sort(l net.Listener, plain, secure *fed) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.raw++
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
			case to.c <- &peeked{c, r}:
			case <-to.done:
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

// fed is a listener whose connections come from elsewhere.
type fed struct {
	addr net.Addr
	c    chan net.Conn
	done chan struct{}
	once sync.Once
}

func (f *fed) Accept() (net.Conn, error) {
	select {
	case c := <-f.c:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}
func (f *fed) Addr() net.Addr { return f.addr }
func (f *fed) Close() error   { f.once.Do(func() { close(f.done) }); return nil }

// ServeHTTP records a request and passes it to the handler of its host, or
// says what was received.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if h, ok := s.mux[host]; ok {
		s.note(host, request{r.Method, r.Host, r.RequestURI, r.Proto, "", r.TLS != nil, r.Header.Clone()})
		h.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<24))
	if err != nil {
		return
	}
	rec := request{r.Method, r.Host, r.RequestURI, r.Proto, string(body), r.TLS != nil, r.Header.Clone()}
	s.note(host, rec)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(rec) // the client may be gone
}

func (s *site) note(host string, r request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got[host] = append(s.got[host], r)
}

func (s *site) received(host string) []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.got[host]...)
}

// untouched fails when a host was connected to at all.
func (s *site) untouched(t *testing.T, host string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got[host]) > 0 || s.hits[host] > 0 {
		t.Errorf("%s received %d connections and %+v", host, s.hits[host], s.got[host])
	}
}

func (s *site) url(scheme, host, path string) string {
	if s.port == 443 && scheme == "https" || s.port == 80 && scheme == "http" {
		return scheme + "://" + host + path
	}
	return fmt.Sprintf("%s://%s:%d%s", scheme, host, s.port, path)
}

// config is a cage.yaml that allows hosts of this site. All names resolve to
// it: only the list decides.
func (s *site) config(allowed ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: e2e\nlogging:\n  allowed_requests: true\nrate_limit:\n  requests_per_second: 0\n")
	if len(allowed) > 0 {
		fmt.Fprintf(&b, "domains:\n  allow:\n")
	}
	for _, h := range allowed {
		fmt.Fprintf(&b, "    - host: %s\n      ports: [%d]\n", h, s.port)
	}
	fmt.Fprintf(&b, "upstream:\n  ca_files: [%q]\n  allow_private: [127.0.0.0/8]\n  hosts:\n", s.caFile)
	for _, h := range []string{good, evil, "git.test", "pypi.test", "npm.test", "goproxy.test", "crates.test", "apt.test"} {
		fmt.Fprintf(&b, "    %s: 127.0.0.1\n", h)
	}
	return b.String()
}

// onSite makes a bench whose cage.yaml allows hosts of a new site.
func onSite(t *testing.T, allowed ...string) (*bench, *site) {
	t.Helper()
	b, s := newBench(t), newSite(t)
	b.s = s
	b.write("cage.yaml", s.config(allowed...))
	return b, s
}
