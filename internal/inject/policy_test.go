package inject

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inject/injecttest"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/secret"
)

// request is a request to a URL with a header of pairs.
func request(t *testing.T, method, target string, pairs ...string) *inspect.Request {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	path, _ := inspect.DecodePath(u.EscapedPath())
	return &inspect.Request{Method: method, Scheme: u.Scheme, Host: hostname.MustParse(u.Hostname()), Port: 443, Path: path, URL: u, Header: header(pairs...), ContentLength: -1}
}

func content(r *inspect.Request, body string) *inspect.Content {
	return &inspect.Content{Request: r, Kind: inspect.KindRequest, Direction: inspect.ToServer, Header: r.Header, Type: r.Header.Get("Content-Type"), Encoding: r.Header["Content-Encoding"], Body: []byte(body)}
}

func decide(in *Injector, c *inspect.Content) inspect.Verdict {
	return inspect.NewChain().WithContent(in.Policy()).DecideContent(context.Background(), c)
}

// twoRules are a rule for api.test and one for other.test, and a third for
// api.test with everything switched on.
func twoRules(t *testing.T) *Injector {
	b := config.InjectionRule{Env: "B", Placeholder: placeholderB, InjectTo: []config.Target{exact("other.test")}}
	c := config.InjectionRule{
		Env: "C", Placeholder: "{{C_KEY}}", InjectTo: []config.Target{exact("api.test"), {Host: hostname.MustParse("zone.test"), Zone: true}},
		Methods: []string{"GET", "POST"}, Paths: []string{"/v1/**"}, InjectHeaders: []string{"X-Special", "Cookie"}, InjectBody: true, InjectQuery: true,
	}
	in := newInjector(t, rule1(), b, c)
	set(t, in, "A", "real-value-of-a")
	set(t, in, "B", "real-value-of-b")
	set(t, in, "C", `real "value" of c`)
	return in
}

