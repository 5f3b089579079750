// Package ws relays WebSocket connections message by message (RFC 6455).
//
// The relay ends the protocol on both sides and begins it anew: frames are
// checked strictly, fragments joined, every message shown to the caller before
// a byte of it goes on, and written as one frame with a mask of our own.
// Control frames carry nothing through: pings are answered here, pongs end
// here, and of a close only the code goes on. Extensions must not have been
// negotiated; a frame that uses one is an error.
package ws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Direction says which way a message goes.
type Direction uint8

// The directions.
const (
	ToServer Direction = iota // from the client
	ToClient                  // from the server
)

// String names the sender.
func (d Direction) String() string {
	if d == ToServer {
		return "client"
	}
	return "server"
}

// Message is a whole message. OnMessage may replace Data; neither it nor what
// it is replaced by may be used after the call, since the relay masks in place.
type Message struct {
	Op     Opcode // Text or Binary
	Data   []byte // text is valid UTF-8
	Reason string // OnMessage may set it for the client to read when it blocks
}

// Action is what becomes of a message.
type Action uint8

// The actions. The zero Action blocks.
const (
	Block   Action = iota // close both sides with 1008
	Drop                  // forget the message, keep the connection
	Forward               // pass it on
)

// Defaults of [Options].
const (
	DefaultMaxMessage   = 16 << 20
	DefaultCloseTimeout = 5 * time.Second
)

// Options say what to relay. Client and Server are closed by the relay, and
// closing them must end a Read and a Write in progress, as net.Conn does.
type Options struct {
	Client, Server io.ReadWriteCloser

	// ClientReader and ServerReader are read in place of Client and Server
	// where bytes behind the handshake are already buffered. Nil means that
	// there are none.
	ClientReader, ServerReader io.Reader

	// MaxMessage limits a message in bytes; a longer one closes both sides
	// with 1009. 0 is 16 MiB.
	MaxMessage int64

	// OnMessage decides on every message. Calls for one direction follow one
	// another; those for the two directions may overlap. A panic blocks. With
	// a nil OnMessage messages are checked and passed on as they arrive,
	// whatever their size.
	OnMessage func(ctx context.Context, dir Direction, m *Message) Action

	// Keep gives what bounds the memory of the messages of one direction that
	// OnMessage is to decide. Nil bounds nothing but each message.
	Keep func(dir Direction) Keeper

	// CloseTimeout limits the closing handshake. 0 is 5 s.
	CloseTimeout time.Duration
}

// Keeper is told of the memory that the messages of one direction take. Its
// methods are called by one goroutine.
type Keeper interface {
	// Grow is called before a buffer of so many bytes is made, and at the
	// beginning of a message. An error closes both sides with 1013.
	Grow(ctx context.Context, to int) error
	// Whole is called when the message has come.
	Whole()
	// Release is called when nothing is kept any more.
	Release()
}

// CloseError is why the relay closed both sides with Code.
type CloseError struct {
	Code   uint16
	Dir    Direction // who sent what it is about
	Reason string    // fixed text
	why    string    // the message was blocked
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("websocket closed with %d: from the %s: %s", e.Code, e.Dir, e.Reason)
}

func protocolError(why string) error { return &CloseError{Code: CloseProtocol, Reason: why} }

// Relay passes messages both ways until one side ends the connection, breaks
// the protocol or sends a message that is blocked, or ctx ends. It returns
// when both sides are closed and no goroutine is left: nil after a closing
// handshake, a [*CloseError] when it closed itself, the context's error, or
// the error of the connection that broke.
func Relay(ctx context.Context, opt Options) error {
	if opt.MaxMessage <= 0 {
		opt.MaxMessage = DefaultMaxMessage
	}
	if opt.CloseTimeout <= 0 {
		opt.CloseTimeout = DefaultCloseTimeout
	}
	client := &endpoint{conn: opt.Client}
	server := &endpoint{conn: opt.Server, masks: true}
	up := &pump{ctx: ctx, opt: &opt, dir: ToServer, r: opt.ClientReader, from: client, to: server}
	down := &pump{ctx: ctx, opt: &opt, dir: ToClient, r: opt.ServerReader, from: server, to: client}
	if opt.Keep != nil {
		up.keep, down.keep = opt.Keep(ToServer), opt.Keep(ToClient)
	}
	if up.r == nil {
		up.r = opt.Client
	}
	if down.r == nil {
		down.r = opt.Server
	}
	done := make(chan error, 2)
	for _, p := range []*pump{up, down} {
		go func() { done <- p.run() }()
	}
	running, err := wait(ctx, done, opt.CloseTimeout)
	if code, toClient, toServer := codeOf(ctx, err); code != 0 {
		closeBoth(map[*endpoint]string{client: toClient, server: toServer}, code, opt.CloseTimeout)
	}
	_ = client.conn.Close()
	_ = server.conn.Close()
	for ; running > 0; running-- {
		<-done //nolint:errcheck // why the relay ends is known; this one fails on its closed connection
	}
	return err
}

