package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inject"
	"github.com/agentcage/agentcage/internal/inject/injecttest"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy/ws"
	values "github.com/agentcage/agentcage/internal/secret"
)

const (
	realKey   = "sk-real/7Qm2Vx9Kp4+Tz8\"Wc3"
	holder    = "agentcage:secret:KEY:00112233445566778899aabbccddeeff"
	otherKey  = "the value of another host"
	elsewhere = "agentcage:secret:OTHER:ffeeddccbbaa99887766554433221100"
)

// secretPolicy lets everything through but what the injector objects to.
type secretPolicy struct {
	policyFunc
	chain *inspect.Chain
	in    *inject.Injector

	looked func() // at content
}

func (p *secretPolicy) Reads(r *inspect.Request) inspect.Reads { return p.chain.Reads(r) }
func (p *secretPolicy) Secrets() *inject.Injector              { return p.in }

func (p *secretPolicy) DecideContent(ctx context.Context, c *inspect.Content) inspect.Verdict {
	v := p.chain.DecideContent(ctx, c)
	if p.looked != nil {
		p.looked()
	}
	return v
}

// keep is a policy with one rule for good, which a test may change, and one for
// 192.0.2.7.
func keep(t testing.TB, change ...func(*config.InjectionRule)) *secretPolicy {
	t.Helper()
	to := func(host string) []config.Target { return []config.Target{{Host: hostname.MustParse(host)}} }
	rule := config.InjectionRule{Env: "KEY", Placeholder: holder, InjectTo: to(good), Foreign: "block"}
	for _, f := range change {
		f(&rule)
	}
	in, err := inject.New(config.Injection{Rules: []config.InjectionRule{rule, {Env: "OTHER", Placeholder: elsewhere, InjectTo: to("192.0.2.7")}}})
	if err != nil {
		t.Fatal(err)
	}
	p := &secretPolicy{policyFunc: only(good, evil, "192.0.2.7"), in: in, chain: inspect.NewChain().WithContent(in.Policy())}
	p.set(t, "KEY", realKey)
	p.set(t, "OTHER", otherKey)
	return p
}

func (p *secretPolicy) set(t testing.TB, env, value string) {
	t.Helper()
	v, err := values.New([]byte(value))
	if err == nil {
		err = p.in.Set(env, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func injectBody(r *config.InjectionRule)  { r.InjectBody = true }
func injectQuery(r *config.InjectionRule) { r.InjectQuery = true }

// receipt is a request as a server received it.
type receipt struct {
	method, uri string
	header      http.Header
	trailer     http.Header
	body        string
	length      int64
	chunked     bool
}

// receiver remembers requests, and answers as a test has it.
type receiver struct {
	mu     sync.Mutex
	got    []receipt
	answer http.HandlerFunc // nil is an empty answer
}

func (s *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.got = append(s.got, receipt{r.Method, r.RequestURI, r.Header.Clone(), r.Trailer.Clone(), string(body), r.ContentLength, len(r.TransferEncoding) > 0})
	s.mu.Unlock()
	if s.answer != nil {
		s.answer(w, r)
	}
}

func (s *receiver) all() []receipt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// askGood sends a request to good in one of the ways.
func askGood(t testing.TB, w *world, way int, method, path, body string, pairs ...string) (*http.Response, string) {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, ways[way].scheme+"://"+good+path, r)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] == "Host" {
			req.URL.Host, req.Host = pairs[i+1], pairs[i+1]
			continue
		}
		req.Header[http.CanonicalHeaderKey(pairs[i])] = append(req.Header[http.CanonicalHeaderKey(pairs[i])], pairs[i+1])
	}
	return do(t, ways[way].make(w), req)
}

