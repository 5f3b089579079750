package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// table lists names with everything under them.
type table []string

func (t table) Names() (ns []hostname.Name) {
	for _, s := range t {
		ns = append(ns, hostname.MustParse(s))
	}
	return ns
}

func (t table) Listed(n hostname.Name) (hostname.Name, bool) {
	for ; !n.IsZero(); n = n.Parent() {
		if slices.Contains(t.Names(), n) {
			return n, true
		}
	}
	return hostname.Name{}, false
}

// openTable is a blocklist.
type openTable struct{ block string }

func (openTable) Names() []hostname.Name                          { return nil }
func (openTable) Listed(hostname.Name) (e hostname.Name, ok bool) { return }
func (openTable) Open() bool                                      { return true }
func (t openTable) Blocked(n hostname.Name) bool                  { return n.Within(hostname.MustParse(t.block)) }

// resolver answers with fixed addresses and keeps every name it was asked.
type resolver struct {
	mu    sync.Mutex
	addrs map[string][]string
	asked []string
	block chan struct{} // when set, Lookup waits for it
}

func (r *resolver) Lookup(ctx context.Context, n hostname.Name) (as []netip.Addr, err error) {
	r.mu.Lock()
	r.asked = append(r.asked, n.String())
	list := r.addrs[n.String()]
	r.mu.Unlock()
	if r.block != nil {
		select {
		case <-r.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for _, s := range list {
		as = append(as, netip.MustParseAddr(s))
	}
	if len(as) == 0 {
		return nil, errors.New("no such host")
	}
	return as, nil
}

type sink struct {
	mu   sync.Mutex
	recs []audit.Record
	err  error
}

func (s *sink) Put(r audit.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recs = append(s.recs, r)
	return s.err
}

func (s *sink) all() []audit.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.recs)
}

func public(_ hostname.Name, a netip.Addr) bool { return !a.IsPrivate() && !a.IsLoopback() }

func newServer(t testing.TB) (*Server, *resolver, *sink) {
	r := &resolver{addrs: map[string][]string{
		"example.com":  {"203.0.113.7", "203.0.113.8", "2001:db8::7"},
		"inside.test":  {"10.0.0.1", "203.0.113.9"},
		"private.test": {"10.0.0.1"},
		"six.test":     {"2001:db8::6"},
	}}
	a := &sink{}
	s := &Server{Table: table{"example.com", "inside.test", "private.test", "six.test", "gone.test"}, Resolver: r, Usable: public, Audit: a, IPv6: true}
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, r, a
}

var client = &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 4000}

func query(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, qtype)
}

// ask sends a message through the handler.
func ask(t testing.TB, s *Server, q *dns.Msg) *dns.Msg {
	t.Helper()
	raw, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out := s.handle(raw, client, true)
	m := new(dns.Msg)
	if err := m.Unpack(out); err != nil {
		t.Fatalf("answer to %v: %v", q.Question, err)
	}
	if m.Id != q.Id || !m.Response {
		t.Fatalf("answer %v", m)
	}
	return m
}

// data is the answer section as text.
func data(m *dns.Msg) string {
	var parts []string
	for _, rr := range m.Answer {
		f := strings.Split(rr.String(), "\t")
		parts = append(parts, f[len(f)-1])
	}
	return strings.Join(parts, " ")
}

