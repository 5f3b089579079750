//go:build linux

package e2e

import (
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// gitServer serves repositories below a directory over smart HTTP, with git's
// own program (git-http-backend(1)).
func gitServer(t *testing.T) (http.Handler, string) {
	t.Helper()
	need(t, "git")
	out, err := exec.Command("git", "--exec-path").Output()
	must(t, err)
	backend := filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skip("needs git http-backend: not installed")
	}
	root := t.TempDir()
	return &cgi.Handler{Path: backend, Env: []string{
		"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=somebody",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}}, root
}

// TestGit clones, commits and pushes over HTTPS, and is refused with a text
// that git shows (the first example).
func TestGit(t *testing.T) {
	b, s := onSite(t, "git.test")
	var root string
	s.mux["git.test"], root = gitServer(t)
	s.mux[evil] = s.mux["git.test"]
	seed := "git init -q --bare -b main repo.git && git init -q -b main seed && cd seed && echo one > file && git add file && " +
		"git -c user.name=x -c user.email=x@test commit -q -m one && git push -q ../repo.git main"
	c := exec.Command("sh", "-c", seed)
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("cannot make the repository: %v %s", err, out)
	}
	url := s.url("https", "git.test", "/repo.git")

	b.caged("git", "clone", "-q", url, "work").ok(t, "")
	if got := b.read("work/file"); got != "one\n" {
		t.Errorf("the clone has %q", got)
	}
	push := "cd work && echo two >> file && git -c user.name=x -c user.email=x@test commit -q -a -m two && git push -q origin main"
	b.caged("sh", "-c", push).ok(t, "")
	if out := b.exec("git", "-C", filepath.Join(root, "repo.git"), "-c", "safe.directory=*", "show", "main:file"); out.stdout != "one\ntwo\n" {
		t.Errorf("the server has %q %s", out.stdout, out.stderr)
	}
	b.caged("git", "-C", "work", "fetch", "-q").ok(t, "")

	r := b.caged("git", "clone", s.url("https", evil, "/repo.git"), "stolen")
	r.fails(t, 128, "domain not in allowlist: "+evil)
	s.untouched(t, evil)

	// A path of an allowed host: the rule narrows to one repository.
	narrow := strings.Replace(s.config("git.test"), "- host: git.test\n", "- host: git.test\n      paths: [/other.git/**]\n", 1)
	b.write("cage.yaml", narrow)
	b.caged("git", "clone", url, "narrow").fails(t, 128, "git.test")
}

// TestGitPlainPorts: the git protocol and SSH have no way out.
func TestGitOtherProtocols(t *testing.T) {
	need(t, "git")
	b, _ := onSite(t, good)
	if r := b.caged("git", "clone", "git://"+good+"/repo.git", "x"); r.code == 0 {
		t.Errorf("git:// worked: %s", r.all())
	}
	b.write("cage.yaml", b.read("cage.yaml"))
	if r := b.caged("sh", "-c", "GIT_SSH_COMMAND='ssh -o StrictHostKeyChecking=no -o BatchMode=yes' git clone git@"+good+":repo.git y"); r.code == 0 {
		t.Errorf("ssh worked: %s", r.all())
	}
}