func TestPolicy(t *testing.T) {
	in := twoRules(t)
	percented := url.QueryEscape(placeholderA)
	const (
		pass    = "allowed"
		flag    = "flagged"
		unauth  = "placeholder A sent to unauthorized domain evil.test"
		noSlot  = "which is no slot of its rule"
		encoded = "is encoded, and cannot be replaced there"
	)
	get := func(target string, pairs ...string) *inspect.Content {
		return content(request(t, "GET", target, pairs...), "")
	}
	post := func(target, body string, pairs ...string) *inspect.Content {
		return content(request(t, "POST", target, pairs...), body)
	}
	for _, tt := range []struct {
		name string
		c    *inspect.Content
		want string // a verdict, or a part of the reason of a block
	}{
		{"nothing", get("https://api.test/"), pass},
		{"header", get("https://api.test/", "Authorization", "Bearer "+placeholderA), pass},
		{"api key", get("https://api.test/", "X-Api-Key", placeholderA), pass},
		{"grpc metadata", post("https://api.test/pkg.S/M", "", "Content-Type", "application/grpc", "X-Auth-Token", placeholderA), pass},
		{"basic", get("https://api.test/", "Authorization", "Basic "+b64("x-access-token:"+placeholderA)), pass},
		{"basic user", get("https://api.test/", "Authorization", "basic  "+b64(placeholderA+":")), pass},

		{"evil host", get("https://evil.test/", "Authorization", "Bearer "+placeholderA), unauth},
		{"evil subdomain", get("https://x.api.test/", "Authorization", "Bearer "+placeholderA), "unauthorized domain x.api.test"},
		{"evil suffix", get("https://evilapi.test/", "Authorization", "Bearer "+placeholderA), "unauthorized domain evilapi.test"},
		{"evil body", post("https://evil.test/", "x "+placeholderA), unauth},
		{"evil path", get("https://evil.test/" + placeholderA), unauth},
		{"evil query", get("https://evil.test/?q=" + percented), unauth},
		{"evil query name", get("https://evil.test/?" + percented + "=1"), unauth},
		{"evil cookie", get("https://evil.test/", "Cookie", "a="+placeholderA), unauth},
		{"evil base64 body", post("https://evil.test/", "xx"+b64("x"+placeholderA)), unauth},
		{"evil hex", get("https://evil.test/?q=6167656e74636167653a7365637265743a413a3030313132323333343435353636373738383939616162626363646465656666"), unauth},
		{"evil json", post("https://evil.test/", `{"a":"agentcage\u003asecret\u003aA:00112233445566778899aabbccddeeff"}`), unauth},
		{"evil percent body", post("https://evil.test/", "a="+percented), unauth},
		{"other rule's host", get("https://other.test/", "Authorization", "Bearer "+placeholderA), "unauthorized domain other.test"},

		{"other header", get("https://api.test/", "User-Agent", placeholderA), "placeholder A in header User-Agent, " + noSlot},
		{"cookie", get("https://api.test/", "Cookie", "a="+placeholderA), noSlot},
		{"path", get("https://api.test/" + placeholderA), "the path, " + noSlot},
		{"encoded path", get("https://api.test/" + percented), "the path, " + noSlot},
		{"query", get("https://api.test/?q=" + percented), "query parameter q, " + noSlot},
		{"query name", get("https://api.test/?" + percented + "=x"), "the name of a query parameter, " + noSlot},
		{"query pieces", get("https://api.test/?q=agentcage&colon;secret&colon;A&colon;00112233445566778899aabbccddeeff"), "the query, " + noSlot},
		{"base64 in a header", get("https://api.test/", "X-Api-Key", b64(placeholderA)), encoded},
		{"percent in a header", get("https://api.test/", "X-Api-Key", percented), encoded},
		{"broken basic", get("https://api.test/", "Authorization", "Basic "+b64("u:"+placeholderA)+"!"), encoded},
		{"header name", get("https://api.test/", "{{C_KEY}}", "1"), "placeholder C is not for this method and path"},

		{"c header", get("https://api.test/v1/x", "X-Special", "{{C_KEY}}"), pass},
		{"c not its header", get("https://api.test/v1/x", "X-Api-Key", "{{C_KEY}}"), noSlot},
		{"c cookie", get("https://api.test/v1/x", "Cookie", "theme=dark; k={{C_KEY}}"), pass},
		{"c query", get("https://api.test/v1/x?a=1&k=%7B%7BC_KEY%7D%7D&b=2"), pass},
		{"c query in base64", get("https://api.test/v1/x?k=" + b64("{{C_KEY}}")), encoded},
		{"c zone", get("https://a.b.zone.test/v1/x", "X-Special", "{{C_KEY}}"), pass},
		{"c apex", get("https://zone.test/v1/x", "X-Special", "{{C_KEY}}"), pass},
		{"c method", content(request(t, "PUT", "https://api.test/v1/x", "X-Special", "{{C_KEY}}"), ""), "not for this method and path"},
		{"c path", get("https://api.test/v2/x", "X-Special", "{{C_KEY}}"), "not for this method and path"},
		{"c ambiguous path", get("https://api.test/v1/%2e%2e/x", "X-Special", "{{C_KEY}}"), "not for this method and path"},
		{"c body", post("https://api.test/v1/x", `{"k":"{{C_KEY}}"}`, "Content-Type", "application/json"), pass},
		{"c compressed body", post("https://api.test/v1/x", string(injecttest.Compress("gzip", []byte(`{"k":"{{C_KEY}}"}`))), "Content-Encoding", "gzip"), "compressed body"},
		{"c encoded in a body", post("https://api.test/v1/x", b64("{{C_KEY}}")), flag},

		{"chat history", post("https://api.test/v2/chat", `{"text":"`+placeholderA+`"}`), flag},
		{"of any rule", post("https://api.test/v2/chat", `{"text":"`+placeholderB+` {{C_KEY}}"}`), flag},
		{"encoded history", post("https://api.test/v2/chat", `{"text":"`+b64(placeholderB)+`"}`), flag},
		{"message", &inspect.Content{Request: request(t, "GET", "https://api.test/v2/ws"), Kind: inspect.KindWebSocket, Direction: inspect.ToServer, Body: []byte("x " + placeholderA)}, flag},
		{"evil message", &inspect.Content{Request: request(t, "GET", "https://evil.test/ws"), Kind: inspect.KindWebSocket, Direction: inspect.ToServer, Body: []byte("x " + placeholderA)}, unauth},
		{"window", &inspect.Content{Request: request(t, "POST", "https://evil.test/"), Kind: inspect.KindWindow, Direction: inspect.ToServer, Body: []byte("x " + placeholderA)}, unauth},
		{"trailer", &inspect.Content{Request: request(t, "POST", "https://api.test/"), Kind: inspect.KindTrailer, Direction: inspect.ToServer, Header: header("X-Api-Key", placeholderA)}, "a trailer, " + noSlot},
		{"evil trailer", &inspect.Content{Request: request(t, "POST", "https://evil.test/"), Kind: inspect.KindTrailer, Direction: inspect.ToServer, Header: header("X-Api-Key", placeholderA)}, unauth},
		{"answer", &inspect.Content{Request: request(t, "POST", "https://evil.test/"), Kind: inspect.KindResponse, Direction: inspect.ToClient, Body: []byte(placeholderA)}, pass},

		{"redact_to", post("https://logs.test/"+placeholderA, placeholderA, "X-Api-Key", placeholderA), pass},
		{"under redact_to", post("https://a.logs.test/", placeholderA), pass},
	} {
		v := decide(in, tt.c)
		switch {
		case tt.want == pass || tt.want == flag:
			if v.Decision.String() != tt.want {
				t.Errorf("%s: %v, %q, want %s", tt.name, v.Decision, v.Reason, tt.want)
			}
		case v.Allowed() || !strings.Contains(v.Reason, tt.want):
			t.Errorf("%s: %v, %q, want %q", tt.name, v.Decision, v.Reason, tt.want)
		}
		for _, f := range v.Findings {
			if !v.Allowed() && f.Action == inspect.Blocked && f.Severity != inspect.Critical {
				t.Errorf("%s: a block of severity %s", tt.name, f.Severity)
			}
		}
	}
}

