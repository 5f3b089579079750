package gateway

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
)

func trialConfig(t *testing.T, more string) *config.Config {
	t.Helper()
	c, err := config.Parse("cage.yaml", []byte(`name: demo
max_request_body: 100000
domains:
  allow:
    - example.com
    - {host: api.example.com, methods: [GET, POST], paths: [/v1/**]}
    - {host: port.example.com, ports: [8443]}
  passthrough: [pinned.example.net]
`+more))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func stepsOf(o Outcome) string {
	var parts []string
	for _, s := range o.Steps {
		parts = append(parts, s.Inspector+" "+s.Action.String()+map[inspect.Mode]string{inspect.Observed: " observed", inspect.Exempt: " exempt"}[s.Mode])
	}
	return strings.Join(parts, ", ")
}

// TestTry goes the way of the data path, refusals of the engine included.
func TestTry(t *testing.T) {
	const all = "domain allowed, rate-limit allowed, body-size allowed"
	big := []byte(strings.Repeat("x", 100001))
	tests := []struct {
		name   string
		trial  Trial
		want   inspect.Decision
		reason string
		steps  string
	}{
		{"allowed", Trial{Method: "GET", URL: "https://example.com/a?b=c#d"}, inspect.Allowed, "", all},
		{"plain HTTP", Trial{Method: "GET", URL: "http://example.com"}, inspect.Allowed, "", all},
		{"not listed", Trial{Method: "GET", URL: "https://example.net/"}, inspect.Blocked, "domain not in allowlist: example.net", "domain blocked"},
		{"not listed, plain", Trial{Method: "GET", URL: "http://example.net/"}, inspect.Blocked, "domain not in allowlist: example.net", "domain blocked"},
		{"method", Trial{Method: "DELETE", URL: "https://api.example.com/v1/x"}, inspect.Blocked, "method not allowed for api.example.com: DELETE", "domain blocked"},
		{
			"overridden method",
			Trial{Method: "POST", URL: "https://api.example.com/v1/x", Header: []string{"X-HTTP-Method-Override: DELETE"}},
			inspect.Blocked,
			"method not allowed for api.example.com: POST with X-Http-Method-Override", "domain blocked",
		},
		{"path", Trial{Method: "GET", URL: "https://api.example.com/v1"}, inspect.Allowed, "", all},
		{"path that leads out", Trial{Method: "GET", URL: "https://api.example.com/v1/%2e%2e/x"}, inspect.Blocked, "path not allowed for api.example.com: it is ambiguous", "domain blocked"},
		{"raw dots", Trial{Method: "GET", URL: "https://api.example.com/v1/../v1/x"}, inspect.Blocked, "path not allowed for api.example.com: it is ambiguous", "domain blocked"},
		{"port", Trial{Method: "GET", URL: "https://port.example.com:8443/"}, inspect.Allowed, "", all},
		{"other port", Trial{Method: "GET", URL: "https://port.example.com/"}, inspect.Blocked, "port not allowed for port.example.com: 443", "domain blocked"},
		{"closed port", Trial{Method: "GET", URL: "https://example.com:22/"}, inspect.Blocked, "port not allowed", ""},
		{"Host of another", Trial{Method: "GET", URL: "https://example.com/", Header: []string{"Host: api.example.com"}}, inspect.Blocked, "SNI/Host header mismatch: CONNECT example.com, Host api.example.com", ""},
		{"Host of another, plain", Trial{Method: "GET", URL: "http://example.com/", Header: []string{"host: api.example.com"}}, inspect.Blocked, "Host", ""},
		{"Host written out", Trial{Method: "GET", URL: "https://example.com/", Header: []string{"Host: EXAMPLE.com"}}, inspect.Allowed, "", all},
		{"body", Trial{Method: "POST", URL: "https://example.com/", Body: big[1:]}, inspect.Allowed, "", all},
		{"large body", Trial{Method: "POST", URL: "https://example.com/", Body: big}, inspect.Blocked, "body too large: 100001 > 100000", "domain allowed, rate-limit allowed, body-size blocked"},
		{"framing", Trial{Method: "POST", URL: "https://example.com/", Body: []byte("abc"), Header: []string{"Content-Length: 3", "Transfer-Encoding: chunked"}}, inspect.Blocked, "", ""},
		{"method of the gateway", Trial{Method: "TRACE", URL: "https://example.com/"}, inspect.Blocked, "method TRACE is refused", ""},
		{"passed through", Trial{Method: "POST", URL: "https://pinned.example.net/", Body: big}, inspect.Allowed, "", all},
		{"messages", Trial{Method: "GET", URL: "wss://example.com/", Messages: []string{"hello", string(big), strings.Repeat("y", 200)}}, inspect.Allowed, "", all},
		{"messages, plain", Trial{Method: "GET", URL: "ws://example.com/", Messages: []string{"hello"}}, inspect.Allowed, "", all},
		{"address", Trial{Method: "GET", URL: "https://[2001:db8::1]/"}, inspect.Blocked, "domain not in allowlist: 2001:db8::1", "domain blocked"},
	}
	c := trialConfig(t, "")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := Try(context.Background(), Options{Config: c}, tt.trial)
			if err != nil {
				t.Fatal(err)
			}
			if o.Decision != tt.want || !strings.Contains(o.Reason, tt.reason) || tt.want == inspect.Blocked && o.Reason == "" {
				t.Errorf("%v, %q; want %v, %q", o.Decision, o.Reason, tt.want, tt.reason)
			}
			// Inspectors of content come after those of the head.
			if got := stepsOf(o); !strings.HasPrefix(got, tt.steps) || tt.want == inspect.Blocked && got != tt.steps {
				t.Errorf("steps %q, want %q", got, tt.steps)
			}
			if o.Unread != (tt.name == "passed through") {
				t.Errorf("unread: %v", o.Unread)
			}
		})
	}
}