// TestInjection is rules.md 62, 63, 65 and 66 and peer-holes C2 and C4: what a
// server receives by every way, where the placeholder stood and nowhere else.
func TestInjection(t *testing.T) {
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	escaped := url.QueryEscape(realKey)
	jsonKey := strings.ReplaceAll(realKey, `"`, `\"`)
	for _, tt := range []struct {
		name, path, body string
		pairs            []string
		change           func(*config.InjectionRule)
		header           http.Header // what was received
		uri, got         string
	}{
		{name: "bearer", pairs: []string{"Authorization", "Bearer " + holder}, header: http.Header{"Authorization": {"Bearer " + realKey}}},
		{name: "duplicates in order", pairs: []string{"X-Api-Key", holder, "X-Api-Key", holder, "X-Other", "1", "X-Other", "2"}, header: http.Header{"X-Api-Key": {realKey, realKey}, "X-Other": {"1", "2"}}},
		{name: "basic", pairs: []string{"Authorization", basic("user:" + holder)}, header: http.Header{"Authorization": {basic("user:" + realKey)}}},
		{name: "query", path: "?a=%41&key=" + url.QueryEscape(holder) + "&b", change: injectQuery, uri: "/?a=%41&key=" + escaped + "&b"},
		{name: "json", body: `{"key": "` + holder + `"}`, pairs: []string{"Content-Type", "application/json"}, change: injectBody, got: `{"key": "` + jsonKey + `"}`},
		{name: "form", body: "a=+1&key=" + url.QueryEscape(holder), pairs: []string{"Content-Type", "application/x-www-form-urlencoded"}, change: injectBody, got: "a=+1&key=" + escaped},
		{name: "text", body: "<" + holder + ">", pairs: []string{"Content-Type", "text/plain"}, change: injectBody, got: "<" + realKey + ">"},
		{name: "text of a body without inject_body", body: "I have " + holder, pairs: []string{"Authorization", holder}, got: "I have " + holder, header: http.Header{"Authorization": {realKey}}},
		{name: "a digest of what it was", body: holder, pairs: []string{"Content-Md5", "x", "Digest", "y"}, change: injectBody, got: realKey, header: http.Header{"Content-Md5": nil, "Digest": nil}},
		{name: "a digest of what stays", body: "plain", pairs: []string{"Content-Md5", "x"}, change: injectBody, got: "plain", header: http.Header{"Content-Md5": {"x"}}},
		{name: "named by Connection", pairs: []string{"Connection", "x-api-key", "X-Api-Key", holder, "X-Stays", "1"}, header: http.Header{"X-Api-Key": nil, "X-Stays": {"1"}}},
	} {
		for i, way := range ways {
			if way.proto == 2 && slices.Contains(tt.pairs, "Connection") {
				continue // it is no header of HTTP/2
			}
			up := &receiver{}
			change := tt.change
			if change == nil {
				change = func(*config.InjectionRule) {}
			}
			w := newWorld(t, keep(t, change), up)
			res, text := askGood(t, w, i, "POST", "/"+tt.path, tt.body, tt.pairs...)
			got := up.all()
			if res.StatusCode != 200 || len(got) != 1 {
				t.Errorf("%s, %s: %d %s", tt.name, way.name, res.StatusCode, text)
				continue
			}
			for name, want := range tt.header {
				if !slices.Equal(got[0].header[name], want) {
					t.Errorf("%s, %s: %s is %q, want %q", tt.name, way.name, name, got[0].header[name], want)
				}
			}
			if tt.uri != "" && got[0].uri != tt.uri {
				t.Errorf("%s, %s: %s, want %s", tt.name, way.name, got[0].uri, tt.uri)
			}
			if got[0].body != tt.got || got[0].length != int64(len(tt.got)) {
				t.Errorf("%s, %s: body %q of %d, want %q", tt.name, way.name, got[0].body, got[0].length, tt.got)
			}
			injected := strings.Contains(fmt.Sprint(got[0].header, got[0].uri, got[0].body), realKey) || tt.name == "query" || tt.name == "json" || tt.name == "form" || tt.name == "basic"
			r := w.audit.await(t, "the request", func(r audit.Record) bool { return r.Method == "POST" })
			if slices.Contains(r.SecretsInjected, "KEY") != injected {
				t.Errorf("%s, %s: the log has %q", tt.name, way.name, r.SecretsInjected)
			}
		}
	}
}

