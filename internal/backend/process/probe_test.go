package process

import (
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// probeArg makes the test binary a probe: a small static program that looks
// at the cage from inside and needs no tools of the host.
const probeArg = "agentcage-probe"

func probe(name string, args []string) int {
	f, ok := map[string]func([]string) error{
		"fds": probeFDs, "dial": probeDial, "udp": probeUDP, "env": probeEnv,
	}[name]
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
