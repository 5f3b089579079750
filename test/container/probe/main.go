// Command probe is what the tests of container mode run in the place of an
// agent or of podman. It is static and needs no file beside it.
//
//	probe show ARG…        its arguments and environment, as JSON
//	probe wait             until SIGTERM; says so to the service manager (sd_notify(3)) first
//	probe dial NET ADDR    what answers there
//	probe listen ADDR…     says to each connection which address it asked for
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
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
	case "wait":
		ready()
		untilTerm()
	case "dial":
		fmt.Println(dial(args[0], args[1]))
	case "listen":
		for _, addr := range args {
			listen(addr)
		}
		ready()
		untilTerm()
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
			fmt.Fprintf(c, "you asked for %v", c.LocalAddr())
			c.Close()
		}
	}()
}
