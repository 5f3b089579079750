package dns

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/agentcage/agentcage/internal/hostname"
)

const (
	ttlReal      = 60 // seconds
	ttlSynthetic = 5
	maxPayload   = 1232 // bytes over UDP with EDNS: no fragments on any path (DNS flag day 2020)
)

// Synthetic is the address of every name that has none here: TEST-NET-2 of
// RFC 5737. The gateway answers on it and says why.
var Synthetic = netip.MustParseAddr("198.51.100.1")

var localhost = hostname.MustParse("localhost")

// handle answers one message. It returns nil for what gets no answer: an
// answer, or less than a header.
func (s *Server) handle(raw []byte, from net.Addr, udp bool) []byte {
	s.start()
	reply, limit := s.reply(raw, from)
	if reply == nil {
		return nil
	}
	if !udp {
		limit = dns.MaxMsgSize
	}
	reply.Compress = true
	if reply.Len() > limit {
		reply.Truncate(limit)
	}
	out, err := reply.Pack()
	if err != nil || len(out) > limit {
		return failure(raw, dns.RcodeServerFailure)
	}
	return out
}

// reply makes the answer, and says how many bytes it may have over UDP.
func (s *Server) reply(raw []byte, from net.Addr) (*dns.Msg, int) {
	if len(raw) < 12 || raw[2]&0x80 != 0 {
		return nil, 0
	}
	refuse := func(rcode int) (*dns.Msg, int) { return refusal(raw, rcode), dns.MinMsgSize }
	if raw[2]>>3&0xf != dns.OpcodeQuery {
		return refuse(dns.RcodeNotImplemented)
	}
	// One question, no answers, no authority, at most OPT and TSIG.
	if count := raw[4:12]; count[0] != 0 || count[1] != 1 || count[2]|count[3]|count[4]|count[5]|count[6] != 0 || count[7] > 2 {
		return refuse(dns.RcodeFormatError)
	}
	var q dns.Msg
	if err := q.Unpack(raw); err != nil || len(q.Question) != 1 {
		return refuse(dns.RcodeFormatError)
	}
	opt, ok := onlyOPT(&q)
	if !ok {
		return refuse(dns.RcodeFormatError)
	}
	m := new(dns.Msg)
	m.SetReply(&q)
	m.RecursionAvailable = true
	limit := dns.MinMsgSize
	if opt != nil {
		limit = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxPayload)
		m.SetEdns0(maxPayload, false)
		if opt.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
			return m, limit
		}
	}
	s.fill(m, q.Question[0], from)
	return m, limit
}

// onlyOPT returns the OPT record, of which there is one at most (RFC 6891
// section 6.1.1).
func onlyOPT(q *dns.Msg) (opt *dns.OPT, ok bool) {
	for _, rr := range q.Extra {
		if o, is := rr.(*dns.OPT); is {
			if opt != nil || o.Hdr.Name != "." {
				return nil, false
			}
			opt = o
		}
	}
	return opt, true
}

// fill answers the question in m.
func (s *Server) fill(m *dns.Msg, q dns.Question, from net.Addr) {
	if q.Qclass != dns.ClassINET || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		m.Rcode = dns.RcodeRefused
		return
	}
	name, err := hostname.Parse(q.Name)
	if err != nil || name.IsIP() {
		name = hostname.Name{} // no host has it: q.Name alone is recorded
	}
	v := s.verdict(name)
	switch {
	case name.Within(localhost):
		addLoopback(m, q)
	case isReverse(q.Name):
		s.addPointer(m, q)
	default:
		if !s.record(q, name, v, from) {
			m.Rcode = dns.RcodeServerFailure
			return
		}
		s.addAddresses(m, q, name, v)
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{soa()}
	}
}

// verdict is what the table says of a name.
type verdict struct {
	entry  hostname.Name // the listed entry, if there is one
	reason string        // of a refusal, empty when allowed
}

func (s *Server) verdict(name hostname.Name) verdict {
	s.mu.Lock()
	t := s.table
	s.mu.Unlock()
	if t == nil || name.IsZero() {
		return verdict{reason: "domain not in allowlist"}
	}
	if entry, ok := t.Listed(name); ok {
		return verdict{entry: entry}
	}
	if o, ok := t.(OpenTable); ok && o.Open() {
		if o.Blocked(name) {
			return verdict{reason: "domain in blocklist"}
		}
		return verdict{}
	}
	return verdict{reason: "domain not in allowlist"}
}

