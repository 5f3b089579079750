//go:build linux

package confine

import (
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// allThreads runs a system call on every thread of the process. Where the
// binary is linked with cgo, as race-enabled tests are, the runtime cannot do
// that, and the call runs on the calling thread alone: enough for the command
// that is started from it, which is all that such tests can claim.
func allThreads(trap, a1, a2 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, 0, 0, 0, 0)
	if errno == syscall.ENOTSUP && !perProcess() {
		_, _, errno = syscall.RawSyscall6(trap, a1, a2, 0, 0, 0, 0)
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// perProcess says whether allThreads covers every thread. That is a property
// of the binary.
var perProcess = sync.OnceValue(func() bool {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0, 0)
	return errno != syscall.ENOTSUP
})

// ErrCgo is why Landlock cannot be had for a whole process in a binary with
// cgo, on kernels that restrict one thread at a time.
var ErrCgo = errors.New("this binary is linked with cgo, which hides the threads that are to be confined; build it with CGO_ENABLED=0")