// wait returns how many pumps still run, and why the relay ends.
func wait(ctx context.Context, done <-chan error, limit time.Duration) (int, error) {
	running := 2
	var late <-chan time.Time
	for running > 0 {
		select {
		case err := <-done:
			running--
			if err != nil {
				if late != nil && !isCloseError(err) {
					err = nil // the side that was asked to close just hung up
				}
				return running, err
			}
			if running > 0 {
				t := time.NewTimer(limit)
				defer t.Stop()
				late = t.C
			}
		case <-late:
			return running, nil
		case <-ctx.Done():
			return running, ctx.Err()
		}
	}
	return 0, nil
}

func isCloseError(err error) bool {
	var ce *CloseError
	return errors.As(err, &ce)
}

// codeOf gives the code for both sides, and what to say. The server is not told
// why a message was blocked: it may be the one that waits for what was found.
func codeOf(ctx context.Context, err error) (code uint16, toClient, toServer string) {
	var ce *CloseError
	switch {
	case errors.As(err, &ce) && ce.Code == ClosePolicy:
		return ce.Code, clip("agentcage: " + cmp.Or(ce.why, "blocked")), "blocked by agentcage"
	case errors.As(err, &ce):
		return ce.Code, "", ""
	case err != nil && ctx.Err() != nil:
		return CloseGoingAway, "", ""
	}
	return 0, "", ""
}

// closeBoth tells both sides, unless one does not read: closing the
// connections ends the writes that hang.
func closeBoth(reasons map[*endpoint]string, code uint16, limit time.Duration) {
	done := make(chan struct{}, 2)
	for e, why := range reasons {
		go func() {
			_ = e.close(code, why)
			done <- struct{}{}
		}()
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	for range reasons {
		select {
		case <-done:
		case <-t.C:
			return
		}
	}
}

// clip cuts a reason to what a close frame holds beside its code, as text.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) <= maxControl-2 {
		return s
	}
	n := maxControl - 2
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// endpoint is the writing half of a side.
type endpoint struct {
	conn  io.ReadWriteCloser
	masks bool // we are the client of this side

	mu     sync.Mutex
	closed bool // a close frame has been sent; nothing may follow it
}

// write sends one frame. buf begins with maxHeader bytes of room, and is
// masked in place.
func (e *endpoint) write(fin bool, op Opcode, buf []byte) error {
	var mask *[4]byte
	if e.masks {
		m := freshMask()
		mask = &m
		xor(buf[maxHeader:], m, 0)
	}
	at := putHeader(buf, fin, op, len(buf)-maxHeader, mask)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = op == opClose
	_, err := e.conn.Write(buf[at:])
	return err
}

func (e *endpoint) control(op Opcode, payload []byte) error {
	var room [maxHeader + maxControl]byte
	n := copy(room[maxHeader:], payload)
	return e.write(true, op, room[:maxHeader+n])
}

// close sends a close frame; code 0 sends none with it.
func (e *endpoint) close(code uint16, reason string) error {
	if code == 0 {
		return e.control(opClose, nil)
	}
	return e.control(opClose, append([]byte{byte(code >> 8), byte(code)}, reason...))
}

// pump carries one direction.
type pump struct {
	ctx      context.Context
	opt      *Options
	dir      Direction
	r        io.Reader
	from, to *endpoint
	scratch  [maxHeader]byte
	keep     Keeper // nil keeps without asking

	open bool   // a message has begun and not ended
	op   Opcode // of that message
	sent bool   // streaming: a frame of it has been passed on
	buf  *buffer
	text utf8Stream

	charged int // what keep was last told of
}

// run returns nil when the side has closed properly.
func (p *pump) run() error {
	err := p.frames()
	p.free()
	var ce *CloseError
	switch {
	case err == errClosed:
		return nil
	case errors.As(err, &ce):
		ce.Dir = p.dir
		return ce
	}
	return midFrame(err)
}

// errClosed ends a pump after a close frame.
var errClosed = errors.New("closed")

func (p *pump) frames() error {
	for {
		h, err := readHeader(p.r, p.dir == ToServer, &p.scratch)
		switch {
		case err != nil:
		case h.control():
			err = p.control(h)
		default:
			err = p.data(h)
		}
		if err != nil {
			return err
		}
	}
}

