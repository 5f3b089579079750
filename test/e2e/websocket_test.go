//go:build linux

package e2e

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
)

// webSocketEcho sends one short text message back.
type webSocketEcho struct{}

func (webSocketEcho) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 section 1.3
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	_ = rw.Flush() // a client that is gone is seen by the read
	head := make([]byte, 6)
	if _, err := io.ReadFull(rw, head); err != nil {
		return
	}
	payload := make([]byte, head[1]&0x7f)
	if _, err := io.ReadFull(rw, payload); err != nil {
		return
	}
	for i := range payload {
		payload[i] ^= head[2+i%4]
	}
	_, _ = rw.Write(append([]byte{0x81, byte(len(payload))}, payload...))
	_ = rw.Flush()
	_, _ = io.Copy(io.Discard, rw) // until the client closes
}
