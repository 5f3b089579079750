package proxy

import (
	"context"
	"io"
	"net"
)

// MessagePolicy decides about WebSocket messages.
type MessagePolicy interface{}

func (w *webSocket) relay(ctx context.Context, client net.Conn, server io.ReadWriteCloser) {
	defer context.AfterFunc(ctx, func() { client.Close(); server.Close() })()
	done := make(chan struct{})
	go func() { io.Copy(server, client); server.Close(); client.Close(); close(done) }()
	io.Copy(client, server)
	client.Close()
	server.Close()
	<-done
}