// TestNeverSent is rules.md 64 and 67 and peer-holes C1 to C5: a placeholder that
// cannot be replaced, and a credential of somebody else's, reach nobody.
func TestNeverSent(t *testing.T) {
	unset := func(p *secretPolicy) { p.in.Unset("KEY", "it was removed") }
	for _, tt := range []struct {
		name, path, body string
		pairs            []string
		change           func(*config.InjectionRule)
		with             func(*secretPolicy)
		reason           string
	}{
		{name: "another host", pairs: []string{"Host", evil, "Authorization", holder}, reason: "placeholder KEY sent to unauthorized domain " + evil},
		{name: "the body to another host", body: holder, pairs: []string{"Host", evil}, reason: "placeholder KEY sent to unauthorized domain " + evil},
		{name: "of another host", pairs: []string{"Authorization", elsewhere}, reason: "placeholder OTHER sent to unauthorized domain " + good},
		{name: "no slot", pairs: []string{"User-Agent", holder}, reason: "which is no slot of its rule"},
		{name: "cookie", pairs: []string{"Cookie", "a=" + holder}, reason: "which is no slot of its rule"},
		{name: "query", path: "?q=" + holder, reason: "which is no slot of its rule"},
		{name: "path", path: holder, reason: "placeholder KEY in the path"},
		{name: "base64 in a header", pairs: []string{"X-Api-Key", base64.StdEncoding.EncodeToString([]byte(holder))}, reason: "is encoded"},
		{name: "method", change: func(r *config.InjectionRule) { r.Methods = []string{"PUT"} }, pairs: []string{"Authorization", holder}, reason: "not for this method and path"},
		{name: "foreign", pairs: []string{"Authorization", "Bearer sk-attacker-0123456789abcdef"}, reason: "foreign credential in Authorization"},
		{name: "foreign beside", pairs: []string{"Authorization", "Bearer " + holder, "X-Api-Key", "sk-attacker-0123456789abcdef"}, reason: "foreign credential in X-Api-Key"},
		{name: "no value", with: unset, pairs: []string{"Authorization", holder}, reason: "secret KEY has no value: it was removed"},
		{name: "no value for a body", with: unset, body: holder, change: injectBody, reason: "secret KEY has no value: it was removed"},
		{name: "line break", with: func(p *secretPolicy) { p.in.Set("KEY", mustValue("a\r\nX-Evil: value")) }, pairs: []string{"Authorization", holder}, reason: "secret KEY cannot be injected"},
		{name: "compressed", body: string(injecttest.Compress("gzip", []byte(holder))), pairs: []string{"Content-Encoding", "gzip"}, change: injectBody, reason: "in a compressed body cannot be replaced"},
	} {
		for i, way := range ways {
			if tt.name == "path" && way.name == "" {
				continue
			}
			up := &receiver{}
			change := tt.change
			if change == nil {
				change = func(*config.InjectionRule) {}
			}
			p := keep(t, change)
			if tt.with != nil {
				tt.with(p)
			}
			w := newWorld(t, p, up)
			method := "GET"
			if tt.body != "" {
				method = "POST"
			}
			res, text := askGood(t, w, i, method, "/"+tt.path, tt.body, tt.pairs...)
			if res.StatusCode != 403 || !strings.Contains(text, tt.reason) || len(up.all()) > 0 {
				t.Errorf("%s, %s: %d %s, the server received %+v", tt.name, way.name, res.StatusCode, text, up.all())
			}
		}
	}
}

func mustValue(s string) values.Value {
	v, err := values.New([]byte(s))
	if err != nil {
		panic(err)
	}
	return v
}

// TestPlaceholderInATrailer: it stops the request, whose body has then begun.
func TestPlaceholderInATrailer(t *testing.T) {
	for trailer, want := range map[string]bool{holder: false, "harmless": true} {
		up := &receiver{}
		w := newWorld(t, keep(t), up)
		c := w.dialTo(w.plain)
		res, text := raw(t, c, "POST / HTTP/1.1\r\nHost: "+good+"\r\nTransfer-Encoding: chunked\r\nTrailer: X-Key\r\n\r\n4\r\nbody\r\n0\r\nX-Key: "+trailer+"\r\n\r\n")
		if passed := res.StatusCode == 200 && len(up.all()) == 1; passed != want {
			t.Errorf("%s: %d %s", trailer, res.StatusCode, text)
		}
		for _, got := range up.all() {
			if strings.Contains(fmt.Sprint(got.trailer), holder) {
				t.Errorf("the server received %+v", got)
			}
		}
	}
}

