package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/agentcage/agentcage/internal/inspect"
)

const (
	// window is how much of a body that is too long to be kept is decided at
	// once.
	window = 1 << 20
	// overlap is how much of a window is held back, to be decided once more
	// with what follows: nothing shorter can be cut in two unseen, and not even
	// its first part leaves.
	overlap = 64 << 10
)

// piecesBuffer holds most messages and events, so that a stream that is idle
// holds nothing else.
const piecesBuffer = 4 << 10

// judge decides pieces. Both return an error that ends the body.
type judge struct {
	decide func(kind inspect.Kind, body []byte, encoding []string, repeated int) error
	refuse func(reason string) error
}

// pieces are those of one body: next returns decided bytes, to be used until it
// is called again, and at the end io.EOF.
type pieces interface {
	next(ctx context.Context) ([]byte, error)
	free()
}

// windows are the pieces of a body without a structure that we know.
type windows struct {
	judge judge
	src   io.Reader
	kept  *kept
	pace  *pace

	begun bool // the first piece has been given
	whole bool // nothing follows what is kept
}

func (w *windows) next(ctx context.Context) ([]byte, error) {
	switch {
	case !w.begun: // it was decided with the head
		w.begun = true
		return w.ready(), nil
	case w.whole:
		return nil, io.EOF
	}
	w.kept.keepEnd(min(overlap, w.kept.n), window)
	repeated := w.kept.n
	w.pace.start()
	whole, err := w.kept.fill(ctx, w.src, window, w.pace)
	if !w.pace.stop() {
		err = errSlow
	}
	if err != nil {
		return nil, err
	}
	w.whole = whole
	if err := w.judge.decide(inspect.KindWindow, w.kept.bytes(), nil, repeated); err != nil {
		return nil, err
	}
	return w.ready(), nil
}

// ready is what need not be looked at once more.
func (w *windows) ready() []byte {
	b := w.kept.bytes()
	if w.whole {
		return b
	}
	return b[:max(len(b)-overlap, 0)]
}

func (w *windows) free() { w.kept.drop() }

// compressed are the beginnings of formats of which a part cannot be read.
var compressed = []string{
	"\x1f\x8b", "\x1f\x9d", // gzip, compress
	"\x28\xb5\x2f\xfd",                             // zstd
	"\x78\x01", "\x78\x5e", "\x78\x9c", "\x78\xda", // zlib
	"PK\x03\x04", "PK\x05\x06", "PK\x07\x08", // zip
	"\xfd7zXZ\x00", "BZh", "7z\xbc\xaf\x27\x1c", // xz, bzip2, 7z
	"\x04\x22\x4d\x18", "LZIP", "Rar!\x1a\x07", // lz4, lzip, rar
}

// isCompressed also finds the frames that zstd and lz4 decoders skip (RFC 8878
// section 3.1.2).
func isCompressed(b []byte) bool {
	for _, magic := range compressed {
		if bytes.HasPrefix(b, []byte(magic)) {
			return true
		}
	}
	return len(b) >= 4 && b[0]&0xf0 == 0x50 && string(b[1:4]) == "\x2a\x4d\x18"
}

// isFramed finds bodies that are a sequence of messages with their length: gRPC
// (grpc.io, PROTOCOL-HTTP2.md), gRPC-Web in binary, streams of Connect. What is
// not clearly one is a body as any other.
func isFramed(h http.Header) bool {
	types := h["Content-Type"]
	if len(types) != 1 || len(h["Content-Encoding"]) > 0 {
		return false
	}
	t, _, _ := strings.Cut(types[0], ";")
	switch t = strings.ToLower(strings.TrimSpace(t)); t {
	case "application/grpc", "application/grpc-web":
		return true
	}
	return strings.HasPrefix(t, "application/grpc+") || strings.HasPrefix(t, "application/grpc-web+") ||
		strings.HasPrefix(t, "application/connect+")
}

// messages are the pieces of such a body.
type messages struct {
	judge    judge
	src      *bufio.Reader
	kept     *kept // of a message that is too long for src
	pace     *pace
	most     int      // bytes of a message
	encoding []string // of the messages that are compressed, if we know it
	flags    byte     // that a message may have

	given int // bytes of src to leave behind
}

// frameHead is one byte of flags and four of length.
const frameHead = 5

