package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy/ws"
)

const wsKey = "dGhlIHNhbXBsZSBub25jZQ=="

// wsServer echoes text frames of less than 126 bytes.
var wsServer = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Sec-Websocket-Extensions") != "" || r.ProtoMajor != 1 {
		w.WriteHeader(400)
		return
	}
	accept := ws.Accept(r.Header.Get("Sec-Websocket-Key"))
	if r.URL.Path == "/badproof" {
		accept = "AAAAAAAAAAAAAAAAAAAAAAAAAAA="
	}
	protocol := "websocket"
	if r.URL.Path == "/other" {
		protocol = "tls"
	}
	if r.URL.Path == "/no" {
		http.Error(w, "not here", 404)
		return
	}
	c, rw, _ := w.(http.Hijacker).Hijack()
	defer c.Close()
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: chat\r\n\r\n", protocol, accept)
	for {
		text, err := readFrame(rw.Reader)
		if err != nil {
			return
		}
		writeFrame(c, text, false)
	}
})

func writeFrame(w io.Writer, text string, masked bool) error {
	b := []byte{0x81, byte(len(text))}
	if masked {
		b[1] |= 0x80
		b = append(b, 0, 0, 0, 0)
	}
	_, err := w.Write(append(b, text...))
	return err
}

func readFrame(r *bufio.Reader) (string, error) {
	var h [2]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return "", err
	}
	if h[0] != 0x81 {
		return "", fmt.Errorf("frame %x", h)
	}
	n := int(h[1] & 0x7f)
	var mask [4]byte
	if h[1]&0x80 != 0 {
		io.ReadFull(r, mask[:])
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	for i := range b {
		b[i] ^= mask[i%4]
	}
	return string(b), err
}

func handshake(host, path, extra string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " +
		wsKey + "\r\nSec-WebSocket-Version: 13\r\n" + extra + "\r\n"
}