// TestTryCannotTell: an error, and never a verdict, where nothing can be told.
func TestTryCannotTell(t *testing.T) {
	c := trialConfig(t, "")
	for _, u := range []string{"", "example.com", "ftp://example.com/", "https://", "https://a:b@example.com/", "https://exa mple.com/", "https://example.com:x/", "https://127.1/", "https://%zz/"} {
		if o, err := Try(context.Background(), Options{Config: c}, Trial{Method: "GET", URL: u}); err == nil {
			t.Errorf("%q: %+v", u, o)
		}
	}
	if o, err := Try(context.Background(), Options{Config: &config.Config{Domains: config.Domains{Mode: "open"}}}, Trial{Method: "GET", URL: "https://example.com/"}); err == nil {
		t.Errorf("a policy that cannot be built: %+v", o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if o, err := Try(ctx, Options{Config: c}, Trial{Method: "GET", URL: "https://example.com/"}); err == nil {
		t.Errorf("cut off: %+v", o)
	}
}

// TestTryWithModes: what is observed goes on, and is told.
func TestTryWithModes(t *testing.T) {
	c := trialConfig(t, `observe:
  - {inspector: domain, host: example.net}
  - {inspector: body-size, host: example.com, methods: [PUT]}
`)
	big := []byte(strings.Repeat("x", 100001))
	for _, tt := range []struct {
		method, url string
		want        inspect.Decision
		steps       string
	}{
		{"GET", "https://example.net/", inspect.Allowed, "domain blocked observed, rate-limit allowed, body-size allowed"},
		{"GET", "https://example.org/", inspect.Blocked, "domain blocked"},
		{"PUT", "https://example.com/", inspect.Allowed, "domain allowed, rate-limit allowed, body-size blocked observed"},
		{"POST", "https://example.com/", inspect.Blocked, "domain allowed, rate-limit allowed, body-size blocked"},
	} {
		trial := Trial{Method: tt.method, URL: tt.url}
		if tt.method != "GET" {
			trial.Body = big
		}
		o, err := Try(context.Background(), Options{Config: c}, trial)
		if err != nil || o.Decision != tt.want || !strings.HasPrefix(stepsOf(o), tt.steps) {
			t.Errorf("%s %s: %v %v %q", tt.method, tt.url, err, o.Decision, stepsOf(o))
		}
	}
}

// TestObserveDomain looks at what the server received: the observed name
// arrives, and one that is neither listed nor observed does not.
func TestObserveDomain(t *testing.T) {
	w := newWorld(t)
	c := w.config("other.example.org")
	if err := w.gw.Reload(c); err != nil {
		t.Fatal(err)
	}
	if code, _ := w.get("/refused"); code != http.StatusForbidden || w.saw("/refused") {
		t.Fatalf("not listed, not observed: %d", code)
	}
	c = w.config("other.example.org")
	c.Observe = []config.Exception{{Inspector: "domain", Where: config.Entry{Host: c.Domains.Entries[0].Host}}}
	if err := w.gw.Reload(c); err != nil {
		t.Fatal(err)
	}
	if code, _ := w.get("/refused2"); code != http.StatusForbidden || w.saw("/refused2") {
		t.Fatalf("observed for another host: %d", code)
	}
	c = w.config("other.example.org")
	c.Observe = []config.Exception{{Inspector: "domain"}}
	if err := w.gw.Reload(c); err != nil {
		t.Fatal(err)
	}
	if code, _ := w.get("/observed"); code != http.StatusOK || !w.saw("/observed") {
		t.Fatalf("observed: %d", code)
	}
}

func TestCheck(t *testing.T) {
	if err := Check(trialConfig(t, "observe: [{inspector: rate-limit}]\n")); err != nil {
		t.Fatal("positive control:", err)
	}
	if err := Check(&config.Config{Domains: config.Domains{Mode: "open"}}); err == nil {
		t.Error("a policy that cannot be built is good")
	}
}
