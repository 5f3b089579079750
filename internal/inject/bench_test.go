package inject

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inject/injecttest"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/secret"
)

// corpora are what responses are made of.
func corpora() map[string][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("the model answers with a stream of short events that hold a token each and the gateway passes every one on as it comes because an agent waits for it while 12345 and /usr/lib/python3 or https://api.example.test/v1/chat are in it too")
	word := func() string { return words[rng.IntN(len(words))] }
	build := func(unit func(*strings.Builder)) []byte {
		var b strings.Builder
		for b.Len() < 4<<20 {
			unit(&b)
		}
		return []byte(b.String()[:4<<20])
	}
	binary := make([]byte, 4<<20)
	for i := range binary {
		binary[i] = byte(rng.Uint32())
	}
	return map[string][]byte{
		"text": build(func(b *strings.Builder) {
			for range 12 {
				b.WriteString(word() + " ")
			}
			b.WriteString("\n")
		}),
		"events": build(func(b *strings.Builder) {
			fmt.Fprintf(b, "data: {\"id\":\"chatcmpl-%x\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" %s\"},\"finish_reason\":null}]}\n\n", rng.Uint64(), word())
		}),
		"json in json": build(func(b *strings.Builder) {
			fmt.Fprintf(b, `{"arguments":"{\"path\":\"%s\",\"text\":\"%s %s %s\\n%s\"}"},`, word(), word(), word(), word(), word())
		}),
		"html": build(func(b *strings.Builder) {
			fmt.Fprintf(b, "<p class=\"%s\"><a href=\"/%s?q=%%20%s&amp;x=1\">%s&nbsp;%s</a></p>\n", word(), word(), word(), word(), word())
		}),
		"binary": binary,
	}
}

func manyRules(n int) *Redactor {
	rng := rand.New(rand.NewPCG(3, 4))
	var pairs []string
	for i := range n {
		var b strings.Builder
		b.WriteString([]string{"sk-", "ghp_", "", "", ""}[i%5])
		for range 40 {
			b.WriteByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[rng.IntN(64)])
		}
		pairs = append(pairs, b.String(), fmt.Sprintf("agentcage:secret:KEY_%d:%032x", i, i))
	}
	return testRedactor(pairs...)
}

// perCore reports what one core does in a second of its own time: what else
// runs on the machine does not count.
func perCore(b *testing.B, size int) (done func()) {
	runtime.LockOSThread()
	cpu := func() float64 {
		var u syscall.Rusage
		_ = syscall.Getrusage(1 /* RUSAGE_THREAD */, &u)
		return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	}
	from := cpu()
	return func() {
		b.ReportMetric(float64(size)*float64(b.N)/1e6/(cpu()-from), "MB/s-core")
		runtime.UnlockOSThread()
	}
}

func BenchmarkRedact(b *testing.B) {
	r := manyRules(100)
	for name, data := range corpora() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			defer perCore(b, len(data))()
			for b.Loop() {
				s := r.Reader(bytes.NewReader(data))
				if n, err := io.Copy(io.Discard, s); err != nil || n != int64(len(data)) {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkRedactCompressed(b *testing.B) {
	r := manyRules(100)
	data := corpora()["events"]
	for _, list := range []string{"gzip", "br", "zstd", "deflate"} {
		body := injecttest.Compress(list, data)
		b.Run(list, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			defer perCore(b, len(data))()
			for b.Loop() {
				res, err := r.Response(header("Content-Encoding", list), io.NopCloser(bytes.NewReader(body)), -1)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, res); err != nil || n != int64(len(data)) {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// BenchmarkRequest is what a small request costs beside the rest of the engine:
// the policy, the injection, and the header and body of the answer.
func BenchmarkRequest(b *testing.B) {
	var rules []config.InjectionRule
	for i := range 100 {
		rules = append(rules, config.InjectionRule{Env: fmt.Sprintf("KEY_%d", i), Placeholder: fmt.Sprintf("agentcage:secret:KEY_%d:%032x", i, i), InjectTo: []config.Target{exact(fmt.Sprintf("api%d.test", i))}})
	}
	in, err := New(config.Injection{Rules: rules})
	if err != nil {
		b.Fatal(err)
	}
	for i, r := range rules {
		v, _ := secret.New(fmt.Appendf(nil, "sk-%040x", i*7919))
		if err := in.Set(r.Env, v); err != nil {
			b.Fatal(err)
		}
	}
	u, _ := url.Parse("https://api7.test/v1/chat/completions")
	req := &inspect.Request{Method: "POST", Scheme: "https", Host: hostname.MustParse("api7.test"), Path: u.Path, URL: u, Header: header(
		"Authorization", "Bearer "+rules[7].Placeholder, "Content-Type", "application/json", "User-Agent", "client/1.0 (linux)", "Accept", "*/*", "Accept-Encoding", "gzip, deflate, br",
	)}
	body := []byte(`{"model":"m","messages":[{"role":"user","content":"What is the weather like today, and what will it be tomorrow?"}]}`)
	answer := corpora()["events"][:1000]
	b.ReportAllocs()
	defer perCore(b, len(body)+len(answer))()
	for b.Loop() {
		c := &inspect.Content{Request: req, Kind: inspect.KindRequest, Direction: inspect.ToServer, Header: req.Header, Type: "application/json", Body: body}
		if res := in.Policy(); res != nil {
			_ = res.InspectContent(context.Background(), c)
		}
		if _, err := in.Head(context.Background(), req); err != nil {
			b.Fatal(err)
		}
		h := header("Content-Type", "application/json", "Server", "server/1", "Date", "Tue, 24 Nov 2026 06:00:00 GMT", "Cache-Control", "no-store")
		res, err := in.Redactor().Response(h, io.NopCloser(bytes.NewReader(answer)), int64(len(answer)))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res)
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		manyRules(100)
	}
}
