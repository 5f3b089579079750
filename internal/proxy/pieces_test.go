package proxy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/agentcage/agentcage/internal/inspect"
)

func smallKept(o *Options) { o.Limits.MaxKept = 300 << 10 }

// send posts a body as a client that sends it whatever is answered.
func send(t *testing.T, rt http.RoundTripper, url string, body io.Reader, header http.Header) (status int, answer string) {
	t.Helper()
	req, _ := http.NewRequest("POST", url, body)
	for k, vv := range header {
		req.Header[k] = vv
	}
	res, err := rt.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// TestLongBodies is peer-holes D1: a body that is too long to be kept is read to
// its end, and what is refused in it arrives in no part, also where windows
// meet; a cut body never looks whole.
func TestLongBodies(t *testing.T) {
	const size = 2<<20 + 12345
	places := []int{-1, 10, 300<<10 - 5, window - 5, window + 5, 2*window - overlap - 5, 2*window - 3, size - len(secret)}
	for _, way := range ways {
		for _, known := range []bool{true, false} {
			for i, at := range places {
				if way.name != "transparent tls h2" && (known || i%7 != 0) {
					continue // the first and the last do for the other ways
				}
				server := &taker{}
				w := newWorld(t, readsRequests(), server, smallKept)
				b := padded(size, 0, "")
				if at >= 0 {
					b = padded(size, at, secret)
				}
				body := unsized(b)
				if known {
					body = bytes.NewReader(b)
				}
				name := fmt.Sprintf("%s, known=%v, at %d", way.name, known, at)
				status, answer := send(t, way.make(w), way.scheme+"://"+good+"/", body, nil)
				if at < 0 {
					if all := server.all(); status != 200 || len(all) != 1 || all[0].err != nil || all[0].sum != sum(b) {
						t.Errorf("%s: %d %s, %+v", name, status, answer, all)
					}
					continue
				}
				if status == 200 || status == 403 && refusalOf(t, answer).Reason != "secret found" {
					t.Errorf("%s: %d %s", name, status, answer)
				}
				rec := w.audit.await(t, name, reasonHas("secret found"))
				if first := at < 300<<10-len(secret) || known && at < window-len(secret); first == (rec.Revises == "allowed") {
					t.Errorf("%s: the record revises %q", name, rec.Revises)
				}
				if err := w.free(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				for _, r := range server.all() {
					if r.err == nil || r.size > at {
						t.Errorf("%s: %d bytes arrived, %v", name, r.size, r.err)
					}
				}
			}
		}
	}
}

// TestWindowsOverlap: each begins with the end of the one before, and together
// they are the body.
func TestWindowsOverlap(t *testing.T) {
	p := readsRequests()
	w := newWorld(t, p, &taker{}, smallKept)
	b := make([]byte, 3<<20)
	for i := range b {
		b[i] = byte(i >> 8)
	}
	if status, answer := send(t, w.viaTransparent(), "http://"+good+"/", unsized(b), nil); status != 200 {
		t.Fatal(status, answer)
	}
	var joined []byte
	for i, c := range p.seen {
		if want := i > 0; (c.Kind == inspect.KindWindow) != want || want && c.Repeated != overlap || len(c.Body) > window {
			t.Errorf("piece %d: kind %d, %d bytes, %d repeated", i, c.Kind, len(c.Body), c.Repeated)
		}
		if !bytes.HasSuffix(joined, c.Body[:c.Repeated]) {
			t.Errorf("piece %d does not begin with the end of the one before", i)
		}
		joined = append(joined, c.Body[c.Repeated:]...)
	}
	if !bytes.Equal(joined, b) || len(p.seen) < 4 {
		t.Errorf("%d pieces, %d bytes", len(p.seen), len(joined))
	}
}

// TestLongCompressedBodies is peer-holes D4: what cannot be decoded in windows
// does not leave.
func TestLongCompressedBodies(t *testing.T) {
	b := padded(400<<10, 0, "")
	for name, tt := range map[string]struct {
		begin  string
		coding string
		want   int
	}{
		"text":       {"text", "", 200},
		"identity":   {"text", "identity", 200},
		"declared":   {"text", "br", 403},
		"among":      {"text", "identity, gzip", 403},
		"gzip":       {"\x1f\x8b\x08", "", 403},
		"zstd":       {"\x28\xb5\x2f\xfd", "", 403},
		"zstd, skip": {"\x5e\x2a\x4d\x18", "", 403},
		"zip":        {"PK\x03\x04", "", 403},
		"xz":         {"\xfd7zXZ\x00", "", 403},
		"bzip2":      {"BZh9", "", 403},
		"7z":         {"7z\xbc\xaf\x27\x1c", "", 403},
	} {
		server := &taker{}
		w := newWorld(t, readsRequests(), server, smallKept)
		h := http.Header{}
		if tt.coding != "" {
			h.Set("Content-Encoding", tt.coding)
		}
		status, answer := send(t, h2(w.viaTransparent()), "https://"+good+"/", unsized(append([]byte(tt.begin), b...)), h)
		if status != tt.want || (len(server.all()) == 1) != (tt.want == 200) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
		if status == 403 && refusalOf(t, answer).Reason != "body too large to decode: more than 307200 bytes" {
			t.Errorf("%s: %s", name, answer)
		}
	}
}

func message(text string) string { return frameOf(0, text) }

func frameOf(flags byte, text string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(text)))) + text
}

