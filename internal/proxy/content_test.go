package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/inspect"
)

// secret is what a readingPolicy finds.
const secret = "S3CRET-S3CRET"

// readingPolicy is only(good) that refuses content with the secret in it, and
// remembers what it was asked about.
type readingPolicy struct {
	policyFunc
	reads  inspect.Reads
	decide func(*inspect.Content) inspect.Verdict // nil looks for the secret
	drop   bool

	mu   sync.Mutex
	seen []inspect.Content
}

func readsOnly(reads inspect.Reads) *readingPolicy {
	return &readingPolicy{policyFunc: only(good), reads: reads}
}

func readsRequests() *readingPolicy  { return readsOnly(inspect.Reads{Request: true}) }
func readsMessages() *readingPolicy  { return readsOnly(inspect.Reads{Messages: true}) }
func readsResponses() *readingPolicy { return readsOnly(inspect.Reads{Responses: true}) }

func (p *readingPolicy) Reads(*inspect.Request) inspect.Reads { return p.reads }

func (p *readingPolicy) DropMessages() bool { return p.drop }

func (p *readingPolicy) DecideContent(_ context.Context, c *inspect.Content) inspect.Verdict {
	p.mu.Lock()
	kept := inspect.Content{Request: c.Request, Kind: c.Kind, Direction: c.Direction, Status: c.Status, Header: c.Header.Clone(), Type: c.Type, Encoding: c.Encoding, Body: bytes.Clone(c.Body), Repeated: c.Repeated}
	p.seen = append(p.seen, kept)
	p.mu.Unlock()
	if p.decide != nil {
		return p.decide(c)
	}
	return findSecret(c)
}

func findSecret(c *inspect.Content) inspect.Verdict {
	var b strings.Builder
	if c.Kind == inspect.KindRequest {
		fmt.Fprintln(&b, c.Request.Method, c.Request.URL)
	}
	for k, vv := range c.Header {
		fmt.Fprintln(&b, k, vv)
	}
	if strings.Contains(strings.ToUpper(b.String()), secret) || bytes.Contains(c.Body, []byte(secret)) {
		return inspect.Verdict{Reason: "secret found", Findings: []inspect.Finding{{Inspector: "secrets", Rule: "s3cret", Reason: "secret found", Severity: inspect.Critical}}}
	}
	return allowed()
}

func (p *readingPolicy) kinds() (out []inspect.Kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.seen {
		out = append(out, c.Kind)
	}
	return out
}

// got is a request as a server received it.
type got struct {
	path, sum string
	size      int
	header    http.Header
	trailer   http.Header
	err       error
}

// taker takes any request and remembers it.
type taker struct {
	mu  sync.Mutex
	got []got
}

func (s *taker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, got{r.URL.String(), sum(body), len(body), r.Header, r.Trailer, err})
}

func (s *taker) all() []got {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// unsized hides the length of a body.
func unsized(b []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(b)} }

// padded is a body of n bytes with text at a place.
func padded(n, at int, text string) []byte {
	b := bytes.Repeat([]byte("x"), n)
	copy(b[at:], text)
	return b
}

// free waits until nothing runs, and reports whether all memory came back. A
// transport closes a body some time after its answer, and tells nobody.
func (w *world) free() error {
	_ = w.e.flows.wait(context.Background())
	m, total := w.e.memory, w.e.limits.newMemory().free
	tick, deadline := time.NewTicker(time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for {
		m.mu.Lock()
		free, first, waiting := m.free, m.first, len(m.waiting)
		m.mu.Unlock()
		if free == total && first == nil && waiting == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("of %d bytes only %d are free, first %v, %d waiting", total, free, first, waiting)
		}
	}
}

