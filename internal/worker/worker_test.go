package worker

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	MaybeMain()
	os.Exit(m.Run())
}

const testMemory = 256 << 20

// patience bounds a single answer. It is no measurement.
const patience = time.Minute

// needPython skips where no worker can be made, and says why.
func needPython(t testing.TB) *Spawner {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3: not installed")
	}
	if _, err := exec.Command("unshare", "-Urn", "true").Output(); err != nil {
		t.Skipf("needs user namespaces: %v", err)
	}
	s, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// program starts a worker with a program of its own, and reads from it.
func program(t testing.TB, s *Spawner, source string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := s.Start(testMemory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	line, err := json.Marshal(source)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func readLine(t testing.TB, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	return strings.TrimSpace(line)
}

const prelude = `
import os, sys
def say(*words):
    os.write(3, (' '.join(map(str, words)) + '\n').encode())
def attempt(name, f):
    try:
        say(name, 'did', f())
    except BaseException as e:
        say(name, 'refused', type(e).__name__)
`

// TestWalls tries from inside what a worker must not be able to do. The
// positive control is that it computes, imports and answers.
func TestWalls(t *testing.T) {
	s := needPython(t)
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AGENTCAGE_TEST_TOKEN", "secret")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip("needs loopback: ", err)
	}
	defer l.Close()
	_, r := program(t, s, prelude+fmt.Sprintf(`
import json, re, hashlib, ssl, ctypes, socket, subprocess, threading
say('control', hashlib.sha256(b'').hexdigest()[:8], os.getpid())
attempt('read', lambda: open(%q).read())
attempt('passwd', lambda: open('/etc/passwd').read())
attempt('list', lambda: os.listdir('/'))
attempt('home', lambda: os.listdir(os.path.expanduser('~root')))
attempt('write', lambda: open('/x', 'w'))
attempt('tmp', lambda: open('/tmp/x', 'w'))
attempt('lib', lambda: open(os.__file__ + 'x', 'w'))
attempt('fork', os.fork)
attempt('spawn', lambda: subprocess.run(['/bin/true']))
attempt('connect', lambda: socket.create_connection(('127.0.0.1', %d), 2))
attempt('name', lambda: socket.getaddrinfo('localhost.example', 80))
attempt('unshare', lambda: 1/0 if ctypes.CDLL(None).unshare(0x10000000) else 'done')
attempt('ptrace', lambda: 1/0 if ctypes.CDLL(None).ptrace(16, %d, 0, 0) else 'done')
attempt('signal', lambda: os.kill(%d, 0))
attempt('memory', lambda: len(bytearray(1 << 30)))
attempt('segment', lambda: 1/0 if ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600) < 0 else 'done')
attempt('queue', lambda: 1/0 if ctypes.CDLL(None).msgget(0, 0o1600) < 0 else 'done')
say('env', sorted(os.environ))
say('fds', sorted(os.listdir('/proc/self/fd'))[:-1])
say('pids', [p for p in os.listdir('/proc') if p.isdigit()])
say('caps', [l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp:'))])
attempt('file', lambda: os.write(os.memfd_create('x'), b'x'))
say('uid', os.getuid(), os.getgroups())
t = threading.Thread(target=lambda: say('thread')); t.start(); t.join()
`, secret, l.Addr().(*net.TCPAddr).Port, os.Getpid(), os.Getpid()))
	want := map[string]string{
		"control": "e3b0c442 1", "env": "['LANG']", "pids": "['1']", "thread": "",
		"fds": "['0', '1', '2', '3']", "caps": "['0000000000000000', '0000000000000000', '1', '2']",
	}
	for _, name := range []string{"read", "passwd", "list", "home", "write", "tmp", "lib", "fork", "spawn", "connect", "name", "unshare", "ptrace", "signal", "memory", "segment", "queue", "file"} {
		want[name] = "refused"
	}
	got := map[string]string{}
	for line, err := r.ReadString('\n'); err == nil; line, err = r.ReadString('\n') {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[name] = rest
	}
	for name, w := range want {
		g, ok := got[name]
		if !ok || g != w && (w != "refused" || !strings.HasPrefix(g, "refused ")) {
			t.Errorf("%s: %q, want %q", name, g, w)
		}
	}
	if os.Geteuid() == 0 && got["uid"] != "65534 []" {
		t.Errorf("a worker of root's has the ids %s", got["uid"])
	}
}

// TestEnds: a worker that listens to nobody ends when its connection is closed,
// and with its spawner.
func TestEnds(t *testing.T) {
	s := needPython(t)
	const deaf = prelude + "import signal\nsay('ready')\nwhile True: pass\n"
	first, r := program(t, s, deaf)
	readLine(t, r)
	first.Close()
	for range MaxWorkers { // would be too many if the ended ones counted
		conn, r := program(t, s, prelude+"say('ready')\n")
		if got := readLine(t, r); got != "ready" {
			t.Fatal(got)
		}
		if _, err := r.ReadString('\n'); err != io.EOF {
			t.Fatal(err)
		}
		conn.Close()
		if testing.Short() {
			break
		}
	}
	_, r = program(t, s, deaf)
	readLine(t, r)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadString('\n'); err != io.EOF {
		t.Errorf("a worker survives its spawner: %v", err)
	}
	if _, err := s.Start(testMemory); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed spawner starts: %v", err)
	}
}

