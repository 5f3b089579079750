package when

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/external"
)

func request(t testing.TB, body string) *inspect.Content {
	t.Helper()
	u, err := url.Parse("https://api.github.com:8443/repos/a?force=1")
	if err != nil {
		t.Fatal(err)
	}
	host, err := hostname.Parse(u.Hostname())
	if err != nil {
		t.Fatal(err)
	}
	return &inspect.Content{
		Request: &inspect.Request{Method: "DELETE", Scheme: "https", Host: host, Port: 8443, Path: u.Path, URL: u},
		Kind:    inspect.KindRequest, Direction: inspect.ToServer, Body: []byte(body), Type: "text/plain",
		Header: http.Header{"X-Two": {"a", "b"}, "User-Agent": {"curl/8"}},
	}
}

func rule(t testing.TB, condition string) *Inspector {
	t.Helper()
	in, err := New(Options{Rule: external.Rule{Name: "own"}, Condition: condition, Requests: true, Responses: true})
	if err != nil {
		t.Fatalf("%s: %v", condition, err)
	}
	return in
}

func decide(t testing.TB, in inspect.ContentInspector, c *inspect.Content) inspect.Verdict {
	t.Helper()
	return inspect.NewChain().WithContent(in).DecideContent(context.Background(), c)
}

func TestConditions(t *testing.T) {
	for condition, want := range map[string]bool{
		`method == "DELETE" && host endsWith "github.com"`:               true,
		`method == "GET" && host endsWith "github.com"`:                  false,
		`url == "https://api.github.com:8443/repos/a?force=1"`:           true,
		`scheme == "https" and port == 8443 and path == "/repos/a"`:      true,
		`query contains "force" and status == 0`:                         true,
		`header("x-two") == "a, b" and header("none") == ""`:             true,
		`any(headers, #[0] == "User-Agent" and #[1] startsWith "curl/")`: true,
		`content_type in ["text/plain", "text/html"]`:                    true,
		`body_text matches "(?i)pass(word)?="`:                           true,
		`body_size > 10 and body_entropy < 5`:                            true,
		`len(prior_results) == 0 and direction == "request"`:             true,
		`kind == "request" and not (host matches "^api\\.")`:             false,
		`lower(method) == "delete" ? true : false`:                       true,
		`count(headers, #[0] == "X-Two") == 2`:                           true,
		`any(prior_results, .severity == "critical")`:                    false,
		`method not in ["GET", "HEAD"] and path[0:6] == "/repos"`:        true,
		`body_text contains "PASSWORD"`:                                  false,
		`indexOf(body_text, "password") == 4 and trim(" a ") == "a"`:     true,
		`port + 1 == 8444`: true,
	} {
		v := decide(t, rule(t, condition), request(t, "the password=hunter2 of body"))
		if (v.Decision == inspect.Blocked) != want || want && v.Reason != "rule own matched" {
			t.Errorf("%s: %+v, want %v", condition, v, want)
		}
	}
}

// TestDocumented compiles the conditions in docs/inspectors.md.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/inspectors.md")
	if err != nil {
		t.Fatal(err)
	}
	conditions := regexp.MustCompile(`when: '([^']*)'`).FindAllStringSubmatch(string(page), -1)
	if len(conditions) < 5 {
		t.Fatalf("%d conditions", len(conditions))
	}
	for _, c := range conditions {
		if err := Check(c[1]); err != nil {
			t.Errorf("%s: %v", c[1], err)
		}
	}
	functions := regexp.MustCompile("(?s)- Functions: `(.*?)`").FindStringSubmatch(string(page))
	if functions == nil || strings.Join(strings.Fields(functions[1]), " ") != strings.Join(allowed, " ") {
		t.Errorf("the page lists %q", functions)
	}
}

