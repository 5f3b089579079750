//go:build linux

// Command probe is the agent of the conformance suite. It is static and needs
// no tool of whatever file system it finds itself in. It does what it is told,
// honest or not, and reports what came of it.
//
//	probe serve            actions from standard input, replies to standard output
//	probe one ASK          a single action, given as JSON
//	probe exit N           ends with exit code N
//	probe signal N         ends by signal N
//	probe flood N          writes N bytes to standard output
//	probe wait             says "ready", ends with code 43 on SIGTERM and 44 on SIGINT
//	probe deaf             says "ready", and ends on no signal that can be ignored
//	probe daemon MARK      leaves a process behind that has left the session, says its pid
//	probe block MARK       never ends
//	probe touch FILE       makes a file
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

func main() {
	if len(os.Args) < 2 {
		fail("no mode")
	}
	arg := ""
	if len(os.Args) > 2 {
		arg = os.Args[2]
	}
	switch os.Args[1] {
	case "serve":
		serve()
	case "one":
		var a wire.Ask
		if err := json.Unmarshal([]byte(arg), &a); err != nil {
			fail(err.Error())
		}
		say(do(a))
	case "exit":
		os.Exit(number(arg))
	case "signal":
		signal.Reset()
		_ = syscall.Kill(os.Getpid(), syscall.Signal(number(arg)))
		block() // the signal ends us
	case "flood":
		flood(number(arg))
	case "wait":
		wait()
	case "deaf":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		fmt.Println("ready")
		block()
	case "daemon":
		daemon(arg)
	case "block":
		block()
	case "touch":
		if err := os.WriteFile(arg, nil, 0o600); err != nil {
			fail(err.Error())
		}
	default:
		fail("unknown mode " + os.Args[1])
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, "probe: "+why)
	os.Exit(99)
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		fail(err.Error())
	}
	return n
}

func serve() {
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var a wire.Ask
		if err := json.Unmarshal(line, &a); err != nil {
			fail(err.Error())
		}
		if a.Child {
			say(inChild(a))
			continue
		}
		say(do(a))
	}
}

func say(r wire.Reply) {
	b, err := json.Marshal(r)
	if err != nil {
		fail(err.Error())
	}
	os.Stdout.Write(append(b, '\n'))
}

func do(a wire.Ask) wire.Reply {
	action, ok := actions[a.Do]
	if !ok {
		fail("unknown action " + a.Do)
	}
	return action(a)
}

// inChild does a thing that may end the process that does it.
func inChild(a wire.Ask) wire.Reply {
	a.Child = false
	ask, err := json.Marshal(a)
	if err != nil {
		return failed(err)
	}
	c := exec.Command(os.Args[0], "one", string(ask))
	out, err := c.Output()
	var r wire.Reply
	if json.Unmarshal(bytes.TrimSpace(out), &r) == nil {
		return r
	}
	if err == nil {
		return wire.Reply{Err: "the child said nothing"}
	}
	r = failed(err)
	if ws, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		r.Errno = unix.SignalName(ws.Signal())
	}
	return r
}

func flood(n int) {
	w := bufio.NewWriterSize(os.Stdout, 1<<16)
	_, err := io.CopyN(w, repeat{}, int64(n))
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		fail(err.Error())
	}
}

type repeat struct{}

func (repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func wait() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("ready")
	if <-c == syscall.SIGTERM {
		os.Exit(43)
	}
	os.Exit(44)
}

// block never ends. It must not be a deadlock that the runtime notices.
func block() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGWINCH)
	for {
		_ = syscall.Pause()
	}
}

func daemon(mark string) {
	c := exec.Command(os.Args[0], "block", mark)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		fail(err.Error())
	}
	fmt.Println(strings.TrimSpace(strconv.Itoa(c.Process.Pid)))
}
