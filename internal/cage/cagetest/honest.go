//go:build linux

package cagetest

import (
	"bytes"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

// way is one of the ways in which a program can make a request.
type way struct {
	name   string
	scheme string
	via    string
	addr   string // for via "addr"; the port is added
	h1     bool
}

// ways are all of them: what is decided must not depend on which is taken.
var ways = []way{
	{name: "proxy-absolute-form", scheme: "http", via: "proxy"},
	{name: "proxy-connect-h1", scheme: "https", via: "proxy", h1: true},
	{name: "proxy-connect-h2", scheme: "https", via: "proxy"},
	{name: "direct-plain", scheme: "http", via: "direct"},
	{name: "direct-tls-h1", scheme: "https", via: "direct", h1: true},
	{name: "direct-tls-h2", scheme: "https", via: "direct"},
	{name: "any-ipv4-tls", scheme: "https", via: "addr", addr: "93.184.215.14"},
	{name: "any-ipv4-plain", scheme: "http", via: "addr", addr: "93.184.215.14"},
	{name: "any-ipv6-tls", scheme: "https", via: "addr", addr: "2001:db8::1"},
	{name: "any-ipv6-plain", scheme: "http", via: "addr", addr: "2001:db8::1"},
	{name: "loopback-tls", scheme: "https", via: "addr", addr: "127.0.0.1"},
}

// request is what a way makes of a request for a host.
func (w way) request(s *suite, host, path string) wire.Ask {
	a := wire.Ask{Do: "http", Via: w.via, URL: s.world.url(w.scheme, host, path), H1: w.h1}
	if w.addr != "" {
		a.Addr = s.world.at(w.addr)
	}
	return a
}

func (w way) needs(t *testing.T) {
	if strings.Contains(w.addr, ":") && !haveIPv6() {
		t.Skip("needs IPv6: this machine has none")
	}
}

var honestChecks = []check{
	{"every-way-allowed", "1 4 120 A10 A3", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, w := range ways {
			t.Run(w.name, func(t *testing.T) {
				w.needs(t)
				in := in.with(t)
				r := in.ask(w.request(s, goodHost, "/"+w.name))
				got := in.arrived(r, goodHost)
				if got.URI != "/"+w.name || got.Host != strings.TrimPrefix(s.world.url("", goodHost, ""), "://") || got.TLS != (w.scheme == "https") {
					t.Errorf("the server received %+v", got)
				}
				if h2 := r.Proto == "HTTP/2.0"; h2 != (w.scheme == "https" && !w.h1) {
					t.Errorf("the agent was served %s", r.Proto)
				}
			})
		}
		s.world.untouched(t, evilHost)
	}},
	{"every-way-blocked", "1 4 7 11 134 A4 A10", func(t *testing.T, s *suite) {
		s.world.control(t, evilHost)
		in := s.cage(t)
		for _, w := range ways {
			t.Run(w.name, func(t *testing.T) {
				w.needs(t)
				in := in.with(t)
				in.blocked(in.ask(w.request(s, evilHost, "/"+w.name)), "domain not in allowlist: "+evilHost)
			})
		}
		s.world.untouched(t, evilHost, innerHost, goodHost)
	}},
	{"every-way-empty-list", "B13", func(t *testing.T, s *suite) {
		// Nothing is listed, so no port but 80 and 443 reaches the gateway;
		// on those it answers, and on all others the kernel refuses.
		in := s.cage(t, nothing())
		in.blocked(in.ask(wire.Ask{Do: "http", Via: "direct", URL: "http://" + goodHost + "/"}), "")
		in.blocked(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("http", goodHost, "/")}), "")
		in.refused(wire.Ask{Do: "dial", Network: "tcp", Addr: s.world.at("127.0.0.11")}, "ECONNREFUSED")
		s.world.untouched(t, goodHost, evilHost)
	}},
	{"post-body-both-ways", "C1-control", func(t *testing.T, s *suite) {
		in := s.cage(t)
		body := bytes.Repeat([]byte("0123456789abcdef"), 3000)
		for _, w := range []way{ways[1], ways[2], ways[3]} {
			a := w.request(s, goodHost, "/post")
			a.Method, a.Data = "POST", body
			if got := in.arrived(in.ask(a), goodHost); got.Method != "POST" || got.Body != string(body) {
				t.Errorf("%s: the server received %s with %d bytes", w.name, got.Method, len(got.Body))
			}
		}
	}},
	{"ipv6-upstream", "20 33", func(t *testing.T, s *suite) {
		if !haveIPv6() {
			t.Skip("needs IPv6: this machine has none")
		}
		in := s.cage(t, allow(sixHost))
		in.arrived(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", sixHost, "/")}), sixHost)
	}},
	{"subdomain-and-exact", "15 A6", func(t *testing.T, s *suite) {
		sub := func(set *setup) { set.hosts["sub."+goodHost] = addresses[goodHost] }
		ask := wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", "sub."+goodHost, "/")}
		in := s.cage(t, sub)
		in.arrived(in.ask(ask), goodHost)
		in = s.cage(t, sub, nothing(), allow("="+goodHost))
		in.blocked(in.ask(ask), "domain not in allowlist")
		in.arrived(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", goodHost, "/")}), goodHost)
	}},
	{"allowed-is-audited", "93 138", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.arrived(in.ask(wire.Ask{Do: "http", Via: "direct", URL: s.world.url("https", goodHost, "/audited")}), goodHost)
		rec := in.records.await(t, "the allowed request", func(r audit.Record) bool { return r.Path == "/audited" && r.Decision == "allowed" })
		if rec.Host != goodHost || rec.Method != "GET" || int(rec.Port) != s.world.port {
			t.Errorf("the record says %+v", rec)
		}
	}},
	{"alt-svc-removed", "27", func(t *testing.T, s *suite) {
		in := s.cage(t)
		r := in.works(wire.Ask{Do: "raw", Open: true, Network: "tcp", Addr: s.world.at("203.0.113.1"), Data: []byte("GET / HTTP/1.1\r\nHost: " + s.world.at(goodHost) + "\r\nConnection: close\r\n\r\n")})
		if !strings.Contains(r.Text(), " 200 ") || strings.Contains(strings.ToLower(r.Text()), "alt-svc") {
			t.Errorf("the agent was told %q", clip(r.Text()))
		}
	}},
	{"websocket", "51-transport", func(t *testing.T, s *suite) {
		in := s.cage(t)
		frame := append([]byte{0x81, 0x85, 0, 0, 0, 0}, "hello"...)
		shake := "GET /ws HTTP/1.1\r\nHost: " + s.world.at(goodHost) + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
		// The probe ends its half of the connection; the answer comes first.
		r := in.ask(wire.Ask{Do: "websocket", Addr: s.world.at("203.0.113.1"), SNI: goodHost, Data: append([]byte(shake), frame...)})
		if !r.OK() || !strings.Contains(r.Text(), "101 Switching") || !strings.HasSuffix(r.Text(), "hello") {
			t.Errorf("the WebSocket said %q %s", clip(r.Text()), r.Err)
		}
	}},
}
