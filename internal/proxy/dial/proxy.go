package dial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/agentcage/agentcage/internal/hostname"
)

// maxProxyHead limits the answer to CONNECT, in bytes.
const maxProxyHead = 8 << 10

// dialProxy asks the upstream proxy for a tunnel (RFC 9110 section 9.3.6).
func (d *Dialer) dialProxy(ctx context.Context, host hostname.Name, port uint16) (net.Conn, error) {
	proxy := strings.TrimSuffix(strings.TrimPrefix(d.Proxy, "http://"), "/")
	conn, err := d.connect(ctx, proxy)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the upstream proxy: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = connect(conn, host.Authority(port))
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("cannot connect to %s through the upstream proxy: %w", host, err)
	}
	return conn, nil
}

func connect(conn net.Conn, target string) error {
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		return err
	}
	head, err := readHead(conn)
	if err != nil {
		return err
	}
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	version, status, _ := bytes.Cut(line, []byte(" "))
	if string(version) != "HTTP/1.1" && string(version) != "HTTP/1.0" || len(status) < 3 || len(status) > 3 && status[3] != ' ' {
		return errors.New("the answer is not HTTP/1")
	}
	if status[0] != '2' || !digits(status[:3]) {
		return fmt.Errorf("the answer is %.40q", status)
	}
	return nil
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// readHead reads to the empty line and not a byte further, since what follows
// is the tunnel's. One byte a read is slow and happens once a connection.
func readHead(conn net.Conn) ([]byte, error) {
	head := make([]byte, 0, 512)
	var one [1]byte
	for len(head) < maxProxyHead {
		n, err := conn.Read(one[:])
		head = append(head, one[:n]...)
		if bytes.HasSuffix(head, []byte("\r\n\r\n")) {
			return head, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the answer is too large")
}
