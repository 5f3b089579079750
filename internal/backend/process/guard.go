package process

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// guardRule names a file or directory of a project that programs on the host
// run, or that tells them what to run, without being asked each time.
type guardRule struct {
	path string
	dir  bool
	// make says that it is protected even when it does not exist yet, by a
	// placeholder on the host. It costs an entry in the user's directory
	// while the cage runs, so only what runs with no question asked, or
	// with one that people answer without reading, has it.
	make bool
	json bool // what the cage sees of a placeholder must be valid JSON
	why  string
}

// guardRules is the list for the top of every writable directory.
var guardRules = []guardRule{
	{".envrc", false, true, false, "direnv runs it when a shell enters the directory"},
	{".direnv", true, false, false, "holds what direnv has evaluated"},
	{".vscode", true, true, false, "tasks, launch settings and interpreter paths of the editor"},
	{".idea", true, true, false, "run configurations and startup tasks of the IDE"},
	{".zed", true, false, false, "tasks and language servers of the editor"},
	{".fleet", true, false, false, "run configurations of the IDE"},
	{".nvim.lua", false, false, false, "Neovim runs it with exrc"},
	{".nvimrc", false, false, false, "Neovim runs it with exrc"},
	{".exrc", false, false, false, "Vim runs it with exrc"},
	{".vimrc", false, false, false, "Vim runs it with exrc"},
	{".dir-locals.el", false, false, false, "Emacs evaluates it"},
	{".devcontainer", true, false, false, "commands for the host (initializeCommand)"},
	{".devcontainer.json", false, false, false, "commands for the host (initializeCommand)"},
	{".claude", true, true, false, "hooks, permissions and MCP servers of the next agent, perhaps without a cage"},
	{".mcp.json", false, true, true, "MCP servers are programs that the next agent starts"},
	{".cursor", true, true, false, "MCP servers and hooks of the next agent"},
	{".codex", true, false, false, "MCP servers and hooks of the next agent"},
	{".gemini", true, false, false, "MCP servers and hooks of the next agent"},
	{".windsurf", true, false, false, "MCP servers and hooks of the next agent"},
	{".opencode", true, false, false, "plug-ins of the next agent"},
	{"opencode.json", false, false, false, "MCP servers of the next agent"},
	{".husky", true, true, false, "git hooks"},
	{".githooks", true, false, false, "git hooks, by custom"},
	{".pre-commit-config.yaml", false, false, false, "commands that the installed git hook runs"},
	{"lefthook.yml", false, false, false, "commands that the installed git hook runs"},
	{".lefthook.yml", false, false, false, "commands that the installed git hook runs"},
	{"lefthook-local.yml", false, false, false, "commands that the installed git hook runs"},
	{".lintstagedrc", false, false, false, "commands that the installed git hook runs"},
	{".lintstagedrc.json", false, false, false, "commands that the installed git hook runs"},
	{"mise.toml", false, false, false, "commands and environment when a shell enters the directory"},
	{".mise.toml", false, false, false, "commands and environment when a shell enters the directory"},
	{".autoenv.zsh", false, false, false, "run when a shell enters the directory"},
	{".yarnrc.yml", false, false, false, "names the program that yarn is (yarnPath) and its plug-ins"},
	{".npmrc", false, false, false, "names the registry, and programs (script-shell, git)"},
	{".cargo", true, false, false, "names the compiler and its wrappers"},
	{".bazelrc", false, false, false, "options of every build"},
	{".hg", true, false, false, "hooks of Mercurial"},
	{".jj", true, false, false, "settings of Jujutsu"},
}

// gitRules is the list for a git directory.
var gitRules = []guardRule{
	{"hooks", true, true, false, "git runs them"},
	{"config", false, true, false, "core.fsmonitor, core.hooksPath, filters, aliases and the like are commands"},
	{"config.worktree", false, true, false, "the same, for one working tree"},
	{"info/attributes", false, true, false, "names the filters, which are commands, for files"},
	{"commondir", false, true, false, "says where git finds the configuration"},
}

// hostText is what a placeholder says on the host where an empty file would
// stop programs: git dies of an empty commondir, and of one without which it
// would take the configuration from wherever the agent's says. "." is the git
// directory itself, as without the file (gitrepository-layout(5)).
var hostText = map[string]string{"commondir": ".\n"}