// TestAnswers is rules 17, 19, 20 and 147.
func TestAnswers(t *testing.T) {
	s, _, _ := newServer(t)
	tests := []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"example.com.", dns.TypeA, "203.0.113.7 203.0.113.8"},
		{"EXAMPLE.com.", dns.TypeA, "203.0.113.7 203.0.113.8"},
		{"a.b.example.com.", dns.TypeA, "203.0.113.7 203.0.113.8"},
		{"example.com.", dns.TypeAAAA, "2001:db8::7"},
		{"inside.test.", dns.TypeA, "203.0.113.9"},
		{"private.test.", dns.TypeA, "198.51.100.1"},
		{"private.test.", dns.TypeAAAA, ""},
		{"six.test.", dns.TypeA, "198.51.100.1"},
		{"gone.test.", dns.TypeA, "198.51.100.1"},
		{"evil.test.", dns.TypeA, "198.51.100.1"},
		{"evil.test.", dns.TypeAAAA, ""},
		{`a\.example.com.`, dns.TypeA, "198.51.100.1"},
		{`\000\255.evil.test.`, dns.TypeA, "198.51.100.1"},
		{"192.0.2.1.", dns.TypeA, "198.51.100.1"},
		{".", dns.TypeNS, ""},
		{"localhost.", dns.TypeA, "127.0.0.1"},
		{"a.localhost.", dns.TypeAAAA, "::1"},
		{"7.113.0.203.in-addr.arpa.", dns.TypePTR, "a.b.example.com."},
		{"9.9.9.9.in-addr.arpa.", dns.TypePTR, ""},
		{"x.9.9.9.in-addr.arpa.", dns.TypePTR, ""},
	}
	for _, qt := range []uint16{dns.TypeTXT, dns.TypeANY, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeNS, dns.TypeMX, dns.TypeSRV, dns.TypeCNAME, dns.TypePTR, dns.TypeSOA, dns.TypeNULL, 65280} {
		for _, n := range []string{"example.com.", "x.example.com.", "evil.test."} {
			tests = append(tests, struct {
				name  string
				qtype uint16
				want  string
			}{n, qt, ""})
		}
	}
	for _, tt := range tests {
		m := ask(t, s, query(tt.name, tt.qtype))
		if got := data(m); got != tt.want || m.Rcode != dns.RcodeSuccess {
			t.Errorf("%s type %d: %q (%s), want %q", tt.name, tt.qtype, got, dns.RcodeToString[m.Rcode], tt.want)
		}
		if len(m.Answer) == 0 && (len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA) {
			t.Errorf("%s type %d: an empty answer without SOA", tt.name, tt.qtype)
		}
		if len(m.Question) != 1 || m.Question[0].Name != tt.name {
			t.Errorf("%s: the question is not repeated as asked: %v", tt.name, m.Question)
		}
	}
	s.IPv6 = false
	if got := data(ask(t, s, query("example.com.", dns.TypeAAAA))); got != "" {
		t.Errorf("IPv6 is off and AAAA is %q", got)
	}
}

