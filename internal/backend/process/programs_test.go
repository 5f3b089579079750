package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Ordinary programs list / and walk up to it from the working directory. That
// shows what the cage's view holds, and no content of anything else.
func TestRootCanBeListed(t *testing.T) {
	dir := project(t)
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := run{spec: shell(dir, `
ls / >/dev/null && echo ls-root
ls /home >/dev/null && echo ls-home
find / -maxdepth 1 >/dev/null && echo find
cd sub && [ "$(pwd -P)" = "$(realpath .)" ] && echo realpath
[ "$(realpath ..)" = "$1" ] && echo parent
ls -a / | grep -q host && echo SHOWS-HOST
{ echo x > /x; } 2>/dev/null && echo WROTE
true`, dir)}.run(t)
	o.want(t, 0, "ls-root", "ls-home", "find", "realpath", "parent")
	o.lacks(t, "SHOWS-HOST", "WROTE")
}

func TestGitInASubdirectory(t *testing.T) {
	needProgram(t, "git")
	dir := project(t)
	if out, err := exec.Command("git", "init", "-q", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o := run{spec: shell(dir, `mkdir -p a/b && cd a/b && git rev-parse --show-toplevel`)}.run(t)
	o.want(t, 0, dir)
}

func TestInterpretersListTheRoot(t *testing.T) {
	for name, script := range map[string]string{
		"python3": `python3 -c 'import os; os.listdir("/"); print("listed", os.getcwd())'`,
		"node":    `node -e 'require("fs").readdirSync("/"); console.log("listed", process.cwd())'`,
	} {
		t.Run(name, func(t *testing.T) {
			needProgram(t, name)
			dir := project(t)
			run{spec: shell(dir, script)}.run(t).want(t, 0, "listed "+dir)
		})
	}
}

// apt moves what it has fetched from one directory to another, and asks for
// its own user, which the cage does not have. The repository is a server in
// the cage.
func TestAptUpdates(t *testing.T) {
	needProgram(t, "apt-get")
	needProgram(t, "python3")
	o := run{spec: shell(project(t), `
mkdir repo && cd repo
printf 'Package: x\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.com>\nFilename: ./x.deb\nSize: 3\nSHA256: 98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4\nDescription: x\n' > Packages
printf 'hi\n' > x.deb
echo 'deb [trusted=yes] http://127.0.0.1:8081 ./' > ../list
python3 -c '
import http.server, threading, subprocess, sys
s = http.server.ThreadingHTTPServer(("127.0.0.1", 8081), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=s.serve_forever, daemon=True).start()
apt = ["apt-get", "-qq", "-o", "Dir::Etc::sourcelist=../list", "-o", "Dir::Etc::sourceparts=/dev/null", "-o", "Acquire::http::Proxy=DIRECT"]
sys.exit(subprocess.call(apt + ["update"]) or subprocess.call(apt + ["download", "x"]))
' && echo updated
ls`)}.run(t)
	o.want(t, 0, "updated", "x_1_all.deb")
}
