package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy/dial"
)

// tunnelBuffer is small because every idle tunnel holds two.
const tunnelBuffer = 16 << 10

// accessDenied is a fatal TLS alert (RFC 8446 section 6.2): the only answer
// that a client understands whose TLS we do not end.
var accessDenied = []byte{0x15, 3, 3, 0, 2, 2, 49}

// passThrough splices TLS that is not decrypted to the host that its server
// name or CONNECT target names, dialled by that name.
func (e *Engine) passThrough(cc *clientConn) {
	defer cc.Close()
	cc.muted = false
	cc.SetDeadline(time.Time{})
	hello := cc.hello
	cc.hello = nil
	host := cc.name()
	f := &flow{id: audit.NewID(), kind: audit.KindTunnel}
	f.req = inspect.Request{
		Via:           cc.via,
		Method:        http.MethodConnect,
		Scheme:        "https",
		Host:          host,
		Port:          cc.port,
		URL:           &url.URL{Scheme: "https", Host: host.Authority(cc.port)},
		Header:        http.Header{},
		ContentLength: -1,
		Opaque:        true,
	}
	ctx, cancel := context.WithCancelCause(e.ctx)
	defer cancel(nil)
	f.cancel = cancel
	cc.requests.Add(1)
	e.flows.add(f)
	defer e.flows.remove(f)
	v := e.decide(ctx, f)
	if err := e.record(f, v); err != nil || !v.Allowed() {
		_, _ = cc.Write(accessDenied)
		return
	}
	server, err := e.dialer.Dial(ctx, host, cc.port)
	if err != nil {
		e.recordDial(f, v, err)
		_, _ = cc.Write(accessDenied)
		return
	}
	defer server.Close()
	if _, err := server.Write(hello); err == nil {
		splice(ctx, cc, server, e.limits.TunnelIdle)
	}
}

// recordDial writes down why an allowed tunnel was not made.
func (e *Engine) recordDial(f *flow, v inspect.Verdict, err error) {
	var refused *dial.RefusedError
	if errors.As(err, &refused) {
		e.revise(f, v, inspect.Verdict{Reason: refused.Error()})
		return
	}
	failed := flow{req: f.req, id: f.id, kind: audit.KindUpstream}
	e.revise(&failed, v, inspect.Verdict{Decision: v.Decision, Reason: upstreamReason(err.Error())})
}

// splice copies both ways until both ended, ctx does, or nothing came for the
// time of idle.
func splice(ctx context.Context, a, b net.Conn, idle time.Duration) {
	closeBoth := func() { a.Close(); b.Close() }
	defer context.AfterFunc(ctx, closeBoth)()
	timer := time.AfterFunc(idle, closeBoth)
	defer timer.Stop()
	alive := func() { timer.Reset(idle) }
	var wg sync.WaitGroup
	wg.Go(func() { pump(a, b, alive, closeBoth) })
	pump(b, a, alive, closeBoth)
	wg.Wait()
}

// pump copies one way and passes the end of the stream on.
func pump(dst, src net.Conn, alive, fail func()) {
	buf := make([]byte, tunnelBuffer)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			alive()
			if _, werr := dst.Write(buf[:n]); werr != nil {
				fail()
				return
			}
		}
		if err == io.EOF && closeWrite(dst) == nil {
			return
		}
		if err != nil {
			fail()
			return
		}
	}
}

func closeWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}
