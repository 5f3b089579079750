//go:build linux && (amd64 || arm64)

package confine

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// newestSyscall is the highest number this list was written against. Whatever
// comes after it does not exist in a cage until somebody has thought about it;
// without that a list of what is denied would age.
const newestSyscall = unix.SYS_RSEQ_SLICE_YIELD

// denied fails with EPERM in cages and in the gateway. Not in it, on purpose:
//
//   - ptrace and process_vm_*: debuggers are tools of the trade. The pid
//     namespace leaves only the cage's own processes, Landlock only those of
//     the same domain, so not pid 1, and the kernel checks a traced system
//     call against the filter after the tracer has changed it.
//   - seccomp and landlock_*: they only take rights away.
//   - mknod: devices need a capability, and FIFOs are wanted.
var denied = []uint32{
	// Namespaces and mounts: a new user namespace gives capabilities back.
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_LISTNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT,
	unix.SYS_CHROOT, unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN,
	unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	// The machine.
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE,
	unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_ACCT, unix.SYS_QUOTACTL,
	unix.SYS_QUOTACTL_FD, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX,
	unix.SYS_SYSLOG, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP, unix.SYS_NFSSERVCTL,
	unix.SYS_LSM_SET_SELF_ATTR,
	// Parts of the kernel with a history of holes, or that act past seccomp.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_LOOKUP_DCOOKIE,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK,
	// What belongs to others: keyrings are per user, handles are per file system.
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_KCMP, unix.SYS_PIDFD_GETFD,
}

// deniedGateway is denied to the gateway on top: it starts and debugs nothing.
var deniedGateway = []uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE,
	unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PERSONALITY, unix.SYS_MEMFD_SECRET,
}

// deniedSingle is denied where there is to be one process: it makes memory that
// belongs to nobody, is on no limit, and stays when it is let go.
var deniedSingle = []uint32{unix.SYS_SHMGET, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN}

// newNamespaces are the namespace flags of clone(2). CLONE_NEWTIME is not one
// of them: clone takes these bits for the exit signal.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Offsets in struct seccomp_data (linux/seccomp.h). All supported
// architectures are little-endian, so the low half of an argument is first.
// Only the low half is compared where the kernel itself takes an int: a filter
// that compares 64 bits lets 1<<32|TIOCSTI through (CVE-2019-10063).
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

func arg(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offsetArgs + 8*n, Size: 4} }

func fail(e unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)}
}

var (
	allow = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	eperm = fail(unix.EPERM)
)

// whenEqual runs body, which returns, when the accumulator is val.
// It is how the filter stays readable without labels.
func whenEqual(val uint32, body ...bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: val, SkipTrue: uint8(len(body))}}, body...)
}

func concat(parts ...[]bpf.Instruction) []bpf.Instruction {
	var out []bpf.Instruction
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// program says which filter is wanted.
type program struct {
	gateway bool // for the gateway, not for a cage
	notify  bool // refused sockets go to the listener
	single  bool // no further process may be made
}

// filter assembles a program.
func filter(f program) []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		// Other system call tables (i386 by int 0x80) have other numbers.
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
		// x32 numbers have bit 30 set, so they are in here too.
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: newestSyscall, SkipFalse: 1},
		fail(unix.ENOSYS),
	}
	p = append(p, whenEqual(unix.SYS_CLONE3, fail(unix.ENOSYS))...) // its flags are in memory; libc falls back to clone
	p = append(p, whenEqual(unix.SYS_CLONE, cloneRule(f.single)...)...)
	p = append(p, whenEqual(unix.SYS_SOCKET, socketRule(f.notify)...)...)
	p = append(p, whenEqual(unix.SYS_SOCKETPAIR, arg(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNIX, SkipTrue: 1}, fail(unix.EAFNOSUPPORT), allow)...)
	p = append(p, whenEqual(unix.SYS_IOCTL, ioctlRule()...)...)
	for _, c := range modeCalls {
		p = append(p, whenEqual(c.nr, arg(c.mode), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.S_ISUID, SkipFalse: 1}, eperm, allow)...)
	}
	for _, nr := range list(f) {
		p = append(p, whenEqual(nr, eperm)...)
	}
	p = append(p, whenEqual(unix.SYS_PERSONALITY, personalityRule()...)...)
	return append(p, allow)
}

// modeCalls are the system calls that give a file its mode, with the argument
// that holds it. A set-uid file in a directory of the host's is a program that
// runs as the owner of the cage for every other user of the machine. openat2
// has the mode in memory, out of the filter's sight: it could make such a file
// only empty, and any way to fill it clears the bit (inode(7)).
var modeCalls = append([]modeCall{
	{unix.SYS_FCHMOD, 1}, {unix.SYS_FCHMODAT, 2}, {unix.SYS_FCHMODAT2, 2}, {unix.SYS_MKNODAT, 2},
}, modeCallsHere...)

type modeCall struct{ nr, mode uint32 }

