package process

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kinds of steps that build the cage's view of the file system. They are run
// in order by init, inside the new namespaces. Every path is absolute and free
// of symbolic links.
const (
	opTmpfs   = "tmpfs"   // an empty file system in memory
	opBind    = "bind"    // a host file or tree
	opDir     = "dir"     // a directory
	opFile    = "file"    // a file with content
	opCopy    = "copy"    // a copy of a small file of the host
	opSymlink = "symlink" // a link
	opProc    = "proc"    // /proc of the cage
	opPts     = "devpts"  // terminals of the cage
	opPin     = "pin"     // a directory that cannot be renamed, as it is a mount point
	opShield  = "shield"  // something in a writable tree that becomes read-only
	opCover   = "cover"   // a placeholder in a writable tree, hidden below From
)

type op struct {
	Kind string
	Dest string
	Src  string `json:",omitempty"` // bind: on the host; cover: in the cage
	Dev  uint64 `json:",omitempty"` // identity of what was checked; 0 leaves it unchecked
	Ino  uint64 `json:",omitempty"`

	Writable bool   `json:",omitempty"`
	Device   bool   `json:",omitempty"` // device nodes work
	Optional bool   `json:",omitempty"` // may be missing
	Mode     uint32 `json:",omitempty"`
	Data     []byte `json:"-"`          // of a file; follows the JSON, see writeLaunch
	Length   int    `json:",omitempty"` // of Data
	Target   string `json:",omitempty"` // of a link
	Size     int64  `json:",omitempty"` // of a tmpfs, in bytes; of proc, in processes
}

// view builds the new root. Both roots are descriptors: no step depends on
// what a path means at the moment.
type view struct {
	root, old int
	buf       []byte // of copy
}

const (
	noLinks   = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	base      = "/tmp" // any directory that every host has; it is only covered for an instant
	attrs     = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	attrsRO   = attrs | unix.MOUNT_ATTR_RDONLY
	oldRoot   = ".host"
	atEmpty   = unix.AT_EMPTY_PATH
	pathFlags = unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW
)

// newView replaces the root by an empty tmpfs, below which the host's root
// stays until finish.
func newView() (*view, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("cannot make mounts private to the cage: %w", err)
	}
	if err := unix.Mount("cage", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=16m"); err != nil {
		return nil, fmt.Errorf("cannot mount the cage's root: %w", err)
	}
	if err := unix.Mkdir(base+"/"+oldRoot, 0o700); err != nil {
		return nil, err
	}
	if err := unix.PivotRoot(base, base+"/"+oldRoot); err != nil {
		return nil, fmt.Errorf("cannot change the cage's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return nil, err
	}
	v := &view{}
	var err error
	if v.root, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, err
	}
	v.old, err = unix.Open("/"+oldRoot, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return v, err
}

// finish lets go of the host's root and makes the new one read-only.
func (v *view) finish() error {
	unix.Close(v.old)
	if err := unix.Unmount("/"+oldRoot, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot let go of the host's file system: %w", err)
	}
	if err := unix.Rmdir("/" + oldRoot); err != nil {
		return err
	}
	err := setAttr(v.root, false, unix.MOUNT_ATTR_RDONLY)
	unix.Close(v.root)
	return err
}

func (v *view) run(o op) error {
	var err error
	switch o.Kind {
	case opTmpfs:
		err = v.tmpfs(o)
	case opBind:
		err = v.bind(o)
	case opDir:
		err = v.dir(o)
	case opFile:
		err = v.file(o)
	case opCopy:
		err = v.copy(o)
	case opSymlink:
		err = v.symlink(o)
	case opProc:
		err = v.proc(o)
	case opPts:
		err = v.special(o, "devpts", "newinstance", "ptmxmode=0666", "mode=0620")
	case opPin, opShield:
		err = v.self(o)
	case opCover:
		err = v.cover(o)
	default:
		err = errors.New("unknown step")
	}
	if err != nil && o.Optional && errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot set up %s in the cage (%s): %w", o.Dest, o.Kind, err)
	}
	return nil
}

func relative(p string) string {
	p = strings.TrimPrefix(path.Clean(p), "/")
	if p == "" {
		return "."
	}
	return p
}

