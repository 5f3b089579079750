package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/inspect"
)

// wsTo opens a WebSocket over plain HTTP.
func (w *world) wsTo(path string) (net.Conn, *bufio.Reader) {
	w.t.Helper()
	c := w.dialTo(w.plain)
	c.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(c, handshake(good, path, ""))
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, &http.Request{Method: "GET"})
	if err != nil || res.StatusCode != 101 {
		w.t.Fatal(res, err)
	}
	return c, br
}

// TestWebSocketMessagesAreDecided is rules.md 51 and peer-holes D5: a message in
// either direction, in one frame or in many; a blocked one closes both sides
// with 1008 and says why, or is dropped.
func TestWebSocketMessagesAreDecided(t *testing.T) {
	fragments := "\x01\x83\x00\x00\x00\x00" + secret[:3] + "\x80\x8a\x00\x00\x00\x00" + secret[3:]
	for _, drop := range []bool{false, true} {
		for name, frames := range map[string]string{"one frame": "\x81\x8d\x00\x00\x00\x00" + secret, "two": fragments} {
			p := readsMessages()
			p.drop = drop
			w := newWorld(t, p, wsServer)
			c, br := w.wsTo("/")
			if err := roundTrip(c, br, "hello"); err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, frames)
			r := w.audit.await(t, "the block", reasonHas("websocket: secret found"))
			if r.Kind != audit.KindWebSocket || r.Method != "WEBSOCKET" || r.Inspectors[0].Rule != "s3cret" {
				t.Errorf("%+v", r)
			}
			if drop {
				if err := roundTrip(c, br, "still here"); err != nil {
					t.Errorf("%s, drop: %v", name, err) // the first echo would be that of the secret
				}
				continue
			}
			rest, err := io.ReadAll(br)
			if want := "\x88\x24\x03\xf0agentcage: websocket: secret found"; err != nil || string(rest) != want {
				t.Errorf("%s: %q %v", name, rest, err)
			}
		}
	}
}

// TestWebSocketAnswersAreDecided too.
func TestWebSocketAnswersAreDecided(t *testing.T) {
	p := readsMessages()
	p.decide = func(c *inspect.Content) inspect.Verdict {
		if c.Kind != inspect.KindWebSocket || c.Type != "text/plain; charset=utf-8" {
			t.Errorf("%+v", c)
		}
		if c.Direction == inspect.ToClient {
			return inspect.Verdict{Reason: "no answers"}
		}
		return allowed()
	}
	w := newWorld(t, p, wsServer)
	c, br := w.wsTo("/")
	writeFrame(c, "hello", true)
	if rest, _ := io.ReadAll(br); !strings.HasPrefix(string(rest), "\x88") || !strings.HasSuffix(string(rest), "no answers") {
		t.Errorf("%q", rest)
	}
}

// TestCloseReason is short, text, and ours: a frame holds 125 bytes with the
// code (RFC 6455 section 5.5).
func TestCloseReason(t *testing.T) {
	for _, reason := range []string{strings.Repeat("é", 200), "x" + strings.Repeat("é", 200), "a\x00b\xff\x1b[0m"} {
		p := readsMessages()
		p.decide = func(*inspect.Content) inspect.Verdict { return inspect.Verdict{Reason: reason} }
		w := newWorld(t, p, wsServer)
		c, br := w.wsTo("/")
		writeFrame(c, "hello", true)
		rest, err := io.ReadAll(br)
		if err != nil || len(rest) < 4 || len(rest) > 127 || int(rest[1]) != len(rest)-2 || !utf8.Valid(rest[4:]) || strings.ContainsAny(string(rest[4:]), "\x00\x1b") {
			t.Errorf("%q: %q %v", reason, rest, err)
		}
	}
}

// TestAllowedMessagesAreRecorded with the reason that they always had.
func TestAllowedMessagesAreRecorded(t *testing.T) {
	w := newWorld(t, readsMessages(), wsServer)
	c, br := w.wsTo("/")
	if err := roundTrip(c, br, "hello"); err != nil {
		t.Fatal(err)
	}
	all := w.audit.all()
	if len(all) != 3 || all[1].Decision != "allowed" || all[1].Reason != "websocket" || all[1].Kind != audit.KindWebSocket {
		t.Errorf("%+v", all)
	}
}

// TestUpdateOfWebSockets: the new policy decides what follows, and ends what it
// would read and nobody read before.
func TestUpdateOfWebSockets(t *testing.T) {
	lax := readsMessages()
	lax.decide = func(*inspect.Content) inspect.Verdict { return allowed() }
	w := newWorld(t, lax, wsServer)
	c, br := w.wsTo("/")
	if err := roundTrip(c, br, secret); err != nil {
		t.Fatal(err)
	}
	w.e.Update(readsMessages())
	if err := roundTrip(c, br, "fine"); err != nil {
		t.Error(err)
	}
	if err := roundTrip(c, br, secret); err == nil {
		t.Error("the old policy still decides")
	}

	w = newWorld(t, only(good), wsServer)
	c, br = w.wsTo("/")
	w.e.Update(readsRequests()) // control: that reads no messages
	if err := roundTrip(c, br, secret); err != nil {
		t.Error(err)
	}
	w.e.Update(readsMessages())
	if _, err := io.ReadAll(br); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("an unread WebSocket goes on")
	}
	w.audit.await(t, "the end", reasonHas("policy changed: what is sent has to be read"))
}

// TestSlowMessages and more of them than there is memory for: nobody holds what
// is for all.
func TestSlowMessages(t *testing.T) {
	w := newWorld(t, readsMessages(), wsServer, func(o *Options) { o.Limits.BodyTimeout = 50 * time.Millisecond })
	c, br := w.wsTo("/")
	if err := roundTrip(c, br, "an idle one stays"); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "\x01\x81\x00\x00\x00\x00x") // a fragment, and nothing more
	if _, err := io.ReadAll(br); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("not closed")
	}
	w.audit.await(t, "the end", reasonHas("websocket: a message came too slowly"))
	if err := w.free(); err != nil {
		t.Error(err)
	}
}

func TestWebSocketMemory(t *testing.T) {
	w := newWorld(t, readsMessages(), wsServer, func(o *Options) {
		o.Limits.BodyTimeout = 100 * time.Millisecond
		o.Limits.MaxMessage, o.Limits.MaxKept, o.Limits.MaxKeptTotal = 1<<20, 1, 1
	})
	// All but a little is held by others.
	held := share{of: w.e.memory}
	other := share{of: w.e.memory}
	for s, n := range map[*share]int64{&held: w.e.memory.reserve, &other: 1 << 10} {
		if err := s.Grow(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	c, br := w.wsTo("/")
	writeFrame(c, "hello", true)
	if rest, _ := io.ReadAll(br); !strings.HasPrefix(string(rest), "\x88\x02\x03\xf5") {
		t.Errorf("%q", rest)
	}
	held.Release()
	other.Release()
	c, br = w.wsTo("/")
	if err := roundTrip(c, br, "hello"); err != nil {
		t.Error(err)
	}
}