// grpcEcho sends everything back as it comes, and remembers it.
func grpcEcho(received *bytes.Buffer, ended chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.Header().Set("Trailer", "Grpc-Status")
		w.(http.Flusher).Flush()
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Body.Read(buf)
			received.Write(buf[:n])
			w.Write(buf[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				w.Header().Set("Grpc-Status", "0")
				ended <- err
				return
			}
		}
	}
}

// TestStreamsOfMessages is rules.md 48 and 51: both sides talk at once, each
// message is decided, and a refused one ends the stream.
func TestStreamsOfMessages(t *testing.T) {
	long := strings.Repeat("long", 50_000)
	for _, contentType := range []string{"application/grpc", "application/grpc+proto", "Application/gRPC; x=y", "application/connect+json"} {
		for _, end := range []string{"", secret, long + secret} {
			var received bytes.Buffer
			ended := make(chan error, 1)
			p := readsRequests()
			w := newWorld(t, p, grpcEcho(&received, ended))
			pr, pw := io.Pipe()
			req, _ := http.NewRequest("POST", "https://"+good+"/pkg.Service/Method", pr)
			req.Header.Set("Content-Type", contentType)
			req.Header.Set("Te", "trailers")
			res, err := h2(w.viaProxy()).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"a", "", long, "b"} {
				msg := message(text)
				io.WriteString(pw, msg)
				buf := make([]byte, len(msg))
				if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != msg {
					t.Fatalf("%s: echo of %d bytes, %v", contentType, len(buf), err)
				}
			}
			arrived := received.Len()
			if end != "" {
				io.WriteString(pw, message(end))
			}
			pw.Close()
			rest, err := io.ReadAll(res.Body)
			res.Body.Close()
			serverErr := <-ended
			if end == "" {
				if err != nil || len(rest) > 0 || res.Trailer.Get("Grpc-Status") != "0" || serverErr != io.EOF {
					t.Errorf("%s: %q %v %v %v", contentType, rest, err, res.Trailer, serverErr)
				}
				if want := []inspect.Kind{1, 3, 3, 3, 3}; !slices.Equal(p.kinds(), want) || string(p.seen[3].Body) != long {
					t.Errorf("%s: asked about %v", contentType, p.kinds())
				}
				continue
			}
			if err == nil || serverErr == io.EOF || received.Len() != arrived {
				t.Errorf("%s: the client got %v, the server %v and %d bytes more", contentType, err, serverErr, received.Len()-arrived)
			}
			if r := w.audit.await(t, "the block", reasonHas("secret found")); r.Revises != "allowed" {
				t.Errorf("%+v", r)
			}
			if err := w.free(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestRefusedFirstMessage: when nothing was answered yet, the client is told.
func TestRefusedFirstMessage(t *testing.T) {
	for name, body := range map[string]string{
		"secret":       message(secret),
		"second":       message("fine") + message(secret),
		"flags":        frameOf(2, "x"),
		"compressed":   frameOf(1, "x"),
		"too short":    message("fine")[:7],
		"half a head":  message("fine") + "\x00\x00",
		"too large":    "\x00\x10\x00\x00\x00",
		"no framing":   "{\"a\": 1}",
		"length is -1": "\x00\xff\xff\xff\xff",
	} {
		server := &taker{}
		w := newWorld(t, readsRequests(), server)
		h := http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
		for _, known := range []bool{true, false} {
			var r io.Reader = strings.NewReader(body)
			if !known {
				r = unsized([]byte(body))
			}
			req, _ := http.NewRequest("POST", "https://"+good+"/", r)
			req.Header = h
			res, err := h2(w.viaTransparent()).RoundTrip(req)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			res.Body.Close()
			if res.Header.Get("Grpc-Status") != "7" || res.Header.Get("Grpc-Message") == "" {
				t.Errorf("%s: %v", name, res.Header)
			}
		}
		for _, r := range server.all() {
			if r.err == nil {
				t.Errorf("%s: %d bytes looked whole to the server", name, r.size)
			}
		}
	}
}

// TestCompressedMessages are given to be decoded as their head says.
func TestCompressedMessages(t *testing.T) {
	p := readsRequests()
	w := newWorld(t, p, &taker{})
	for encoding, want := range map[string]int{"gzip": 1, "snappy": 0, "identity": 0} {
		p.seen = nil
		h := http.Header{"Content-Type": {"application/grpc"}, "Grpc-Encoding": {encoding}}
		send(t, h2(w.viaTransparent()), "https://"+good+"/", strings.NewReader(message("plain")+frameOf(1, "packed")), h)
		seen := p.seen
		if len(seen) != 2+want || len(seen[1].Encoding) != 0 {
			t.Fatalf("%s: %+v", encoding, seen)
		}
		if want == 1 && !slices.Equal(seen[2].Encoding, []string{"gzip"}) {
			t.Errorf("%s: %v", encoding, seen[2].Encoding)
		}
	}
}

// TestEmptyCompressedMessages: a message without a byte has nothing in it that
// could be inspected, and its flag would be a channel of its own.
func TestEmptyCompressedMessages(t *testing.T) {
	for body, want := range map[string]string{
		message("") + message("") + frameOf(1, "packed"): "200",
		message("") + frameOf(1, "") + message(""):       "7",
	} {
		w := newWorld(t, readsRequests(), &taker{})
		req, _ := http.NewRequest("POST", "https://"+good+"/", unsized([]byte(body)))
		req.Header = http.Header{"Content-Type": {"application/grpc"}, "Grpc-Encoding": {"gzip"}}
		res, err := h2(w.viaTransparent()).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := cmp.Or(res.Header.Get("Grpc-Status"), strconv.Itoa(res.StatusCode)); got != want {
			t.Errorf("%q gives %s, want %s: %v", body, got, want, res.Header)
		}
	}
}

// TestMessagesOverHTTP1, where the type says gRPC and the length is known, are
// messages too.
func TestMessagesOverHTTP1(t *testing.T) {
	server := &taker{}
	w := newWorld(t, readsRequests(), server)
	h := http.Header{"Content-Type": {"application/grpc"}}
	for text, want := range map[string]int{"fine": 200, secret: 200} { // gRPC tells in the header
		if status, _ := send(t, w.viaTransparent(), "http://"+good+"/", strings.NewReader(message(text)), h); status != want {
			t.Errorf("%s: %d", text, status)
		}
	}
	for _, r := range server.all() {
		if r.err == nil && r.sum != sum([]byte(message("fine"))) {
			t.Errorf("the server received %+v", r)
		}
	}
	w.audit.await(t, "the block", reasonHas("secret found"))
}

// TestTrailersOfStreams are decided before they are sent, and their names with
// the head.
func TestTrailersOfStreams(t *testing.T) {
	for _, framed := range []bool{true, false} {
		for value, want := range map[string]bool{"fine": true, secret: false} {
			server := &taker{}
			w := newWorld(t, readsRequests(), server, smallKept)
			req, _ := http.NewRequest("POST", "https://"+good+"/", unsized(padded(2<<20, 0, "")))
			if framed {
				req, _ = http.NewRequest("POST", "https://"+good+"/", unsized([]byte(message("fine"))))
				req.Header.Set("Content-Type", "application/grpc")
			}
			req.Trailer = http.Header{"X-T": {value}}
			res, err := h2(w.viaTransparent()).RoundTrip(req)
			if err == nil {
				res.Body.Close()
			}
			if want {
				if all := server.all(); len(all) != 1 || all[0].trailer.Get("X-T") != value {
					t.Errorf("framed=%v: %+v", framed, all)
				}
				continue
			}
			w.audit.await(t, "the block", reasonHas("secret found"))
			for _, r := range server.all() {
				if r.err == nil || r.trailer.Get("X-T") != "" {
					t.Errorf("framed=%v: %+v", framed, r)
				}
			}
		}
	}
}

// TestUpdateOfStreams: another policy decides what follows, and one that reads
// ends what went on unread.
func TestUpdateOfStreams(t *testing.T) {
	open := func(p Policy) (*world, *io.PipeWriter, *http.Response) {
		var received bytes.Buffer
		w := newWorld(t, p, grpcEcho(&received, make(chan error, 1)))
		pr, pw := io.Pipe()
		req, _ := http.NewRequest("POST", "https://"+good+"/", pr)
		req.Header.Set("Content-Type", "application/grpc")
		res, err := h2(w.viaProxy()).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pw.Close(); res.Body.Close() })
		io.WriteString(pw, message(secret))
		if _, err := io.ReadFull(res.Body, make([]byte, len(message(secret)))); err != nil {
			t.Fatal(err)
		}
		return w, pw, res
	}
	lax := readsRequests()
	lax.decide = func(*inspect.Content) inspect.Verdict { return allowed() }
	w, pw, res := open(lax)
	w.e.Update(readsRequests())
	io.WriteString(pw, message(secret))
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the old policy still decides")
	}
	w.audit.await(t, "the block", reasonHas("secret found"))

	w, pw, res = open(only(good))
	w.e.Update(only(good)) // control: it goes on
	io.WriteString(pw, message("fine"))
	if _, err := io.ReadFull(res.Body, make([]byte, len(message("fine")))); err != nil {
		t.Error(err)
	}
	w.e.Update(readsRequests())
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("an unread stream goes on")
	}
	w.audit.await(t, "the end", reasonHas("policy changed: what is sent has to be read"))
}

