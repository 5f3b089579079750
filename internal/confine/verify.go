//go:build linux

package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Verify proves from inside that what Apply promised holds: it reads the state
// of every thread from /proc/self/task (which Landlock must let it read) and
// tries what is forbidden. Call it with the options that Apply got, on the
// goroutine that will start the command.
//
// With Options.NotifySockets the listener must be served by then, because a
// refused socket waits for its answer; without an answer Verify fails after
// some seconds.
func Verify(o Options) error {
	if err := verifyThreads(o); err != nil {
		return err
	}
	if !o.without(LayerCapabilities) {
		bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
		if err != nil {
			return &LayerError{LayerCapabilities, fmt.Errorf("reading securebits failed: %w", err)}
		}
		if bits != secureBits {
			return &LayerError{LayerCapabilities, fmt.Errorf("securebits are %#x, not %#x", bits, secureBits)}
		}
	}
	if err := verifyRlimits(o); err != nil {
		return &LayerError{LayerRlimits, err}
	}
	if !o.without(LayerLandlock) {
		if err := verifyLandlock(o); err != nil {
			return &LayerError{LayerLandlock, err}
		}
	}
	if !o.without(LayerSeccomp) {
		err := verifySeccomp()
		if err == nil && o.Single {
			err = tryAll(forkProbes)
		}
		if err != nil {
			return &LayerError{LayerSeccomp, err}
		}
	}
	return nil
}

// verifyThreads compares the lines of proc_pid_status(5) of every thread, or
// of the calling one when that is all Apply could reach. The bounding set
// counts on the calling thread, see applyCapabilities.
func verifyThreads(o Options) error {
	if err := verifyThread(o, "/proc/thread-self/status", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"); err != nil {
		return fmt.Errorf("cannot verify the thread that starts the command: %w", err)
	}
	if !perProcess() {
		return nil
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("cannot verify the threads: %w", err)
	}
	if len(tasks) == 0 {
		return errors.New("cannot verify the threads: /proc/self/task is empty")
	}
	for _, t := range tasks {
		err := verifyThread(o, "/proc/self/task/"+t.Name()+"/status", "CapInh", "CapPrm", "CapEff", "CapAmb")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return fmt.Errorf("cannot verify the threads: %w", err)
		}
	}
	return nil
}

func verifyThread(o Options, file string, capabilities ...string) error {
	status, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	const zero = "0000000000000000"
	checks := []struct {
		layer Layer
		want  string
		keys  []string
	}{
		{LayerCapabilities, zero, capabilities},
		{LayerNoNewPrivs, "1", []string{"NoNewPrivs"}},
		{LayerSeccomp, "2", []string{"Seccomp"}},
	}
	for _, c := range checks {
		if o.without(c.layer) {
			continue
		}
		for _, key := range c.keys {
			if got := statusField(string(status), key); got != c.want {
				return &LayerError{c.layer, fmt.Errorf("thread %s has %s %q, not %q",
					statusField(string(status), "Pid"), key, got, c.want)}
			}
		}
	}
	return nil
}

func statusField(status, key string) string {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func verifyRlimits(o Options) error {
	if o.without(LayerRlimits) {
		return nil
	}
	for resource, most := range limits(o) {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(resource, &now); err != nil {
			return err
		}
		if now.Max > most {
			return fmt.Errorf("limit %d is %d, more than %d", resource, now.Max, most)
		}
	}
	return nil
}

// verifyLandlock tries something that no cage may do, and something that is
// allowed, so that a kernel that refuses everything is not taken for one that
// obeys. The calling thread is the one that starts the command; that the others
// are in the same domain is Apply's doing, which fails unless all of them are.
func verifyLandlock(o Options) error {
	if err := tryForbidden(o); err != nil {
		return err
	}
	if len(o.ReadOnly) == 0 {
		return nil
	}
	f, err := os.Open(o.ReadOnly[0])
	if err != nil {
		return fmt.Errorf("opening what is allowed failed: %w", err)
	}
	return f.Close()
}

// tryForbidden opens the root directory. Where that may be listed, it makes a
// device in the first writable directory: the one with number 0:0 needs no
// capability, and Landlock is asked before the capability for any other
// (mknod(2)), so that only Landlock gives this error.
func tryForbidden(o Options) error {
	if slices.ContainsFunc(slices.Concat(o.ReadOnly, o.ReadWrite, o.Devices), isRoot) {
		return errors.New("the options allow /, which leaves nothing to verify")
	}
	if !slices.ContainsFunc(o.List, isRoot) {
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
			return errors.New("/ could be opened")
		}
		if !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("opening / was not refused by Landlock, but failed: %w", err)
		}
		return nil
	}
	if len(o.ReadWrite) == 0 {
		return errors.New("the options allow to list / and to write nowhere, which leaves nothing to verify")
	}
	device := filepath.Join(o.ReadWrite[0], fmt.Sprintf(".confine-%d", os.Getpid()))
	err := unix.Mknod(device, unix.S_IFCHR, 0)
	if err == nil {
		_ = unix.Unlink(device)
		return fmt.Errorf("a device could be made in %s", o.ReadWrite[0])
	}
	if !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("making a device in %s was not refused by Landlock, but failed: %w", o.ReadWrite[0], err)
	}
	return nil
}

