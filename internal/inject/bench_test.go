package inject

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"syscall"
	"testing"
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
