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
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// OpenPTY makes a PTY with the multiplexer at ptmx, normally "/dev/ptmx" or
// "/dev/pts/ptmx" of the cage's own devpts. Both ends are close-on-exec and
// become nobody's controlling terminal yet. The slave is opened through the
// master (TIOCGPTPEER, ioctl_tty(2)), so no name in a mount can mislead it.
func OpenPTY(ptmx string) (master, slave *os.File, err error) {
	fd, err := unix.Open(ptmx, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open a terminal at %s: %w", ptmx, err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("cannot unlock a terminal: %w", err)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("cannot open the other end of a terminal: %w", errno)
	}
	return os.NewFile(uintptr(fd), "pty-master"), os.NewFile(peer, "pty-slave"), nil
}

// Lead makes the calling process the leader of a new session whose
// controlling terminal is slave; slave may be nil for a session without one.
// A process that already leads its session keeps it.
func Lead(slave *os.File) error {
	if _, err := unix.Setsid(); err != nil {
		if sid, sidErr := unix.Getsid(0); sidErr != nil || sid != os.Getpid() {
			return fmt.Errorf("cannot start a session: %w", err)
		}
	}
	if slave == nil {
		return nil
	}
	if err := unix.IoctlSetInt(int(slave.Fd()), unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("cannot take the terminal: %w", err)
	}
	return nil
}

// ChildAttr adds to attr, which may be nil, what puts the command in a
// process group of its own. The foreground is left to Foreground: a child can
// only take it while SIGTTOU is ignored, and what it ignores it would inherit.
func ChildAttr(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	attr.Setpgid, attr.Pgid = true, 0
	return attr
}

// Foreground puts the process group of the command in the foreground of slave
// and continues it, in case it was quick to use the terminal (see Spurious).
// The caller leads the session; call it right after the start, and for a
// command that was started in the background on purpose, when it stops with
// SIGTTIN or SIGTTOU.
func Foreground(slave *os.File, pid int) error {
	if err := unix.IoctlSetPointerInt(int(slave.Fd()), unix.TIOCSPGRP, pid); err != nil {
		if errors.Is(unix.Kill(-pid, 0), unix.ESRCH) {
			return nil // it has already ended
		}
		return fmt.Errorf("cannot put the command in the foreground: %w", err)
	}
	if err := unix.Kill(-pid, unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("cannot continue the command: %w", err)
	}
	return nil
}

// CatchKeys catches the signals of Ctrl-C, Ctrl-\ and Ctrl-Z from now on and
// returns what passes them to the process group of the command. Until
// Foreground the terminal sends them to the leader's group, where they would be
// lost, or end the leader. Call CatchKeys before Lead, and pass, once, after
// Foreground, whose SIGCONT would undo a Ctrl-Z. There is no end to passing on:
// a signal may arrive late, and the agent, who could send them to the leader,
// can send them to its own processes as well.
func CatchKeys() (pass func(pid int)) {
	caught := make(chan os.Signal, 3) // one of each is enough, as it is for the kernel
	signal.Notify(caught, unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP)
	return func(pid int) {
		go func() {
			for s := range caught {
				unix.Kill(-pid, s.(unix.Signal))
			}
		}()
	}
}

// Spurious says that a stop of the command, seen by wait4(2) with WUNTRACED,
// is an accident of its start: it used the terminal before it was in the
// foreground, and it is there now. Do not report such a stop; send SIGCONT.
func Spurious(slave *os.File, pid int, sig syscall.Signal) bool {
	if slave == nil || sig != unix.SIGTTIN && sig != unix.SIGTTOU {
		return false
	}
	group, err := unix.IoctlGetInt(int(slave.Fd()), unix.TIOCGPGRP)
	return err == nil && group == pid
}

// Replace says which of the three standard files are terminals and become the
// PTY's slave in the cage; the others are passed as they are. wanted is false
// when none is, and no PTY is needed.
func Replace(files [3]*os.File) (replace [3]bool, wanted bool) {
	for i, f := range files {
		replace[i] = isTerminal(f)
		wanted = wanted || replace[i]
	}
	return replace, wanted
}

func isTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	conn, err := f.SyscallConn() // Fd would make a non-blocking file block
	if err != nil {
		return false
	}
	is := false
	err = conn.Control(func(fd uintptr) {
		_, termErr := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		is = termErr == nil
	})
	return err == nil && is
}