func isRoot(p string) bool { return filepath.Clean(p) == "/" }

// probe is a system call that must fail with want. The arguments are such that
// nothing happens when it is not refused.
type probe struct {
	name string
	nr   uintptr
	args [3]uintptr
	want unix.Errno
}

// bad is a descriptor and an address that do not exist.
const bad = ^uintptr(0)

var probes = []probe{
	{"unshare", unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWUSER}, unix.EPERM},
	{"clone", unix.SYS_CLONE, [3]uintptr{unix.CLONE_NEWUSER | unix.CLONE_FS}, unix.EPERM}, // EINVAL unfiltered
	{"clone3", unix.SYS_CLONE3, [3]uintptr{0, 0}, unix.ENOSYS},
	{"setns", unix.SYS_SETNS, [3]uintptr{bad, 0}, unix.EPERM},
	{"mount", unix.SYS_MOUNT, [3]uintptr{bad, bad, bad}, unix.EPERM},
	{"fsopen", unix.SYS_FSOPEN, [3]uintptr{bad, 0}, unix.EPERM},
	{"open_tree", unix.SYS_OPEN_TREE, [3]uintptr{bad, bad, 0}, unix.EPERM},
	{"bpf", unix.SYS_BPF, [3]uintptr{0, bad, 0}, unix.EPERM},
	{"keyctl", unix.SYS_KEYCTL, [3]uintptr{bad, 0, 0}, unix.EPERM},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP, [3]uintptr{0, bad}, unix.EPERM},
	{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [3]uintptr{bad, 0, bad}, unix.EPERM},
	{"userfaultfd", unix.SYS_USERFAULTFD, [3]uintptr{bad}, unix.EPERM},
	{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [3]uintptr{bad, bad, 0}, unix.EPERM},
	{"ioctl TIOCSTI", unix.SYS_IOCTL, [3]uintptr{bad, unix.TIOCSTI, bad}, unix.EPERM},
	{"ioctl TIOCSTI with a high bit", unix.SYS_IOCTL, [3]uintptr{bad, 1<<32 | unix.TIOCSTI, bad}, unix.EPERM},
	{"ioctl TIOCLINUX", unix.SYS_IOCTL, [3]uintptr{bad, unix.TIOCLINUX, bad}, unix.EPERM},
	{"socket AF_ALG", unix.SYS_SOCKET, [3]uintptr{unix.AF_ALG, unix.SOCK_SEQPACKET, 0}, unix.EAFNOSUPPORT},
	{"an unknown system call", newestSyscall + 1, [3]uintptr{}, unix.ENOSYS},
}

// forkProbes would make a process, were their flags not invalid together
// (clone(2): CLONE_SIGHAND needs CLONE_VM).
var forkProbes = []probe{
	{"clone of a process", unix.SYS_CLONE, [3]uintptr{unix.CLONE_SIGHAND}, unix.EPERM}, // EINVAL unfiltered
}

// socketProbes go to the listener when there is one.
var socketProbes = []probe{
	{"socket AF_PACKET", unix.SYS_SOCKET, [3]uintptr{unix.AF_PACKET, unix.SOCK_RAW, probeProtocol}, unix.EPERM},
	{"socket AF_VSOCK", unix.SYS_SOCKET, [3]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM, probeProtocol}, unix.EPERM},
	{"raw socket", unix.SYS_SOCKET, [3]uintptr{unix.AF_INET, unix.SOCK_RAW, probeProtocol}, unix.EPERM},
}

const answerTime = 5 * time.Second

func verifySeccomp() error {
	if err := tryAll(probes); err != nil {
		return err
	}
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("a TCP socket, which is allowed, failed: %w", err)
	} else {
		unix.Close(fd)
	}
	done := make(chan error, 1)
	go func() { done <- tryAll(socketProbes) }()
	select {
	case err := <-done:
		return err
	case <-time.After(answerTime):
		return errors.New("nobody answers for refused sockets")
	}
}

func tryAll(probes []probe) error {
	for _, p := range probes {
		_, _, errno := unix.Syscall6(p.nr, p.args[0], p.args[1], p.args[2], 0, 0, 0)
		if errno != p.want {
			return fmt.Errorf("%s gave %q instead of %q", p.name, errno.Error(), p.want.Error())
		}
	}
	return nil
}