// failingMinter is a transform that fails, or makes what it is told.
type failingMinter struct {
	value   string
	err     error
	expires time.Time
}

func (m failingMinter) Mint(context.Context) (secret.Value, time.Time, error) {
	if m.err != nil {
		return secret.Value{}, time.Time{}, m.err
	}
	v, err := secret.New([]byte(m.value))
	return v, m.expires, err
}

func TestNoValue(t *testing.T) {
	in := newInjector(t, rule1())
	c := func() *inspect.Content {
		return content(request(t, "GET", "https://api.test/", "X-Api-Key", placeholderA), "")
	}
	want := func(what, reason string) {
		t.Helper()
		if v := decide(in, c()); v.Allowed() || v.Reason != reason {
			t.Errorf("%s: %v, %q", what, v.Decision, v.Reason)
		}
		if h, err := in.Head(context.Background(), c().Request); err == nil {
			t.Errorf("%s: it was sent on: %v", what, h.Header)
		}
	}
	want("never set", "secret A has no value: agentcage secret set CAGE A")
	set(t, in, "A", "real-value-of-a")
	if v := decide(in, c()); !v.Allowed() {
		t.Errorf("with a value: %q", v.Reason)
	}
	in.Unset("A", "its source failed")
	want("unset", "secret A has no value: its source failed")
	if err := in.SetMinter("A", failingMinter{err: errors.New("the endpoint answered real-value-of-a")}); err != nil {
		t.Fatal(err)
	}
	want("failed transform", "secret A has no value: the endpoint answered "+placeholderA)
	if in.Set("X", secret.Value{}) == nil || in.Set("A", secret.Value{}) == nil || in.SetMinter("X", nil) == nil || in.Guard("X", secret.Value{}, time.Time{}) == nil {
		t.Error("what has no rule or no value was set")
	}
}

// TestNeverSplitsAHeader tries values that would end a header.
func TestNeverSplitsAHeader(t *testing.T) {
	for _, value := range []string{"value\r\nX-Evil: 1", "value-with\nline", "value-with\rline", "value-with\x00nul", "value-with\x7fdel"} {
		in := newInjector(t, rule1())
		set(t, in, "A", value)
		r := request(t, "GET", "https://api.test/", "X-Api-Key", placeholderA)
		if v := decide(in, content(r, "")); v.Allowed() || !strings.Contains(v.Reason, "cannot stand in a header") {
			t.Errorf("%q: %v %q", value, v.Decision, v.Reason)
		}
		if h, err := in.Head(context.Background(), r); err == nil || h.Header != nil {
			t.Errorf("%q was sent: %v", value, h.Header)
		}
		r = request(t, "GET", "https://api.test/", "Authorization", "Basic "+b64("u:"+placeholderA))
		if v := decide(in, content(r, "")); !v.Allowed() {
			t.Errorf("%q in Basic: %q", value, v.Reason)
		}
	}
}

