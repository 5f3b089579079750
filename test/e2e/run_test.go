//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestExitCodes(t *testing.T) {
	b := newBench(t)
	b.write("text", "no program")
	for name, tt := range map[string]struct {
		args []string
		code int
	}{
		"zero":           {[]string{"run", "--", "true"}, 0},
		"one":            {[]string{"run", "--", "false"}, 1},
		"any":            {[]string{"run", "--", "sh", "-c", "exit 77"}, 77},
		"term":           {[]string{"run", "--", "sh", "-c", "kill -TERM $$"}, 143},
		"kill":           {[]string{"run", "--", "sh", "-c", "kill -KILL $$"}, 137},
		"not found":      {[]string{"run", "--", "no-such-program"}, 127},
		"not executable": {[]string{"run", "--", "./text"}, 126},
		"without dashes": {[]string{"run", "sh", "-c", "exit 5"}, 5},
		"own flags":      {[]string{"run", "-q", "sh", "-c", "exit 6", "-q"}, 6},
		"no command":     {[]string{"run"}, 2},
		"unknown flag":   {[]string{"run", "--nonsense", "--", "true"}, 2},
		"bad name":       {[]string{"run", "--name", "Not A Name", "--", "true"}, 2},
		"no cage":        {[]string{"run", "--audit", "/nonexistent/dir/audit.jsonl", "--", "true"}, 125},
		"bad path":       {[]string{"run", "--ro", "/nonexistent", "--", "true"}, 125},
	} {
		t.Run(name, func(t *testing.T) {
			if r := b.agentcage(tt.args...); r.code != tt.code {
				t.Errorf("%q: exit code %d, want %d\n%s", tt.args, r.code, tt.code, clip(r.all()))
			}
		})
	}
}

func TestQuietByDefault(t *testing.T) {
	b := newBench(t)
	if r := b.agentcage("run", "--", "true"); r.all() != "" {
		t.Errorf("a run without traffic says %q", r.all())
	}
	if r := b.agentcage("run", "--summary", "--", "true"); r.stdout != "" || !strings.Contains(r.stderr, "nothing tried to leave") {
		t.Errorf("--summary says %q %q", r.stdout, r.stderr)
	}
}

// TestSignals: what is sent to agentcage is sent to the command.
func TestSignals(t *testing.T) {
	b := newBench(t)
	for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 15, syscall.SIGINT: 2, syscall.SIGHUP: 1, syscall.SIGUSR1: 10} {
		c := exec.Command(bin, "run", "--", "bash", "-c", `for s in TERM INT HUP USR1; do n=$(kill -l $s); trap "exit $n" $s; done; echo ready; while :; do read -t 0.05 < /dev/zero; sleep 0.02; done`)
		c.Dir, c.Env = b.dir, b.env
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || line != "ready\n" {
			t.Fatalf("the command said %q: %v", line, err)
		}
		must(t, c.Process.Signal(sig))
		_ = c.Wait() // the code says it
		if got := c.ProcessState.ExitCode(); got != code {
			t.Errorf("%v: exit code %d, want %d", sig, got, code)
		}
	}
}

// TestKilledLauncher: when agentcage itself is killed, nothing goes on.
func TestKilledLauncher(t *testing.T) {
	b := newBench(t)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	c := exec.Command(bin, "run", "--", "sh", "-c", "echo ready; sleep 1000 & wait")
	c.Dir, c.Env, c.Stdout = b.dir, b.env, w
	must(t, c.Start())
	w.Close()
	lines := bufio.NewReader(r)
	if line, err := lines.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the command said %q: %v", line, err)
	}
	must(t, c.Process.Kill())
	_ = c.Wait() // it was killed
	// Every process of the cage holds the pipe: its end is the end of all.
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("afterwards: %q %v", rest, err)
	}
	// And the next run in the same place finds nothing in its way.
	b.agentcage("run", "--", "echo", "again").ok(t, "again")
}

func TestPipes(t *testing.T) {
	b := newBench(t)
	odd := []byte("\x00\x01\r\n\x04\xff\n")
	c := exec.Command(bin, "run", "--", "cat")
	c.Dir, c.Env, c.Stdin = b.dir, b.env, bytes.NewReader(bytes.Repeat(odd, 50_000))
	out, err := c.Output()
	if err != nil || !bytes.Equal(out, bytes.Repeat(odd, 50_000)) {
		t.Errorf("cat gave %d bytes back: %v", len(out), err)
	}
	b.env = append(b.env, "AGENTCAGE="+bin)
	b.exec("bash", "-c", `set -o pipefail; "$AGENTCAGE" run -- seq 1 1000000 | head -1; echo "${PIPESTATUS[0]}"`).ok(t, "1\n141\n")
	b.exec("bash", "-c", `"$AGENTCAGE" run -- sh -c 'echo out; echo err >&2' 2>/dev/null`).ok(t, "out\n")
	b.exec("bash", "-c", `echo line | "$AGENTCAGE" run -- sh -c 'read x; echo got $x'`).ok(t, "got line")
	b.exec("bash", "-c", `"$AGENTCAGE" run -- cat </dev/null; "$AGENTCAGE" run -- cat <&-; true`).ok(t, "")
}

