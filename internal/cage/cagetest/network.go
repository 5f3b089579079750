//go:build linux

package cagetest

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	must(t, err)
	return port
}

var netChecks = []check{
	{"other-tcp-ports-refused", "27 32 B2 B3", func(t *testing.T, s *suite) {
		in := s.cage(t)
		port := portOf(t, s.world.tcp.addr)
		addrs := []string{"93.184.215.14:" + port, "127.0.0.1:" + port, "10.0.0.1:22", "192.168.1.1:3389", "203.0.113.1:8443", "203.0.113.1:1"}
		for _, a := range addrs {
			in.refused(wire.Ask{Do: "dial", Network: "tcp", Addr: a}, "ECONNREFUSED")
		}
		in.records.await(t, "the refused connection", func(r audit.Record) bool {
			return r.Kind == audit.KindTCP && r.Decision == "blocked" && r.Host == "203.0.113.1" && r.Port == 8443
		})
		s.world.tcp.silent(t, "tcp")
	}},
	{"refusal-names-the-host", "27 147", func(t *testing.T, s *suite) {
		in := s.cage(t)
		addr := in.works(wire.Ask{Do: "look", Name: goodHost}).List[0]
		in.refused(wire.Ask{Do: "dial", Network: "tcp", Addr: net.JoinHostPort(addr, "22")}, "ECONNREFUSED")
		in.records.await(t, "a refused connection to "+goodHost, func(r audit.Record) bool {
			return r.Kind == audit.KindTCP && r.Host == goodHost && r.Port == 22
		})
	}},
	{"host-loopback", "32 B9", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.refused(wire.Ask{Do: "dial", Network: "tcp", Addr: s.world.tcp.addr, Data: []byte("leak")}, "ECONNREFUSED")
		s.world.tcp.silent(t, "tcp")
		if s.world.tcp6 != nil {
			in.refused(wire.Ask{Do: "dial", Network: "tcp", Addr: s.world.tcp6.addr, Data: []byte("leak")}, "ECONNREFUSED")
			s.world.tcp6.silent(t, "tcp")
		}
		// On a port that reaches the gateway, the host's own service is
		// still not what answers.
		in.blocked(in.ask(wire.Ask{Do: "http", Via: "direct", URL: fmt.Sprintf("http://%s/", s.world.at(addresses[innerHost]))}), "")
		s.world.untouched(t, innerHost)
	}},
	{"lan-and-own-address", "32", func(t *testing.T, s *suite) {
		if s.lan == "" {
			t.Skip("needs LAN: this machine has only loopback")
		}
		service := tcpCanary(t, "tcp", net.JoinHostPort(s.lan, "0"))
		in := s.cage(t)
		in.refused(wire.Ask{Do: "dial", Network: "tcp", Addr: service.addr, Data: []byte("leak")}, "ECONNREFUSED")
		service.silent(t, "tcp")
	}},
	{"metadata-address", "9 32", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, u := range []string{"http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/", "http://100.100.100.200/", "http://metadata.google.internal/", "http://[fd00:ec2::254]/"} {
			if strings.Contains(u, "[") && !haveIPv6() {
				continue
			}
			in.blocked(in.ask(wire.Ask{Do: "http", Via: "direct", URL: u}), "")
			in.blocked(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: u}), "")
		}
	}},
	{"not-http-on-web-ports", "26 D6", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, port := range []string{"80", "443", fmt.Sprint(s.world.port)} {
			for name, bytes := range map[string]string{"ssh": "SSH-2.0-OpenSSH_9.2\r\n", "smtp": "EHLO x\r\n", "bytes": "\x00\x01\x02leak\r\n\r\n", "tls-broken": "\x16\x03\x01\x00\x05leaks", "postgres": "\x00\x00\x00\x08\x04\xd2\x16\x2f", "nothing": ""} {
				r := in.ask(wire.Ask{Do: "raw", Network: "tcp", Addr: "203.0.113.9:" + port, Data: []byte(bytes)})
				if strings.Contains(r.Text(), "200 OK") || strings.Contains(r.Text(), "stolen") {
					t.Errorf("%s on port %s was answered with %q", name, port, clip(r.Text()))
				}
			}
		}
		in.records.await(t, "bytes that are no HTTP", func(r audit.Record) bool { return r.Kind == audit.KindProtocol && r.Decision == "blocked" })
		s.world.untouched(t, goodHost, evilHost, innerHost)
	}},
	{"not-http-inside-connect", "6 26 D6", func(t *testing.T, s *suite) {
		in := s.cage(t)
		r := in.ask(wire.Ask{Do: "raw", Network: "tcp", Addr: in.proxy(), Data: fmt.Appendf(nil,
			"CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\nSSH-2.0-OpenSSH_9.2\r\n", s.world.at(goodHost))})
		if strings.Contains(r.Text(), "stolen") {
			t.Errorf("the tunnel answered %q", clip(r.Text()))
		}
		s.world.untouched(t, goodHost, evilHost)
	}},
	{"udp", "27 B2", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.refused(wire.Ask{Do: "udp", Addr: s.world.udp.addr, Data: []byte("leak")}, "ECONNREFUSED")
		for _, a := range []string{"203.0.113.9:443", "203.0.113.9:123", "8.8.8.8:5353", "203.0.113.9:4500"} { // QUIC, NTP, DNS elsewhere, IPsec
			in.refused(wire.Ask{Do: "udp", Addr: a, Data: []byte("leak")}, "ECONNREFUSED")
		}
		if haveIPv6() {
			in.refused(wire.Ask{Do: "udp", Addr: "[2001:db8::9]:443", Data: []byte("leak")}, "ECONNREFUSED")
		}
		in.records.await(t, "the refused datagram", func(r audit.Record) bool {
			return r.Kind == audit.KindUDP && r.Decision == "blocked" && r.Host == "203.0.113.9" && r.Port == 443
		})
		s.world.udp.silent(t, "udp")
	}},
	{"ipv6-default-deny", "33 B2", func(t *testing.T, s *suite) {
		if !haveIPv6() {
			t.Skip("needs IPv6: this machine has none")
		}
		in := s.cage(t)
		for _, a := range []string{"[2001:db8::1]:22", "[fe80::1]:22", "[::1]:22", "[::ffff:10.0.0.1]:22"} {
			in.refused(wire.Ask{Do: "dial", Network: "tcp", Addr: a})
		}
	}},
	{"icmp", "33", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, n := range [][]int{
			{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
			{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
			{unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
			{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6},
		} {
			in.refused(wire.Ask{Do: "socket", Nums: n})
		}
	}},
	{"raw-packet-and-other-sockets", "27 33 36", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, n := range [][]int{
			{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW},
			{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP},
			{unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW},
			{unix.AF_PACKET, unix.SOCK_RAW, 0x0300},
			{unix.AF_PACKET, unix.SOCK_DGRAM, 0x0300},
			{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP},
			{unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP},
			{unix.AF_INET, unix.SOCK_DCCP, 33},
			{unix.AF_VSOCK, unix.SOCK_STREAM, 0},
			{unix.AF_BLUETOOTH, unix.SOCK_RAW, 0},
			{unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
			{unix.AF_CAN, unix.SOCK_RAW, 1},
			{unix.AF_TIPC, unix.SOCK_STREAM, 0},
			{unix.AF_XDP, unix.SOCK_RAW, 0},
			{unix.AF_RDS, unix.SOCK_SEQPACKET, 0},
			{unix.AF_SMC, unix.SOCK_STREAM, 0},
			{unix.AF_KCM, unix.SOCK_DGRAM, 0},
			{unix.AF_NFC, unix.SOCK_SEQPACKET, 0},
			{unix.AF_IB, unix.SOCK_SEQPACKET, 0},
			{unix.AF_PHONET, unix.SOCK_DGRAM, 0},
			{unix.AF_X25, unix.SOCK_SEQPACKET, 0},
			{unix.AF_AX25, unix.SOCK_DGRAM, 0},
			{unix.AF_MPLS, unix.SOCK_RAW, 0},
			{unix.AF_KEY, unix.SOCK_RAW, 2},
			{unix.AF_PPPOX, unix.SOCK_STREAM, 0},
		} {
			in.refused(wire.Ask{Do: "socket", Nums: n})
		}
		in.records.await(t, "the refused socket", func(r audit.Record) bool { return r.Kind == audit.KindSocket && r.Decision == "blocked" })
		// The positive control: sockets that programs need.
		for _, n := range [][]int{{unix.AF_INET, unix.SOCK_STREAM, 0}, {unix.AF_INET, unix.SOCK_DGRAM, 0}, {unix.AF_UNIX, unix.SOCK_STREAM, 0}, {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}} {
			in.works(wire.Ask{Do: "socket", Nums: n})
		}
	}},
	{"vsock-to-the-hypervisor", "36", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, cid := range []int{unix.VMADDR_CID_HOST, unix.VMADDR_CID_LOCAL} {
			in.refused(wire.Ask{Do: "vsock", Nums: []int{cid, 22}})
		}
	}},
	{"netlink-writes", "36 B11", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.works(wire.Ask{Do: "dump"}) // reading is what programs do
		in.refused(wire.Ask{Do: "addroute"}, "EPERM", "EACCES")
		in.refused(wire.Ask{Do: "setlink"}, "EPERM", "EACCES")
		for _, proto := range []int{unix.NETLINK_NETFILTER, unix.NETLINK_XFRM, unix.NETLINK_AUDIT, unix.NETLINK_GENERIC, unix.NETLINK_KOBJECT_UEVENT, unix.NETLINK_SOCK_DIAG} {
			in.refused(wire.Ask{Do: "socket", Nums: []int{unix.AF_NETLINK, unix.SOCK_RAW, proto}})
		}
		in.arrived(in.ask(wire.Ask{Do: "http", Via: "direct", URL: s.world.url("https", goodHost, "/")}), goodHost)
	}},
	{"listeners-cannot-be-taken-over", "31 36", func(t *testing.T, s *suite) {
		// An agent that could listen where the gateway does could answer in
		// its place to another program of the same cage.
		in := s.cage(t)
		for _, a := range []string{fmt.Sprintf("0.0.0.0:%d", s.world.port), "127.0.0.1:443", "0.0.0.0:80", in.proxy()} {
			in.refused(wire.Ask{Do: "bind", Addr: a})
		}
		in.works(wire.Ask{Do: "bind", Addr: "127.0.0.1:0"}) // its own servers are its own
	}},
	{"data-path-when-the-agent-starts", "34 92", func(t *testing.T, s *suite) {
		// The first thing that an agent does must work: no retry.
		for range 3 {
			in := s.cage(t)
			in.arrived(in.ask(wire.Ask{Do: "http", Via: "direct", URL: s.world.url("https", goodHost, "/")}), goodHost)
		}
	}},
	{"proxy-of-the-cage-is-not-the-hosts", "31 B9", func(t *testing.T, s *suite) {
		// The port where the cage has its proxy has nobody on the host: a
		// local user cannot use the cage's permissions.
		in := s.cage(t)
		c, err := net.Dial("tcp", in.proxy())
		if err != nil {
			return
		}
		defer c.Close()
		before := len(in.records.snapshot())
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", s.world.url("http", goodHost, "/"), s.world.at(goodHost))
		buf := make([]byte, 12)
		_, _ = c.Read(buf) // somebody else's service, whatever it says
		if len(in.records.snapshot()) != before || strings.HasPrefix(string(buf), "HTTP/1.1 200") && len(s.world.servers[goodHost].requests()) > 0 {
			t.Error("the cage's proxy can be used from the host")
		}
	}},
}
