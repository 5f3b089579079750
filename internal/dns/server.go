// Package dns is the name server of a cage. It answers every query from what
// it already knows and forwards none, so that nothing the agent writes into a
// query reaches another server.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
)

const (
	maxQueries  = 256             // answered at one time, UDP and TCP together
	maxStreams  = 64              // TCP connections at one time
	maxPerConn  = 128             // queries on one TCP connection
	maxQuery    = 2048            // bytes of one query
	streamIdle  = 5 * time.Second // between queries of a TCP connection
	streamWrite = 2 * time.Second
)

// Table says which names are answered. It is asked concurrently.
type Table interface {
	// Listed returns the most specific entry that covers a name.
	Listed(hostname.Name) (entry hostname.Name, ok bool)
	// Names returns the entries to resolve.
	Names() []hostname.Name
}

// OpenTable is an optional interface of a Table in which hosts need not be
// listed to be reachable. A name that is not Blocked gets the synthetic
// address as well, because resolving it would carry the agent's labels out;
// the gateway, which dials by name, still reaches it.
type OpenTable interface {
	Open() bool
	Blocked(hostname.Name) bool
}

// Resolver finds the addresses of a listed entry. It is never given a name
// that the agent wrote.
type Resolver interface {
	Lookup(context.Context, hostname.Name) ([]netip.Addr, error)
}

// Server answers queries. Set the fields before the first call of a method;
// all methods are safe for concurrent use.
type Server struct {
	Table    Table    // nil lists nothing
	Resolver Resolver // nil knows no address

	// Usable says whether an address of an entry may be handed out. The
	// others are replaced, and with a nil Usable all are.
	Usable func(entry hostname.Name, a netip.Addr) bool

	Audit      audit.Sink // nil keeps no records
	IPv6       bool       // hand out IPv6 addresses too
	LogQueries bool       // record answered queries, not only refused ones

	once   sync.Once
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{} // queries being answered
	conns  chan struct{} // TCP connections

	mu      sync.Mutex
	closed  bool
	closers map[io.Closer]struct{}
	table   Table
	entries map[hostname.Name]*entry
	lookups chan struct{}

	handed  handed
	repeats repeats
}

// ErrClosed is returned after Shutdown.
var ErrClosed = errors.New("cannot serve DNS: the server was shut down")

// start makes the zero Server ready.
func (s *Server) start() {
	s.once.Do(func() {
		s.ctx, s.cancel = context.WithCancel(context.Background())
		s.slots = make(chan struct{}, maxQueries)
		s.conns = make(chan struct{}, maxStreams)
		s.lookups = make(chan struct{}, maxLookups)
		s.closers = make(map[io.Closer]struct{})
		s.entries = make(map[hostname.Name]*entry)
		s.repeats.sink = s.Audit
		s.setTable(s.Table)
	})
}

// Update replaces the table. Entries that stay keep their addresses.
func (s *Server) Update(t Table) {
	s.start()
	s.setTable(t)
}

// Shutdown stops serving, closes what is served, writes what is left to audit,
// and waits for the goroutines, at most until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.start()
	s.cancel() // before the sockets close, so that the loops know why
	s.mu.Lock()
	s.closed = true
	for c := range s.closers {
		c.Close()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	defer s.repeats.flushAll()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot stop DNS in time: %w", ctx.Err())
	}
}

// enter registers something that Shutdown has to close and wait for.
func (s *Server) enter(c io.Closer) bool {
	s.start()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return false
	}
	s.closers[c] = struct{}{}
	s.wg.Add(1)
	return true
}

func (s *Server) leave(c io.Closer) {
	c.Close()
	s.mu.Lock()
	delete(s.closers, c)
	s.mu.Unlock()
	s.wg.Done()
}

// ServePacket answers on a datagram socket until Shutdown, and closes it. On a
// *net.UDPConn the answer comes from the address that was asked, also when the
// socket is bound to the wildcard address (IP_PKTINFO, ip(7)).
func (s *Server) ServePacket(pc net.PacketConn) error {
	if !s.enter(pc) {
		return ErrClosed
	}
	defer s.leave(pc)
	uc, isUDP := pc.(*net.UDPConn)
	if isUDP {
		err6 := ipv6.NewPacketConn(uc).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
		err4 := ipv4.NewPacketConn(uc).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
		if err4 != nil && err6 != nil {
			return fmt.Errorf("cannot serve DNS: %w", err4)
		}
	}
	for {
		buf := make([]byte, maxQuery)
		n, from, reply, err := receive(pc, uc, buf)
		if s.ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("cannot serve DNS: %w", err)
		}
		if err != nil {
			continue // an ICMP error of an earlier answer, or the like
		}
		select {
		case s.slots <- struct{}{}:
		default:
			continue // too many at once: the client asks again
		}
		s.wg.Go(func() {
			defer func() { <-s.slots }()
			if out := s.handle(buf[:n], from, true); out != nil {
				reply(out)
			}
		})
	}
}

// receive reads one datagram and returns how to answer it.
func receive(pc net.PacketConn, uc *net.UDPConn, buf []byte) (n int, from net.Addr, reply func([]byte), err error) {
	if uc == nil {
		n, from, err = pc.ReadFrom(buf)
		return n, from, func(out []byte) { _, _ = pc.WriteTo(out, from) }, err // a lost datagram: the client asks again
	}
	n, session, err := dns.ReadFromSessionUDP(uc, buf)
	if err != nil {
		return 0, nil, nil, err
	}
	return n, session.RemoteAddr(), func(out []byte) { _, _ = dns.WriteToSessionUDP(uc, out, session) }, nil
}

// ServeStream answers on a TCP listener until Shutdown, and closes it (RFC
// 7766). Connections beyond the limit are closed at once.
func (s *Server) ServeStream(l net.Listener) error {
	if !s.enter(l) {
		return ErrClosed
	}
	defer s.leave(l)
	for {
		c, err := l.Accept()
		if s.ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			if t, ok := err.(interface{ Temporary() bool }); ok && t.Temporary() {
				s.pause(50 * time.Millisecond)
				continue
			}
			return fmt.Errorf("cannot serve DNS: %w", err)
		}
		select {
		case s.conns <- struct{}{}:
		default:
			c.Close()
			continue
		}
		if !s.enter(c) {
			<-s.conns
			continue
		}
		go func() {
			defer func() { <-s.conns }()
			defer s.leave(c)
			s.stream(c)
		}()
	}
}

// stream answers the queries of one connection, one after the other.
func (s *Server) stream(c net.Conn) {
	var size [2]byte
	for range maxPerConn {
		c.SetReadDeadline(time.Now().Add(streamIdle))
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint16(size[:])
		if n > maxQuery {
			return
		}
		query := make([]byte, n)
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		out := s.handle(query, c.RemoteAddr(), false)
		<-s.slots
		if out == nil {
			return
		}
		c.SetWriteDeadline(time.Now().Add(streamWrite))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// pause waits, or returns false when the server is shut down before.
func (s *Server) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}
