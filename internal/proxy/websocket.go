package proxy

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
)

// forwardUpgrade sends an allowed WebSocket handshake on (RFC 6455 section 4)
// and, when the server agrees, relays messages after the handler has returned,
// so that an idle WebSocket holds nothing of the server's.
func (x *exchange) forwardUpgrade(ctx context.Context) {
	if err := checkHandshake(x.r.Header); err != nil {
		x.refuse(http.StatusForbidden, err.Error())
		return
	}
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
	res, err := x.e.upgrades.RoundTrip(out)
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
	server, err := agreed(res, x.r.Header.Get("Sec-Websocket-Key"))
	if err != nil {
		res.Body.Close()
		x.failed(ctx, err)
		return
	}
	if stop() {
		x.switchProtocol(ctx, res, server)
	} else {
		server.Close()
	}
}

func checkHandshake(h http.Header) error {
	keys := h["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return errors.New("malformed WebSocket handshake")
	}
	if raw, err := base64.StdEncoding.DecodeString(keys[0]); err != nil || len(raw) != 16 {
		return errors.New("malformed WebSocket handshake")
	}
	if v := h["Sec-Websocket-Version"]; len(v) != 1 || v[0] != "13" {
		return errors.New("WebSocket version is not 13")
	}
	return nil
}

// agreed holds that the server speaks WebSocket from now on, and nothing that
// was not asked for: otherwise the bytes that follow would be a raw tunnel.
func agreed(res *http.Response, key string) (io.ReadWriteCloser, error) {
	h := res.Header
	server, ok := res.Body.(io.ReadWriteCloser)
	switch {
	case !ok, !strings.EqualFold(h.Get("Upgrade"), "websocket"), !hasToken(h["Connection"], "upgrade"):
		return nil, errors.New("the server switched to another protocol than WebSocket")
	case h.Get("Sec-Websocket-Accept") != acceptFor(key):
		return nil, errors.New("the server's WebSocket handshake is malformed")
	case len(h["Sec-Websocket-Extensions"]) > 0:
		return nil, errors.New("the server chose a WebSocket extension that was not offered")
	}
	return server, nil
}

// acceptFor is RFC 6455 section 4.2.2, item 5.4.
func acceptFor(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
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
	ws := &webSocket{e: x.e, flow: &x.flow}
	x.e.work.Go(func() {
		defer x.end()
		defer x.e.survive(client)
		defer server.Close()
		defer client.Close()
		ws.relay(ctx, client, server)
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

// webSocket is one that was agreed on.
type webSocket struct {
	e    *Engine
	flow *flow
}
