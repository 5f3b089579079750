//go:build linux

// Command probe is what the tests of container mode run in the place of an
// agent or of podman. It is static and needs no file beside it.
//
//	probe show ARG…        its arguments and environment, as JSON
//	probe wait             until SIGTERM; says so to the service manager (sd_notify(3)) first
//	probe dial NET ADDR    what answers there
//	probe proxy --listen IP:PORT …   says to each connection which address it asked for
//	probe dns …            waits, as above
//	probe cat FILE…        what is in files
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/agentcage/agentcage/internal/backend/podman/intercept"
)

func main() {
	if len(os.Args) < 2 {
		fail("no mode")
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "show":
		if err := json.NewEncoder(os.Stdout).Encode(map[string][]string{"args": args, "env": os.Environ()}); err != nil {
			fail(err.Error())
		}
	case "wait", "dns":
		ready()
		untilTerm()
	case "cat":
		for _, name := range args {
			b, err := os.ReadFile(name)
			if err != nil {
				fail(err.Error())
			}
			os.Stdout.Write(b)
		}
	case "dial":
		fmt.Fprintln(os.Stdout, dial(args[0], args[1]))
	case "proxy":
		i := slices.Index(args, "--listen")
		if i < 0 || i+1 == len(args) {
			fail("no --listen")
		}
		proxy(netip.MustParseAddrPort(args[i+1]))
	default:
		fail("no such mode")
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, "probe:", why)
	os.Exit(2)
}

func untilTerm() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
}

func ready() {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "READY=1"); err != nil {
		fail(err.Error())
	}
}

func dial(network, addr string) string {
	const patience = 3 * time.Second
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return "error: " + err.Error()
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "error: " + err.Error()
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "error: " + err.Error()
	}
	b := make([]byte, 1024)
	n, err := c.Read(b)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b[:n])
}

// proxy is the gateway's side of a cage's network.
func proxy(own netip.AddrPort) {
	hops, err := nextHops(own.Addr())
	if err != nil {
		fail(err.Error())
	}
	if err := intercept.Start(own.Addr(), hops...); err != nil {
		fail(err.Error())
	}
	for _, addr := range []string{own.String(), ":80", ":443"} {
		listen(addr)
	}
	ready()
	untilTerm()
}

// nextHops are the addresses 1 of the subnets of the interface that has own.
func nextHops(own netip.Addr) ([]netip.Addr, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		var hops []netip.Addr
		found := false
		for _, a := range addrs {
			p := netip.MustParsePrefix(a.String())
			found = found || p.Addr() == own
			if !p.Addr().IsLinkLocalUnicast() {
				hops = append(hops, p.Masked().Addr().Next())
			}
		}
		if found {
			return hops, nil
		}
	}
	return nil, errors.New("no interface has the address")
}

func listen(addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		fail(err.Error())
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				fail(err.Error())
			}
			fmt.Fprintf(c, "you asked for %v, from %v", c.LocalAddr(), c.RemoteAddr())
			c.Close()
		}
	}()
}
