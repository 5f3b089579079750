package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
)

// attacker listens on one port of the host's loopback, TCP and UDP, and writes
// down everything it hears.
type attacker struct {
	port    int
	tcp     net.Listener
	udp     net.PacketConn
	serving sync.WaitGroup

	mu     sync.Mutex
	notes  strings.Builder
	change chan struct{} // closed and replaced when something was heard
	by     map[string]bool
}

func newAttacker() (*attacker, error) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot start the attacker's server: %w", err)
	}
	a := &attacker{port: tcp.Addr().(*net.TCPAddr).Port, tcp: tcp, change: make(chan struct{}), by: map[string]bool{}}
	if a.udp, err = net.ListenPacket("udp", tcp.Addr().String()); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start the attacker's server: %w", err), tcp.Close())
	}
	a.serving.Go(a.acceptAll)
	a.serving.Go(a.readAll)
	return a, nil
}

func (a *attacker) acceptAll() {
	for {
		c, err := a.tcp.Accept()
		if err != nil {
			return
		}
		a.serving.Go(func() {
			defer c.Close()
			buf := make([]byte, 4096)
			for {
				n, err := c.Read(buf)
				a.note("tcp", buf[:n])
				if err != nil {
					return
				}
			}
		})
	}
}

func (a *attacker) readAll() {
	buf := make([]byte, 4096)
	for {
		n, _, err := a.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		a.note("udp", buf[:n])
	}
}

func (a *attacker) note(network string, data []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(data) > 0 && a.notes.Len() < 1<<20 {
		fmt.Fprintf(&a.notes, "%s: %s\n", network, data)
		a.by[network] = true
	}
	close(a.change)
	a.change = make(chan struct{})
}

// await returns when something was heard on a network.
func (a *attacker) await(ctx context.Context, network string) error {
	for {
		a.mu.Lock()
		heard, change := a.by[network], a.change
		a.mu.Unlock()
		if heard {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *attacker) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notes.Reset()
	clear(a.by)
}

func (a *attacker) heard() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.notes.String()
}

// close returns when every connection has ended; a client that keeps one open
// is the agent, and the cage is gone by then.
func (a *attacker) close() error {
	err := errors.Join(a.tcp.Close(), a.udp.Close())
	a.serving.Wait()
	return err
}
