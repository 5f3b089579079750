package gateway

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/domain"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("cage.yaml", []byte("name: test\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func env(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

func post(g *Gateway, host, body string) inspect.Verdict {
	r := &inspect.Request{Method: "POST", Scheme: "https", Host: hostname.MustParse(host), Port: 443, Path: "/", URL: &url.URL{Path: "/"}}
	g.mu.Lock()
	chain := g.policy.chain
	g.mu.Unlock()
	return chain.DecideContent(context.Background(), &inspect.Content{Request: r, Kind: inspect.KindRequest, Direction: inspect.ToServer, Body: []byte(body)})
}

const withValue = `
domains: {allow: [example.com]}
secrets:
  extra_patterns: [{name: deploy_key, env: DEPLOY_KEY}]
  allow_to_domains: {deploy_key: [keys.example.com]}
`

// TestKnownValues: the config names a variable, and its value does not leave.
func TestKnownValues(t *testing.T) {
	const value = "q7Zk-0Lw_mN4x!Rt2"
	g, err := New(Options{Config: parse(t, withValue), Audit: &log{}, Getenv: env(map[string]string{"DEPLOY_KEY": value})})
	if err != nil {
		t.Fatal(err)
	}
	if v := post(g, "api.example.com", "x="+value); v.Reason != "known value deploy_key sent to unauthorized host" {
		t.Errorf("%+v", v)
	}
	if v := post(g, "keys.example.com", "x="+value); !v.Allowed() {
		t.Errorf("an allowed host: %+v", v)
	}
	if v := post(g, "api.example.com", "x=q7Zk-0Lw"); v.Decision != inspect.Flagged {
		t.Errorf("a piece: %+v", v)
	}
	// A reload keeps what was seen, and a failed one changes nothing.
	if err := g.Reload(parse(t, withValue)); err != nil {
		t.Fatal(err)
	}
	if v := post(g, "api.example.com", "x=_mN4x!Rt2"); v.Allowed() {
		t.Errorf("the other piece, after a reload: %+v", v)
	}
	if err := g.Reload(parse(t, strings.ReplaceAll(withValue, "DEPLOY_KEY", "NO_KEY"))); err == nil {
		t.Error("a reload with a variable that is not set was taken")
	}
	if v := post(g, "api.example.com", "x="+value); v.Allowed() {
		t.Error("a failed reload forgot the value")
	}
	// What the config no longer names is looked for all the same.
	if err := g.Reload(parse(t, "domains: {allow: [example.com]}\n")); err != nil {
		t.Fatal(err)
	}
	if v := post(g, "api.example.com", "x="+value); v.Allowed() {
		t.Error("a retired value passes")
	}
	if err := g.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestValuesThatCannotBeHeld stop the start: a check that somebody wrote down is
// not left out in silence.
func TestValuesThatCannotBeHeld(t *testing.T) {
	for name, getenv := range map[string]func(string) (string, bool){
		"none":    nil,
		"not set": env(nil),
		"empty":   env(map[string]string{"DEPLOY_KEY": ""}),
		"short":   env(map[string]string{"DEPLOY_KEY": "hunter2"}),
		"long":    env(map[string]string{"DEPLOY_KEY": strings.Repeat("x", 1<<20)}),
	} {
		_, err := New(Options{Config: parse(t, withValue), Audit: &log{}, Getenv: getenv})
		if err == nil || !strings.Contains(err.Error(), "deploy_key") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	off := strings.Replace(withValue, "secrets:\n", "secrets:\n  enabled: false\n", 1)
	g, err := New(Options{Config: parse(t, off), Audit: &log{}})
	if err != nil {
		t.Fatalf("with the section off: %v", err)
	}
	if err := g.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDestination: what one destination is, an agent cannot choose.
func TestDestination(t *testing.T) {
	for _, tt := range []struct{ domains, host, want string }{
		{"allow: [example.com, =api.example.org]", "x.y.example.com", "example.com"},
		{"allow: [example.com, a.example.com]", "x.a.example.com", "a.example.com"},
		{"allow: [example.com]", "other.example.org", "example.org"},
		{"block: [evil.example]", "x.y.example.co.uk", "example.co.uk"},
		{"block: [evil.example]", "co.uk", "co.uk"},
		{"block: [evil.example]", "localhost", "localhost"},
		{"block: [evil.example]", "192.0.2.7", "192.0.2.7"},
	} {
		d, err := domain.New(parse(t, "domains: {"+tt.domains+"}\n").Domains)
		if err != nil {
			t.Fatal(err)
		}
		if got := destination(d)(hostname.MustParse(tt.host)); got.String() != tt.want {
			t.Errorf("%s, %s: %s, want %s", tt.domains, tt.host, got, tt.want)
		}
	}
}

// TestBudget: the section is in force, also by default, outlives a reload, and
// its totals are written down at the end.
func TestBudget(t *testing.T) {
	records := &log{}
	const text = "domains: {allow: [example.com]}\n"
	g, err := New(Options{Config: parse(t, text+"budget: {bytes: {flag: false, block: 1000}}\n"), Audit: records})
	if err != nil {
		t.Fatal(err)
	}
	if v := post(g, "a.example.com", strings.Repeat("x", 800)); v.Decision != inspect.Allowed {
		t.Errorf("%+v", v)
	}
	if v := post(g, "b.example.com", strings.Repeat("x", 800)); v.Allowed() || v.Findings[0].Inspector != "budget" {
		t.Errorf("%+v", v)
	}
	if err := g.Reload(parse(t, text+"budget: {bytes: {flag: false, block: 1001}}\n")); err != nil {
		t.Fatal(err)
	}
	if v := post(g, "b.example.com", strings.Repeat("x", 800)); v.Allowed() {
		t.Errorf("after a reload: %+v", v)
	}
	if err := g.Reload(parse(t, text+"budget: false\n")); err != nil {
		t.Fatal(err)
	}
	if v := post(g, "b.example.com", strings.Repeat("x", 800)); !v.Allowed() {
		t.Errorf("switched off: %+v", v)
	}
	if err := g.Reload(parse(t, text)); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		v := post(g, "h"+strings.Repeat("x", i%60)+string(rune('a'+i/60))+".example.com", "")
		if v.Allowed() != (i < 199) { // and the first one above
			t.Fatalf("name %d: %+v", i, v)
		}
	}
	if got := g.Totals(); len(got) != 1 || got[0].Requests != 200 {
		t.Errorf("%+v", got)
	}
	for range 2 {
		if err := g.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r := records.find(audit.KindBudget, "allowed"); len(r) != 1 || r[0].Host != "example.com" || !strings.Contains(r[0].Reason, "bytes in 200 requests") {
		t.Errorf("%+v", r)
	}
}
