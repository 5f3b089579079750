//go:build linux

package terminal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary plays the host's side and pid 1 of a cage as well.
const roleVar = "TERMINAL_TEST_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleVar) {
	case "":
		// A shell that runs us in the background has had these ignored,
		// and what is ignored is inherited. What is caught is not.
		signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT)
		os.Exit(m.Run())
	case "host":
		err = host(os.Args[1:])
	case "init":
		err = initCage(os.Args[1:])
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "role failed:", err)
		os.Exit(99)
	}
	os.Exit(0)
}

// host is `agentcage run` without the cage: descriptors 3 and 4 of init are
// its reports and its orders.
func host(args []string) error {
	defer RestoreAll()
	lazy := args[0] == "-lazy"
	if lazy || args[0] == "-panic" {
		if !lazy {
			defer func() { recover(); fmt.Println("PANICKED") }()
		}
	}
	command := args
	if strings.HasPrefix(args[0], "-") {
		command = args[1:]
	}
	files := [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	replace, wanted := Replace(files)
	if !wanted {
		return errors.New("no terminal")
	}
	master, slave, err := OpenPTY("/dev/ptmx")
	if err != nil {
		return err
	}
	for i := range files {
		if replace[i] {
			files[i] = slave
		}
	}
	reportR, reportW, _ := os.Pipe()
	orderR, orderW, _ := os.Pipe()
	cmd := exec.Command("/proc/self/exe", command...)
	cmd.Env = append(os.Environ(), roleVar+"=init")
	if lazy {
		cmd.Env = append(cmd.Env, "LAZY=1")
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.ExtraFiles = []*os.File{reportW, orderR, slave}
	if err := cmd.Start(); err != nil {
		return err
	}
	slave.Close()
	reportW.Close()
	orderR.Close()
	c := Config{Master: master, Lazy: lazy}
	if replace[0] {
		c.In = os.Stdin
	}
	if replace[1] {
		c.Out = os.Stdout
	}
	session, err := Start(context.Background(), c)
	if err != nil {
		return err
	}
	defer session.Close()
	if args[0] == "-panic" {
		panic("as asked")
	}
	for lines := bufio.NewScanner(reportR); lines.Scan(); {
		switch lines.Text() {
		case "stopped":
			session.Stopped()
		case "wants":
			session.Take()
		}
		fmt.Fprintln(orderW, "continue")
	}
	session.Drain(context.Background())
	session.Close()
	return cmd.Wait()
}

func initCage(command []string) error {
	report, orders, slave := os.NewFile(3, ""), bufio.NewScanner(os.NewFile(4, "")), os.NewFile(5, "")
	for _, fd := range []int{3, 4, 5} {
		unix.CloseOnExec(fd)
	}
	signal.Ignore(unix.SIGHUP)
	passKeys := CatchKeys()
	var early chan os.Signal // the foreground waits for a key
	if os.Getenv("EARLY") != "" {
		early = make(chan os.Signal, 1)
		signal.Notify(early, unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP)
	}
	if err := Lead(slave); err != nil {
		return err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = ChildAttr(nil)
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	if early != nil {
		<-early
	}
	inForeground := os.Getenv("LAZY") == ""
	if inForeground {
		if err := Foreground(slave, pid); err != nil {
			return err
		}
	}
	passKeys(pid)
	for {
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, unix.WUNTRACED, nil); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return err
		}
		switch {
		case ws.Exited():
			os.Exit(ws.ExitStatus())
		case ws.Signaled():
			os.Exit(128 + int(ws.Signal()))
		case !ws.Stopped():
		case Spurious(slave, pid, ws.StopSignal()):
			unix.Kill(-pid, unix.SIGCONT)
		case !inForeground && ws.StopSignal() == unix.SIGTTIN:
			fmt.Fprintln(report, "wants")
			orders.Scan()
			inForeground = true
			Foreground(slave, pid)
		default:
			fmt.Fprintln(report, "stopped")
			orders.Scan()
			unix.Kill(-pid, unix.SIGCONT)
		}
	}
}

// user is a person at a terminal with an interactive bash.
type user struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	seen   []byte
	shell  *exec.Cmd
	run    string // the host role as a command for the shell
}

func newUser(t *testing.T) *user {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	master, slave, err := OpenPTY("/dev/ptmx")
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	u := &user{t: t, master: master, slave: slave, run: roleVar + "=host " + exe}
	u.size(40, 100)
	u.shell = exec.Command(bash, "--norc", "--noprofile", "--noediting", "-i")
	u.shell.Stdin, u.shell.Stdout, u.shell.Stderr = slave, slave, slave
	u.shell.Env = append(os.Environ(), "PS1=PROMPT> ", "HISTFILE=", "TERM=dumb")
	u.shell.Dir = t.TempDir()
	u.shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := u.shell.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		u.shell.Process.Kill()
		u.shell.Wait()
		slave.Close()
		master.Close()
	})
	u.expect("PROMPT> ")
	return u
}