// The flags of gRPC and of Connect, and that of gRPC-Web for trailers in a body.
const (
	flagCompressed = 1
	flagEnd        = 2
	flagTrailers   = 0x80
)

// newMessages reads messages of at most most bytes with their heads. h says how
// those that are compressed are.
func newMessages(j judge, src io.Reader, m *memory, p *pace, most int, h http.Header, d inspect.Direction) *messages {
	out := &messages{judge: j, src: bufio.NewReaderSize(src, piecesBuffer), kept: newKept(m), pace: p, most: most - frameHead, flags: flagCompressed}
	if d == inspect.ToClient {
		out.flags |= flagEnd | flagTrailers // only servers end a stream by a message
	}
	for _, field := range []string{"Grpc-Encoding", "Connect-Content-Encoding"} {
		if v := h[field]; len(v) == 1 && strings.EqualFold(v[0], "gzip") {
			out.encoding = []string{"gzip"}
		}
	}
	return out
}

func (m *messages) next(ctx context.Context) ([]byte, error) {
	m.leave()
	head, err := m.src.Peek(frameHead)
	switch {
	case err == io.EOF && len(head) == 0:
		return nil, io.EOF
	case err == io.EOF:
		return nil, m.judge.refuse("malformed message: it ends in its head")
	case err != nil:
		return nil, err
	}
	var encoding []string
	n := binary.BigEndian.Uint32(head[1:])
	switch flags := head[0]; {
	case flags&^m.flags != 0:
		return nil, m.judge.refuse(fmt.Sprintf("malformed message: its flags are %#02x", flags))
	case flags&flagCompressed != 0 && n == 0:
		// There is nothing to decode and to look at, and the flag says a bit.
		return nil, m.judge.refuse("malformed message: it is compressed and empty")
	case flags&flagCompressed == 0:
	case m.encoding == nil:
		return nil, m.judge.refuse("compressed message: its encoding is not known")
	default:
		encoding = m.encoding
	}
	if int64(n) > int64(m.most) {
		return nil, m.judge.refuse(fmt.Sprintf("message too large to inspect: %d > %d", n, m.most))
	}
	b, err := m.read(ctx, frameHead+int(n))
	switch {
	case err == io.EOF:
		return nil, m.judge.refuse("malformed message: it is shorter than its length")
	case err != nil:
		return nil, err
	}
	if err := m.judge.decide(inspect.KindMessage, b[frameHead:], encoding, 0); err != nil {
		return nil, err
	}
	return b, nil
}

// leave forgets what was given before: a stream without a message under way
// holds next to nothing.
func (m *messages) leave() {
	_, _ = m.src.Discard(m.given) // it is there
	m.given = 0
	m.kept.clear()
}

// read returns io.EOF when the body ends before so many bytes.
func (m *messages) read(ctx context.Context, size int) ([]byte, error) {
	if size <= m.src.Size() {
		b, err := m.src.Peek(size)
		m.given = len(b)
		return b, err
	}
	m.pace.start()
	_, err := m.kept.fill(ctx, m.src, size, m.pace)
	switch {
	case !m.pace.stop():
		return nil, errSlow
	case err == nil && m.kept.n < size:
		return nil, io.EOF
	}
	return m.kept.bytes(), err
}

func (m *messages) free() { m.kept.drop() }

// events are the pieces of text/event-stream (HTML, section 9.2.6).
type events struct {
	judge judge
	src   *bufio.Reader
	kept  *kept // of an event that is too long for src
	pace  *pace
	most  int // bytes of an event

	scan  eventScanner
	given int
}

func newEvents(j judge, src io.Reader, m *memory, p *pace, most int) *events {
	return &events{judge: j, src: bufio.NewReaderSize(src, piecesBuffer), kept: newKept(m), pace: p, most: most, scan: eventScanner{blank: true}}
}

