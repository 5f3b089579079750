package proxy

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy/ws"
)

// DropPolicy is an optional interface of a Policy that says what becomes of a
// blocked message of a WebSocket: it is dropped and the connection stays, or
// both sides are closed, which is what happens without it.
type DropPolicy interface {
	DropMessages() bool
}

// webSocket is one that was agreed on. It holds nothing of the handshake but
// the head that was decided.
type webSocket struct {
	e    *Engine
	flow *flow
	read bool // its messages are read
}

// relay returns when both sides are closed.
func (s *webSocket) relay(ctx context.Context, client, server io.ReadWriteCloser) {
	idle := s.e.limits.TunnelIdle
	closeBoth := func() { client.Close(); server.Close() }
	timer := time.AfterFunc(idle, closeBoth)
	defer timer.Stop()
	alive := func(int) { timer.Reset(idle) }
	opt := ws.Options{
		Client:     &watched{client, alive},
		Server:     &watched{server, alive},
		MaxMessage: int64(s.e.limits.MaxMessage),
	}
	up, down := s.keeper(closeBoth), s.keeper(closeBoth)
	if s.read {
		// Only for whoever reads them are messages kept in memory until
		// they are whole.
		opt.Client = &watched{client, func(n int) { alive(n); up.moved(n) }}
		opt.Server = &watched{server, func(n int) { alive(n); down.moved(n) }}
		opt.Keep = func(d ws.Direction) ws.Keeper {
			if d == ws.ToServer {
				return up
			}
			return down
		}
		opt.OnMessage = s.decide
	}
	err := ws.Relay(ctx, opt)
	var broken *ws.CloseError
	switch {
	case up.pace.over.Load() || down.pace.over.Load():
		_ = s.record(inspect.Verdict{Reason: "websocket: a message came too slowly"})
	case errors.As(err, &broken) && broken.Code != ws.ClosePolicy:
		_ = s.record(inspect.Verdict{Reason: broken.Error()})
	}
}

// decide asks about one message and writes the verdict down.
func (s *webSocket) decide(ctx context.Context, dir ws.Direction, m *ws.Message) ws.Action {
	c := &inspect.Content{Request: &s.flow.req, Kind: inspect.KindWebSocket, Direction: inspect.ToServer, Body: m.Data}
	in := s.e.injector() // of now: it may be younger than the WebSocket
	var redacted []string
	if dir == ws.ToClient {
		c.Direction = inspect.ToClient
		c.Body, redacted = redactMessage(in, m.Data)
		m.Data = c.Body
	}
	// Declared by the frame, and as little to be trusted as any other type.
	c.Type = "application/octet-stream"
	if m.Op == ws.Text {
		c.Type = "text/plain; charset=utf-8"
	}
	v := s.e.decideContent(ctx, c)
	var injected []string
	if v.Allowed() && c.Direction == inspect.ToServer {
		var err error
		if injected, err = s.inject(ctx, in, m); err != nil {
			v = inspect.Verdict{Reason: err.Error()}
		}
	}
	if v.Reason == "" {
		v.Reason = "websocket"
	} else {
		v.Reason = "websocket: " + v.Reason
	}
	err := s.recordSecrets(v, injected, redacted)
	if err == nil && v.Allowed() {
		return ws.Forward
	}
	if p, ok := (*s.e.policy.Load()).(DropPolicy); ok && p.DropMessages() {
		return ws.Drop
	}
	if m.Reason = printable(v.Reason); v.Allowed() {
		m.Reason = "the audit log cannot be written"
	}
	return ws.Block
}

func (s *webSocket) record(v inspect.Verdict) error { return s.recordSecrets(v, nil, nil) }

func (s *webSocket) recordSecrets(v inspect.Verdict, injected, redacted []string) error {
	f := flow{req: s.flow.req, id: s.flow.id, kind: audit.KindWebSocket, injected: injected, redacted: redacted}
	f.req.Method = "WEBSOCKET"
	return s.e.record(&f, v)
}

// keeper has the memory of the messages of one direction, and ends those that
// come too slowly. It is for one goroutine at a time.
type keeper struct {
	share share
	pace  pace
	busy  bool // a message is under way
}

func (s *webSocket) keeper(late func()) *keeper {
	return &keeper{share: share{of: s.e.memory}, pace: pace{timeout: s.e.limits.BodyTimeout, late: late}}
}

// Grow implements ws.Keeper.
func (k *keeper) Grow(ctx context.Context, to int) error {
	if !k.busy {
		k.busy = true
		k.pace.start()
	}
	defer k.pace.pause()()
	return k.share.Grow(ctx, int64(to))
}

// Whole implements ws.Keeper.
func (k *keeper) Whole() {
	if k.busy {
		k.busy = false
		k.pace.stop()
	}
}

// Release implements ws.Keeper.
func (k *keeper) Release() {
	k.Whole()
	k.share.Release()
}

func (k *keeper) moved(n int) {
	if k.busy {
		k.pace.moved(n)
	}
}

// watched tells when bytes come in.
type watched struct {
	io.ReadWriteCloser
	alive func(n int)
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadWriteCloser.Read(p)
	if n > 0 {
		w.alive(n)
	}
	return n, err
}