func (u *user) size(rows, cols uint16) {
	if err := unix.IoctlSetWinsize(int(u.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) keys(s string) {
	u.t.Helper()
	if _, err := u.master.WriteString(s); err != nil {
		u.t.Fatal(err)
	}
}

// expect reads until want and returns what came before it. The time is only a
// guard against a test that hangs.
func (u *user) expect(want string) string {
	u.t.Helper()
	guard := time.Now().Add(20 * time.Second)
	for {
		if before, after, ok := bytes.Cut(u.seen, []byte(want)); ok {
			u.seen = bytes.Clone(after)
			return string(before)
		}
		fds := []unix.PollFd{{Fd: int32(u.master.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(time.Until(guard).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n == 0 || err != nil {
			u.t.Fatalf("no %q in %q (%v)", want, u.seen, err)
		}
		buf := make([]byte, 4096)
		n, err = unix.Read(int(u.master.Fd()), buf)
		if err != nil {
			u.t.Fatalf("no %q in %q: %v", want, u.seen, err)
		}
		u.seen = append(u.seen, buf[:n]...)
	}
}

func (u *user) cooked() bool {
	u.t.Helper()
	m, err := unix.IoctlGetTermios(int(u.slave.Fd()), unix.TCGETS)
	if err != nil {
		u.t.Fatal(err)
	}
	return m.Lflag&unix.ICANON != 0 && m.Lflag&unix.ECHO != 0 && m.Oflag&unix.OPOST != 0
}

func (u *user) wantCooked(want bool) {
	u.t.Helper()
	if u.cooked() != want {
		u.t.Errorf("the terminal is cooked: %v, want %v", !want, want)
	}
}

// prompt waits for the shell and for the modes that it sets back.
func (u *user) prompt() string {
	u.t.Helper()
	return u.expect("PROMPT> ")
}

func TestSizeAndResize(t *testing.T) {
	u := newUser(t)
	u.keys(u.run + " bash --norc -c 'stty size; trap \"stty size; exit 7\" WINCH; echo go; while :; do read -t 1 x; done'\n")
	u.expect("40 100\r\n")
	u.expect("go\r\n")
	u.wantCooked(false)
	u.size(50, 120)
	u.expect("50 120\r\n")
	u.prompt()
	u.wantCooked(true)
	u.keys("echo code=$?\n")
	u.expect("code=7\r\n")
}

func TestInterruptAndQuit(t *testing.T) {
	u := newUser(t)
	for key, code := range map[string]int{"\x03": 130, "\x1c": 131} {
		u.keys(u.run + " sh -c 'ulimit -c 0; echo go; exec sleep 1000'\n")
		u.expect("go\r\n")
		u.keys(key)
		u.prompt()
		u.wantCooked(true)
		u.keys("echo code=$?\n")
		u.expect(fmt.Sprintf("code=%d\r\n", code))
		u.prompt()
	}
}

// TestEarlyKeys: a key that comes before the command is in the foreground is
// not lost, and does not end pid 1 instead.
func TestEarlyKeys(t *testing.T) {
	u := newUser(t)
	for key, code := range map[string]int{"\x03": 130, "\x1c": 131} {
		u.keys("EARLY=1 " + u.run + " sh -c 'ulimit -c 0; echo go; exec sleep 1000'\n")
		u.expect("go\r\n")
		u.keys(key)
		u.prompt()
		u.wantCooked(true)
		u.keys("echo code=$?\n")
		u.expect(fmt.Sprintf("code=%d\r\n", code))
		u.prompt()
	}
	u.keys("EARLY=1 " + u.run + " sh -c 'echo go; read x; echo got=$x'\n")
	u.expect("go\r\n")
	u.keys("\x1a")
	u.expect("Stopped")
	u.prompt()
	u.keys("fg\n")
	u.expect("fg\r\n")
	u.keys("word\n")
	u.expect("got=word\r\n")
	u.prompt()
}

func TestSuspendAndContinue(t *testing.T) {
	u := newUser(t)
	u.keys(u.run + " sh -c 'echo go; read x; echo got=$x'\n")
	u.expect("go\r\n")
	u.wantCooked(false)
	u.keys("\x1a")
	u.expect("Stopped")
	u.prompt()
	u.wantCooked(true)
	u.size(33, 77)
	u.keys("fg\n")
	u.expect("fg\r\n")
	u.keys("word\n")
	u.expect("got=word\r\n")
	u.prompt()
	u.wantCooked(true)
}

func TestJobControlInside(t *testing.T) {
	u := newUser(t)
	u.keys("PS1='IN''SIDE> ' " + u.run + " bash --norc --noprofile --noediting -i\n")
	u.expect("INSIDE> ")
	u.keys("sh -c 'echo up; exec sleep 1000'\n")
	u.expect("up\r\n")
	u.keys("\x1a")
	u.expect("Stopped")
	u.expect("INSIDE> ")
	u.keys("kill -9 %1; fg; exit 5\n")
	u.prompt()
	u.keys("echo code=$?\n")
	u.expect("code=5\r\n")
	u.wantCooked(true)
}

func TestLastBytes(t *testing.T) {
	u := newUser(t)
	u.keys(u.run + " sh -c 'seq 20000; printf last'\n")
	out := u.prompt()
	if !strings.Contains(out, "19999\r\n20000\r\nlast") || !strings.Contains(out, "\n1\r\n2\r\n") {
		t.Errorf("lost output, %d bytes, end %q", len(out), out[max(0, len(out)-40):])
	}
	if n := strings.Count(out, "\n"); n < 20000 {
		t.Errorf("%d lines", n)
	}
}

func TestPipes(t *testing.T) {
	u := newUser(t)
	u.keys("printf 'a\\0b' | " + u.run + " sh -c 'test ! -t 0 && test -t 1 && od -An -c'\n")
	u.expect("a  \\0   b\r\n")
	u.prompt()
	u.keys(u.run + " sh -c 'test -t 0 && test ! -t 1 && printf \"x\\ny\\n\"' | od -An -c\n")
	u.expect("x  \\n   y  \\n\r\n")
	u.prompt()
	u.wantCooked(true)
}

// TestLazy: nothing is taken from the terminal until the command reads it.
func TestLazy(t *testing.T) {
	u := newUser(t)
	fifo := filepath.Join(u.shell.Dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	u.keys(u.run + " -lazy sh -c 'echo go >&2; cat fifo; read x; echo got=$x' | cat\n")
	u.expect("go\r")
	u.wantCooked(true)
	if err := os.WriteFile(fifo, []byte("now\n"), 0); err != nil {
		t.Fatal(err)
	}
	u.expect("now\r\n")
	u.keys("key\n")
	u.expect("got=key\r\n")
	u.prompt()
	u.wantCooked(true)
}

func TestBackgroundLeavesTerminalAlone(t *testing.T) {
	u := newUser(t)
	u.keys(u.run + " sh -c 'echo go; read x; echo got=$x' &\n")
	u.expect("go\r")
	u.keys("echo still-here\n")
	u.expect("still-here\r\n")
	u.wantCooked(true)
	u.keys("fg\n")
	u.expect("-c ")
	u.keys("word\n")
	u.expect("got=word")
	u.prompt()
	u.wantCooked(true)
}

func TestRestoredAfterPanicAndSignals(t *testing.T) {
	u := newUser(t)
	u.keys(u.run + " -panic sleep 1000\n")
	u.expect("PANICKED")
	u.prompt()
	u.wantCooked(true)
	for _, sig := range []string{"TERM", "HUP", "INT"} {
		u.keys(u.run + " sh -c 'echo go; sleep 0; kill -" + sig + " $(ps -o ppid= -p $PPID); sleep 1000'\n")
		u.expect("go\r\n")
		u.prompt()
		u.wantCooked(true)
		u.keys("stty -a | grep -o -- '-\\?icanon'\n")
		u.expect("\r\nicanon")
		u.prompt()
	}
}

func TestReplace(t *testing.T) {
	master, slave, err := OpenPTY("/dev/ptmx")
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	defer master.Close()
	defer slave.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if got, wanted := Replace([3]*os.File{r, slave, nil}); got != [3]bool{false, true, false} || !wanted {
		t.Errorf("got %v %v", got, wanted)
	}
	if _, wanted := Replace([3]*os.File{r, w, w}); wanted {
		t.Error("wants a terminal for pipes")
	}
	if _, err := Relay(t.Context(), master, r, w); err == nil {
		t.Error("relays to a pipe")
	}
}

func TestParent(t *testing.T) {
	if got := parent(os.Getpid()); got != os.Getppid() {
		t.Errorf("parent is %d, not %d", got, os.Getppid())
	}
	if got := parent(-1); got != 0 {
		t.Errorf("nobody's parent is %d", got)
	}
}