// addAddresses answers A and AAAA and leaves every other type empty.
func (s *Server) addAddresses(m *dns.Msg, q dns.Question, name hostname.Name, v verdict) {
	if q.Qtype != dns.TypeA && (q.Qtype != dns.TypeAAAA || !s.IPv6) {
		return
	}
	if !v.entry.IsZero() {
		for _, a := range s.addresses(v.entry) {
			if a.Is4() == (q.Qtype == dns.TypeA) {
				addAddress(m, q, a, ttlReal)
				s.handed.put(a, name)
			}
		}
	}
	if len(m.Answer) > 0 || q.Qtype != dns.TypeA {
		return
	}
	addAddress(m, q, Synthetic, ttlSynthetic)
	if v.reason != "" {
		explain(m, dns.ExtendedErrorCodeBlocked, v.reason)
	} else {
		explain(m, dns.ExtendedErrorCodeFiltered, "the gateway connects by name")
	}
}

func addAddress(m *dns.Msg, q dns.Question, a netip.Addr, ttl uint32) {
	h := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
	if a.Is4() {
		m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
		return
	}
	m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
}

// addLoopback is RFC 6761 section 6.3.
func addLoopback(m *dns.Msg, q dns.Question) {
	switch q.Qtype {
	case dns.TypeA:
		addAddress(m, q, netip.AddrFrom4([4]byte{127, 0, 0, 1}), ttlReal)
	case dns.TypeAAAA:
		addAddress(m, q, netip.IPv6Loopback(), ttlReal)
	}
}

// addPointer answers with the name that an address was handed out for.
func (s *Server) addPointer(m *dns.Msg, q dns.Question) {
	a, ok := fromReverse(q.Name)
	if !ok || q.Qtype != dns.TypePTR {
		return
	}
	if n, known := s.NameOf(a); known {
		h := dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttlReal}
		m.Answer = append(m.Answer, &dns.PTR{Hdr: h, Ptr: dns.Fqdn(n.String())})
	}
}

const (
	reverse4 = ".in-addr.arpa."
	reverse6 = ".ip6.arpa."
)

func isReverse(qname string) bool {
	qname = "." + strings.ToLower(qname)
	return strings.HasSuffix(qname, reverse4) || strings.HasSuffix(qname, reverse6)
}

// fromReverse reads the address in a reverse name (RFC 1035 section 3.5, RFC
// 3596 section 2.5).
func fromReverse(qname string) (netip.Addr, bool) {
	qname = strings.ToLower(qname)
	if labels, ok := strings.CutSuffix(qname, reverse4); ok {
		p := strings.Split(labels, ".")
		if len(p) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(p[3] + "." + p[2] + "." + p[1] + "." + p[0])
		return a, err == nil
	}
	labels, ok := strings.CutSuffix(qname, reverse6)
	p := strings.Split(labels, ".")
	if !ok || len(p) != 32 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i, digit := range p {
		v, err := strconv.ParseUint(digit, 16, 4)
		if err != nil || len(digit) != 1 {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(v) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}

// explain adds an extended error (RFC 8914) for clients that speak EDNS.
func explain(m *dns.Msg, code uint16, text string) {
	if opt := m.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: code, ExtraText: text})
	}
}

// soa makes an empty answer one that clients may remember (RFC 2308).
func soa() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttlSynthetic},
		Ns:  "gateway.agentcage.invalid.", Mbox: "nobody.invalid.",
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttlSynthetic,
	}
}

// refusal answers a message that could not be read beyond its header: it
// repeats nothing but the id, the opcode and RD.
func refusal(raw []byte, rcode int) *dns.Msg {
	m := new(dns.Msg)
	m.Id = uint16(raw[0])<<8 | uint16(raw[1])
	m.Response = true
	m.Opcode = int(raw[2] >> 3 & 0xf)
	m.RecursionDesired = raw[2]&1 != 0
	m.RecursionAvailable = true
	m.Rcode = rcode
	return m
}

func failure(raw []byte, rcode int) []byte {
	out, err := refusal(raw, rcode).Pack()
	if err != nil {
		return nil
	}
	return out
}