// TestNothingIsForwarded is rules 19 and peer-holes B1: the resolver is asked
// for listed entries only, and a query makes it no busier.
func TestNothingIsForwarded(t *testing.T) {
	s, r, _ := newServer(t)
	if got := data(ask(t, s, query("x.example.com.", dns.TypeA))); got != "203.0.113.7 203.0.113.8" {
		t.Fatalf("positive control: %q", got)
	}
	for i := range 1000 {
		for _, zone := range []string{"example.com.", "gone.test.", "evil.test."} {
			for _, qt := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT} {
				ask(t, s, query(fmt.Sprintf("c2VjcmV0%d.%s", i, zone), qt))
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.asked)
	if got := strings.Join(r.asked, " "); got != "example.com gone.test inside.test private.test six.test" {
		t.Errorf("the resolver was asked for %s", got)
	}
}

func TestRefusals(t *testing.T) {
	s, _, _ := newServer(t)
	edit := func(f func(m *dns.Msg)) *dns.Msg {
		m := query("example.com.", dns.TypeA)
		f(m)
		return m
	}
	tests := []struct {
		name string
		q    *dns.Msg
		want int
	}{
		{"control", edit(func(*dns.Msg) {}), dns.RcodeSuccess},
		{"chaos", edit(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		{"any class", edit(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		{"transfer", edit(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), dns.RcodeRefused},
		{"incremental transfer", edit(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeIXFR }), dns.RcodeRefused},
		{"update", edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"notify", edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		{"no question", edit(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		{"two questions", edit(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		{"an answer in it", edit(func(m *dns.Msg) { m.Answer = []dns.RR{soa()} }), dns.RcodeFormatError},
		{"two OPT", edit(func(m *dns.Msg) { m.SetEdns0(512, false); m.Extra = append(m.Extra, m.Extra[0]) }), dns.RcodeFormatError},
		{"EDNS version 1", edit(func(m *dns.Msg) { m.SetEdns0(512, false); m.IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
	}
	for _, tt := range tests {
		m := ask(t, s, tt.q)
		if m.Rcode != tt.want || tt.want != dns.RcodeSuccess && len(m.Answer) > 0 {
			t.Errorf("%s: %s %v", tt.name, dns.RcodeToString[m.Rcode], m.Answer)
		}
	}
	loop := append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0xc0, 12, 0, 1, 0, 1)
	long := append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, []byte(strings.Repeat("\x3f"+strings.Repeat("a", 63), 5)+"\x00\x00\x01\x00\x01")...)
	for name, raw := range map[string][]byte{"a compression loop": loop, "a name of 320 bytes": long, "cut off": loop[:14]} {
		m := new(dns.Msg)
		if err := m.Unpack(s.handle(raw, client, true)); err != nil || m.Rcode != dns.RcodeFormatError || m.Id != 1 {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	answer := query("example.com.", dns.TypeA)
	answer.Response = true
	raw, _ := answer.Pack()
	for name, raw := range map[string][]byte{"an answer": raw, "nothing": nil, "11 bytes": loop[:11]} {
		if out := s.handle(raw, client, true); out != nil {
			t.Errorf("%s is answered", name)
		}
	}
}

func TestEDNS(t *testing.T) {
	s, _, _ := newServer(t)
	for _, tt := range []struct {
		name string
		code uint16
		ok   bool
	}{
		{"evil.test.", dns.ExtendedErrorCodeBlocked, true},
		{"private.test.", dns.ExtendedErrorCodeFiltered, true},
		{"example.com.", 0, false},
	} {
		q := query(tt.name, dns.TypeA)
		q.SetEdns0(4096, true)
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("data")}}
		opt := ask(t, s, q).IsEdns0()
		if opt == nil || opt.UDPSize() != maxPayload || opt.Do() {
			t.Fatalf("%s: OPT %v", tt.name, opt)
		}
		if !tt.ok {
			if len(opt.Option) != 0 {
				t.Errorf("%s: options %v", tt.name, opt.Option)
			}
			continue
		}
		if ede, ok := opt.Option[0].(*dns.EDNS0_EDE); len(opt.Option) != 1 || !ok || ede.InfoCode != tt.code {
			t.Errorf("%s: options %v", tt.name, opt.Option)
		}
	}
	if ask(t, s, query("evil.test.", dns.TypeA)).IsEdns0() != nil {
		t.Error("OPT for a client that did not send it")
	}
}

// TestAudit is rules 23: the name is hostile, and every refusal is recorded.
func TestAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, a := newServer(t)
		ask(t, s, query("Evil.test.", dns.TypeTXT))
		for range 4 {
			ask(t, s, query("evil.test.", dns.TypeA))
		}
		ask(t, s, query("example.com.", dns.TypeA))
		if recs := a.all(); len(recs) != 1 {
			t.Fatalf("%d records before the second is over", len(recs))
		}
		time.Sleep(repeatWindow) //nolint:forbidigo // fake time
		synctest.Wait()
		recs := a.all()
		if len(recs) != 2 || recs[1].Count != 4 {
			t.Fatalf("records %+v", recs)
		}
		r := recs[0]
		if r.Method != "DNS" || r.Host != "evil.test" || r.Port != 53 || r.Path != "" || r.URL != "dns://evil.test" || r.Decision != "blocked" ||
			r.Reason != "domain not in allowlist" || r.Source != "10.0.0.2" || r.Kind != audit.KindDNS || r.Inspectors[0].Severity != "warning" {
			t.Errorf("record %+v", r)
		}
		ask(t, s, query(`a"\010b.evil.test.`, dns.TypeA))
		recs = a.all()
		if line := string(recs[2].Append(nil, nil)); strings.Count(line, "\n") != 1 || recs[2].Host != `a\"\010b.evil.test` {
			t.Errorf("record of a hostile name: %s", line)
		}
		s.Shutdown(context.Background())
	})
}

func TestAuditIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, a := newServer(t)
		for i := range 3 * maxRepeats {
			ask(t, s, query(fmt.Sprintf("x%d.evil.test.", i), dns.TypeA))
		}
		s.Shutdown(context.Background())
		recs, total := a.all(), 0
		for _, r := range recs {
			total += max(r.Count, 1)
		}
		if len(recs) > maxRepeats+2 || total != 3*maxRepeats {
			t.Errorf("%d records for %d queries", len(recs), total)
		}
	})
}

func TestLogQueries(t *testing.T) {
	s, _, a := newServer(t)
	s.LogQueries = true
	ask(t, s, query("x.example.com.", dns.TypeA))
	if recs := a.all(); len(recs) != 1 || recs[0].Decision != "allowed" || recs[0].Host != "x.example.com" {
		t.Errorf("records %+v", recs)
	}
	a.err = errors.New("no space")
	if m := ask(t, s, query("x.example.com.", dns.TypeA)); m.Rcode != dns.RcodeServerFailure || len(m.Answer) > 0 {
		t.Errorf("answered without a record: %v", m)
	}
}

// TestOpenTable: with a blocklist names are not resolved either.
func TestOpenTable(t *testing.T) {
	s, r, a := newServer(t)
	s.Update(openTable{"evil.test"})
	r.mu.Lock()
	before := len(r.asked)
	r.mu.Unlock()
	for _, n := range []string{"example.com.", "a.evil.test."} {
		if got := data(ask(t, s, query(n, dns.TypeA))); got != "198.51.100.1" {
			t.Errorf("%s: %q", n, got)
		}
	}
	if recs := a.all(); len(recs) != 1 || recs[0].Host != "a.evil.test" || recs[0].Reason != "domain in blocklist" {
		t.Errorf("records %+v", recs)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.asked) > max(before, 5) {
		t.Errorf("the resolver was asked for %v", r.asked)
	}
}

// TestZeroServer: nothing set, nothing known.
func TestZeroServer(t *testing.T) {
	var s Server
	if got := data(ask(t, &s, query("example.com.", dns.TypeA))); got != "198.51.100.1" {
		t.Errorf("the zero server answers %q", got)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	s2, _, _ := newServer(t)
	s2.Usable = nil
	if got := data(ask(t, s2, query("example.com.", dns.TypeA))); got != "198.51.100.1" {
		t.Errorf("nobody vets addresses and the answer is %q", got)
	}
}

func TestFirstResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r, _ := newServer(t)
		r.block = make(chan struct{})
		start := time.Now()
		if got := data(ask(t, s, query("example.com.", dns.TypeA))); got != "198.51.100.1" || time.Since(start) != firstWait {
			t.Errorf("after %v: %q", time.Since(start), got)
		}
		time.AfterFunc(time.Second, func() { close(r.block) })
		if got := data(ask(t, s, query("example.com.", dns.TypeA))); got != "203.0.113.7 203.0.113.8" {
			t.Errorf("after the result: %q", got)
		}
		s.Shutdown(context.Background())
	})
}

// TestRefresh: new addresses are picked up, and a failure keeps the old ones.
func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r, _ := newServer(t)
		get := func() string { return data(ask(t, s, query("example.com.", dns.TypeA))) }
		set := func(addrs ...string) {
			r.mu.Lock()
			r.addrs["example.com"] = addrs
			r.mu.Unlock()
			time.Sleep(2 * refreshEvery) //nolint:forbidigo // fake time
		}
		get()
		set("203.0.113.50")
		if got := get(); got != "203.0.113.50" {
			t.Errorf("after a change: %q", got)
		}
		set()
		if got := get(); got != "203.0.113.50" {
			t.Errorf("after a failure: %q", got)
		}
		s.Update(table{"other.test"})
		if got := get(); got != "198.51.100.1" {
			t.Errorf("after the entry is gone: %q", got)
		}
		s.Shutdown(context.Background())
	})
}