// webSocketTo opens a WebSocket over TLS in a tunnel.
func (w *world) webSocketTo(path string) (net.Conn, *bufio.Reader, *http.Response) {
	w.t.Helper()
	c, err := w.connect(good + ":443")
	if err != nil {
		w.t.Fatal(err)
	}
	tc := w.tlsIn(c, good)
	tc.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(tc, handshake(good, path, "Sec-WebSocket-Extensions: permessage-deflate\r\n"))
	br := bufio.NewReader(tc)
	res, err := http.ReadResponse(br, &http.Request{Method: "GET"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return tc, br, res
}

func roundTrip(c net.Conn, br *bufio.Reader, text string) error {
	if err := writeFrame(c, text, true); err != nil {
		return err
	}
	got, err := readFrame(br)
	if err == nil && got != text {
		err = fmt.Errorf("echo %q", got)
	}
	return err
}

func TestWebSocket(t *testing.T) {
	w := newWorld(t, only(good), wsServer)
	c, br, res := w.webSocketTo("/")
	if res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != ws.Accept(wsKey) || res.Header.Get("Sec-Websocket-Protocol") != "chat" {
		t.Fatalf("%s %v", res.Status, res.Header)
	}
	for range 3 {
		if err := roundTrip(c, br, "hello"); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, res := w.webSocketTo("/no"); res.StatusCode != 404 {
		t.Errorf("refused by the server: %s", res.Status)
	}
}

// TestWebSocketHandshakeIsChecked: a 101 that is no WebSocket would be a raw
// tunnel.
func TestWebSocketHandshakeIsChecked(t *testing.T) {
	w := newWorld(t, only(good), wsServer)
	for _, path := range []string{"/badproof", "/other"} {
		if _, _, res := w.webSocketTo(path); res.StatusCode != 502 {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	n := len(w.requests())
	for _, head := range []string{
		handshake(evil, "/", ""),
		strings.Replace(handshake(good, "/", ""), ": 13", ": 8", 1),
		strings.Replace(handshake(good, "/", ""), wsKey, "short", 1),
		strings.Replace(handshake(good, "/", ""), "GET", "POST", 1),
	} {
		if res, body := raw(t, w.dialTo(w.plain), head); res.StatusCode != 403 || !refusalOf(t, body).Blocked {
			t.Errorf("%q: %s %s", head, res.Status, body)
		}
	}
	if len(w.requests()) != n {
		t.Error("a refused handshake was forwarded")
	}
}

// passing is only(hosts) with TLS to good passed through.
func passing(hosts ...string) policyFunc {
	p := only(hosts...)
	p.pass = map[string]bool{good: true}
	return p
}

// throughTo does TLS with the server itself.
func (w *world) throughTo(connect string, sni string) (*tls.Conn, error) {
	var c net.Conn
	var err error
	if connect != "" {
		c, err = w.connect(connect)
	} else {
		c, err = net.Dial("tcp", w.tls.Addr().String())
	}
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { c.Close() })
	tc := tls.Client(c, &tls.Config{ServerName: sni, RootCAs: pool(w.server), NextProtos: []string{"http/1.1"}})
	tc.SetDeadline(time.Now().Add(30 * time.Second))
	return tc, tc.Handshake()
}

// TestPassthrough is rules.md 7: spliced, untouched, to the server that the
// name resolves to.
func TestPassthrough(t *testing.T) {
	for _, connect := range []string{"", good + ":443"} {
		w := newWorld(t, passing(good), echo)
		tc, err := w.throughTo(connect, good)
		if err != nil {
			t.Fatal(err)
		}
		if res, body := raw(t, tc, "GET /x HTTP/1.1\r\nHost: "+good+"\r\n\r\n"); body != "GET "+good+" /x" {
			t.Errorf("%s %q", res.Status, body)
		}
		r := w.audit.all()[0]
		if r.Kind != audit.KindTunnel || r.Decision != "allowed" || r.Host != good || r.Port != 443 {
			t.Errorf("%+v", r)
		}
		if w.dialer.dialed[0] != good+":443" {
			t.Errorf("dialled %v", w.dialer.dialed)
		}
	}
}

// TestPassthroughIsDecidedToo is peer-holes A3 to A5 and A14.
func TestPassthroughIsDecidedToo(t *testing.T) {
	refused := newWorld(t, passing(), echo)
	for _, connect := range []string{"", good + ":443"} {
		if _, err := refused.throughTo(connect, good); err == nil || !strings.Contains(err.Error(), "access denied") {
			t.Errorf("not allowed: %v", err)
		}
		refused.audit.await(t, "the block", reasonHas("domain not in allowlist: "+good))
	}
	w := newWorld(t, passing(good, evil), echo)
	for _, tt := range [][2]string{{evil + ":443", good}, {good + ":443", evil}} {
		// Our certificate is shown, so that the reason can be.
		if _, err := w.throughTo(tt[0], tt[1]); err == nil {
			t.Errorf("CONNECT %s, SNI %s was passed through", tt[0], tt[1])
		}
		c, err := w.connect(tt[0])
		if err != nil {
			t.Fatal(err)
		}
		res, body := raw(t, w.tlsIn(c, tt[1]), "GET / HTTP/1.1\r\nHost: "+tt[1]+"\r\nConnection: close\r\n\r\n")
		if res.StatusCode != 403 || !strings.Contains(body, "SNI/Host header mismatch") {
			t.Errorf("%s %s", res.Status, body)
		}
		c.Close()
	}
	if w.dialer.count()+refused.dialer.count() != 0 {
		t.Error("a server was dialled")
	}
}

// TestUpdateEndsWhatIsNoLongerAllowed is peer-holes A13.
func TestUpdateEndsWhatIsNoLongerAllowed(t *testing.T) {
	begun := make(chan bool, 16)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ws" {
			wsServer(w, r)
			return
		}
		w.(http.Flusher).Flush()
		begun <- true
		<-r.Context().Done()
	})
	open := func(w *world) map[string]io.Reader {
		streams := make(map[string]io.Reader)
		for _, way := range ways {
			req, _ := http.NewRequest("GET", way.scheme+"://"+good+"/stream", nil)
			res, err := way.make(w).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			w.t.Cleanup(func() { res.Body.Close() })
			<-begun
			streams[way.name] = res.Body
		}
		c, br, _ := w.webSocketTo("/ws")
		if err := roundTrip(c, br, "x"); err != nil {
			t.Fatal(err)
		}
		streams["websocket"] = br
		return streams
	}
	w := newWorld(t, only(good), h)
	streams := open(w)
	w.e.Update(only(evil))
	for name, r := range streams {
		if _, err := io.Copy(io.Discard, r); name != "websocket" && err == nil {
			t.Errorf("%s ended as if it was complete", name)
		}
	}
	w.audit.await(t, "the end", reasonHas("policy changed: domain not in allowlist"))
	if res, _ := get(t, w.viaProxy(), "https://"+good+"/"); res.StatusCode != 403 {
		t.Errorf("the old policy still decides: %s", res.Status)
	}

	// Positive control: what stays allowed goes on.
	w = newWorld(t, only(good), h)
	c, br, _ := w.webSocketTo("/ws")
	w.e.Update(only(good, evil))
	if err := roundTrip(c, br, "still here"); err != nil {
		t.Error(err)
	}
}

// TestUpdateRenewsConnections: a kept connection was dialled and verified by
// rules that may be gone.
func TestUpdateRenewsConnections(t *testing.T) {
	for _, way := range ways {
		w := newWorld(t, only(good), echo)
		rt := way.make(w)
		ok := func(when string, dialed int) {
			t.Helper()
			if res, _ := get(t, rt, way.scheme+"://"+good+"/"); res.StatusCode != 200 || w.dialer.count() != dialed {
				t.Errorf("%s: %s: %s, dialled %d times, want %d", way.name, when, res.Status, w.dialer.count(), dialed)
			}
		}
		ok("first", 1)
		ok("kept", 1)
		w.e.Update(only(good))
		ok("another policy", 2)
		if way.scheme == "https" {
			w.e.UpdateRoots(pool(newCA(t)))
			if res, body := get(t, rt, "https://"+good+"/"); res.StatusCode != 502 {
				t.Errorf("%s: another authority: %s %s", way.name, res.Status, body)
			}
		}
	}
}

func TestUpdateEndsTunnels(t *testing.T) {
	for name, p := range map[string]policyFunc{"not allowed": passing(evil), "no passthrough": only(good)} {
		w := newWorld(t, passing(good), echo)
		tc, err := w.throughTo("", good)
		if err != nil {
			t.Fatal(err)
		}
		w.e.Update(p)
		if _, err := io.Copy(io.Discard, tc); err == nil {
			t.Logf("%s: ended cleanly", name)
		}
		w.audit.await(t, "the end", reasonHas("policy changed"))
	}
}

// TestRateLimitDoesNotEndWhatRuns: asking again must not cost what runs.
func TestRateLimitDoesNotEndWhatRuns(t *testing.T) {
	w := newWorld(t, only(good), wsServer)
	c, br, _ := w.webSocketTo("/")
	w.e.Update(policyFunc{decide: func(*inspectRequest) inspectVerdict {
		return inspectVerdict{Reason: "rate limit exceeded", Status: 429}
	}})
	if err := roundTrip(c, br, "still here"); err != nil {
		t.Error(err)
	}
}

// TestShutdownDrains: what runs ends well, what is idle goes at once.
func TestShutdownDrains(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "begun,")
		w.(http.Flusher).Flush()
		begun <- true
		<-finish
		io.WriteString(w, "done")
	})
	for _, way := range ways {
		w := newWorld(t, only(good), h)
		idle := w.dialTo(w.tls)
		var body string
		var wg sync.WaitGroup
		wg.Go(func() { _, body = get(t, way.make(w), way.scheme+"://"+good+"/") })
		<-begun
		ended := make(chan error)
		go func() { ended <- w.e.Shutdown(context.Background()) }()
		idle.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := idle.Read(make([]byte, 1)); errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: an idle connection stays", way.name)
		}
		if c, err := net.Dial("tcp", w.proxy.Addr().String()); err == nil {
			c.Close()
			t.Errorf("%s: a new connection was accepted", way.name)
		}
		finish <- true
		wg.Wait()
		if err := <-ended; err != nil || body != "begun,done" {
			t.Errorf("%s: %v %q", way.name, err, body)
		}
	}
}