// guarded is one path that is protected.
type guarded struct {
	path        string // absolute
	id          fileID
	dir, json   bool
	text        bool // has a text on the host that the cage sees too
	placeholder bool // made by us on the host
}

// guard puts the guards up: it makes placeholders on the host, and adds the
// steps that make all of them read-only in the cage.
func (p *plan) guard() (*registration, error) {
	for range guardTries - 1 {
		reg, err := p.tryGuard()
		if !errors.Is(err, errMoved) {
			return reg, err
		}
		if err := reg.release(); err != nil {
			return nil, err
		}
	}
	return p.tryGuard()
}

// guardTries bounds how often the guards are planned anew because another
// cage in the same directory began or ended meanwhile.
const guardTries = 20

func (p *plan) tryGuard() (*registration, error) {
	reg, err := openRegistry()
	if err != nil {
		return nil, err
	}
	var all []guarded
	for _, root := range p.writable() {
		if err := p.refuseSystem(root); err != nil {
			return reg, err
		}
		g, err := p.guardTree(root, reg)
		if err != nil {
			return reg, err
		}
		all = append(all, g...)
	}
	if all, err = reg.commit(all); err != nil {
		return reg, err
	}
	p.raise(append(all, p.hideState(reg.dir)...))
	reg.note(p, all)
	return reg, nil
}

// systemPrograms are directories of programs that every user of the machine runs.
var systemPrograms = []string{
	"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64",
	"/usr/libexec", "/usr/local/bin", "/usr/local/sbin", "/usr/local/lib", "/etc",
}

// refuseSystem refuses a writable tree that holds the system's own programs:
// for root that would be the whole machine.
func (p *plan) refuseSystem(root mountPath) error {
	for _, d := range systemPrograms {
		real, err := resolve(d)
		if err == nil && (within(real, root.path) || within(root.path, real) && real != "/etc") && !permitted(root.path, real, p.spec.AllowSensitive) {
			return hinted(nil, "start the cage in a project's own directory, or show this one with --ro; if it is meant, add --allow-sensitive "+root.path,
				"cannot give the cage %s read-write: it holds programs of the system (%s)", root.path, d)
		}
	}
	return nil
}

// hideState covers agentcage's own state where it lies in a writable tree, as
// when somebody gives the cage all of a home directory: decisions about configs
// and logs are not the agent's to write.
func (p *plan) hideState(placeholders string) []guarded {
	dir, err := resolve(filepath.Dir(placeholders))
	if err != nil || !strictlyInside(dir, slices.Concat(p.writable(), p.ro)) {
		return nil
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return nil
	}
	return []guarded{{path: dir, id: idOf(st), dir: true, placeholder: true}}
}

// writable lists the directories of the host that the agent can write to.
func (p *plan) writable() []mountPath {
	out := []mountPath{p.dir}
	for _, m := range slices.Concat(p.rw, p.repos) {
		if m.dir {
			out = append(out, m)
		}
	}
	return out
}

