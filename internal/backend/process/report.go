package process

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Finding is a file that a program on the host may run, or take commands from,
// and that was created or changed while the cage ran.
type Finding struct {
	Path string // absolute, on the host
	Why  string
}

// Bounds of the search at the end of a cage.
const (
	findEntries = 100000
	findMost    = 100
)

// Findings lists what the agent may have left for the host to run in places
// that could not be protected: a repository of its own, nested or in a
// directory that had none, and the like of guardRules further down. It is
// complete when Wait has returned, and empty before.
//
// What is listed has changed since the start by the inode's own clock
// (ctime), which nobody can set back.
func (p *Process) Findings() []Finding {
	select {
	case <-p.ended:
		return p.findings
	default:
		return nil
	}
}

func (r *registration) findings(since time.Time) []Finding {
	if r == nil || r.plan == nil {
		return nil
	}
	s := &search{since: since.Add(-clockGrain), guarded: r.guarded, left: findEntries}
	var trees []string
	for _, root := range r.plan.writable() {
		trees = append(trees, root.path)
	}
	s.walk(trees)
	s.commands(r.plan.dir.path, trees)
	return s.found
}

// clockGrain is more than the tick of the kernel's clock for inodes.
const clockGrain = 10 * time.Millisecond

type search struct {
	since   time.Time
	guarded map[string]bool
	left    int
	found   []Finding
}

func (s *search) add(path, why string) {
	if len(s.found) < findMost && !slices.ContainsFunc(s.found, func(f Finding) bool { return f.Path == path }) {
		s.found = append(s.found, Finding{path, why})
	}
}

// walk looks at what lies near the top first, at any depth, and at packages of
// Node last, as they are many.
func (s *search) walk(trees []string) {
	queue, last := slices.Clone(trees), []string(nil)
	for len(queue)+len(last) > 0 {
		if len(queue) == 0 {
			queue, last = last, nil
		}
		dir := queue[0]
		queue = queue[1:]
		if s.left <= 0 {
			if !strings.Contains(dir, "/node_modules") {
				s.add(trees[0], "holds too many files to look at all of them")
			}
			return
		}
		entries := s.list(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if s.guarded[path] {
				continue
			}
			s.judge(path, e)
			switch {
			case !e.IsDir() || e.Name() == ".git":
			case e.Name() == "node_modules":
				last = append(last, path)
			default:
				queue = append(queue, path)
			}
		}
		// Git also takes a directory for a repository that is not called .git,
		// when somebody goes there.
		if holdsAll(entries, "HEAD", "objects", "refs") {
			s.repository(dir)
		}
	}
}

func (s *search) list(dir string) []os.DirEntry {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	entries, _ := f.ReadDir(s.left)
	s.left -= len(entries)
	return entries
}

func holdsAll(entries []os.DirEntry, names ...string) bool {
	for _, name := range names {
		if !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == name }) {
			return false
		}
	}
	return true
}

// commands looks at directories of the caller's PATH that the agent can write
// to, as that of an active Python environment: a program there that has the
// name of another one is run in its place.
func (s *search) commands(dir string, trees []string) {
	path := filepath.SplitList(os.Getenv("PATH"))
	var mine, others []string
	for _, p := range path {
		if !filepath.IsAbs(p) {
			p = filepath.Join(dir, p)
		}
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(trees, func(tree string) bool { return within(real, tree) }) {
			mine = append(mine, real)
		} else {
			others = append(others, real)
		}
	}
	for _, m := range mine {
		for _, e := range s.list(m) {
			file := filepath.Join(m, e.Name())
			if !e.IsDir() && s.newer(file) && slices.ContainsFunc(others, func(o string) bool {
				_, err := os.Stat(filepath.Join(o, e.Name()))
				return err == nil
			}) {
				s.add(file, "is in your PATH, and has the name of another command")
			}
		}
	}
}

func (s *search) judge(path string, e os.DirEntry) {
	if e.Name() == ".git" {
		s.git(path, e)
		return
	}
	for _, r := range guardRules {
		if e.Name() == r.path && s.changed(path) {
			s.add(path, r.why)
		}
	}
	if e.Name() == "pyvenv.cfg" && s.changed(path) {
		s.add(path, "names the Python that editors start for this environment")
	}
}

// changed looks at the path and, for a directory, at what is directly in it.
func (s *search) changed(path string) bool {
	if s.newer(path) {
		return true
	}
	entries, _ := os.ReadDir(path)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return s.newer(filepath.Join(path, e.Name())) })
}

func (s *search) newer(path string) bool {
	st, err := os.Lstat(path)
	if err != nil {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && !time.Unix(sys.Ctim.Unix()).Before(s.since)
}

// git looks into a git directory for what git runs.
func (s *search) git(path string, e os.DirEntry) {
	if !e.IsDir() {
		if s.newer(path) {
			s.add(path, "says where git finds the configuration")
		}
		return
	}
	s.repository(path)
}

// repository looks into a git directory and those in it.
func (s *search) repository(path string) {
	places := append([]gitPlace{{path: path}}, gitInner(path)...)
	for _, g := range places {
		for _, r := range gitRules {
			f := filepath.Join(g.path, r.path)
			if s.guarded[f] || !s.newerHooks(f) {
				continue
			}
			if r.path == "config" && !dangerousConfig(f) {
				continue
			}
			s.add(f, r.why)
		}
	}
}

// newerHooks is newer, but for a directory of hooks only when there is a hook
// in it that git would run.
func (s *search) newerHooks(path string) bool {
	st, err := os.Lstat(path)
	if err != nil {
		return false
	}
	if !st.IsDir() {
		return s.newer(path)
	}
	entries, _ := os.ReadDir(path)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return !strings.HasSuffix(e.Name(), ".sample") && s.newer(filepath.Join(path, e.Name()))
	})
}

// harmlessSections and harmlessKeys are what git init and git clone write.
// Anything else in a new configuration is worth a look.
var (
	harmlessSections = []string{"user", "branch", "init", "pull", "push", "color", "submodule", "extensions", "merge", "rebase"}
	harmlessKeys     = []string{"repositoryformatversion", "filemode", "bare", "logallrefupdates", "ignorecase", "precomposeunicode", "symlinks", "autocrlf", "eol", "quotepath"}
)

func dangerousConfig(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	section := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			if !strings.HasSuffix(line, "]") {
				return true
			}
			section, _, _ = strings.Cut(strings.ToLower(strings.Trim(line, "[]")), " ")
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		switch {
		case slices.Contains(harmlessSections, section) && !strings.HasPrefix(value, "!") && key != "update":
		case section == "core" && slices.Contains(harmlessKeys, key):
		case section == "remote" && (key == "url" || key == "fetch" || key == "pushurl") && !strings.Contains(value, "ext::"):
		default:
			return true
		}
	}
	return lines.Err() != nil
}
