package secrets

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/decode"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/scan"
)

// sample is a secret of a built-in pattern.
func sample(t testing.TB, name string) string {
	t.Helper()
	for _, r := range scan.Builtin() {
		if r.Name == name {
			return string(scan.Sample(r, 1))
		}
	}
	t.Fatalf("there is no pattern %s", name)
	return ""
}

func mustNew(t testing.TB, change func(*config.Secrets)) *Inspector {
	t.Helper()
	c := config.Default().Secrets
	if change != nil {
		change(&c)
	}
	in, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func request(host string) *inspect.Content {
	return &inspect.Content{
		Kind: inspect.KindRequest, Direction: inspect.ToServer, Header: http.Header{},
		Request: &inspect.Request{Method: "POST", Scheme: "https", Host: hostname.MustParse(host), URL: &url.URL{Path: "/"}},
	}
}

func body(host, text string) *inspect.Content {
	c := request(host)
	c.Body = []byte(text)
	return c
}

// verdict asks a chain of this inspector alone.
func verdict(in *Inspector, c *inspect.Content) inspect.Verdict {
	return inspect.NewChain().WithContent(in).DecideContent(context.Background(), c)
}

// rules are the rules of what was found.
func rules(v inspect.Verdict) []string {
	var out []string
	for _, f := range v.Findings {
		out = append(out, f.Rule)
	}
	return out
}

// TestPlaces is rules 42 and 43: each place of a request, with the same request
// without the secret beside it.
func TestPlaces(t *testing.T) {
	key := sample(t, "github_token")
	in := mustNew(t, nil)
	for name, put := range map[string]func(c *inspect.Content, s string){
		"path":          func(c *inspect.Content, s string) { c.Request.URL.Path = "/a/" + s + "/b" },
		"query":         func(c *inspect.Content, s string) { c.Request.URL.RawQuery = "a=1&b=" + s },
		"query name":    func(c *inspect.Content, s string) { c.Request.URL.RawQuery = "a=1&" + s + "=2" },
		"method":        func(c *inspect.Content, s string) { c.Request.Method = s },
		"header":        func(c *inspect.Content, s string) { c.Header.Set("X-Any", "a "+s) },
		"second header": func(c *inspect.Content, s string) { c.Header["X-Any"] = []string{"a", s} },
		"header name":   func(c *inspect.Content, s string) { c.Header[s] = []string{"a"} },
		"login":         func(c *inspect.Content, s string) { c.Header.Set("Authorization", "Bearer "+s) },
		"cookie":        func(c *inspect.Content, s string) { c.Header.Set("Cookie", "a=b; c="+s) },
		"body":          func(c *inspect.Content, s string) { c.Body = []byte(`{"a":"` + s + `"}`) },
		"no text":       func(c *inspect.Content, s string) { c.Body = []byte("\x00\xff\xfe" + s + "\xc3\x28") },
		"glued":         func(c *inspect.Content, s string) { c.Body = []byte("xyz" + s + "xyz") },
		"window":        func(c *inspect.Content, s string) { c.Kind, c.Body = inspect.KindWindow, []byte("b"+s) },
		"message":       func(c *inspect.Content, s string) { c.Kind, c.Body = inspect.KindWebSocket, []byte("m "+s) },
		"trailer":       func(c *inspect.Content, s string) { c.Kind = inspect.KindTrailer; c.Header.Set("Grpc-X", s) },
	} {
		c := request("api.example.com")
		put(c, "nothing")
		if v := verdict(in, c); v.Decision != inspect.Allowed || len(v.Findings) > 0 {
			t.Errorf("%s without a secret: %+v", name, v)
		}
		c = request("api.example.com")
		put(c, key)
		v := verdict(in, c)
		if v.Decision != inspect.Blocked || v.Reason != "secret detected: github_token" || v.Status != http.StatusForbidden || len(v.Findings) != 1 {
			t.Fatalf("%s: %+v", name, v)
		}
		if f := v.Findings[0]; f.Inspector != "secrets" || f.Rule != "github_token" || f.Severity != inspect.Critical {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestLayers holds that each layer that decoding finds is searched, and the raw
// bytes in any case.
func TestLayers(t *testing.T) {
	in := mustNew(t, nil)
	key := []byte(sample(t, "openai_key"))
	s := search{in: in}
	text := inspect.Text{Place: inspect.PlaceBody, Tree: &decode.Tree{Layers: []decode.Layer{
		{Kind: decode.Raw, Parent: -1, Data: []byte("raw")},
		{Kind: decode.Base64, Parent: 0, Data: []byte(strings.Repeat("a ", 300))},
		{Kind: decode.Base64, Parent: 0, Data: []byte(strings.Repeat("a ", 300))},
	}}}
	if err := s.text(context.Background(), &text); err != nil || len(s.findings) > 0 || len(s.lengths) != 1 || len(s.seen) != 0 {
		t.Fatalf("positive control: %v, %+v, %d texts remembered", err, s.findings, len(s.lengths)+len(s.seen))
	}
	text.Tree.Layers = append(text.Tree.Layers, decode.Layer{Kind: decode.Member, Parent: 1, Data: key})
	if err := s.text(context.Background(), &text); err != nil || len(s.findings) != 1 || s.findings[0].Rule != "openai_key" {
		t.Errorf("%v, %+v", err, s.findings)
	}
}

// TestNoHeaderSwitchesItOff is rules 40.
func TestNoHeaderSwitchesItOff(t *testing.T) {
	in := mustNew(t, nil)
	for _, typ := range []string{"", "image/png", "application/octet-stream", "application/pdf", "TEXT/plain; charset=utf-16", "x"} {
		c := body("api.example.com", "\x89PNG\r\n\x1a\n"+sample(t, "gitlab_token"))
		c.Type = typ
		c.Header.Set("Content-Type", typ)
		if v := verdict(in, c); v.Decision != inspect.Blocked {
			t.Errorf("%q: %+v", typ, v)
		}
	}
}

// TestHosts is rules 55: whom a secret may go to.
func TestHosts(t *testing.T) {
	github, gitlab := sample(t, "github_token"), sample(t, "gitlab_token")
	mine := func(c *config.Secrets) {
		c.AllowToDomains = map[string][]hostname.Name{"github_token": {hostname.MustParse("git.example.net")}}
	}
	none := func(c *config.Secrets) {
		c.AllowToDomains = map[string][]hostname.Name{"github_token": {}}
	}
	off := func(c *config.Secrets) { mine(c); c.BuiltinAllowToDomains = false }
	for _, tt := range []struct {
		change func(*config.Secrets)
		host   string
		text   string
		want   []string
	}{
		{nil, "github.com", github, nil},
		{nil, "api.github.com", github, nil},
		{nil, "notgithub.com", github, []string{"github_token"}},
		{nil, "github.com.evil.test", github, []string{"github_token"}},
		{nil, "192.0.2.1", github, []string{"github_token"}},
		{nil, "github.com", github + " " + gitlab, []string{"gitlab_token"}},
		{nil, "github.com", gitlab + " " + github, []string{"gitlab_token"}},
		{nil, "gitlab.com", gitlab + " " + github, []string{"github_token"}},
		{mine, "git.example.net", github, nil},
		{mine, "a.git.example.net", github, nil},
		{mine, "example.net", github, []string{"github_token"}},
		{mine, "github.com", github, nil},
		{none, "github.com", github, []string{"github_token"}},
		{none, "gitlab.com", gitlab, nil},
		{off, "github.com", github, []string{"github_token"}},
		{off, "git.example.net", github, nil},
		{off, "gitlab.com", gitlab, []string{"gitlab_token"}},
	} {
		if got := rules(verdict(mustNew(t, tt.change), body(tt.host, tt.text))); !slices.Equal(got, tt.want) {
			t.Errorf("to %s: %v, want %v", tt.host, got, tt.want)
		}
	}
}

// TestActions is the action of the config, and that weak patterns flag.
func TestActions(t *testing.T) {
	key, url := sample(t, "stripe_key"), "postgres://app:k7Gq2ZpL9x@db.example.net/app"
	for _, tt := range []struct {
		action, text string
		decision     inspect.Decision
		reason       string
		finding      inspect.Decision
		mode         inspect.Mode
	}{
		{"block", key, inspect.Blocked, "secret detected: stripe_key", inspect.Blocked, inspect.Enforced},
		{"flag", key, inspect.Flagged, "secret detected: stripe_key", inspect.Flagged, inspect.Enforced},
		{"observe", key, inspect.Allowed, "", inspect.Blocked, inspect.Observed},
		{"block", url, inspect.Flagged, "secret detected: basic_auth_url", inspect.Flagged, inspect.Enforced},
		{"observe", url, inspect.Allowed, "", inspect.Flagged, inspect.Observed},
	} {
		v := verdict(mustNew(t, func(c *config.Secrets) { c.Action = tt.action }), body("api.example.com", tt.text))
		if v.Decision != tt.decision || v.Reason != tt.reason || len(v.Findings) != 1 || v.Findings[0].Action != tt.finding || v.Findings[0].Mode != tt.mode {
			t.Errorf("%s: %+v", tt.action, v)
		}
	}
}

// TestLogins holds that the token of a login is no finding where it belongs,
// and one everywhere else.
func TestLogins(t *testing.T) {
	in, token := mustNew(t, nil), sample(t, "jwt")
	for _, name := range []string{"Authorization", "Cookie"} {
		for text, want := range map[string]inspect.Decision{"": inspect.Allowed, token: inspect.Flagged} {
			c := body("api.example.com", text)
			c.Header.Set(name, "session="+token)
			if v := verdict(in, c); v.Decision != want {
				t.Errorf("%s, and %d bytes of body: %+v", name, len(text), v)
			}
		}
	}
	const ask = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&"
	for form, want := range map[string]inspect.Decision{
		ask + "assertion=" + token:                                          inspect.Allowed,
		ask + "client_assertion=" + token:                                   inspect.Allowed,
		ask + "subject_token=" + strings.ReplaceAll(token, ".", "%2E"):      inspect.Allowed,
		ask + "note=" + token:                                               inspect.Flagged,
		ask + "assertion=" + token + "x":                                    inspect.Allowed, // it is another token
		ask + "assertion=see+" + token:                                      inspect.Flagged,
		ask + "assertion=a&assertion=" + token:                              inspect.Flagged,
		ask + ask + "assertion=" + token:                                    inspect.Flagged,
		"assertion=" + token:                                                inspect.Flagged,
		ask + "assertion=" + sample(t, "azure_jwt"):                         inspect.Blocked,
		ask + "assertion=" + sample(t, "github_token"):                      inspect.Blocked,
		ask + "pad=" + strings.Repeat("a", maxForm) + "&assertion=" + token: inspect.Flagged,
	} {
		c := body("api.example.com", form)
		c.Type = "application/x-www-form-urlencoded; charset=utf-8"
		if v := verdict(in, c); v.Decision != want {
			t.Errorf("%.120s: %+v", form, v)
		}
		c.Type = "text/plain"
		if v := verdict(in, c); v.Decision == inspect.Allowed {
			t.Errorf("%.120s, which is no form: %+v", form, v)
		}
	}
	azure := request("api.example.com")
	azure.Header.Set("Authorization", "Bearer "+sample(t, "azure_jwt"))
	if got := rules(verdict(in, azure)); !slices.Equal(got, []string{"azure_jwt"}) {
		t.Errorf("a token of Azure in a login elsewhere: %v", got)
	}
}

// TestHeaderNames holds that a value without a form of its own is known by the
// name of its header.
func TestHeaderNames(t *testing.T) {
	c := request("api.example.com")
	c.Header.Set("Dd-Api-Key", "0a1b2c3d4e5f60718293a4b5c6d7e8f9")
	if got := rules(verdict(mustNew(t, nil), c)); !slices.Equal(got, []string{"datadog_api_key"}) {
		t.Error(got)
	}
}

// TestSpellings is what the way of a text to us changes: names of headers have
// the case of HTTP, and a host name has dots in it.
func TestSpellings(t *testing.T) {
	in, key := mustNew(t, nil), sample(t, "firecrawl_key")
	c := request("api.example.com")
	c.Header.Set(key, "a") // makes it Fc-
	if got := rules(verdict(in, c)); !slices.Equal(got, []string{"firecrawl_key"}) {
		t.Errorf("as the name of a header: %v", got)
	}
	upper := sample(t, "aws_access_key")
	c = request("api.example.com")
	c.Header.Set(upper, "a") // makes it Akia
	if got := rules(verdict(in, c)); !slices.Equal(got, []string{"aws_access_key"}) {
		t.Errorf("capitals as the name of a header: %v", got)
	}
	if got := rules(verdict(in, request(strings.ToLower(upper)+".evil.test"))); !slices.Equal(got, []string{"aws_access_key"}) {
		t.Errorf("capitals as a label: %v", got)
	}
	for _, host := range []string{key[:20] + "." + key[20:] + ".evil.test", key[:9] + "." + key[9:20] + "." + key[20:] + ".a.b.evil.test"} {
		if got := rules(verdict(in, request(host))); !slices.Equal(got, []string{"firecrawl_key"}) {
			t.Errorf("in the labels of %s: %v", host, got)
		}
	}
}

func TestExtraPatterns(t *testing.T) {
	in := mustNew(t, func(c *config.Secrets) {
		c.ExtraPatterns = []config.Pattern{{Name: "acme_key", Pattern: `\bACME-[0-9]{8}\b`}, {Name: "by_value", Env: "ACME"}}
		c.AllowToDomains = map[string][]hostname.Name{
			"acme_key": {hostname.MustParse("acme.example")}, "by_value": {hostname.MustParse("acme.example")},
		}
	})
	for host, want := range map[string][]string{"api.example.com": {"acme_key"}, "acme.example": nil} {
		if got := rules(verdict(in, body(host, "my ACME-12345678."))); !slices.Equal(got, want) {
			t.Errorf("to %s: %v", host, got)
		}
	}
}

func TestNewFails(t *testing.T) {
	for want, c := range map[string]config.Secrets{
		`cannot use secrets: the action "watch" is none of block, flag and observe`:                                              {Action: "watch"},
		"cannot use secrets.extra_patterns: cannot use the pattern x: error parsing regexp: missing closing ): `(`":              {ExtraPatterns: []config.Pattern{{Name: "x", Pattern: "("}}},
		`cannot use secrets.allow_to_domains: there is no pattern "opnai_key"; did you mean "openai_key"?`:                       {AllowToDomains: map[string][]hostname.Name{"opnai_key": nil}},
		`cannot use secrets.allow_to_domains: there is no pattern "zzzzzzzzzzzz"; internal/inspect/secrets/README.md lists them`: {AllowToDomains: map[string][]hostname.Name{"zzzzzzzzzzzz": nil}},
	} {
		if in, err := New(c); err == nil || err.Error() != want {
			t.Errorf("%v, %v; want %s", in, err, want)
		}
	}
}

// TestFailsClosed: the zero inspector, a cancelled context and a text that
// takes too long all block.
func TestFailsClosed(t *testing.T) {
	if v := verdict(&Inspector{}, body("api.example.com", "x")); v.Decision != inspect.Blocked || v.Reason != "inspector secrets gave no verdict" {
		t.Errorf("zero inspector: %+v", v)
	}
	in := mustNew(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	v := inspect.NewChain().WithContent(in).DecideContent(ctx, body("api.example.com", "a text that is long enough to be searched"))
	if v.Decision != inspect.Blocked {
		t.Errorf("cancelled: %+v", v)
	}
	slow := mustNew(t, func(c *config.Secrets) {
		c.Action = "flag"
		c.ExtraPatterns = []config.Pattern{{Name: "slow", Pattern: "abcd[a-z]{0,900}[a-y]{0,900}[a-x]{0,900}9"}}
	})
	v = verdict(slow, body("api.example.com", strings.Repeat("abcd", 1<<14)))
	if v.Decision != inspect.Blocked || v.Reason != scan.ErrBudget.Error() {
		t.Errorf("over the budget: %+v", v)
	}
}

// TestToClient: what comes from servers is not looked at.
func TestToClient(t *testing.T) {
	c := body("api.example.com", sample(t, "openai_key"))
	c.Kind, c.Direction = inspect.KindResponse, inspect.ToClient
	if v := verdict(mustNew(t, nil), c); v.Decision != inspect.Allowed || len(v.Findings) > 0 {
		t.Errorf("%+v", v)
	}
}

// TestReasonsHoldNoSecret is rules 57, for every pattern.
func TestReasonsHoldNoSecret(t *testing.T) {
	in := mustNew(t, func(c *config.Secrets) { c.Action = "observe" }) // a block would end the chain
	for _, r := range scan.Builtin() {
		secret := string(scan.Sample(r, 3))
		v := verdict(in, body("api.example.com", "a "+secret))
		if !slices.Contains(rules(v), r.Name) {
			t.Errorf("%s is not found", r.Name)
		}
		for _, f := range v.Findings {
			if f.Reason != "secret detected: "+f.Rule {
				t.Errorf("%s: the reason is %q", r.Name, f.Reason)
			}
		}
	}
}

// TestReadme holds the README to the patterns that there are.
func TestReadme(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(data), "## The patterns")
	named := regexp.MustCompile("`([0-9a-z_]+)`").FindAllStringSubmatch(list, -1)
	var got, want []string
	for _, m := range named {
		got = append(got, m[1])
	}
	for _, r := range scan.Builtin() {
		want = append(want, r.Name)
	}
	slices.Sort(got)
	slices.Sort(want)
	want = slices.Compact(want)
	if !slices.Equal(got, want) {
		t.Errorf("the README lists %d patterns of %d; it should end with\n`%s`", len(got), len(want), strings.Join(want, "`, `"))
	}
}

func BenchmarkSmallRequest(b *testing.B) {
	in := mustNew(b, nil)
	c := request("api.example.com")
	c.Request.URL = &url.URL{Path: "/v1/messages", RawQuery: "beta=true"}
	for name, value := range map[string]string{
		"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "client/1.2.3 (linux; amd64)",
		"Accept-Encoding": "gzip, deflate", "X-Request-Id": "550e8400-e29b-41d4-a716-446655440000",
	} {
		c.Header.Set(name, value)
	}
	c.Body = []byte(strings.Repeat(`{"role":"user","content":"please explain this code to me"},`, 170))
	b.ReportAllocs()
	for b.Loop() {
		in.InspectContent(context.Background(), c)
	}
}
