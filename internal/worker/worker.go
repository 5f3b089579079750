// Package worker runs programs whose opinion the gateway asks for, custom
// inspectors in Python, each in a cage of its own that has no way out at all:
// no network, a view of the interpreter and its libraries and of nothing else,
// one process, a limit on memory. All that a worker has is the connection to
// the gateway, over which its code comes too.
//
// The gateway gives up the right to start programs once it has started, and a
// worker that has died must be started again. A Spawner is a process that was
// started before and does that on request. It takes neither programs nor paths
// from the gateway, so that a hole in the gateway gains nothing by it: whoever
// asks gets an interpreter in a cage.
//
// The spawner ends with the gateway, and the workers end with the spawner.
package worker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/confine"
)

// Options say what all workers of a Spawner have in common.
type Options struct {
	// Without are layers of confinement that may be missing, because the
	// user said so.
	Without []confine.Layer
	// Avoid are directories that an agent can write to. An interpreter that
	// lies in one of them is not used.
	Avoid []string
}

// Failure is the only line that a worker sends which cannot be started.
type Failure struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"` // what the user can do about it
}

// MaxWorkers is how many workers a Spawner has at one time.
const MaxWorkers = 64

// Spawner starts workers. Its methods are safe for concurrent use.
type Spawner struct {
	cmd *exec.Cmd

	mu      sync.Mutex
	control int // closed when -1
	last    uint64
}

// Start starts a spawner. It must be called before the gateway confines
// itself.
func Start(o Options) (*Spawner, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot start the spawner of inspectors: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	s := &Spawner{control: pair[0], cmd: &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{spawnerName},
		Env:        spawnerEnv(),
		Dir:        "/",
		ExtraFiles: []*os.File{theirs},
		// A session of its own: Ctrl-C is for the command in the cage.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}}
	if err := s.cmd.Start(); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("cannot start the spawner of inspectors: %w", err)
	}
	if err := send(s.control, request{Kind: kindOptions, Options: &o}); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start the spawner of inspectors: %w", err), s.Close())
	}
	return s, nil
}

// spawnerEnv is what finding an interpreter needs, and no value that may be a
// secret.
func spawnerEnv() []string {
	env := []string{"GOMAXPROCS=1", "LANG=C.UTF-8"}
	for _, name := range []string{"PATH", "HOME", "PYENV_ROOT", "PYENV_VERSION"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// Start asks for a worker with a limit on its address space in bytes. It
// returns at once: a worker that cannot be started sends a Failure and ends.
// To close the connection ends the worker.
func (s *Spawner) Start(memory int64) (net.Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot start a worker: %w", err)
	}
	defer unix.Close(pair[1])
	ours := os.NewFile(uintptr(pair[0]), "worker")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("cannot start a worker: %w", err)
	}
	s.mu.Lock()
	s.last++
	id := s.last
	s.mu.Unlock()
	if err := s.tell(request{Kind: kindStart, ID: id, Memory: memory}, pair[1]); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot start a worker: %w", err)
	}
	return &workerConn{Conn: conn, end: func() { _ = s.tell(request{Kind: kindKill, ID: id}) }}, nil
}

// workerConn ends its worker when it is closed.
type workerConn struct {
	net.Conn
	once sync.Once
	end  func()
}

func (c *workerConn) Close() error {
	c.once.Do(c.end)
	return c.Conn.Close()
}

func (s *Spawner) tell(r request, fds ...int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.control < 0 {
		return os.ErrClosed
	}
	return send(s.control, r, fds...)
}

// Close ends all workers and returns when they are gone.
func (s *Spawner) Close() error {
	s.mu.Lock()
	open := s.control >= 0
	if open {
		unix.Close(s.control)
		s.control = -1
	}
	s.mu.Unlock()
	if !open {
		return nil
	}
	_ = s.cmd.Wait() // how it ends says nothing: it may have been killed
	return nil
}
