package external

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/agentcage/agentcage/internal/decode"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

func content(t testing.TB, rawURL string) *inspect.Content {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	host, err := hostname.Parse(u.Hostname())
	if err != nil {
		t.Fatal(err)
	}
	return &inspect.Content{
		Request: &inspect.Request{Method: "POST", Scheme: u.Scheme, Host: host, Port: 443, Path: u.Path, URL: u},
		Kind:    inspect.KindRequest, Direction: inspect.ToServer,
	}
}

// TestURL: the URL is that of the destination that was decided about, whatever
// form the request line had.
func TestURL(t *testing.T) {
	for _, tt := range []struct {
		url  string
		port uint16
		want string
	}{
		{"https://example.com/a%20b?q=%41", 443, "https://example.com/a%20b?q=%41"},
		{"https://example.com/", 8443, "https://example.com:8443/"},
		{"http://example.com/", 80, "http://example.com/"},
		{"http://example.com/", 443, "http://example.com:443/"},
		{"https://[2001:db8::1]/x", 443, "https://[2001:db8::1]/x"},
		{"https://example.com", 443, "https://example.com"},
	} {
		c := content(t, tt.url)
		c.Request.Port = tt.port
		c.Request.URL.Host = "other.example" // of no consequence
		f, err := HeadOf(c)
		if err != nil || f.URL != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.url, f.URL, err, tt.want)
		}
	}
}

// TestPathAsSent: the engine keeps a path in Opaque that net/url would write in
// another way.
func TestPathAsSent(t *testing.T) {
	c := content(t, "https://example.com/x/a?q=1")
	c.Request.URL.Opaque = `/x"/a%2Fb`
	c.Request.Path = "" // as it is ambiguous
	f, err := HeadOf(c)
	if err != nil || f.URL != `https://example.com/x"/a%2Fb?q=1` || f.Path != `/x"/a%2Fb` {
		t.Errorf("%q, %q, %v", f.URL, f.Path, err)
	}
}

// TestKinds: what is of no known kind is not shown to anybody, and so blocks.
func TestKinds(t *testing.T) {
	for kind := range inspect.KindEvent + 3 {
		c := content(t, "https://example.com/")
		c.Kind = kind
		f, err := HeadOf(c)
		known := kind >= inspect.KindRequest && kind <= inspect.KindEvent
		if (err == nil) != known || known && f.Kind == "" {
			t.Errorf("kind %d: %+v, %v", kind, f, err)
		}
	}
}

// TestBody: content codings are removed as often as they are declared, and the
// character set makes the text.
func TestBody(t *testing.T) {
	const raw, gz, inner, text = "raw", "gz", "in\xffner", "text"
	layers := []decode.Layer{
		{Kind: decode.Raw, Parent: -1, Data: []byte(raw)},
		{Kind: decode.Charset, Parent: 0, Data: []byte("charset of the wrong one")},
		{Kind: decode.Coding, Parent: 0, Data: []byte(gz)},
		{Kind: decode.Coding, Parent: 2, Data: []byte(inner)},
		{Kind: decode.Charset, Parent: 3, Data: []byte(text)},
	}
	for _, tt := range []struct {
		encoding   []string
		body, text string
	}{
		{nil, raw, "charset of the wrong one"},
		{[]string{"identity"}, raw, "charset of the wrong one"},
		{[]string{"gzip"}, gz, gz},
		{[]string{"gzip, br"}, inner, text},
		{[]string{"gzip", "br"}, inner, text},
		{[]string{"gzip", "br", "br"}, inner, text},
	} {
		f := &Fields{}
		f.bodyFrom(layers, tt.encoding)
		if string(f.Body) != tt.body || f.BodyText != tt.text || f.BodySize != len(tt.body) {
			t.Errorf("%v: %+v", tt.encoding, f)
		}
	}
	f := &Fields{}
	f.bodyFrom(layers[:4], []string{"gzip, br"})
	if f.BodyText != "in\uFFFDner" {
		t.Errorf("%q", f.BodyText)
	}
}

