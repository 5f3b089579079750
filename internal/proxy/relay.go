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

// MessagePolicy decides about every message of a WebSocket. A blocked one is
// dropped and the connection stays, as the original has it. It is called
// concurrently, and must not change the request; it may replace the data of
// the message.
type MessagePolicy interface {
	DecideMessage(ctx context.Context, handshake *inspect.Request, dir ws.Direction, m *ws.Message) inspect.Verdict
}

// webSocket is one that was agreed on. It holds nothing of the handshake but
// the head that was decided.
type webSocket struct {
	e    *Engine
	flow *flow
}

// relay returns when both sides are closed.
func (s *webSocket) relay(ctx context.Context, client, server io.ReadWriteCloser) {
	idle := s.e.limits.TunnelIdle
	timer := time.AfterFunc(idle, func() { client.Close(); server.Close() })
	defer timer.Stop()
	alive := func() { timer.Reset(idle) }
	opt := ws.Options{
		Client:     &watched{client, alive},
		Server:     &watched{server, alive},
		MaxMessage: int64(s.e.limits.MaxMessage),
	}
	if s.e.messages != nil {
		// Only for whoever looks at them are messages kept in memory
		// until they are whole.
		opt.OnMessage = s.decide
	}
	err := ws.Relay(ctx, opt)
	var broken *ws.CloseError
	if errors.As(err, &broken) && broken.Code != ws.ClosePolicy {
		_ = s.record(inspect.Verdict{Reason: broken.Error()})
	}
}

func (s *webSocket) decide(ctx context.Context, dir ws.Direction, m *ws.Message) ws.Action {
	v := s.e.messages.DecideMessage(ctx, &s.flow.req, dir, m)
	switch {
	case !v.Allowed():
		v.Reason = "websocket: " + v.Reason
	case v.Reason == "":
		v.Reason = "websocket"
	}
	if err := s.record(v); err != nil || !v.Allowed() {
		return ws.Drop
	}
	return ws.Forward
}

func (s *webSocket) record(v inspect.Verdict) error {
	f := flow{req: s.flow.req, id: s.flow.id, kind: audit.KindWebSocket}
	f.req.Method = "WEBSOCKET"
	return s.e.record(&f, v)
}

// watched tells when bytes come in.
type watched struct {
	io.ReadWriteCloser
	alive func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadWriteCloser.Read(p)
	if n > 0 {
		w.alive()
	}
	return n, err
}