func TestEnvironment(t *testing.T) {
	b := newBench(t)
	b.env = append(b.env, "SECRET_OF_THE_HOST=leak", "PASSED=on", "HTTP_PROXY=http://host-proxy.test:1", "NO_PROXY=*")
	r := b.agentcage("run", "--env", "A=1", "--env", "A=2", "--env", "EMPTY=", "--env", "PASSED", "--env", "EQ=a=b", "--", "env")
	for _, want := range []string{"A=2\n", "EMPTY=\n", "PASSED=on\n", "EQ=a=b\n", "HTTP_PROXY=http://127.0.0.1:"} {
		if !strings.Contains("\n"+r.stdout, "\n"+want) {
			t.Errorf("the environment lacks %q: %s", want, r.stdout)
		}
	}
	for _, leak := range []string{"SECRET_OF_THE_HOST", "host-proxy", "XDG_STATE_HOME", "SSH_"} {
		if strings.Contains(r.stdout, leak) {
			t.Errorf("the environment has %s", leak)
		}
	}
	b.agentcage("run", "--env", "NOT_SET_ANYWHERE", "--", "true").fails(t, 2, "error: ", "NOT_SET_ANYWHERE")
	b.agentcage("run", "--env", "=x", "--", "true").fails(t, 2, "error: ")
}

func TestPaths(t *testing.T) {
	b := newBench(t)
	other := t.TempDir()
	must(t, os.WriteFile(other+"/data", []byte("data"), 0o644))
	b.agentcage("run", "--", "cat", other+"/data").fails(t, 1)
	b.agentcage("run", "--ro", other, "--", "cat", other+"/data").ok(t, "data")
	b.agentcage("run", "--ro", other, "--", "sh", "-c", "echo x > "+other+"/new").fails(t, 2)
	b.agentcage("run", "--rw", other, "--", "sh", "-c", "echo x > "+other+"/new").ok(t, "")
	if got, err := os.ReadFile(other + "/new"); err != nil || string(got) != "x\n" {
		t.Errorf("on the host: %q %v", got, err)
	}
	// Relative paths are the caller's.
	b.write("sub/file", "sub")
	b.agentcage("run", "--ro", "sub", "--", "sh", "-c", "cat sub/file && ! echo x > sub/file").ok(t, "sub")
}

// TestSensitive: rules 87, 88.
func TestSensitive(t *testing.T) {
	b := newBench(t)
	home := t.TempDir()
	must(t, os.MkdirAll(home+"/.ssh", 0o700))
	must(t, os.WriteFile(home+"/.ssh/id_ed25519", []byte("the key"), 0o600))
	b.env = append(b.env, "HOME="+home)
	b.agentcage("run", "--", "cat", home+"/.ssh/id_ed25519").fails(t, 1)
	b.agentcage("run", "--ro", home+"/.ssh", "--", "true").fails(t, 125, "error: ", ".ssh", "hint: ", "--allow-sensitive")
	b.agentcage("run", "--ro", home+"/.ssh", "--allow-sensitive", home+"/.ssh", "--", "cat", home+"/.ssh/id_ed25519").ok(t, "the key")
	b.dir = home
	b.agentcage("run", "--", "true").fails(t, 125, "hint: ")
}

// TestTrust: a cage.yaml that lies there is not obeyed (rules 132, E3).
func TestTrust(t *testing.T) {
	b, s := onSite(t, good)
	get := []string{"curl", "-sS", "--fail-with-body", s.url("https", good, "/")}
	run := append([]string{"run", "--"}, get...)
	b.agentcage(run...).fails(t, 2, "cannot use cage.yaml", "agentcage trust", "hint: ")
	if got := s.received(good); len(got) != 0 {
		t.Errorf("the server received %+v", got)
	}
	b.agentcage("trust").ok(t, good)
	b.agentcage(run...).ok(t, `"URI":"/"`)
	b.agentcage("trust", "--forget").ok(t, "")
	b.agentcage(run...).fails(t, 2, "cannot use cage.yaml")
	// Naming it is a decision, for these bytes.
	b.caged(get...).ok(t, `"URI":"/"`)
	b.agentcage(run...).ok(t, `"URI":"/"`)
	b.write("cage.yaml", s.config(good, evil))
	b.agentcage(run...).fails(t, 2, "cannot use cage.yaml")
	// The agent cannot change it.
	b.agentcage("run", "-c", "cage.yaml", "--", "sh", "-c", "echo '# x' >> cage.yaml || mv cage.yaml y || rm -f cage.yaml").fails(t, 1)
	if b.read("cage.yaml") != s.config(good, evil) {
		t.Error("the agent changed its own policy")
	}
}