func TestNameOf(t *testing.T) {
	s, _, _ := newServer(t)
	ask(t, s, query("x.example.com.", dns.TypeA))
	ask(t, s, query("evil.test.", dns.TypeA))
	if n, ok := s.NameOf(netip.MustParseAddr("::ffff:203.0.113.7")); !ok || n.String() != "x.example.com" {
		t.Errorf("name %q, %v", n, ok)
	}
	if n, ok := s.NameOf(Synthetic); ok {
		t.Errorf("the synthetic address is %q", n)
	}
	var h handed
	for i := range 2 * maxHanded {
		h.put(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), hostname.MustParse("a"))
	}
	if len(h.names) != maxHanded || len(h.order) != maxHanded {
		t.Errorf("%d addresses are remembered", len(h.names))
	}
	if a, ok := fromReverse("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."); !ok || a.String() != "2001:db8::7" {
		t.Errorf("reverse IPv6 %v, %v", a, ok)
	}
}

// TestAnswersFit: the largest answer needs no truncation even without EDNS.
func TestAnswersFit(t *testing.T) {
	s, r, _ := newServer(t)
	for i := range 50 {
		r.addrs["example.com"] = append(r.addrs["example.com"], fmt.Sprintf("2001:db8::%x", i+100), fmt.Sprintf("203.0.113.%d", i+100))
	}
	name := strings.Repeat(strings.Repeat("a", 60)+".", 3) + strings.Repeat("b", 50) + ".example.com."
	for _, qt := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if m := ask(t, s, query(name, qt)); m.Truncated || len(m.Answer) != maxAddrs {
			t.Errorf("type %d: truncated %v, %d answers", qt, m.Truncated, len(m.Answer))
		}
	}
}

