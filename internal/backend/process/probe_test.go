package process

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sort"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// probeArg makes the test binary a probe: a small static program that looks
// at the cage from inside and needs no tools of the host.
const probeArg = "agentcage-probe"

var probes = map[string]func([]string) error{
	"fds": probeFDs, "dial": probeDial, "udp": probeUDP, "env": probeEnv, "query": probeQuery, "sleep": probeSleep,
	"escape": probeEscape, "raw": probeRaw,
}

func probe(name string, args []string) int {
	f, ok := probes[name]
	if !ok {
		fmt.Println("no such probe")
		return 99
	}
	if err := f(args); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

func probeFDs([]string) error {
	for fd := 0; fd < 1024; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && (fd < 3 || flags&unix.FD_CLOEXEC == 0) {
			fmt.Println("fd", fd)
		}
	}
	return nil
}

// probeDial connects to each address and prints what the other end says.
func probeDial(args []string) error {
	for _, a := range args {
		c, err := net.Dial("tcp", a)
		if err != nil {
			fmt.Println(a, "refused:", err)
			continue
		}
		b, err := io.ReadAll(c)
		fmt.Printf("%s answered %q %v\n", a, strings.TrimSpace(string(b)), err)
		c.Close()
	}
	return nil
}

func probeUDP(args []string) error {
	for _, a := range args {
		c, err := net.Dial("udp", a)
		if err != nil {
			fmt.Println(a, "refused:", err)
			continue
		}
		c.Write([]byte("hello"))
		_, err = c.Read(make([]byte, 10))
		fmt.Println(a, "refused:", err)
		c.Close()
	}
	return nil
}

func probeEnv([]string) error {
	env := os.Environ()
	sort.Strings(env)
	fmt.Println(strings.Join(env, "\n"))
	return nil
}

// probeQuery asks a DNS server at an address of its choice and tells who
// answered.
func probeQuery(args []string) error {
	for _, server := range args {
		m := new(dns.Msg)
		m.SetQuestion("example.com.", dns.TypeA)
		b, err := m.Pack()
		if err != nil {
			return err
		}
		c, err := net.ListenPacket("udp", ":0") // unconnected: takes an answer from anybody
		if err != nil {
			return err
		}
		to, err := net.ResolveUDPAddr("udp", server)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(b, to); err != nil {
			return err
		}
		buf := make([]byte, 512)
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if err := m.Unpack(buf[:n]); err != nil {
			return err
		}
		fmt.Printf("%s answered from %s with %v\n", server, from, m.Answer[0].(*dns.A).A)
		r, _, err := (&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetQuestion("example.com.", dns.TypeA), server)
		fmt.Println(server, "stream", r != nil, err)
	}
	return nil
}

// probeSleep waits for its end, and says so when it gets a signal.
func probeSleep([]string) error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGTERM)
	fmt.Println("ready")
	fmt.Println("got", <-c)
	return nil
}

// probeEscape looks for the host through its standard input.
func probeEscape([]string) error {
	fd, err := unix.Openat(0, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	fmt.Println("openat", fd, err)
	return nil
}

func probeRaw([]string) error {
	for _, s := range [][3]int{{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, {unix.AF_PACKET, unix.SOCK_RAW, 0}, {unix.AF_VSOCK, unix.SOCK_STREAM, 0}, {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP}} {
		fd, err := unix.Socket(s[0], s[1], s[2])
		fmt.Println("socket", s, fd >= 0, err)
	}
	return nil
}
