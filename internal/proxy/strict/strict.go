// Package strict reads an agent's HTTP/1 byte stream ahead of net/http and
// lets through only what no two parsers read differently.
//
// net/http is lenient where RFC 9112 lets it be: it takes bare line feeds,
// equal Content-Length lines, a Host that differs from an absolute target. A
// request that the inspectors and the upstream server read differently is how
// a second, uninspected request travels inside the first, so such bytes are
// refused before anything parses them.
package strict

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
)

// Defaults of [Options].
const (
	DefaultMaxHeaderBytes = 64 << 10
	DefaultMaxRequestLine = 16 << 10
)

// Limits of a chunked body (RFC 9112 section 7.1): 8 digits are 4 GiB a chunk.
const (
	maxChunkDigits = 8
	maxChunkExt    = 256
	maxTrailers    = 8 << 10
)

// firstBuf holds the head of nearly every request; a longer one gets a buffer
// that is given up when it has been read.
const firstBuf = 4 << 10

// poison is what the reader gets in place of a refused head: a line that every
// HTTP parser refuses. An error alone would cancel the request that is still
// being answered (net/http reads ahead), or close without an answer.
const poison = "!\r\n\r\n"

// Options configure a [Conn]. The zero Options have the default limits.
type Options struct {
	// MaxHeaderBytes limits a request line with its fields, in bytes.
	MaxHeaderBytes int

	// MaxRequestLine limits the request line, in bytes.
	MaxRequestLine int

	// HeadTimeout limits the time from the first byte of a head to its last,
	// whatever read deadline is set. It is needed because net/http waits for
	// the first byte of the next request with its idle time-out, and gets
	// that byte only when the head is whole. 0 means no limit.
	HeadTimeout time.Duration

	// OnReject is called once, by the goroutine that reads, with a fixed
	// ASCII text that holds no byte of the agent's.
	// The id is the one that the client is shown.
	OnReject func(reason, id string)
}

// RejectError is the refusal of a stream. It is permanent.
type RejectError struct {
	Status int    // 400, or 431 for a head that is too large
	Reason string // fixed ASCII text
	ID     string // shown to the client
}

func (e *RejectError) Error() string { return "refused HTTP/1 stream: " + e.Reason }

type state uint8

const (
	inHead state = iota
	inBody
	inChunkSize
	inChunkData
	inChunkEnd // the CRLF behind the data
	inTrailer
)

// Conn is a net.Conn whose Read returns only checked bytes. Read is for one
// goroutine at a time; all other methods may be called while it runs. One Read
// never returns bytes of two requests.
//
// A refused head becomes a malformed request line to the reader, which
// net/http answers with 400, and then a [*RejectError]; in a body Read returns
// the error at once. Conn writes its own JSON in place of that answer.
type Conn struct {
	net.Conn
	opt Options

	buf       []byte
	rd, ok, w int // buf[rd:ok] is checked, buf[ok:w] is not
	line      int // start of the line in work, relative to ok
	looked    int // bytes of that line known to hold no LF

	state   state
	h       head
	remain  int64 // of the body or the chunk's data
	trailer int   // bytes of trailers seen
	served  bool  // a request has been passed
	ended   bool  // the step came to the end of a request
	readErr error // came from the connection together with bytes
	poison  string
	err     *RejectError

	relaxed  atomic.Bool
	buffered atomic.Int64 // bytes read from the connection and not returned
	reject   atomic.Pointer[RejectError]
	answer   atomic.Bool // the reader has the whole poison: its next 400 is ours

	mu       sync.Mutex
	deadline time.Time // the caller's
	headEnd  time.Time // ours
}

var _ net.Conn = (*Conn)(nil)

// New returns a Conn that reads from c. c is read only by the Conn from then on.
func New(c net.Conn, opt Options) *Conn {
	if opt.MaxHeaderBytes <= 0 {
		opt.MaxHeaderBytes = DefaultMaxHeaderBytes
	}
	if opt.MaxRequestLine <= 0 {
		opt.MaxRequestLine = DefaultMaxRequestLine
	}
	return &Conn{Conn: c, opt: opt}
}

// NetConn returns the connection below, as (*tls.Conn).NetConn does.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Unwrap is NetConn.
func (c *Conn) Unwrap() net.Conn { return c.Conn }

// Relax ends the checks: what comes next is no HTTP/1. Call it before the 101
// or the answer to CONNECT is written. A stream that was refused stays refused.
func (c *Conn) Relax() {
	c.relaxed.Store(true)
	c.limitHead(false)
}

