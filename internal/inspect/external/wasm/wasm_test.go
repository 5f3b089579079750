package wasm

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"go.uber.org/goleak"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/external"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// build compiles a guest from source, once.
var build = func() func(t testing.TB, dir string) []byte {
	var mu sync.Mutex
	built := map[string][]byte{}
	return func(t testing.TB, dir string) []byte {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if m, ok := built[dir]; ok {
			return m
		}
		if _, err := exec.LookPath("go"); err != nil {
			t.Skip("needs Go tool chain: not installed")
		}
		out := filepath.Join(t.TempDir(), "guest.wasm")
		c := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, ".")
		c.Dir = dir
		c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "CGO_ENABLED=0")
		if text, err := c.CombinedOutput(); err != nil {
			t.Fatalf("cannot build %s: %v\n%s", dir, err, text)
		}
		m, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		built[dir] = m
		return m
	}
}()

var cache = wazero.NewCompilationCache()

const (
	hostileDir = "testdata/hostile"
	exampleDir = "../../../../examples/inspectors/wasm-go"
)

func newInspector(t testing.TB, o Options) *Inspector {
	t.Helper()
	o.Name, o.cache = "own", cache
	in, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

func request(t testing.TB, body string) *inspect.Content {
	t.Helper()
	u, err := url.Parse("https://api.example.com/graphql?q=1")
	if err != nil {
		t.Fatal(err)
	}
	host, err := hostname.Parse(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	return &inspect.Content{
		Request: &inspect.Request{Method: "POST", Scheme: "https", Host: host, Port: 443, Path: u.Path, URL: u},
		Kind:    inspect.KindRequest, Direction: inspect.ToServer, Body: []byte(body), Type: "application/json",
		Header: http.Header{"Content-Type": {"application/json"}},
	}
}

func decide(t testing.TB, in inspect.ContentInspector, c *inspect.Content) inspect.Verdict {
	t.Helper()
	return inspect.NewChain().WithContent(in).DecideContent(context.Background(), c)
}

// TestMisbehaves: what a module does wrong blocks that request, harms only
// itself, and the next is decided as if nothing had been, which is the
// positive control.
func TestMisbehaves(t *testing.T) {
	module := build(t, hostileDir)
	in := newInspector(t, Options{Module: module, Instances: 1, Timeout: time.Minute, Memory: 32 << 20})
	for name, reason := range map[string]string{
		"hang": "timeout", "sleep": "timeout", "trap": "it ended with a trap", "exit": "it ended with a trap", "recursion": "",
		"memory": "it ended with a trap", "nonsense": "its answer makes no sense", "action": "its answer has an unknown action",
		"long": "its answer is too long", "outside": "its answer makes no sense", "wraps": "its answer is too long",
	} {
		if reason == "timeout" || reason == "" { // how fast a stack fills up is the machine's
			in.o.Timeout = 300 * time.Millisecond
		}
		v := decide(t, in, request(t, name+" s3cret"))
		if v.Decision != inspect.Blocked || !strings.HasPrefix(v.Reason, "inspector own failed: ") || reason != "" && v.Reason != "inspector own failed: "+reason {
			t.Errorf("%s: %v %q, want %q", name, v.Decision, v.Reason, reason)
		}
		in.o.Timeout = time.Minute
		if v := decide(t, in, request(t, "good")); v.Decision != inspect.Allowed {
			t.Errorf("after %s: %+v", name, v)
		}
	}
}

// TestNothingIsReached: WASI is there and leads nowhere.
func TestNothingIsReached(t *testing.T) {
	in := newInspector(t, Options{Module: build(t, hostileDir), Instances: 1, Timeout: time.Minute})
	v := decide(t, in, request(t, "see it"))
	if want := `[0,0,true,true,"https://api.example.com/graphql?q=1",6]`; v.Reason != want {
		t.Errorf("%q, want %q", v.Reason, want)
	}
	v = decide(t, in, request(t, "flag it"))
	if v.Decision != inspect.Flagged || v.Reason != "odd  [31m" || v.Findings[0].Severity != inspect.Info || v.Findings[0].Inspector != "own" {
		t.Errorf("%+v", v)
	}
}

// TestLogIsCapped: a module cannot fill the log, nor make the host read outside
// of its memory.
func TestLogIsCapped(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	in := newInspector(t, Options{Module: build(t, hostileDir), Instances: 1, Timeout: time.Minute, Log: log})
	if v := decide(t, in, request(t, "log much")); v.Decision != inspect.Allowed {
		t.Errorf("%+v", v)
	}
	if n := out.Len(); n == 0 || n > 64<<10 || !strings.Contains(out.String(), "log much") {
		t.Errorf("%d bytes are logged", n)
	}
}

// TestLargeBody: the longest body fits into the memory that an instance has.
func TestLargeBody(t *testing.T) {
	in := newInspector(t, Options{Module: build(t, exampleDir), Instances: 1, Timeout: 5 * time.Minute})
	body := `{"query": "` + strings.Repeat("a ", DefaultMaxBody/2-10) + `"}`
	if v := decide(t, in, request(t, body)); v.Decision != inspect.Allowed {
		t.Errorf("at the limit: %+v", v)
	}
	if v := decide(t, in, request(t, body+strings.Repeat(" ", 100))); v.Decision != inspect.Blocked || !strings.Contains(v.Reason, "max_body") {
		t.Errorf("over the limit: %+v", v)
	}
}

// TestSetupFails: a module that cannot be used stops the start.
func TestSetupFails(t *testing.T) {
	const head = "\x00asm\x01\x00\x00\x00"
	const noop = "\x01\x04\x01\x60\x00\x00" // a type without parameters and results
	hostile := build(t, hostileDir)
	for name, tt := range map[string]struct {
		module []byte
		config map[string]any
		want   string
	}{
		"no module": {[]byte("text"), nil, "cannot compile it"},
		"cut off":   {hostile[:len(hostile)/2], nil, "cannot compile it"},
		"empty":     {[]byte(head), nil, "it exports no function agentcage_"},
		"import":    {[]byte(head + noop + "\x02\x09\x01\x03env\x01f\x00\x00"), nil, "it imports env.f"},
		"signature": {[]byte(head + noop + "\x03\x02\x01\x00\x07\x13\x01\x0fagentcage_alloc\x00\x00\x0a\x04\x01\x02\x00\x0b"), nil, "agentcage_alloc has other parameters"},
		"refuses":   {hostile, map[string]any{"a": "refuse"}, "cannot use inspector own: refused:"},
		"newer":     {hostile, map[string]any{"a": "newer"}, "version 2"},
	} {
		_, err := New(t.Context(), Options{Rule: external.Rule{Name: "own"}, Module: tt.module, Config: tt.config, cache: cache})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestExample builds examples/inspectors/wasm-go and runs it.
func TestExample(t *testing.T) {
	in := newInspector(t, Options{Module: build(t, exampleDir), Config: map[string]any{"allow": []any{"AddStar"}}, Timeout: time.Minute})
	if !in.Requests() || in.Responses() {
		t.Error("it is asked about the wrong direction")
	}
	for body, want := range map[string]inspect.Decision{
		`{"query": "query Q { viewer { login } }"}`:            inspect.Allowed,
		`{"query": "mutation AddStar($id: ID!) { x }"}`:        inspect.Allowed,
		`{"query": "mutation DeleteRepo { x }"}`:               inspect.Blocked,
		`{"query": "query A { x } mutation { y }"}`:            inspect.Blocked,
		`{"query": "query A { x }\nmutation DeleteRepo { x}"}`: inspect.Blocked,
		`{"query": "\u006dutation DeleteRepo { x }"}`:          inspect.Blocked,
		`no JSON`: inspect.Allowed,
		``:        inspect.Allowed,
	} {
		if v := decide(t, in, request(t, body)); v.Decision != want {
			t.Errorf("%s: %+v", body, v)
		}
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if v := decide(t, in, request(t, `{"query": "mutation X { y }"}`)); v.Decision != inspect.Blocked {
				t.Errorf("%+v", v)
			}
		})
	}
	all.Wait()
	in.Close()
	if v := decide(t, in, request(t, `{"query": "query Q { x }"}`)); v.Decision != inspect.Blocked {
		t.Errorf("an inspector that has ended: %+v", v)
	}
}

// BenchmarkWASM is one request of 1 kB after the other: one that the example
// lets go at once, and one that it decodes, which is the time of encoding/json.
func BenchmarkWASM(b *testing.B) {
	for name, word := range map[string]string{"quick": "query", "decoded": "mutation"} {
		b.Run(name, func(b *testing.B) {
			in := newInspector(b, Options{Module: build(b, exampleDir), Config: map[string]any{"allow": []any{"Q"}}})
			body := `{"query": "` + word + ` Q { ` + strings.Repeat("field ", 160) + `}"}`
			var took []time.Duration
			for b.Loop() {
				c := request(b, body)
				begin := time.Now()
				if v := decide(b, in, c); v.Decision != inspect.Allowed {
					b.Fatalf("%+v", v)
				}
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "median-µs")
		})
	}
}

// BenchmarkCompile is what a start or a reload costs.
func BenchmarkCompile(b *testing.B) {
	module := build(b, exampleDir)
	for b.Loop() {
		in, err := New(b.Context(), Options{Module: module})
		if err != nil {
			b.Fatal(err)
		}
		in.Close()
	}
}
