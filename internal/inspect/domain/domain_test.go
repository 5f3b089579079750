package domain

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// entry reads "example.com", "=example.com".
func entry(s string) config.Entry {
	name, exact := strings.CutPrefix(s, "=")
	return config.Entry{Host: hostname.MustParse(name), Exact: exact}
}

func entries(list ...string) []config.Entry {
	var es []config.Entry
	for _, s := range list {
		es = append(es, entry(s))
	}
	return es
}

func mustNew(t *testing.T, d config.Domains) *Inspector {
	t.Helper()
	in, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func get(host string) *inspect.Request {
	return &inspect.Request{Method: "GET", Scheme: "https", Host: hostname.MustParse(host), Port: 443, Path: "/"}
}

// reason returns "" when the request passes.
func reason(in *Inspector, r *inspect.Request) string {
	f := in.Inspect(context.Background(), r)
	if f.Action == inspect.Allowed {
		return ""
	}
	return f.Reason
}

// TestMatrix is the table of the README: which host a spelling covers
// (peer-holes A6, rules 2, 5, 13, 14).
func TestMatrix(t *testing.T) {
	hosts := []string{"example.com", "EXAMPLE.com.", "api.example.com", "a.b.example.com", "notexample.com", "example.com.evil.test", "com"}
	rows := []struct {
		list []string
		want []bool // by hosts
	}{
		{[]string{"example.com"}, []bool{true, true, true, true, false, false, false}},
		{[]string{"Example.COM."}, []bool{true, true, true, true, false, false, false}},
		{[]string{"=example.com"}, []bool{true, true, false, false, false, false, false}},
		{[]string{"api.example.com"}, []bool{false, false, true, false, false, false, false}},
		{[]string{"=api.example.com"}, []bool{false, false, true, false, false, false, false}},
		{[]string{"=example.com", "b.example.com"}, []bool{true, true, false, true, false, false, false}},
		{[]string{"other.test"}, []bool{false, false, false, false, false, false, false}},
	}
	for _, row := range rows {
		allow := mustNew(t, config.Domains{Mode: config.Allowlist, Entries: entries(row.list...)})
		deny := mustNew(t, config.Domains{Mode: config.Blocklist, Entries: entries(row.list...)})
		for i, h := range hosts {
			name := hostname.MustParse(h).String()
			want := "domain not in allowlist: " + name
			if row.want[i] {
				want = ""
			}
			if got := reason(allow, get(h)); got != want {
				t.Errorf("allow %v, %s: %q, want %q", row.list, h, got, want)
			}
			want = ""
			if row.want[i] {
				want = "domain in blocklist: " + name
			}
			if got := reason(deny, get(h)); got != want {
				t.Errorf("block %v, %s: %q, want %q", row.list, h, got, want)
			}
		}
	}
}

// TestInternationalNames is rules 14 and 15: both sides are A-labels.
func TestInternationalNames(t *testing.T) {
	in := mustNew(t, config.Domains{Mode: config.Allowlist, Entries: entries("bücher.example")})
	for _, h := range []string{"bücher.example", "xn--bcher-kva.example", "www.BÜCHER.example"} {
		if got := reason(in, get(h)); got != "" {
			t.Errorf("%s: %s", h, got)
		}
	}
	if reason(in, get("bucher.example")) == "" {
		t.Error("a name without the umlaut passed")
	}
}

// TestDefaultDeny is peer-holes B13.
func TestDefaultDeny(t *testing.T) {
	const want = "no domain allowlist configured (default-deny): example.com"
	list := entries("example.com")
	if got := reason(mustNew(t, config.Domains{Mode: config.Allowlist, Entries: list}), get("example.com")); got != "" {
		t.Fatalf("positive control: %s", got)
	}
	for name, d := range map[string]config.Domains{
		"zero":            {},
		"no mode":         {Entries: list},
		"empty allowlist": {Mode: config.Allowlist},
		"empty blocklist": {Mode: config.Blocklist},
	} {
		in := mustNew(t, d)
		if got := reason(in, get("example.com")); got != want {
			t.Errorf("%s: %q", name, got)
		}
		if _, ok := in.Listed(hostname.MustParse("example.com")); ok || in.Open() || !in.Blocked(hostname.MustParse("example.com")) {
			t.Errorf("%s: the table lists something", name)
		}
	}
	if got := reason(&Inspector{}, get("example.com")); got != want {
		t.Errorf("zero inspector: %q", got)
	}
	in := mustNew(t, config.Domains{Mode: config.Blocklist, Entries: list})
	if got := reason(in, &inspect.Request{Method: "GET", Port: 443, Path: "/"}); got != "the request has no host" {
		t.Errorf("a request without host: %q", got)
	}
	for _, d := range []config.Domains{{Mode: "both"}, {Mode: config.Allowlist, Entries: []config.Entry{{}}}, {Passthrough: []config.Entry{{}}}} {
		if _, err := New(d); err == nil {
			t.Errorf("%+v is taken", d)
		}
	}
}

// TestAddresses is peer-holes A3: an address needs an entry of its own.
func TestAddresses(t *testing.T) {
	in := mustNew(t, config.Domains{Mode: config.Allowlist, Entries: entries("example.com", "192.0.2.1", "2001:db8::1")})
	for _, h := range []string{"192.0.2.1", "[2001:db8::1]", "::ffff:192.0.2.1"} {
		if got := reason(in, get(h)); got != "" {
			t.Errorf("%s: %s", h, got)
		}
	}
	for _, h := range []string{"192.0.2.2", "1.192.0.2", "::1", "127.0.0.1"} {
		if reason(in, get(h)) == "" {
			t.Errorf("%s passed", h)
		}
	}
	if names := in.Names(); !slices.Equal(names, []hostname.Name{hostname.MustParse("example.com")}) {
		t.Errorf("names to resolve: %v", names)
	}
}

// TestPorts is rules 6 and 30.
func TestPorts(t *testing.T) {
	narrow := entry("db.example.com")
	narrow.Ports = []uint16{8443}
	in := mustNew(t, config.Domains{Mode: config.Allowlist, Entries: append(entries("example.com"), narrow)})
	for _, tt := range []struct {
		host string
		port uint16
		want string
	}{
		{"example.com", 80, ""},
		{"example.com", 443, ""},
		{"example.com", 22, "port not allowed for example.com: 22"},
		{"example.com", 8443, "port not allowed for example.com: 8443"},
		{"example.com", 0, "port not allowed for example.com: 0"},
		{"db.example.com", 8443, ""},
		{"db.example.com", 443, "port not allowed for db.example.com: 443"},
	} {
		r := get(tt.host)
		r.Port = tt.port
		if got := reason(in, r); got != tt.want {
			t.Errorf("%s port %d: %q, want %q", tt.host, tt.port, got, tt.want)
		}
		r.Opaque, r.Method, r.Path = true, "CONNECT", ""
		if got := reason(in, r); got != tt.want {
			t.Errorf("tunnel to %s port %d: %q, want %q", tt.host, tt.port, got, tt.want)
		}
	}
	if got := in.Ports(); !slices.Equal(got, []uint16{80, 443, 8443}) {
		t.Errorf("ports: %v", got)
	}
	open := mustNew(t, config.Domains{Mode: config.Blocklist, Entries: entries("evil.test")})
	r := get("example.com")
	if got := reason(open, r); got != "" {
		t.Errorf("positive control: %s", got)
	}
	r.Port = 22
	if got := reason(open, r); got != "port not allowed for example.com: 22" {
		t.Errorf("a blocklist opens port 22: %q", got)
	}
}

func TestMethodsAndPaths(t *testing.T) {
	e := entry("api.example.com")
	e.Methods, e.Paths = []string{"GET", "POST"}, []string{"/v1/messages", "/repos/**"}
	in := mustNew(t, config.Domains{Mode: config.Allowlist, Entries: append(entries("example.com"), e)})
	tests := []struct {
		method, path string
		header       http.Header
		want         string
	}{
		{"POST", "/v1/messages", nil, ""},
		{"GET", "/repos/a/b", nil, ""},
		{"DELETE", "/v1/messages", nil, "method not allowed for api.example.com: DELETE"},
		{"get", "/v1/messages", nil, "method not allowed for api.example.com: get"},
		{"GET", "/v1/files", nil, "path not allowed for api.example.com: /v1/files"},
		{"GET", "", nil, "path not allowed for api.example.com: it is ambiguous"},
		{"DELETE", "", nil, "method not allowed for api.example.com: DELETE"},
		{"POST", "/v1/messages", http.Header{"X-Http-Method-Override": {"DELETE"}}, "method not allowed for api.example.com: POST with X-Http-Method-Override"},
		{"POST", "/v1/messages", http.Header{"x-hTTP-method-override": {"get"}}, ""},
		{"POST", "/v1/messages", http.Header{"X_http_method-Override": {"DELETE"}}, "method not allowed for api.example.com: POST with X-Http-Method-Override"},
		{"POST", "/v1/messages", http.Header{"X-Http-Method-Override": {"GET"}, "X_http_method_override": {"DELETE"}}, "method not allowed for api.example.com: POST with X-Http-Method-Override"},
		{"GET", "/v1/messages", http.Header{"X_original_url": {"/v1/files"}}, "path not allowed for api.example.com: it is ambiguous"},
		{"GET", "/v1/messages", http.Header{"X-Original-Url": {"/v1/files"}}, "path not allowed for api.example.com: it is ambiguous"},
		{"GET", "/" + strings.Repeat("ä", 300), nil, "path not allowed for api.example.com: /" + strings.Repeat("ä", 99) + "…"},
	}
	for _, tt := range tests {
		r := get("api.example.com")
		r.Method, r.Path, r.Header = tt.method, tt.path, tt.header
		if got := reason(in, r); got != tt.want {
			t.Errorf("%s %s %v: %q, want %q", tt.method, tt.path, tt.header, got, tt.want)
		}
	}
	r := get("www.example.com")
	r.Method, r.Path = "DELETE", ""
	if got := reason(in, r); got != "" {
		t.Errorf("an entry that is not narrowed asks for method or path: %s", got)
	}
	r = get("api.example.com")
	r.Opaque, r.Path = true, ""
	if got := reason(in, r); got != "tunnel not allowed for api.example.com: its entry needs to see method or path" {
		t.Errorf("a tunnel to a narrowed host: %q", got)
	}
}

// TestSeveralEntriesForOneHost: one that admits is enough, but only for the
// same host, so that a narrow entry below a wide one means something.
func TestSeveralEntriesForOneHost(t *testing.T) {
	read, write, exact := entry("api.example.com"), entry("api.example.com"), entry("=api.example.com")
	read.Methods = []string{"GET"}
	write.Methods, write.Paths = []string{"POST"}, []string{"/v1/messages"}
	exact.Methods = []string{"DELETE"}
	in := mustNew(t, config.Domains{Mode: config.Allowlist, Entries: append(entries("example.com"), read, write, exact)})
	for _, tt := range []struct {
		host, method, path string
		want               bool
	}{
		{"api.example.com", "GET", "/x", true},
		{"api.example.com", "POST", "/v1/messages", true},
		{"api.example.com", "POST", "/x", false},
		{"api.example.com", "DELETE", "/x", true},
		{"api.example.com", "PUT", "/x", false},
		{"sub.api.example.com", "DELETE", "/x", false},
		{"sub.api.example.com", "GET", "/x", true},
		{"www.example.com", "PUT", "/x", true},
	} {
		r := get(tt.host)
		r.Method, r.Path = tt.method, tt.path
		if got := reason(in, r); (got == "") != tt.want {
			t.Errorf("%s %s%s: %q, want allowed %v", tt.method, tt.host, tt.path, got, tt.want)
		}
	}
}

// TestBlocklist holds that a block entry matches when it might match.
func TestBlocklist(t *testing.T) {
	path, method := entry("site.test"), entry("read.test")
	path.Paths = []string{"/admin/**", "/exact"}
	method.Methods = []string{"DELETE"}
	port := entry("port.test")
	port.Ports = []uint16{80}
	narrowBelow := entry("api.evil.test")
	narrowBelow.Paths = []string{"/x"}
	in := mustNew(t, config.Domains{Mode: config.Blocklist, Entries: append(entries("evil.test"), path, method, port, narrowBelow)})
	tests := []struct {
		host, method, path string
		opaque             bool
		want               bool
	}{
		{"example.com", "GET", "/", false, true},
		{"example.com", "GET", "", false, true},
		{"example.com", "CONNECT", "", true, true},
		{"evil.test", "GET", "/", false, false},
		{"api.evil.test", "GET", "/other", false, false},
		{"site.test", "GET", "/", false, true},
		{"site.test", "GET", "/admin", false, false},
		{"site.test", "GET", "/admin/x", false, false},
		{"site.test", "GET", "/ADMIN/x", false, false},
		{"site.test", "GET", "/administrator", false, true},
		{"site.test", "GET", "/Exact", false, false},
		{"site.test", "GET", "/exact/", false, false},
		{"site.test", "GET", "/exact/x", false, true},
		{"site.test", "GET", "", false, false},
		{"site.test", "CONNECT", "", true, false},
		{"read.test", "GET", "/", false, true},
		{"read.test", "delete", "/", false, false},
		{"read.test", "CONNECT", "", true, false},
		{"port.test", "GET", "/", false, true},
	}
	for _, tt := range tests {
		r := get(tt.host)
		r.Method, r.Path, r.Opaque = tt.method, tt.path, tt.opaque
		if got := reason(in, r); (got == "") != tt.want {
			t.Errorf("%s %s%s: %q, want allowed %v", tt.method, tt.host, tt.path, got, tt.want)
		}
	}
	r := get("read.test")
	r.Header = http.Header{"X-Http-Method-Override": {"DELETE"}}
	if reason(in, r) == "" {
		t.Error("a method override got past a block entry")
	}
	if !in.Open() || in.Blocked(hostname.MustParse("site.test")) || !in.Blocked(hostname.MustParse("a.evil.test")) {
		t.Error("what DNS is told of the blocklist is wrong")
	}
	if _, ok := in.Listed(hostname.MustParse("example.com")); ok || in.Names() != nil {
		t.Error("a blocklist lists names")
	}
}

func TestListedIsTheMostSpecific(t *testing.T) {
	in := mustNew(t, config.Domains{Mode: config.Allowlist, Entries: entries("example.com", "b.example.com", "=exact.example.com"), Passthrough: entries("pinned.test")})
	for name, want := range map[string]string{
		"example.com": "example.com", "x.example.com": "example.com", "a.b.example.com": "b.example.com",
		"exact.example.com": "exact.example.com", "x.exact.example.com": "example.com", "a.pinned.test": "pinned.test", "other.test": "",
	} {
		got, ok := in.Listed(hostname.MustParse(name))
		if got.String() != want || ok != (want != "") {
			t.Errorf("Listed(%s) = %q, %v; want %q", name, got, ok, want)
		}
	}
}

func TestPassthrough(t *testing.T) {
	narrow := entry("api.pinned.test")
	narrow.Methods = []string{"GET"}
	in := mustNew(t, config.Domains{Mode: config.Allowlist, Entries: append(entries("example.com", "sub.pinned.test"), narrow), Passthrough: entries("pinned.test", "=one.example.com")})
	for _, tt := range []struct {
		host string
		port uint16
		want bool
	}{
		{"pinned.test", 443, true},
		{"a.pinned.test", 443, true},
		{"pinned.test", 22, false},
		{"api.pinned.test", 443, false},
		{"sub.pinned.test", 443, false},
		{"one.example.com", 443, true},
		{"a.one.example.com", 443, false},
		{"example.com", 443, false},
		{"other.test", 443, false},
	} {
		if got := in.Passthrough(hostname.MustParse(tt.host), tt.port); got != tt.want {
			t.Errorf("Passthrough(%s, %d) = %v", tt.host, tt.port, got)
		}
	}
	if got := reason(in, get("pinned.test")); got != "" {
		t.Errorf("a passthrough host is not allowed: %s", got)
	}
	open := mustNew(t, config.Domains{Mode: config.Blocklist, Entries: entries("evil.pinned.test"), Passthrough: entries("pinned.test")})
	if !open.Passthrough(hostname.MustParse("a.pinned.test"), 443) || open.Passthrough(hostname.MustParse("evil.pinned.test"), 443) {
		t.Error("passthrough beside a blocklist is wrong")
	}
	if (&Inspector{}).Passthrough(hostname.MustParse("pinned.test"), 443) {
		t.Error("the zero inspector passes a tunnel through")
	}
}

// TestPrivate is rules 133.
func TestPrivate(t *testing.T) {
	mirror := entry("mirror.example.com")
	mirror.Private = true
	in := mustNew(t, config.Domains{Mode: config.Allowlist, Entries: append(entries("example.com"), mirror)})
	if !in.Private(hostname.MustParse("mirror.example.com")) || in.Private(hostname.MustParse("example.com")) || in.Private(hostname.MustParse("other.test")) {
		t.Error("private is not the entry's own")
	}
}

func BenchmarkInspect(b *testing.B) {
	var list []config.Entry
	for i := range 50_000 {
		list = append(list, entry(fmt.Sprintf("host%d.example.com", i)))
	}
	in, err := New(config.Domains{Mode: config.Allowlist, Entries: list})
	if err != nil {
		b.Fatal(err)
	}
	r := get("a.b.c.d.host49999.example.com")
	b.ReportAllocs()
	for b.Loop() {
		if in.Inspect(context.Background(), r).Action != inspect.Allowed {
			b.Fatal("blocked")
		}
	}
}
