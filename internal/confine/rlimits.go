//go:build linux

package confine

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// memlock is what ordinary programs get on most distributions; io_uring, which
// needed more, is off.
const memlock = 8 << 20

// limits lists resource numbers with what they are to be at most.
func limits(o Options) map[int]uint64 {
	m := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_MEMLOCK: memlock}
	if o.Processes > 0 {
		m[unix.RLIMIT_NPROC] = uint64(o.Processes)
	}
	if o.OpenFiles > 0 {
		m[unix.RLIMIT_NOFILE] = uint64(o.OpenFiles)
	}
	return m
}

// applyRlimits lowers limits, soft and hard, and never raises one. It calls
// the syscall package for RLIMIT_NOFILE because Go raises the soft limit at
// start and would give commands the old one back unless told otherwise.
func applyRlimits(o Options, _ *Result) error {
	for resource, most := range limits(o) {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(resource, &now); err != nil {
			return fmt.Errorf("cannot read limit %d: %w", resource, err)
		}
		next := syscall.Rlimit{Cur: min(most, now.Max), Max: min(most, now.Max)}
		if err := syscall.Setrlimit(resource, &next); err != nil {
			return fmt.Errorf("cannot set limit %d: %w", resource, err)
		}
	}
	return nil
}