// guardTree finds what is to be guarded below one writable directory.
func (p *plan) guardTree(root mountPath, reg *registration) ([]guarded, error) {
	var all []guarded
	add := func(dir string, rules []guardRule, placeholders bool) error {
		for _, r := range rules {
			r.make = r.make && placeholders
			g, ok, err := p.guardOne(root, filepath.Join(dir, r.path), r, reg)
			if err != nil {
				return err
			}
			if ok {
				all = append(all, g)
			}
		}
		return nil
	}
	bare := isGitDir(root.path)
	if !bare {
		if err := add(root.path, guardRules, root.path == p.dir.path && !emptyDirectory(root.path)); err != nil {
			return nil, err
		}
	}
	for _, g := range gitDirs(root.path, bare) {
		rules := gitRules
		if g.file {
			rules = []guardRule{{path: ".", why: "says where git finds the configuration"}}
		} else {
			rules = slices.Concat(rules, configRules(g.path, filepath.Dir(g.path)))
		}
		if err := add(g.path, rules, true); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// emptyDirectory tells whether there is nothing in a directory. It gets no
// placeholders: programs that make a project ("git clone URL .", "npm create",
// "cargo init") refuse to start in a directory that is not empty, and there is
// no project of the user's yet that could be turned against its owner. What the
// agent makes there is listed at the end.
func emptyDirectory(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

// guardOne decides about one path. What does not exist and gets no
// placeholder is looked for at the end instead.
func (p *plan) guardOne(root mountPath, path string, r guardRule, reg *registration) (guarded, bool, error) {
	if !within(path, root.path) || path == root.path || p.unguarded(path) {
		return guarded{}, false, nil
	}
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) && r.make {
		g, err := reg.place(root, path, r)
		return g, err == nil && g.path != "", err
	}
	if err != nil {
		return guarded{}, false, nil //nolint:nilerr // what is not there, or out of the user's reach, is out of the agent's
	}
	if st.Mode()&os.ModeSymlink != 0 {
		return guarded{}, false, hinted(nil,
			"replace the link by what it names, or list the path under process.unguarded in cage.yaml",
			"cannot protect %s from the agent: it is a symbolic link", path)
	}
	g := guarded{path: path, id: idOf(st), dir: st.IsDir(), json: r.json, text: hostText[r.path] != ""}
	g.placeholder = reg.adopt(path, g.id, st)
	return g, true, nil
}

func (p *plan) unguarded(path string) bool {
	for _, u := range p.spec.Unguarded {
		if !filepath.IsAbs(u) {
			u = filepath.Join(p.dir.path, u)
		}
		if within(path, filepath.Clean(u)) {
			return true
		}
	}
	return false
}

// raise adds the steps. A directory between a writable root and something
// guarded becomes a mount point of its own: otherwise the agent could rename
// it and make another in its place.
func (p *plan) raise(all []guarded) {
	roots := p.writable()
	var pins []string
	for _, g := range all {
		for dir := filepath.Dir(g.path); strictlyInside(dir, roots); dir = filepath.Dir(dir) {
			if !slices.Contains(pins, dir) {
				pins = append(pins, dir)
			}
		}
	}
	// What the user gives is a mount point itself; what lies between it and
	// a writable directory further up is not.
	for _, r := range slices.Concat(roots, p.rw, p.ro) {
		for dir := filepath.Dir(r.path); strictlyInside(dir, roots); dir = filepath.Dir(dir) {
			if !slices.Contains(pins, dir) {
				pins = append(pins, dir)
			}
		}
	}
	slices.Sort(pins)
	var ignored []string
	for _, dir := range pins {
		if !slices.ContainsFunc(roots, func(m mountPath) bool { return m.path == dir }) {
			p.do(op{Kind: opPin, Dest: dir})
		}
	}
	for _, g := range all {
		o := op{Kind: opShield, Dest: g.path, Dev: g.id.dev, Ino: g.id.ino}
		if g.placeholder && !g.text {
			o.Kind = opCover
			switch {
			case g.dir:
				o.Src = emptyDir
			case g.json:
				o.Src = emptyJSON
			default:
				o.Src = emptyFile
			}
			if !g.dir {
				ignored = append(ignored, "/"+filepath.Base(g.path))
			}
		}
		p.do(o)
	}
	if len(ignored) > 0 {
		p.do(op{Kind: opFile, Dest: ignoreFile, Data: []byte(strings.Join(append(ignored, ""), "\n"))})
		p.launch.Env = append(p.launch.Env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=core.excludesFile", "GIT_CONFIG_VALUE_0="+ignoreFile)
	}
}

func strictlyInside(path string, roots []mountPath) bool {
	for _, r := range roots {
		if path != r.path && within(path, r.path) {
			return true
		}
	}
	return false
}

// gitPlace is a git directory, or a file that points to one.
type gitPlace struct {
	path string
	file bool
}

// Bounds of the search for repositories.
const (
	gitDepth   = 4
	gitEntries = 20000
	gitPlaces  = 500
)

// gitDirs finds the git directories below a writable directory: its own, those
// of nested repositories, of submodules and of working trees.
func gitDirs(root string, bare bool) []gitPlace {
	var found []gitPlace
	if bare {
		found = append(found, gitPlace{path: root})
		found = append(found, gitInner(root)...)
		return found
	}
	left := gitEntries
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
			path := filepath.Join(dir, e.Name())
			switch {
			case len(found) >= gitPlaces || left <= 0:
				return
			case e.Name() == ".git" && e.IsDir():
				found = append(found, gitPlace{path: path})
				found = append(found, gitInner(path)...)
			case e.Name() == ".git":
				found = append(found, gitPlace{path: path, file: true})
			case e.IsDir() && depth < gitDepth && e.Name() != "node_modules":
				walk(path, depth+1)
			}
		}
	}
	walk(root, 1)
	return found
}

// gitInner finds the git directories of submodules and working trees inside
// of one.
func gitInner(git string) []gitPlace {
	var found []gitPlace
	trees, _ := os.ReadDir(filepath.Join(git, "worktrees"))
	for _, e := range trees {
		if e.IsDir() && len(found) < gitPlaces {
			found = append(found, gitPlace{path: filepath.Join(git, "worktrees", e.Name())})
		}
	}
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if !e.IsDir() || len(found) >= gitPlaces {
				continue
			}
			if isGitDir(path) {
				found = append(found, gitPlace{path: path})
				found = append(found, gitInner(path)...)
			} else if depth < gitDepth {
				walk(path, depth+1)
			}
		}
	}
	walk(filepath.Join(git, "modules"), 1)
	return found
}