// TestFlaggedPieces are written down, once each, and allowed ones are not.
func TestFlaggedPieces(t *testing.T) {
	p := readsRequests()
	p.decide = func(c *inspect.Content) inspect.Verdict {
		switch string(c.Body) {
		case "odd":
			return inspect.Verdict{Decision: inspect.Flagged, Reason: "odd", BodyLimit: -1}
		case "seen":
			return inspect.Verdict{Decision: inspect.Allowed, Findings: []inspect.Finding{{Inspector: "i", Reason: "seen", Mode: inspect.Observed}}, BodyLimit: -1}
		}
		return allowed()
	}
	w := newWorld(t, p, &taker{})
	h := http.Header{"Content-Type": {"application/grpc"}}
	body := message("fine") + message("odd") + message("fine") + message("odd") + message("seen")
	if status, _ := send(t, h2(w.viaTransparent()), "https://"+good+"/", strings.NewReader(body), h); status != 200 {
		t.Fatal(status)
	}
	var got []string
	for _, r := range w.audit.all() {
		got = append(got, r.Decision+"<"+r.Revises)
	}
	if !slices.Equal(got, []string{"allowed<", "flagged<allowed", "flagged<flagged", "allowed<flagged"}) {
		t.Errorf("%v", got)
	}
}

// TestAuditFailsInTheMiddle: what cannot be written down is not done.
func TestAuditFailsInTheMiddle(t *testing.T) {
	p := readsRequests()
	server := &taker{}
	w := newWorld(t, p, server)
	p.decide = func(c *inspect.Content) inspect.Verdict {
		if c.Kind == inspect.KindMessage {
			w.audit.mu.Lock()
			w.audit.err = errors.New("disk full")
			w.audit.mu.Unlock()
			return inspect.Verdict{Decision: inspect.Flagged, Reason: "odd", BodyLimit: -1}
		}
		return allowed()
	}
	h := http.Header{"Content-Type": {"application/grpc"}}
	send(t, h2(w.viaTransparent()), "https://"+good+"/", strings.NewReader(message("odd")), h)
	for _, r := range server.all() {
		if r.err == nil {
			t.Errorf("%+v", r)
		}
	}
}

