package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/cage"
)

// tree lists what is in a directory beside the file of project.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != readme {
			names = append(names, e.Name())
		}
	}
	return names
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("git")
	if err != nil {
		t.Skip("needs git: the test asks it what it would run")
	}
	cmd := exec.Command(path, append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFilesThatTheHostRunsAreGuarded(t *testing.T) {
	dir := project(t)
	git(t, dir, "init", "-q")
	write(t, filepath.Join(dir, ".husky/pre-commit"), "host\n")
	write(t, filepath.Join(dir, "sub/README"), "x\n")
	git(t, filepath.Join(dir, "sub"), "init", "-q")
	git(t, filepath.Join(dir, "sub"), "commit", "-q", "--allow-empty", "-m", "zero")
	before := tree(t, dir)
	o := run{spec: shell(dir, `
for f in .git/hooks/pre-commit .git/config .git/config.worktree .git/info/attributes .envrc .vscode/tasks.json .idea/x .claude/settings.json .mcp.json .husky/pre-commit \
	.cursor/mcp.json sub/.git/hooks/post-checkout sub/.git/config; do
	{ echo evil >> $f; } 2>/dev/null && echo "PLANTED $f"
	rm -rf $f 2>/dev/null && [ ! -e $f ] && [ "$f" != .git/hooks/pre-commit ] && echo gone $f
done
mv .git .git2 2>/dev/null && echo "MOVED .git"
mv .git/hooks .git/h2 2>/dev/null && echo "MOVED hooks"
mv sub/.git sub/.git2 2>/dev/null && echo "MOVED sub"
mv sub sub2 2>/dev/null && echo "MOVED parent"
mv .vscode .v2 2>/dev/null && echo "MOVED placeholder"
ln -sf /tmp/evil .envrc 2>/dev/null && echo "LINKED"
ln .git/config c2 2>/dev/null && echo "MOVED by a hard link"
umount .git/hooks 2>/dev/null && echo "UNMOUNTED"
chmod 777 .git/hooks 2>/dev/null && echo "CHMOD"
echo ok > ordinary && echo wrote
cat .mcp.json
mv .git/info .git/i2 2>/dev/null && echo "MOVED info"
git config user.name agent 2>/dev/null && echo "CONFIGURED"
git -c user.name=a -c user.email=a@example.com add -A && git -c user.name=a -c user.email=a@example.com commit -qm one && echo committed
git show --name-only --format= HEAD`)}.run(t)
	o.want(t, 0, "wrote", "{}", "committed", "ordinary")
	for _, bad := range []string{"PLANTED", "MOVED", "LINKED", "UNMOUNTED", "CHMOD", "CONFIGURED", ".envrc\n", ".mcp.json\n"} {
		if strings.Contains(o.out, bad) {
			t.Errorf("%q in output:\n%s", bad, o.out)
		}
	}
	after := tree(t, dir)
	if want := append(slices.Clone(before), "ordinary"); !slices.Equal(after, sorted(want)) {
		t.Errorf("left on the host: %v, want %v", after, want)
	}
	if f := o.process.(*Process).Findings(); len(f) != 0 {
		t.Errorf("findings: %v", f)
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// What the user gives read-only inside of the working directory stays what it
// is, and so do the directories on the way to it.
func TestReadOnlyInsideReadWrite(t *testing.T) {
	dir := project(t)
	file := filepath.Join(dir, "conf/deep/cage.yaml")
	write(t, file, "mine")
	spec := shell(dir, `
mv conf c2 2>/dev/null && echo MOVED
mv conf/deep conf/d2 2>/dev/null && echo MOVED
{ echo evil > conf/deep/cage.yaml; } 2>/dev/null && echo PLANTED
rm -rf conf 2>/dev/null
cat conf/deep/cage.yaml; echo x > conf/deep/other && echo wrote`)
	spec.ReadOnly = []string{file}
	o := run{spec: spec}.run(t)
	o.want(t, 0, "mine", "wrote")
	if strings.Contains(o.out, "MOVED") || strings.Contains(o.out, "PLANTED") {
		t.Errorf("output:\n%s", o.out)
	}
}

// The list is only worth something when a listed path that nobody protects
// can be written: the control of the test above.
func TestUnguarded(t *testing.T) {
	dir := project(t)
	spec := shell(dir, "mkdir .vscode && echo x > .vscode/tasks.json && echo wrote; echo x > .envrc || echo refused")
	spec.Unguarded = []string{".vscode"}
	o := run{spec: spec}.run(t)
	o.want(t, 0, "wrote", "refused")
	f := o.process.(*Process).Findings()
	if len(f) != 1 || f[0].Path != filepath.Join(dir, ".vscode") {
		t.Errorf("findings: %v", f)
	}
}

// Programs that make a project refuse a directory with anything in it. What the
// agent makes there for the host to run is told.
func TestEmptyDirectory(t *testing.T) {
	source := project(t)
	git(t, source, "init", "-q")
	git(t, source, "add", "-A")
	git(t, source, "commit", "-q", "-m", "zero")
	dir := emptyProject(t)
	spec := shell(dir, `[ -z "$(ls -A)" ] && echo empty
git -c safe.directory='*' clone -q "$1" . && echo cloned
mkdir .vscode .claude .git/hooks
for f in .envrc .vscode/tasks.json .claude/settings.json .mcp.json .git/hooks/post-checkout opencode.json; do echo x > $f && echo "made $f"; done
git config core.fsmonitor /tmp/evil
true`, source)
	spec.ReadOnly = []string{source}
	o := run{spec: spec}.run(t)
	o.want(t, 0, "empty", "cloned", "made .envrc")
	var got []string
	for _, f := range o.process.(*Process).Findings() {
		rel, _ := filepath.Rel(dir, f.Path)
		got = append(got, rel)
	}
	want := []string{".claude", ".envrc", ".git/config", ".git/hooks", ".mcp.json", ".vscode", "opencode.json"}
	if !slices.Equal(sorted(got), want) {
		t.Errorf("told %v, want %v; %s", got, want, o.out)
	}
	// From then on it is a project, and guarded as any other.
	if o := (run{spec: shell(dir, "echo y > .envrc || echo refused")}).run(t); !strings.Contains(o.out, "refused") {
		t.Errorf("the next cage writes: %s", o.out)
	}
}

func TestFindings(t *testing.T) {
	dir := project(t)
	git(t, dir, "init", "-q", "old") // harmless and from before
	o := run{spec: shell(dir, `git init -q . && echo '#!/bin/sh' > .git/hooks/pre-commit
git init -q clean
git init -q nested && git -C nested config core.fsmonitor /tmp/evil
mkdir -p deep/er && echo x > deep/er/.envrc
mkdir env && echo x > env/pyvenv.cfg
{ echo . > old/.git/commondir; } 2>/dev/null && echo PLANTED
true`)}.run(t)
	o.want(t, 0)
	var got []string
	for _, f := range o.process.(*Process).Findings() {
		rel, _ := filepath.Rel(dir, f.Path)
		got = append(got, rel)
	}
	want := []string{".git/hooks", "deep/er/.envrc", "env/pyvenv.cfg", "nested/.git/config"}
	if !slices.Equal(sorted(got), want) {
		t.Errorf("got %v, want %v; %s", got, want, o.out)
	}
}

func TestPlaceholderThatSomebodyFilledStays(t *testing.T) {
	dir := project(t)
	p, wait := run{spec: shell(dir, "read x")}.start(t)
	write(t, filepath.Join(dir, ".envrc"), "mine\n")
	write(t, filepath.Join(dir, ".vscode/tasks.json"), "mine\n")
	p.Kill()
	wait()
	if got := tree(t, dir); !slices.Equal(got, []string{".envrc", ".vscode"}) {
		t.Errorf("left %v", got)
	}
}

// A placeholder that two cages use goes with the last of them.
func TestPlaceholdersAreShared(t *testing.T) {
	dir := project(t)
	p, wait1 := run{spec: shell(dir, "sleep 1000")}.start(t)
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	spec := shell(dir, "read x; { echo evil > .envrc; } 2>/dev/null && echo PLANTED; ls -a")
	spec.Stdin = pr
	_, wait2 := run{spec: spec}.start(t)
	p.Kill()
	wait1()
	pw.Write([]byte("go\n"))
	pw.Close()
	o := wait2()
	o.want(t, 0, ".envrc")
	if strings.Contains(o.out, "PLANTED") {
		t.Error("the end of one cage took the guard of another away")
	}
	if got := tree(t, dir); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

func TestGuardIsASymlink(t *testing.T) {
	dir := project(t)
	if err := os.Symlink("elsewhere", filepath.Join(dir, ".claude")); err != nil {
		t.Fatal(err)
	}
	startFails(t, shell(dir, "true"), "symbolic link", "unguarded")
	if got := tree(t, dir); !slices.Equal(got, []string{".claude"}) {
		t.Errorf("left %v", got)
	}
}

// startFails starts a cage that must be refused, with an error and a hint that
// hold the two texts.
func startFails(t *testing.T, spec cage.Spec, msg, hint string) {
	t.Helper()
	needNamespaces(t)
	p, err := Backend{}.Start(t.Context(), spec, func(l cage.Listeners) error { closeListeners(l); return nil })
	if err == nil {
		p.Kill()
		p.Wait()
		t.Fatal("the cage was started")
	}
	h, _ := err.(interface{ Hint() string })
	if !strings.Contains(err.Error(), msg) || h == nil || !strings.Contains(h.Hint(), hint) {
		t.Errorf("got %v (hint %v), want %q and %q", err, h, msg, hint)
	}
}

func TestWorktree(t *testing.T) {
	base := project(t)
	main, tree := filepath.Join(base, "main"), filepath.Join(base, "tree")
	os.Mkdir(main, 0o755)
	git(t, main, "init", "-q")
	git(t, main, "commit", "-q", "--allow-empty", "-m", "zero")
	git(t, main, "worktree", "add", "-q", tree)
	o := run{spec: shell(tree, `
echo x > new && git add new && git -c user.name=a -c user.email=a@example.com commit -qm one && echo committed
{ echo evil > `+main+`/.git/hooks/pre-commit; } 2>/dev/null && echo PLANTED hook
{ echo evil >> `+main+`/.git/config; } 2>/dev/null && echo PLANTED config
{ echo evil > `+main+`/.git/worktrees/tree/commondir; } 2>/dev/null && echo PLANTED commondir
{ echo evil > .git; } 2>/dev/null && echo PLANTED link
mv `+main+`/.git/worktrees/tree `+main+`/.git/worktrees/t2 2>/dev/null && echo MOVED
ls `+main+`/file 2>/dev/null`)}.run(t)
	o.want(t, 0+2, "committed")
	if strings.Contains(o.out, "PLANTED") || strings.Contains(o.out, "MOVED") {
		t.Errorf("output:\n%s", o.out)
	}
}

// A .git file is the agent's to forge: it leads nowhere unless the repository
// links back.
func TestForgedWorktree(t *testing.T) {
	base := project(t)
	victim, dir := filepath.Join(base, "victim"), filepath.Join(base, "dir")
	os.Mkdir(victim, 0o755)
	git(t, victim, "init", "-q")
	git(t, victim, "commit", "-q", "--allow-empty", "-m", "zero")
	git(t, victim, "worktree", "add", "-q", filepath.Join(base, "real"))
	write(t, filepath.Join(dir, ".git"), "gitdir: "+victim+"/.git/worktrees/real\n")
	o := run{spec: shell(dir, "ls "+victim+"/.git/HEAD && echo SEEN; true")}.run(t)
	o.want(t, 0)
	if strings.Contains(o.out, "SEEN") {
		t.Error("a forged .git file opened a repository")
	}
}

func TestHostSocketsAreMasked(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3: it is what runs in the cage")
	}
	dir := project(t)
	sock := filepath.Join(dir, "a/b/host.sock")
	os.MkdirAll(filepath.Dir(sock), 0o755)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	parent, err := os.Open(filepath.Dir(sock))
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	// The name of a socket is short (unix(7)), that of a test's directory is not.
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/host.sock", parent.Fd())}); err != nil {
		t.Fatal(err)
	}
	unix.Listen(fd, 1)
	o := run{spec: shell(dir, `python3 -c '
import socket
for name in ("a/b/host.sock", "own.sock"):
    try:
        if name == "own.sock":
            s = socket.socket(socket.AF_UNIX); s.bind(name); s.listen()
        c = socket.socket(socket.AF_UNIX); c.connect(name); print(name, "connected")
    except OSError as e:
        print(name, e)
'`)}.run(t)
	o.want(t, 0, "own.sock connected")
	if strings.Contains(o.out, "host.sock connected") {
		t.Error("a socket of the host was reached")
	}
}