func TestNothingWithoutConfig(t *testing.T) {
	need(t, "curl")
	b := newBench(t)
	r := b.agentcage("run", "--", "curl", "-sS", "http://example.com/")
	if !strings.Contains(r.stdout, "no domain allowlist configured (default-deny): example.com") && !strings.Contains(r.stdout, "domain not in allowlist: example.com") {
		t.Errorf("curl says %s %s", r.stdout, r.stderr)
	}
}

// TestSummary: what left and what did not, with hosts and reasons.
func TestSummary(t *testing.T) {
	need(t, "curl")
	b, s := onSite(t, good)
	script := "curl -sS " + s.url("https", good, "/") + "; curl -sS " + s.url("https", evil, "/") + "; bash -c ': </dev/tcp/192.0.2.1/22'; true"
	r := b.caged("sh", "-c", script)
	for _, want := range []string{"agentcage: 1 allowed, 0 flagged, 2 blocked", "allowed  " + good, "blocked  " + evil + "  domain not in allowlist: " + evil, "192.0.2.1", "the audit log is "} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("the summary lacks %q:\n%s", want, r.stderr)
		}
	}
	for _, flag := range []string{"-q", "--quiet", "--no-summary"} {
		if r := b.agentcage("run", "-c", "cage.yaml", flag, "--", "sh", "-c", script); strings.Contains(r.stderr, "agentcage:") {
			t.Errorf("%s says %q", flag, r.stderr)
		}
	}
}

// TestAuditFile: every decision, in the original's form.
func TestAuditFile(t *testing.T) {
	need(t, "curl")
	b, s := onSite(t, good)
	log := filepath.Join(b.state, "my-audit.jsonl")
	must(t, os.MkdirAll(b.state, 0o700))
	r := b.agentcage("run", "-c", "cage.yaml", "--audit", log, "--", "sh", "-c",
		"curl -sS "+s.url("https", good, "/a?b=c")+"; curl -sS "+s.url("https", evil, "/d")+"; bash -c ': </dev/tcp/192.0.2.1/22'; true")
	var answer struct{ ID string }
	for line := range strings.Lines(strings.ReplaceAll(r.stdout, "}{", "}\n{")) {
		_ = json.Unmarshal([]byte(line), &answer) // the server's own answer has no id
	}
	data, err := os.ReadFile(log)
	must(t, err)
	var seen []string
	for line := range strings.Lines(string(data)) {
		var rec struct{ TS, Direction, Method, Host, Path, URL, Decision, Reason, Kind, ID string }
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			t.Errorf("%v in %q", err, line)
		}
		if !strings.HasPrefix(line, `{"ts": "`) && !strings.HasPrefix(line, `{"ts":"`) || rec.Direction != "outbound" || rec.ID == "" {
			t.Errorf("the record is %s", line)
		}
		seen = append(seen, rec.Decision+" "+rec.Method+" "+rec.Host+" "+rec.Path)
		if rec.Host == evil && rec.Method == "GET" && rec.ID != answer.ID {
			t.Errorf("the client was shown id %q, the audit has %q", answer.ID, rec.ID)
		}
	}
	for _, want := range []string{"allowed GET " + good + " /a", "blocked GET " + evil + " /d", "blocked CONNECT 192.0.2.1"} {
		if !strings.Contains(strings.Join(seen, "\n"), want) {
			t.Errorf("the audit lacks %q: %q", want, seen)
		}
	}
	if fi, err := os.Stat(log); err != nil || fi.Mode().Perm()&0o037 != 0 {
		t.Errorf("the audit's mode is %v %v", fi.Mode(), err)
	}
	if r := b.agentcage("run", "-c", "cage.yaml", "--audit", "-", "--", "curl", "-sS", s.url("https", evil, "/")); !strings.Contains(r.stderr, `"decision"`) {
		t.Errorf("--audit - says %s", r.stderr)
	}
	// The agent sees nothing of it.
	b.agentcage("run", "-c", "cage.yaml", "--audit", log, "--", "cat", log).fails(t, 1)
}

func TestAllowFlag(t *testing.T) {
	need(t, "curl")
	b, s := onSite(t)
	get := func(flags ...string) result {
		return b.agentcage(append(append([]string{"run", "-c", "cage.yaml"}, flags...), "--", "curl", "-sS", "--fail-with-body", s.url("https", good, "/"))...)
	}
	if r := get(); r.code == 0 {
		t.Errorf("nothing is allowed, and it worked: %s", r.stdout)
	}
	port := s.url("", good, "")[len("://"+good):]
	get("--allow", good+port).ok(t, `"URI":"/"`)
	get("--allow", "="+good+port).ok(t, `"URI":"/"`)
	if r := get("--allow", evil+port); r.code == 0 {
		t.Errorf("another host is allowed, and it worked: %s", r.stdout)
	}
	for _, bad := range []string{"*", "https://" + good, "com", "", "a b", good + ":0", good + ":99999", "*." + good} {
		get("--allow", bad).fails(t, 2, "error: cannot allow", "hint: ")
	}
}

