//go:build linux

package cagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

// sinkhole is what a name that is not listed resolves to: an address that
// clients take for a server, where the gateway says why (RFC 5737).
const sinkhole = "198.51.100.1"

// anyServer are resolvers that malware and stubborn programs ask.
var anyServer = []string{"127.0.0.53:53", "8.8.8.8:53", "1.1.1.1:53", "192.168.1.1:53"}

var dnsChecks = []check{
	{"listed-name", "19 20 B1", func(t *testing.T, s *suite) {
		in := s.cage(t)
		if r := in.works(wire.Ask{Do: "look", Name: goodHost}); !slices.Contains(r.List, addresses[goodHost]) {
			t.Errorf("%s is %v in the cage", goodHost, r.List)
		}
		for _, network := range []string{"udp", "tcp"} {
			for _, server := range anyServer {
				r := in.works(wire.Ask{Do: "dns", Network: network, Addr: server, Name: goodHost, Type: "A"})
				if !slices.Contains(r.List, addresses[goodHost]) {
					t.Errorf("%s %s says %v", network, server, r.List)
				}
			}
		}
		s.world.resolver.mustBeSilent(t)
	}},
	{"unlisted-name-answered-here", "17 18 20 147 B1", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, network := range []string{"udp", "tcp"} {
			for _, server := range append(anyServer, s.sixServers()...) {
				r := in.works(wire.Ask{Do: "dns", Network: network, Addr: server, Name: "leak." + evilHost, Type: "A"})
				if r.Status != dns.RcodeSuccess || !slices.Equal(r.List, []string{sinkhole}) {
					t.Errorf("%s %s says %d %v", network, server, r.Status, r.List)
				}
			}
		}
		if r := in.works(wire.Ask{Do: "look", Name: evilHost}); !slices.Contains(r.List, sinkhole) {
			t.Errorf("%s is %v in the cage", evilHost, r.List)
		}
		// And there the gateway answers.
		in.blocked(in.ask(wire.Ask{Do: "http", Via: "direct", URL: "http://" + evilHost + "/"}), "domain not in allowlist: "+evilHost)
		s.world.resolver.mustBeSilent(t)
	}},
	{"every-type", "17 20 B1", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, typ := range []string{"AAAA", "TXT", "MX", "NS", "SRV", "CNAME", "SOA", "PTR", "CAA", "HTTPS", "SVCB", "NULL", "ANY", "DNSKEY", "NAPTR", "TLSA"} {
			for _, name := range []string{"data." + evilHost, "data." + goodHost, "cdn.data." + goodHost} {
				r := in.ask(wire.Ask{Do: "dns", Network: "udp", Addr: "8.8.8.8:53", Name: name, Type: typ})
				if !r.OK() || r.Status == dns.RcodeServerFailure {
					t.Errorf("%s %s was not answered: %s", typ, name, r.Err)
				}
				for _, answer := range r.List {
					if answer != sinkhole && answer != addresses[goodHost] && !strings.Contains(answer, "RFC8482") {
						t.Errorf("%s %s says %v", typ, name, r.List)
					}
				}
			}
		}
		s.world.resolver.mustBeSilent(t)
	}},
	{"thousand-labels-never-leave", "17 19 B1", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for n := range 1000 {
			zone := evilHost
			if n%2 == 0 {
				zone = goodHost // under a listed name just as well
			}
			in.works(wire.Ask{Do: "dns", Network: "udp", Addr: "9.9.9.9:53", Name: fmt.Sprintf("%032x.%s", n, zone), Type: []string{"A", "AAAA", "TXT"}[n%3]})
		}
		s.world.resolver.mustBeSilent(t)
		s.world.untouched(t, goodHost, evilHost)
	}},
	{"labels-in-names-that-are-requested", "19", func(t *testing.T, s *suite) {
		// A request to a name under a listed one is allowed, and resolves
		// through the gateway. A request to any other name never does.
		in := s.cage(t)
		in.blocked(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", "secret-label."+evilHost, "/")}), "domain not in allowlist")
		in.blocked(in.ask(wire.Ask{Do: "http", Via: "direct", URL: "http://secret-label." + evilHost + "/"}), "domain not in allowlist")
		s.world.resolver.mustBeSilent(t)
	}},
	{"resolver-is-reached-for-what-is-listed", "19 control", func(t *testing.T, s *suite) {
		// The positive control of all checks above: the same resolver is
		// asked when a listed name without an address of its own is used.
		in := s.cage(t, allow("asked.test"), func(set *setup) { set.opened = append(set.opened, "asked.test") })
		in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("http", "asked.test", "/")})
		s.world.resolver.await(t, "asked.test.")
	}},
	{"resolver-of-the-host", "18 32", func(t *testing.T, s *suite) {
		// The resolver listens on the host's loopback, on a port of its own.
		in := s.cage(t)
		in.refused(wire.Ask{Do: "udp", Addr: s.world.resolver.addr, Data: []byte("leak")})
		in.refused(wire.Ask{Do: "dns", Network: "tcp", Addr: s.world.resolver.addr, Name: "leak.test", Type: "A"})
		s.world.resolver.mustBeSilent(t)
	}},
	{"encrypted-dns", "18 B1", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, addr := range []string{"1.1.1.1:853", "8.8.8.8:853"} {
			in.refused(wire.Ask{Do: "dial", Network: "tcp", Addr: addr}, "ECONNREFUSED") // DNS over TLS
			in.refused(wire.Ask{Do: "udp", Addr: addr, Data: []byte("doq")})             // DNS over QUIC
		}
		for _, host := range []string{"dns.google", "cloudflare-dns.com", "1.1.1.1"} { // DNS over HTTPS
			in.blocked(in.ask(wire.Ask{Do: "http", Via: "addr", Addr: "1.1.1.1:443", URL: "https://" + host + "/dns-query?dns=AAAB"}), "")
		}
	}},
	{"multicast-dns", "18 B1", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, addr := range []string{"224.0.0.251:5353", "224.0.0.252:5355", "239.255.255.250:1900"} {
			in.refused(wire.Ask{Do: "udp", Addr: addr, Data: []byte("leak")})
		}
	}},
	{"malformed-packets", "23 22", func(t *testing.T, s *suite) {
		in := s.cage(t)
		header := "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
		for _, p := range []string{"", "\x00", header, header + "\xc0\x0c\x00\x01\x00\x01", header + strings.Repeat("\x3f"+strings.Repeat("a", 63), 5) + "\x00\x00\x01\x00\x01", strings.Repeat("\xff", 512)} {
			in.ask(wire.Ask{Do: "dial", Network: "udp", Addr: "8.8.8.8:53", Data: []byte(p)})
			in.ask(wire.Ask{Do: "raw", Network: "tcp", Addr: "8.8.8.8:53", Data: []byte(p)})
		}
		r := in.works(wire.Ask{Do: "dns", Network: "udp", Addr: "8.8.8.8:53", Name: "x\\010y\\\"." + evilHost, Type: "A"})
		if !slices.Equal(r.List, []string{sinkhole}) {
			t.Errorf("a hostile name is %v", r.List)
		}
		s.world.resolver.mustBeSilent(t)
	}},
	{"resolv-conf", "21 146", func(t *testing.T, s *suite) {
		in := s.cage(t)
		r := in.works(wire.Ask{Do: "read", Path: "/etc/resolv.conf"})
		if !strings.Contains(r.Text(), "nameserver") || strings.Contains(r.Text(), "search") {
			t.Errorf("resolv.conf is %q", r.Text())
		}
		in.refused(wire.Ask{Do: "openrw", Path: "/etc/resolv.conf"})
		in.refused(wire.Ask{Do: "openrw", Path: "/etc/hosts"})
	}},
}

func (s *suite) sixServers() []string {
	if !haveIPv6() {
		return nil
	}
	return []string{"[2001:4860:4860::8888]:53", "[::1]:53"}
}

// mustBeSilent fails when the resolver outside heard any query. It hears: see
// the check resolver-is-reached-for-what-is-listed.
func (c *canary) mustBeSilent(t *testing.T) {
	t.Helper()
	if heard, _ := c.all(); heard != "" {
		t.Errorf("the resolver outside was asked for %q", clip(heard))
	}
}