func (e *events) next(ctx context.Context) ([]byte, error) {
	_, _ = e.src.Discard(e.given) // it is there
	e.given = 0
	e.kept.clear()
	b, err := e.short()
	if err == bufio.ErrBufferFull {
		b, err = e.long(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := e.judge.decide(inspect.KindEvent, b, nil, 0); err != nil {
		return nil, err
	}
	return b, nil
}

// short finds an event in the buffer of src. The error is bufio.ErrBufferFull
// when it is longer than that; then all that is buffered belongs to it.
func (e *events) short() ([]byte, error) {
	for looked := 0; ; {
		b, err := e.src.Peek(looked + 1)
		if err == bufio.ErrBufferFull {
			return nil, err
		}
		if err != nil {
			e.given = len(b)
			if err == io.EOF && len(b) > 0 {
				return b, nil // an event that is not ended is none, but it is text
			}
			return nil, err
		}
		b, _ = e.src.Peek(e.src.Buffered()) // it is there
		n, ended := e.scan.scan(b[looked:])
		looked += n
		if ended {
			e.given = looked
			return b[:looked], nil
		}
	}
}

func (e *events) long(ctx context.Context) ([]byte, error) {
	e.pace.start()
	b, err := e.collect(ctx)
	if !e.pace.stop() {
		err = errSlow
	}
	return b, err
}

// collect goes on with what short has scanned.
func (e *events) collect(ctx context.Context) ([]byte, error) {
	if _, err := e.kept.fill(ctx, e.src, e.src.Buffered(), e.pace); err != nil {
		return nil, err
	}
	for {
		_, err := e.src.Peek(1)
		if err == io.EOF {
			return e.kept.bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		b, _ := e.src.Peek(e.src.Buffered()) // it is there
		n, ended := e.scan.scan(b)
		if e.kept.n+n > e.most {
			return nil, e.judge.refuse(fmt.Sprintf("event too large to inspect: more than %d bytes", e.most))
		}
		if _, err := e.kept.fill(ctx, e.src, e.kept.n+n, e.pace); err != nil {
			return nil, err
		}
		if ended {
			return e.kept.bytes(), nil
		}
	}
}

func (e *events) free() { e.kept.drop() }

// eventScanner finds the empty line behind an event. Lines end in CRLF, LF or
// CR.
type eventScanner struct {
	blank bool // nothing of the line has been seen
	cr    bool // a CR was seen last
}

// scan returns how many bytes belong to the event, and whether it ends there.
func (s *eventScanner) scan(b []byte) (n int, ended bool) {
	for i, c := range b {
		switch {
		case c == '\n' && s.cr:
			s.cr = false // the second half of a line's end
		case c == '\n' || c == '\r':
			s.cr = c == '\r'
			if !s.blank {
				s.blank = true
				continue
			}
			if s.cr && i+1 < len(b) && b[i+1] == '\n' {
				s.cr = false
				i++
			}
			return i + 1, true
		default:
			s.blank, s.cr = false, false
		}
	}
	return len(b), false
}

// errSlow is the end of content that took too long.
var errSlow = errors.New("the body came too slowly")

// decided is a body whose bytes go on only when they have been decided. A
// transport reads it in a goroutine of its own and may close it meanwhile.
type decided struct {
	io.Closer
	ctx     context.Context
	pieces  pieces
	judge   judge
	trailer func() error // decides what is behind the body

	mu            sync.Mutex
	reading, over bool
	ready         []byte
	err           error
}

func (d *decided) Read(p []byte) (n int, err error) {
	if !d.enter() {
		return 0, errClosedBody
	}
	defer d.leave()
	for len(d.ready) == 0 && d.err == nil {
		d.ready, d.err = d.next()
	}
	if d.err != nil {
		return 0, d.err
	}
	n = copy(p, d.ready)
	d.ready = d.ready[n:]
	return n, nil
}

// next does not panic: in a goroutine of the transport's that would end the
// process.
func (d *decided) next() (b []byte, err error) {
	defer func() {
		if recover() != nil {
			b, err = nil, d.judge.refuse("the gateway failed")
		}
	}()
	b, err = d.pieces.next(d.ctx)
	switch {
	case err == io.EOF:
		if refused := d.trailer(); refused != nil {
			err = refused
		}
	case errors.Is(err, errSlow), errors.Is(err, errNoMemory):
		err = d.judge.refuse(err.Error())
	}
	return b, err
}

func (d *decided) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reading = !d.over
	return d.reading
}

func (d *decided) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reading = false
	if d.over {
		d.pieces.free()
	}
}

func (d *decided) Close() error {
	d.drop()
	return d.Closer.Close()
}

// drop gives the memory back, as soon as nobody reads.
func (d *decided) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.over && !d.reading {
		d.pieces.free()
	}
	d.over = true
}
