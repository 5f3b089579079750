package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy/strict"
)

// helloRoom holds the ClientHello of common clients in one read.
const helloRoom = 2 << 10

// clientConn is a connection of the agent, or a tunnel inside of one, with what
// is known about who it is for. The fields above mu are set before it reaches
// the server and only read from then on.
type clientConn struct {
	net.Conn
	e   *Engine
	via inspect.Via

	tls       bool
	dest      hostname.Name // the address that the agent chose; for certificates only
	connect   hostname.Name // target of CONNECT
	sni       hostname.Name // TLS server name
	port      uint16        // 0 on the explicit proxy
	portFixed bool          // a Host header must name this port or none
	mismatch  string        // why no request can be allowed
	pass      bool          // TLS that is not to be decrypted

	peeked    []byte // to be read again
	hello     []byte // what was read since recording began
	recording bool
	muted     bool // nothing may be written any more

	seen      atomic.Bool  // a byte arrived
	requests  atomic.Int64 // that were decided
	accounted atomic.Bool  // its failure is in the audit log
	trusted   atomic.Bool  // the client finished a TLS handshake with us
	close     sync.Once
}

// newConn begins to keep track of a connection.
func (e *Engine) newConn(c net.Conn, via inspect.Via) *clientConn {
	cc := &clientConn{Conn: c, e: e, via: via}
	e.mu.Lock()
	e.conns[cc] = struct{}{}
	e.mu.Unlock()
	return cc
}

func (cc *clientConn) Read(p []byte) (int, error) {
	if len(cc.peeked) > 0 {
		n := copy(p, cc.peeked)
		if cc.peeked = cc.peeked[n:]; len(cc.peeked) == 0 {
			cc.peeked = nil
		}
		cc.record(p[:n])
		return n, nil
	}
	n, err := cc.Conn.Read(p)
	if n > 0 && !cc.seen.Load() {
		cc.seen.Store(true)
	}
	cc.record(p[:n])
	return n, err
}

func (cc *clientConn) record(p []byte) {
	if cc.recording {
		cc.hello = append(cc.hello, p...)
	}
}

func (cc *clientConn) Write(p []byte) (int, error) {
	if cc.muted {
		return len(p), nil
	}
	return cc.Conn.Write(p)
}

// CloseWrite ends our half, so that the last answer is read before the
// connection goes (net/http looks for this method).
func (cc *clientConn) CloseWrite() error {
	return closeWrite(cc.Conn)
}

// Close also accounts for a connection that never came to a decision.
func (cc *clientConn) Close() error {
	err := cc.Conn.Close()
	cc.close.Do(func() {
		cc.e.mu.Lock()
		delete(cc.e.conns, cc)
		cc.e.mu.Unlock()
		cc.recordEnd()
	})
	return err
}

// handedOn ends the account of a connection that another one continues.
func (cc *clientConn) handedOn() {
	cc.close.Do(func() {
		cc.e.mu.Lock()
		delete(cc.e.conns, cc)
		cc.e.mu.Unlock()
	})
}

// recordEnd writes down a connection on which nothing was ever decided. One
// that says nothing to the explicit proxy asks for nothing, and neither does
// one that was opened in advance, as clients do, and was not needed.
func (cc *clientConn) recordEnd() {
	if cc.requests.Load() == 0 && !cc.trusted.Load() && (cc.via != inspect.ViaProxy || cc.seen.Load()) {
		cc.fail(audit.KindTunnel, "connection ended without a request")
	}
}

// fail writes down why the connection carries no request, or none any more.
// The first reason is the one that counts.
func (cc *clientConn) fail(kind, reason string) { cc.failAs(audit.NewID(), kind, reason) }

// failAs is fail with the id that the client was shown.
func (cc *clientConn) failAs(id, kind, reason string) {
	if cc.accounted.Swap(true) {
		return
	}
	host := cc.name()
	r := audit.Record{
		ID:       id,
		Kind:     kind,
		Method:   http.MethodConnect,
		Host:     host.String(),
		Port:     cc.port,
		URL:      host.Authority(cc.port),
		Decision: inspect.Blocked.String(),
		Reason:   reason,
	}
	if err := cc.e.audit.Put(r); err != nil {
		cc.e.log.Error("cannot write audit record", "error", err)
	}
}