// TestInjectionIntoLongBodies: what is too long to be kept is changed while it
// is sent, wherever the placeholder lies.
func TestInjectionIntoLongBodies(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		for _, at := range []int{0, 4<<10 - 20, 128<<10 - 25, 300<<10 - len(holder)} {
			for _, way := range ways {
				up := &receiver{}
				w := newWorld(t, keep(t, injectBody), up, func(o *Options) { o.Limits.MaxKept = 128 << 10 })
				sent := padded(300<<10, at, holder)
				var body io.Reader = bytes.NewReader(sent)
				if chunked {
					body = unsized(sent)
				}
				req, _ := http.NewRequest("POST", way.scheme+"://"+good+"/", body)
				res, text := do(t, way.make(w), req)
				want := strings.Replace(string(sent), holder, realKey, 1)
				if got := up.all(); res.StatusCode != 200 || len(got) != 1 || got[0].body != want {
					t.Errorf("%s, chunked %v, at %d: %d %s", way.name, chunked, at, res.StatusCode, text)
				}
				w.audit.await(t, "what was injected late", func(r audit.Record) bool { return slices.Contains(r.SecretsInjected, "KEY") })
			}
		}
	}
}

// TestInjectionIntoGRPC: metadata is a header; messages have their lengths in
// front and stay as they are.
func TestInjectionIntoGRPC(t *testing.T) {
	message := func(s string) string {
		return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(s)))) + s
	}
	up := &receiver{answer: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		io.WriteString(w, message("key "+r.Header.Get("Authorization")))
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", r.Header.Get("Authorization"))
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "7")
	}}
	w := newWorld(t, keep(t, injectBody), up)
	res, text := askGood(t, w, 2, "POST", "/pkg.Service/Do", message(holder), "Content-Type", "application/grpc", "Te", "trailers", "Authorization", "Bearer "+holder)
	got := up.all()
	if len(got) != 1 || got[0].header.Get("Authorization") != "Bearer "+realKey || got[0].body != message(holder) {
		t.Fatalf("%d %s, the server received %+v", res.StatusCode, text, got)
	}
	if injecttest.Holds([]byte(text+fmt.Sprint(res.Trailer)), []byte(realKey)) || len(text) != len(message("key Bearer "+realKey)) || res.Trailer.Get("Grpc-Message") != "Bearer "+holder {
		t.Errorf("the client received %q %v", text, res.Trailer)
	}
}

// TestSecretsInWebSockets is rules.md 62, both ways.
func TestSecretsInWebSockets(t *testing.T) {
	for inject, want := range map[bool]string{true: realKey, false: holder} {
		heard := make(chan string, 2)
		up := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, br := acceptSocket(w, r)
			defer c.Close()
			for range 2 {
				text, err := readFrame(br)
				if err != nil {
					return
				}
				heard <- text
				writeFrame(c, text, false)
			}
		})
		p := keep(t, func(r *config.InjectionRule) { r.InjectBody = inject })
		w := newWorld(t, p, up)
		c, br := w.wsTo("/")
		writeFrame(c, "say "+holder, true)
		if got := <-heard; got != "say "+want {
			t.Errorf("the server heard %q", got)
		}
		if got, err := readFrame(br); err != nil || got != "say "+holder {
			t.Errorf("the client heard %q %v", got, err)
		}
		// A value that is set while it runs, and a policy that comes.
		again := keep(t, func(r *config.InjectionRule) { r.InjectBody = inject })
		again.in.Inherit(p.in)
		again.set(t, "KEY", "a newer value")
		w.e.Update(again)
		writeFrame(c, "say "+holder, true)
		if got, newer := <-heard, strings.Replace(want, realKey, "a newer value", 1); got != "say "+newer {
			t.Errorf("after the reload the server heard %q", got)
		}
		if got, err := readFrame(br); err != nil || got != "say "+holder {
			t.Errorf("after the reload the client heard %q %v", got, err)
		}
		r := w.audit.await(t, "the message", func(r audit.Record) bool {
			return r.Kind == audit.KindWebSocket && (!inject || len(r.SecretsInjected) > 0)
		})
		if inject && !slices.Equal(r.SecretsInjected, []string{"KEY"}) {
			t.Errorf("%+v", r)
		}
	}
}

