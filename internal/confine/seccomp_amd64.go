package confine

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// deniedHere are denied system calls that only this architecture has.
var deniedHere = []uint32{
	unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB, unix.SYS_CREATE_MODULE, unix.SYS_SYSFS,
}

// forks start a process without the flags that clone checks.
var forks = []uint32{unix.SYS_FORK, unix.SYS_VFORK}

// modeCallsHere are modeCalls that only this architecture has.
var modeCallsHere = []modeCall{{unix.SYS_CHMOD, 1}, {unix.SYS_MKNOD, 1}}
