package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// wire serves good on port 80 by hand: what it receives is kept byte for byte,
// and every connection is answered with answer after its first head.
func (w *world) wire(answer string) (received func() string) {
	l := listen(w.t)
	w.t.Cleanup(func() { l.Close() })
	w.dialer.addrs[good+":80"] = l.Addr().String()
	got := make(chan string, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var head strings.Builder
			for br := bufio.NewReader(c); ; {
				line, err := br.ReadString('\n')
				head.WriteString(line)
				if err != nil || line == "\r\n" {
					break
				}
			}
			io.WriteString(c, answer)
			c.Close()
			got <- head.String()
		}
	}()
	return func() string { return <-got }
}

func h2Head(extra ...[2]string) [][2]string {
	return append([][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", good}, {":path", "/"}}, extra...)
}

// TestHTTP2IsReadAsStrictly: what is refused in HTTP/1 is refused in HTTP/2,
// where the server may get it as HTTP/1.
func TestHTTP2IsReadAsStrictly(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fields [][2]string
		want   int
	}{
		{"control", h2Head([2]string{"x_y", "1"}), 200},
		{"look-alike of Content-Length", h2Head([2]string{"content_length", "0"}), 403},
		{"look-alike of Transfer-Encoding", h2Head([2]string{"transfer_encoding", "chunked"}), 403},
		{"look-alike of Host", h2Head([2]string{"ho_st", evil}), 200},
		{"raw bytes in the path", [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", good}, {":path", "/a\u00a0b"}}, 403},
		{"they are fine when encoded", [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", good}, {":path", "/a%C2%A0b"}}, 200},
	} {
		w := newWorld(t, only(good), echo)
		c := newH2Client(t, w.tlsIn(w.dialTo(w.tls), good, "h2"))
		if got := c.request(tt.fields); got != tt.want {
			t.Errorf("%s: status %d, want %d", tt.name, got, tt.want)
		}
		if sent := len(w.requests()); sent != 0 != (tt.want == 200) {
			t.Errorf("%s: the server received %d requests", tt.name, sent)
		}
	}
}

// TestTrailersThatNoTrailerMayHave: some servers merge trailers into the head,
// behind the back of whoever decided by the head.
func TestTrailersThatNoTrailerMayHave(t *testing.T) {
	for field, want := range map[string]int{
		"x-sum":                  200,
		"x-http-method-override": 403,
		"x_http_method_override": 403,
		"x-original-url":         403,
		"cookie":                 403,
		"x-api-key":              403,
	} {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
		w := newWorld(t, only(good), h)
		c := newH2Client(t, w.tlsIn(w.dialTo(w.tls), good, "h2"))
		if got := c.withTrailer(field); got != want {
			t.Errorf("HTTP/2, %s: status %d, want %d", field, got, want)
		}
		if want == 200 {
			want = 0 // the answer to HTTP/1 does not matter, only what arrives
		}
		res, _ := rawOrCut(t, w.dialTo(w.plain), "POST / HTTP/1.1\r\nHost: "+good+"\r\nTransfer-Encoding: chunked\r\nTrailer: "+
			field+"\r\n\r\n1\r\nx\r\n0\r\n"+field+": DELETE\r\n\r\n")
		if passed := res != nil && res.StatusCode == 200; passed != (want == 0) {
			t.Errorf("HTTP/1, %s: passed is %v", field, passed)
		}
		for _, r := range w.requests() {
			if r.Trailer.Get(field) != "" && want != 0 {
				t.Errorf("the server received the trailer %s", field)
			}
		}
	}
}

func rawOrCut(t *testing.T, c net.Conn, text string) (*http.Response, error) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil {
		res.Body.Close()
	}
	return res, err
}

// withTrailer sends a request with a body and an announced trailer.
func (h *h2Client) withTrailer(field string) int {
	h.t.Helper()
	block := func(fields [][2]string) []byte {
		var b bytes.Buffer
		enc := hpack.NewEncoder(&b)
		for _, f := range fields {
			enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		return b.Bytes()
	}
	id := h.next
	h.next += 2
	h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block(h2Head([2]string{"trailer", field})), EndHeaders: true})
	h.fr.WriteData(id, false, []byte("x"))
	h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block([][2]string{{field, "DELETE"}}), EndStream: true, EndHeaders: true})
	return h.status(id)
}

// TestOptionsAsterisk is decided and recorded as every other request.
func TestOptionsAsterisk(t *testing.T) {
	for host, want := range map[string]int{good: 200, evil: 403} {
		w := newWorld(t, only(good), echo)
		received := func() string { return "" }
		if want == 200 {
			received = w.wire("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
		res, _ := raw(t, w.dialTo(w.plain), "OPTIONS * HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if res.StatusCode != want {
			t.Errorf("%s: %s", host, res.Status)
		}
		if want == 200 && len(w.dialer.dialed) == 1 && !strings.HasPrefix(received(), "OPTIONS * HTTP/1.1\r\n") {
			t.Error("the server received something else")
		}
		if all := w.audit.all(); len(all) != 1 || all[0].Host != host || all[0].Method != "OPTIONS" {
			t.Errorf("%s: audit %+v", host, all)
		}
	}
}

// TestUnknownExpectation: net/http answers it by itself, and nobody else knew.
func TestUnknownExpectation(t *testing.T) {
	w := newWorld(t, only(good), echo)
	head := "GET / HTTP/1.1\r\nHost: " + good + "\r\nExpect: %s\r\nConnection: close\r\n\r\n"
	if res, _ := raw(t, w.dialTo(w.plain), fmt.Sprintf(head, "100-Continue")); res.StatusCode != 200 {
		t.Errorf("the known one: %s", res.Status)
	}
	res, body := raw(t, w.dialTo(w.plain), fmt.Sprintf(head, "magic"))
	if res.StatusCode != 400 {
		t.Fatalf("%s %s", res.Status, body)
	}
	id := refusalOf(t, body).ID
	w.audit.await(t, "the refusal", func(r audit.Record) bool { return r.ID == id && r.Decision == "blocked" })
}

// TestHostileTrailersOfAServer do not reach the agent's client, which would
// read them as framing or as a way round us.
func TestHostileTrailersOfAServer(t *testing.T) {
	w := newWorld(t, only(good), echo)
	w.wire("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Alt-Svc\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n" +
		"X-Sum: 42\r\nAlt-Svc: h3=\":443\"\r\nX-Late: 7\r\nContent-Length: 99\r\nConnection: upgrade\r\n\r\n")
	c := w.dialTo(w.plain)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+good+"\r\nConnection: close\r\n\r\n")
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	_, trailers, _ := strings.Cut(string(answer), "\r\n0\r\n")
	for text, want := range map[string]bool{"X-Sum: 42": true, "X-Late: 7": true, "Alt-Svc": false, "Content-Length": false, "Connection": false} {
		if strings.Contains(trailers, text) != want {
			t.Errorf("%s: want %v in %q", text, want, trailers)
		}
	}
	if strings.Contains(string(answer), "Alt-Svc") {
		t.Errorf("Alt-Svc is announced: %q", answer)
	}
}

// TestNoInterimAnswersForHTTP10 is RFC 9110 section 15.2: such a client takes
// the first for the last.
func TestNoInterimAnswersForHTTP10(t *testing.T) {
	for version, want := range map[string]int{"1.0": 200, "1.1": 103} {
		w := newWorld(t, only(good), echo)
		w.wire("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		c := w.dialTo(w.plain)
		io.WriteString(c, "GET / HTTP/"+version+"\r\nHost: "+good+"\r\nConnection: close\r\n\r\n")
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.Contains(line, fmt.Sprintf(" %d ", want)) {
			t.Errorf("HTTP/%s: %q %v", version, line, err)
		}
	}
}

// TestHostileStatus: a status of HTTP/2 is any number.
func TestHostileStatus(t *testing.T) {
	for status, want := range map[string]int{"200": 200, "99999": 502, "1000": 502, "0": 502, "101": 502} {
		w := newWorld(t, only(good), echo)
		w.serveHTTP2(status)
		for _, way := range ways {
			if way.scheme != "https" {
				continue
			}
			if res, body := get(t, way.make(w), "https://"+good+"/"); res.StatusCode != want {
				t.Errorf("%s, status %s: %s %s", way.name, status, res.Status, body)
			}
		}
		for _, r := range w.audit.all() {
			if r.Reason == "the gateway failed" {
				t.Errorf("status %s: %+v", status, r)
			}
		}
	}
}

// serveHTTP2 makes good a server that answers every request with one head of
// its own making, and speaks HTTP/2 only.
func (w *world) serveHTTP2(status string) {
	cert, err := w.server.Certificate(hostname.MustParse(good))
	if err != nil {
		w.t.Fatal(err)
	}
	l := listen(w.t)
	w.t.Cleanup(func() { l.Close() })
	w.dialer.addrs[good+":443"] = l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerHTTP2(c, cert, status)
		}
	}()
}

// TestUpdateTakesNoTokens: deciding again what runs is no new request. If it
// were, an agent with many requests would hold up the reload that ends them.
func TestUpdateTakesNoTokens(t *testing.T) {
	reached, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(reached); <-release })
	w := newWorld(t, only(good), h)
	done := make(chan struct{})
	go func() { defer close(done); get(t, w.viaTransparent(), "http://"+good+"/") }()
	<-reached
	var again []bool
	p := policyFunc{decide: func(r *inspect.Request) inspect.Verdict { again = append(again, r.Again); return allowed() }}
	w.e.Update(p)
	if len(again) != 1 || !again[0] {
		t.Errorf("decided again: %v", again)
	}
	close(release)
	<-done
	get(t, w.viaTransparent(), "http://"+evil+":1/") // refused connection; decided all the same
	if len(again) != 2 || again[1] {
		t.Errorf("a new request: %v", again)
	}
}

