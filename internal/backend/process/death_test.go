package process

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/cage"
)

const ownerArg = "agentcage-owner"

// owner is a process that starts a cage and is then killed by a test.
func owner(dir string) int {
	_, err := Backend{}.Start(context.Background(), cage.Spec{
		Command: []string{"sh", "-c", "echo running; sleep 1000 & sleep 1000"}, Dir: dir,
		Stdout: os.Stdout, Stderr: os.Stderr,
	}, func(l cage.Listeners) error { return nil })
	if err != nil {
		os.Stdout.WriteString("error: " + err.Error() + "\n")
		return 1
	}
	select {}
}

// The cage dies with whoever started it, even by SIGKILL, and the next cage
// removes what it left on the host.
func TestOwnerIsKilled(t *testing.T) {
	needNamespaces(t)
	dir := project(t)
	cmd := exec.Command(self(t), ownerArg, dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "running\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if got := tree(t, dir); len(got) == 0 {
		t.Error("no placeholder while the cage runs")
	}
	if err := cmd.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Everything in the cage has our pipe as its output: its end is their end.
	rest, err := io.ReadAll(r)
	cmd.Wait()
	if err != nil || len(rest) != 0 {
		t.Errorf("got %q, %v", rest, err)
	}
	if got := tree(t, dir); len(got) == 0 {
		t.Error("a killed owner cannot have cleared up")
	}
	other := filepath.Join(t.TempDir(), "other")
	os.Mkdir(other, 0o755)
	run{spec: shell(other, "true")}.run(t).want(t, 0)
	if got := tree(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	state, _ := stateDir()
	for _, name := range tree(t, state) {
		if strings.HasSuffix(name, ".json") {
			t.Errorf("record %s is still there", name)
		}
	}
}
