package proxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/inspect"
)

// answers serves what a test puts into it, by path.
type answers map[string]func(w http.ResponseWriter)

func (a answers) ServeHTTP(w http.ResponseWriter, r *http.Request) { a[r.URL.Path](w) }

func body(b string, known bool) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		if known {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		}
		io.WriteString(w, b)
	}
}

// TestResponsesAreRead: nothing of a refused answer reaches the client, and what
// is allowed arrives as it was sent.
func TestResponsesAreRead(t *testing.T) {
	long := strings.Repeat("y", 200<<10)
	server := answers{
		"/fine":        body("fine", true),
		"/fine/long":   body(long, false),
		"/fine/empty":  func(w http.ResponseWriter) { w.WriteHeader(204) },
		"/fine/header": func(w http.ResponseWriter) { w.Header()["Set-Cookie"] = []string{"a=1", "b=2"} },
		"/fine/trailer": func(w http.ResponseWriter) {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			w.Header().Set(http.TrailerPrefix+"X-T", "fine")
		},
		"/body":   body(long+secret, true),
		"/stream": body(long+secret+long, false),
		"/header": func(w http.ResponseWriter) { w.Header().Set("X-A", secret); w.WriteHeader(204) },
		"/trailer": func(w http.ResponseWriter) {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			w.Header().Set(http.TrailerPrefix+"X-T", secret)
		},
		"/hints": func(w http.ResponseWriter) {
			w.Header().Set("Link", secret)
			w.WriteHeader(103)
			w.Header().Del("Link")
			io.WriteString(w, "fine")
		},
	}
	for _, way := range ways {
		w := newWorld(t, readsResponses(), server)
		rt := way.make(w)
		for path := range server {
			res, got := get(t, rt, way.scheme+"://"+good+path)
			switch {
			case path == "/hints":
				if res.StatusCode != 200 || got != "fine" {
					t.Errorf("%s %s: %s %q", way.name, path, res.Status, got)
				}
			case strings.HasPrefix(path, "/fine"):
				if res.StatusCode/100 != 2 || path == "/fine" && got != "fine" || path == "/fine/long" && got != long ||
					path == "/fine/header" && !slices.Equal(res.Header["Set-Cookie"], []string{"a=1", "b=2"}) ||
					path == "/fine/trailer" && (got != "x" || res.Trailer.Get("X-T") != "fine") {
					t.Errorf("%s %s: %s %.60q %v", way.name, path, res.Status, got, res.Trailer)
				}
			default:
				r := refusalOf(t, got)
				if res.StatusCode != 403 || r.Reason != "response: secret found" || len(res.Trailer) > 0 || res.Header.Get("X-A") != "" {
					t.Errorf("%s %s: %s %.60q %v", way.name, path, res.Status, got, res.Header)
				}
				rec := w.audit.await(t, "the block", func(a audit.Record) bool { return a.ID == r.ID && a.Decision == "blocked" })
				if rec.Revises != "allowed" {
					t.Errorf("%+v", rec)
				}
			}
		}
		if err := w.free(); err != nil {
			t.Errorf("%s: %v", way.name, err)
		}
	}
}

// TestResponsesTooLarge to be kept are refused, also those that do not say so.
func TestResponsesTooLarge(t *testing.T) {
	exact := strings.Repeat("y", 100_000)
	server := answers{
		"/known": body(exact+"y", true), "/unknown": body(exact+"y", false),
		"/exact": body(exact, true), "/exact/unknown": body(exact, false),
	}
	w := newWorld(t, readsResponses(), server, func(o *Options) { o.Limits.MaxKept = 100_000 })
	for path, want := range map[string]int{"/known": 403, "/unknown": 403, "/exact": 200, "/exact/unknown": 200} {
		res, got := get(t, w.viaTransparent(), "https://"+good+path)
		if res.StatusCode != want || want == 200 && got != exact || want == 403 && refusalOf(t, got).Reason != "response too large to inspect: more than 100000 bytes" {
			t.Errorf("%s: %s %.80q", path, res.Status, got)
		}
	}
	if err := w.free(); err != nil {
		t.Error(err)
	}
}

// TestSlowResponses must not hold the memory of all.
func TestSlowResponses(t *testing.T) {
	stop := make(chan bool)
	defer close(stop)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		<-stop
	})
	for _, way := range ways {
		w := newWorld(t, readsResponses(), h, func(o *Options) { o.Limits.BodyTimeout = 50 * time.Millisecond })
		res, got := get(t, way.make(w), way.scheme+"://"+good+"/")
		if res.StatusCode != 502 || !strings.Contains(got, "too slowly") {
			t.Errorf("%s: %s %s", way.name, res.Status, got)
		}
		if err := w.free(); err != nil {
			t.Errorf("%s: %v", way.name, err)
		}
	}
}