// TestContentIsDecidedFirst is rules.md 45 and 46, peer-holes A8, D1 and D3:
// whatever place a secret is in, nothing of the request leaves, not even a
// connection is made; the same request with something else in its place
// arrives as it was sent.
func TestContentIsDecidedFirst(t *testing.T) {
	const kB, MB = 1 << 10, 1 << 20
	body := func(n, at int, known bool) func(*http.Request, string) {
		return func(r *http.Request, text string) {
			b := padded(n, at, text)
			r.Body = io.NopCloser(unsized(b))
			if r.ContentLength = -1; known {
				r.ContentLength = int64(n)
			}
		}
	}
	trailer := func(name string) func(*http.Request, string) {
		return func(r *http.Request, text string) {
			body(10, 0, false)(r, "")
			r.Trailer = http.Header{strings.ReplaceAll(name, "*", text): {"v-" + text}}
		}
	}
	places := map[string]func(r *http.Request, text string){
		"path":               func(r *http.Request, s string) { r.URL.Path = "/a/" + s },
		"query":              func(r *http.Request, s string) { r.URL.RawQuery = "q=" + s },
		"header value":       func(r *http.Request, s string) { r.Header.Set("X-A", s) },
		"header name":        func(r *http.Request, s string) { r.Header.Set("X-"+s, "1") },
		"second line":        func(r *http.Request, s string) { r.Header["X-A"] = []string{"1", s} },
		"trailer value":      trailer("X-T"),
		"trailer name":       trailer("X-*"),
		"small body":         body(100, 5, true),
		"small, unknown":     body(100, 5, false),
		"64 kB, end":         body(64*kB, 64*kB-len(secret), true),
		"more":               body(64*kB+1, 64*kB+1-len(secret), true),
		"more, unknown":      body(64*kB+1, 64*kB+1-len(secret), false),
		"300 kB, end":        body(300*kB, 300*kB-len(secret), true),
		"3 MB, end, unknown": body(3*MB, 3*MB-len(secret), false),
	}
	for _, way := range ways {
		server := &taker{}
		p := readsRequests()
		w := newWorld(t, p, server)
		rt := way.make(w)
		for name, put := range places {
			for _, text := range []string{secret, "H4RMLESS-HARM"} {
				req, _ := http.NewRequest("POST", way.scheme+"://"+good+"/", nil)
				put(req, text)
				want, trailer := "", req.Trailer
				if req.Body != nil {
					b, _ := io.ReadAll(req.Body)
					want = sum(b)
					req.Body = io.NopCloser(unsized(b))
				}
				dialed, received := w.dialer.count(), len(server.all())
				res, answer := do(t, rt, req)
				if text == secret {
					r := refusalOf(t, answer)
					if res.StatusCode != 403 || r.Reason != "secret found" || w.dialer.count() != dialed || len(server.all()) != received {
						t.Errorf("%s, %s: %s %s; %d dialled, %d received", way.name, name, res.Status, answer, w.dialer.count()-dialed, len(server.all())-received)
					}
					rec := w.audit.await(t, "the block", func(a audit.Record) bool { return a.ID == r.ID })
					if rec.Decision != "blocked" || rec.Revises != "" || len(rec.Inspectors) != 1 || rec.Inspectors[0].Rule != "s3cret" {
						t.Errorf("%s, %s: %+v", way.name, name, rec)
					}
					continue
				}
				all := server.all()
				if res.StatusCode != 200 || len(all) != received+1 {
					t.Fatalf("%s, %s, control: %s, %d received", way.name, name, res.Status, len(all)-received)
				}
				in := all[received]
				if in.err != nil || want != "" && in.sum != want {
					t.Errorf("%s, %s: another body arrived: %d bytes, %v", way.name, name, in.size, in.err)
				}
				for k := range trailer {
					if in.trailer.Get(k) != trailer[k][0] {
						t.Errorf("%s, %s: the trailer %v arrived", way.name, name, in.trailer)
					}
				}
			}
		}
		if got := len(w.audit.all()); got != 2*len(places) {
			t.Errorf("%s: %d records of %d requests", way.name, got, 2*len(places))
		}
		if err := w.free(); err != nil {
			t.Errorf("%s: %v", way.name, err)
		}
	}
}