// open opens a path below dir without following any link.
func open(dir int, p string) (int, error) {
	for range 100 {
		fd, err := unix.Openat2(dir, relative(p), &unix.OpenHow{Flags: pathFlags, Resolve: noLinks})
		if err != unix.EAGAIN && err != unix.EINTR { // EAGAIN: something was renamed meanwhile
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// parent opens the directory that holds p in the new root, making what is
// missing of it.
func (v *view) parent(p string) (int, string, error) {
	dir, name := path.Split(path.Clean(p))
	fd, err := open(v.root, dir)
	if err != unix.ENOENT {
		return fd, name, err
	}
	up, own, err := v.parent(path.Clean(dir))
	if err != nil {
		return -1, "", err
	}
	defer unix.Close(up)
	if err := unix.Mkdirat(up, own, 0o755); err != nil && err != unix.EEXIST {
		return -1, "", err
	}
	fd, err = open(up, own)
	return fd, name, err
}

// point opens the place for a mount, making it when it is missing.
func (v *view) point(p string, isDir bool, mode uint32) (int, error) {
	fd, err := open(v.root, p)
	if err != unix.ENOENT {
		return fd, err
	}
	dir, name, err := v.parent(p)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	if isDir {
		err = unix.Mkdirat(dir, name, mode)
	} else {
		var f int
		f, err = unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o444)
		unix.Close(f)
	}
	if err != nil {
		return -1, err
	}
	return open(dir, name)
}

func (v *view) dir(o op) error {
	fd, err := v.point(o.Dest, true, modeOr(o.Mode, 0o755))
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func modeOr(mode, other uint32) uint32 {
	if mode == 0 {
		return other
	}
	return mode
}

func (v *view) file(o op) error {
	dir, name, err := v.parent(o.Dest)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, modeOr(o.Mode, 0o644))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for data := o.Data; len(data) > 0; {
		n, err := unix.Write(fd, data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// maxCopy is the size up to which a file of /etc is copied rather than
// mounted: a mount costs more.
const maxCopy = 64 << 10

func (v *view) copy(o op) error {
	path, err := open(v.old, o.Src)
	if err != nil {
		return err
	}
	defer unix.Close(path)
	if _, err := check(path, o); err != nil {
		return err
	}
	fd, err := unix.Openat2(v.old, relative(o.Src), &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: noLinks})
	if err != nil {
		return nil // not for this user to read
	}
	defer unix.Close(fd)
	if v.buf == nil {
		v.buf = make([]byte, maxCopy)
	}
	o.Data = v.buf
	n, err := unix.Read(fd, o.Data)
	if err != nil {
		return err
	}
	o.Data, o.Mode = o.Data[:n], 0o644
	return v.file(o)
}

func (v *view) symlink(o op) error {
	dir, name, err := v.parent(o.Dest)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Symlinkat(o.Target, dir, name); err != nil && !(o.Optional && err == unix.EEXIST) {
		return err
	}
	return nil
}

func (v *view) tmpfs(o op) error {
	options := []string{fmt.Sprintf("mode=%o", modeOr(o.Mode, 0o755))}
	if o.Size > 0 {
		options = append(options, fmt.Sprintf("size=%d", o.Size))
	}
	return v.special(o, "tmpfs", options...)
}

// special mounts a file system of the cage's own.
func (v *view) special(o op, kind string, options ...string) error {
	at, err := v.point(o.Dest, true, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	set := unix.MOUNT_ATTR_NOSUID
	if kind != "devpts" {
		set |= unix.MOUNT_ATTR_NODEV
	}
	if kind != "tmpfs" {
		set |= unix.MOUNT_ATTR_NOEXEC
	}
	tree, err := newFileSystem(kind, set, options)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// newFileSystem makes a mount that is nowhere yet (fsopen(2)). Options are
// "key=value", or "key" for a flag.
func newFileSystem(kind string, set int, options []string) (int, error) {
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	for _, o := range options {
		if k, val, ok := strings.Cut(o, "="); ok {
			err = unix.FsconfigSetString(ctx, k, val)
		} else {
			err = unix.FsconfigSetFlag(ctx, o)
		}
		if err != nil {
			return -1, fmt.Errorf("option %s: %w", o, err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, err
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, set)
}

// procReadOnly and procMasked are the parts of /proc through which a process
// with the host's user id 0 could change or read the host: their files belong
// to that id whatever the namespace (proc(5)).
var (
	procReadOnly = []string{"sys", "dynamic_debug", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "asound", "driver", "mtrr", "cgroups"}
	procMasked   = []string{
		"kcore", "keys", "key-users", "timer_list", "timer_stats", "sched_debug", "latency_stats",
		"kmsg", "kallsyms", "kpagecount", "kpageflags", "kpagecgroup", "vmallocinfo", "slabinfo", "config.gz", "interrupts", "iomem", "ioports", "modules",
	}
)

func (v *view) proc(o op) error {
	if err := v.special(o, "proc"); err != nil {
		if errors.Is(err, unix.EPERM) {
			return hinted(err, "parts of /proc are hidden on this host, as container runtimes do; with Docker use --security-opt systempaths=unconfined", "the kernel allows no /proc of our own")
		}
		return err
	}
	if o.Size > 0 && os.Geteuid() == 0 && ownPidMax() {
		// RLIMIT_NPROC does not count for uid 0 (setrlimit(2)). The kernel
		// keeps the first 300 numbers.
		err := os.WriteFile(o.Dest+"/sys/kernel/pid_max", strconv.AppendInt(nil, o.Size+301, 10), 0)
		if err != nil {
			return fmt.Errorf("cannot limit the cage's processes: %w", err)
		}
	}
	for _, name := range procReadOnly {
		if err := v.self(op{Kind: opShield, Dest: o.Dest + "/" + name}); err != nil && err != unix.ENOENT {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, name := range procMasked {
		// What nobody can read needs no mask. Init may more than the command.
		if unix.Access(o.Dest+"/"+name, unix.R_OK) != nil {
			continue
		}
		if err := v.cover(op{Dest: o.Dest + "/" + name, Src: emptyFile}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	// The numbers of init's descriptors, which a process with user id 0 may
	// list though not use, are nobody's business. A kernel that allows no
	// mounts there loses nothing but that.
	for _, name := range []string{"fd", "fdinfo", "map_files"} {
		_ = v.cover(op{Dest: o.Dest + "/1/" + name, Src: emptyDir})
	}
	return nil
}

// bind mounts a host file or tree at its place. What is mounted is what was
// checked: it is opened without following links and compared by identity.
func (v *view) bind(o op) error {
	src, err := open(v.old, o.Src)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	isDir, err := check(src, o)
	if err != nil {
		return err
	}
	at, err := v.point(o.Dest, isDir, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return graft(src, at, o.attributes())
}

func (o op) attributes() uint64 {
	a := uint64(unix.MOUNT_ATTR_NOSUID)
	if !o.Device {
		a |= unix.MOUNT_ATTR_NODEV
	}
	// A device can be written to on a read-only mount, but its mode, owner and
	// times, which are the host's, cannot be changed there: uid 0 in the cage
	// owns the host's /dev/null.
	if !o.Writable {
		a |= unix.MOUNT_ATTR_RDONLY
	}
	return a
}

var errChanged = errors.New("it was replaced while the cage was being made")

// check compares an open file with the identity that was recorded when the
// user's wish was checked.
func check(fd int, o op) (isDir bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return false, errChanged
	}
	if o.Ino != 0 && (st.Ino != o.Ino || st.Dev != o.Dev) {
		return false, errChanged
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// self mounts a part of the view on itself.
func (v *view) self(o op) error {
	at, err := open(v.root, o.Dest)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if _, err := check(at, o); err != nil {
		return err
	}
	o.Writable = o.Kind == opPin
	return graft(at, at, o.attributes())
}

// cover hides a placeholder, which is checked by identity, below something of
// the cage's own.
func (v *view) cover(o op) error {
	at, err := open(v.root, o.Dest)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if _, err := check(at, o); err != nil {
		return err
	}
	src, err := open(v.root, o.Src)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	return graft(src, at, attrsRO)
}

// graft mounts a copy of the tree at src on the open place at (mount_setattr(2),
// AT_RECURSIVE: nothing that is mounted further down escapes the attributes).
func graft(src, at int, set uint64) error {
	tree, err := unix.OpenTree(src, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|atEmpty)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := setAttr(tree, true, set); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

func setAttr(fd int, recursive bool, set uint64) error {
	flags := uint(atEmpty)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: set})
	if err == unix.ENOSYS {
		return hinted(err, "Linux 5.12 or newer is needed", "the kernel cannot set the attributes of a mount tree")
	}
	return err
}
