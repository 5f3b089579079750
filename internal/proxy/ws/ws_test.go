package ws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// frame makes a raw frame, masked as a client does.
func frame(fin bool, op Opcode, masked bool, payload string) []byte {
	buf := append(make([]byte, maxHeader), payload...)
	var mask *[4]byte
	if masked {
		mask = &[4]byte{1, 2, 3, 4}
		xor(buf[maxHeader:], *mask, 0)
	}
	return buf[putHeader(buf, fin, op, len(payload), mask):]
}

func c(op Opcode, payload string) []byte { return frame(true, op, true, payload) }
func s(op Opcode, payload string) []byte { return frame(true, op, false, payload) }

// got is one frame as a side received it.
type got struct {
	op      Opcode
	fin     bool
	payload string
}

func readFrame(r io.Reader, masked bool) (got, error) {
	var scratch [maxHeader]byte
	h, err := readHeader(r, masked, &scratch)
	if err != nil {
		return got{}, err
	}
	b := make([]byte, h.length)
	_, err = io.ReadFull(r, b)
	xor(b, h.mask, 0)
	return got{h.op, h.fin, string(b)}, err
}

func pair(t *testing.T) (near, far net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

type rig struct {
	t              *testing.T
	client, server net.Conn // the far ends
	result         chan error
}

func start(ctx context.Context, t *testing.T, opt Options) *rig {
	r := &rig{t: t, result: make(chan error, 1)}
	opt.Client, r.client = pair(t)
	opt.Server, r.server = pair(t)
	go func() { r.result <- Relay(ctx, opt) }()
	return r
}

func (r *rig) send(conn net.Conn, frames ...[]byte) {
	r.t.Helper()
	if _, err := conn.Write(bytes.Join(frames, nil)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) want(conn net.Conn, op Opcode, payload string) {
	r.t.Helper()
	g, err := readFrame(conn, conn == r.server)
	if err != nil || g != (got{op, true, payload}) {
		r.t.Fatalf("got %.80v, %v, want %d %.60q", g, err, op, payload)
	}
}

func (r *rig) wantClosed(code uint16) {
	r.t.Helper()
	for _, conn := range []net.Conn{r.client, r.server} {
		g, err := readFrame(conn, conn == r.server)
		if err != nil || g.op != opClose || len(g.payload) < 2 || uint16(g.payload[0])<<8|uint16(g.payload[1]) != code {
			r.t.Errorf("got %v, %v, want close %d", g, err, code)
		}
		if rest, _ := io.ReadAll(conn); len(rest) > 0 {
			r.t.Errorf("%q behind the close", rest)
		}
	}
}

func all(context.Context, Direction, *Message) Action { return Forward }

var modes = map[string]func(context.Context, Direction, *Message) Action{"inspected": all, "streamed": nil}

func TestRelaysMessages(t *testing.T) {
	for name, on := range modes {
		t.Run(name, func(t *testing.T) {
			r := start(t.Context(), t, Options{OnMessage: on})
			for _, n := range []int{0, 1, 125, 126, 1000, 3000} {
				m := strings.Repeat("x", n)
				r.send(r.client, c(Text, m))
				r.want(r.server, Text, m)
				r.send(r.server, s(Binary, m))
				r.want(r.client, Binary, m)
			}
			// 1.2 of rule 51: control payloads end here; the pong goes back.
			r.send(r.client, c(opPing, "secret"), c(opPong, "secret"), c(Text, "a"))
			r.want(r.client, opPong, "secret")
			r.want(r.server, Text, "a")
			r.send(r.server, s(opPing, "beat"), s(opPong, ""), s(Text, "b"))
			r.want(r.server, opPong, "beat")
			r.want(r.client, Text, "b")
			// A close goes on without its reason.
			r.send(r.client, c(opClose, "\x0f\xa0secret"))
			r.want(r.server, opClose, "\x0f\xa0")
			r.send(r.server, s(Text, "last"), s(opClose, "\x03\xe8bye"))
			r.want(r.client, Text, "last")
			r.want(r.client, opClose, "\x03\xe8")
			if err := <-r.result; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestJoinsFragments(t *testing.T) {
	var seen []string
	r := start(t.Context(), t, Options{OnMessage: func(_ context.Context, d Direction, m *Message) Action {
		seen = append(seen, fmt.Sprint(d, " ", m.Op, " ", string(m.Data)))
		return Forward
	}})
	r.send(r.client, frame(false, Text, true, "se\xc3"), c(opPing, "p"), frame(false, continuation, true, ""),
		frame(true, continuation, true, "\xa9cret"))
	r.want(r.client, opPong, "p")
	r.want(r.server, Text, "se\u00e9cret")
	r.client.Close()
	if err := <-r.result; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an end without close: %v", err)
	}
	if len(seen) != 1 || seen[0] != "client 1 se\u00e9cret" {
		t.Errorf("saw %q", seen)
	}
}

func TestStreamsAnySize(t *testing.T) {
	r := start(t.Context(), t, Options{MaxMessage: 10})
	big := strings.Repeat("0123456789\u00e9", 100_000)
	go func() {
		_, _ = r.client.Write(append(frame(false, Text, true, big), frame(true, continuation, true, "")...))
	}()
	var all strings.Builder
	for first := true; ; first = false {
		g, err := readFrame(r.server, true)
		if err != nil || first != (g.op == Text) || len(g.payload) > keepRoom { // a buffer that was kept may be larger than a first one
			t.Fatalf("got %d bytes of %d, %v", len(g.payload), g.op, err)
		}
		all.WriteString(g.payload)
		if g.fin {
			break
		}
	}
	if all.String() != big {
		t.Error("the message changed")
	}
	r.client.Close()
	<-r.result
}

func TestActions(t *testing.T) {
	on := func(_ context.Context, d Direction, m *Message) Action {
		switch string(m.Data) {
		case "drop":
			return Drop
		case "block":
			return Block
		case "panic":
			panic("inspector")
		case "key":
			m.Data = []byte("a longer placeholder")
		case "not text":
			m.Data = []byte("\xff")
		}
		return Forward
	}
	for _, bad := range []string{"block", "panic"} {
		for _, up := range []bool{true, false} {
			r := start(t.Context(), t, Options{OnMessage: on})
			r.send(r.client, c(Text, "drop"), c(Text, "key"))
			r.want(r.server, Text, "a longer placeholder")
			if up {
				r.send(r.client, c(Text, bad), c(Text, "more"))
			} else {
				r.send(r.server, s(Text, bad))
			}
			r.wantClosed(ClosePolicy)
			var ce *CloseError
			if err := <-r.result; !errors.As(err, &ce) || ce.Code != ClosePolicy || (ce.Dir == ToServer) != up {
				t.Errorf("%s: %v", bad, err)
			}
		}
	}
	r := start(t.Context(), t, Options{OnMessage: on})
	r.send(r.client, c(Text, "not text"))
	r.wantClosed(CloseNotText)
	<-r.result
	r = start(t.Context(), t, Options{OnMessage: func(context.Context, Direction, *Message) (a Action) { return }})
	r.send(r.client, c(Text, "x"))
	r.wantClosed(ClosePolicy)
	<-r.result
}

func TestViolations(t *testing.T) {
	tests := []struct {
		name       string
		fromServer bool
		frames     []byte
		code       uint16
	}{
		{"unmasked client", false, s(Text, "x"), CloseProtocol},
		{"masked server", true, c(Text, "x"), CloseProtocol},
		{"RSV1, compressed", false, []byte{0xc1, 0x80, 0, 0, 0, 0}, CloseProtocol},
		{"RSV2", false, []byte{0xa1, 0x80, 0, 0, 0, 0}, CloseProtocol},
		{"RSV3", true, []byte{0x91, 0x00}, CloseProtocol},
		{"RSV1 on a ping", true, []byte{0xc9, 0x00}, CloseProtocol},
		{"opcode 3", true, []byte{0x83, 0x00}, CloseProtocol},
		{"opcode 7", true, []byte{0x87, 0x00}, CloseProtocol},
		{"opcode 11", true, []byte{0x8b, 0x00}, CloseProtocol},
		{"opcode 15", true, []byte{0x8f, 0x00}, CloseProtocol},
		{"long 16-bit length", true, []byte{0x81, 126, 0, 5, 'h', 'e', 'l', 'l', 'o'}, CloseProtocol},
		{"long 64-bit length", true, []byte{0x81, 127, 0, 0, 0, 0, 0, 0, 0, 5, 'h'}, CloseProtocol},
		{"64-bit where 16 do", true, []byte{0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, CloseProtocol},
		{"negative length", true, []byte{0x81, 127, 0x80, 0, 0, 0, 0, 1, 0, 0}, CloseProtocol},
		{"fragmented ping", true, []byte{0x09, 0x00}, CloseProtocol},
		{"fragmented close", true, []byte{0x08, 0x00}, CloseProtocol},
		{"long ping", true, append([]byte{0x89, 126, 0, 126}, make([]byte, 126)...), CloseProtocol},
		{"stray continuation", false, c(continuation, "x"), CloseProtocol},
		{"message in a message", false, append(frame(false, Text, true, "x"), c(Text, "y")...), CloseProtocol},
		{"half a close code", false, c(opClose, "\x03"), CloseProtocol},
		{"close 999", false, c(opClose, "\x03\xe7"), CloseProtocol},
		{"close 1004", false, c(opClose, "\x03\xec"), CloseProtocol},
		{"close 1005", false, c(opClose, "\x03\xed"), CloseProtocol},
		{"close 1006", true, s(opClose, "\x03\xee"), CloseProtocol},
		{"close 1015", true, s(opClose, "\x03\xf7"), CloseProtocol},
		{"close 2000", true, s(opClose, "\x07\xd0"), CloseProtocol},
		{"close 5000", true, s(opClose, "\x13\x88"), CloseProtocol},
		{"close reason", true, s(opClose, "\x03\xe8\xff"), CloseNotText},
		{"text", false, c(Text, "a\xffb"), CloseNotText},
		{"text, surrogate", false, c(Text, "\xed\xa0\x80"), CloseNotText},
		{"text, cut short", true, s(Text, "\xe2\x82"), CloseNotText},
	}
	for name, on := range modes {
		for _, tt := range tests {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				r := start(t.Context(), t, Options{OnMessage: on})
				if tt.fromServer {
					r.send(r.server, tt.frames)
				} else {
					r.send(r.client, tt.frames)
				}
				// A streamed beginning may precede the close.
				if tt.name == "message in a message" && on == nil {
					if _, err := readFrame(r.server, true); err != nil {
						t.Error(err)
					}
				}
				r.wantClosed(tt.code)
				var ce *CloseError
				if err := <-r.result; !errors.As(err, &ce) || ce.Code != tt.code || (ce.Dir == ToClient) != tt.fromServer {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

func TestTooBig(t *testing.T) {
	for name, frames := range map[string][]byte{
		"one frame": c(Binary, strings.Repeat("x", 101)),
		"fragments": append(frame(false, Binary, true, strings.Repeat("x", 60)), frame(true, continuation, true, strings.Repeat("x", 41))...),
		"announced": {0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
	} {
		r := start(t.Context(), t, Options{OnMessage: all, MaxMessage: 100})
		fits := strings.Repeat("y", 100)
		r.send(r.client, c(Binary, fits))
		r.want(r.server, Binary, fits)
		r.send(r.client, frames)
		r.wantClosed(CloseTooBig)
		var ce *CloseError
		if err := <-r.result; !errors.As(err, &ce) || ce.Code != CloseTooBig {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A header that announces 16 MiB costs no memory before the bytes come.
func TestAnnouncedLengthIsNotAllocated(t *testing.T) {
	p := &pump{
		opt: &Options{OnMessage: all, MaxMessage: DefaultMaxMessage}, dir: ToClient,
		r: bytes.NewReader([]byte{0x82, 127, 0, 0, 0, 0, 1, 0, 0, 0, 'x'}),
	}
	var scratch [maxHeader]byte
	h, err := readHeader(p.r, false, &scratch)
	if err != nil || h.length != 16<<20 {
		t.Fatal(h, err)
	}
	if err := p.data(h); err == nil || cap(p.buf.b) > maxHeader+keepRoom {
		t.Errorf("holds %d bytes, %v", cap(p.buf.b), err)
	}
}

func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := start(ctx, t, Options{OnMessage: all})
	r.send(r.client, c(Text, "x"))
	r.want(r.server, Text, "x")
	cancel()
	r.wantClosed(CloseGoingAway)
	if err := <-r.result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A side that reads nothing holds nothing up for longer than the time-out.
func TestDeafPeer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	near, far := net.Pipe() // no buffer: a write waits for its read
	defer far.Close()
	other, client := pair(t)
	result := make(chan error, 1)
	go func() {
		result <- Relay(ctx, Options{Client: other, Server: near, OnMessage: all, CloseTimeout: time.Millisecond})
	}()
	if _, err := client.Write(c(Text, "nobody reads this")); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	if _, err := far.Read(one); err != nil { // the write has begun
		t.Fatal(err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A peer that answers no close is cut off.
func TestCloseWithoutAnswer(t *testing.T) {
	r := start(t.Context(), t, Options{CloseTimeout: time.Millisecond})
	r.send(r.client, c(opClose, ""))
	r.want(r.server, opClose, "")
	if err := <-r.result; err != nil {
		t.Error(err)
	}
}

func TestBufferedBytes(t *testing.T) {
	near, client := pair(t)
	near2, server := pair(t)
	result := make(chan error, 1)
	go func() {
		early := io.MultiReader(bytes.NewReader(c(Text, "early")), near)
		result <- Relay(t.Context(), Options{Client: near, ClientReader: early, Server: near2, OnMessage: all})
	}()
	if g, err := readFrame(server, true); err != nil || g.payload != "early" {
		t.Errorf("got %v, %v", g, err)
	}
	client.Close()
	<-result
}

func TestUpgrade(t *testing.T) {
	if got := Accept("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455 section 1.3
		t.Error(got)
	}
	good := func() *http.Request {
		return &http.Request{Method: "GET", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
			"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"WebSocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		}}
	}
	if err := ValidUpgradeRequest(good()); err != nil || !IsUpgrade(good().Header) {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*http.Request){
		"POST":        func(r *http.Request) { r.Method = "POST" },
		"1.0":         func(r *http.Request) { r.ProtoMinor = 0 },
		"body":        func(r *http.Request) { r.ContentLength = 1 },
		"chunked":     func(r *http.Request) { r.ContentLength = -1 },
		"h2c":         func(r *http.Request) { r.Header["Upgrade"] = []string{"h2c"} },
		"two":         func(r *http.Request) { r.Header["Upgrade"] = []string{"websocket", "h2c"} },
		"list":        func(r *http.Request) { r.Header["Upgrade"] = []string{"websocket, h2c"} },
		"connection":  func(r *http.Request) { r.Header["Connection"] = []string{"close"} },
		"version":     func(r *http.Request) { r.Header["Sec-Websocket-Version"] = []string{"8"} },
		"no key":      func(r *http.Request) { delete(r.Header, "Sec-Websocket-Key") },
		"two keys":    func(r *http.Request) { r.Header.Add("Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ==") },
		"key as data": func(r *http.Request) { r.Header.Set("Sec-Websocket-Key", "secretsecretsecretsecretsecretse") },
	} {
		r := good()
		spoil(r)
		if ValidUpgradeRequest(r) == nil {
			t.Errorf("%s passed", name)
		}
	}
	key := "dGhlIHNhbXBsZSBub25jZQ=="
	res := func() *http.Response {
		return &http.Response{StatusCode: 101, Header: http.Header{
			"Connection": {"upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Accept": {Accept(key)},
		}}
	}
	if err := ValidUpgradeResponse(res(), key); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*http.Response){
		"200":       func(r *http.Response) { r.StatusCode = 200 },
		"other":     func(r *http.Response) { r.Header.Set("Upgrade", "h2c") },
		"proof":     func(r *http.Response) { r.Header.Set("Sec-Websocket-Accept", "x") },
		"extension": func(r *http.Response) { r.Header.Set("Sec-Websocket-Extensions", "permessage-deflate") },
	} {
		r := res()
		spoil(r)
		if ValidUpgradeResponse(r, key) == nil {
			t.Errorf("%s passed", name)
		}
	}
}

func TestUTF8Stream(t *testing.T) {
	for _, text := range []string{"", "abc", "\u00e9\u20ac\U0001f600\ufffd", "\xff", "a\xc3", "\xe2\x28\xa1", "\xf0\x9f\x98", "\xed\xa0\x80", "\xf4\x90\x80\x80"} {
		for size := 1; size <= 5; size++ {
			var u utf8Stream
			ok := true
			for at := 0; at < len(text); at += size {
				ok = ok && u.write([]byte(text[at:min(at+size, len(text))]))
			}
			if got, want := ok && u.end(), utf8.ValidString(text); got != want {
				t.Errorf("%q in pieces of %d: %v", text, size, got)
			}
		}
	}
}

// sink is an endpoint's connection that keeps what is written.
type sink struct{ bytes.Buffer }

func (*sink) Close() error { return nil }

// FuzzPump: no input panics, what comes out is well formed and small, and both
// modes pass on the same payload.
func FuzzPump(f *testing.F) {
	f.Add(bytes.Join([][]byte{c(Text, "hello"), c(opPing, "x"), frame(false, Binary, true, "a"), frame(true, continuation, true, "b"), c(opClose, "")}, nil), true)
	f.Add(bytes.Join([][]byte{s(Text, "hello"), s(opClose, "\x03\xe8")}, nil), false)
	f.Fuzz(func(t *testing.T, in []byte, up bool) {
		var out [2]string
		var errs [2]error
		for i, on := range []func(context.Context, Direction, *Message) Action{all, nil} {
			dir := ToClient
			if up {
				dir = ToServer
			}
			to := &sink{}
			p := &pump{
				ctx: t.Context(), opt: &Options{OnMessage: on, MaxMessage: 1 << 20}, dir: dir,
				r: iotest.HalfReader(bytes.NewReader(in)), from: &endpoint{conn: &sink{}, masks: !up}, to: &endpoint{conn: to, masks: up},
			}
			errs[i] = p.run()
			if to.Len() > 15*len(in)+maxHeader {
				t.Errorf("%d bytes became %d", len(in), to.Len())
			}
			for to.Len() > 0 {
				g, err := readFrame(to, up)
				if err != nil {
					t.Fatal(err)
				}
				out[i] += g.payload
			}
		}
		if errs[0] == nil && !endsInsideMessage(in, up) && (errs[1] != nil || out[0] != out[1]) {
			t.Errorf("inspected %q, streamed %q, %v", out[0], out[1], errs[1])
		}
	})
}

// endsInsideMessage reports whether a message is cut off by a close frame. It is
// streamed, or found to be bad, in part, and an inspector never sees it.
func endsInsideMessage(in []byte, masked bool) bool {
	inside := false
	for r := bytes.NewReader(in); ; {
		g, err := readFrame(r, masked)
		if err != nil || g.op == opClose {
			return inside
		}
		if g.op < opClose {
			inside = !g.fin
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("hello"), true, true)
	f.Add(make([]byte, 126), false, true)
	f.Add(make([]byte, 70000), true, false)
	f.Fuzz(func(t *testing.T, payload []byte, fin, masked bool) {
		g, err := readFrame(bytes.NewReader(frame(fin, Binary, masked, string(payload))), masked)
		if err != nil || g != (got{Binary, fin, string(payload)}) {
			t.Errorf("got %.80v, %v", g, err)
		}
	})
}

// readerFunc is a Read.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A relay that waits for the next message holds no buffer of the last one.
func TestIdleHoldsNoBuffer(t *testing.T) {
	for name, on := range modes {
		p := &pump{
			ctx: t.Context(), opt: &Options{OnMessage: on, MaxMessage: 1 << 20}, dir: ToClient,
			from: &endpoint{conn: &sink{}}, to: &endpoint{conn: &sink{}},
		}
		waited := false
		p.r = io.MultiReader(bytes.NewReader(s(Text, strings.Repeat("x", 1000))), readerFunc(func([]byte) (int, error) {
			waited = p.buf == nil
			return 0, io.EOF
		}))
		if _ = p.run(); !waited {
			t.Errorf("%s: a buffer is held", name)
		}
	}
}