// TestEachRequestIsDecided is peer-holes A8: the second of two in one packet,
// and on a connection that is kept.
func TestEachRequestIsDecided(t *testing.T) {
	server := &taker{}
	w := newWorld(t, readsRequests(), server)
	c := w.dialTo(w.plain)
	post := func(path, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", path, good, len(body), body)
	}
	chunked := func(path, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", path, good, len(body), body)
	}
	io.WriteString(c, post("/1", "fine")+post("/2", secret)+chunked("/3", "fine")+chunked("/4", secret)+post("/5", "fine"))
	br := bufio.NewReader(c)
	for i, want := range []int{200, 403, 200, 403, 200} {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		if res.StatusCode != want {
			t.Errorf("request %d: %s", i+1, res.Status)
		}
	}
	var paths []string
	for _, r := range server.all() {
		paths = append(paths, r.path)
	}
	if !slices.Equal(paths, []string{"/1", "/3", "/5"}) {
		t.Errorf("the server received %v", paths)
	}
}

// TestMoreThanOneType: which of two types a server believes is not known.
func TestMoreThanOneType(t *testing.T) {
	w := newWorld(t, readsRequests(), echo)
	for types, want := range map[string]int{"Content-Type: a/b\r\n": 200, "Content-Type: a/b\r\ncontent-type: c/d\r\n": 403} {
		res, body := raw(t, w.dialTo(w.plain), "GET / HTTP/1.1\r\nHost: "+good+"\r\n"+types+"\r\n")
		if res.StatusCode != want {
			t.Errorf("%q: %s %s", types, res.Status, body)
		}
	}
}

// TestExpectContinueWhenRead: the client is asked for the body as soon as it is
// to be read, whatever the server will say.
func TestExpectContinueWhenRead(t *testing.T) {
	server := &taker{}
	w := newWorld(t, readsRequests(), server)
	for body, want := range map[string]int{"fine": 200, secret: 403} {
		c := w.dialTo(w.plain)
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", good, len(body))
		br := bufio.NewReader(c)
		if line, _ := br.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 100 ") {
			t.Fatalf("%q", line)
		}
		br.ReadString('\n')
		io.WriteString(c, body)
		if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != want {
			t.Errorf("%s: %v %v", body, res, err)
		}
	}
	if all := server.all(); len(all) != 1 || all[0].size != 4 {
		t.Errorf("the server received %+v", all)
	}
}

// TestPolicyFailsOnContent is rules.md 46: no verdict, a panic, and a policy
// that cannot say what it reads.
func TestPolicyFailsOnContent(t *testing.T) {
	for name, decide := range map[string]func(*inspect.Content) inspect.Verdict{
		"zero":  func(*inspect.Content) inspect.Verdict { return inspect.Verdict{} },
		"panic": func(*inspect.Content) inspect.Verdict { panic("a bug") },
	} {
		p := readsRequests()
		p.decide = decide
		w := newWorld(t, p, echo)
		res, body := get(t, w.viaProxy(), "http://"+good+"/")
		if res.StatusCode != 403 || refusalOf(t, body).Reason == "" || w.dialer.count() != 0 {
			t.Errorf("%s: %s %s", name, res.Status, body)
		}
	}
	w := newWorld(t, panicReads{readsRequests()}, echo)
	if res, _ := get(t, w.viaProxy(), "http://"+good+"/"+secret); res.StatusCode != 403 {
		t.Errorf("a policy that cannot say what it reads: %s", res.Status)
	}
	if res, _ := get(t, w.viaProxy(), "http://"+good+"/"); res.StatusCode != 200 {
		t.Errorf("control: %s", res.Status)
	}
}

type panicReads struct{ *readingPolicy }

func (panicReads) Reads(*inspect.Request) inspect.Reads { panic("a bug") }

