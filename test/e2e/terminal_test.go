//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/terminal"
)

// screen is a person at a terminal: a PTY with agentcage at the other end.
type screen struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	cmd    *exec.Cmd

	mu   sync.Mutex
	seen bytes.Buffer
	from int // what has been waited for already
	news chan struct{}
}

func newScreen(t *testing.T, b *bench, rows, cols uint16, args ...string) *screen {
	t.Helper()
	master, slave, err := terminal.OpenPTY("/dev/ptmx")
	if err != nil {
		t.Skipf("needs pseudo terminal: %v", err)
	}
	s := &screen{t: t, master: master, slave: slave, news: make(chan struct{})}
	s.resize(rows, cols)
	s.cmd = exec.Command(bin, args...)
	s.cmd.Dir, s.cmd.Env = b.dir, append(b.env, "TERM=xterm")
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, s.cmd.Start())
	go s.read()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it may have ended
		_ = s.cmd.Wait()         // as above
		master.Close()
		slave.Close()
	})
	return s
}

func (s *screen) read() {
	buf := make([]byte, 4096)
	for {
		n, err := s.master.Read(buf)
		s.mu.Lock()
		s.seen.Write(buf[:n])
		close(s.news)
		s.news = make(chan struct{})
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *screen) resize(rows, cols uint16) {
	s.t.Helper()
	must(s.t, unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}))
}

func (s *screen) settings() unix.Termios {
	s.t.Helper()
	got, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	must(s.t, err)
	return *got
}

func (s *screen) press(keys string) {
	s.t.Helper()
	_, err := io.WriteString(s.master, keys)
	must(s.t, err)
}

// await waits until something new matches.
func (s *screen) await(pattern string) {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		s.mu.Lock()
		at := re.FindIndex(s.seen.Bytes()[s.from:])
		if at != nil {
			s.from += at[1]
		}
		all, news := s.seen.String(), s.news
		s.mu.Unlock()
		if at != nil {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			s.t.Fatalf("the screen never showed %q; it has %q", pattern, all)
		}
	}
}

func (s *screen) code() int {
	s.t.Helper()
	var exit *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return s.cmd.ProcessState.ExitCode()
}

func bash(args ...string) []string {
	return append([]string{"run", "-q", "--env", "PS1=ready> ", "--env", "HISTFILE=", "--"}, append([]string{"bash", "--norc", "--noprofile", "--noediting", "-i"}, args...)...)
}

// TestTerminal is bash in a cage as a person uses it: window size, colours,
// Ctrl-C, job control, and a terminal that is as it was afterwards (rule 108).
func TestTerminal(t *testing.T) {
	b := newBench(t)
	b.env = append(b.env, "PS1=ready> ")
	s := newScreen(t, b, 40, 100, bash()...)
	before := s.settings()
	s.await("ready> ")
	s.press("stty size; tty; echo $TERM\r")
	s.await("40 100\r\n/dev/pts/[0-9]+\r\n")
	s.await("xterm")
	s.resize(30, 90)
	s.await("ready> ")
	s.press("until [ \"$(stty size)\" = '30 90' ]; do :; done; echo re''sized\r")
	s.await("resized")

	s.await("ready> ")
	s.press("sleep 1000; echo code $?\r")
	s.await("sleep 1000")
	s.awaitProcess("sleep")
	s.press("\x03")
	s.await("ready> ")

	s.press("sleep 1001\r")
	s.await("sleep 1001")
	s.awaitProcess("sleep")
	s.press("\x1a")
	s.await("Stopped")
	s.press("jobs; bg; kill %1; echo wa''ited\r")
	s.await("waited")
	s.press("printf '\\033[31mred\\033[0m\\n'\r")
	s.await("\x1b\\[31mred\x1b\\[0m")
	s.press("exit 5\r")
	if code := s.code(); code != 5 {
		t.Errorf("exit code %d", code)
	}
	if after := s.settings(); after != before {
		t.Errorf("the terminal was left as %+v, it was %+v", after, before)
	}
}

// awaitProcess waits until the terminal's foreground belongs to somebody else
// than the shell: keys pressed before would reach the wrong program.
func (s *screen) awaitProcess(name string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for ctx.Err() == nil {
		if out, err := exec.CommandContext(ctx, "ps", "-eo", "args").Output(); err == nil && strings.Contains(string(out), "\n"+name+" 100") {
			return
		}
	}
	s.t.Fatalf("%s never ran", name)
}

// TestTerminalCtrlC: the command gets it, once, and its code is ours.
func TestTerminalCtrlC(t *testing.T) {
	b := newBench(t)
	s := newScreen(t, b, 24, 80, "run", "--", "bash", "-c", "trap 'echo caught; exit 9' INT; echo started; while :; do read -t 1 x; done")
	s.await("started")
	s.press("\x03")
	s.await("caught")
	if code := s.code(); code != 9 {
		t.Errorf("exit code %d", code)
	}
}

// TestTerminalKilled: the terminal is usable when agentcage was told to end.
func TestTerminalKilled(t *testing.T) {
	b := newBench(t)
	s := newScreen(t, b, 24, 80, "run", "--", "bash", "-c", "stty raw -echo; echo started; exec sleep 1002")
	before := s.settings()
	s.await("started")
	must(t, s.cmd.Process.Signal(syscall.SIGTERM))
	if code := s.code(); code != 143 {
		t.Errorf("exit code %d", code)
	}
	if after := s.settings(); after != before {
		t.Errorf("the terminal was left as %+v, it was %+v", after, before)
	}
}

// TestTerminalTrust: a person is asked about a new cage.yaml, and told what it
// does; anything but yes is no (rule 132).
func TestTerminalTrust(t *testing.T) {
	b, site := onSite(t, good)
	_ = site
	s := newScreen(t, b, 24, 80, "run", "--", "echo", "the command ran")
	s.await(`hosts it opens +good\.test`)
	s.await(`\[y/N\] `)
	s.press("\r")
	s.await("error: cannot use cage.yaml")
	if code := s.code(); code != 2 {
		t.Errorf("exit code %d", code)
	}
	s = newScreen(t, b, 24, 80, "run", "--", "echo", "the command ran")
	s.await(`\[y/N\] `)
	s.press("y\r")
	s.await("\nthe command ran")
	if code := s.code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	b.agentcage("run", "--", "echo", "again").ok(t, "again")
}

// TestTerminalPartly: output goes to a pipe while the keys are still the
// terminal's, and the terminal is in order afterwards.
func TestTerminalPartly(t *testing.T) {
	// Output to a pipe, input from the terminal: as in `agentcage run … | less`.
	b := newBench(t)
	b.env = append(b.env, "AGENTCAGE="+bin)
	saved := bin
	defer func() { bin = saved }()
	bin = "/bin/sh"
	s := newScreen(t, b, 24, 80, "-c", `"$AGENTCAGE" run -q -- seq 1 5 | while read x; do echo "line $x"; done; stty -a | grep -o ' icanon'`)
	s.await("line 5")
	s.await(" icanon")
	if code := s.code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