// TestSockets is a real client over UDP and TCP. The UDP socket is bound to
// the wildcard address, and a connected client takes no answer from another
// address than the one it asked.
func TestSockets(t *testing.T) {
	s, _, _ := newServer(t)
	pc, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- s.ServePacket(pc) }()
	go func() { done <- s.ServeStream(l) }()
	_, port, _ := net.SplitHostPort(pc.LocalAddr().String())
	for network, addr := range map[string]string{"udp": "127.0.0.5:" + port, "tcp": l.Addr().String()} {
		c := dns.Client{Net: network, Timeout: 5 * time.Second}
		m, _, err := c.Exchange(query("www.example.com.", dns.TypeA), addr)
		if err != nil || data(m) != "203.0.113.7 203.0.113.8" {
			t.Errorf("%s: %v, %v", network, m, err)
		}
	}
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte{0xff, 0xff})
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("a query of 65535 bytes is answered with %d bytes", n)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	again, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServePacket(again); !errors.Is(err, ErrClosed) {
		t.Errorf("served after the end: %v", err)
	}
}

func FuzzHandle(f *testing.F) {
	for _, q := range []*dns.Msg{query("a.example.com.", dns.TypeA), query("evil.test.", dns.TypeTXT), query("1.0.0.10.in-addr.arpa.", dns.TypePTR)} {
		raw, _ := q.Pack()
		f.Add(raw, true)
		q.SetEdns0(4096, true)
		raw, _ = q.Pack()
		f.Add(raw, false)
	}
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1}, true)
	s, r, _ := newServer(f)
	for _, n := range s.Table.Names() {
		ask(f, s, query(n.String()+".", dns.TypeA))
	}
	f.Fuzz(func(t *testing.T, raw []byte, udp bool) {
		out := s.handle(raw, client, udp)
		if len(out) > 0 && (len(raw) < 12 || out[0] != raw[0] || out[1] != raw[1] || out[2]&0x80 == 0) {
			t.Fatalf("%x is answered with %x", raw, out)
		}
		if len(out) > maxPayload {
			t.Fatalf("%d bytes for a query of %d", len(out), len(raw))
		}
		if out != nil {
			if err := new(dns.Msg).Unpack(out); err != nil {
				t.Fatalf("%x is answered with %x: %v", raw, out, err)
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, n := range r.asked {
			if _, ok := r.addrs[n]; !ok && n != "gone.test" {
				t.Fatalf("%x made the resolver look for %q", raw, n)
			}
		}
	})
}

func BenchmarkHandle(b *testing.B) {
	s, _, _ := newServer(b)
	raw, _ := query("www.example.com.", dns.TypeA).Pack()
	b.ReportAllocs()
	for b.Loop() {
		s.handle(raw, client, true)
	}
}
