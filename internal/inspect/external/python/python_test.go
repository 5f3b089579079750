package python

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/external"
	"github.com/agentcage/agentcage/internal/worker"
)

func TestMain(m *testing.M) {
	worker.MaybeMain()
	goleak.VerifyTestMain(m)
}

// needSpawner skips where no worker can be made, and says why.
func needSpawner(t testing.TB) *worker.Spawner {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3: not installed")
	}
	if _, err := exec.Command("unshare", "-Urn", "true").Output(); err != nil {
		t.Skipf("needs user namespaces: %v", err)
	}
	s, err := worker.Start(worker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newInspector(t testing.TB, s Starter, o Options) *Inspector {
	t.Helper()
	if o.Name == "" {
		o.Name = "own"
	}
	o.File = "own.py"
	in, err := New(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

// class is an inspector with a body for inspect_request.
func class(body string) []byte {
	return []byte("import os, sys, time\nfrom inspectors.base import Inspector, InspectionResult, InspectionContext\n" +
		"class Own(Inspector):\n    name = 'own'\n    def inspect_request(self, ctx):\n        " +
		strings.ReplaceAll(strings.TrimSpace(body), "\n", "\n        ") + "\n")
}

func request(t testing.TB, rawURL, body string) *inspect.Content {
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
		Request: &inspect.Request{Method: "POST", Scheme: "https", Host: host, Port: 443, Path: u.Path, URL: u},
		Kind:    inspect.KindRequest, Direction: inspect.ToServer, Body: []byte(body), Type: "text/plain",
		Header: http.Header{"X-Two": {"a", "b"}, "Content-Type": {"text/plain"}},
	}
}

// reader says what an inspector reads, as the gateway does.
type reader struct{ *Inspector }

func (r reader) Reads(*inspect.Request) inspect.Reads {
	return inspect.Reads{Request: r.Requests(), Messages: true, Responses: r.Responses()}
}

// decide asks through a chain, as the engine does.
func decide(t testing.TB, in *Inspector, c *inspect.Content) inspect.Verdict {
	t.Helper()
	return inspect.NewChain().WithContent(reader{in}).DecideContent(context.Background(), c)
}

// TestInterface shows an inspector every field, under the names of the original.
func TestInterface(t *testing.T) {
	s := needSpawner(t)
	source := class(`
import json
h = ctx.headers
seen = [ctx.url, ctx.host, ctx.method, [list(p) for p in h], dict(h), h.get('x-two'), h['X-TWO'], h.get('no', 'none'), 'x-two' in h, sorted(h.keys()),
	len(h.items()), ctx.content_type, ctx.body_bytes.hex(), ctx.body_text, ctx.body_size, round(ctx.body_entropy, 3),
	[(p.inspector, p.action, p.severity) for p in ctx.prior_results], ctx.scheme, ctx.port, ctx.path, ctx.query, ctx.direction, ctx.kind, isinstance(ctx, InspectionContext)]
return InspectionResult(inspector=self.name, action='flag', reason=json.dumps(seen[int(self.n)]), severity='low', score=0.5, metadata={'a': object()})
`)
	source = append(source, "    def configure(self, cfg): self.n = cfg['n']\n"...)
	in := newInspector(t, s, Options{Source: source, Config: map[string]any{"n": 0}, Workers: 1})
	if !in.Requests() || in.Responses() {
		t.Error("it is asked about the wrong direction")
	}
	in.Close()
	for n, want := range []any{
		"https://api.example.com/a/b?q=1", "api.example.com", "POST",
		[][]string{{"Content-Type", "text/plain"}, {"X-Two", "a"}, {"X-Two", "b"}},
		map[string]string{"Content-Type": "text/plain", "X-Two": "a, b"},
		"a, b", "a, b", "none", true,
		[]string{"Content-Type", "X-Two"},
		3, "text/plain", "68c3a9ff", "hé\uFFFD", 4, 2.0,
		[][]string{{"before", "flag", "info"}},
		"https", 443, "/a/b", "q=1", "request", "request", true,
	} {
		in := newInspector(t, s, Options{Workers: 1, Config: map[string]any{"n": n}, Source: source})
		c := request(t, "https://api.example.com/a/b?q=1", "h\xc3\xa9\xff")
		v := inspect.NewChain().WithContent(flagger{}, in).DecideContent(t.Context(), c)
		if v.Decision != inspect.Flagged || len(v.Findings) != 2 {
			t.Fatalf("%d: %+v", n, v)
		}
		wanted, _ := json.Marshal(want)
		var a, b any
		_ = json.Unmarshal(wanted, &a)
		_ = json.Unmarshal([]byte(v.Findings[1].Reason), &b)
		if fmt.Sprint(a) != fmt.Sprint(b) || v.Findings[1].Severity != inspect.Info || v.Findings[1].Inspector != "own" {
			t.Errorf("%d: %v, want %v", n, v.Findings[1], string(wanted))
		}
		in.Close()
	}
}

type flagger struct{}

func (flagger) Name() string { return "before" }
func (flagger) InspectContent(context.Context, *inspect.Content) inspect.Result {
	return inspect.Done(inspect.Finding{Action: inspect.Flagged, Reason: "odd", Severity: inspect.Info})
}

// TestMisbehaves: whatever an inspector does wrong blocks that request with a
// reason that holds nothing of it, harms only itself, and the next is decided
// as if nothing had been. The positive control is the request before and after.
func TestMisbehaves(t *testing.T) {
	s := needSpawner(t)
	const secret = "s3cret-text"
	for name, tt := range map[string]struct{ body, reason string }{
		"raises":           {`raise ValueError(ctx.body_text)`, "it raised an exception"},
		"memory":           {"x = []\nwhile True: x.append(bytearray(1 << 24))", "it raised an exception"},
		"recursion":        {"def f(): return f()\nf()", "it raised an exception"},
		"forks":            {`os.fork()`, "it raised an exception"},
		"writes a file":    {`open('/x', 'w')`, "it raised an exception"},
		"exits":            {`sys.exit(0)`, "it died"},
		"dies":             {`os._exit(0)`, "it died"},
		"kills itself":     {`import signal; os.close(3)`, "it died"},
		"hangs":            {`while True: pass`, "timeout"},
		"sleeps":           {`time.sleep(1e6)`, "timeout"},
		"floods stdout":    {"while True: os.write(1, b'x' * 65536)", "timeout"},
		"floods print":     {"while True: print('x' * 65536)", "timeout"},
		"floods the pipe":  {"while True: os.write(3, b'x' * 65536)", "its answer is too long"},
		"says nonsense":    {"os.write(3, b'nonsense\\n')", "its answer makes no sense"},
		"forges an answer": {"os.write(3, b'{\"id\": 1, \"result\": null}\\n{\"id\": 2, \"result\": null}\\n')\nraise ValueError", "its answer makes no sense"},
		"answers too much": {"os.write(3, b'{\"id\": 2, \"result\": null}\\n{\"id\": 3, \"result\": null}\\n')\ntime.sleep(1e6)", "its answer makes no sense"},
		"action":           {`return InspectionResult('own', 'allow', 'x', 'info')`, "its answer has an unknown action"},
		"severity":         {`return InspectionResult('own', 'flag', 'x', 'dire')`, "its answer has an unknown severity"},
		"no result":        {`return True`, "it raised an exception"},
		"no words":         {`return InspectionResult('own', {'block': ['flag']}, 1, None)`, "its answer makes no sense"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newInspector(t, s, Options{
				Source: class("if not ctx.body_text.startswith('bad'): return None\n" + tt.body), Workers: 1, Timeout: 30 * time.Second, Memory: 256 << 20,
			})
			good := func() {
				t.Helper()
				if v := decide(t, in, request(t, "https://api.example.com/", "good")); v.Decision != inspect.Allowed {
					t.Fatalf("a good request: %+v", v)
				}
			}
			good()
			if tt.reason == "timeout" {
				in.o.Timeout = 500 * time.Millisecond
			}
			v := decide(t, in, request(t, "https://api.example.com/", "bad "+secret))
			want := "inspector own failed: " + tt.reason
			if v.Decision != inspect.Blocked || v.Reason != want || strings.Contains(v.Reason, secret) {
				t.Errorf("%v %q, want %q", v.Decision, v.Reason, want)
			}
			in.o.Timeout = 30 * time.Second
			good()
		})
	}
}

// TestSetupFails: an inspector that cannot be used stops the start, with its
// own words.
func TestSetupFails(t *testing.T) {
	s := needSpawner(t)
	for name, tt := range map[string]struct{ source, want string }{
		"none":     {"from inspectors.base import Inspector\n", "no Inspector subclass"},
		"two":      {string(class("pass")) + "class Other(Inspector): pass\n", "more than one Inspector subclass: Own, Other"},
		"syntax":   {"class Own(:\n", "SyntaxError: invalid syntax (own.py, line 1)"},
		"import":   {"\nimport no_such_module\n", "line 2: ModuleNotFoundError: No module named 'no_such_module'"},
		"config":   {string(class("pass")) + "    def configure(self, cfg): raise ValueError('unknown key: ' + list(cfg)[0])\n", "line 7: ValueError: unknown key: a"},
		"nothing":  {"from inspectors.base import Inspector\nclass Own(Inspector): pass\n", "it looks at neither requests nor responses"},
		"dies":     {"import os\nos._exit(1)\n", "cannot start it: it died"},
		"nonsense": {"import os\nos.write(3, b'{}x\\n')\n", "it did not say a hello that makes sense"},
	} {
		_, err := New(t.Context(), s, Options{Rule: external.Rule{Name: "own"}, File: "own.py", Source: []byte(tt.source), Config: map[string]any{"a": 1}})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "cannot use inspector own: ") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(ctx, s, Options{Rule: external.Rule{Name: "own"}, Source: class("pass")}); err == nil {
		t.Error("a cancelled start succeeds")
	}
}

// TestLimits: a body over max_body is not shown, and what is not shown blocks.
func TestLimits(t *testing.T) {
	s := needSpawner(t)
	in := newInspector(t, s, Options{Source: class(`return InspectionResult('own', 'flag', str(len(ctx.body_bytes)))`), MaxBody: 2 << 20, Workers: 1})
	v := decide(t, in, request(t, "https://api.example.com/", strings.Repeat("é", 1<<20)))
	if v.Decision != inspect.Flagged || v.Reason != fmt.Sprint(2<<20) {
		t.Errorf("at the limit: %+v", v)
	}
	v = decide(t, in, request(t, "https://api.example.com/", strings.Repeat("é", 1<<20)+"x"))
	if v.Decision != inspect.Blocked || !strings.Contains(v.Reason, "max_body") {
		t.Errorf("over the limit: %+v", v)
	}
}

// TestActions: the config can soften what an inspector says, and not what it
// does not say.
func TestActions(t *testing.T) {
	s := needSpawner(t)
	source := class("if ctx.body_text == 'bad': raise ValueError\nreturn InspectionResult('own', 'block', 'no', 'critical')")
	for action, want := range map[string][2]inspect.Decision{
		"": {inspect.Blocked, inspect.Blocked}, "block": {inspect.Blocked, inspect.Blocked},
		"flag": {inspect.Flagged, inspect.Blocked}, "observe": {inspect.Allowed, inspect.Allowed},
	} {
		in := newInspector(t, s, Options{Rule: external.Rule{Name: "own", Action: action}, Source: source, Workers: 1})
		for i, body := range []string{"good", "bad"} {
			v := decide(t, in, request(t, "https://api.example.com/", body))
			if v.Decision != want[i] || len(v.Findings) != 1 {
				t.Errorf("action %q, %s: %+v", action, body, v)
			}
		}
	}
}

// TestManyAtOnce: more requests than workers wait for their turn.
func TestManyAtOnce(t *testing.T) {
	s := needSpawner(t)
	in := newInspector(t, s, Options{Source: class(`return InspectionResult('own', 'flag', ctx.body_text)`)})
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			body := fmt.Sprint("body ", i)
			if v := decide(t, in, request(t, "https://api.example.com/", body)); v.Reason != body {
				t.Errorf("%q gives %+v", body, v)
			}
		})
	}
	all.Wait()
	in.Close()
	if v := decide(t, in, request(t, "https://api.example.com/", "x")); v.Decision != inspect.Blocked {
		t.Errorf("an inspector that has ended: %+v", v)
	}
}

