//go:build linux

package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/agentcage/agentcage/internal/backend/process"
	"github.com/agentcage/agentcage/internal/worker"
)

func TestMain(m *testing.M) {
	process.MaybeInit()
	worker.MaybeMain()
	testscript.Main(m, map[string]func(){
		"agentcage": func() { os.Exit(Main()) },
	})
}

// TestScripts runs the specification of the command line: one script for each
// subject in testdata.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			// A script's work is its own: nothing is read from the user's.
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("XDG_DATA_HOME", filepath.Join(e.WorkDir, "data"))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Setenv("NO_COLOR", "1")
			return os.MkdirAll(filepath.Join(e.WorkDir, "home"), 0o700)
		},
		Condition: func(cond string) (bool, error) {
			if cond == "cages" {
				return canMakeCages(), nil
			}
			return false, errors.New("unknown condition " + cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits runs a program that must end with a code: exits CODE PROGRAM [ARG...].
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// canMakeCages tries one, as the scripts will.
func canMakeCages() bool {
	dir, err := os.MkdirTemp("", "agentcage-cli-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return false
	}
	// The test binary knows itself by the name that it is called by.
	link := filepath.Join(dir, "agentcage")
	if err := os.Symlink(self, link); err != nil {
		return false
	}
	c := exec.Command(link, "run", "--", "true")
	c.Dir, c.Env = filepath.Join(dir, "project"), append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(dir, "state"))
	return os.Mkdir(c.Dir, 0o755) == nil && c.Run() == nil
}
