package gateway

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/audit"
)

// TestNoSecretsInTheAuditLog is rules.md 71: what is blocked, flagged or only
// passing by is not written down, whatever it is wrapped in.
func TestNoSecretsInTheAuditLog(t *testing.T) {
	const (
		value = "q7Zk-0Lw_mN4x!Rt2"
		key   = "AKIAQWERTY234567ABCD" // the form of an access key
	)
	records := &log{}
	g, err := New(Options{Config: parse(t, withValue), Audit: records, Getenv: env(map[string]string{"DEPLOY_KEY": value})})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Shutdown(t.Context())
	b64 := base64.RawURLEncoding.EncodeToString
	for name, tt := range map[string]struct{ in, want audit.Record }{
		"nothing": {
			audit.Record{Method: "GET", Host: "api.example.com", Path: "/v1/models/%7Bid%7D", URL: "https://api.example.com/v1/models/%7Bid%7D?limit=20&q=a+b", Reason: "domain not in allowlist: x"},
			audit.Record{Method: "GET", Host: "api.example.com", Path: "/v1/models/%7Bid%7D", URL: "https://api.example.com/v1/models/%7Bid%7D?limit=20&q=a+b", Reason: "domain not in allowlist: x"},
		},
		"segment": {
			audit.Record{Path: "/a/" + key + "/b", URL: "https://api.example.com/a/" + key + "/b"},
			audit.Record{Path: "/a/[redacted]/b", URL: "https://api.example.com/a/[redacted]/b"},
		},
		"encoded segment": {
			audit.Record{Path: "/a/" + b64([]byte(key)), URL: "https://api.example.com/a/" + b64([]byte(key))},
			audit.Record{Path: "/a/[redacted]", URL: "https://api.example.com/a/[redacted]"},
		},
		"over segments": {
			audit.Record{Path: "/AKIAQWER%2fTY23", URL: "https://api.example.com/x/" + url.PathEscape(value[:9]) + "/y"},
			audit.Record{Path: "/AKIAQWER%2fTY23", URL: "https://api.example.com/x/[redacted]/y"},
		},
		"query value": {
			audit.Record{Path: "/", URL: "https://api.example.com/?a=b&key=" + key + "&c=d"},
			audit.Record{Path: "/", URL: "https://api.example.com/?a=b&key=[redacted]&c=d"},
		},
		"query name": {
			audit.Record{Path: "/", URL: "https://api.example.com:8443/?" + url.QueryEscape(value) + "=1"},
			audit.Record{Path: "/", URL: "https://api.example.com:8443/?[redacted]=1"},
		},
		"known by its name": {
			audit.Record{Path: "/", URL: "https://api.example.com/?x=1&DATADOG_API_KEY=0a1b2c3d4e5f60718293a4b5c6d7e8f9"},
			audit.Record{Path: "/", URL: "https://api.example.com/?x=1&[redacted]"},
		},
		"method": {audit.Record{Method: key}, audit.Record{Method: "[redacted]"}},
		"label": {
			audit.Record{Host: strings.ToLower(b64([]byte("x"))) + "." + "q7zk-0lw.evil.test", URL: "dns://" + strings.ToLower(b64([]byte("x"))) + ".q7zk-0lw.evil.test", Reason: "domain not in allowlist: ea.q7zk-0lw.evil.test"},
			audit.Record{Host: "ea.[redacted].evil.test", URL: "dns://ea.[redacted].evil.test", Reason: "domain not in allowlist: ea.[redacted].evil.test"},
		},
		"label in small letters": {
			audit.Record{Host: "x." + strings.ToLower(key) + ".evil.test"}, audit.Record{Host: "x.[redacted].evil.test"},
		},
		"clipped": {
			audit.Record{Path: "/" + key, URL: "https://a.test/" + key, Reason: "path not allowed for a.test: /AKIAQWERTY234567ABC…"},
			audit.Record{Path: "/[redacted]", URL: "https://a.test/[redacted]", Reason: "path not allowed for a.test: [redacted]"},
		},
		"clipped without need": {
			audit.Record{Path: "/x", URL: "https://a.test/x", Reason: "path not allowed for a.test: /long…"},
			audit.Record{Path: "/x", URL: "https://a.test/x", Reason: "path not allowed for a.test: /long…"},
		},
		"reason": {
			audit.Record{Reason: "high entropy URL param '" + value + "': 5.0", Inspectors: []audit.Finding{{Reason: "upgrade to " + key + " is refused"}, {Reason: "fine"}}},
			audit.Record{Reason: "high entropy URL param '[redacted]': 5.0", Inspectors: []audit.Finding{{Reason: "upgrade to [redacted] is refused"}, {Reason: "fine"}}},
		},
	} {
		before := fmt.Sprint(tt.in)
		if err := g.audit.Put(tt.in); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(tt.in) != before {
			t.Errorf("%s: the caller's record was changed", name)
		}
		if got := records.records[len(records.records)-1]; fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, tt.want)
		}
	}
	// With the inspector switched off too.
	if err := g.Reload(parse(t, "domains: {allow: [example.com]}\nsecrets: false\n")); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{key, value} {
		_ = g.audit.Put(audit.Record{Path: "/" + text, URL: "https://a.test/" + text})
		if got := records.records[len(records.records)-1]; got.Path != "/[redacted]" || got.URL != "https://a.test/[redacted]" {
			t.Errorf("switched off: %+v", got)
		}
	}
}

// TestRedactorThatFails writes a record all the same, with nothing in it.
func TestRedactorThatFails(t *testing.T) {
	records := &log{}
	r := &redactor{Sink: records} // without forms it panics
	if err := r.Put(audit.Record{Path: "/something", URL: "https://a.test/something", Decision: "blocked"}); err != nil {
		t.Fatal(err)
	}
	if got := records.records[0]; got.Path != redacted || got.URL != "https://a.test"+redacted || got.Decision != "blocked" {
		t.Errorf("%+v", got)
	}
}

// TestBlockedRequestsAreRedacted goes the whole way, to a host that is allowed
// and to one of which nothing is inspected.
func TestBlockedRequestsAreRedacted(t *testing.T) {
	const key = "AKIAQWERTY234567ABCD"
	w := newWorld(t)
	if code, _ := w.get("/plain?a=b"); code != 200 {
		t.Fatalf("positive control: %d", code)
	}
	if code, _ := w.get("/x/" + key + "?a=b"); code != 403 || w.saw("/x/"+key) {
		t.Errorf("an access key in the path gives %d", code)
	}
	if res, err := w.client.Get("https://other.example/" + key); err == nil {
		res.Body.Close()
	}
	if req, err := http.NewRequest(http.MethodGet, "http://other.example/?q="+key, nil); err == nil {
		if res, err := w.client.Do(req); err == nil {
			res.Body.Close()
		}
	}
	if all := fmt.Sprint(w.log.records); strings.Contains(all, key) || strings.Count(all, redacted) != 5 {
		t.Errorf("%s", all)
	}
}
