//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// half is `agentcage proxy` or `agentcage dns` in the foreground.
type half struct {
	t    *testing.T
	b    *bench
	cmd  *exec.Cmd
	addr map[string]string // by what the program says listens there

	mu   sync.Mutex
	said bytes.Buffer
	news chan struct{}
}

// serve starts a half and returns when it has said that it is ready.
func (b *bench) serve(args ...string) *half {
	b.t.Helper()
	r, w, err := os.Pipe()
	must(b.t, err)
	defer r.Close()
	h := &half{t: b.t, b: b, cmd: exec.Command(bin, append(args, "--ready-fd", "3")...), addr: map[string]string{}, news: make(chan struct{})}
	h.cmd.Dir, h.cmd.Env, h.cmd.ExtraFiles, h.cmd.Stderr = b.dir, b.env, []*os.File{w}, h
	must(b.t, h.cmd.Start())
	w.Close()
	b.t.Cleanup(func() {
		_ = h.cmd.Process.Kill() // it may have ended
		_ = h.cmd.Wait()         // as above
	})
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line != "ready\n" {
		_ = h.cmd.Wait() // it has failed
		b.t.Fatalf("it is not ready (%q %v); it says %s", line, err, h.text())
	}
	for _, m := range regexp.MustCompile(`agentcage: (.+) on (\S+)\n`).FindAllStringSubmatch(h.text(), -1) {
		h.addr[m[1]] = m[2]
	}
	return h
}

// Write takes what the program says on standard error.
func (h *half) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said.Write(p)
	close(h.news)
	h.news = make(chan struct{})
	return len(p), nil
}

func (h *half) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.said.String()
}

// await waits until the program has said something n times.
func (h *half) await(what string, n int) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		h.mu.Lock()
		said, news := strings.Count(h.said.String(), what), h.news
		h.mu.Unlock()
		if said >= n {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			h.t.Fatalf("it never said %q %d times, but %s", what, n, h.text())
		}
	}
}

func (h *half) stop(sig syscall.Signal) int {
	h.t.Helper()
	must(h.t, h.cmd.Process.Signal(sig))
	_ = h.cmd.Wait() // the code says it
	return h.cmd.ProcessState.ExitCode()
}

func (b *bench) proxy(extra ...string) *half {
	b.t.Helper()
	return b.serve(append([]string{
		"proxy", "-c", "cage.yaml", "--listen", "127.0.0.1:0", "--ca-dir", "ca", "--audit", "audit.jsonl",
		"--transparent-http", "127.0.0.1:0", "--transparent-tls", "127.0.0.1:0",
	}, extra...)...)
}

// client goes through the proxy and trusts its authority.
func (h *half) client() *http.Client {
	h.t.Helper()
	pem, err := os.ReadFile(filepath.Join(h.b.dir, "ca", "ca.pem"))
	must(h.t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: h.addr["proxy"]}), TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
	}}
}

func (h *half) get(u string) (int, string) {
	h.t.Helper()
	res, err := h.client().Get(u)
	must(h.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(h.t, err)
	return res.StatusCode, string(body)
}

func TestProxyServes(t *testing.T) {
	b, s := onSite(t, good)
	h := b.proxy()
	for _, scheme := range []string{"http", "https"} {
		if code, body := h.get(s.url(scheme, good, "/x")); code != 200 || !strings.Contains(body, `"URI":"/x"`) {
			t.Errorf("%s: %d %s", scheme, code, body)
		}
		if code, body := h.get(s.url(scheme, evil, "/x")); code != 403 || !strings.Contains(body, "domain not in allowlist: "+evil) {
			t.Errorf("%s: %d %s", scheme, code, body)
		}
	}
	s.untouched(t, evil)
	if log := b.read("audit.jsonl"); !strings.Contains(log, evil) || !strings.Contains(log, `"allowed"`) {
		t.Errorf("the audit has %s", log)
	}
	if code := h.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, h.text())
	}
}