// TestIsFramed: what is not clearly framed is a body as any other.
func TestIsFramed(t *testing.T) {
	for value, want := range map[string]bool{
		"application/grpc": true, "application/grpc+json": true, "APPLICATION/GRPC ; a=b": true, "application/grpc-web+proto": true,
		"application/connect+proto": true, "application/grpc-web-text": false, "application/grpcx": false, "application/connect": false,
		"application/json": false, "text/plain; application/grpc": false, "": false,
	} {
		if isFramed(http.Header{"Content-Type": {value}}) != want {
			t.Errorf("%q", value)
		}
	}
	if isFramed(http.Header{"Content-Type": {"application/grpc", "application/grpc"}}) ||
		isFramed(http.Header{"Content-Type": {"application/grpc"}, "Content-Encoding": {"gzip"}}) || isFramed(nil) {
		t.Error("two types, or a coding")
	}
}

// piecesOf reads a body by its pieces, with what was decided of it.
func piecesOf(p func(judge) pieces) (out []byte, decided [][]byte, err error) {
	j := judge{
		decide: func(_ inspect.Kind, body []byte, _ []string, _ int) error {
			decided = append(decided, bytes.Clone(body))
			return nil
		},
		refuse: func(reason string) error { return &refusedError{reason} },
	}
	pieces := p(j)
	defer pieces.free()
	for {
		b, err := pieces.next(context.Background())
		out = append(out, b...)
		if err != nil {
			return out, decided, err
		}
	}
}

