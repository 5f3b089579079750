package resolve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/agentcage/agentcage/internal/hostname"
)

const (
	udpSize    = 1232 // what needs no fragments: DNS flag day 2020
	maxIgnored = 64   // packets that answer nothing, before a server is given up
	maxRecords = 512  // of one answer that are looked at
	maxAliases = 16   // CNAMEs in a row
	maxAddrs   = 64   // of one family
)

var families = [2]uint16{dns.TypeA, dns.TypeAAAA}

// query asks one server one question, over UDP and, when the answer is
// truncated, over TCP (RFC 1035 section 4.2, RFC 7766).
func query(ctx context.Context, server string, name hostname.Name, qtype uint16) answer {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name.String()), qtype) // with a random ID
	m.SetEdns0(udpSize, false)
	packed, err := m.Pack()
	if err != nil {
		return answer{err: err}
	}
	var r *dns.Msg
	for range tries {
		if r, err = overUDP(ctx, server, m, packed); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err == nil && r.Truncated {
		r, err = overTCP(ctx, server, m, packed)
	}
	if err != nil {
		return answer{err: err}
	}
	return read(r, m.Question[0])
}

// overUDP uses a new connected socket: a random port, and the kernel drops
// what does not come from the server.
func overUDP(ctx context.Context, server string, m *dns.Msg, packed []byte) (*dns.Msg, error) {
	conn, stop, err := open(ctx, "udp", server)
	if err != nil {
		return nil, err
	}
	defer stop()
	if _, err := conn.Write(packed); err != nil {
		return nil, err
	}
	buf := make([]byte, udpSize+1)
	for range maxIgnored {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if r := answers(buf[:n], m); r != nil {
			return r, nil
		}
	}
	return nil, errors.New("the DNS server answers other questions")
}

func overTCP(ctx context.Context, server string, m *dns.Msg, packed []byte) (*dns.Msg, error) {
	conn, stop, err := open(ctx, "tcp", server)
	if err != nil {
		return nil, err
	}
	defer stop()
	out := binary.BigEndian.AppendUint16(nil, uint16(len(packed)))
	if _, err := conn.Write(append(out, packed...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:])) // at most 64 KiB
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	if r := answers(buf, m); r != nil && !r.Truncated {
		return r, nil
	}
	return nil, errors.New("the DNS server answers another question")
}

// open returns a connection that ends with ctx, and with the time of a try.
func open(ctx context.Context, network, server string) (net.Conn, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	unhook := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, func() { unhook(); cancel(); _ = conn.Close() }, nil
}

// answers returns the message in p when it answers m (RFC 5452 section 9.1),
// and nil for everything else, which a forger may have sent.
func answers(p []byte, m *dns.Msg) *dns.Msg {
	r := new(dns.Msg)
	if r.Unpack(p) != nil || r.Id != m.Id || !r.Response || r.Opcode != dns.OpcodeQuery || len(r.Question) != 1 {
		return nil
	}
	q, want := r.Question[0], m.Question[0]
	if q.Qtype != want.Qtype || q.Qclass != want.Qclass || !strings.EqualFold(q.Name, want.Name) {
		return nil
	}
	return r
}

// read takes the addresses of the question out of a message. Only aliases
// inside the answer are followed; records of any other owner are ignored.
func read(r *dns.Msg, q dns.Question) answer {
	switch r.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		return answer{}
	default:
		return answer{err: fmt.Errorf("the DNS server says %s", rcode(r.Rcode))}
	}
	records := r.Answer[:min(len(r.Answer), maxRecords)]
	owner, ttl, ok := follow(records, dns.CanonicalName(q.Name))
	if !ok {
		return answer{err: errors.New("the DNS server's aliases have no end")}
	}
	var out answer
	for _, rr := range records {
		h := rr.Header()
		if h.Class != dns.ClassINET || h.Rrtype != q.Qtype || dns.CanonicalName(h.Name) != owner || len(out.addrs) == maxAddrs {
			continue
		}
		if a, ok := address(rr); ok {
			out.addrs = append(out.addrs, a)
			ttl = min(ttl, h.Ttl)
		}
	}
	out.ttl = time.Duration(ttl) * time.Second
	return out
}

func rcode(code int) string {
	if s, ok := dns.RcodeToString[code]; ok {
		return s
	}
	return fmt.Sprintf("error %d", code)
}

// follow returns the name at the end of the aliases of owner, and their least
// TTL in seconds.
func follow(records []dns.RR, owner string) (string, uint32, bool) {
	target := make(map[string]*dns.CNAME)
	for _, rr := range records {
		if c, ok := rr.(*dns.CNAME); ok && c.Hdr.Class == dns.ClassINET {
			target[dns.CanonicalName(c.Hdr.Name)] = c
		}
	}
	ttl := uint32(maxTTL / time.Second)
	for range maxAliases {
		c, ok := target[owner]
		if !ok {
			return owner, ttl, true
		}
		ttl = min(ttl, c.Hdr.Ttl)
		owner = dns.CanonicalName(c.Target)
	}
	return "", 0, false
}

func address(rr dns.RR) (netip.Addr, bool) {
	var a netip.Addr
	var ok bool
	switch rr := rr.(type) {
	case *dns.A:
		a, ok = netip.AddrFromSlice(rr.A.To4())
	case *dns.AAAA:
		a, ok = netip.AddrFromSlice(rr.AAAA.To16())
	}
	return a, ok
}
