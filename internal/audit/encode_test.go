package audit

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var noon = time.Date(2026, 2, 3, 12, 0, 0, 0, time.FixedZone("", 3600))

func TestRecordLine(t *testing.T) {
	full := Record{
		Time: noon.Add(1500 * time.Microsecond), Direction: "inbound", Method: "GET", Host: "example.com", Port: 443, Path: "/ü", URL: "https://example.com/%c3%bc",
		Decision: "flagged", Reason: `a "b"`, Source: "10.0.0.1", SecretsInjected: []string{"A", "B"}, SecretsRedacted: []string{"C"},
		Inspectors: []Finding{{"domain", "flagged", "r", "warning", "", ""}, {"x", "y", "z", "info", "key", "observe"}, {"x", "y", "z", "info", "", "enforced"}}, Kind: KindTunnel, ID: "0a", Count: 3,
	}
	tests := []struct {
		name string
		r    Record
		want string
	}{
		{"least", Record{Time: noon}, `{"ts": "2026-02-03T11:00:00+00:00", "direction": "outbound", "method": "", "host": "", "port": 0, "path": "", "url": "", "decision": "blocked", "reason": ""}`},
		{"full", full, `{"ts": "2026-02-03T11:00:00.001500+00:00", "direction": "inbound", "method": "GET", "host": "example.com", "port": 443, "path": "/\u00fc", "url": "https://example.com/%c3%bc", "decision": "flagged", "reason": "a \"b\"", "source": "10.0.0.1", "secrets_injected": ["A", "B"], "secrets_redacted": ["C"], "inspectors": [{"name": "domain", "action": "flag", "reason": "r", "severity": "warning"}, {"name": "x", "action": "y", "reason": "z", "severity": "info", "rule": "key", "mode": "observe"}, {"name": "x", "action": "y", "reason": "z", "severity": "info"}], "kind": "tunnel", "id": "0a", "count": 3}`},
		{"unknown words", Record{Time: noon, Direction: "up", Decision: "yes"}, `{"ts": "2026-02-03T11:00:00+00:00", "direction": "outbound", "method": "", "host": "", "port": 0, "path": "", "url": "", "decision": "blocked", "reason": ""}`},
	}
	for _, tt := range tests {
		if got := string(tt.r.Append(nil, nil)); got != tt.want+"\n" {
			t.Errorf("%s:\n got %s want %s", tt.name, got, tt.want)
		}
	}
}

// TestAppendString is rules 23: names and paths are hostile.
func TestAppendString(t *testing.T) {
	tests := []struct{ in, want string }{
		{"a/b", `"a/b"`},
		{"\"\\\n\r\t\b\f", `"\"\\\n\r\t\b\f"`},
		{"\x00\x1b[2J\x7f", `"\u0000\u001b[2J\u007f"`},
		{"\u2028\u00fc\U0001f600", `"\u2028\u00fc\ud83d\ude00"`},
		{"\xff\xc3", `"\ufffd\ufffd"`},
		{"\U0010ffff", `"\udbff\udfff"`},
	}
	for _, tt := range tests {
		if got := string(AppendString(nil, tt.in, maxText)); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.in, got, tt.want)
		}
	}
	long := string(AppendString(nil, strings.Repeat("x", 300), maxWord))
	if len(long) > maxWord+2 || !strings.HasSuffix(long, ` bytes]"`) || !strings.HasPrefix(long, `"xxxx`) {
		t.Errorf("cut: %d bytes, %s", len(long), long)
	}
}

func TestBlockBody(t *testing.T) {
	got := string(BlockBody("domain not in allowlist: a.b", "a.b", "0011"))
	want := `{"blocked": true, "reason": "domain not in allowlist: a.b", "host": "a.b", "by": "agentcage", "id": "0011"}`
	if got != want {
		t.Errorf("body %s", got)
	}
}

