package inject

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
)

const (
	realA = "real-value-of-a"
	realC = `real "value" of c`
)

func TestHead(t *testing.T) {
	in := twoRules(t)
	r := request(t, "POST", "https://api.test/v1/x?a=%41+1&k=pre%7B%7BC_KEY}}post&k2=%7b%7bC_KEY%7D%7D&%7B%7BC_KEY%7D%7D=n&flag&e=",
		"Authorization", "Bearer "+placeholderA, "X-Api-Key", "one", "X-Api-Key", placeholderA, "X-Api-Key", "one",
		"X-Special", "<{{C_KEY}}|{{C_KEY}}>", "User-Agent", placeholderA+"{{C_KEY}}", "X-Basic-Auth", "Basic "+b64("u:"+placeholderA), "Cookie", "a=1; k={{C_KEY}}")
	before, query := r.Header.Clone(), r.URL.String()
	out, err := in.Head(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"Authorization": {"Bearer " + realA},
		"X-Api-Key":     {"one", realA, "one"},
		"X-Special":     {"<" + realC + "|" + realC + ">"},
		"User-Agent":    {placeholderA + "{{C_KEY}}"},
		"X-Basic-Auth":  {"Basic " + b64("u:"+realA)},
		"Cookie":        {"a=1; k=" + realC},
	} {
		if !slices.Equal(out.Header[name], want) {
			t.Errorf("%s: %q, want %q", name, out.Header[name], want)
		}
	}
	if want := "a=%41+1&k=prereal%20%22value%22%20of%20cpost&k2=real%20%22value%22%20of%20c&%7B%7BC_KEY%7D%7D=n&flag&e="; out.URL.RawQuery != want {
		t.Errorf("query %q, want %q", out.URL.RawQuery, want)
	}
	if out.URL.Scheme != "https" || out.URL.Host != "api.test" || out.URL.Path != "/v1/x" {
		t.Errorf("URL %s", out.URL)
	}
	if !slices.Equal(out.Injected, []string{"A", "C"}) {
		t.Errorf("injected %q", out.Injected)
	}
	if r.URL.String() != query || !maps.EqualFunc(before, r.Header, slices.Equal) {
		t.Error("what inspectors saw was changed")
	}
}

// TestHeadElsewhere holds that nothing is injected where no rule says so.
func TestHeadElsewhere(t *testing.T) {
	in := twoRules(t)
	for _, target := range []string{"https://evil.test/v1/x", "https://x.api.test/v1/x", "https://other.test/v1/x", "https://api.test.evil.test/"} {
		r := request(t, "GET", target+"?k={{C_KEY}}", "Authorization", "Bearer "+placeholderA, "X-Special", "{{C_KEY}}")
		out, err := in.Head(context.Background(), r)
		if err != nil || len(out.Injected) > 0 || out.URL != r.URL || !maps.EqualFunc(out.Header, r.Header, slices.Equal) {
			t.Errorf("%s: %v, %v", target, out, err)
		}
	}
	for _, r := range [][2]string{{"PUT", "/v1/x"}, {"GET", "/v2/x"}, {"GET", "/v1/%2e%2e/v1/x"}} {
		req := request(t, r[0], "https://api.test"+r[1]+"?k={{C_KEY}}", "X-Special", "{{C_KEY}}")
		if out, err := in.Head(context.Background(), req); err != nil || len(out.Injected) > 0 {
			t.Errorf("%v: %v, %v", r, out.Injected, err)
		}
	}
}

