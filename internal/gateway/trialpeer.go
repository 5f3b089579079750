package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/proxy/ca"
	"github.com/agentcage/agentcage/internal/proxy/ws"
)

// pair makes two ends of a connection that nobody else can reach. Unlike
// net.Pipe it holds what was written until it is read, as a network does.
func pair() (a, b net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a pair of sockets: %w", err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "trial")
		c, e := net.FileConn(f)
		f.Close()
		if e != nil {
			err = e
			continue
		}
		ends[i] = c
	}
	return ends[0], ends[1], err
}

// door is a listener whose connections are handed to it.
type door struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newDoor() *door { return &door{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (d *door) pass(c net.Conn) {
	select {
	case d.conns <- c:
	case <-d.closed:
		c.Close()
	}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

// Addr implements net.Listener.
func (d *door) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// sink is the only server that a trial can reach: it takes everything.
type sink struct {
	door    *door
	server  *http.Server
	config  *tls.Config // nil for plain HTTP
	serving sync.WaitGroup
}

func newSink(authority *ca.Authority, w *way) *sink {
	s := &sink{door: newDoor(), server: &http.Server{Handler: http.HandlerFunc(take), ReadHeaderTimeout: trialTime}}
	if w.tls {
		s.config = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return authority.Certificate(w.host)
		}}
	}
	s.serving.Go(func() { _ = s.server.Serve(s.door) }) // it ends with close
	return s
}

// Dial implements proxy.Dialer.
func (s *sink) Dial(context.Context, hostname.Name, uint16) (net.Conn, error) {
	mine, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	if s.config != nil {
		s.door.pass(tls.Server(theirs, s.config))
	} else {
		s.door.pass(theirs)
	}
	return mine, nil
}

func (s *sink) close() {
	s.server.Close()
	s.serving.Wait()
}

// take reads a request, or the messages after a handshake, and agrees.
func take(rw http.ResponseWriter, r *http.Request) {
	if !ws.IsUpgrade(r.Header) {
		_, _ = io.Copy(io.Discard, r.Body) // a body that breaks off was cut by the engine, which says so
		return
	}
	c, buffered, err := rw.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		ws.Accept(r.Header.Get("Sec-WebSocket-Key")))
	if drain(buffered.Reader) == nil {
		_, _ = c.Write([]byte{0x80 | opClose, 0})
	}
}

// Opcodes and bits of RFC 6455 section 5.2.
const (
	opText    = 1
	opClose   = 8
	maskedBit = 0x80
)

// drain reads frames until one that closes (RFC 6455 section 5.2).
func drain(r *bufio.Reader) error {
	for {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := int64(head[1] &^ maskedBit)
		wide := map[int64]int{126: 2, 127: 8}[n]
		var length [8]byte
		if _, err := io.ReadFull(r, length[8-wide:]); err != nil {
			return err
		}
		if wide > 0 {
			n = int64(binary.BigEndian.Uint64(length[:])) //nolint:gosec // our own engine wrote it
		}
		if head[1]&maskedBit != 0 {
			n += 4
		}
		if _, err := io.CopyN(io.Discard, r, n); err != nil {
			return err
		}
		if head[0]&0x0f == opClose {
			return nil
		}
	}
}

// frames are the messages of a client, and the end of the connection. A mask of
// zeros is one (RFC 6455 section 5.3).
func frames(messages []string) []byte {
	var b []byte
	add := func(op byte, payload string) {
		b = append(b, 0x80|op)
		switch n := len(payload); {
		case n < 126:
			b = append(b, maskedBit|byte(n))
		case n <= 0xffff:
			b = binary.BigEndian.AppendUint16(append(b, maskedBit|126), uint16(n))
		default:
			b = binary.BigEndian.AppendUint64(append(b, maskedBit|127), uint64(n))
		}
		b = append(append(b, 0, 0, 0, 0), payload...)
	}
	for _, m := range messages {
		add(opText, m)
	}
	add(opClose, "\x03\xe8")
	return b
}