// TestEncode: a text is not sent twice, and what is no text is sent as it is.
func TestEncode(t *testing.T) {
	for body, twice := range map[string]bool{"": false, "text <é>": false, "\xff": true} {
		c := content(t, "https://example.com/")
		c.Body = []byte(body)
		f, err := FieldsOf(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		line, err := Message{ID: 1, Context: f}.Encode()
		if err != nil || strings.Count(string(line), "\n") != 1 || !strings.HasSuffix(string(line), "\n") {
			t.Fatalf("%q, %v", line, err)
		}
		var m struct{ Context map[string]any }
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		if _, has := m.Context["body"]; has != twice || string(f.Body) != body {
			t.Errorf("%q: %s", body, line)
		}
	}
}

func TestEntropy(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for data, want := range map[string]float64{"": 0, "aaaa": 0, "abab": 1, string(all): 8} {
		if got := Entropy([]byte(data)); math.Abs(got-want) > 1e-9 || math.Signbit(got) {
			t.Errorf("%.4q: %v, want %v", data, got, want)
		}
	}
}

// TestPriors: what an earlier inspector found is shown with its words.
func TestPriors(t *testing.T) {
	c := content(t, "https://example.com/")
	c.Header = http.Header{"B": {"2"}, "A": {"1", "0"}}
	c.Prior = []inspect.Finding{
		{Inspector: "a", Action: inspect.Flagged, Reason: "r", Severity: inspect.Info},
		{Inspector: "b", Reason: "observed", Severity: inspect.Critical, Mode: inspect.Observed},
	}
	f, err := HeadOf(c)
	want := []Prior{{"a", "flag", "r", "info"}, {"b", "block", "observed", "critical"}}
	if err != nil || !reflect.DeepEqual(f.PriorResults, want) || !reflect.DeepEqual(f.Headers, [][2]string{{"A", "1"}, {"A", "0"}, {"B", "2"}}) {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestDocumented: docs/inspectors.md lists every field.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/inspectors.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		rows[m[1]] = true
	}
	fields := reflect.TypeFor[Fields]()
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
		if name == "body" {
			name = "body_bytes" // as Python has it
		}
		if !rows[name] {
			t.Errorf("there is no row for %s", name)
		}
	}
}

// FuzzParseResult: an answer is a finding that blocks or flags with one line of
// printable text, or nothing, or an error; never something in between.
func FuzzParseResult(f *testing.F) {
	for _, s := range []string{
		`null`, ``, ` `, `{"action": "block", "reason": "r", "severity": "high"}`, `{"action": "flag"}`, `{"action": "allow"}`,
		`{"action": "block"} {}`, `{"action": "block", "extra": 1}`, `[]`, `"block"`, `{"action": "flag", "reason": "\u001b[31m\n\u202e"}`,
		`{"ACTION": "flag", "action": "block"}`, `{"action": "block", "score": 1e999}`, `{"action": "block", "metadata": {"a": [[]]}}`, "{\"action\": \"flag\", \"reason\": \"\xff\"}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		finding, found, err := ParseResult(data)
		if err != nil || !found {
			if found || !reflect.DeepEqual(finding, inspect.Finding{}) {
				t.Fatalf("%q gives %+v beside %v", data, finding, err)
			}
			return
		}
		bad := strings.ContainsFunc(finding.Reason, func(r rune) bool { return !unicode.IsPrint(r) })
		if finding.Action != inspect.Blocked && finding.Action != inspect.Flagged || bad || len(finding.Reason) > maxReason+8 || finding.Severity == "" {
			t.Fatalf("%q gives %+v", data, finding)
		}
		if v := inspect.NewChain().WithContent(answering(data)).DecideContent(t.Context(), content(t, "https://example.com/")); v.Decision != finding.Action {
			t.Fatalf("%q is %v in a chain", data, v.Decision)
		}
	})
}

// answering is an inspector that gives one answer.
type answering []byte

func (answering) Name() string { return "own" }

func (a answering) InspectContent(context.Context, *inspect.Content) inspect.Result {
	return Rule{Name: "own"}.Answer(a)
}

// FuzzParseHello: what is no hello of this version is an error.
func FuzzParseHello(f *testing.F) {
	for _, s := range []string{`{"protocol": 1, "inspector": "a", "request": true}`, `{"protocol": 2}`, `{"error": "x\n", "hint": "y"}`, `{}`, `null`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := ParseHello(data)
		if err == nil && (h.Protocol != Protocol || h.Error != "") {
			t.Fatalf("%q gives %+v", data, h)
		}
	})
}