// TestPlaceholdersWithinOneAnother has one that another begins with, and a
// value that is a placeholder.
func TestPlaceholdersWithinOneAnother(t *testing.T) {
	a, b := rule1(), rule1()
	a.Placeholder = "{{KEY}}"
	b.Env, b.Placeholder = "B", "{{KEY}}_2"
	in := newInjector(t, a, b)
	set(t, in, "A", "{{KEY}}_2-is-a")
	set(t, in, "B", "value-of-b")
	for _, tt := range []struct{ in, want string }{
		{"{{KEY}}", "{{KEY}}_2-is-a"},
		{"{{KEY}}_2", "value-of-b"},
		{"{{KEY}}_2{{KEY}}_", "value-of-b{{KEY}}_2-is-a_"},
	} {
		out, err := in.Head(context.Background(), request(t, "GET", "https://api.test/", "X-Api-Key", tt.in))
		if got := out.Header.Get("X-Api-Key"); err != nil || got != tt.want {
			t.Errorf("%q became %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestBody(t *testing.T) {
	for _, tt := range []struct {
		name, contentType, value, in, want string
	}{
		{"json", "application/json; charset=utf-8", "quote\" slash\\ line\n\x00é", `{"k":"x{{C_KEY}}y"}`, `{"k":"xquote\" slash\\ line\n\u0000éy"}`},
		{"escaped json", "application/vnd.api+json", "plain-value", `{"k":"\u007b\u007BC_KEY}}"}`, `{"k":"plain-value"}`},
		{"lines of json", "application/x-ndjson", "plain-value", "{\"k\":\"{{C_KEY}}\"}\n{\"k\":\"{{C_KEY}}\"}\n", "{\"k\":\"plain-value\"}\n{\"k\":\"plain-value\"}\n"},
		{"form", "application/x-www-form-urlencoded", "a b&c=d+é", "k=%7B%7BC_KEY%7D%7D&x=%41+", "k=a%20b%26c%3Dd%2B%C3%A9&x=%41+"},
		{"raw", "text/plain", "line\r\nline \x00\xff", "<{{C_KEY}}>", "<line\r\nline \x00\xff>"},
		{"multipart", `multipart/form-data; boundary="{{x}}"`, "value-of-c", "--{{x}}\r\n\r\n{{C_KEY}}\r\n--{{x}}--", "--{{x}}\r\n\r\nvalue-of-c\r\n--{{x}}--"},
		{"no type", "", "value-of-c", "{{C_KEY}}", "value-of-c"},
		{"nothing", "text/plain", "value-of-c", "{{C_KEY}", "{{C_KEY}"},
		{"percent in text", "text/plain", "value-of-c", "%7B%7BC_KEY%7D%7D", "%7B%7BC_KEY%7D%7D"},
	} {
		in := twoRules(t)
		set(t, in, "C", tt.value)
		r := request(t, "POST", "https://api.test/v1/x", "Content-Type", tt.contentType)
		b, err := in.Body(context.Background(), r)
		if err != nil || b == nil {
			t.Fatalf("%s: %v, %v", tt.name, b, err)
		}
		got, names := b.Bytes([]byte(tt.in))
		if string(got) != tt.want || (tt.in != tt.want) != slices.Equal(names, []string{"C"}) {
			t.Errorf("%s: %q, %q, want %q", tt.name, got, names, tt.want)
		}
		for n := 1; n <= len(tt.in); n++ {
			stream := b.Reader(&pieces{[]byte(tt.in), n})
			if got := readAll(t, stream); got != tt.want || !slices.Equal(stream.Names(), names) && len(names) > 0 {
				t.Errorf("%s in pieces of %d: %q", tt.name, n, got)
			}
		}
	}
}

func TestNoBody(t *testing.T) {
	in := twoRules(t)
	for name, r := range map[string][]string{
		"no rule":          {"https://evil.test/v1/x"},
		"not its path":     {"https://api.test/v2/x"},
		"not switched on":  {"https://other.test/v1/x"},
		"compressed":       {"https://api.test/v1/x", "Content-Encoding", "gzip"},
		"unknown coding":   {"https://api.test/v1/x", "Content-Encoding", "x"},
		"lengths in front": {"https://api.test/v1/x", "Content-Type", "application/grpc"},
	} {
		if b, err := in.Body(context.Background(), request(t, "POST", r[0], r[1:]...)); b != nil || err != nil {
			t.Errorf("%s: %v, %v", name, b, err)
		}
	}
}

func TestMessage(t *testing.T) {
	in := twoRules(t)
	on := request(t, "GET", "https://api.test/v1/ws")
	for _, tt := range []struct{ in, want string }{
		{`{"k":"{{C_KEY}}"}`, `{"k":"real \"value\" of c"}`},
		{"auth {{C_KEY}}", "auth " + realC},
		{placeholderA, placeholderA},
		{"", ""},
	} {
		got, names, err := in.Message(context.Background(), on, []byte(tt.in))
		if err != nil || string(got) != tt.want || (tt.in != tt.want) != (len(names) == 1) {
			t.Errorf("%q became %q, %q, %v", tt.in, got, names, err)
		}
		if json.Valid([]byte(tt.in)) != json.Valid(got) {
			t.Errorf("%q is no JSON any more", got)
		}
	}
	off := request(t, "GET", "https://api.test/v2/ws")
	if got, _, _ := in.Message(context.Background(), off, []byte("{{C_KEY}}")); string(got) != "{{C_KEY}}" {
		t.Errorf("without a rule: %q", got)
	}
}

// TestRedactTo has real values on their way to a host that gets placeholders.
func TestRedactTo(t *testing.T) {
	in := twoRules(t)
	r := request(t, "POST", "https://logs.test/x?v="+url.QueryEscape(realC), "X-Log", "it was "+realA, "Authorization", "Basic "+b64("u:"+realA))
	out, err := in.Head(context.Background(), r)
	if err != nil || out.Header.Get("X-Log") != "it was "+placeholderA || out.URL.RawQuery != "v={{C_KEY}}" || strings.Contains(unb64(t, out.Header.Get("Authorization")[6:]), realA) {
		t.Errorf("%v, %v, %v", out.Header, out.URL, err)
	}
	if r.Header.Get("X-Log") != "it was "+realA {
		t.Error("what inspectors saw was changed")
	}
	if _, err := in.Head(context.Background(), request(t, "GET", "https://logs.test/"+realA)); err == nil || strings.Contains(err.Error(), realA) {
		t.Errorf("a value in the path: %v", err)
	}
	b, err := in.Body(context.Background(), r)
	if err != nil || b == nil {
		t.Fatal(b, err)
	}
	if got, _ := b.Bytes([]byte("it was " + realA)); string(got) != "it was "+placeholderA {
		t.Errorf("a body: %q", got)
	}
	compressed := request(t, "POST", "https://logs.test/", "Content-Encoding", "gzip")
	if b, _ := in.Body(context.Background(), compressed); b != nil || in.RedactsBody(compressed) || !in.RedactsBody(r) {
		t.Error("a compressed body is redacted")
	}
	if got, _, _ := in.Message(context.Background(), r, []byte(realA)); string(got) != placeholderA {
		t.Errorf("a message: %q", got)
	}
	for host, want := range map[string]bool{"logs.test": true, "a.logs.test": true, "evillogs.test": false, "api.test": false} {
		if got := in.RedactsTo(hostname.MustParse(host)); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

// TestMinter holds that what a transform made is known before it is sent.
func TestMinter(t *testing.T) {
	in := newInjector(t, rule1())
	set(t, in, "A", "the-source-of-tokens")
	if err := in.SetMinter("A", failingMinter{value: "minted-token", expires: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	r := request(t, "GET", "https://api.test/", "Authorization", "Bearer "+placeholderA)
	if v := decide(in, content(r, "")); !v.Allowed() {
		t.Fatal(v.Reason)
	}
	out, err := in.Head(context.Background(), r)
	if err != nil || out.Header.Get("Authorization") != "Bearer minted-token" {
		t.Errorf("%v, %v", out.Header, err)
	}
	if got := in.Redactor().String("minted-token the-source-of-tokens"); got != placeholderA+" "+placeholderA {
		t.Errorf("%q", got)
	}
	if err := in.SetMinter("A", failingMinter{value: "short"}); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Head(context.Background(), r); err == nil {
		t.Error("a token that cannot be looked for was sent")
	}
}

// TestRotation sets values while requests and responses run.
func TestRotation(t *testing.T) {
	in := newInjector(t, rule1())
	set(t, in, "A", "value-number-00")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 30 { // fewer than are remembered
			set(t, in, "A", "value-number-"+string(rune('a'+i%26))+string(rune('a'+i/26)))
		}
	}()
	r := request(t, "GET", "https://api.test/", "X-Api-Key", placeholderA)
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		out, err := in.Head(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		sent := out.Header.Get("X-Api-Key")
		if got := readAll(t, in.Redactor().Reader(strings.NewReader("echo "+sent))); got != "echo "+placeholderA {
			t.Fatalf("%q came back as %q", sent, got)
		}
	}
}

func FuzzHead(f *testing.F) {
	f.Add("Bearer "+placeholderA, "k=%7B%7BC_KEY%7D%7D", realA)
	f.Add("Basic "+b64("u:"+placeholderA), "a&b=1&&=", "value\r\nX: 1")
	f.Add("{{C_KEY}}{{C_KEY}", "{{C_KEY}}={{C_KEY}}", "%00 &=+\xff\xff\xff")
	f.Fuzz(func(t *testing.T, header, query, value string) {
		if len(value) < 8 || len(value) > 1000 {
			return
		}
		c := config.InjectionRule{Env: "C", Placeholder: "{{C_KEY}}", InjectTo: []config.Target{exact("api.test")}, InjectQuery: true}
		in := newInjector(t, rule1(), c)
		set(t, in, "A", value)
		set(t, in, "C", value)
		r := request(t, "GET", "https://api.test/x", "Authorization", header, "User-Agent", header)
		r.URL.RawQuery = query
		out, err := in.Head(context.Background(), r)
		if err != nil {
			return
		}
		if strings.ContainsAny(out.Header.Get("Authorization"), "\r\n\x00") && !strings.ContainsAny(header, "\r\n\x00") {
			t.Fatalf("a header was split: %q", out.Header)
		}
		if out.Header.Get("User-Agent") != header || out.URL.Host != "api.test" || out.URL.Path != "/x" || out.URL.Scheme != "https" {
			t.Fatalf("more than the slot was changed: %q %q", out.Header, out.URL)
		}
		if strings.Count(out.URL.RawQuery, "&") != strings.Count(query, "&") || strings.ContainsAny(out.URL.RawQuery, "#\r\n ") && !strings.ContainsAny(query, "#\r\n ") {
			t.Fatalf("query %q became %q", query, out.URL.RawQuery)
		}
	})
}

// FuzzPolicy holds that a placeholder in anything that goes to a host without a
// rule is blocked, and that a value that would split a header is not sent.
func FuzzPolicy(f *testing.F) {
	f.Add("Authorization", "Bearer ", "/x?a=", "body", uint8(0))
	f.Add("Cookie", "a=b; c=", "/%7B?key=1&", "{}", uint8(1))
	f.Add("Sec-Websocket-Protocol", "bearer, x", "/", "--", uint8(2))
	f.Add("Authorization", "Basic dTpw", "/&colon;", "%25", uint8(3))
	in, err := New(config.Injection{Rules: []config.InjectionRule{rule1()}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, value, target, body string, place uint8) {
		const evil = "https://evil.test"
		u, err := url.Parse(evil + target)
		if err != nil || u.Host != "evil.test" {
			return
		}
		r := request(t, "POST", evil, name, value)
		r.URL = u
		switch place % 4 {
		case 0:
			r.Header.Add(name, value+placeholderA)
		case 1:
			r.URL.RawQuery += "&" + url.QueryEscape(placeholderA)
		case 2:
			body += placeholderA
		default:
			r.Header.Add("Authorization", "Basic "+b64(value+placeholderA+value))
		}
		if v := decide(in, content(r, body)); v.Allowed() || !strings.Contains(v.Reason, "unauthorized domain") {
			t.Fatalf("%v %q", v.Decision, v.Reason)
		}
		r.Host = hostname.MustParse("api.test")
		if v := decide(in, content(r, body)); strings.Contains(v.Reason, "failed") {
			t.Fatalf("%q", v.Reason)
		}
	})
}

var _ io.Reader = (*Stream)(nil)
