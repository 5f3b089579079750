package process

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/cage"
)

// plan is everything that is decided on the host before init builds the cage.
type plan struct {
	spec   cage.Spec
	user   account
	creds  *credentials
	dir    mountPath
	rw, ro []mountPath
	tools  []string // host directories of tool chains, shown read-only
	launch launch

	repos []mountPath // main repositories of git worktrees, read-write
}

// Sizes of the cage's own file systems in memory. They bound what an agent
// can take of the host's memory with files; a limit on memory counts them too.
const (
	maxSize = 4 << 30 // of /tmp, /var, /dev/shm and the home directory
	runSize = 64 << 20
)

// largeSize is maxSize, or an eighth of the machine's memory when that is less: a
// cage that fills all four of its file systems must not make the kernel end the
// host's programs.
func largeSize() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return maxSize
	}
	return min(maxSize, max(64<<20, int64(info.Totalram*uint64(info.Unit)/8)))
}

// newPlan decides what the cage is made of. It changes nothing on the host.
func newPlan(spec cage.Spec) (*plan, error) {
	p := &plan{spec: spec, user: currentAccount()}
	p.creds = knownCredentials(p.user.home)
	var err error
	if p.dir, err = p.creds.vet(spec.Dir, "the working directory", spec.AllowSensitive); err != nil {
		return nil, err
	}
	if !p.dir.dir {
		return nil, hinted(nil, "", "cannot use %s as the working directory: it is a file", spec.Dir)
	}
	if p.rw, p.ro, err = vetAll(p.creds, spec); err != nil {
		return nil, err
	}
	if err := p.worktree(); err != nil {
		return nil, err
	}
	p.tools = toolDirs(p.user.home, os.Getenv("PATH"), p.creds)
	p.launch = launch{
		Command: spec.Command,
		Dir:     p.dir.path,
		Ports:   spec.Ports,
		Host:    hostName(spec.Name),
		Files:   orDefault(spec.Limits.OpenFiles, defaultOpenFiles),
		Procs:   orDefault(spec.Limits.Processes, defaultProcesses),
		Without: spec.Without,
		TTY:     replaced(spec),
	}
	if err := p.build(); err != nil {
		return nil, err
	}
	p.launch.Env = p.environment()
	return p, nil
}

// Limits that hold when none are asked for. The number of processes is counted
// within the cage's user namespace.
const (
	defaultOpenFiles = 65536
	defaultProcesses = 4096
)

func orDefault(n, other int) int {
	if n > 0 {
		return n
	}
	return other
}

// hostName makes a host name of a cage's name (RFC 1123 section 2.1).
func hostName(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' && b.Len() > 0 {
			b.WriteRune(r)
		}
	}
	s := strings.TrimRight(b.String(), "-")
	if s == "" {
		return "cage"
	}
	return s[:min(len(s), 63)]
}

// steps are what one part of the plan asks for.
type steps struct {
	ops []op
	err error
}

func (p *plan) do(ops ...op) { p.launch.Ops = append(p.launch.Ops, ops...) }

// build lists the steps. A mount comes after everything that it lies upon.
func (p *plan) build() error {
	trusted := make(chan steps, 1)
	go func() {
		// It reads every certificate of the system meanwhile.
		ops, err := p.trust()
		trusted <- steps{ops, err}
	}()
	p.system()
	p.devices()
	p.etc()
	p.do(op{Kind: opProc, Dest: "/proc", Size: int64(p.launch.Procs)})
	p.private()
	if err := p.home(); err != nil {
		return err
	}
	p.given()
	trust := <-trusted
	p.do(trust.ops...)
	return trust.err
}

// system shows programs and libraries.
func (p *plan) system() {
	for _, d := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/nix/var/nix/profiles", "/gnu/store"} {
		p.show(d)
	}
	// What CPU detection reads (lscpu, nproc, the JVM), and nothing else of /sys.
	p.show("/sys/devices/system/cpu")
}

// show binds a path of the host read-only at its place, or copies it when it
// is a link. What is missing or unreadable is left out.
func (p *plan) show(path string) {
	st, err := os.Lstat(path)
	if err != nil {
		return
	}
	switch m := st.Mode(); {
	case m&os.ModeSymlink != 0:
		if target, err := os.Readlink(path); err == nil {
			p.do(op{Kind: opSymlink, Dest: path, Target: target, Optional: true})
		}
	case m.IsDir() || m.IsRegular():
		id := idOf(st)
		o := op{Kind: opBind, Dest: path, Src: path, Dev: id.dev, Ino: id.ino, Optional: true}
		if m.IsRegular() && st.Size() <= maxCopy && within(path, "/etc") {
			o.Kind = opCopy
		}
		p.do(o)
		p.readable(path)
	}
}

// readable lets the cage read a path, unless it may already.
func (p *plan) readable(path string) {
	if !slices.ContainsFunc(p.launch.ReadOnly, func(dir string) bool { return within(path, dir) }) {
		p.launch.ReadOnly = append(p.launch.ReadOnly, path)
	}
}