// TestFindingsOfBothStages: one record tells what was found in the head and in
// the body, and what was only observed.
func TestFindingsOfBothStages(t *testing.T) {
	flag := func(name string, mode inspect.Mode) inspect.Finding {
		return inspect.Finding{Inspector: name, Action: inspect.Flagged, Reason: "odd " + name, Severity: inspect.Warning, Mode: mode}
	}
	p := readsRequests()
	p.policyFunc.decide = func(*inspect.Request) inspect.Verdict {
		return inspect.Verdict{Decision: inspect.Flagged, Reason: "odd head", Findings: []inspect.Finding{flag("head", 0)}, BodyLimit: -1}
	}
	p.decide = func(c *inspect.Content) inspect.Verdict {
		return inspect.Verdict{Decision: inspect.Flagged, Reason: "odd body", Findings: []inspect.Finding{flag("body", 0), flag("seen", inspect.Observed)}, BodyLimit: -1}
	}
	w := newWorld(t, p, echo)
	if res, _ := get(t, w.viaProxy(), "http://"+good+"/"); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	all := w.audit.all()
	if len(all) != 1 || all[0].Decision != "flagged" || all[0].Reason != "odd head; odd body" || len(all[0].Inspectors) != 3 || all[0].Inspectors[2].Mode != "observe" {
		t.Errorf("%+v", all)
	}
}

// TestLyingContentLength is peer-holes E8 and D4: what is announced costs
// nothing, so others still get memory.
func TestLyingContentLength(t *testing.T) {
	server := &taker{}
	w := newWorld(t, readsRequests(), server, func(o *Options) { o.Limits.MaxKeptTotal = 64 << 20 })
	for range 40 {
		c := w.dialTo(w.plain)
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\nx", good, 16<<20)
	}
	req, _ := http.NewRequest("POST", "http://"+good+"/", bytes.NewReader(make([]byte, 8<<20)))
	if res, body := do(t, w.viaTransparent(), req); res.StatusCode != 200 {
		t.Errorf("%s %s", res.Status, body)
	}
}

// TestMemoryGrowsWithWhatArrives is the same from inside.
func TestMemoryGrowsWithWhatArrives(t *testing.T) {
	m := newMemory(32<<20, 16<<20, time.Minute)
	k := newKept(m)
	pr, pw := io.Pipe()
	done := make(chan error)
	go func() {
		p := &pace{timeout: time.Minute, late: func() {}}
		p.start()
		defer p.stop()
		_, err := k.fill(context.Background(), pr, 16<<20, p)
		done <- err
	}()
	written := int64(0)
	for range 100 {
		n, _ := pw.Write(make([]byte, 30_000)) // returns when all of it was read
		written += int64(n)
		m.mu.Lock()
		held := k.share.n
		m.mu.Unlock()
		if held > max(64<<10, 2*written) {
			t.Fatalf("%d bytes are held for %d", held, written)
		}
	}
	pw.Close()
	if err := <-done; err != nil || int64(k.n) != written {
		t.Errorf("%d of %d bytes, %v", k.n, written, err)
	}
	k.drop()
	if m.free != 16<<20 {
		t.Errorf("%d free", m.free)
	}
}

// TestSlowBodies must not hold the memory of all.
func TestSlowBodies(t *testing.T) {
	server := &taker{}
	w := newWorld(t, readsRequests(), server, func(o *Options) { o.Limits.BodyTimeout = 50 * time.Millisecond })
	for name, start := range map[string]string{
		"length":  "Content-Length: 100000\r\n\r\nx",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
		"chunk":   "Transfer-Encoding: chunked\r\n\r\nfff\r\nx",
	} {
		res, body := raw(t, w.dialTo(w.plain), "POST / HTTP/1.1\r\nHost: "+good+"\r\n"+start)
		if res.StatusCode != 408 || refusalOf(t, body).Reason != "the body came too slowly" {
			t.Errorf("%s: %s %s", name, res.Status, body)
		}
	}
	pr, pw := io.Pipe()
	defer pw.Close()
	req, _ := http.NewRequest("POST", "https://"+good+"/", pr)
	if res, body := do(t, h2(w.viaTransparent()), req); res.StatusCode != 408 {
		t.Errorf("HTTP/2: %s %s", res.Status, body)
	}
	w.audit.await(t, "the refusal", reasonHas("the body came too slowly"))
	if err := w.free(); err != nil {
		t.Error(err)
	}
	if w.dialer.count() != 0 {
		t.Error("a server was dialled")
	}
}