// isGitDir is git's own test (gitrepository-layout(5)).
func isGitDir(dir string) bool {
	for _, name := range []string{"HEAD", "objects", "refs"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// configRules adds the paths that a repository's configuration makes special:
// the directory of core.hooksPath and included files.
func configRules(git, tree string) []guardRule {
	f, err := os.Open(filepath.Join(git, "config"))
	if err != nil {
		return nil
	}
	defer f.Close()
	var rules []guardRule
	section := ""
	lines := bufio.NewScanner(f)
	for n := 0; lines.Scan() && n < 10000; n++ {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			section = strings.ToLower(line)
			if end := strings.IndexByte(line, ']'); end >= 0 {
				section, line = strings.ToLower(line[:end]), strings.TrimSpace(line[end+1:])
			}
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.Trim(strings.TrimSpace(value), `"`)
		var base string
		switch {
		case key == "hookspath":
			base = tree
		case key == "path" && strings.HasPrefix(section, "[include"):
			base = git
		default:
			continue
		}
		switch rest, ok := strings.CutPrefix(value, "~/"); {
		case ok:
			value = filepath.Join(currentAccount().home, rest)
		case !filepath.IsAbs(value):
			value = filepath.Join(base, value)
		}
		// Both are protected before they exist, too: git runs what appears there.
		if rel, err := filepath.Rel(git, value); err == nil {
			rules = append(rules, guardRule{path: rel, dir: key == "hookspath", make: true, why: "named by the git configuration"})
		}
	}
	return rules
}

// worktree finds the main repository when the working directory is a linked
// working tree, and shares it, but only when the repository itself says that
// this is one of its working trees: the file in the working directory is the
// agent's to forge, the back-link is not.
func (p *plan) worktree() error {
	git := filepath.Join(p.dir.path, ".git")
	st, err := os.Lstat(git)
	if err != nil || !st.Mode().IsRegular() || st.Size() > 4096 {
		return nil //nolint:nilerr // no file, no linked working tree
	}
	own, ok := linkIn(git, "gitdir: ", p.dir.path)
	if !ok || filepath.Base(filepath.Dir(own)) != "worktrees" {
		return nil
	}
	common := filepath.Dir(filepath.Dir(own))
	back, ok := linkIn(filepath.Join(own, "gitdir"), "", own)
	if !ok || back != git {
		return nil
	}
	if named, ok := linkIn(filepath.Join(own, "commondir"), "", own); !ok || named != common || !isGitDir(common) {
		return nil
	}
	m, err := p.creds.vet(common, "the repository of this working tree", p.spec.AllowSensitive)
	if err != nil {
		return err
	}
	p.repos = append(p.repos, m)
	return nil
}

// linkIn reads a file that holds a path, and resolves it.
func linkIn(file, prefix, base string) (string, bool) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	buf := make([]byte, 4097)
	n, _ := f.Read(buf)
	text, ok := strings.CutPrefix(strings.TrimRight(string(buf[:n]), "\n"), prefix)
	if !ok || n > 4096 || text == "" {
		return "", false
	}
	if !filepath.IsAbs(text) {
		text = filepath.Join(base, text)
	}
	real, err := filepath.EvalSymlinks(text)
	return real, err == nil
}