func TestShutdownCutsOff(t *testing.T) {
	w := newWorld(t, passing(good, evil), wsServer)
	tc, err := w.throughTo("", good)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := w.e.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := io.Copy(io.Discard, tc); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("the tunnel stays")
	}
	if err := w.e.Shutdown(context.Background()); err != nil {
		t.Errorf("second shutdown: %v", err)
	}
}

// TestSlowClientsAreClosed: a header that never ends, at each stage.
func TestSlowClientsAreClosed(t *testing.T) {
	w := newWorld(t, only(good), echo, func(o *Options) {
		o.Limits.HeaderTimeout = 30 * time.Millisecond
		o.Limits.IdleTimeout = 60 * time.Millisecond
	})
	for name, start := range map[string]string{
		"nothing": "", "half a header": "GET / HTTP/1.1\r\nHost: ", "half a body": "POST / HTTP/1.1\r\nHost: " + good + "\r\nContent-Length: 10\r\n\r\n12345", "half a hello": "\x16\x03\x01\x02\x00\x01", "idle": "GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n",
	} {
		c := w.dialTo(w.plain)
		io.WriteString(c, start)
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || err != nil && strings.Contains(err.Error(), "i/o timeout") {
			t.Errorf("%s: not closed", name)
		}
	}
	for _, r := range w.requests() {
		if r.Method == "POST" {
			t.Error("half a body was forwarded")
		}
	}
}

