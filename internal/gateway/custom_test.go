package gateway

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/worker"
)

// ownConfig is a config with a section inspectors, in a folder with an
// inspector in Python.
func ownConfig(t *testing.T, inspectors string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "own.py"), []byte(`
from inspectors.base import Inspector, InspectionResult
class Own(Inspector):
    name = "own"
    def configure(self, cfg):
        self.word = cfg["word"]
    def inspect_request(self, ctx):
        if self.word in ctx.body_text:
            prior = ", ".join(p.inspector for p in ctx.prior_results)
            return InspectionResult(self.name, "block", "the word, after " + prior, "error")
`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse(filepath.Join(dir, "cage.yaml"), []byte("name: test\ndomains: {allow: [example.com]}\ninspectors:\n"+inspectors))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func content(t *testing.T, body string) *inspect.Content {
	t.Helper()
	host, err := hostname.Parse("example.com")
	if err != nil {
		t.Fatal(err)
	}
	return &inspect.Content{
		Request: &inspect.Request{Method: "POST", Scheme: "https", Host: host, Port: 443, Path: "/", URL: &url.URL{Path: "/"}},
		Kind:    inspect.KindRequest, Direction: inspect.ToServer, Body: []byte(body),
	}
}

func decide(t *testing.T, g *Gateway, body string) inspect.Verdict {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.policy.chain.DecideContent(t.Context(), content(t, body))
}

// TestCustomInspectors: they are asked in the order of the list, and a reload
// puts new ones in their place when all of them have started, or keeps the old.
func TestCustomInspectors(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3: not installed")
	}
	if err := exec.Command("unshare", "-Urn", "true").Run(); err != nil {
		t.Skipf("needs user namespaces: %v", err)
	}
	spawner, err := worker.Start(worker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer spawner.Close()
	const list = `
  - {name: posts, when: 'method == "POST"', action: flag, reason: a post}
  - {name: own, path: own.py, config: {word: %s}}
`
	g, err := New(Options{Config: ownConfig(t, fmt.Sprintf(list, "first")), Audit: &log{}, Name: "test", Workers: spawner})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if v := decide(t, g, "the first"); v.Decision != inspect.Blocked || v.Reason != "the word, after posts" {
		t.Errorf("%+v", v)
	}
	if v := decide(t, g, "the second"); v.Decision != inspect.Flagged || v.Reason != "a post" {
		t.Errorf("%+v", v)
	}
	if err := g.Reload(ownConfig(t, "  - {name: own, path: own.py}\n")); err == nil || !strings.Contains(err.Error(), "line 6: KeyError: 'word'") {
		t.Errorf("%v", err)
	}
	if v := decide(t, g, "the first"); v.Decision != inspect.Blocked {
		t.Errorf("after a reload that failed: %+v", v)
	}
	if err := g.Reload(ownConfig(t, fmt.Sprintf(list, "second"))); err != nil {
		t.Fatal(err)
	}
	if v := decide(t, g, "the second"); v.Decision != inspect.Blocked {
		t.Errorf("after a reload: %+v", v)
	}
	if err := g.Reload(ownConfig(t, "  []\n")); err != nil {
		t.Fatal(err)
	}
	if v := decide(t, g, "the second"); v.Decision != inspect.Allowed {
		t.Errorf("without the inspector: %+v", v)
	}
}

// TestCustomInspectorsRefused: an inspector that cannot be used stops the start.
func TestCustomInspectorsRefused(t *testing.T) {
	for list, want := range map[string]string{
		"  - {name: own, path: own.py}\n":                       "cage.yaml:4:23: cannot read inspectors[0].path: nothing here can start its processes",
		"  - {name: a, when: 'true'}\n  - {name: b, when: x}\n": "cage.yaml:5:21: cannot read inspectors[1].when: unknown name x",
		"  - {name: own, path: none.py}\n":                      "cage.yaml:4:23: cannot read inspectors[0].path: cannot read it: no such file or directory",
		"  - {name: own, path: .}\n":                            "it is not an ordinary file",
		"  - {name: own, path: cage.wasm}\n":                    "no such file",
	} {
		c := ownConfig(t, list)
		_, err := New(Options{Config: c, Audit: &log{}, Name: "test"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", list, err, want)
		}
		if !strings.Contains(want, "processes") && CheckInspectors(c) == nil {
			t.Errorf("%s checks well", list)
		}
	}
}

// TestDNSOnly: the half that answers queries starts no inspector.
func TestDNSOnly(t *testing.T) {
	g, err := New(Options{Config: ownConfig(t, "  - {name: own, path: own.py}\n"), Audit: &log{}, Name: "test", DNSOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