// TestResponses: the direction decides which method is asked.
func TestResponses(t *testing.T) {
	s := needSpawner(t)
	source := append(class("return InspectionResult('own', 'flag', 'request ' + ctx.method + ' ' + ctx.content_type)"), []byte(
		"    def inspect_response(self, ctx):\n        return InspectionResult('own', 'flag', 'response %d' % ctx.status)\n")...)
	in := newInspector(t, s, Options{Source: source, Workers: 1})
	if !in.Responses() {
		t.Fatal("it does not ask for responses")
	}
	c := request(t, "https://api.example.com/", "x")
	c.Kind, c.Direction, c.Status = inspect.KindResponse, inspect.ToClient, 200
	if v := decide(t, in, c); v.Reason != "response 200" {
		t.Errorf("%+v", v)
	}
	c = request(t, "https://api.example.com/", "x")
	c.Kind = inspect.KindWebSocket
	if v := decide(t, in, c); v.Reason != "request WEBSOCKET application/x-websocket-frame" {
		t.Errorf("%+v", v)
	}
	only := newInspector(t, s, Options{Source: class("raise ValueError"), Workers: 1})
	c.Direction = inspect.ToClient
	if v := decide(t, only, c); v.Decision != inspect.Allowed {
		t.Errorf("asked about what it does not look at: %+v", v)
	}
}