// FuzzMessages: whatever comes in whatever parts, only whole messages go on, all
// of what goes on was decided, and all memory comes back.
func FuzzMessages(f *testing.F) {
	f.Add([]byte(message("a")+message("")+frameOf(1, "b")), false)
	f.Add([]byte(message(strings.Repeat("x", 10_000))+"\x00\x00"), true)
	f.Add([]byte("\x00\xff\xff\xff\xff"), false)
	f.Add([]byte("\x82\x00\x00\x00\x01x"), true)
	f.Fuzz(func(t *testing.T, in []byte, byByte bool) {
		m := newMemory(1<<20, 64<<10, time.Second)
		var src io.Reader = bytes.NewReader(in)
		if byByte {
			src = iotest.OneByteReader(src)
		}
		p := &pace{timeout: time.Minute, late: func() {}}
		out, decided, err := piecesOf(func(j judge) pieces {
			return newMessages(j, src, m, p, 64<<10, http.Header{"Grpc-Encoding": {"gzip"}}, inspect.ToServer)
		})
		if !bytes.HasPrefix(in, out) || (err == io.EOF) != (len(out) == len(in)) {
			t.Fatalf("%d of %d bytes went on, %v", len(out), len(in), err)
		}
		if m.free != newMemory(1<<20, 64<<10, 0).free {
			t.Fatalf("%d bytes are free", m.free)
		}
		var again []byte
		for i, rest := 0, out; len(rest) > 0; i++ {
			again = append(again, rest[:frameHead]...)
			again = append(again, decided[i]...)
			rest = rest[frameHead+len(decided[i]):]
		}
		if !bytes.Equal(again, out) {
			t.Fatal("what went on is not what was decided")
		}
	})
}

