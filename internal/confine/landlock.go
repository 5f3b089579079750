//go:build linux

package confine

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights on files by what Options grants. The header is linux/landlock.h.
const (
	rightsFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX

	rightsRead = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	rightsExec = rightsRead | unix.LANDLOCK_ACCESS_FS_EXECUTE

	// Device nodes are never made, device ioctls stay with Devices, and a
	// Unix socket that was made outside of the cage is no one's to use,
	// wherever it lies.
	rightsWrite = rightsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER

	rightsDevice = rightsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// handled returns the rights on files that a version of Landlock knows.
// Versions 4 and 10 are about the network, 6 about scopes, 7 about logs and 8
// about threads.
func handled(abi int) uint64 {
	h := uint64(unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1)
	if abi >= 2 {
		h |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		h |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		h |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 9 {
		h |= unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX
	}
	return h
}

// landlockABI asks the kernel for its version of Landlock.
func landlockABI() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch {
	case errno == unix.ENOSYS:
		return 0, errors.New("this kernel was built without Landlock (it came with Linux 5.13)")
	case errno == unix.EOPNOTSUPP:
		return 0, errors.New("the kernel has Landlock switched off at boot; add landlock to the lsm= parameter of the kernel")
	case errno != 0:
		return 0, fmt.Errorf("cannot ask for the version of Landlock: %w", errno)
	case abi < 1:
		return 0, fmt.Errorf("unknown version %d of Landlock", abi)
	}
	return int(abi), nil
}

// grant is a path with the rights that hold below it.
type grant struct {
	path     string
	rights   uint64
	optional bool
}

func (o Options) grants() []grant {
	var g []grant
	for _, p := range o.ReadOnly {
		g = append(g, grant{path: p, rights: rightsExec})
	}
	for _, p := range o.ReadWrite {
		g = append(g, grant{path: p, rights: rightsWrite | rightsExec})
	}
	for _, p := range o.Devices {
		g = append(g, grant{path: p, rights: rightsDevice})
	}
	for _, p := range o.List {
		g = append(g, grant{path: p, rights: unix.LANDLOCK_ACCESS_FS_READ_DIR})
	}
	return g
}

func applyLandlock(o Options, r *Result) error {
	abi, err := landlockABI()
	if err != nil {
		return err
	}
	if err := restrict(abi, o.grants()); err != nil {
		return err
	}
	r.LandlockABI = abi
	return scopeSignals(abi)
}

// restrict puts one ruleset on every thread.
func restrict(abi int, grants []grant) error {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: handled(abi)}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	ruleset, err := newRuleset(abi, attr)
	if err != nil {
		return err
	}
	defer unix.Close(ruleset)
	for _, g := range grants {
		if err := addRule(ruleset, attr.Handled_access_fs, g); err != nil {
			return err
		}
	}
	if abi < 8 {
		return allThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), restrictFlags(abi))
	}
	return restrictSelf(ruleset, restrictFlags(abi)|unix.LANDLOCK_RESTRICT_SELF_TSYNC)
}

func newRuleset(abi int, attr unix.LandlockRulesetAttr) (int, error) {
	// Older kernels take a larger structure only when the rest is zero, and
	// the field for scopes came last.
	size := unsafe.Offsetof(attr.Quiet_access_fs)
	if abi < 6 {
		size = unsafe.Offsetof(attr.Handled_access_net)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return -1, fmt.Errorf("cannot make a ruleset: %w", errno)
	}
	return int(fd), nil
}

func addRule(ruleset int, known uint64, g grant) error {
	fd, err := unix.Open(g.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		if g.optional && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOTDIR)) {
			return nil
		}
		return fmt.Errorf("cannot allow %s: %w", g.path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot allow %s: %w", g.path, err)
	}
	rights := g.rights & known
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= rightsFile
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("cannot allow %s: %w", g.path, errno)
	}
	return nil
}

// restrictFlags keeps our own trials (Verify) and the sandboxes that programs
// in the cage build for themselves out of the kernel's audit log.
func restrictFlags(abi int) uintptr {
	if abi < 7 {
		return 0
	}
	return unix.LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF | unix.LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF
}

func restrictSelf(ruleset int, flags uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), flags, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// errataSignals is the bit of the second erratum, "scoped signal handling":
// without it a thread cannot even signal its siblings, and Go's runtime hangs.
const errataSignals = 1 << 1

// scopeSignals keeps the command from signalling pid 1. It goes on the calling
// thread alone: on every thread, each would be a domain of its own before
// version 8, and pid 1 could no longer signal what another thread started.
func scopeSignals(abi int) error {
	if abi < 6 {
		return nil
	}
	errata, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_ERRATA)
	if errno != 0 || errata&errataSignals == 0 {
		return nil
	}
	// Every ruleset denies renames and links from one directory to another
	// unless it grants them, even one that is not about files at all
	// (landlock(7), LANDLOCK_ACCESS_FS_REFER). The first ruleset has decided
	// on those.
	const refer = unix.LANDLOCK_ACCESS_FS_REFER
	ruleset, err := newRuleset(abi, unix.LandlockRulesetAttr{Handled_access_fs: refer, Scoped: unix.LANDLOCK_SCOPE_SIGNAL})
	if err != nil {
		return err
	}
	defer unix.Close(ruleset)
	if err := addRule(ruleset, refer, grant{path: "/", rights: refer}); err != nil {
		return err
	}
	return os.NewSyscallError("landlock_restrict_self", restrictSelf(ruleset, restrictFlags(abi)))
}
