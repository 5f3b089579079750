//go:build linux

package container

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/image"
	"github.com/agentcage/agentcage/test/testhost"
)

// TestImage loads the program's own image and runs it as a cage's gateway runs.
func TestImage(t *testing.T) {
	h := testhost.Start(t)
	ref := loaded(t, h, program(t, h, "github.com/agentcage/agentcage/cmd/agentcage"))
	out := h.Must(t, testhost.User, "podman", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "all",
		"--security-opt", "no-new-privileges", ref.Ref, "--version")
	if !strings.HasPrefix(out, "agentcage, version ") {
		t.Errorf("it says %q", out)
	}
	got := h.Must(t, testhost.User, "podman", "image", "inspect", "--format", "{{.Id}} {{.User}} {{len .RootFS.Layers}}", ref.Ref)
	if want := ref.ID + " " + image.User + " 1\n"; got != want {
		t.Errorf("podman has %q, want %q", got, want)
	}
}

// loaded makes an image of a program that is on the host, and loads it there.
func loaded(t *testing.T, h *testhost.Host, program string) *image.Image {
	t.Helper()
	ref, err := image.FromFile(h.Share+strings.TrimPrefix(program, testhost.Shared), runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := ref.Write(&b); err != nil {
		t.Fatal(err)
	}
	archive := h.Put(t, "image.tar", b.Bytes(), 0o644)
	t.Cleanup(func() { os.Remove(h.Share + strings.TrimPrefix(archive, testhost.Shared)) })
	out := h.Must(t, testhost.User, "podman", "load", "-q", "-i", archive)
	if strings.TrimSpace(out) != "Loaded image: "+ref.Ref {
		t.Errorf("podman says %q", out)
	}
	return ref
}