func (p *plan) devices() {
	p.do(op{Kind: opDir, Dest: "/dev"})
	for _, n := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		p.do(op{Kind: opBind, Dest: "/dev/" + n, Src: "/dev/" + n, Device: true})
	}
	p.do(
		op{Kind: opPts, Dest: "/dev/pts"},
		op{Kind: opTmpfs, Dest: "/dev/shm", Mode: 0o1777, Size: largeSize()},
		op{Kind: opSymlink, Dest: "/dev/ptmx", Target: "pts/ptmx"},
		op{Kind: opSymlink, Dest: "/dev/fd", Target: "/proc/self/fd"},
		op{Kind: opSymlink, Dest: "/dev/stdin", Target: "/proc/self/fd/0"},
		op{Kind: opSymlink, Dest: "/dev/stdout", Target: "/proc/self/fd/1"},
		op{Kind: opSymlink, Dest: "/dev/stderr", Target: "/proc/self/fd/2"},
	)
	p.launch.Devices = append(p.launch.Devices, "/dev")
	p.launch.ReadWrite = append(p.launch.ReadWrite, "/dev/shm", "/proc")
}

// private gives the cage writable directories of its own.
func (p *plan) private() {
	p.do(
		op{Kind: opTmpfs, Dest: "/tmp", Mode: 0o1777, Size: largeSize()},
		op{Kind: opTmpfs, Dest: "/run", Size: runSize},
		op{Kind: opTmpfs, Dest: "/var", Size: largeSize()},
		op{Kind: opDir, Dest: "/var/tmp", Mode: 0o1777},
		op{Kind: opDir, Dest: "/var/log"},
		op{Kind: opDir, Dest: "/var/lib/apt/lists/partial"},
		op{Kind: opDir, Dest: "/var/cache/apt/archives/partial"},
		op{Kind: opSymlink, Dest: "/var/run", Target: "/run"},
		op{Kind: opSymlink, Dest: "/var/lock", Target: "/run/lock"},
		op{Kind: opDir, Dest: "/run/lock", Mode: 0o1777},
		op{Kind: opDir, Dest: "/home"},
	)
	for _, d := range []string{
		"/var/lib/dpkg", "/var/lib/rpm", "/var/lib/apt/extended_states", "/var/lib/apt/cdroms.list",
		"/var/cache/fontconfig", "/var/lib/ca-certificates", "/var/lib/alternatives",
	} {
		p.show(d)
	}
	p.launch.ReadWrite = append(p.launch.ReadWrite, "/tmp", "/run", "/var")
}

// home makes the home directory at the place of the real one.
func (p *plan) home() error {
	if p.spec.PersistentHome != "" {
		real, err := resolve(p.spec.PersistentHome)
		if err != nil {
			return fmt.Errorf("cannot use the cage's home directory: %w", err)
		}
		st, err := os.Lstat(real)
		if err != nil {
			return fmt.Errorf("cannot use the cage's home directory: %w", err)
		}
		id := idOf(st)
		p.do(op{Kind: opBind, Dest: p.user.home, Src: real, Dev: id.dev, Ino: id.ino, Writable: true})
	} else {
		p.do(op{Kind: opTmpfs, Dest: p.user.home, Mode: 0o700, Size: largeSize()})
	}
	p.launch.ReadWrite = append(p.launch.ReadWrite, p.user.home)
	for _, d := range p.tools {
		p.show(d)
	}
	p.homeLinks()
	return nil
}

// homeLinks repeats the links of tool directories in a private home.
func (p *plan) homeLinks() {
	if p.spec.PersistentHome != "" {
		return
	}
	for _, d := range []string{".cargo/env"} {
		p.show(filepath.Join(p.user.home, d))
	}
}

// given mounts what the user gives, outer paths before inner ones, and masks
// the host's sockets in it.
func (p *plan) given() {
	type grant struct {
		mountPath
		writable bool
	}
	grants := []grant{{p.dir, true}}
	for _, m := range slices.Concat(p.rw, p.repos) {
		grants = append(grants, grant{m, true})
	}
	for _, m := range p.ro {
		grants = append(grants, grant{m, false})
	}
	slices.SortStableFunc(grants, func(a, b grant) int { return len(a.path) - len(b.path) })
	for _, g := range grants {
		p.do(op{Kind: opBind, Dest: g.path, Src: g.path, Dev: g.id.dev, Ino: g.id.ino, Writable: g.writable})
		if g.writable {
			p.launch.ReadWrite = append(p.launch.ReadWrite, g.path)
		} else {
			p.launch.ReadOnly = append(p.launch.ReadOnly, g.path)
		}
	}
	for _, g := range grants {
		for _, s := range findSockets(g.path) {
			if !slices.Contains(p.spec.AllowSensitive, s) {
				p.do(op{Kind: opCover, Dest: s, Src: emptyFile, Optional: true})
			}
		}
	}
}

// Bounds of the search for sockets: what a start may cost.
const (
	socketDepth   = 4
	socketEntries = 20000
)

// findSockets lists UNIX sockets in a tree that is shared with the cage. A
// network namespace does not keep anybody from connecting to them.
func findSockets(root string) []string {
	left := socketEntries
	var found []string
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		f, err := os.Open(dir)
		if err != nil {
			return
		}
		entries, _ := f.ReadDir(left)
		f.Close()
		left -= len(entries)
		for _, e := range entries {
			switch {
			case e.Type()&os.ModeSocket != 0:
				found = append(found, filepath.Join(dir, e.Name()))
			case e.IsDir() && depth < socketDepth && left > 0 && e.Name() != "node_modules":
				walk(filepath.Join(dir, e.Name()), depth+1)
			}
		}
	}
	walk(root, 1)
	return found
}