// TestMemoryIsSharedFairly: who finds no room waits, and is told in the end;
// when there is room again, it is used.
func TestMemoryIsSharedFairly(t *testing.T) {
	enter, leave := make(chan bool), make(chan bool)
	p := readsRequests()
	p.decide = func(c *inspect.Content) inspect.Verdict {
		if c.Request.URL.Path == "/hold" {
			enter <- true
			<-leave
		}
		return allowed()
	}
	server := &taker{}
	w := newWorld(t, p, server, func(o *Options) {
		o.Limits.MaxKept, o.Limits.MaxMessage, o.Limits.MaxKeptTotal = 512<<10, 1, 1
		o.Limits.BodyTimeout = 100 * time.Millisecond
	})
	// Twice the reserve of 1 MiB: two in the common half, one in the reserve.
	post := func(path string) int {
		req, _ := http.NewRequest("POST", "http://"+good+path, bytes.NewReader(make([]byte, 512<<10)))
		res, body := do(t, w.viaTransparent(), req)
		if res.StatusCode == 503 && !strings.Contains(refusalOf(t, body).Reason, "no memory") {
			t.Errorf("%s", body)
		}
		return res.StatusCode
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if got := post("/hold"); got != 200 {
				t.Errorf("held: %d", got)
			}
		})
		<-enter
	}
	if got := post("/"); got != 503 {
		t.Errorf("without room: %d", got)
	}
	w.audit.await(t, "the refusal", reasonHas("no memory to inspect it"))
	close(leave)
	wg.Wait()
	if got := post("/"); got != 200 {
		t.Errorf("with room again: %d", got)
	}
	if err := w.free(); err != nil {
		t.Error(err)
	}
}

// TestClientGoesAway while its body is read: nothing is sent, the memory comes
// back, and the log knows.
func TestClientGoesAway(t *testing.T) {
	w := newWorld(t, readsRequests(), echo)
	c := w.dialTo(w.plain)
	fmt.Fprintf(c, "POST /h1 HTTP/1.1\r\nHost: %s\r\nContent-Length: 100000\r\n\r\n%s", good, make([]byte, 70_000))
	c.(*net.TCPConn).CloseWrite()
	w.audit.await(t, "h1", func(r audit.Record) bool { return r.Path == "/h1" && r.Reason == "the body did not arrive" })

	ctx, cancel := context.WithCancel(context.Background())
	pr, pw := io.Pipe()
	req, _ := http.NewRequestWithContext(ctx, "POST", "https://"+good+"/h2", pr)
	go func() {
		pw.Write(make([]byte, 70_000))
		cancel()
	}()
	if _, err := h2(w.viaTransparent()).RoundTrip(req); err == nil {
		t.Error("an answer")
	}
	w.audit.await(t, "h2", func(r audit.Record) bool { return r.Path == "/h2" && r.Reason == "the body did not arrive" })
	if err := w.free(); err != nil {
		t.Error(err)
	}
	if w.dialer.count() != 0 {
		t.Error("a server was dialled")
	}
}

