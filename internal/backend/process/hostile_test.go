package process

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/cage"
)

// The devices in a cage are the host's, whose owner uid 0 is, in the cage too:
// to change the mode of /dev/null would stop every other user of the machine.
// 666 is the mode that it has already.
func TestDevicesOfTheHostStay(t *testing.T) {
	needProgram(t, "python3")
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	const script = `
for d in null zero full random urandom tty; do chmod 666 /dev/$d 2>/dev/null && echo "CHANGED $d"; touch -d @0 /dev/$d 2>/dev/null && echo "TOUCHED $d"; done
chmod 666 /proc/self/fd/0 2>/dev/null && echo "CHANGED through /proc"
python3 -c 'import os
try: os.fchmod(0, 0o666); print("CHANGED descriptor")
except OSError as e: print("kept")'
echo mine > file && chmod 600 file && stat -c %a file
echo gone > /dev/null && echo gone >&0 && echo written; head -c 3 /dev/zero | wc -c`
	spec := shell(project(t), script)
	spec.Stdin = null
	o := run{spec: spec}.run(t)
	o.want(t, 0, "kept", "600", "written", "3")
	for _, bad := range []string{"CHANGED", "TOUCHED"} {
		if strings.Contains(o.out, bad) {
			t.Errorf("%s:\n%s", bad, o.out)
		}
	}
}

// A bomb of processes ends at the cage's own limit, for uid 0 too, whom the
// resource limit does not bind.
func TestProcessesAreBounded(t *testing.T) {
	const limit = 400
	bomb := `i=0; while [ $i -lt $1 ]; do sleep 1000 & i=$((i+1)); done; echo "all $i"; kill $(jobs -p)`
	for _, n := range []string{"100", "1500"} {
		spec := shell(project(t), bomb, n)
		spec.Limits = cage.Limits{Processes: limit}
		o := run{spec: spec}.run(t)
		if all := strings.Contains(o.out, "all "+n); all != (n == "100") {
			if os.Geteuid() == 0 && !ownPidMax() {
				t.Skip("needs Linux 6.14: older kernels have no limit on the processes of uid 0 in a namespace")
			}
			t.Errorf("%s processes with a limit of %d: status %+v", n, limit, o.status)
		}
	}
}

// .git/commondir says where git takes its configuration from. An editor on the
// host that asks git for the status while the cage runs would run what the
// agent wrote.
func TestCommondirIsGuarded(t *testing.T) {
	const script = `mkdir -p evil && cp -r .git/objects .git/refs evil && { echo ../evil > .git/commondir; } 2>/dev/null && echo PLANTED
printf '[core]\n\trepositoryformatversion = 0\n[evil]\n\tseen = yes\n' > evil/config
git log --oneline && echo ready; read x`
	for _, c := range []struct {
		name      string
		unguarded []string
		want      bool
	}{{"guarded", nil, false}, {"control", []string{".git/commondir"}, true}} {
		t.Run(c.name, func(t *testing.T) {
			dir := project(t)
			git(t, dir, "init", "-q")
			git(t, dir, "commit", "-q", "--allow-empty", "-m", "zero")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			spec := shell(dir, script)
			spec.Stdin, spec.Unguarded = r, c.unguarded
			_, wait := run{spec: spec}.start(t)
			if !c.want { // the host's own git works meanwhile
				git(t, dir, "commit", "-q", "--allow-empty", "-m", "one")
				git(t, dir, "status")
			}
			w.Close()
			o := wait()
			if strings.Contains(o.out, "PLANTED") != c.want || !c.want && !strings.Contains(o.out, "ready") {
				t.Errorf("output:\n%s", o.out)
			}
			if seen := strings.Contains(git(t, dir, "config", "--list"), "evil.seen"); seen != c.want {
				t.Errorf("git on the host reads the agent's configuration: %v", seen)
			}
			if _, err := os.Lstat(filepath.Join(dir, ".git/commondir")); (err == nil) != c.want {
				t.Errorf("the placeholder is left: %v", err)
			}
		})
	}
}

// What the configuration includes is configuration, from the moment it appears.
func TestIncludedConfigurationIsGuarded(t *testing.T) {
	dir := project(t)
	git(t, dir, "init", "-q")
	git(t, dir, "config", "include.path", "../.gitconfig.local")
	o := run{spec: shell(dir, `{ echo x > .gitconfig.local; } 2>/dev/null && echo PLANTED; echo x > .gitconfig.other && echo wrote; git status >/dev/null && echo status`)}.run(t)
	o.want(t, 0, "wrote", "status")
	if strings.Contains(o.out, "PLANTED") {
		t.Errorf("output:\n%s", o.out)
	}
	if _, err := os.Lstat(filepath.Join(dir, ".gitconfig.local")); err == nil {
		t.Error("the placeholder is left")
	}
}