// TestConnectionLimit: the next one waits, and is served when there is room.
func TestConnectionLimit(t *testing.T) {
	w := newWorld(t, only(good), echo, func(o *Options) { o.Limits.MaxConns = 1 })
	first := w.dialTo(w.plain)
	if res, _ := raw(t, first, "GET / HTTP/1.1\r\nHost: "+good+"\r\n\r\n"); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	second := w.dialTo(w.plain)
	io.WriteString(second, "GET /2 HTTP/1.1\r\nHost: "+good+"\r\n\r\n")
	second.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Error("a second connection was served")
	}
	first.Close()
	second.SetReadDeadline(time.Now().Add(20 * time.Second))
	if res, err := http.ReadResponse(bufio.NewReader(second), nil); err != nil || res.StatusCode != 200 {
		t.Errorf("%v %v", res, err)
	}
}

func TestRequestLimit(t *testing.T) {
	begun := make(chan bool)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { begun <- true; <-r.Context().Done() })
	w := newWorld(t, only(good), h, func(o *Options) { o.Limits.MaxRequests = 1 })
	c := w.dialTo(w.plain)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+good+"\r\n\r\n")
	<-begun
	if res, body := raw(t, w.dialTo(w.plain), "GET / HTTP/1.1\r\nHost: "+good+"\r\n\r\n"); res.StatusCode != 429 {
		t.Errorf("%s %s", res.Status, body)
	}
}