// Buffered returns how many bytes were read from the connection and are not
// yet returned by Read. After a CONNECT it is not 0 when the client talked
// before it was answered.
func (c *Conn) Buffered() int { return int(c.buffered.Load()) }

// Err returns the refusal, or nil.
func (c *Conn) Err() error {
	if e := c.reject.Load(); e != nil {
		return e
	}
	return nil
}

// CloseWrite closes the writing side where the connection below can do that.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.New("cannot close for writing: the connection has no such method")
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if c.rd < c.ok {
			return c.release(p), nil
		}
		if c.err != nil {
			return c.readRefused(p)
		}
		if c.relaxed.Load() {
			if c.ok == c.w {
				return c.readThrough(p)
			}
			c.ok = c.w
			continue
		}
		if c.ok < c.w && (c.advance() || c.relaxed.Load()) {
			continue
		}
		if c.ok == c.w && (c.state == inBody || c.state == inChunkData) {
			return c.readData(p)
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
}

func (c *Conn) release(p []byte) int {
	n := copy(p, c.buf[c.rd:c.ok])
	c.rd += n
	if c.rd == c.w {
		c.rd, c.ok, c.w = 0, 0, 0
		if len(c.buf) > firstBuf {
			c.buf = nil
		}
	}
	c.count()
	return n
}

func (c *Conn) readRefused(p []byte) (int, error) {
	if c.poison == "" {
		return 0, c.err
	}
	n := copy(p, c.poison)
	c.poison = c.poison[n:]
	if c.poison == "" {
		c.answer.Store(true)
	}
	return n, nil
}

func (c *Conn) readThrough(p []byte) (int, error) {
	if err := c.takeErr(); err != nil {
		return 0, err
	}
	c.buf = nil
	return c.Conn.Read(p)
}

// readData reads body bytes straight into the caller's buffer.
func (c *Conn) readData(p []byte) (int, error) {
	if err := c.takeErr(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), c.remain)])
	c.consume(int64(n))
	return n, err
}

func (c *Conn) takeErr() error {
	err := c.readErr
	c.readErr = nil
	return err
}

// fill reads once more from the connection. Errors are not kept: a time-out is
// how net/http ends a read that it started too early.
func (c *Conn) fill() error {
	if err := c.takeErr(); err != nil {
		return err
	}
	c.makeRoom()
	n, err := c.Conn.Read(c.buf[c.w:])
	c.w += n
	c.count()
	if n == 0 && err == nil {
		return io.ErrNoProgress
	}
	if n == 0 {
		return err
	}
	c.readErr = err
	return nil
}

// makeRoom is called with nothing left to release. The limits of head, chunk
// line and trailers bound what can be in the buffer.
func (c *Conn) makeRoom() {
	if c.buf == nil {
		c.buf = make([]byte, firstBuf)
	}
	if c.rd > 0 {
		c.w = copy(c.buf, c.buf[c.rd:c.w])
		c.rd, c.ok = 0, 0
	}
	if c.w == len(c.buf) {
		bigger := make([]byte, 2*len(c.buf))
		copy(bigger, c.buf)
		c.buf = bigger
	}
}

func (c *Conn) count() { c.buffered.Store(int64(c.w - c.rd)) }

// advance checks buffered bytes up to the end of the request that they are of,
// and reports whether there is something to return. A pipelined head is not
// looked at before it is asked for.
func (c *Conn) advance() bool {
	wasHead := c.state == inHead
	c.ended = false
	for c.ok < c.w && c.err == nil && !c.ended {
		before, st := c.ok, c.state
		c.step()
		if c.ok == before && c.state == st {
			break
		}
	}
	if wasHead {
		c.limitHead(c.state == inHead && c.ok < c.w && c.err == nil && !c.ended)
	}
	return c.rd < c.ok || c.err != nil
}

func (c *Conn) step() {
	switch c.state {
	case inHead:
		c.stepHead()
	case inBody, inChunkData:
		n := min(int64(c.w-c.ok), c.remain)
		c.ok += int(n)
		c.consume(n)
	case inChunkEnd:
		c.stepChunkEnd()
	default:
		c.stepLine()
	}
}

// consume counts data of the body.
func (c *Conn) consume(n int64) {
	c.remain -= n
	if c.remain > 0 {
		return
	}
	if c.state == inChunkData {
		c.state = inChunkEnd
	} else {
		c.endRequest()
	}
}

