package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names under which our own binary is the spawner, and the first process of a
// worker's cage.
const (
	spawnerName = "agentcage-spawner"
	initName    = "agentcage-worker"
)

// channelFD is the spawner's control socket, and a worker's connection. A
// worker's first process has a pidfd of the spawner behind it.
const (
	channelFD = 3
	spawnerFD = 4
)

// MaybeMain is called first by main and by every TestMain of a program that
// starts workers. In a spawner and in a worker it never returns; otherwise it
// returns at once.
func MaybeMain() {
	switch {
	case len(os.Args) != 1:
	case os.Args[0] == spawnerName:
		os.Exit(serve())
	case os.Args[0] == initName && os.Getpid() == 1:
		done := make(chan struct{})
		go func() { defer close(done); enter() }() // see confine.Apply: not on the main thread
		<-done
		os.Exit(1)
	}
}

// The main goroutine of a worker keeps the main thread, so that confinement is
// put on another.
func init() {
	if len(os.Args) == 1 && os.Args[0] == initName {
		runtime.LockOSThread()
	}
}

// spawner is the state of the spawner process.
type spawner struct {
	options Options
	python  func() (interpreter, error)
	self    *os.File // a pidfd

	mu      sync.Mutex
	workers map[uint64]*child
	running sync.WaitGroup
}

// child is a worker, or one that is about to be.
type child struct {
	mu      sync.Mutex
	process *os.Process
	killed  bool
}

func (c *child) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killed = true
	if c.process != nil {
		c.process.Kill()
	}
}

// started takes note of the process, and ends it when that was asked for
// meanwhile.
func (c *child) started(p *os.Process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process = p
	if c.killed {
		p.Kill()
	}
}

// serve is the spawner's main loop: it ends when the gateway does.
func serve() int {
	if err := closeInherited(); err != nil {
		return 1
	}
	r, _, err := receive(channelFD)
	if err != nil || r.Kind != kindOptions || r.Options == nil {
		return 1
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 1
	}
	s := &spawner{options: *r.Options, self: os.NewFile(uintptr(self), "spawner"), workers: map[uint64]*child{}}
	s.python = sync.OnceValues(func() (interpreter, error) { return findPython(os.Getenv("PATH"), s.options.Avoid) })
	for {
		r, fd, err := receive(channelFD)
		if err != nil {
			break
		}
		switch {
		case r.Kind == kindStart && fd >= 0:
			s.start(r, os.NewFile(uintptr(fd), "worker"))
			continue
		case r.Kind == kindKill:
			s.mu.Lock()
			c := s.workers[r.ID]
			s.mu.Unlock()
			if c != nil {
				c.kill()
			}
		}
		unix.Close(fd)
	}
	s.mu.Lock()
	for _, c := range s.workers {
		c.kill()
	}
	s.mu.Unlock()
	s.running.Wait()
	return 0
}

// closeInherited closes every descriptor that is neither ours nor the Go
// runtime's, which marks all of its own close-on-exec.
func closeInherited() error {
	unix.CloseOnExec(channelFD)
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			return err
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if fd > 2 && err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}

// start runs one worker to its end, in the background.
func (s *spawner) start(r request, conn *os.File) {
	c := &child{}
	s.mu.Lock()
	full := len(s.workers) >= MaxWorkers
	if !full {
		s.workers[r.ID] = c
	}
	s.mu.Unlock()
	if full {
		fail(conn, fmt.Errorf("%d are running already", MaxWorkers))
		conn.Close()
		return
	}
	s.running.Go(func() {
		defer func() {
			s.mu.Lock()
			delete(s.workers, r.ID)
			s.mu.Unlock()
		}()
		defer conn.Close()
		// The signal for a dead parent is sent when the thread that forked
		// ends (prctl(2)).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd, err := s.fork(r.Memory, conn)
		if err != nil {
			fail(conn, err)
			return
		}
		conn.Close() // the end of the worker is to be the end of the connection
		c.started(cmd.Process)
		_ = cmd.Wait() // whatever there was to tell it has told
	})
}

// fork starts a worker's first process in namespaces of its own.
func (s *spawner) fork(memory int64, conn *os.File) (*exec.Cmd, error) {
	python, err := s.python()
	if err != nil {
		return nil, err
	}
	plan, err := json.Marshal(plan{Python: python, Memory: memory, Without: s.options.Without})
	if err != nil {
		return nil, err
	}
	for _, ids := range identities() {
		cmd := initCommand(string(plan), ids, conn, s.self)
		if err = cmd.Start(); err == nil {
			return cmd, nil
		}
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	return nil, &Error{
		Err: fmt.Errorf("cannot make its namespaces: %w", err),
		Fix: "inspectors in Python need user namespaces, as `agentcage run` does; those in WebAssembly and `when:` rules need none",
	}
}

// identity is a user that a worker can run as.
type identity struct {
	uids, gids []syscall.SysProcIDMap
	credential *syscall.Credential
	caps       []uintptr
}

// nobody is the user without files of its own (nobody and nogroup of Debian).
const nobody = 65534

// identities are tried in turn. A worker of root's is nobody: its files are not
// readable even if all other walls fell. In a container that has no such user
// it is the only one there is.
func identities() []identity {
	one := func(id int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}
	}
	uid, gid := os.Geteuid(), os.Getegid()
	caps := []uintptr{unix.CAP_SETPCAP, unix.CAP_SYS_ADMIN}
	self := identity{uids: one(uid), gids: one(gid), caps: caps}
	if uid != 0 {
		return []identity{self}
	}
	return []identity{{
		uids: append(one(0), one(nobody)...), gids: append(one(0), one(nobody)...),
		credential: &syscall.Credential{Uid: nobody, Gid: nobody},
		// To find the interpreter below a directory of root's, and to make
		// the view.
		caps: append(caps, unix.CAP_DAC_OVERRIDE),
	}, self}
}

func initCommand(plan string, id identity, files ...*os.File) *exec.Cmd {
	return &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{initName},
		Env:        []string{"GOMAXPROCS=1", "GOGC=off", planEnv + "=" + plan},
		Dir:        "/",
		ExtraFiles: files,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
				unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
			UidMappings: id.uids, GidMappings: id.gids,
			GidMappingsEnableSetgroups: id.credential != nil,
			Credential:                 id.credential,
			AmbientCaps:                id.caps,
			Setsid:                     true,
			Pdeathsig:                  syscall.SIGKILL,
		},
	}
}

// Error is a failure that the user can do something about.
type Error struct {
	Err error
	Fix string
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Hint is one sentence on what to do.
func (e *Error) Hint() string { return e.Fix }

// fail tells the gateway why there is no worker.
func fail(conn *os.File, err error) {
	f := Failure{Error: err.Error()}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		f.Hint = h.Hint()
	}
	line, err := json.Marshal(f)
	if err != nil {
		return
	}
	_, _ = conn.Write(append(line, '\n')) // nobody listens any more
}