// TestProxyTransparent: whatever address a client thinks it talks to.
func TestProxyTransparent(t *testing.T) {
	b, s := onSite(t)
	b.write("cage.yaml", strings.Replace(s.config(), "upstream:", "domains:\n  allow: [good.test]\nupstream:", 1))
	h := b.proxy()
	for _, host := range []string{good, evil} {
		c, err := net.Dial("tcp", h.addr["transparent HTTP"])
		must(t, err)
		defer c.Close()
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
		answer, err := io.ReadAll(c)
		must(t, err)
		// The server is not on port 80, so the allowed host is a failure of
		// the gateway's connection, and not a refusal.
		if want := map[string]string{good: "HTTP/1.1 502", evil: "HTTP/1.1 403"}[host]; !strings.HasPrefix(string(answer), want) {
			t.Errorf("%s: %s", host, answer)
		}
	}
}

// TestProxyAuthority: made once, kept, and its key for nobody else (73, 74, 80).
func TestProxyAuthority(t *testing.T) {
	b, _ := onSite(t, good)
	h := b.proxy()
	first := b.read("ca/ca.pem")
	for name, others := range map[string]os.FileMode{"ca/ca-key.pem": 0o077, "ca/ca.pem": 0o022, "ca": 0o022} {
		fi, err := os.Stat(filepath.Join(b.dir, name))
		must(t, err)
		if fi.Mode().Perm()&others != 0 {
			t.Errorf("%s has mode %v", name, fi.Mode())
		}
	}
	block, _ := pem.Decode([]byte(first))
	if cert, err := x509.ParseCertificate(block.Bytes); err != nil || !cert.IsCA || cert.PublicKeyAlgorithm != x509.ECDSA {
		t.Errorf("the certificate is %+v %v", cert, err)
	}
	h.stop(syscall.SIGTERM)
	b.proxy()
	if b.read("ca/ca.pem") != first {
		t.Error("a second start made another authority")
	}
	// A key that others can read is not used.
	must(t, os.Chmod(filepath.Join(b.dir, "ca/ca-key.pem"), 0o644))
	if r := b.agentcage("proxy", "-c", "cage.yaml", "--ca-dir", "ca", "--listen", "127.0.0.1:0"); r.code == 0 || !strings.Contains(r.stderr, "ca-key.pem") {
		t.Errorf("with a key of mode 0644: %d %s", r.code, r.stderr)
	}
}

// TestProxyReload: SIGHUP and a changed file; a bad config keeps the old
// policy (24, 46, 97).
func TestProxyReload(t *testing.T) {
	b, s := onSite(t, good)
	h := b.proxy()
	if code, _ := h.get(s.url("https", evil, "/")); code != 403 {
		t.Fatalf("before: %d", code)
	}
	b.write("cage.yaml", s.config(good, evil))
	h.await("agentcage: reloaded", 1)
	if code, _ := h.get(s.url("https", evil, "/")); code != 200 {
		t.Errorf("after a change of the file: %d", code)
	}
	b.write("cage.yaml", "name: x\nnonsense: true\n")
	h.await("the old policy stays in force", 1)
	h.await("cage.yaml:2:1: cannot", 1)
	if code, _ := h.get(s.url("https", evil, "/")); code != 200 {
		t.Errorf("after a bad config: %d", code)
	}
	if !strings.Contains(b.read("audit.jsonl"), "config_reload_failed") {
		t.Error("the audit does not have the failed reload")
	}
	// Replaced by renaming, as editors do.
	b.write("new.yaml", s.config(good))
	must(t, os.Rename(filepath.Join(b.dir, "new.yaml"), filepath.Join(b.dir, "cage.yaml")))
	h.await("agentcage: reloaded", 2)
	if code, _ := h.get(s.url("https", evil, "/")); code != 403 {
		t.Errorf("after a replaced file: %d", code)
	}
	must(t, h.cmd.Process.Signal(syscall.SIGHUP))
	h.await("agentcage: reloaded", 3)
	if code, _ := h.get(s.url("https", good, "/")); code != 200 {
		t.Errorf("after SIGHUP: %d", code)
	}
}

