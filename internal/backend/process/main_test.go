package process

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/agentcage/agentcage/internal/cage"
)

func TestMain(m *testing.M) {
	MaybeInit()
	if len(os.Args) > 2 && os.Args[1] == probeArg {
		os.Exit(probe(os.Args[2], os.Args[3:]))
	}
	if len(os.Args) == 3 && os.Args[1] == ownerArg {
		os.Exit(owner(os.Args[2]))
	}
	os.Exit(m.Run())
}

// needNamespaces skips where no cage can be made at all, and says why.
func needNamespaces(t *testing.T) {
	t.Helper()
	namespacesOnce.Do(func() {
		p, err := Backend{}.Start(t.Context(), cage.Spec{Command: []string{"true"}, Dir: os.TempDir()}, func(l cage.Listeners) error {
			closeListeners(l)
			return nil
		})
		if err != nil {
			namespacesErr = err
			return
		}
		_, namespacesErr = p.Wait()
	})
	if namespacesErr != nil {
		// Only what the host forbids is a reason to skip.
		if _, err := exec.Command("unshare", "-Urn", "true").Output(); err == nil {
			t.Fatalf("user namespaces work, but no cage can be made: %v", namespacesErr)
		}
		t.Skipf("needs user namespaces: %v", namespacesErr)
	}
}

var (
	namespacesOnce sync.Once
	namespacesErr  error
)

// run is one cage of a test.
type run struct {
	spec   cage.Spec
	attach func(cage.Listeners) error
}

type outcome struct {
	status   cage.Status
	err      error
	out      string
	refusals []cage.Refusal
	process  cage.Process
}

// project is a working directory that belongs to the test, with a file in it:
// an empty one is guarded less.
func project(t *testing.T) string {
	t.Helper()
	dir := emptyProject(t)
	write(t, filepath.Join(dir, readme), "")
	return dir
}

const readme = "README"

func emptyProject(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_STATE_HOME", filepath.Join(t.TempDir(), "state"))
	return dir
}

func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// probeSpec runs a probe of this test binary in a cage.
func probeSpec(t *testing.T, dir, name string, args ...string) cage.Spec {
	exe := self(t)
	return cage.Spec{Name: "test", Command: append([]string{exe, probeArg, name}, args...), Dir: dir, ReadOnly: []string{exe}}
}

// shell runs a script in a cage; args are its $1 and so on.
func shell(dir, script string, args ...string) cage.Spec {
	return cage.Spec{Name: "test", Command: append([]string{"sh", "-c", script, "sh"}, args...), Dir: dir}
}

func needProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s: the test runs it in a cage", name)
	}
}

// start starts a cage whose output goes to the returned reader's buffer.
func (r run) start(t *testing.T) (cage.Process, func() outcome) {
	t.Helper()
	needNamespaces(t)
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.spec.Stdout, r.spec.Stderr = pw, pw
	var o outcome
	var wg sync.WaitGroup
	var listeners cage.Listeners
	p, err := Backend{}.Start(t.Context(), r.spec, func(l cage.Listeners) error {
		listeners = l
		wg.Go(func() {
			for ref := range l.Refused {
				o.refusals = append(o.refusals, ref)
			}
		})
		if r.attach != nil {
			return r.attach(l)
		}
		return nil
	})
	pw.Close()
	if err != nil {
		pr.Close()
		t.Fatalf("cannot start: %v", err)
	}
	var out bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(&out, pr)
		pr.Close()
	}()
	return p, func() outcome {
		o.status, o.err = p.Wait()
		<-read
		closeListeners(listeners)
		wg.Wait()
		o.out, o.process = out.String(), p
		return o
	}
}

func (r run) run(t *testing.T) outcome {
	t.Helper()
	_, wait := r.start(t)
	return wait()
}

func (o outcome) want(t *testing.T, code int, substrings ...string) {
	t.Helper()
	if o.err != nil || o.status.Code != code {
		t.Fatalf("status %+v, error %v, want code %d; output:\n%s", o.status, o.err, code, o.out)
	}
	for _, s := range substrings {
		if !strings.Contains(o.out, s) {
			t.Errorf("output lacks %q:\n%s", s, o.out)
		}
	}
}

func (o outcome) lacks(t *testing.T, substrings ...string) {
	t.Helper()
	for _, s := range substrings {
		if strings.Contains(o.out, s) {
			t.Errorf("output has %q:\n%s", s, o.out)
		}
	}
}

// serve answers every connection with the address that it was meant for.
func serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, c.LocalAddr().String()+"\n")
		c.Close()
	}
}
