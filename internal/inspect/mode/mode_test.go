package mode

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/bodysize"
)

func parse(t *testing.T, lists string) *config.Config {
	t.Helper()
	c, err := config.Parse("cage.yaml", []byte("name: demo\ndomains: {allow: [example.com]}\n"+lists))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func modes(t *testing.T, lists string) *Modes {
	t.Helper()
	m, err := New(parse(t, lists))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func request(method, host, path string, header ...string) *inspect.Request {
	r := &inspect.Request{Method: method, Scheme: "https", Host: hostname.MustParse(host), Port: 443, Header: http.Header{}}
	r.Path, _ = inspect.DecodePath(path)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	return r
}

const narrow = `exempt:
  - {inspector: secrets, rule: private_key, host: uploads.example.com, paths: [/v1/**], methods: [PUT]}
  - {inspector: entropy, host: =one.example.com}
  - {inspector: content-type, host: p.example.com, ports: [8443]}
observe:
  - {inspector: entropy}
  - {inspector: secrets, rule: jwt}
`

// TestAdjust holds that an exception is for what it names and for nothing else,
// whatever the agent writes into a request. Each refusal has its control above.
func TestAdjust(t *testing.T) {
	const put, up, v1 = "PUT", "uploads.example.com", "/v1/a/b"
	other := func(port uint16, r *inspect.Request) *inspect.Request { r.Port = port; return r }
	opaque := func(r *inspect.Request) *inspect.Request { r.Opaque, r.Path, r.Method = true, "", "CONNECT"; return r }
	tests := []struct {
		name            string
		inspector, rule string
		r               *inspect.Request
		want            inspect.Mode
	}{
		{"all of it fits", "secrets", "private_key", request(put, up, v1), inspect.Exempt},
		{"a name under the host", "secrets", "private_key", request(put, "a.b."+up, "/v1"), inspect.Exempt},
		{"another port", "secrets", "private_key", other(8443, request(put, up, v1)), inspect.Exempt},
		{"another rule", "secrets", "aws_access_key", request(put, up, v1), inspect.Enforced},
		{"no rule", "secrets", "", request(put, up, v1), inspect.Enforced},
		{"a longer rule", "secrets", "private_key2", request(put, up, v1), inspect.Enforced},
		{"the rule in capitals", "secrets", "PRIVATE_KEY", request(put, up, v1), inspect.Enforced},
		{"another inspector", "known-values", "private_key", request(put, up, v1), inspect.Enforced},
		{"another host", "secrets", "private_key", request(put, "example.com", v1), inspect.Enforced},
		{"a host that ends alike", "secrets", "private_key", request(put, "evil"+up, v1), inspect.Enforced},
		{"a host that begins alike", "secrets", "private_key", request(put, up+".example.net", v1), inspect.Enforced},
		{"another method", "secrets", "private_key", request("POST", up, v1), inspect.Enforced},
		{"the method in small letters", "secrets", "private_key", request("put", up, v1), inspect.Enforced},
		{"a header that names the same method", "secrets", "private_key", request(put, up, v1, "X-Http-Method-Override", "PUT"), inspect.Exempt},
		{"a header that names another method", "secrets", "private_key", request(put, up, v1, "X-Http-Method-Override", "POST"), inspect.Enforced},
		{"the same with underscores", "secrets", "private_key", request(put, up, v1, "X_HTTP_Method_Override", "POST"), inspect.Enforced},
		{"another method whose header names it", "secrets", "private_key", request("POST", up, v1, "X-Http-Method-Override", "PUT"), inspect.Enforced},
		{"another path", "secrets", "private_key", request(put, up, "/v2/a"), inspect.Enforced},
		{"a path that begins alike", "secrets", "private_key", request(put, up, "/v1x"), inspect.Enforced},
		{"the path in capitals", "secrets", "private_key", request(put, up, "/V1/a"), inspect.Enforced},
		{"the path encoded", "secrets", "private_key", request(put, up, "/%761/a"), inspect.Exempt},
		{"dots that lead out", "secrets", "private_key", request(put, up, "/v1/../v2"), inspect.Enforced},
		{"encoded dots that lead out", "secrets", "private_key", request(put, up, "/v1/%2e%2e/v2"), inspect.Enforced},
		{"an encoded slash", "secrets", "private_key", request(put, up, "/v1%2fa"), inspect.Enforced},
		{"a semicolon", "secrets", "private_key", request(put, up, "/v1/..;/v2"), inspect.Enforced},
		{"a double slash", "secrets", "private_key", request(put, up, "//v1/a"), inspect.Enforced},
		{"a header that names another path", "secrets", "private_key", request(put, up, v1, "X-Original-Url", "/v2"), inspect.Enforced},
		{"a tunnel", "secrets", "private_key", opaque(request(put, up, v1)), inspect.Enforced},
		{"an exact host", "entropy", "", request("GET", "one.example.com", "/"), inspect.Exempt},
		{"a name under an exact host", "entropy", "", request("GET", "a.one.example.com", "/"), inspect.Observed},
		{"the port", "content-type", "", other(8443, request("GET", "p.example.com", "/")), inspect.Exempt},
		{"not the port", "content-type", "", request("GET", "p.example.com", "/"), inspect.Enforced},
		{"everything of an inspector", "entropy", "any", request("GET", "example.net", "/a%2f"), inspect.Observed},
		{"a tunnel for all hosts", "entropy", "", opaque(request("GET", "example.net", "/")), inspect.Observed},
		{"a rule for all hosts", "secrets", "jwt", request("GET", "example.net", "/"), inspect.Observed},
		{"no host", "entropy", "", &inspect.Request{Port: 443}, inspect.Enforced},
	}
	m := modes(t, narrow)
	for _, tt := range tests {
		f := inspect.Finding{Inspector: tt.inspector, Rule: tt.rule, Reason: "r", Severity: inspect.Error, Status: 403}
		want := f
		want.Mode = tt.want
		if got := m.Adjust(tt.r, f); got != want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, want)
		}
	}
}

