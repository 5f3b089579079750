//go:build linux

// Package e2e tests the built binary with real programs: real clients against
// real TLS servers with an authority of their own, on loopback, in real cages.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bin is the program under test.
var bin string

// clientEnv makes this test binary a Go program that fetches a URL.
const clientEnv = "E2E_GO_CLIENT"

func TestMain(m *testing.M) {
	if url := os.Getenv(clientEnv); url != "" {
		os.Exit(goClient(url))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	bin = os.Getenv("AGENTCAGE_BIN")
	if bin == "" {
		dir, err := os.MkdirTemp("", "agentcage-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = filepath.Join(dir, "agentcage")
		c := exec.Command("go", "build", "-trimpath", "-o", bin, "github.com/agentcage/agentcage/cmd/agentcage")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cannot build the program: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// goClient is a plain Go program, as any other.
func goClient(url string) int {
	res, err := http.Get(url)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer res.Body.Close()
	_, err = io.Copy(os.Stdout, res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}

// patience bounds a single program. It is no measurement.
const patience = 90 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// need skips when a program is not installed.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s: not installed", program)
	}
}

// result is how a program ended.
type result struct {
	code           int
	stdout, stderr string
}

func (r result) all() string { return r.stdout + r.stderr }

// bench is where a program is run: a project directory with a cage.yaml, and
// state that is nobody else's.
type bench struct {
	t     *testing.T
	dir   string
	state string
	env   []string
	s     *site
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	b := &bench{t: t, dir: filepath.Join(dir, "project"), state: filepath.Join(dir, "state")}
	must(t, os.Mkdir(b.dir, 0o755))
	b.env = append(os.Environ(), "XDG_STATE_HOME="+b.state, "NO_COLOR=1")
	return b
}

// write makes a file in the project.
func (b *bench) write(name, content string) string {
	b.t.Helper()
	p := filepath.Join(b.dir, name)
	must(b.t, os.MkdirAll(filepath.Dir(p), 0o755))
	must(b.t, os.WriteFile(p, []byte(content), 0o644))
	return p
}

// read returns a file of the project.
func (b *bench) read(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	must(b.t, err)
	return string(data)
}

// agentcage runs the program under test.
func (b *bench) agentcage(args ...string) result {
	b.t.Helper()
	return b.exec(bin, args...)
}

// exec runs a program outside of any cage.
func (b *bench) exec(program string, args ...string) result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Dir, c.Env = b.dir, b.env
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatalf("cannot run %s: %v", program, err)
	}
	if ctx.Err() != nil {
		b.t.Fatalf("%s %q did not end; it said\n%s%s", program, args, out.String(), errs.String())
	}
	return result{c.ProcessState.ExitCode(), out.String(), errs.String()}
}

// caged runs a command in a cage with the project's cage.yaml.
func (b *bench) caged(command ...string) result {
	b.t.Helper()
	return b.agentcage(append([]string{"run", "-c", "cage.yaml", "--"}, command...)...)
}

// ok fails unless a program ended well and said something.
func (r result) ok(t *testing.T, want string) {
	t.Helper()
	if r.code != 0 || !strings.Contains(r.stdout, want) {
		t.Errorf("want exit code 0 and %q, got %d\nstdout: %s\nstderr: %s", want, r.code, clip(r.stdout), clip(r.stderr))
	}
}

// code fails unless a program ended with a code and said something on stderr.
func (r result) fails(t *testing.T, code int, want ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("want exit code %d, got %d\nstdout: %s\nstderr: %s", code, r.code, clip(r.stdout), clip(r.stderr))
	}
	for _, w := range want {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("want %q on stderr, got: %s", w, clip(r.stderr))
		}
	}
}

func clip(s string) string { return s[:min(len(s), 1500)] }
