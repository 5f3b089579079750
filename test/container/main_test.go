//go:build linux

// Package container tests what container mode is made of on a real host: the
// generator of quadlet units, systemd, rootless Podman.
package container

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/agentcage/agentcage/test/testhost"
)

func TestMain(m *testing.M) { os.Exit(testhost.Main(m)) }

// program builds a program of the tree, static, and puts it on the host.
func program(t *testing.T, h *testhost.Host, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := c.CombinedOutput(); err != nil {
		t.Fatalf("cannot build %s: %v\n%s", pkg, err, msg)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return h.Put(t, "bin/"+filepath.Base(pkg), data, 0o755)
}