// TestProxyReloadClosesStreams: what the new policy does not allow ends (A13).
func TestProxyReloadClosesStreams(t *testing.T) {
	b, s := onSite(t, good, evil)
	stream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: first\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	s.mux[evil] = stream
	h := b.proxy()
	res, err := h.client().Get(s.url("https", evil, "/events"))
	must(t, err)
	defer res.Body.Close()
	events := bufio.NewReader(res.Body)
	if line, err := events.ReadString('\n'); err != nil || line != "data: first\n" {
		t.Fatalf("the stream says %q %v", line, err)
	}
	b.write("cage.yaml", s.config(good))
	h.await("agentcage: reloaded", 1)
	rest, err := io.ReadAll(events)
	if err == nil {
		t.Errorf("the stream ended as if it were complete, with %q", rest)
	}
	if !strings.Contains(b.read("audit.jsonl"), "policy changed") {
		t.Error("the audit does not say why the stream ended")
	}
}

// TestProxyDrains: SIGTERM lets what is under way finish, and takes nothing new.
func TestProxyDrains(t *testing.T) {
	b, s := onSite(t, good)
	begun, finish := make(chan struct{}), make(chan struct{})
	s.mux[good] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		_, _ = io.WriteString(w, "finished") // the client may be gone
	})
	h := b.proxy()
	c := h.client()
	type answer struct {
		body string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		res, err := c.Get(s.url("http", good, "/"))
		if err != nil {
			got <- answer{"", err}
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		got <- answer{string(body), err}
	}()
	<-begun
	must(t, h.cmd.Process.Signal(syscall.SIGTERM))
	for { // until it takes no more connections
		conn, err := net.DialTimeout("tcp", h.addr["proxy"], time.Second)
		if err != nil {
			break
		}
		conn.Close()
	}
	close(finish)
	if a := <-got; a.body != "finished" || a.err != nil {
		t.Errorf("the request under way ended with %+v", a)
	}
	_ = h.cmd.Wait() // the code says it
	if code := h.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d: %s", code, h.text())
	}
}

func TestProxyRefusesToListenToAll(t *testing.T) {
	b, _ := onSite(t, good)
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		b.agentcage("proxy", "-c", "cage.yaml", "--ca-dir", "ca", "--listen", addr).fails(t, 2, "cannot listen", "hint: ")
	}
	if _, err := os.Stat(filepath.Join(b.dir, "ca")); err == nil {
		t.Error("the authority was made all the same")
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer busy.Close()
	b.agentcage("proxy", "-c", "cage.yaml", "--ca-dir", "ca", "--listen", busy.Addr().String()).fails(t, 1, "error: cannot listen")
}

// TestDNS: everything is answered here, and nothing leaves.
func TestDNS(t *testing.T) {
	b, s := onSite(t, good)
	h := b.serve("dns", "-c", "cage.yaml", "--listen", "127.0.0.1:0", "--audit", "audit.jsonl")
	ask := func(network, name string, typ uint16) *dns.Msg {
		t.Helper()
		c := dns.Client{Net: network, Timeout: patience}
		m, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, typ), h.addr["DNS"])
		must(t, err)
		return m
	}
	for _, network := range []string{"udp", "tcp"} {
		if m := ask(network, good+".", dns.TypeA); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "127.0.0.1" {
			t.Errorf("%s: %v", network, m)
		}
		if m := ask(network, "data."+evil+".", dns.TypeA); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "198.51.100.1" {
			t.Errorf("%s: %v", network, m)
		}
		if m := ask(network, "data."+evil+".", dns.TypeTXT); len(m.Answer) != 0 || m.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: %v", network, m)
		}
	}
	b.write("cage.yaml", s.config(good, evil))
	h.await("agentcage: reloaded", 1)
	if m := ask("udp", evil+".", dns.TypeA); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "127.0.0.1" {
		t.Errorf("after a reload: %v", m)
	}
	if code := h.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestProxySmuggling sends requests that parsers disagree about, to the real
