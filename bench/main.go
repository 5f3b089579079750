// Command bench puts the same load on this gateway and on other
// TLS-intercepting proxies, in one run and in turns, because a shared machine
// is never equally fast for two minutes. It prints a table with the ratios to
// goproxy, which inspects nothing, and whether the project's targets are met.
//
// Everything it talks to is a child of its own on loopback, and every load is
// bounded in time.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// settings are how long and how much.
type settings struct {
	Rounds   int           // turns of every contender
	Slice    time.Duration // of one throughput scenario in one turn
	Download int64         // bytes
	Large    int64         // bytes of the download during which memory is watched
	Sockets  int           // idle WebSockets
	Starts   int           // of a caged `true`
	Paced    time.Duration // of one turn at a thousand requests a second
	Others   bool          // squid and mitmproxy too, where they are installed
}

var (
	full  = settings{Rounds: 5, Slice: 700 * time.Millisecond, Download: 100 << 20, Large: 1 << 30, Sockets: 1000, Starts: 50, Paced: 3 * time.Second, Others: true}
	short = settings{Rounds: 3, Slice: 350 * time.Millisecond, Download: 100 << 20, Large: 1 << 30, Sockets: 1000, Starts: 15, Paced: time.Second}
)

func main() {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "serve-upstream":
			exit(serveUpstream(os.Args[2]))
		case "serve-goproxy":
			exit(serveGoproxy(os.Args[2], os.Args[3]))
		}
	}
	binary := flag.String("agentcage", "./agentcage", "the `file` to measure")
	brief := flag.Bool("short", false, "half a minute, without squid and mitmproxy")
	out := flag.String("out", "bench/out", "`directory` of the JSON results")
	write := flag.String("write", "", "also put the table into this Markdown `file`")
	rsa := flag.Bool("goproxy-rsa", false, "give goproxy its built-in RSA authority instead of an ECDSA one")
	flag.Parse()

	s := full
	if *brief {
		s = short
	}
	exit(run(s, *binary, *out, *write, *rsa))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(s settings, binary, out, write string, rsa bool) error {
	raiseFileLimit()
	dir, err := os.MkdirTemp("", "agentcage-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}

	// A bound on the whole, whatever hangs.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()

	lab, err := newLab(ctx, dir)
	if err != nil {
		return err
	}
	defer lab.close()

	contenders := lab.contenders(binary, rsa, s.Others)
	res := newResult(s)
	if err := measureMemory(ctx, lab, contenders, s, res); err != nil {
		return err
	}
	if err := measureTraffic(ctx, lab, contenders, s, res); err != nil {
		return err
	}
	if err := measureOwn(ctx, lab, binary, s, res); err != nil {
		return err
	}
	if err := measureSecrets(ctx, lab, binary, s, res); err != nil {
		return err
	}
	measureStart(ctx, dir, binary, s, res)

	table := res.table()
	fmt.Println()
	fmt.Print(table)
	fmt.Println()
	fmt.Print(res.verdicts())
	if err := save(out, res); err != nil {
		return err
	}
	if write != "" {
		return res.writeMarkdown(write)
	}
	return nil
}

// save keeps the result under its time of day, and as latest.json.
func save(dir string, res *result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	for _, name := range []string{res.Time.UTC().Format("20060102T150405Z") + ".json", "latest.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// raiseFileLimit lets this process and its children hold the idle WebSockets:
// each takes two descriptors in a proxy.
func raiseFileLimit() {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		l.Cur = l.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l) // a low limit shows as a failed dial
	}
}

// progress says what is being measured, on one line of its own.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

func drain(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, 256<<10))
}
