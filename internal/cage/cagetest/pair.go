//go:build linux

package cagetest

import (
	"testing"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

// both starts two cages side by side with opposite lists.
func both(t *testing.T, s *suite) (one, two *inside) {
	t.Helper()
	return s.cage(t, nothing(), allow(goodHost)), s.cage(t, nothing(), allow(evilHost))
}

var pairChecks = []check{
	{"each-has-its-own-list", "31 18-mesh", func(t *testing.T, s *suite) {
		one, two := both(t, s)
		for _, w := range ways {
			t.Run(w.name, func(t *testing.T) {
				w.needs(t)
				one, two := one.with(t), two.with(t)
				one.arrived(one.ask(w.request(s, goodHost, "/")), goodHost)
				one.blocked(one.ask(w.request(s, evilHost, "/")), "domain not in allowlist")
				two.arrived(two.ask(w.request(s, evilHost, "/")), evilHost)
				two.blocked(two.ask(w.request(s, goodHost, "/")), "domain not in allowlist")
			})
		}
	}},
	{"records-are-not-mixed", "138", func(t *testing.T, s *suite) {
		one, two := both(t, s)
		one.arrived(one.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", goodHost, "/")}), goodHost)
		two.arrived(two.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", evilHost, "/")}), evilHost)
		for _, r := range one.records.snapshot() {
			if r.Host == evilHost {
				t.Errorf("the first cage's audit has %+v", r)
			}
		}
	}},
	{"one-cannot-reach-the-other", "31 B9 35", func(t *testing.T, s *suite) {
		one, two := both(t, s)
		// A server in one cage is nobody in the other, and the same port is
		// free there.
		one.works(wire.Ask{Do: "bind", Addr: "127.0.0.1:7777"})
		two.refused(wire.Ask{Do: "dial", Network: "tcp", Addr: "127.0.0.1:7777"}, "ECONNREFUSED")
		two.works(wire.Ask{Do: "bind", Addr: "127.0.0.1:7777"})
		if one.works(wire.Ask{Do: "readlink", Path: "/proc/self/ns/net"}).Text() == two.works(wire.Ask{Do: "readlink", Path: "/proc/self/ns/net"}).Text() {
			t.Error("two cages share a network")
		}
		for _, ns := range []string{"pid", "mnt", "ipc", "uts", "user", "cgroup"} {
			if one.works(wire.Ask{Do: "readlink", Path: "/proc/self/ns/" + ns}).Text() == two.works(wire.Ask{Do: "readlink", Path: "/proc/self/ns/" + ns}).Text() {
				t.Errorf("two cages share a namespace: %s", ns)
			}
		}
	}},
	{"authorities-do-not-vouch-for-each-other", "74", func(t *testing.T, s *suite) {
		// The certificate of one cage's gateway is not trusted in another.
		one, two := both(t, s)
		for _, in := range []*inside{one, two} {
			other := one
			if in == one {
				other = two
			}
			r := in.ask(wire.Ask{Do: "holds", Path: "/etc/ssl/certs/ca-certificates.crt", Data: other.gw.CACertificate()})
			if r.OK() {
				t.Error("a cage trusts another cage's authority")
			}
			if r := in.ask(wire.Ask{Do: "holds", Path: "/etc/ssl/certs/ca-certificates.crt", Data: in.gw.CACertificate()}); !r.OK() {
				t.Errorf("the control failed: %s", r.Err)
			}
		}
	}},
	{"files-are-not-shared", "75", func(t *testing.T, s *suite) {
		one, two := both(t, s)
		for _, p := range []string{"/tmp/left", "/dev/shm/left", "/run/left", s.home + "/left"} {
			if one.ask(wire.Ask{Do: "write", Path: p, Data: []byte("x")}).OK() {
				two.refused(wire.Ask{Do: "read", Path: p}, "ENOENT")
			}
		}
		two.refused(wire.Ask{Do: "list", Path: one.dir})
	}},
	{"one-ends-the-other-goes-on", "18-mesh", func(t *testing.T, s *suite) {
		one, two := both(t, s)
		one.end()
		two.arrived(two.ask(wire.Ask{Do: "http", Via: "direct", URL: s.world.url("https", evilHost, "/")}), evilHost)
	}},
	{"same-name-twice", "103", func(t *testing.T, s *suite) {
		name := withSpec(func(spec *cage.Spec) { spec.Name = "twin" })
		one, two := s.cage(t, name), s.cage(t, name)
		one.works(wire.Ask{Do: "cwd"})
		two.works(wire.Ask{Do: "cwd"})
	}},
}