// TestRapidReset opens and resets streams as fast as it can (CVE-2023-44487);
// the engine answers others all the while.
func TestRapidReset(t *testing.T) {
	w := newWorld(t, only(good), echo)
	c := newH2Client(t, w.tlsIn(w.dialTo(w.tls), good, "h2"))
	for range 2000 {
		id := c.send([][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", good}, {":path", "/"}})
		if c.fr.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
	}
	if res, _ := get(t, w.viaTransparent(), "https://"+good+"/"); res.StatusCode != 200 {
		t.Error(res.Status)
	}
}

func TestHeaderLimit(t *testing.T) {
	w := newWorld(t, only(good), echo)
	big := strings.Repeat("x", 70<<10)
	if res, _ := raw(t, w.dialTo(w.plain), "GET / HTTP/1.1\r\nHost: "+good+"\r\nX: "+big+"\r\n\r\n"); res.StatusCode != 431 {
		t.Error(res.Status)
	}
	req, _ := http.NewRequest("GET", "https://"+good+"/", nil)
	req.Header.Set("X", big)
	if res, err := h2(w.viaTransparent()).RoundTrip(req); err == nil {
		if res.Body.Close(); res.StatusCode != 431 {
			t.Error(res.Status)
		}
	}
	if w.dialer.count() != 0 {
		t.Error("a server was dialled")
	}
}

// TestPanicInUpstreamPath: a fault behind the decision is a refusal too.
func TestPanicInUpstreamPath(t *testing.T) {
	w := newWorld(t, only(good), echo, func(o *Options) { o.Dialer = panicDialer{} })
	tc, err := net.Dial("tcp", w.tls.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tc.Close()
	w.e.Update(passing(good))
	c := w.tlsIn(tc, good)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if c.Handshake() == nil {
		t.Error("a handshake succeeded")
	}
	w.e.Update(only(good))
	for _, way := range ways {
		if res, _ := get(t, way.make(w), way.scheme+"://"+good+"/"); res.StatusCode != 502 {
			t.Error(res.Status)
		}
	}
}

// TestResumptionCarriesNoIdentity: a session ticket of one host is shown with
// the name of another, and the name counts.
func TestResumptionCarriesNoIdentity(t *testing.T) {
	w := newWorld(t, only(good), echo)
	cache := anySession{tls.NewLRUClientSessionCache(1)}
	try := func(host string) (tls.ConnectionState, int) {
		c := tls.Client(w.dialTo(w.tls), &tls.Config{ServerName: host, InsecureSkipVerify: true, ClientSessionCache: cache})
		res, _ := raw(t, c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		return c.ConnectionState(), res.StatusCode
	}
	if _, status := try(good); status != 200 {
		t.Fatal(status)
	}
	if state, status := try(good); status != 200 || !state.DidResume {
		t.Fatalf("no session was resumed: %d", status)
	}
	if state, status := try(evil); status != 403 || !state.DidResume {
		t.Errorf("status %d, resumed %v", status, state.DidResume)
	}
}

// anySession offers the one session to every host.
type anySession struct{ tls.ClientSessionCache }

func (a anySession) Get(string) (*tls.ClientSessionState, bool) { return a.ClientSessionCache.Get("") }

func (a anySession) Put(_ string, s *tls.ClientSessionState) { a.ClientSessionCache.Put("", s) }

// TestPolicyThatPanicsInPassthrough closes one connection and no more.
func TestPolicyThatPanicsInPassthrough(t *testing.T) {
	w := newWorld(t, panicPolicy{}, echo)
	if _, err := w.throughTo("", good); err == nil {
		t.Error("a handshake succeeded")
	}
	w.e.Update(only(good))
	if res, _ := get(t, w.viaTransparent(), "https://"+good+"/"); res.StatusCode != 200 {
		t.Error(res.Status)
	}
}

type panicPolicy struct{}

func (panicPolicy) Decide(context.Context, *inspect.Request) inspect.Verdict { panic("a bug") }

func (panicPolicy) Passthrough(hostname.Name, uint16) bool { panic("a bug") }

type panicDialer struct{}

func (panicDialer) Dial(context.Context, hostname.Name, uint16) (net.Conn, error) { panic("a bug") }