// TestSpawnerKilled: nothing survives it, and nothing is started any more.
func TestSpawnerKilled(t *testing.T) {
	s := needPython(t)
	_, r := program(t, s, prelude+"say('ready')\nwhile True: pass\n")
	readLine(t, r)
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadString('\n'); err != io.EOF {
		t.Errorf("a worker survives its spawner: %v", err)
	}
	if conn, err := s.Start(testMemory); err == nil {
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("a dead spawner starts: %v", err)
		}
	}
}

// TestFindPython: an agent that writes a python3 into the project does not run
// it on the host the next time.
// TestParentGone: the signal for a dead parent comes to those only who were tied
// to it when it died.
func TestParentGone(t *testing.T) {
	parent := exec.Command("cat")
	in, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(parent.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := alive(fd); err != nil {
		t.Error("positive control:", err)
	}
	in.Close()
	if err := parent.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := alive(fd); err == nil || err.Error() != "its parent has ended" {
		t.Errorf("a dead parent: %v", err)
	}
	if err := alive(1 << 20); err == nil {
		t.Error("without a descriptor it is alive")
	}
}

func TestFindPython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3: not installed")
	}
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	fake := filepath.Join(dir, "bin", "python3")
	if err := os.MkdirAll(filepath.Dir(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fake, []byte("#!/bin/sh\n: > "+ran+"\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := "relative:" + filepath.Dir(fake)
	if _, err := findPython(path, []string{dir}); err == nil || !strings.Contains(err.Error(), "the agent can write") {
		t.Errorf("found: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Dir(fake), link); err != nil {
		t.Fatal(err)
	}
	if _, err := findPython(link, []string{dir}); err == nil {
		t.Error("a link into the project is followed")
	}
	if _, err := os.Stat(ran); err == nil {
		t.Fatal("the project's python3 was run")
	}
	p, err := findPython(path+":"+os.Getenv("PATH"), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(p.Path); err != nil || !st.Mode().IsRegular() {
		t.Errorf("%s: %v", p.Path, err)
	}
	if _, err := findPython(path+":"+os.Getenv("PATH"), []string{dir, "/"}); err == nil {
		t.Error("an interpreter that the agent can change is accepted")
	}
	if _, err := findPython(filepath.Dir(fake), nil); err == nil { // positive control of ran
		t.Error("a python3 that fails is accepted")
	}
	if _, err := os.Stat(ran); err != nil {
		t.Error("the control did not run")
	}
}