// FuzzEvents is the same for event streams, which always go on to their end.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: a\n\ndata: b\r\n\r\n: ping\r\rdata"), true)
	f.Add([]byte("\n\r\n\r\r\n\n"), false)
	f.Add(append(bytes.Repeat([]byte("data: x\n"), 700), "\n\nid: 1\n\n"...), false)
	f.Fuzz(func(t *testing.T, in []byte, byByte bool) {
		if len(in) > 12<<10 { // three times what is buffered
			return
		}
		m := newMemory(1<<20, 64<<10, time.Second)
		var src io.Reader = bytes.NewReader(in)
		if byByte {
			src = iotest.OneByteReader(src)
		}
		p := &pace{timeout: time.Minute, late: func() {}}
		out, decided, err := piecesOf(func(j judge) pieces { return newEvents(j, src, m, p, 64<<10) })
		if err != io.EOF || !bytes.Equal(out, in) || !bytes.Equal(bytes.Join(decided, nil), in) {
			t.Fatalf("%d of %d bytes went on, %v", len(out), len(in), err)
		}
		if m.free != newMemory(1<<20, 64<<10, 0).free {
			t.Fatalf("%d bytes are free", m.free)
		}
	})
}

// TestEvents: where they end, however lines do.
func TestEvents(t *testing.T) {
	long := strings.Repeat("data: "+strings.Repeat("y", 700)+"\n", 20)
	for in, want := range map[string][]string{
		"data: a\n\ndata: b\n\n":             {"data: a\n\n", "data: b\n\n"},
		"data: a\r\n\r\ndata: b\r\n\r\n":     {"data: a\r\n\r\n", "data: b\r\n\r\n"},
		"data: a\r\rdata: b":                 {"data: a\r\r", "data: b"},
		"data: a\n\r\ndata: b\r\n\n":         {"data: a\n\r\n", "data: b\r\n\n"},
		"\n: x\n\n":                          {"\n", ": x\n\n"},
		long + "\n" + "data: b\n\n":          {long + "\n", "data: b\n\n"},
		"data: b\n\n" + long + "\r\n" + long: {"data: b\n\n", long + "\r\n", long},
	} {
		for _, src := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in))} {
			m := newMemory(1<<20, 64<<10, time.Second)
			p := &pace{timeout: time.Minute, late: func() {}}
			_, decided, err := piecesOf(func(j judge) pieces { return newEvents(j, src, m, p, 64<<10) })
			var got []string
			for _, d := range decided {
				got = append(got, string(d))
			}
			// A CR that ends what has come may have its LF still to come.
			if joined := strings.Join(got, ""); joined != in || err != io.EOF {
				t.Errorf("%.60q: %.60q %v", in, joined, err)
			}
			if _, slow := src.(*strings.Reader); slow && !slices.Equal(got, want) {
				t.Errorf("%.60q: %.200q", in, got)
			}
		}
	}
}