func TestSystemIsNotGivenReadWrite(t *testing.T) {
	mine := t.TempDir()
	for path, refused := range map[string]bool{
		"/": true, "/usr": true, "/usr/bin": true, "/usr/lib/python3": true, "/usr/local": true, "/usr/local/bin": true, "/etc": true,
		"/usr/src/app": false, "/usr/local/src/app": false, "/opt/app": false, mine: false,
	} {
		err := (&plan{}).refuseSystem(mountPath{path: path, dir: true})
		if (err != nil) != refused {
			t.Errorf("%s: %v, want refused %v", path, err, refused)
		}
		meant := &plan{spec: cage.Spec{AllowSensitive: []string{path}}}
		if err := meant.refuseSystem(mountPath{path: path, dir: true}); err != nil && unix.Access(path, unix.F_OK) == nil {
			t.Errorf("%s that is meant: %v", path, err)
		}
	}
}

// What cannot be removed now is not forgotten: its record stays for the next start.
func TestRecordOutlivesWhatCannotBeRemoved(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs an ordinary user: root may remove everything")
	}
	dir := project(t)
	tree := filepath.Join(dir, "tree")
	write(t, filepath.Join(tree, ".envrc"), "")
	st, err := os.Lstat(filepath.Join(tree, ".envrc"))
	if err != nil {
		t.Fatal(err)
	}
	id := idOf(st)
	rec := record{Entries: []placeholder{{Root: tree, Path: filepath.Join(tree, ".envrc"), Dev: id.dev, Ino: id.ino}}}
	if err := os.Chmod(tree, 0o500); err != nil {
		t.Fatal(err)
	}
	if remove(rec, nil) {
		t.Error("a placeholder that is still there counts as removed")
	}
	if err := os.Chmod(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	if !remove(rec, nil) {
		t.Error("a placeholder that is gone counts as left")
	}
}

// A set-uid program in the project would run as the cage's owner for every other
// user of the machine.
func TestNoSetUIDPrograms(t *testing.T) {
	needProgram(t, "python3")
	dir := project(t)
	o := run{spec: shell(dir, `cp /bin/true prog; chmod 755 prog && echo plain; mkdir shared; chmod 2775 shared && echo shared
chmod 4755 prog 2>/dev/null && echo SET
python3 - <<'END'
import os
def attempt(name, f):
    try: f()
    except OSError: pass
    st = os.stat(name) if os.path.exists(name) else None
    if st and st.st_mode & 0o4000 and st.st_size: print("SET", name)
attempt("prog", lambda: os.fchmod(os.open("prog", os.O_RDONLY), 0o4711))
attempt("made", lambda: os.write(os.open("made", os.O_CREAT | os.O_WRONLY, 0o4755), b"program"))
attempt("grown", lambda: os.ftruncate(os.open("grown", os.O_CREAT | os.O_RDWR, 0o4755), 100))
attempt("reserved", lambda: os.posix_fallocate(os.open("reserved", os.O_CREAT | os.O_RDWR, 0o4755), 0, 100))
END
umask 0; echo done`)}.run(t)
	o.want(t, 0, "plain", "shared", "done")
	if strings.Contains(o.out, "SET") {
		t.Errorf("output:\n%s", o.out)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if st, err := e.Info(); err == nil && st.Mode()&os.ModeSetuid != 0 && st.Size() > 0 {
			t.Errorf("%s is left with mode %v", e.Name(), st.Mode())
		}
	}
}

// What git and the shell run by themselves is found at any depth, under any name.
func TestFindingsOfHiddenPlaces(t *testing.T) {
	dir := project(t)
	git(t, dir, "init", "-q")
	git(t, dir, "commit", "-q", "--allow-empty", "-m", "zero")
	bin := filepath.Join(dir, ".venv/bin")
	write(t, filepath.Join(bin, "old"), "")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	o := run{spec: shell(dir, `
repository() { mkdir -p "$1" && cp -r .git/HEAD .git/objects .git/refs "$1" && printf '[core]\n\tfsmonitor = evil\n' > "$1/config"; }
repository bare
repository a/b/c/d/e/f/g/.git
repository node_modules/x/.git
mkdir -p plain/objects plain/refs && echo fine > plain/config
echo evil > .venv/bin/ls; echo fine > .venv/bin/no-such-command-elsewhere`)}.run(t)
	o.want(t, 0)
	found := map[string]bool{}
	for _, f := range o.process.(*Process).Findings() {
		rel, err := filepath.Rel(dir, f.Path)
		if err != nil {
			t.Fatal(err)
		}
		found[rel] = true
	}
	for _, want := range []string{"bare/config", "a/b/c/d/e/f/g/.git/config", "node_modules/x/.git/config", ".venv/bin/ls"} {
		if !found[want] {
			t.Errorf("%s is not found", want)
		}
		delete(found, want)
	}
	if len(found) > 0 {
		t.Errorf("found too much: %v", found)
	}
}
