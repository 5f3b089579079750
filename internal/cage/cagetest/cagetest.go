//go:build linux

// Package cagetest is the conformance suite that every isolation backend
// passes: the same honest work, the same attacks, the same start, stop and
// start again.
//
// The agent of the suite is a static program of its own (folder probe), so that
// no tool of an image is needed. What counts is what servers outside really
// received: each attack is aimed at a server that the suite runs and that the
// same action reaches from outside of the cage, or from a cage that allows it.
//
// A check is one row of a table; its rules are numbers of the project's list
// of rules, as docs/rules.md names them.
package cagetest

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/agentcage/agentcage/internal/cage"
)

// check is one row: a name, the rules that it shows to hold, and how.
type check struct {
	name  string
	rules string
	run   func(t *testing.T, s *suite)
}

// theme is one table of checks.
type theme struct {
	name   string
	checks []check
}

// themes are all tables, in the order in which they are run: honest work
// first, so that nothing is taken for refused that never worked.
func themes() []theme {
	return []theme{
		{"honest", honestChecks},
		{"identity", identityChecks},
		{"dns", dnsChecks},
		{"net", netChecks},
		{"escape", escapeChecks},
		{"privileges", privilegeChecks},
		{"files", fileChecks},
		{"guards", guardChecks},
		{"lifecycle", lifecycleChecks},
		{"pair", pairChecks},
	}
}

// Entry names one check and the rules that it is the test of.
type Entry struct {
	Test  string // as in "net/raw-tcp-refused"
	Rules string // as in "27 B2"
}

// Index lists every check of the suite, for documentation.
func Index() []Entry {
	var out []Entry
	for _, th := range themes() {
		for _, c := range th.checks {
			out = append(out, Entry{th.name + "/" + c.name, c.rules})
		}
	}
	return out
}

// Run runs every check against a backend. newBackend is called for each cage.
func Run(t *testing.T, newBackend func(t *testing.T) cage.Backend) {
	s := newSuite(t, newBackend)
	for _, th := range themes() {
		t.Run(th.name, func(t *testing.T) {
			for _, c := range th.checks {
				t.Run(c.name, func(t *testing.T) { c.run(t, s) })
			}
		})
	}
}

// suite is what the checks share: the probe, the servers outside, and a home
// directory worth stealing from.
type suite struct {
	newBackend func(t *testing.T) cage.Backend
	probe      string
	world      *world
	home       string
	lan        string // an address of this machine other than loopback, or empty
}

// hostSecret is in the home directory and the environment of the host, and
// must not be anywhere in a cage.
const hostSecret = "host-secret-5d1c9e0b77"

func newSuite(t *testing.T, newBackend func(t *testing.T) cage.Backend) *suite {
	t.Helper()
	s := &suite{newBackend: newBackend, probe: buildProbe(t), world: newWorld(t), home: makeHome(t), lan: lanAddress()}
	// The host's own proxy must not be the cage's, and its secrets neither.
	for k, v := range map[string]string{
		"HOME": s.home, "AGENTCAGE_TEST_SECRET": hostSecret, "AWS_SECRET_ACCESS_KEY": hostSecret,
		"HTTP_PROXY": "http://host-proxy.test:1", "https_proxy": "http://host-proxy.test:1", "ALL_PROXY": "socks5://host-proxy.test:1",
		"NO_PROXY": "*", "no_proxy": "*", "SSH_AUTH_SOCK": "/nonexistent/" + hostSecret, "LD_PRELOAD": "",
	} {
		t.Setenv(k, v)
	}
	return s
}

// buildProbe compiles the probe, or takes the one that AGENTCAGE_PROBE names
// where there is no Go.
func buildProbe(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out := filepath.Join(dir, "probe")
	if ready := os.Getenv("AGENTCAGE_PROBE"); ready != "" {
		data, err := os.ReadFile(ready)
		must(t, err)
		must(t, os.WriteFile(out, data, 0o755))
		return out
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs Go tool chain: the probe is compiled by the suite, or named by AGENTCAGE_PROBE")
	}
	c := exec.Command(goTool, "build", "-trimpath", "-ldflags=-s -w", "-o", out, "github.com/agentcage/agentcage/internal/cage/cagetest/probe")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := c.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the probe: %v\n%s", err, msg)
	}
	return out
}

// makeHome makes a home directory of the host's with credentials in it.
func makeHome(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	for _, f := range []string{".ssh/id_ed25519", ".aws/credentials", ".netrc", ".config/gcloud/credentials.db", ".bash_history", "notes.txt"} {
		p := filepath.Join(home, f)
		must(t, os.MkdirAll(filepath.Dir(p), 0o700))
		must(t, os.WriteFile(p, []byte(hostSecret), 0o600))
	}
	return home
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// deadline bounds a single wait of the suite. It is no measurement: whatever
// reaches it has failed.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func toJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return b
}