// TestWebSocketWithoutPolicyIsNotCollected: nobody looks at the messages, so
// memory must not grow with what an agent or a server leaves unfinished.
func TestWebSocketWithoutPolicyIsNotCollected(t *testing.T) {
	w := newWorld(t, only(good), wsServer, func(o *Options) { o.Limits.MaxMessage = 4 })
	c, br, _ := w.webSocketTo("/")
	if err := roundTrip(c, br, "more than four bytes"); err != nil {
		t.Errorf("a message was collected: %v", err)
	}
}

// TestPathIsReadAsItIsSent: a target that net/url would write in another way
// goes on as it came, and so it has to be read and written down as that.
func TestPathIsReadAsItIsSent(t *testing.T) {
	for _, path := range []string{"/a/b", `/x"/a%2Fb`, "/x^/%41%4b%49%41", "/{id}/a%2fb;c=%2F"} {
		p := readsRequests()
		var read string
		p.decide = func(c *inspect.Content) inspect.Verdict {
			texts, _ := c.Texts(t.Context())
			for _, text := range texts {
				if text.Place == inspect.PlacePath {
					read = string(text.Tree.Layers[0].Data)
				}
			}
			return allowed()
		}
		w := newWorld(t, p, echo)
		received := w.wire("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		raw(t, w.dialTo(w.plain), "GET "+path+"?q=1 HTTP/1.1\r\nHost: "+good+"\r\n\r\n")
		if line, _, _ := strings.Cut(received(), "\r\n"); line != "GET "+path+"?q=1 HTTP/1.1" {
			t.Errorf("%s: the server received %q", path, line)
		}
		if read != path {
			t.Errorf("%s was read as %q", path, read)
		}
		if r := w.audit.all()[0]; r.Path != path || r.URL != "http://"+good+path+"?q=1" {
			t.Errorf("%s was written down as %q, %q", path, r.Path, r.URL)
		}
	}
}
