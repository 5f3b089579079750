//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// needWorkers skips where no inspector in Python can be run.
func needWorkers(t *testing.T) {
	t.Helper()
	need(t, "python3")
}

// example copies an inspector of examples/inspectors into the project.
func (b *bench) example(name string) {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "examples", "inspectors", name))
	must(b.t, err)
	b.write(name, string(data))
}

// inspectors adds a section to the project's cage.yaml.
func (b *bench) inspectors(list string) {
	b.t.Helper()
	b.write("cage.yaml", b.s.config(good)+"inspectors:\n"+list)
}

const cards = "  - {name: cards, path: card_numbers.py}\n"

// TestInspectorSetUp: an inspector that cannot be used stops the start with its
// own words, and nothing runs.
func TestInspectorSetUp(t *testing.T) {
	needWorkers(t)
	b, _ := onSite(t)
	b.example("card_numbers.py")
	b.inspectors(cards)
	b.caged("true").ok(t, "")
	b.inspectors("  - {name: cards, path: card_numbers.py, config: {brands: [none]}}\n")
	r := b.caged("touch", "ran")
	r.fails(t, 2, "cannot read inspectors[0].path: cannot use inspector cards: line 38: ValueError: unknown brands: none")
	if _, err := os.Stat(filepath.Join(b.dir, "ran")); err == nil {
		t.Error("the command ran without its inspector")
	}
}

// TestInspectorIsNotTheAgents: an agent can change neither the file that the
// next run takes for an inspector, nor the interpreter that runs it.
func TestInspectorIsNotTheAgents(t *testing.T) {
	needWorkers(t)
	b, _ := onSite(t)
	b.example("card_numbers.py")
	b.inspectors(cards)
	before := b.read("card_numbers.py")
	r := b.caged("sh", "-c", "echo control > control; echo > card_numbers.py; mv card_numbers.py x; rm -f card_numbers.py; ln -s /dev/null card_numbers.py; true")
	r.ok(t, "")
	if b.read("card_numbers.py") != before || b.read("control") != "control\n" {
		t.Errorf("the agent changed the inspector:\n%s", r.all())
	}
	// An interpreter of the project is not run, whatever PATH says.
	b.write("bin/python3", "#!/bin/sh\n: > "+b.dir+"/ran\nexec /usr/bin/env -i /usr/bin/python3 \"$@\"\n")
	must(t, os.Chmod(filepath.Join(b.dir, "bin/python3"), 0o755))
	b.env = append(b.env, "PATH="+filepath.Join(b.dir, "bin")+":"+os.Getenv("PATH"))
	b.caged("true").ok(t, "")
	if _, err := os.Stat(filepath.Join(b.dir, "ran")); err == nil {
		t.Error("the project's python3 was run outside of the cage")
	}
}

// TestInspectorReload: a proxy that is confined already starts new inspectors,
// or keeps the old ones.
func TestInspectorReload(t *testing.T) {
	needWorkers(t)
	b, s := onSite(t, good)
	b.example("card_numbers.py")
	h := b.proxy()
	b.inspectors(cards)
	h.await("agentcage: reloaded", 1)
	b.inspectors("  - {name: cards, path: card_numbers.py, config: {brands: [none]}}\n")
	h.await("the old policy stays in force", 1)
	h.await("unknown brands: none", 1)
	if code, _ := h.get(s.url("https", good, "/")); code != 200 {
		t.Errorf("%d", code)
	}
	if code := h.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, h.text())
	}
	if strings.Contains(h.text(), "panic") {
		t.Error(h.text())
	}
}