// TestRedactSeesEveryString is rules 71: one funnel, at any depth, and before
// a field is cut, so that a cut does not leave half a secret.
func TestRedactSeesEveryString(t *testing.T) {
	const secret = "s3cr3t"
	text := "x" + secret + "y"
	r := Record{
		Time: noon, Method: text, Host: text, Path: strings.Repeat("p", maxText-40) + text, URL: text, Reason: text, Source: text,
		SecretsInjected: []string{text}, SecretsRedacted: []string{text}, Inspectors: []Finding{{text, text, text, text, text, text}}, Kind: text, ID: text,
	}
	if plain := string(r.Append(nil, nil)); strings.Count(plain, secret) < 12 {
		t.Fatalf("positive control: %s", plain)
	}
	line := string(r.Append(nil, func(s string) string { return strings.ReplaceAll(s, secret, "#") }))
	if strings.Contains(line, secret[:3]) || strings.Count(line, "x#y") < 12 {
		t.Errorf("redacted line: %s", line)
	}
}

// worst is the largest record that an agent could cause.
func worst(text string) Record {
	list := make([]string, 100)
	fs := make([]Finding, 100)
	for i := range list {
		list[i], fs[i] = text, Finding{text, text, text, text, text, "observe"}
	}
	return Record{
		Time: noon, Direction: text, Method: text, Host: text, Port: 65535, Path: text, URL: text, Decision: text, Reason: text,
		Source: text, SecretsInjected: list, SecretsRedacted: list, Inspectors: fs, Kind: text, ID: text, Count: 1 << 40,
	}
}

func TestRecordIsCapped(t *testing.T) {
	for _, s := range []string{"a", "\x00", "\xff", "\U0001f600", "\"", "é"} {
		r := worst(strings.Repeat(s, 100_000))
		fs := r.Inspectors
		fs[len(fs)-1].Name = "last"
		line := r.Append(nil, nil)
		if len(line) > maxRecord {
			t.Errorf("%q: %d bytes", s, len(line))
		}
		var w wire
		if err := json.Unmarshal(line, &w); err != nil {
			t.Errorf("%q: %v", s, err)
		} else if n := len(w.Inspectors); n != maxFinding || w.Inspectors[n-1].Name != "last" {
			t.Errorf("%q: %d findings, the last is %q", s, n, w.Inspectors[n-1].Name)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("GET", "example.com", "/a", "reason", 3)
	f.Add("\x00", "\xff\u2028", "\U0001f600\"\\", "\x1b[0m\n", 0)
	f.Add(strings.Repeat("\x01", 300), "", strings.Repeat("é", 600), "", -1)
	f.Fuzz(func(t *testing.T, method, host, path, reason string, n int) {
		if len(method)+len(host)+len(path)+len(reason) > 2<<10 {
			return // enough to cut a word and a host; TestRecordIsCapped has the long ones
		}
		r := Record{
			Time: noon, Method: method, Host: host, Path: path, URL: path, Reason: reason, Count: n,
			SecretsInjected: []string{host, path}, Inspectors: []Finding{{host, method, reason, path, method, "exempt"}},
		}
		line := r.Append(nil, nil)
		if len(line) > maxRecord || line[len(line)-1] != '\n' {
			t.Fatalf("%d bytes", len(line))
		}
		for _, c := range line[:len(line)-1] {
			if c < ' ' || c > '~' {
				t.Fatalf("the line has the byte %q", c)
			}
		}
		var w wire
		if err := json.Unmarshal(line, &w); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if utf8.ValidString(host) && len(host) < 100 && w.Host != host {
			t.Fatalf("host %q came back as %q", host, w.Host)
		}
		var body map[string]any
		if err := json.Unmarshal(BlockBody(reason, host, method), &body); err != nil || len(body) != 5 {
			t.Fatalf("block body: %v", err)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	r := Record{
		Time: time.Now(), Method: "POST", Host: "api.example.com", Port: 443, Path: "/v1/messages", URL: "https://api.example.com/v1/messages?beta=true",
		Decision: "blocked", Reason: "domain not in allowlist: api.example.com", Source: netip.MustParseAddr("10.0.0.1").String(),
		Inspectors: []Finding{{"domain", "blocked", "domain not in allowlist: api.example.com", "warning", "", ""}}, ID: NewID(),
	}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = r.Append(buf[:0], nil)
	}
}
