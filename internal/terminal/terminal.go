//go:build linux

// Package terminal lets a command in a cage use the user's terminal as if it
// had been started directly: the cage has a PTY of its own, and this package
// carries bytes, window size and job control between the two.
//
// In the cage, pid 1 is the leader of the PTY's session and the command leads
// a process group of its own in the foreground. Were the command the session's
// leader, its group would be orphaned and the kernel would ignore Ctrl-Z.
package terminal

import (
	"context"
	"os"
	"syscall"
)

// OpenPTY makes a PTY with the multiplexer at ptmx (normally "/dev/ptmx" or "/dev/pts/ptmx").
func OpenPTY(ptmx string) (master, slave *os.File, err error) { return nil, nil, nil }

// Lead makes the calling process the leader of a new session whose
// controlling terminal is slave; slave may be nil for a session without one.
// A process that already leads its session keeps it.
func Lead(slave *os.File) error { return nil }

// ChildAttr adds to attr what puts the command in a process group of its own.
func ChildAttr(attr *syscall.SysProcAttr) *syscall.SysProcAttr { return attr }

// Foreground puts the process group of the command in the foreground of slave
// and continues it, in case it was quick to use the terminal. Call it right after the start.
func Foreground(slave *os.File, pid int) error { return nil }

// Spurious says that a stop of the command is an accident of its start (it
// used the terminal before Foreground) and not to be reported: send SIGCONT.
func Spurious(slave *os.File, pid int, sig syscall.Signal) bool { return false }

// Replace says which of the three standard files are terminals and are to
// become the PTY's slave in the cage; the others are passed as they are.
func Replace(files [3]*os.File) (replace [3]bool, any bool) { return }

// Config of a session on the host's side.
type Config struct {
	Master *os.File // of the cage's PTY; the session closes it
	In     *os.File // the user's terminal, read; nil opens /dev/tty
	Out    *os.File // the user's terminal, written; nil opens /dev/tty
	// Lazy leaves the terminal alone until Take is called: for a command
	// whose output goes to a pipe, where another program (a pager) may be
	// the one that reads the keys.
	Lazy bool
	// Signal gets SIGINT, SIGTERM, SIGHUP and SIGQUIT that were sent to this
	// process. When nil, they restore the terminal and end the process.
	Signal func(os.Signal)
}

// Session carries bytes between the user's terminal and a cage's PTY.
type Session struct{}

// Relay starts a session with the defaults of Config.
func Relay(ctx context.Context, master, in, out *os.File) (*Session, error) {
	return Start(ctx, Config{Master: master, In: in, Out: out})
}

// Start starts a session: window size at once and on SIGWINCH, raw mode while
// this process is in the foreground.
func Start(ctx context.Context, c Config) (*Session, error) { return &Session{}, nil }

// Take ends laziness.
func (s *Session) Take() {}

// Stopped is called when the command in the cage has stopped: it restores the
// terminal, stops this process as Ctrl-Z would, and returns when it was
// continued; then tell the cage to continue the command.
func (s *Session) Stopped() {}

// Drain returns when the cage has closed its end and all output is written, or ctx ends.
func (s *Session) Drain(ctx context.Context) error { return nil }

// Close restores the terminal and ends the session. It can be called often.
func (s *Session) Close() error { return nil }

// RestoreAll restores the terminal of every live session, for a deferred call in main and before os.Exit.
func RestoreAll() {}