func TestForeignCredentials(t *testing.T) {
	in := twoRules(t)
	own := "Bearer " + placeholderA
	const key = "sk-ant-api03-attackers-own-key-0123456789"
	for _, tt := range []struct {
		name, target string
		pairs        []string
		slot         string // empty when it passes
	}{
		{"bearer", "/", []string{"Authorization", "Bearer " + key}, "Authorization"},
		{"bare", "/", []string{"Authorization", key}, "Authorization"},
		{"any scheme", "/", []string{"Authorization", "Digest username=\"x\", response=\"y\""}, "Authorization"},
		{"api key", "/", []string{"X-Api-Key", key}, "X-Api-Key"},
		{"anthropic", "/", []string{"X-Api-Key", placeholderA, "Authorization", "Bearer " + key}, "Authorization"},
		{"google", "/", []string{"X-Goog-Api-Key", key}, "X-Goog-Api-Key"},
		{"gitlab", "/", []string{"Private-Token", key}, "Private-Token"},
		{"vault", "/", []string{"X-Vault-Token", key}, "X-Vault-Token"},
		{"aws token", "/", []string{"X-Amz-Security-Token", key}, "X-Amz-Security-Token"},
		{"two values", "/", []string{"X-Api-Key", placeholderA, "X-Api-Key", key}, "X-Api-Key"},
		{"beside ours", "/", []string{"X-Api-Key", key + ", " + placeholderA}, "X-Api-Key"},
		{"behind ours", "/", []string{"X-Api-Key", placeholderA + key}, "X-Api-Key"},
		{"as the scheme", "/", []string{"Authorization", key + " " + placeholderA}, "Authorization"},
		{"basic", "/", []string{"Authorization", "Basic " + b64("user:"+key)}, "Authorization"},
		{"basic user", "/", []string{"Authorization", "Basic " + b64("ghp_0123456789abcdefghijklmnopqrstuvwxyz:"+placeholderA)}, "Authorization"},
		{"basic password", "/", []string{"Authorization", "Basic " + b64(placeholderA+":"+key)}, "Authorization"},
		{"basic broken", "/", []string{"Authorization", "Basic !!!"}, "Authorization"},
		{"aws", "/", []string{"Authorization", "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/x, Signature=y"}, "Authorization"},
		{"query key", "/?key=" + key, nil, "query parameter key"},
		{"query token", "/?access_token=" + key, nil, "query parameter access_token"},
		{"query case", "/?X-Amz-Signature=" + key, nil, "query parameter X-Amz-Signature"},
		{"query encoded name", "/?%6bey=" + key, nil, "query parameter key"},
		{"query sig", "/?sig=" + key, nil, "query parameter sig"},
		{"cookie", "/", []string{"Cookie", "__cf_bm=1; sessionKey=" + key}, "cookie sessionKey"},
		{"websocket", "/", []string{"Sec-Websocket-Protocol", "realtime, openai-insecure-api-key." + key}, "Sec-Websocket-Protocol"},
		{"websocket two", "/", []string{"Sec-Websocket-Protocol", "bearer, " + key}, "Sec-Websocket-Protocol"},

		{"none", "/", nil, ""},
		{"ours", "/", []string{"Authorization", own}, ""},
		{"ours bare", "/", []string{"Authorization", placeholderA}, ""},
		{"ours named", "/", []string{"Authorization", `Token token="` + placeholderA + `"`}, ""},
		{"ours twice", "/", []string{"Authorization", own, "X-Api-Key", placeholderA}, ""},
		{"git", "/", []string{"Authorization", "Basic " + b64("x-access-token:"+placeholderA)}, ""},
		{"mail address", "/", []string{"Authorization", "Basic " + b64("somebody.with-a-long-name1@example.org:"+placeholderA)}, ""},
		{"stripe", "/", []string{"Authorization", "Basic " + b64(placeholderA+":")}, ""},
		{"empty", "/?key=&token", []string{"Authorization", "", "X-Api-Key", " ", "Proxy-Authorization", "Basic x"}, ""},
		{"basic empty", "/", []string{"Authorization", "Basic " + b64(":")}, ""},
		{"harmless", "/?page_token=abc&nextToken=def&max_tokens=7&keyword=x", []string{
			"Idempotency-Key", key, "Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "X-Csrf-Token", key, "X-Auth-Email", "a@example.org",
			"User-Agent", key, "Cookie", "__cf_bm=" + key + "; theme=dark; csrftoken=x", "Sec-Websocket-Protocol", "graphql-transport-ws, v4.channel.k8s.io",
		}, ""},
		{"our protocol", "/v1/", []string{"Sec-Websocket-Protocol", "realtime"}, ""},
	} {
		r := request(t, "GET", "https://api.test"+tt.target, tt.pairs...)
		v := decide(in, content(r, ""))
		if tt.slot == "" && !v.Allowed() || tt.slot != "" && v.Reason != "foreign credential in "+tt.slot {
			t.Errorf("%s: %v, %q, want %q", tt.name, v.Decision, v.Reason, tt.slot)
		}
		elsewhere := request(t, "GET", "https://free.test"+tt.target, tt.pairs...)
		if v := decide(in, content(elsewhere, "")); !v.Allowed() && strings.HasPrefix(v.Reason, "foreign") {
			t.Errorf("%s: blocked where no rule is: %q", tt.name, v.Reason)
		}
	}
	r := request(t, "GET", "https://user:pass@api.test/")
	if v := decide(in, content(r, "")); v.Reason != "foreign credential in the user information of the URL" {
		t.Errorf("user information: %q", v.Reason)
	}
}