// TestRetryWithKeptBody: a connection that the server gave up costs the client
// nothing, as without us.
func TestRetryWithKeptBody(t *testing.T) {
	w := newWorld(t, readsRequests(), echo)
	l := listen(t)
	w.dialer.addrs[good+":80"] = l.Addr().String()
	var conns []int
	bodies := make(chan int, 4)
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, n)
			br := bufio.NewReader(c)
			for i := 0; ; i++ {
				r, err := http.ReadRequest(br)
				if err != nil {
					break
				}
				b, _ := io.ReadAll(r.Body)
				bodies <- len(b)
				if n == 0 && i == 1 {
					break // the second request on the first connection
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close() })
	rt := w.viaTransparent()
	for range 2 {
		req, _ := http.NewRequest("POST", "http://"+good+"/", bytes.NewReader(make([]byte, 200_000)))
		req.Header.Set("Idempotency-Key", "1")
		if res, body := do(t, rt, req); res.StatusCode != 200 {
			t.Fatalf("%s %s", res.Status, body)
		}
	}
	for range 3 {
		if n := <-bodies; n != 200_000 {
			t.Errorf("the server received %d bytes", n)
		}
	}
	if err := w.free(); err != nil {
		t.Error(err)
	}
}

// TestBodyLimitWhenRead: the limit of the head's verdict holds for what is read.
func TestBodyLimitWhenRead(t *testing.T) {
	server := &taker{}
	p := readsRequests()
	p.policyFunc.decide = func(*inspect.Request) inspect.Verdict {
		return inspect.Verdict{Decision: inspect.Allowed, BodyLimit: 100_000}
	}
	w := newWorld(t, p, server)
	for n, want := range map[int]int{100_000: 200, 100_001: 403} {
		req, _ := http.NewRequest("POST", "https://"+good+"/", unsized(make([]byte, n)))
		res, body := do(t, h2(w.viaTransparent()), req)
		if res.StatusCode != want || want == 403 && refusalOf(t, body).Reason != "body too large: 100001 > 100000" {
			t.Errorf("%d: %s %s", n, res.Status, body)
		}
	}
	if all := server.all(); len(all) != 1 || all[0].size != 100_000 {
		t.Errorf("the server received %+v", all)
	}
}

// TestUpdateWhileTheBodyComes: the request is refused by the new policy before
// its body is there.
func TestUpdateWhileTheBodyComes(t *testing.T) {
	w := newWorld(t, readsRequests(), echo)
	c := w.dialTo(w.plain)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n", good)
	br := bufio.NewReader(c)
	br.ReadString('\n') // the body is being read
	br.ReadString('\n')
	w.e.Update(only(evil))
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 403 {
		t.Fatalf("%v %v", res, err)
	}
	if body, _ := io.ReadAll(res.Body); !strings.Contains(refusalOf(t, string(body)).Reason, "policy changed") {
		t.Errorf("%s", body)
	}
	if all := w.audit.all(); len(all) != 1 || w.dialer.count() != 0 {
		t.Errorf("%+v", all)
	}
	if err := w.free(); err != nil {
		t.Error(err)
	}
}

// TestHandshakeIsRead: the URL and the headers of an upgrade are the agent's,
// and those of a tunnel that is passed through are not seen.
func TestHandshakeIsRead(t *testing.T) {
	w := newWorld(t, readsRequests(), wsServer)
	for path, want := range map[string]int{"/": 101, "/" + secret: 403} {
		if res, _ := raw2(t, w.dialTo(w.plain), handshake(good, path, "")); res.StatusCode != want {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	if n := len(w.requests()); n != 1 {
		t.Errorf("the server received %d", n)
	}
	p := readsRequests()
	p.pass = map[string]bool{good: true}
	w = newWorld(t, p, echo)
	tc, err := w.throughTo("", good)
	if err != nil {
		t.Fatal(err)
	}
	if res, _ := raw(t, tc, "GET /"+secret+" HTTP/1.1\r\nHost: "+good+"\r\n\r\n"); res.StatusCode != 200 || len(p.kinds()) != 0 {
		t.Errorf("%s, asked about %v", res.Status, p.kinds())
	}
}

// raw2 is raw for an answer whose body does not end.
func raw2(t *testing.T, c net.Conn, text string) (*http.Response, error) {
	t.Helper()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, text)
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	return res, nil
}
