package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/proxy/ws"
)

// forwardUpgrade sends an allowed WebSocket handshake on (RFC 6455 section 4)
// and, when the server agrees, relays messages after the handler has returned,
// so that an idle WebSocket holds nothing of the server's.
func (x *exchange) forwardUpgrade(ctx context.Context) {
	stop := context.AfterFunc(x.r.Context(), func() { x.cancel(context.Canceled) })
	defer stop()
	out, err := x.outgoing(ctx)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	out.Header = out.Header.Clone()
	// What cannot be read cannot be inspected: nothing is compressed.
	out.Header.Del("Sec-Websocket-Extensions")
	out.Header.Set("Connection", "Upgrade")
	out.Header.Set("Upgrade", "websocket")
	res, err := x.e.upstream.Load().one.RoundTrip(out)
	x.interim.end()
	if err != nil {
		x.failed(ctx, err)
		return
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		defer res.Body.Close()
		x.sendBack(ctx, res)
		return
	}
	// Without this check the bytes that follow would be a raw tunnel.
	err = ws.ValidUpgradeResponse(res, x.r.Header.Get("Sec-Websocket-Key"))
	server, writable := res.Body.(io.ReadWriteCloser)
	if err == nil && !writable {
		err = errors.New("the upgraded connection cannot be written to")
	}
	if err != nil {
		res.Body.Close()
		x.failed(ctx, err)
		return
	}
	x.redactHeader(res.Header)
	x.tellSecrets()
	if x.reads.Responses {
		if _, err := x.inspectResponse(ctx, res); err != nil {
			server.Close()
			x.failed(ctx, err)
			return
		}
	}
	if stop() {
		x.switchProtocol(ctx, res, server)
	} else {
		server.Close()
	}
}

func (x *exchange) switchProtocol(ctx context.Context, res *http.Response, server io.ReadWriteCloser) {
	c, rw, err := x.w.(http.Hijacker).Hijack()
	if err != nil {
		server.Close()
		x.failed(ctx, err)
		return
	}
	x.answered = true
	sc := c.(*serverConn)
	sc.checked.Relax()
	if rw.Reader.Buffered() > 0 || sc.checked.Buffered() > 0 {
		x.cc.fail(audit.KindProtocol, "bytes before the answer to a WebSocket handshake")
		server.Close()
		c.Close()
		return
	}
	// The TLS connection or the clientConn: what was between is done.
	client := sc.checked.NetConn()
	client.SetDeadline(time.Now().Add(x.e.limits.HeaderTimeout))
	if err := writeSwitch(client, res.Header); err != nil {
		server.Close()
		client.Close()
		return
	}
	client.SetDeadline(time.Time{})
	x.kept = true
	x.w, x.r, x.cc = nil, nil, nil // they keep the server's buffers alive
	socket := &webSocket{e: x.e, flow: &x.flow, read: x.reads.Messages}
	x.e.work.Go(func() {
		defer x.end()
		defer x.e.survive(client)
		defer server.Close()
		defer client.Close()
		socket.relay(ctx, client, server)
	})
}

func writeSwitch(c net.Conn, from http.Header) error {
	h := http.Header{}
	endToEnd(from)
	setResponseFields(h, from)
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	if err := h.Write(&b); err != nil {
		return fmt.Errorf("cannot write header: %w", err)
	}
	b.WriteString("\r\n")
	_, err := io.WriteString(c, b.String())
	return err
}