func TestForeignActions(t *testing.T) {
	for _, tt := range []struct{ first, second, want string }{
		{"allow", "allow", "allowed"}, {"flag", "allow", "flagged"}, {"allow", "block", "blocked"}, {"flag", "block", "blocked"}, {"", "allow", "blocked"},
	} {
		a, b := rule1(), rule1()
		b.Env, b.Placeholder = "B", placeholderB
		a.Foreign, b.Foreign = tt.first, tt.second
		in := newInjector(t, a, b)
		r := request(t, "GET", "https://api.test/", "Authorization", "Bearer attackers-own-key")
		if v := decide(in, content(r, "")); v.Decision.String() != tt.want {
			t.Errorf("%s and %s: %v", tt.first, tt.second, v.Decision)
		}
	}
}

func TestNew(t *testing.T) {
	same := rule1()
	same.Env = "B"
	bad := rule1()
	bad.Placeholder = "with space"
	none := rule1()
	none.Placeholder = ""
	for name, rules := range map[string][]config.InjectionRule{"same": {rule1(), same}, "bad": {bad}, "none": {none}} {
		if _, err := New(config.Injection{Rules: rules}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	in, err := New(config.Injection{})
	if err != nil || in.Active() || in.Redactor().Active() || (*Injector)(nil).Active() {
		t.Errorf("no rules: %v", err)
	}
	if v := decide(in, content(request(t, "GET", "https://a.test/", "Authorization", "Bearer x"), "")); v.Decision != inspect.Allowed {
		t.Errorf("no rules: %q", v.Reason)
	}
}

func TestKnown(t *testing.T) {
	in := newInjector(t, rule1())
	set(t, in, "A", "first-value")
	set(t, in, "A", "second-value")
	set(t, in, "A", "second-value")
	v, _ := secret.New([]byte("token-of-a-minute"))
	if err := in.Guard("A", v, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	old, _ := secret.New([]byte("token-that-expired"))
	_ = in.Guard("A", old, time.Now().Add(-time.Minute))
	if got := in.Redactor().String("first-value second-value token-of-a-minute"); got != placeholderA+" "+placeholderA+" "+placeholderA {
		t.Errorf("%q", got)
	}
	if n := len(in.Known()); n != 3 {
		t.Errorf("%d are known, want 3", n)
	}
	for i := range 100 {
		set(t, in, "A", strings.Repeat("x", 10+i))
	}
	if n := len(in.Known()); n != maxKnown {
		t.Errorf("%d are known, want %d", n, maxKnown)
	}
	h, err := in.Head(context.Background(), request(t, "GET", "https://api.test/", "X-Api-Key", placeholderA))
	if err != nil || h.Header.Get("X-Api-Key") != strings.Repeat("x", 109) {
		t.Errorf("%v, %v", h, err)
	}
}