// TestRefused: what cannot work, and what would let the agent choose how long a
// condition takes, is refused when the config is read, with its place.
func TestRefused(t *testing.T) {
	for condition, want := range map[string]struct {
		column int
		why    string
	}{
		``:                                      {0, "unexpected token EOF"},
		`methd == "GET"`:                        {0, "unknown name methd"},
		`port == "80"`:                          {5, "mismatched types int and string"},
		`method`:                                {0, "expected bool"},
		`host == "a" &&`:                        {13, "unexpected token EOF"},
		`Body == "x"`:                           {0, "unknown name"},
		`setBody()`:                             {0, "unknown name"},
		`host matches "("`:                      {5, "missing closing )"},
		`host matches path`:                     {13, "the pattern is not written out"},
		`len(host + path) > 9`:                  {9, "texts cannot be joined"},
		`9 in 1..1000000`:                       {6, "ranges are not supported"},
		`let a = host; a == "x"`:                {4, "a form that is not supported"},
		`len(repeat(body_text, 9)) > 1`:         {4, "unknown name repeat"},
		`now().Year() > 1`:                      {0, "unknown name now"},
		`toJSON(headers) == ""`:                 {0, "unknown name toJSON"},
		`any(headers, any(headers, true))`:      {26, "a loop in a loop"},
		`any(headers, body_text contains #[1])`: {13, "the body is searched in a loop"},
		`any(headers, header(#[0]) == "x")`:     {13, "a function is called in a loop"},
		"method == 'GET'" + strings.Repeat(" || a", 999): {0, ""},
	} {
		_, err := New(Options{Rule: external.Rule{Name: "own"}, Condition: condition, Requests: true})
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Why, want.why) || want.why != "" && e.Column != want.column {
			t.Errorf("%.60s: %#v, want %v", condition, err, want)
		}
		if Check(condition) == nil {
			t.Errorf("%.60s: checks well", condition)
		}
	}
}

// TestHostileContent: the longest body and many headers take no longer than
// they are long.
func TestHostileContent(t *testing.T) {
	c := request(t, strings.Repeat("a", MaxBody/10)) // decoding more takes long with the race detector
	for i := range 10_000 {
		c.Header.Add("X-"+strings.Repeat("a", i%50), "a")
	}
	for _, condition := range []string{`body_text matches "(a*)*b"`, `any(headers, #[1] matches "(a|aa)+$b")`, `upper(body_text) == "x"`} {
		if v := decide(t, rule(t, condition), c); v.Decision != inspect.Allowed {
			t.Errorf("%s: %+v", condition, v)
		}
	}
	c = &inspect.Content{Request: c.Request, Kind: c.Kind, Direction: c.Direction, Body: bytes.Repeat([]byte(" "), MaxBody+1)}
	if v := decide(t, rule(t, `body_size == 1`), c); v.Decision != inspect.Blocked || !strings.Contains(v.Reason, "too long") {
		t.Errorf("a longer body: %+v", v)
	}
	if v := decide(t, rule(t, `method == "GET"`), c); v.Decision != inspect.Allowed {
		t.Errorf("a longer body that is not looked at: %+v", v)
	}
}

// TestFailureBlocks: what cannot be evaluated blocks, "flag" or not.
func TestFailureBlocks(t *testing.T) {
	in, err := New(Options{Rule: external.Rule{Name: "own", Action: "flag"}, Condition: `int(header("x-n")) > 3`, Requests: true})
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]inspect.Decision{"9": inspect.Flagged, "1": inspect.Allowed, "s3cret": inspect.Blocked, "": inspect.Blocked} {
		c := request(t, "")
		c.Header = http.Header{"X-N": {value}}
		v := decide(t, in, c)
		if v.Decision != want || strings.Contains(v.Reason, "s3cret") {
			t.Errorf("%q: %+v", value, v)
		}
	}
}

func TestDirection(t *testing.T) {
	in, err := New(Options{Rule: external.Rule{Name: "own"}, Condition: `true`, Requests: true, Reason: "no"})
	if err != nil {
		t.Fatal(err)
	}
	c := request(t, "")
	if v := decide(t, in, c); v.Decision != inspect.Blocked || v.Reason != "no" {
		t.Errorf("%+v", v)
	}
	c.Kind, c.Direction = inspect.KindResponse, inspect.ToClient
	if v := decide(t, in, c); v.Decision != inspect.Allowed {
		t.Errorf("%+v", v)
	}
}

func BenchmarkWhen(b *testing.B) {
	in := rule(b, `method == "GET" && host endsWith "github.com" || body_text contains "password"`)
	body := strings.Repeat("x", 1000)
	for b.Loop() {
		if v := decide(b, in, request(b, body)); v.Decision != inspect.Allowed {
			b.Fatal(v)
		}
	}
}

// FuzzCheck: a condition is compiled or refused, whatever it is.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{`method == "GET"`, `any(headers, #[0] == "a")`, `let a = 1; a`, `{"a": [1, 2]}.a[0] ?? true`, "((((", `host?.x`, `not`, "\xff"} {
		f.Add(s)
	}
	c := request(f, "text")
	f.Fuzz(func(t *testing.T, s string) {
		in, err := New(Options{Condition: s, Requests: true})
		var e *Error
		if err != nil {
			if !errors.As(err, &e) {
				t.Fatalf("%q: %T", s, err)
			}
			return
		}
		in.InspectContent(context.Background(), c)
	})
}
