//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// post sends a body with curl from a cage.
func (b *bench) post(body string) result {
	b.t.Helper()
	return b.caged("curl", "-sS", "--fail-with-body", "--data-binary", body, b.s.url("https", good, "/"))
}

// checkBodies sends what must not arrive, between two that must.
func checkBodies(t *testing.T, b *bench, s *site, bad, reason string) {
	t.Helper()
	b.post("good before").ok(t, `"URI":"/"`)
	if r := b.post(bad); r.code == 0 || !strings.Contains(r.all(), reason) {
		t.Errorf("%q: %d %s", bad, r.code, clip(r.all()))
	}
	b.post("good after").ok(t, `"URI":"/"`)
	got := s.received(good)
	if len(got) != 2 || got[0].Body != "good before" || got[1].Body != "good after" {
		t.Errorf("the server received %+v", got)
	}
}

// TestInspectorPython: an inspector that was written for the original decides.
func TestInspectorPython(t *testing.T) {
	needWorkers(t)
	need(t, "curl")
	b, s := onSite(t)
	b.example("card_numbers.py")
	b.inspectors(cards)
	checkBodies(t, b, s, "pay with 4111 1111 1111 1111", "card number (visa) in the body")
}

// TestInspectorCrashes: one that raises blocks the request.
func TestInspectorCrashes(t *testing.T) {
	needWorkers(t)
	need(t, "curl")
	b, s := onSite(t)
	b.write("own.py", "from inspectors.base import Inspector\nclass Own(Inspector):\n    def inspect_request(self, ctx):\n        assert 'bad' not in ctx.body_text\n")
	b.inspectors("  - {name: own, path: own.py}\n")
	checkBodies(t, b, s, "bad s3cret", "inspector own failed: it raised an exception")
}

// TestInspectorWhen: a condition needs nothing but its line.
func TestInspectorWhen(t *testing.T) {
	need(t, "curl")
	b, s := onSite(t)
	b.inspectors("  - {name: words, when: 'method == \"POST\" && body_text contains \"bad\"', reason: a bad word}\n")
	checkBodies(t, b, s, "bad", "a bad word")
}

// TestInspectorWASM builds the example and runs it.
func TestInspectorWASM(t *testing.T) {
	need(t, "curl")
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs Go tool chain: not installed")
	}
	b, s := onSite(t)
	c := exec.Command("go", "build", "-buildmode=c-shared", "-o", filepath.Join(b.dir, "graphql.wasm"), ".")
	c.Dir, c.Env = filepath.Join("..", "..", "examples", "inspectors", "wasm-go"), append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.inspectors("  - {name: graphql, path: graphql.wasm, timeout: 30s}\n")
	post := func(body string) result {
		return b.caged("curl", "-sS", "--fail-with-body", "-H", "Content-Type: application/json", "-d", body, s.url("https", good, "/"))
	}
	post(`{"query": "query Q { a }"}`).ok(t, `"URI":"/"`)
	if r := post(`{"query": "mutation M { a }"}`); r.code == 0 || !strings.Contains(r.all(), "GraphQL mutation that is not allowed") {
		t.Errorf("%d %s", r.code, clip(r.all()))
	}
	if got := s.received(good); len(got) != 1 {
		t.Errorf("the server received %+v", got)
	}
}