// TestEventsAreNotHeldBack is rules.md 48: each event arrives when it was sent,
// and one that is refused ends the stream without a byte of it.
func TestEventsAreNotHeldBack(t *testing.T) {
	for _, contentType := range []string{"text/event-stream", "Text/Event-Stream; charset=utf-8", "application/grpc"} {
		piece := func(text string) string { return "data: " + text + "\n\n" }
		if contentType == "application/grpc" {
			piece = message
		}
		long := strings.Repeat("long", 5000)
		for _, way := range ways {
			next := make(chan string)
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", contentType)
				w.(http.Flusher).Flush()
				for text := range next {
					io.WriteString(w, piece(text))
					w.(http.Flusher).Flush()
				}
			})
			p := readsResponses()
			w := newWorld(t, p, h)
			req, _ := http.NewRequest("GET", way.scheme+"://"+good+"/", nil)
			res, err := way.make(w).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"a", long, "b"} {
				next <- text
				buf := make([]byte, len(piece(text)))
				if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != piece(text) {
					t.Fatalf("%s: %d bytes, %v", way.name, len(buf), err)
				}
			}
			next <- secret
			if rest, err := io.ReadAll(res.Body); err == nil || len(rest) > 0 {
				t.Errorf("%s: %q %v", way.name, rest, err)
			}
			close(next)
			res.Body.Close()
			if r := w.audit.await(t, "the block", reasonHas("response: secret found")); r.Revises != "allowed" {
				t.Errorf("%+v", r)
			}
			if err := w.free(); err != nil {
				t.Errorf("%s: %v", way.name, err)
			}
			want := inspect.KindEvent
			if contentType == "application/grpc" {
				want = inspect.KindMessage
			}
			if kinds := p.kinds(); len(kinds) != 5 || kinds[0] != inspect.KindResponse || kinds[4] != want {
				t.Errorf("%s: asked about %v", way.name, kinds)
			}
		}
	}
}

// TestEventsThatAreCoded cannot be told apart, and are read as any other body.
func TestEventsThatAreCoded(t *testing.T) {
	p := readsResponses()
	w := newWorld(t, p, answers{"/": func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Content-Encoding", "gzip")
		io.WriteString(w, "a\n\nb\n\n")
	}})
	if _, got := get(t, w.viaTransparent(), "http://"+good+"/"); got != "a\n\nb\n\n" || len(p.seen) != 1 || !slices.Equal(p.seen[0].Encoding, []string{"gzip"}) {
		t.Errorf("%q, %+v", got, p.seen)
	}
}

// TestHandshakeAnswerIsRead before the connection is one for messages.
func TestHandshakeAnswerIsRead(t *testing.T) {
	p := readsResponses()
	p.decide = func(c *inspect.Content) inspect.Verdict {
		if c.Status == 101 && c.Header.Get("Sec-Websocket-Protocol") == "chat" {
			return inspect.Verdict{Reason: "no chat"}
		}
		return allowed()
	}
	w := newWorld(t, p, wsServer)
	res, _ := raw2(t, w.dialTo(w.plain), handshake(good, "/", ""))
	if got, _ := io.ReadAll(res.Body); res.StatusCode != 403 || refusalOf(t, string(got)).Reason != "response: no chat" {
		t.Errorf("%s %s", res.Status, got)
	}
	if res, _ := raw2(t, w.dialTo(w.plain), handshake(good, "/no", "")); res.StatusCode != 404 {
		t.Errorf("refused by the server: %s", res.Status)
	}
}

// TestEarlyAnswer: a server that answers before it has all of the request does
// not make a refused one look accepted.
func TestEarlyAnswer(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		io.WriteString(w, "thanks")
		w.(http.Flusher).Flush()
		io.Copy(io.Discard, r.Body)
	})
	w := newWorld(t, readsRequests(), h)
	pr, pw := io.Pipe()
	req, _ := http.NewRequest("POST", "https://"+good+"/", pr)
	req.Header.Set("Content-Type", "application/grpc")
	res, err := h2(w.viaProxy()).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(res.Body, make([]byte, len("thanks")))
	pw.Write([]byte(message(secret)))
	if rest, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("the answer is whole: %q", rest)
	}
	w.audit.await(t, "the block", reasonHas("secret found"))
}
