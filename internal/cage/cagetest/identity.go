//go:build linux

package cagetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

var identityChecks = []check{
	{"sni-and-host-differ", "2 3 A4 A5", func(t *testing.T, s *suite) {
		s.world.control(t, evilHost)
		in := s.cage(t)
		for _, host := range []string{evilHost, "sub." + goodHost, goodHost + ".evil.test"} {
			for _, h1 := range []bool{true, false} {
				r := in.ask(wire.Ask{Do: "http", Via: "direct", URL: s.world.url("https", goodHost, "/"), Host: s.world.at(host), H1: h1})
				in.blocked(r, "")
			}
		}
		s.world.untouched(t, evilHost, goodHost)
		in.arrived(in.ask(wire.Ask{Do: "http", Via: "direct", URL: s.world.url("https", goodHost, "/"), Host: s.world.at(strings.ToUpper(goodHost))}), goodHost)
	}},
	{"sni-of-the-other", "2 7 A4", func(t *testing.T, s *suite) {
		// Allowed in the Host, forbidden in the SNI.
		in := s.cage(t)
		r := in.ask(wire.Ask{Do: "http", Via: "addr", Addr: s.world.at("203.0.113.1"), URL: s.world.url("https", goodHost, "/"), SNI: evilHost})
		if r.OK() {
			in.blocked(r, "")
		}
		s.world.untouched(t, evilHost, goodHost)
	}},
	{"connect-and-host-differ", "4 A4", func(t *testing.T, s *suite) {
		in := s.cage(t)
		r := in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", goodHost, "/"), Host: s.world.at(evilHost)})
		in.blocked(r, "")
		s.world.untouched(t, evilHost, goodHost)
	}},
	{"absolute-form-and-host-differ", "4", func(t *testing.T, s *suite) {
		in := s.cage(t)
		proxy := in.proxy()
		send := func(host string) wire.Reply {
			return in.works(wire.Ask{Do: "raw", Open: true, Network: "tcp", Addr: proxy, Data: fmt.Appendf(nil,
				"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", s.world.url("http", goodHost, "/"), s.world.at(host))})
		}
		if r := send(evilHost); !strings.HasPrefix(r.Text(), "HTTP/1.1 40") {
			t.Errorf("the proxy answered %q", clip(r.Text()))
		}
		s.world.untouched(t, evilHost, goodHost)
		if r := send(goodHost); !strings.HasPrefix(r.Text(), "HTTP/1.1 200") {
			t.Errorf("the control failed: %q", clip(r.Text()))
		}
	}},
	{"connect-then-other-sni", "2 4 A4", func(t *testing.T, s *suite) {
		in := s.cage(t)
		r := in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", goodHost, "/"), SNI: evilHost})
		if r.OK() {
			in.blocked(r, "")
		}
		s.world.untouched(t, evilHost, goodHost)
	}},
	{"resolve-trick", "1", func(t *testing.T, s *suite) {
		// curl --resolve good.test:PORT:ATTACKER: the name is what is
		// connected to, and never the address.
		s.world.control(t, evilHost)
		in := s.cage(t)
		in.arrived(in.ask(wire.Ask{Do: "http", Via: "addr", Addr: s.world.at(addresses[evilHost]), URL: s.world.url("https", goodHost, "/")}), goodHost)
		s.world.untouched(t, evilHost)
	}},
	{"trailing-dot", "13 A2", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.arrived(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("http", goodHost+".", "/")}), goodHost)
		in.blocked(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("http", evilHost+".", "/")}), "")
		s.world.untouched(t, evilHost)
	}},
	{"address-literals", "5 A2 A3 A17", func(t *testing.T, s *suite) {
		s.world.control(t, evilHost)
		in := s.cage(t)
		six := []string{"[::1]", "[::ffff:127.0.0.12]", "[fd00::1]"}
		for _, host := range append(six, addresses[evilHost], "169.254.169.254", "0.0.0.0", "10.0.0.1", "metadata.google.internal", "localhost", "host.docker.internal", "host.containers.internal") {
			for _, scheme := range []string{"http", "https"} {
				r := in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url(scheme, host, "/")})
				if host == "localhost" || strings.HasPrefix(host, "[") || strings.HasPrefix(host, "127.") {
					// Programs do not use a proxy for these; go straight.
					r = in.ask(wire.Ask{Do: "http", Via: "direct", URL: s.world.url(scheme, host, "/")})
				}
				in.blocked(r, "")
			}
		}
		// Spellings of addresses that some parsers take.
		for _, host := range []string{"0x7f.0.0.12", "2130706444", "127.12", "0177.0.0.014", "[[::1]]", "127.0.0.12%00." + goodHost, goodHost + "\x00." + evilHost, goodHost + "\t"} {
			r := in.works(wire.Ask{Do: "raw", Network: "tcp", Addr: in.proxy(), Data: fmt.Appendf(nil, "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\n\r\n", host, s.world.port, host, s.world.port)})
			if strings.HasPrefix(r.Text(), "HTTP/1.1 200") && strings.Contains(r.Text(), `"Server"`) {
				t.Errorf("CONNECT %q: %q", host, clip(r.Text()))
			}
		}
		s.world.untouched(t, evilHost, innerHost, goodHost)
	}},
	{"private-address-of-a-listed-name", "8 9 10 11 133 134 A15", func(t *testing.T, s *suite) {
		s.world.control(t, innerHost)
		in := s.cage(t, allow(innerHost))
		in.blocked(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", innerHost, "/")}), "")
		in.blocked(in.ask(wire.Ask{Do: "http", Via: "direct", URL: s.world.url("http", innerHost, "/")}), "")
		s.world.untouched(t, innerHost)
		// The positive control: the entry itself says that it is private.
		in = s.cage(t, allow(fmt.Sprintf("{host: %s, ports: [%d], private: true}", innerHost, s.world.port)))
		in.arrived(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", innerHost, "/")}), innerHost)
	}},
	{"port-of-a-listed-name", "6 27 B2", func(t *testing.T, s *suite) {
		_, port, _ := strings.Cut(s.world.tcp.addr, ":")
		in := s.cage(t)
		r := in.works(wire.Ask{Do: "raw", Network: "tcp", Addr: in.proxy(), Data: fmt.Appendf(nil, "CONNECT %s:%s HTTP/1.1\r\nHost: %s:%s\r\n\r\nSSH-2.0-x\r\n", goodHost, port, goodHost, port)})
		if strings.Contains(r.Text(), "stolen") {
			t.Errorf("CONNECT to a port that is not listed: %q", clip(r.Text()))
		}
		in.blocked(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: "http://" + goodHost + ":" + port + "/"}), "")
		s.world.tcp.silent(t, "tcp")
	}},
	{"redirects-are-not-followed", "A16", func(t *testing.T, s *suite) {
		in := s.cage(t)
		r := in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", goodHost, "/redirect?to="+s.world.url("https", evilHost, "/"))})
		if r.Status != 302 {
			t.Errorf("the agent got %d %s", r.Status, r.Err)
		}
		s.world.untouched(t, evilHost)
	}},
	{"second-request-on-a-connection", "A8 2", func(t *testing.T, s *suite) {
		in := s.cage(t)
		two := fmt.Sprintf("GET /first HTTP/1.1\r\nHost: %s\r\n\r\nGET /second HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", s.world.at(goodHost), s.world.at(evilHost))
		r := in.works(wire.Ask{Do: "raw", Open: true, Network: "tcp", Addr: s.world.at("203.0.113.1"), Data: []byte(two)})
		if !strings.HasPrefix(r.Text(), "HTTP/1.1 200") || strings.Count(r.Text(), "HTTP/1.1 200") != 1 {
			t.Errorf("the agent got %q", clip(r.Text()))
		}
		s.world.untouched(t, evilHost)
		if got := s.world.servers[goodHost].requests(); len(got) != 1 || got[0].URI != "/first" {
			t.Errorf("%s received %+v", goodHost, got)
		}
	}},
	{"smuggling-shapes", "A8", func(t *testing.T, s *suite) {
		in := s.cage(t)
		at := s.world.at(goodHost)
		hidden := "GET /smuggled HTTP/1.1\r\nHost: " + s.world.at(evilHost) + "\r\n\r\n"
		shapes := map[string]string{
			"cl-and-te":    "POST / HTTP/1.1\r\nHost: " + at + "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
			"two-cl":       "POST / HTTP/1.1\r\nHost: " + at + "\r\nContent-Length: 0\r\nContent-Length: " + fmt.Sprint(len(hidden)) + "\r\n\r\n" + hidden,
			"cl-list":      "POST / HTTP/1.1\r\nHost: " + at + "\r\nContent-Length: 0, 5\r\n\r\n" + hidden,
			"te-obfuscate": "POST / HTTP/1.1\r\nHost: " + at + "\r\nTransfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\n" + hidden,
			"te-space":     "POST / HTTP/1.1\r\nHost: " + at + "\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden,
			"two-hosts":    "GET / HTTP/1.1\r\nHost: " + at + "\r\nHost: " + s.world.at(evilHost) + "\r\n\r\n",
			"no-host":      "GET / HTTP/1.1\r\n\r\n",
			"bare-lf":      "GET / HTTP/1.1\nHost: " + at + "\n\n" + hidden,
			"obs-fold":     "GET / HTTP/1.1\r\nHost: " + at + "\r\nX: a\r\n b\r\n\r\n",
			"huge-chunk":   "POST / HTTP/1.1\r\nHost: " + at + "\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n" + hidden,
			"nul":          "GET / HTTP/1.1\r\nHost: " + at + "\r\nX: a\x00b\r\n\r\n",
			"huge-header":  "GET / HTTP/1.1\r\nHost: " + at + "\r\nX: " + strings.Repeat("a", 2<<20) + "\r\n\r\n",
		}
		for name, bytes := range shapes {
			t.Run(name, func(t *testing.T) {
				s.world.reset()
				r := in.with(t).ask(wire.Ask{Do: "raw", Open: true, Network: "tcp", Addr: s.world.at("203.0.113.1"), Data: []byte(bytes)})
				if strings.Contains(r.Text(), " 200 ") {
					t.Errorf("the agent got %q", clip(r.Text()))
				}
				for _, got := range s.world.servers[goodHost].requests() {
					t.Errorf("%s received %+v", goodHost, got)
				}
				s.world.untouched(t, evilHost)
			})
		}
		// The gateway lives.
		in.arrived(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", goodHost, "/")}), goodHost)
	}},
	{"upgrade-other-than-websocket", "A9 A11", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, h := range []string{"h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", "tcp", "TLS/1.0"} {
			r := in.works(wire.Ask{Do: "raw", Open: true, Network: "tcp", Addr: s.world.at("203.0.113.1"), Data: fmt.Appendf(nil,
				"GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: %s\r\n\r\n", s.world.at(goodHost), h)})
			if strings.Contains(r.Text(), " 101 ") {
				t.Errorf("upgrade to %q: %q", h, clip(r.Text()))
			}
		}
		for _, got := range s.world.servers[goodHost].requests() {
			if got.Header.Get("Upgrade") != "" {
				t.Errorf("the server was asked to upgrade: %+v", got.Header)
			}
		}
	}},
	{"h2-preface-in-the-clear", "A11 26", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.ask(wire.Ask{Do: "raw", Network: "tcp", Addr: s.world.at("203.0.113.1"), Data: []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")})
		s.world.untouched(t, goodHost, evilHost)
	}},
	{"forged-address", "A1", func(t *testing.T, s *suite) {
		// SOCKS is spoken by nobody here, whatever the port.
		in := s.cage(t)
		for _, hello := range []string{"\x05\x01\x00", "\x04\x01\x00\x50\x7f\x00\x00\x0c\x00"} {
			r := in.ask(wire.Ask{Do: "raw", Network: "tcp", Addr: in.proxy(), Data: []byte(hello)})
			if strings.HasPrefix(r.Text(), "\x05") || strings.HasPrefix(r.Text(), "\x00\x5a") {
				t.Errorf("SOCKS was answered: %q", r.Text())
			}
		}
		s.world.untouched(t, goodHost, evilHost)
	}},
	{"upstream-certificate-is-verified", "1 2", func(t *testing.T, s *suite) {
		// The same, with a gateway that does not know the servers' authority.
		in := s.cage(t, func(set *setup) { set.spec.Name = "no-ca" }, withoutCA())
		r := in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", goodHost, "/")})
		if r.Status != 502 || !strings.Contains(r.Text(), "upstream_error") || !strings.Contains(r.Text(), "certificate") {
			t.Errorf("the agent got %d %q", r.Status, clip(r.Text()))
		}
		in.records.await(t, "the failed connection", func(r audit.Record) bool { return r.Kind == audit.KindUpstream && r.Host == goodHost })
		if got := s.world.servers[goodHost].requests(); len(got) > 0 {
			t.Errorf("the server received %+v", got)
		}
	}},
}

// withoutCA leaves the authority of the servers out of the config.
func withoutCA() option { return func(s *setup) { s.noCA = true } }

// proxy is where HTTP_PROXY of the cage points.
func (i *inside) proxy() string {
	i.t.Helper()
	for _, kv := range i.works(wire.Ask{Do: "env"}).List {
		if v, ok := strings.CutPrefix(kv, "HTTP_PROXY=http://"); ok {
			return strings.TrimSuffix(v, "/")
		}
	}
	i.t.Fatal("the cage has no HTTP_PROXY")
	return ""
}
