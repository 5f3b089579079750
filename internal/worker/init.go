package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/confine"
)

// planEnv is the variable in which a worker's first process finds what it is
// for. Nothing in it is secret, and the interpreter does not get it.
const planEnv = "PLAN"

type plan struct {
	Python  interpreter
	Memory  int64 // RLIMIT_AS, in bytes
	Without []confine.Layer
}

// Limits of a worker. It is one process, so that the limit on its memory holds
// for all that it does. The time that it takes is bounded by whoever waits for
// its answer.
const (
	maxThreads = 64
	maxFiles   = 64
)

// loader is the first thing that the interpreter runs: a line of JSON on the
// connection is a text with the program.
const loader = `import io, json
channel = io.open(3, 'rb', 1 << 16, closefd=False)
exec(compile(json.loads(channel.readline()), '<agentcage>', 'exec'), {'__name__': 'agentcage', 'channel': channel})
`

// enter is the life of a worker's first process. It becomes the interpreter,
// or tells why not.
func enter() {
	conn := os.NewFile(channelFD, "worker")
	fail(conn, become())
}

func become() error {
	runtime.LockOSThread() // Landlock is on this thread, which becomes the interpreter
	var p plan
	if err := json.Unmarshal([]byte(os.Getenv(planEnv)), &p); err != nil {
		return fmt.Errorf("cannot read what to run: %w", err)
	}
	shown, err := buildView(p.Python.Files)
	if err != nil {
		return err
	}
	o := confine.Options{
		ReadOnly: append(shown, "/proc"), Devices: []string{"/dev"}, Without: p.Without,
		Processes: maxThreads, OpenFiles: maxFiles, Single: true,
	}
	if _, err := confine.Apply(o); err != nil {
		return err
	}
	if err := confine.Verify(o); err != nil {
		return err
	}
	if err := unix.CloseRange(channelFD+1, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("cannot close what is inherited: %w", err)
	}
	if _, err := unix.FcntlInt(channelFD, unix.F_SETFD, 0); err != nil {
		return err
	}
	// It was asked for the main thread, and is a thread's own (prctl(2)).
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("cannot tie it to its parent: %w", err)
	}
	if err := alive(spawnerFD); err != nil {
		return err
	}
	// -I: neither the environment nor a user's own packages have a say.
	args := []string{p.Python.Path, "-I", "-B", "-X", "utf8", "-c", loader}
	return execLimited(p.Python.Path, args, []string{"LANG=C.UTF-8"}, p.Memory)
}

// alive looks at the process of a pidfd. Of a parent that dies before it is tied
// to there comes no signal, and in a pid namespace of its own a process cannot
// see that it has got another one: it would run on when everybody else is gone.
func alive(pidfd int) error {
	ended := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(ended, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("cannot tell whether its parent is there: %w", err)
		case n > 0:
			return errors.New("its parent has ended")
		default:
			return nil
		}
	}
}

// execLimited sets the limit last, since Go's runtime reserves more.
func execLimited(path string, args, env []string, memory int64) error {
	for resource, most := range map[int]uint64{unix.RLIMIT_AS: uint64(memory), unix.RLIMIT_FSIZE: 0} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("cannot limit what it uses: %w", err)
		}
	}
	return fmt.Errorf("cannot run %s: %w", path, syscall.Exec(path, args, env))
}

const (
	hostRoot = "/.host"
	base     = "/tmp" // any directory that every host has; it is only covered for an instant
)

// buildView replaces the root by one that has the given files and directories
// of the host, read-only, /proc and four devices. It returns what of them is
// there. Nothing in the view can be written to.
func buildView(files []string) ([]string, error) {
	if err := newRoot(); err != nil {
		return nil, fmt.Errorf("cannot make its view of the file system: %w", err)
	}
	var shown []string
	for _, f := range files {
		ok, err := show(f)
		if err != nil {
			return nil, fmt.Errorf("cannot show %s: %w", f, err)
		}
		if ok {
			shown = append(shown, f)
		}
	}
	for _, d := range []string{"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"} {
		if err := graft(d, 0); err != nil {
			return nil, fmt.Errorf("cannot show %s: %w", d, err)
		}
	}
	if err := mountProc(); err != nil {
		return nil, err
	}
	if err := unix.Unmount(hostRoot, unix.MNT_DETACH); err != nil {
		return nil, fmt.Errorf("cannot let go of the host's file system: %w", err)
	}
	if err := unix.Rmdir(hostRoot); err != nil {
		return nil, err
	}
	const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: attrs}); err != nil {
		return nil, fmt.Errorf("cannot make its view read-only: %w", err)
	}
	return shown, nil
}

func newRoot() error {
	unix.Umask(0o022)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("worker", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=1m"); err != nil {
		return err
	}
	if err := unix.Mkdir(base+hostRoot, 0o755); err != nil {
		return err
	}
	if err := unix.PivotRoot(base, base+hostRoot); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// show repeats a link of the host, or shows a file or a tree at its place.
func show(path string) (bool, error) {
	st, err := os.Lstat(hostRoot + path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st.Mode()&os.ModeSymlink == 0 {
		return true, graft(path, unix.MOUNT_ATTR_NODEV)
	}
	target, err := os.Readlink(hostRoot + path)
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	return false, os.Symlink(target, path)
}

// graft mounts a copy of the tree at a path of the host at the same path here,
// read-only with everything that is mounted further down (mount_setattr(2)).
func graft(path string, attrs uint64) error {
	st, err := os.Stat(hostRoot + path)
	if err != nil {
		return err
	}
	if err := makePoint(path, st.IsDir()); err != nil {
		return err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, hostRoot+path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	attrs |= unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attrs}); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// makePoint makes the place for a mount. It may be there already, below
// something that is shown.
func makePoint(path string, isDir bool) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if isDir {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o444)
}

func mountProc() error {
	if err := os.Mkdir("/proc", 0o755); err != nil {
		return err
	}
	err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
	if errors.Is(err, unix.EPERM) {
		return &Error{
			Err: errors.New("the kernel allows no /proc of its own"),
			Fix: "parts of /proc are hidden on this host, as container runtimes do; with Docker use --security-opt systempaths=unconfined",
		}
	}
	if err != nil {
		return fmt.Errorf("cannot mount /proc: %w", err)
	}
	return nil
}