func (p *pump) control(h header) error {
	var room [maxControl]byte
	payload := room[:h.length]
	if _, err := io.ReadFull(p.r, payload); err != nil {
		return midFrame(err)
	}
	xor(payload, h.mask, 0)
	switch h.op {
	case opPing:
		// Answered here: relayed, it would be a channel of 125 bytes that
		// nobody inspects.
		return p.from.control(opPong, payload)
	case opPong:
		return nil
	}
	code, err := closeCode(payload)
	if err == nil {
		err = p.to.close(code, "")
	}
	if err == nil {
		err = errClosed
	}
	return err
}

func (p *pump) data(h header) error {
	switch {
	case h.op == continuation && !p.open:
		return protocolError("a continuation continues nothing")
	case h.op != continuation && p.open:
		return protocolError("a message begins inside another")
	}
	if h.op != continuation {
		p.open, p.op, p.sent, p.text = true, h.op, false, utf8Stream{}
	}
	if p.opt.OnMessage == nil {
		return p.stream(h)
	}
	return p.collect(h)
}

// collect adds a frame to the message, and decides when it is whole. The
// buffer grows with what arrives, not with what a header announces.
func (p *pump) collect(h header) error {
	if p.buf == nil {
		p.buf = getBuffer()
		if err := p.charge(cap(p.buf.b)); err != nil {
			return err
		}
	}
	if h.length > p.opt.MaxMessage-int64(p.buf.size()) {
		return &CloseError{Code: CloseTooBig, Reason: "the message is too big"}
	}
	for pos := int64(0); pos < h.length; {
		if err := p.charge(p.buf.sizeFor(h.length - pos)); err != nil {
			return err
		}
		room := p.buf.room(h.length - pos)
		n, err := io.ReadFull(p.r, room)
		if err != nil {
			return midFrame(err)
		}
		xor(room, h.mask, pos)
		p.buf.add(n)
		pos += int64(n)
	}
	if !h.fin {
		return nil
	}
	p.open = false
	if p.keep != nil {
		p.keep.Whole()
	}
	err := p.decide()
	p.free()
	return err
}

func (p *pump) charge(size int) error {
	if p.keep == nil || size == p.charged {
		return nil
	}
	p.charged = size
	if err := p.keep.Grow(p.ctx, size); err != nil {
		return &CloseError{Code: CloseTryLater, Reason: "no memory for the message"}
	}
	return nil
}

func (p *pump) decide() error {
	m := Message{Op: p.op, Data: p.buf.payload()}
	if m.Op == Text && !utf8.Valid(m.Data) {
		return &CloseError{Code: CloseNotText, Reason: "the text is not UTF-8"}
	}
	switch p.ask(&m) {
	case Forward:
	case Drop:
		return nil
	default:
		return &CloseError{Code: ClosePolicy, Reason: "the message is blocked", why: m.Reason}
	}
	if m.Op == Text && !utf8.Valid(m.Data) {
		return &CloseError{Code: CloseNotText, Reason: "the replaced text is not UTF-8"}
	}
	return p.to.write(true, m.Op, p.buf.with(m.Data))
}

func (p *pump) ask(m *Message) (a Action) {
	op := m.Op
	defer func() {
		if recover() != nil || m.Op != op {
			a = Block
		}
	}()
	return p.opt.OnMessage(p.ctx, p.dir, m)
}

// stream passes a frame on in pieces as they arrive, each as a frame of its
// own, so that pongs get between them and memory does not depend on sizes.
func (p *pump) stream(h header) error {
	if p.buf == nil {
		p.buf = getBuffer()
	}
	defer p.free()
	for pos := int64(0); ; {
		room := p.buf.piece(h.length - pos)
		n := 0
		if len(room) > 0 {
			var err error
			if n, err = p.r.Read(room); n == 0 {
				if err == nil {
					err = io.ErrNoProgress
				}
				return midFrame(err)
			}
		}
		xor(room[:n], h.mask, pos)
		pos += int64(n)
		last := h.fin && pos == h.length
		if p.op == Text && (!p.text.write(room[:n]) || last && !p.text.end()) {
			return &CloseError{Code: CloseNotText, Reason: "the text is not UTF-8"}
		}
		if err := p.pass(last, n); err != nil {
			return err
		}
		if pos == h.length {
			p.open = !h.fin
			return nil
		}
	}
}

func (p *pump) pass(last bool, n int) error {
	if n == 0 && !last {
		return nil // an empty fragment says nothing
	}
	op := p.op
	if p.sent {
		op = continuation
	}
	p.sent = true
	return p.to.write(last, op, p.buf.b[:maxHeader+n])
}

func (p *pump) free() {
	if p.buf != nil {
		p.buf.put()
		p.buf = nil
	}
	if p.keep != nil {
		p.keep.Release()
		p.charged = 0
	}
}