// name is who the connection is for as far as it says so by itself.
func (cc *clientConn) name() hostname.Name {
	switch {
	case !cc.sni.IsZero():
		return cc.sni
	case !cc.connect.IsZero():
		return cc.connect
	}
	return cc.dest
}

// peek reads some first bytes and leaves them to be read.
func (cc *clientConn) peek() ([]byte, error) {
	buf := make([]byte, helloRoom)
	n, err := cc.Read(buf)
	if n == 0 {
		return nil, err
	}
	cc.peeked = buf[:n]
	return cc.peeked, nil
}

// serverConn is what the server gets for HTTP/1.1. It hides a TLS connection,
// as the server would look at the protocol of that by itself, and it can be
// told apart from one by ConnContext.
type serverConn struct {
	net.Conn
	checked *strict.Conn
	cc      *clientConn
}

// CloseWrite is for net/http, as above.
func (c *serverConn) CloseWrite() error {
	return closeWrite(c.Conn)
}

type connKey struct{}

// connContext makes the clientConn known to the requests of a connection.
func connContext(ctx context.Context, c net.Conn) context.Context {
	switch c := c.(type) {
	case *serverConn:
		return context.WithValue(ctx, connKey{}, c.cc)
	case *tls.Conn:
		return context.WithValue(ctx, connKey{}, c.NetConn())
	}
	return ctx // serveHTTP refuses what has no clientConn
}

// slotConn gives its slot back when it is closed.
type slotConn struct {
	net.Conn
	release func()
}

func (c *slotConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}

func (c *slotConn) CloseWrite() error {
	return closeWrite(c.Conn)
}

// serve accepts until the engine closes or the listener fails. Each connection
// holds one of the engine's slots; when none is left, the next ones wait in
// the kernel's queue.
func (e *Engine) serve(l net.Listener, start func(net.Conn)) error {
	defer l.Close()
	if !e.track(l) {
		return nil
	}
	defer e.untrack(l)
	delay := time.Duration(0)
	for {
		c, err := l.Accept()
		if err != nil {
			if e.isClosing() {
				return nil
			}
			if delay, err = e.pause(delay, err); err != nil {
				return err
			}
			continue
		}
		delay = 0
		select {
		case e.slots <- struct{}{}:
		case <-e.closing:
			c.Close()
			return nil
		}
		e.work.Go(func() {
			sc := &slotConn{Conn: c, release: sync.OnceFunc(func() { <-e.slots })}
			defer e.survive(sc)
			start(sc)
		})
	}
}

// pause waits a little longer each time after an error that passes by itself,
// such as too many open files.
func (e *Engine) pause(delay time.Duration, err error) (time.Duration, error) {
	var passing interface{ Temporary() bool }
	if !errors.As(err, &passing) || !passing.Temporary() {
		return 0, err
	}
	delay = min(max(2*delay, 5*time.Millisecond), time.Second)
	e.log.Warn("cannot accept connection", "error", err, "retry in", delay)
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-e.closing:
	}
	return delay, nil
}

// survive keeps the process alive when our own code fails for one connection.
func (e *Engine) survive(c net.Conn) {
	if p := recover(); p != nil {
		e.log.Error("connection handler failed", "panic", p)
		c.Close()
	}
}

func (e *Engine) track(l net.Listener) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.isClosing() {
		return false
	}
	e.listeners[l] = struct{}{}
	e.work.Add(1)
	return true
}

func (e *Engine) untrack(l net.Listener) {
	e.mu.Lock()
	delete(e.listeners, l)
	e.mu.Unlock()
	e.work.Done()
}

func (e *Engine) isClosing() bool {
	select {
	case <-e.closing:
		return true
	default:
		return false
	}
}

// handoff is the listener through which connections reach the server.
type handoff struct {
	conns   chan net.Conn
	closing <-chan struct{}
}

func newHandoff(closing <-chan struct{}) *handoff {
	return &handoff{conns: make(chan net.Conn), closing: closing}
}

func (h *handoff) pass(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closing:
		c.Close()
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closing:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error   { return nil }
func (h *handoff) Addr() net.Addr { return &net.TCPAddr{} }
