package process

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/terminal"
)

// initName is the argv[0] under which our own binary is the first process of
// a cage.
const initName = "agentcage-init"

// Stages of init, for messages.
const (
	stageNetwork = "network"
	stageView    = "view"
	stageConfine = "confine"
	stageStart   = "start"
)

// MaybeInit is the first thing that main and every TestMain call. In the first
// process of a cage it runs that process and never returns; otherwise it
// returns at once.
func MaybeInit() {
	if isInit() {
		done := make(chan int)
		go func() { done <- runInit() }()
		os.Exit(<-done)
	}
}

func isInit() bool { return len(os.Args) == 1 && os.Args[0] == initName && os.Getpid() == 1 }

// The main goroutine of a cage's first process keeps the main thread, so that
// the command is started from another one: see confine.Apply.
func init() {
	if isInit() {
		runtime.LockOSThread()
	}
}

// runInit sets the cage up, starts the command and is its parent.
func runInit() int {
	stage, err := initialise()
	if err != nil {
		_ = send(controlFD, errorOf(stage, err))
		return 1
	}
	return 0
}

func initialise() (stage string, err error) {
	if err := secureSelf(); err != nil {
		return stageView, err
	}
	// What needs no plan comes first: the plan is still being made.
	//
	// All handlers, none ignored: an ignored signal would be inherited by
	// the command, and the agent cannot end pid 1 with a caught one.
	caught := make(chan os.Signal, 64)
	signal.Notify(caught)
	v6, err := everythingLocal()
	if err != nil {
		return stageNetwork, err
	}
	v, err := newView()
	if err != nil {
		return stageView, err
	}
	plan := os.NewFile(launchFD, "launch")
	l, err := readLaunch(plan)
	if err != nil {
		return stageView, fmt.Errorf("cannot read what to run: %w", err)
	}
	plan.Close()
	if err := offerNetwork(l.Ports, v6); err != nil {
		return stageNetwork, err
	}
	if err := buildView(v, l); err != nil {
		return stageView, err
	}
	if err := await(msgAttached); err != nil {
		return stageStart, err
	}
	return enter(l)
}

// secureSelf makes init opaque to the agent: its memory and descriptors cannot
// be read, not even by the same user id, and nothing that the caller's shell
// left open comes along.
func secureSelf() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot make init unreadable: %w", err)
	}
	unix.CloseOnExec(controlFD)
	unix.CloseOnExec(launchFD)
	return closeInherited()
}

// closeInherited closes every descriptor that is neither ours nor the Go
// runtime's. The runtime marks all of its own close-on-exec.
func closeInherited() error {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		// Without /proc there is still the guarantee that none is passed on.
		return unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		var fd int
		if fd, err = strconv.Atoi(name); err != nil {
			return err
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if fd > 2 && err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
}

func offerNetwork(ports []uint16, v6 bool) error {
	n, err := openSockets(ports, v6)
	if err != nil {
		return err
	}
	// From here on only the gateway holds them.
	defer closeAll(n.fds)
	return send(controlFD, message{Kind: msgListeners, FDs: n.roles}, n.fds...)
}

func buildView(v *view, l launch) error {
	if err := unix.Sethostname([]byte(l.Host)); err != nil {
		return fmt.Errorf("cannot name the cage: %w", err)
	}
	unix.Umask(0)
	for _, o := range l.Ops {
		if err := v.run(o); err != nil {
			return err
		}
	}
	if err := v.finish(); err != nil {
		return err
	}
	unix.Umask(0o022)
	if err := unix.Chdir(l.Dir); err != nil {
		return fmt.Errorf("cannot enter %s: %w", l.Dir, err)
	}
	return nil
}

func await(kind string) error {
	m, fds, err := receive(controlFD)
	closeAll(fds)
	if err != nil {
		return err
	}
	if m.Kind != kind {
		return fmt.Errorf("unexpected message %q", m.Kind)
	}
	return nil
}

// enter gives up every privilege, proves it, runs the command and reports how
// it ended.
func enter(l launch) (string, error) {
	runtime.LockOSThread()           // Landlock's scope is on this thread, which starts the command
	passKeys := terminal.CatchKeys() // pressed before the command is in the foreground
	io, err := openStdio(l)
	if err != nil {
		return stageStart, err
	}
	if err := confineSelf(l, io.offer); err != nil {
		return stageConfine, err
	}
	program, code, err := lookUp(l.Command[0], l.Env)
	if err == nil {
		var pid int
		if pid, err = start(program, l, io); err == nil {
			if err := send(controlFD, message{Kind: msgStarted}); err != nil {
				return stageStart, err
			}
			if io.slave != nil {
				passKeys(pid)
			}
			go obey(pid)
			return stageStart, reap(pid, io.slave)
		}
		code = startCode(err)
	}
	_ = send(controlFD, message{Kind: msgExit, Code: code, Text: fmt.Sprintf("cannot run %s: %v", l.Command[0], err)})
	return "", nil
}

// start runs the command with nothing but its three standard descriptors.
func start(program string, l launch, io *stdio) (int, error) {
	pid, err := syscall.ForkExec(program, l.Command, &syscall.ProcAttr{
		Env:   l.Env,
		Files: io.files[:],
		Sys:   terminal.ChildAttr(&syscall.SysProcAttr{Setpgid: true}),
	})
	if err == nil && io.slave != nil {
		err = terminal.Foreground(io.slave, pid)
	}
	return pid, err
}

// startCode is the shell's exit code for a program that did not start (POSIX
// XCU 2.8.2).
func startCode(err error) int {
	if errors.Is(err, unix.ENOENT) {
		return 127
	}
	return 126
}

// lookUp finds a program in the PATH of the cage, as execvp(3) does.
func lookUp(name string, env []string) (string, int, error) {
	if name == "" {
		return "", 127, unix.ENOENT
	}
	if strings.Contains(name, "/") {
		return name, 0, nil
	}
	path := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	found := errors.New("not found in PATH")
	code := 127
	for dir := range strings.SplitSeq(path, ":") {
		if !filepath.IsAbs(dir) {
			continue
		}
		p := dir + "/" + name
		var st unix.Stat_t
		if unix.Stat(p, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if err := unix.Access(p, unix.X_OK); err != nil {
			found, code = err, 126
			continue
		}
		return p, 0, nil
	}
	return "", code, found
}

// obey passes on signals from outside, and ends the cage when there is nobody
// left to answer to.
func obey(pid int) {
	for {
		m, fds, err := receive(controlFD)
		closeAll(fds)
		if err != nil {
			os.Exit(1) // and with pid 1 everything in the namespace
		}
		if m.Kind == msgSignal && m.Number > 0 && m.Number < 65 {
			// The command leads a process group, as it would under a terminal.
			if unix.Kill(-pid, syscall.Signal(m.Number)) != nil {
				unix.Kill(pid, syscall.Signal(m.Number))
			}
		}
	}
}

// reap waits for every child there is, its own and the orphans, until the
// command ends.
func reap(pid int, slave *os.File) error {
	options := 0
	if slave != nil {
		options = syscall.WUNTRACED
	}
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, options, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot wait for the command: %w", err)
		}
		if got == pid && ws.Stopped() && slave != nil {
			stopped(slave, pid, ws.StopSignal())
		}
		if got != pid || !(ws.Exited() || ws.Signaled()) {
			continue
		}
		m := message{Kind: msgExit, Code: ws.ExitStatus()}
		if ws.Signaled() {
			m.Signal = int(ws.Signal())
			m.Code = 128 + m.Signal
		}
		return send(controlFD, m)
	}
}