func TestPersistentHome(t *testing.T) {
	b := newBench(t)
	b.write("cage.yaml", "name: keeper\nprocess: {home: persist}\n")
	b.caged("sh", "-c", "echo kept > ~/state").ok(t, "")
	b.caged("cat", b.home()+"/state").ok(t, "kept")
	b.write("cage.yaml", "name: other\nprocess: {home: persist}\n")
	b.caged("cat", b.home()+"/state").fails(t, 1)
	b.write("cage.yaml", "name: keeper\n")
	b.caged("cat", b.home()+"/state").fails(t, 1)
}

func (b *bench) home() string {
	b.t.Helper()
	return strings.TrimSpace(b.caged("sh", "-c", "echo $HOME").stdout)
}

// TestDemo is the README's first promise.
func TestDemo(t *testing.T) {
	b := newBench(t)
	before, err := filepath.Glob(os.TempDir() + "/agentcage-demo-*")
	must(t, err)
	r := b.agentcage("demo")
	if r.code != 0 || strings.Contains(r.stdout, "FAIL") || !strings.Contains(r.stdout, "STOPPED BY") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	after, err := filepath.Glob(os.TempDir() + "/agentcage-demo-*")
	must(t, err)
	if len(after) > len(before) {
		t.Errorf("left behind: %v", after)
	}
	r = b.agentcage("demo", "--json")
	steps := 0
	for line := range strings.Lines(r.stdout) {
		var step struct {
			Name string
			OK   bool
		}
		if err := json.Unmarshal([]byte(line), &step); err != nil || !step.OK {
			t.Errorf("step %q: %v", line, err)
		}
		steps++
	}
	if r.code != 0 || steps < 15 {
		t.Errorf("exit code %d, %d steps", r.code, steps)
	}
}

// TestUnenforced: a config that asks for what this version cannot do does not
// run (B14), and neither does one whose secrets are missing (rules 67).
func TestUnenforced(t *testing.T) {
	b := newBench(t)
	b.write("cage.yaml", "name: x\nsecret_injection: [{env: KEY, placeholder: \"{{KEY}}\"}]\n")
	b.caged("true").fails(t, 125, "missing secrets for cage 'x':", "agentcage secret set x KEY")
	b.write("cage.yaml", "name: x\nisolation: container\ncontainer: {image: x}\n")
	b.caged("true").fails(t, 2, "error: cannot run with isolation", "hint: ")
}

// TestBadConfig: FILE:LINE:COL, exit 2, and nothing is started.
func TestBadConfig(t *testing.T) {
	b := newBench(t)
	for name, tt := range map[string]struct{ yaml, where string }{
		"unknown key":     {"name: x\nrate_limit_rps: 3\n", "cage.yaml:2:1: cannot"},
		"second document": {"name: x\n---\nname: y\n", "cage.yaml:2:"},
		"wrong shape":     {"name: x\ndomains: [a, b]\n", "cage.yaml:2:10: cannot"},
		"no yaml":         {"name: [x\n", "cage.yaml:"},
		"bad host":        {"name: x\ndomains:\n  allow:\n    - https://a.test/\n", "cage.yaml:4:7: cannot"},
		"tab":             {"name: x\n\tdomains: {}\n", "cage.yaml:2:"},
		"public suffix":   {"name: x\ndomains: {allow: [co.uk]}\n", "cage.yaml:2:"},
	} {
		t.Run(name, func(t *testing.T) {
			b.write("cage.yaml", tt.yaml)
			for _, args := range [][]string{{"run", "-c", "cage.yaml", "--", "touch", "started"}, {"check", "cage.yaml"}, {"proxy", "-c", "cage.yaml", "--ca-dir", "ca"}, {"dns", "-c", "cage.yaml", "--listen", "127.0.0.1:0"}, {"trust"}} {
				r := b.agentcage(args...)
				r.fails(t, 2, tt.where)
				if r.stdout != "" {
					t.Errorf("%q wrote %q to standard output", args, r.stdout)
				}
			}
			for _, made := range []string{"started", "ca"} {
				if _, err := os.Stat(filepath.Join(b.dir, made)); err == nil {
					t.Errorf("%s was made", made)
				}
			}
		})
	}
	b.agentcage("check", "nonexistent.yaml").fails(t, 2, "nonexistent.yaml")
}
