//go:build linux

package confine

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// secureBits are all bits of capabilities(7) that keep uid 0 and set-uid
// programs from gaining anything, each with its lock: NOROOT,
// NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE; KEEP_CAPS off and locked.
const secureBits = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<7

// applyCapabilities drops what the process holds and what any program that it
// starts could be given. The order matters: the bounding set and securebits
// need CAP_SETPCAP, which the last step gives up. It takes the ambient set
// with it, whose members are always permitted and inheritable ones
// (capabilities(7)).
//
// The bounding set is emptied on the calling thread alone, and that is enough:
// it limits what exec(2) may give, the command is started from this thread, and
// every process of the cage descends from it. The other threads of pid 1 run
// our code, start nothing, and end with nothing permitted or inheritable, so
// that a bounding set cannot give them anything. To stop all threads once for
// each capability took several milliseconds of every start.
func applyCapabilities(Options, *Result) error {
	if err := dropBounding(); err != nil {
		return err
	}
	if err := allThreads(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, secureBits); err != nil {
		return fmt.Errorf("cannot set securebits: %w", err)
	}
	return clearCapabilities()
}

// dropBounding empties the bounding set of the calling thread. PR_CAPBSET_READ
// answers EINVAL beyond the last capability that the kernel knows.
func dropBounding() error {
	for c := uintptr(0); c < 64; c++ {
		held, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, c, 0, 0, 0, 0)
		if errno == unix.EINVAL && c > 0 { // every kernel knows the first
			return nil
		}
		if errno != 0 {
			return fmt.Errorf("cannot read capability %d of the bounding set: %w", c, errno)
		}
		if held == 0 {
			continue
		}
		if _, _, errno = unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0, 0); errno != 0 {
			return fmt.Errorf("cannot drop capability %d from the bounding set: %w", c, errno)
		}
	}
	return nil
}

func clearCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	err := allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])))
	if err != nil {
		return fmt.Errorf("cannot clear the capability sets: %w", err)
	}
	return nil
}

func applyNoNewPrivs(Options, *Result) error {
	return allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
}
