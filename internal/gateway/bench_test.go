package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/scan"
)

// benchConfig has every built-in inspector on, with a value that is known and a
// budget, so that nothing of the chain is left out.
const benchConfig = `name: bench
domains: {allow: [api.example.com]}
rate_limit: {requests_per_second: 0}
max_request_body: 0
secrets:
  extra_patterns: [{name: deploy_key, env: DEPLOY_KEY}]
entropy: {enabled: true}
content_type: {enabled: true}
budget:
  bytes: {flag: false, block: 900TiB}
  requests: {flag: 1000000000}
`

func benchPolicy(b *testing.B) *policy {
	b.Helper()
	c, err := config.Parse("cage.yaml", []byte(benchConfig))
	if err != nil {
		b.Fatal(err)
	}
	s := new(state)
	if err := s.hold(c, env(map[string]string{"DEPLOY_KEY": "q7Zk-0Lw_mN4x!Rt2"})); err != nil {
		b.Fatal(err)
	}
	p, err := newPolicy(c, s, nil)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// benchChat is JSON of about the size given as programs that talk to language
// models send it: prose, code and lists of files.
func benchChat(size int) []byte {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	prose := "The function that reads the configuration returns an error when a key is unknown, and the message names the " +
		"line. Could you change it so that all unknown keys are listed at once? The tests should still pass."
	code := "func (s *Source) Load(path string) (*Config, error) {\n\tdata, err := os.ReadFile(path)\n\tif err != nil {\n" +
		"\t\treturn nil, fmt.Errorf(\"cannot read %s: %w\", path, err)\n\t}\n\tvar c Config\n\treturn &c, decodeStrictly(data, &c)\n}\n"
	list := "internal/config/load.go\ninternal/config/load_test.go\ninternal/config/testdata/bad_alias_bomb.golden\n" +
		"https://example.test/a/b?query=value&page=2\n"
	var all []json.RawMessage
	for n, total := 0, 0; total < size; n++ {
		for _, m := range []message{{"user", prose}, {"assistant", code + prose}, {"tool", list}} {
			m.Content = fmt.Sprintf("%s%d", m.Content, n)
			one, err := json.Marshal(m)
			if err != nil {
				panic(err)
			}
			all, total = append(all, one), total+len(one)+1
		}
	}
	out, err := json.Marshal(map[string]any{"model": "some-model-2026", "messages": all})
	if err != nil {
		panic(err)
	}
	return out
}

// benchDense is JSON whose text is nothing but beginnings of secrets, of every
// rule, as text that was made to hit every keyword.
func benchDense(size int) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	var b bytes.Buffer
	b.WriteString(`{"text":"`)
	for b.Len() < size {
		sample := scan.Sample(scan.Builtin()[r.IntN(len(scan.Builtin()))], 1)
		word := sample[:min(len(sample)/2, 6+r.IntN(10))] // and none of them is one
		b.WriteString(strings.Map(plainLetter, string(word)))
		b.WriteByte(' ')
	}
	b.WriteString(`"}`)
	return b.Bytes()
}

func plainLetter(r rune) rune {
	if r == '"' || r == '\\' || r < ' ' {
		return '.'
	}
	return r
}

// benchContent is a request with the head that the clients of an API have.
func benchContent(method, path string, body []byte) *inspect.Content {
	header := http.Header{
		"User-Agent": {"some-client/1.42.0 (Linux; x64) node/22.11.0"}, "Accept": {"application/json"},
		"Accept-Encoding": {"gzip, deflate, br"}, "Accept-Language": {"en-US,en;q=0.9"},
		"Authorization": {"Bearer {{AGENTCAGE_API_KEY}}"}, "X-Request-Id": {"550e8400-e29b-41d4-a716-446655440000"},
		"Cache-Control": {"no-cache"}, "Cookie": {"session=abcdef; theme=dark"}, "Anthropic-Version": {"2023-06-01"},
	}
	typ := ""
	if body != nil {
		typ = "application/json"
		header.Set("Content-Type", typ)
		header.Set("Content-Length", fmt.Sprint(len(body)))
	}
	u := &url.URL{Scheme: "https", Host: "api.example.com", Path: path}
	r := &inspect.Request{
		Via: inspect.ViaConnect, Method: method, Scheme: "https", Host: hostname.MustParse("api.example.com"), Port: 443,
		Path: path, URL: u, Header: header, ContentLength: int64(len(body)),
	}
	return &inspect.Content{Request: r, Kind: inspect.KindRequest, Direction: inspect.ToServer, Header: header, Type: typ, Body: body}
}

// benchChain decides about a request as the engine does: its head, then all of it.
func benchChain(b *testing.B, method, path string, body []byte) {
	p, whole := benchPolicy(b), benchContent(method, path, body)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if v := p.Decide(context.Background(), whole.Request); !v.Allowed() {
			b.Fatal(v.Reason)
		}
		c := *whole
		if v := p.DecideContent(context.Background(), &c); v.Decision != inspect.Allowed {
			b.Fatal(v.Reason)
		}
	}
}

func BenchmarkChainHead(b *testing.B) { benchChain(b, "GET", "/v1/models", nil) }
func BenchmarkChain10k(b *testing.B)  { benchChain(b, "POST", "/v1/messages", benchChat(10_000)) }
func BenchmarkChainWords(b *testing.B) {
	benchChain(b, "POST", "/v1/messages", []byte(`{"text":"`+strings.Repeat("words and more words, ", 454)+`"}`))
}
func BenchmarkChain1MiB(b *testing.B) { benchChain(b, "POST", "/v1/messages", benchChat(1<<20)) }
func BenchmarkChainDense(b *testing.B) {
	benchChain(b, "POST", "/v1/messages", benchDense(1<<20))
}
