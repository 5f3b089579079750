//go:build linux

package cagetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

// marked lists processes of this machine whose arguments hold a text.
func marked(t *testing.T, text string) []string {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	if len(entries) == 0 {
		t.Fatal("the control failed: no process is visible")
	}
	var out []string
	for _, e := range entries {
		b, err := os.ReadFile(e) // it may have ended meanwhile
		if err == nil && strings.Contains(string(b), text) {
			out = append(out, e)
		}
	}
	return out
}

// children lists the processes that this one has started and not yet reaped.
func children(t *testing.T) []string {
	t.Helper()
	var out []string
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	must(t, err)
	for _, f := range tasks {
		b, err := os.ReadFile(f) // the thread may have ended meanwhile
		if err == nil {
			out = append(out, strings.Fields(string(b))...)
		}
	}
	return out
}

func mounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if len(b) == 0 {
		t.Fatal("the control failed: no mount is visible")
	}
	return string(b)
}

var lifecycleChecks = []check{
	{"exit-codes", "104", func(t *testing.T, s *suite) {
		for _, code := range []int{0, 1, 2, 42, 125, 126, 127, 128, 255} {
			in := s.cage(t, command("exit", itoa(code)))
			if st, err := in.p.Wait(); err != nil || st.Code != code || st.Signal != 0 {
				t.Errorf("exit %d: %+v %v", code, st, err)
			}
		}
	}},
	{"ended-by-a-signal", "104", func(t *testing.T, s *suite) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGHUP, syscall.SIGINT} {
			in := s.cage(t, command("signal", itoa(int(sig))))
			if st, err := in.p.Wait(); err != nil || st.Code != 128+int(sig) || st.Signal != sig {
				t.Errorf("%v: %+v %v", sig, st, err)
			}
		}
	}},
	{"not-found-and-not-executable", "104", func(t *testing.T, s *suite) {
		text := filepath.Join(t.TempDir(), "text")
		must(t, os.WriteFile(text, []byte("no program"), 0o644))
		for name, want := range map[string]int{"no-such-program-anywhere": 127, "/nonexistent/program": 127, text: 126, filepath.Dir(text): 126} {
			in, err := s.start(t, withSpec(func(spec *cage.Spec) {
				spec.Command = []string{name}
				if strings.HasPrefix(name, filepath.Dir(text)) {
					spec.ReadOnly = append(spec.ReadOnly, filepath.Dir(text))
				}
			}))
			if err != nil {
				t.Errorf("%s: Start failed with %v, want a status of %d", name, err, want)
				continue
			}
			if st, _ := in.p.Wait(); st.Code != want {
				t.Errorf("%s: %+v, want %d", name, st, want)
			}
		}
	}},
	{"signals-are-passed-on", "104", func(t *testing.T, s *suite) {
		for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 43, syscall.SIGINT: 44} {
			in := s.cage(t, command("wait"))
			if l := in.line(); l != "ready" {
				t.Fatalf("the command said %q", l)
			}
			must(t, in.p.Signal(sig))
			if st, err := in.p.Wait(); err != nil || st.Code != code {
				t.Errorf("%v: %+v %v", sig, st, err)
			}
			if err := in.p.Signal(sig); err == nil {
				t.Error("a signal to an ended cage worked")
			}
		}
	}},
	{"kill", "102 104", func(t *testing.T, s *suite) {
		in := s.cage(t, command("deaf"))
		in.line()
		must(t, in.p.Kill())
		if st, _ := in.p.Wait(); st.Code != 128+9 {
			t.Errorf("killed: %+v", st)
		}
		if err := in.p.Kill(); err != nil {
			t.Errorf("a second kill: %v", err)
		}
		// Every Wait returns the same.
		a, errA := in.p.Wait()
		b, errB := in.p.Wait()
		if a != b || !errors.Is(errA, errB) && errA != errB {
			t.Errorf("two waits: %+v %v, %+v %v", a, errA, b, errB)
		}
	}},
	{"cancelled", "102", func(t *testing.T, s *suite) {
		ctx, cancel := context.WithCancel(context.Background())
		in := s.cage(t, func(set *setup) { set.ctx = ctx }, command("deaf"))
		in.line()
		cancel()
		if st, _ := in.p.Wait(); st.Code == 0 {
			t.Errorf("cancelled: %+v", st)
		}
	}},
	{"daemons-die-with-the-cage", "102 B11", func(t *testing.T, s *suite) {
		mark := fmt.Sprintf("agentcage-daemon-%d-%s", os.Getpid(), filepath.Base(t.TempDir()))
		in := s.cage(t)
		in.works(wire.Ask{Do: "exec", Argv: []string{s.probe, "daemon", mark}})
		if len(marked(t, mark)) == 0 {
			t.Fatal("the control failed: the daemon is not seen while the cage runs")
		}
		in.in.Close() // the command ends by itself
		if st, err := in.p.Wait(); err != nil || st.Code != 0 {
			t.Errorf("%+v %v", st, err)
		}
		if left := marked(t, mark); len(left) > 0 {
			t.Errorf("still there: %v", left)
		}
	}},
	{"nothing-is-left", "102 104", func(t *testing.T, s *suite) {
		procs, before := children(t), mounts(t)
		for range 3 {
			in := s.cage(t)
			in.works(wire.Ask{Do: "cwd"})
			if mounts(t) != before {
				t.Error("the cage's mounts are seen on the host")
			}
			in.end()
		}
		if mounts(t) != before {
			t.Error("mounts are left")
		}
		if left := children(t); len(left) > len(procs) {
			t.Errorf("processes are left: %v, before %v", left, procs)
		}
	}},
	{"no-agent-without-its-gateway", "B13 34 92 C10", func(t *testing.T, s *suite) {
		dir := t.TempDir()
		mark := filepath.Join(dir, "the-agent-ran")
		refuse := errors.New("the gateway cannot serve")
		in, err := s.start(t, at(dir), command("touch", mark), func(set *setup) {
			set.attach = func(l cage.Listeners) error { closeListeners(l); return refuse }
		})
		if !errors.Is(err, refuse) {
			t.Errorf("Start returned %v", err)
		}
		if err == nil {
			in.end()
		}
		if _, err := os.Stat(mark); err == nil {
			t.Error("the agent ran without a gateway")
		}
		if left := tree(t, dir); len(left) != 1 {
			t.Errorf("left behind: %v", left)
		}
		// The positive control.
		in = s.cage(t, at(dir), command("touch", mark))
		if st, err := in.p.Wait(); err != nil || st.Code != 0 {
			t.Errorf("%+v %v", st, err)
		}
		if _, err := os.Stat(mark); err != nil {
			t.Errorf("the control failed: %v", err)
		}
	}},
	{"listeners-are-complete", "34", func(t *testing.T, s *suite) {
		in := s.cage(t, command("exit", "0"), func(set *setup) {
			set.attach = func(l cage.Listeners) error {
				defer closeListeners(l)
				if l.Proxy == nil || len(l.DNS) == 0 || len(l.DNSStream) == 0 || len(l.Transparent) == 0 {
					t.Errorf("listeners are missing: %+v", l)
				}
				return nil
			}
		})
		if st, err := in.p.Wait(); err != nil || st.Code != 0 {
			t.Errorf("%+v %v", st, err)
		}
	}},
	{"ten-at-once", "103 35", func(t *testing.T, s *suite) {
		s.world.reset()
		var wg sync.WaitGroup
		started := make([]*inside, 10)
		errs := make([]error, len(started))
		for n := range started {
			wg.Go(func() { started[n], errs[n] = s.start(t) })
		}
		wg.Wait()
		for n, in := range started {
			if errs[n] != nil {
				t.Errorf("cage %d: %v", n, errs[n])
				continue
			}
			path := fmt.Sprintf("/cage-%d", n)
			if got := in.arrived(in.ask(wire.Ask{Do: "http", Via: "direct", URL: s.world.url("https", goodHost, path)}), goodHost); got.URI != path {
				t.Errorf("cage %d: %+v", n, got)
			}
		}
	}},
	{"big-output", "77", func(t *testing.T, s *suite) {
		const size = 8 << 20
		in := s.cage(t, command("flood", itoa(size)))
		n, err := io.Copy(io.Discard, in.out)
		if err != nil || n != size {
			t.Errorf("read %d of %d bytes: %v", n, size, err)
		}
		if st, err := in.p.Wait(); err != nil || st.Code != 0 {
			t.Errorf("%+v %v", st, err)
		}
	}},
	{"output-closed", "77 104", func(t *testing.T, s *suite) {
		r, w, err := os.Pipe()
		must(t, err)
		in := s.cage(t, command("flood", itoa(8<<20)), withSpec(func(spec *cage.Spec) { spec.Stdout = w }))
		w.Close()
		r.Close() // nobody reads: as head(1) does
		if st, err := in.p.Wait(); err != nil || st.Code == 0 {
			t.Errorf("%+v %v", st, err)
		}
	}},
	{"standard-input", "77 107", func(t *testing.T, s *suite) {
		// Bytes come through as they are, and the end of them too.
		in := s.cage(t)
		odd := []byte("\x00\r\n\x04\x03\xff" + strings.Repeat("z", 70000))
		in.works(wire.Ask{Do: "write", Path: "odd", Data: odd})
		if b, err := os.ReadFile(filepath.Join(in.dir, "odd")); err != nil || string(b) != string(odd) {
			t.Errorf("%d of %d bytes arrived: %v", len(b), len(odd), err)
		}
		in.in.Close()
		if st, err := in.p.Wait(); err != nil || st.Code != 0 {
			t.Errorf("at the end of input: %+v %v", st, err)
		}
	}},
	{"no-command", "104", func(t *testing.T, s *suite) {
		if in, err := s.start(t, withSpec(func(spec *cage.Spec) { spec.Command = nil })); err == nil {
			in.end()
			t.Error("a cage without a command was started")
		}
	}},
	{"missing-working-directory", "89 104", func(t *testing.T, s *suite) {
		if in, err := s.start(t, withSpec(func(spec *cage.Spec) { spec.Dir = "/nonexistent/dir" })); err == nil {
			in.end()
			t.Error("a cage in a directory that is not there was started")
		}
	}},
}

func closeListeners(l cage.Listeners) {
	l.Proxy.Close()
	for _, x := range l.Transparent {
		x.Close()
	}
	for _, x := range l.DNSStream {
		x.Close()
	}
	for _, x := range l.DNS {
		x.Close()
	}
}