// TestRedaction is rules.md 58, 60 and 62: what the client receives by every way.
func TestRedaction(t *testing.T) {
	body := "before " + realKey + " after"
	clean := "before " + holder + " after"
	coded := func(name string, stream bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if name != "" {
				w.Header().Set("Content-Encoding", name)
			}
			w.Header().Set("X-Echo", realKey)
			if stream {
				w.(http.Flusher).Flush()
			} else {
				w.Header().Set("Digest", "of what is not sent")
			}
			w.Write(injecttest.Compress(name, []byte(body)))
		}
	}
	for i, way := range ways {
		for _, coding := range []string{"", "gzip", "br", "zstd", "deflate"} {
			for _, stream := range []bool{false, true} {
				w := newWorld(t, keep(t), coded(coding, stream))
				res, text := askGood(t, w, i, "GET", "/", "", "Accept-Encoding", "gzip, br, zstd, deflate")
				if text != clean || res.Header.Get("Content-Encoding") != "" || res.Header.Get("X-Echo") != holder || res.Header.Get("Digest") != "" {
					t.Errorf("%s, %q, stream %v: %q %v", way.name, coding, stream, text, res.Header)
				}
				if res.ContentLength >= 0 && res.ContentLength != int64(len(clean)) {
					t.Errorf("%s, %q: length %d of %d", way.name, coding, res.ContentLength, len(clean))
				}
				w.audit.await(t, "what was redacted", func(r audit.Record) bool { return slices.Equal(r.SecretsRedacted, []string{"KEY"}) })
			}
		}
		for name, answer := range map[string]http.HandlerFunc{
			"HEAD": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Echo", realKey) },
			"204":  func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Echo", realKey); w.WriteHeader(204) },
			"304":  func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Echo", realKey); w.WriteHeader(304) },
		} {
			w := newWorld(t, keep(t), answer)
			method := "GET"
			if name == "HEAD" {
				method = name
			}
			if res, text := askGood(t, w, i, method, "/", ""); res.Header.Get("X-Echo") != holder || text != "" {
				t.Errorf("%s, %s: %v %q", way.name, name, res.Header, text)
			}
			w.audit.await(t, "what was redacted", func(r audit.Record) bool { return slices.Equal(r.SecretsRedacted, []string{"KEY"}) })
		}
	}
}

// TestRedactionOfInterimAndTrailer: what comes before an answer and behind it,
// and what says beforehand how it will be named.
func TestRedactionOfInterimAndTrailer(t *testing.T) {
	const named = "Nine-Is-A-Value-Too"
	for _, way := range ways {
		p := keep(t)
		if err := p.in.Guard("KEY", mustValue("nine-is-a-VALUE-too"), time.Time{}); err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, p, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", realKey)
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			w.Header().Set("Trailer", "X-End, "+named)
			io.WriteString(w, "text")
			w.(http.Flusher).Flush()
			w.Header().Set("X-End", realKey)
			w.Header().Set(named, "1")
		}))
		var early string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
			early = h.Get("Link")
			return nil
		}})
		req, _ := http.NewRequestWithContext(ctx, "GET", way.scheme+"://"+good+"/", nil)
		rt := way.make(w)
		res, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := res.Trailer[named]; ok {
			t.Errorf("%s: announced are %v", way.name, res.Trailer)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if early != holder || string(text) != "text" || res.Trailer.Get("X-End") != holder || res.Trailer.Get(named) != "" {
			t.Errorf("%s: early %q, %q, trailer %v", way.name, early, text, res.Trailer)
		}
	}
}

// TestRedactedEventsAreNotHeldBack: each event arrives before the server sends
// the next, with and without a value in it.
func TestRedactedEventsAreNotHeldBack(t *testing.T) {
	for _, way := range ways {
		next := make(chan string)
		w := newWorld(t, keep(t), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			for event := range next {
				io.WriteString(w, event)
				w.(http.Flusher).Flush()
			}
		}))
		req, _ := http.NewRequest("GET", way.scheme+"://"+good+"/", nil)
		res, err := way.make(w).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		for event, want := range map[string]string{"data: x\n\n": "data: x\n\n", "data: sk-re\n\n": "data: sk-re\n\n", "data: " + realKey + "\n\n": "data: " + holder + "\n\n"} {
			next <- event
			buf := make([]byte, len(want))
			if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != want {
				t.Fatalf("%s: %q %v", way.name, buf, err)
			}
		}
		close(next)
		res.Body.Close()
	}
}