// TestSpawnerGone: without one nothing passes.
func TestSpawnerGone(t *testing.T) {
	s := needSpawner(t)
	in := newInspector(t, s, Options{Source: class("return None"), Workers: 1, Timeout: time.Second})
	s.Close()
	for range 2 {
		if v := decide(t, in, request(t, "https://api.example.com/", "x")); v.Decision != inspect.Blocked {
			t.Errorf("%+v", v)
		}
	}
	if _, err := New(t.Context(), s, Options{Source: class("return None")}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func example(t testing.TB, name string) []byte {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "examples", "inspectors", name))
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// TestExamples runs the inspectors of examples/inspectors, which are written for
// the original's interface.
func TestExamples(t *testing.T) {
	s := needSpawner(t)
	cards := newInspector(t, s, Options{Source: example(t, "card_numbers.py"), Config: map[string]any{"allow_hosts": []any{"pay.example.com"}}})
	for _, tt := range []struct{ url, body, reason string }{
		{"https://api.example.com/", "order 4111 1111 1111 1111 please", "card number (visa) in the body"},
		{"https://api.example.com/", "378282246310005", "card number (amex) in the body"},
		{"https://api.example.com/", "order 4111 1111 1111 1112 please", ""},
		{"https://api.pay.example.com/", "order 4111 1111 1111 1111 please", ""},
		{"https://api.example.com/", "", ""},
	} {
		v := decide(t, cards, request(t, tt.url, tt.body))
		if v.Reason != tt.reason || (v.Decision == inspect.Blocked) != (tt.reason != "") {
			t.Errorf("%s %q: %+v", tt.url, tt.body, v)
		}
	}
	_, err := New(t.Context(), s, Options{Rule: external.Rule{Name: "own"}, Source: example(t, "card_numbers.py"), Config: map[string]any{"brands": []any{"none"}}})
	if err == nil || !strings.Contains(err.Error(), "unknown brands: none") {
		t.Errorf("%v", err)
	}

	uploads := newInspector(t, s, Options{Source: example(t, "large_uploads.py"), Config: map[string]any{"hosts": map[string]any{"example.com": 10}}})
	if v := decide(t, uploads, request(t, "https://api.example.com/", "12345678901")); v.Decision != inspect.Flagged || v.Reason != "upload of 11 bytes, more than 10" {
		t.Errorf("%+v", v)
	}
	if v := decide(t, uploads, request(t, "https://api.example.org/", "12345678901")); v.Decision != inspect.Allowed {
		t.Errorf("%+v", v)
	}
}

// TestDocumented runs the inspectors in docs/inspectors.md.
func TestDocumented(t *testing.T) {
	s := needSpawner(t)
	page, err := os.ReadFile("../../../../docs/inspectors.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```python\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) != 1 {
		t.Fatalf("%d blocks", len(blocks))
	}
	in := newInspector(t, s, Options{Source: blocks[0][1], Config: map[string]any{"names": []any{"Bluebird"}}})
	for body, want := range map[string]inspect.Decision{"about bluebird": inspect.Blocked, "about birds": inspect.Allowed} {
		if v := decide(t, in, request(t, "https://api.example.com/", body)); v.Decision != want {
			t.Errorf("%s: %+v", body, v)
		}
	}
	c := request(t, "https://api.example.com/", "x")
	c.Kind, c.Direction, c.Status, c.Header = inspect.KindResponse, inspect.ToClient, 200, nil
	if v := decide(t, in, c); v.Decision != inspect.Flagged {
		t.Errorf("%+v", v)
	}
}

// BenchmarkPython is one request of 1 kB after the other, as on one connection.
func BenchmarkPython(b *testing.B) {
	s := needSpawner(b)
	in := newInspector(b, s, Options{Source: example(b, "card_numbers.py")})
	body := `{"text": "` + strings.Repeat("order 12 of 2024 ", 60) + `"}`
	for b.Loop() {
		if v := decide(b, in, request(b, "https://api.example.com/v1/orders", body)); v.Decision != inspect.Allowed {
			b.Fatalf("%+v", v)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{
		`{"id": 1, "result": null, "log": ""}`, `{"id": 1, "error": "ValueError", "trace": "x"}`, `{"id": 1, "result": {"action": "block"}}`,
		`{"id": 1} {"id": 1}`, `{"id": 1e0}`, `{"ID": 1, "result": {}}`, `[]`, `null`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := parseAnswer(line, 1, 0)
		if err != nil {
			return
		}
		if a.ID != 1 || a.Error != "" && len(a.Result) > 0 && string(a.Result) != "null" {
			t.Fatalf("%q gives %+v", line, a)
		}
	})
}