// stopped lets the user's own shell have its terminal back, as when Ctrl-Z
// stops a command that runs without a cage.
func stopped(slave *os.File, pid int, sig syscall.Signal) {
	if terminal.Spurious(slave, pid, sig) {
		unix.Kill(-pid, unix.SIGCONT)
		return
	}
	_ = send(controlFD, message{Kind: msgStopped, Number: int(sig)})
}

// stdio is what the command gets as its standard descriptors.
type stdio struct {
	files         [3]uintptr
	master, slave *os.File // a terminal of the cage's own, or nil
}

// openStdio makes init the leader of a session, and opens a terminal of the
// cage's own where the user's would have been passed in: the agent's terminal
// has a name in the cage, and the host's is never seen.
func openStdio(l launch) (*stdio, error) {
	s := &stdio{files: [3]uintptr{0, 1, 2}}
	if len(l.TTY) > 0 {
		var err error
		if s.master, s.slave, err = terminal.OpenPTY("/dev/pts/ptmx"); err != nil {
			return nil, fmt.Errorf("cannot make a terminal in the cage: %w", err)
		}
	}
	for _, n := range l.TTY {
		s.files[n] = s.slave.Fd()
	}
	if err := ownDevices(); err != nil {
		return nil, fmt.Errorf("cannot use the cage's own devices: %w", err)
	}
	if err := terminal.Lead(s.slave); err != nil {
		return nil, fmt.Errorf("cannot make a session in the cage: %w", err)
	}
	return s, nil
}

// memoryDevices are the devices of major number 1 that every cage has
// (Documentation/admin-guide/devices.txt), by minor number.
var memoryDevices = map[uint32]string{3: "null", 5: "zero", 7: "full", 8: "random", 9: "urandom"}

// ownDevices puts the cage's /dev/null and the like in the place of the host's
// among the standard descriptors: through one that was opened on the host, uid 0
// could change the mode of the host's device.
func ownDevices() error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		name, ok := memoryDevices[unix.Minor(st.Rdev)]
		if st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(st.Rdev) != 1 || !ok {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		own, err := unix.Open("/dev/"+name, flags&(unix.O_ACCMODE|unix.O_APPEND|unix.O_NONBLOCK)|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.Dup3(own, fd, 0)
		unix.Close(own)
		if err != nil {
			return err
		}
	}
	return nil
}

// offer passes out what belongs to the host's side: the master of the cage's
// terminal, and the listener for refused sockets, which must be served before
// confinement can be verified.
func (s *stdio) offer(notify *os.File) error {
	m := message{Kind: msgConfined}
	var fds []int
	for _, f := range []struct {
		*os.File
		fdRole
	}{{s.master, roleTerminal}, {notify, roleNotify}} {
		if f.File != nil {
			m.FDs, fds = append(m.FDs, f.fdRole), append(fds, int(f.Fd()))
			defer f.Close()
		}
	}
	return send(controlFD, m, fds...)
}