func (c *Conn) endRequest() {
	c.state, c.h, c.line, c.looked = inHead, head{}, 0, 0
	c.served, c.ended = true, true
}

// nextLine returns the line in work without its CRLF, or false when more bytes
// are needed or the stream was refused. limit is the longest line.
func (c *Conn) nextLine(limit int, tooLong string) ([]byte, bool) {
	rest := c.buf[c.ok+c.line : c.w]
	end := indexLF(rest[c.looked:])
	if end < 0 {
		c.looked = len(rest)
		if len(rest) > limit+1 {
			c.refuse(431, tooLong)
		}
		return nil, false
	}
	end += c.looked
	c.looked = 0
	switch {
	case end == 0 || rest[end-1] != '\r':
		c.refuse(400, "a line ends in a bare line feed")
		return nil, false
	case end-1 > limit:
		c.refuse(431, tooLong)
		return nil, false
	}
	c.line += end + 1
	return rest[:end-1], true
}

func (c *Conn) stepHead() {
	for c.err == nil && c.ok+c.line < c.w {
		if !c.h.started && c.line == 0 {
			if why := firstByte(c.buf[c.ok]); why != "" {
				c.refuse(400, why)
				return
			}
		}
		limit, tooLong := c.opt.MaxHeaderBytes-c.line, "the request's header is too large"
		if !c.h.started {
			limit, tooLong = min(limit, c.opt.MaxRequestLine), "the request line is too long"
		}
		line, ok := c.nextLine(limit, tooLong)
		if !ok {
			return
		}
		if len(line) == 0 && c.h.started {
			c.endHead()
			return
		}
		c.headLine(line)
	}
}

func (c *Conn) headLine(line []byte) {
	var why string
	switch {
	case c.h.started:
		why = c.h.field(line)
	case len(line) > 0:
		why = c.h.requestLine(line)
	case !c.served || c.h.blank:
		why = "an empty line precedes the request line"
	default:
		// RFC 9112 section 2.2: some clients send a CRLF behind the body of
		// a POST. One is dropped here, so that nobody else has to judge it.
		c.h.blank = true
		c.rd, c.ok, c.line = c.rd+2, c.ok+2, 0
		c.count()
	}
	if why != "" {
		c.refuse(400, why)
	}
}

func (c *Conn) endHead() {
	if why := c.h.finish(); why != "" {
		c.refuse(400, why)
		return
	}
	c.ok += c.line
	c.line = 0
	switch {
	case c.h.chunked:
		c.state, c.trailer = inChunkSize, 0
	case c.h.length > 0:
		c.state, c.remain = inBody, c.h.length
	default:
		c.endRequest()
	}
}

func (c *Conn) stepChunkEnd() {
	b := c.buf[c.ok:c.w]
	if b[0] != '\r' || len(b) > 1 && b[1] != '\n' {
		c.refuse(400, "a chunk is longer than its size says")
		return
	}
	if len(b) > 1 {
		c.ok += 2
		c.state = inChunkSize
	}
}

func (c *Conn) stepLine() {
	limit, tooLong := maxChunkDigits+maxChunkExt, "a chunk's size line is too long"
	if c.state == inTrailer {
		limit, tooLong = maxTrailers-c.trailer, "the trailers are too large"
	}
	line, ok := c.nextLine(limit, tooLong)
	if !ok {
		return
	}
	n := c.line
	c.line = 0
	if c.state == inTrailer {
		c.trailerLine(line, n)
		return
	}
	size, why := chunkSize(line)
	if why != "" {
		c.refuse(400, why)
		return
	}
	c.ok += n
	c.remain, c.state = size, inChunkData
	if size == 0 {
		c.state = inTrailer
	}
}

func (c *Conn) trailerLine(line []byte, n int) {
	if len(line) == 0 {
		c.ok += n
		c.endRequest()
		return
	}
	if why := trailerField(line); why != "" {
		c.refuse(400, why)
		return
	}
	c.ok += n
	c.trailer += n
}

func (c *Conn) refuse(status int, why string) {
	if c.err != nil || c.relaxed.Load() {
		return
	}
	c.err = &RejectError{Status: status, Reason: why, ID: audit.NewID()}
	if c.state == inHead {
		c.poison = poison
	}
	c.reject.Store(c.err)
	if c.opt.OnReject != nil {
		c.opt.OnReject(why, c.err.ID)
	}
}
