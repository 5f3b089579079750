package confine

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// deniedHere are denied system calls that only this architecture has.
var deniedHere []uint32

// forks start a process without the flags that clone checks.
var forks []uint32

// modeCallsHere are modeCalls that only other architectures have.
var modeCallsHere []modeCall