// TestUndecodable is rules.md 60: nothing of what cannot be looked at passes.
func TestUndecodable(t *testing.T) {
	for _, coding := range []string{"compress", "gzip", "gzip, gzip, gzip, gzip"} {
		for _, way := range ways {
			w := newWorld(t, keep(t), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", coding)
				io.WriteString(w, "not what it says, "+realKey)
			}))
			req, _ := http.NewRequest("GET", way.scheme+"://"+good+"/", nil)
			res, err := way.make(w).RoundTrip(req)
			if err == nil {
				text, readErr := io.ReadAll(res.Body)
				res.Body.Close()
				if strings.Contains(string(text), "not what") || res.StatusCode == 200 && readErr == nil {
					t.Errorf("%s, %s: %d %q %v", way.name, coding, res.StatusCode, text, readErr)
				}
				if coding != "gzip" && (res.StatusCode != 403 || !strings.Contains(string(text), "cannot redact the response")) {
					t.Errorf("%s, %s: %d %q", way.name, coding, res.StatusCode, text)
				}
			}
			w.audit.await(t, "the refusal", reasonHas("cannot redact the response"))
		}
	}
}

// TestErrorsAreRedacted: what a server breaks the protocol with is in the error,
// at whatever place it would be cut.
func TestErrorsAreRedacted(t *testing.T) {
	for _, pad := range []int{0, 100, 130, 140, 150, 160, 170} {
		c := answerRaw(t, "HTTP/1.1 "+strings.Repeat("x", pad)+realKey+realKey+"\r\n\r\n")
		p := keep(t)
		w := newWorld(t, p, &receiver{})
		w.dialer.addrs[good+":80"] = c
		res, text := askGood(t, w, 0, "GET", "/", "")
		all := text + fmt.Sprint(w.audit.all())
		if res.StatusCode != 502 || strings.Contains(all, realKey[:12]) || strings.Contains(all, "Qm2Vx9Kp4") {
			t.Errorf("%d: %d %s", pad, res.StatusCode, all)
		}
	}
}

// TestPolicySwappedMeanwhile: what decided is what injects, or nothing is sent.
func TestPolicySwappedMeanwhile(t *testing.T) {
	up := &receiver{}
	p := keep(t)
	w := newWorld(t, p, up)
	next := keep(t, func(r *config.InjectionRule) { r.InjectTo = []config.Target{{Host: hostname.MustParse("192.0.2.7")}} })
	var swapped atomic.Bool
	p.looked = func() {
		if !swapped.Swap(true) {
			w.e.policy.Store(ptr[Policy](next))
		}
	}
	res, text := askGood(t, w, 1, "GET", "/", "", "Authorization", holder)
	if !swapped.Load() || res.StatusCode != 403 || !strings.Contains(text, "the policy changed meanwhile") || len(up.all()) > 0 {
		t.Errorf("%d %s, the server received %+v", res.StatusCode, text, up.all())
	}
	w.e.Update(keep(t))
	if res, text := askGood(t, w, 1, "GET", "/", "", "Authorization", holder); res.StatusCode != 200 {
		t.Errorf("afterwards: %d %s", res.StatusCode, text)
	}
}

func ptr[T any](v T) *T { return &v }

// TestRetryOfAnInjectedBody: a server that closes a connection instead of an
// answer gets the request again, and as it was.
func TestRetryOfAnInjectedBody(t *testing.T) {
	var mu sync.Mutex
	var got []string
	server := serveRaw(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for n := range 2 {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			got = append(got, string(body))
			mu.Unlock()
			if n == 0 {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		}
	})
	w := newWorld(t, keep(t, injectBody), &receiver{})
	w.dialer.addrs[good+":80"] = server
	rt := ways[0].make(w)
	for range 3 {
		req, _ := http.NewRequest("PUT", "http://"+good+"/", strings.NewReader("<"+holder+">"))
		req.Header.Set("Idempotency-Key", "1")
		if res, text := do(t, rt, req); res.StatusCode != 200 {
			t.Fatalf("%d %s", res.StatusCode, text)
		}
	}
	if want := slices.Repeat([]string{"<" + realKey + ">"}, 5); !slices.Equal(got, want) { // three, of which two twice
		t.Errorf("%q", got)
	}
}

// serveRaw has f answer every connection to an address.
func serveRaw(t *testing.T, f func(net.Conn)) string {
	l := listen(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

func answerRaw(t *testing.T, text string) string {
	return serveRaw(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, text)
		}
	})
}

// acceptSocket agrees to a WebSocket.
func acceptSocket(w http.ResponseWriter, r *http.Request) (net.Conn, *bufio.Reader) {
	c, rw, _ := w.(http.Hijacker).Hijack()
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", ws.Accept(r.Header.Get("Sec-Websocket-Key")))
	return c, rw.Reader
}