// proxy, with a server that records bytes (A8).
func TestProxySmuggling(t *testing.T) {
	b := newBench(t)
	upstream := newRecorder(t)
	s := &site{port: upstream.port, caFile: b.write("no-ca.pem", b.somePEM())}
	b.write("cage.yaml", s.config(good))
	h := b.proxy()
	target := s.url("http", good, "/")
	host := strings.TrimSuffix(strings.TrimPrefix(target, "http://"), "/")
	hidden := "GET http://" + evil + "/smuggled HTTP/1.1\r\nHost: " + evil + "\r\n\r\n"
	send := func(bytes string) string {
		t.Helper()
		c, err := net.Dial("tcp", h.addr["proxy"])
		must(t, err)
		defer c.Close()
		must(t, c.SetDeadline(time.Now().Add(patience)))
		_, _ = io.WriteString(c, bytes) // it may be refused before it is all said
		got, _ := io.ReadAll(c)         // a reset after the answer is an end as well
		return string(got)
	}
	for name, request := range map[string]string{
		"cl and te":     "POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"te and cl":     "POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + hidden,
		"two lengths":   "POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 0\r\nContent-Length: 99\r\n\r\n" + hidden,
		"length with +": "POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: +5\r\n\r\nhello" + hidden,
		"te twice":      "POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden,
		"te identity":   "POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: identity\r\n\r\n" + hidden,
		"te tab":        "POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + hidden,
		"bare lf":       "GET " + target + " HTTP/1.1\nHost: " + host + "\n\n" + hidden,
		"obs-fold":      "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nX: a\r\n b\r\n\r\n",
		"space in name": "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Length : 3\r\n\r\nabc",
		"two hosts":     "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nHost: " + evil + "\r\n\r\n",
		"http/0.9":      "GET " + target + "\r\n\r\n",
		"http/3.0":      "GET " + target + " HTTP/3.0\r\nHost: " + host + "\r\n\r\n",
		"nul":           "GET " + target + "\x00 HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"huge header":   "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nX: " + strings.Repeat("a", 4<<20) + "\r\n\r\n",
		"many headers":  "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Repeat("X: a\r\n", 200_000) + "\r\n",
		"backslash":     "GET http://" + evil + "\\@" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			upstream.reset()
			if got := send(request); strings.HasPrefix(got, "HTTP/1.1 2") {
				t.Errorf("the client got %s", clip(got))
			}
			if got := upstream.text(); strings.Contains(got, "smuggled") || strings.Contains(got, "GET /") || strings.Contains(got, "POST /") {
				t.Errorf("the server received %q", got)
			}
		})
	}
	// The control, and the process lives.
	upstream.reset()
	if got := send("GET " + target + "honest HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.HasPrefix(upstream.text(), "GET /honest HTTP/1.1\r\nHost: "+host+"\r\n") {
		t.Errorf("the control failed: %q, the server received %q", clip(got), upstream.text())
	}
}

func (b *bench) somePEM() string {
	b.t.Helper()
	data, err := os.ReadFile(newSite(b.t).caFile)
	must(b.t, err)
	return string(data)
}

// recorder is a server that keeps every byte and answers each connection once.
type recorder struct {
	port int
	mu   sync.Mutex
	got  bytes.Buffer
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	r := &recorder{port: l.Addr().(*net.TCPAddr).Port}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(c)
		}
	}()
	return r
}

func (r *recorder) serve(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		r.mu.Lock()
		r.got.Write(buf[:n])
		whole := bytes.Contains(r.got.Bytes(), []byte("\r\n\r\n"))
		r.mu.Unlock()
		if whole {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok") // the proxy may be gone
			return
		}
		if err != nil {
			return
		}
	}
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got.String()
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got.Reset()
}