func TestZeroModesEnforce(t *testing.T) {
	for _, m := range []*Modes{{}, modes(t, "")} {
		if got := m.Adjust(request("GET", "example.com", "/"), inspect.Finding{Inspector: "secrets"}); got.Mode != inspect.Enforced || !m.Empty() {
			t.Errorf("%+v: mode %d", m, got.Mode)
		}
	}
}

// TestOwnMode: what an inspector observes itself, as with action: observe, stays
// observed.
func TestOwnMode(t *testing.T) {
	f := inspect.Finding{Inspector: "entropy", Mode: inspect.Observed}
	if got := modes(t, "exempt: [{inspector: entropy}]\n").Adjust(request("GET", "example.com", "/"), f); got.Mode != inspect.Observed {
		t.Errorf("mode %d", got.Mode)
	}
}

// TestUntil is rules.md 130: instants are compared as instants, an exception
// ends while the gateway runs, and one that has ended hides no other.
func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock begins at 2000-01-01T00:00:00Z
		m := modes(t, `exempt:
  - {inspector: secrets, until: 1999-12-31}
  - {inspector: secrets, until: 2000-01-01}
  - {inspector: entropy, until: "2000-01-01T03:00:00+02:00"}
  - {inspector: content-type, until: 1999-12-31T22:30:00-02:00}
  - {inspector: budget, until: 1999-12-31}
  - {inspector: budget, host: example.com}
`)
		at := func(when, inspector string, want inspect.Mode) {
			t.Helper()
			if got := m.Adjust(request("GET", "example.com", "/"), inspect.Finding{Inspector: inspector}); got.Mode != want {
				t.Errorf("%s, %s: mode %d, want %d", when, inspector, got.Mode, want)
			}
		}
		at("at midnight", "secrets", inspect.Exempt)
		at("at midnight", "entropy", inspect.Exempt)
		at("at midnight", "content-type", inspect.Exempt)
		at("at midnight", "budget", inspect.Exempt)
		<-time.After(30 * time.Minute)
		at("at 0:30", "content-type", inspect.Enforced)
		at("at 0:30", "entropy", inspect.Exempt)
		<-time.After(30*time.Minute - 1)
		at("just before 1:00", "entropy", inspect.Exempt)
		<-time.After(1)
		at("at 1:00", "entropy", inspect.Enforced)
		<-time.After(23*time.Hour - 1)
		at("at the end of the day", "secrets", inspect.Exempt)
		<-time.After(1)
		at("on the next day", "secrets", inspect.Enforced)
		at("on the next day", "budget", inspect.Exempt)
	})
}

type ruled struct{}

func (ruled) Name() string    { return "secrets" }
func (ruled) Rules() []string { return []string{"private_key", "jwt"} }

func TestUnknownRule(t *testing.T) {
	good := parse(t, "exempt: [{inspector: secrets, rule: jwt}, {inspector: entropy, rule: body}, {inspector: secrets}]\n")
	if _, err := New(good, ruled{}, bodysize.New(1, nil), nil); err != nil {
		t.Fatal("positive control:", err)
	}
	for _, list := range []string{"exempt", "observe"} {
		_, err := New(parse(t, list+":\n  - {inspector: secrets, rule: privat_key}\n"), ruled{})
		var e *Error
		if !errors.As(err, &e) || err.Error() != `cage.yaml:4:5: cannot read `+list+`[0].rule: secrets has no rule "privat_key"` || e.Hint() != `did you mean "private_key"?` {
			t.Errorf("%s: %v", list, err)
		}
	}
	_, err := New(parse(t, "exempt: [{inspector: secrets, rule: x}]\n"), ruled{})
	if e := new(Error); !errors.As(err, &e) || !strings.Contains(e.Hint(), "policy test") {
		t.Errorf("%v", err)
	}
}

// TestBodySize: what is observed is not enforced later either, by a limit.
func TestBodySize(t *testing.T) {
	base := inspect.NewChain(bodysize.New(10, nil))
	m := modes(t, "observe: [{inspector: body-size, host: big.example.com}]\n")
	for _, tt := range []struct {
		host   string
		length int64
		want   inspect.Decision
		limit  int64
		found  int
	}{
		{"example.com", -1, inspect.Allowed, 10, 0},
		{"example.com", 11, inspect.Blocked, 0, 1},
		{"big.example.com", -1, inspect.Allowed, -1, 0},
		{"big.example.com", 11, inspect.Allowed, -1, 1},
	} {
		r := request("PUT", tt.host, "/")
		r.ContentLength = tt.length
		v := base.WithAdjust(m.Adjust).Decide(context.Background(), r)
		if v.Decision != tt.want || v.BodyLimit != tt.limit || len(v.Findings) != tt.found || tt.found > 0 && v.Allowed() && v.Findings[0].Mode != inspect.Observed {
			t.Errorf("%s %d: %+v", tt.host, tt.length, v)
		}
	}
}