func list(f program) []uint32 {
	l := append(append([]uint32{}, denied...), deniedHere...)
	if f.gateway {
		l = append(l, deniedGateway...)
	}
	if f.single {
		l = append(l, deniedSingle...)
	}
	if f.gateway || f.single {
		l = append(l, forks...)
	}
	return l
}

// cloneRule refuses new namespaces, and, where there is to be one process,
// everything that is no thread.
func cloneRule(single bool) []bpf.Instruction {
	p := []bpf.Instruction{arg(0), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: newNamespaces, SkipFalse: 1}, eperm}
	if single {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.CLONE_THREAD, SkipTrue: 1}, eperm)
	}
	return append(p, allow)
}

// ioctlRule refuses to push keys into a terminal (TIOCSTI, TIOCLINUX's paste)
// and to load line disciplines.
func ioctlRule() []bpf.Instruction {
	return concat([]bpf.Instruction{arg(1)},
		whenEqual(unix.TIOCSTI, eperm),
		whenEqual(unix.TIOCLINUX, eperm),
		whenEqual(unix.TIOCSETD, eperm),
		[]bpf.Instruction{allow})
}

// personalityRule allows to ask, the two plain personalities of programs that
// pretend to be 32 bit wide, and no address randomisation, which debuggers use.
// READ_IMPLIES_EXEC and the like stay off.
func personalityRule() []bpf.Instruction {
	p := []bpf.Instruction{arg(0)}
	for _, v := range []uint32{0, 0x8, 0x20000, 0x20008, 0x40000, 0xffffffff} {
		p = append(p, whenEqual(v, allow)...)
	}
	return append(p, eperm)
}

// protocolMPTCP is IPPROTO_MPTCP. It is refused as by a kernel without it:
// programs fall back to TCP, and one protocol less speaks for the cage.
const protocolMPTCP = 262

// socketRule allows Unix sockets, TCP, UDP and NETLINK_ROUTE, with which
// programs list their interfaces (its writes need a capability).
func socketRule(notify bool) []bpf.Instruction {
	refused := eperm
	if notify {
		refused = bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF}
	}
	inet := inetRule(refused)
	p := concat([]bpf.Instruction{arg(0)},
		whenEqual(unix.AF_UNIX, allow),
		whenEqual(unix.AF_NETLINK, arg(2),
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.NETLINK_ROUTE, SkipTrue: 1}, fail(unix.EPROTONOSUPPORT), allow))
	for _, family := range []uint32{unix.AF_PACKET, unix.AF_VSOCK, unix.AF_XDP} {
		p = append(p, whenEqual(family, refused)...)
	}
	return concat(p, whenEqual(unix.AF_INET, inet...), whenEqual(unix.AF_INET6, inet...),
		[]bpf.Instruction{fail(unix.EAFNOSUPPORT)})
}

func inetRule(refused bpf.Instruction) []bpf.Instruction {
	const typeMask = 0xf // the rest are SOCK_NONBLOCK and SOCK_CLOEXEC
	stream := concat([]bpf.Instruction{arg(2)},
		whenEqual(0, allow), whenEqual(unix.IPPROTO_TCP, allow),
		whenEqual(protocolMPTCP, fail(unix.EPROTONOSUPPORT)), []bpf.Instruction{refused})
	datagram := concat([]bpf.Instruction{arg(2)},
		whenEqual(0, allow), whenEqual(unix.IPPROTO_UDP, allow), []bpf.Instruction{refused})
	return concat([]bpf.Instruction{arg(1), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: typeMask}},
		whenEqual(unix.SOCK_STREAM, stream...), whenEqual(unix.SOCK_DGRAM, datagram...),
		[]bpf.Instruction{refused})
}

func applySeccomp(o Options, r *Result) error {
	plain := program{single: o.Single}
	if !o.NotifySockets {
		_, err := install(filter(plain), 0)
		return err
	}
	f, err := installNotify(program{notify: true, single: o.Single})
	if errors.Is(err, unix.EBUSY) { // a process has one listener at most, and somebody's is there
		_, err = install(filter(plain), 0)
	}
	r.Notify = f
	return err
}

// installNotify asks for a listener, with WAIT_KILLABLE_RECV where the kernel
// has it: otherwise each signal restarts a pending call and reports it again.
func installNotify(p program) (*os.File, error) {
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	fd, err := install(filter(p), flags|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	if errors.Is(err, unix.EINVAL) {
		fd, err = install(filter(p), flags)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(fd, "seccomp-notify"), nil
}

// install puts a filter on every thread at once.
func install(p []bpf.Instruction, flags uintptr) (uintptr, error) {
	raw, err := bpf.Assemble(p)
	if err != nil {
		return 0, fmt.Errorf("cannot assemble the filter: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		flags|unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	switch {
	case errno == unix.ENOSYS || errno == unix.EINVAL && flags == 0:
		return 0, fmt.Errorf("this kernel has no seccomp filters: %w", errno)
	case errno != 0:
		return 0, fmt.Errorf("cannot install the filter: %w", errno)
	case flags == 0 && fd != 0:
		return 0, fmt.Errorf("cannot install the filter: thread %d refuses it", fd)
	}
	return fd, nil
}
