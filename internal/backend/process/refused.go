package process

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/cage"
)

// Limits of what a flood of refused attempts may cost the host.
const (
	refusalInterval = time.Second // how long like attempts are counted together
	refusalKeys     = 256         // different attempts told apart in one interval
	refusalPackets  = 2048        // packets read in one interval; the kernel drops the rest
	refusalQueue    = 64          // refusals waiting for the reader
)

type refusalKey struct {
	kind, detail string
	dest         netip.AddrPort
}

// refusals counts attempts and passes them on. The first of its kind in an
// interval goes out at once, the like of it as one with a count when the
// interval ends. When the reader is slow, counts grow and nothing blocks.
type refusals struct {
	mu      sync.Mutex
	out     chan cage.Refusal
	pending map[refusalKey]int // 0: seen in this interval, already passed on
	closed  bool

	ending, read chan struct{} // closed when the packets come to an end, and when all are read
}

func newRefusals() *refusals {
	return &refusals{
		out: make(chan cage.Refusal, refusalQueue), pending: map[refusalKey]int{},
		ending: make(chan struct{}), read: make(chan struct{}),
	}
}

func (r *refusals) add(kind string, dest netip.AddrPort, detail string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	k := refusalKey{kind, detail, dest}
	if _, seen := r.pending[k]; seen {
		r.pending[k]++
		return
	}
	if len(r.pending) >= refusalKeys {
		// Further destinations of this kind are one record without any.
		r.pending[refusalKey{kind: kind, detail: "further attempts, not told apart"}]++
		return
	}
	r.pending[k] = 0
	if !r.emit(k, 1) {
		r.pending[k] = 1
	}
}

func (r *refusals) emit(k refusalKey, count int) bool {
	select {
	case r.out <- cage.Refusal{Kind: k.kind, Dest: k.dest, Detail: k.detail, Count: count}:
		return true
	default:
		return false
	}
}

// flush ends an interval.
func (r *refusals) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flushLocked()
}

func (r *refusals) flushLocked() {
	for k, n := range r.pending {
		if n == 0 || r.emit(k, n) {
			delete(r.pending, k)
		}
	}
}

func (r *refusals) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.flushLocked()
		r.closed = true
		close(r.out)
	}
}

// readPackets turns what the packet socket sees into refusals until it is
// closed or ends.
func (r *refusals) readPackets(f *os.File) {
	defer close(r.read)
	buf := make([]byte, packetSnap)
	read := 0
	until := time.Now().Add(refusalInterval)
	for {
		f.SetReadDeadline(until)
		if r.isEnding() {
			r.drain(f, buf)
			return
		}
		n, err := f.Read(buf)
		if err == nil {
			r.packet(buf[:n])
			read++
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			if errors.Is(err, unix.ENETDOWN) {
				continue
			}
			return
		}
		if read >= refusalPackets {
			// The packets of a flood are left to the kernel, which drops them
			// when the socket's buffer is full.
			select {
			case <-time.After(time.Until(until)):
			case <-r.ending:
			}
		}
		if now := time.Now(); !now.Before(until) {
			r.flush()
			read, until = 0, now.Add(refusalInterval)
		}
	}
}

func (r *refusals) packet(b []byte) {
	if kind, dest, detail, ok := parseRefusal(b); ok {
		r.add(kind, dest, detail)
	}
}

func (r *refusals) isEnding() bool {
	select {
	case <-r.ending:
		return true
	default:
		return false
	}
}

// end reads what has come until now, since a command may end right after it was
// refused, and waits for that. It must be called once.
func (r *refusals) end(f *os.File) {
	close(r.ending)
	f.SetReadDeadline(time.Now()) // wakes a reader that waits; one that does not looks first
	<-r.read
}

func (r *refusals) drain(f *os.File, buf []byte) {
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) {
		for range refusalPackets {
			n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			switch err {
			case nil:
				r.packet(buf[:n])
			case unix.EINTR, unix.ENETDOWN:
			default:
				return
			}
		}
	})
}

// parseRefusal reads an IP packet that the filter let through. The source of a
// TCP reset is the destination that the agent tried.
func parseRefusal(b []byte) (kind string, dest netip.AddrPort, detail string, ok bool) {
	if len(b) < 20 {
		return "", netip.AddrPort{}, "", false
	}
	switch b[0] >> 4 {
	case 4:
		h := int(b[0]&0xf) * 4
		if h < 20 || len(b) < h+8 {
			return "", netip.AddrPort{}, "", false
		}
		src, dst := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		return classify(b[9], src, dst, b[h:])
	case 6:
		if len(b) < 48 {
			return "", netip.AddrPort{}, "", false
		}
		src, dst := netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		return classify(b[6], src, dst, b[40:])
	}
	return "", netip.AddrPort{}, "", false
}

func classify(proto byte, src, dst netip.Addr, p []byte) (string, netip.AddrPort, string, bool) {
	if len(p) < 8 {
		return "", netip.AddrPort{}, "", false
	}
	switch {
	case proto == protoTCP:
		return audit.KindTCP, netip.AddrPortFrom(src, binary.BigEndian.Uint16(p)), "", true
	case proto == protoICMP && p[0] == icmpEcho, proto == protoICMPv6 && p[0] == icmpv6Echo:
		return audit.KindICMP, netip.AddrPortFrom(dst, 0), "echo request", true
	case proto == protoICMP && p[0] == icmpUnreachable, proto == protoICMPv6 && p[0] == icmpv6Unreachable:
		dest, ok := quoted(p[8:])
		return audit.KindUDP, dest, "", ok
	}
	return "", netip.AddrPort{}, "", false
}

// quoted is the destination of the UDP datagram that an ICMP error quotes
// (RFC 792, RFC 4443 section 3.1). The error's own source is another address
// with IPv6.
func quoted(q []byte) (netip.AddrPort, bool) {
	if len(q) < 20 {
		return netip.AddrPort{}, false
	}
	h, proto := 40, 6
	if q[0]>>4 == 4 {
		h, proto = int(q[0]&0xf)*4, 9
	}
	if h < 20 || len(q) < h+4 || q[proto] != protoUDP {
		return netip.AddrPort{}, false
	}
	dest := netip.AddrFrom4([4]byte(q[16:]))
	if q[0]>>4 != 4 {
		dest = netip.AddrFrom16([16]byte(q[24:]))
	}
	return netip.AddrPortFrom(dest, binary.BigEndian.Uint16(q[h+2:])), true
}
