package scan

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// words are what the chat of the benchmark is made of.
var words = strings.Fields(`the agent reads a file and writes the result of function token parse error return value
	string "content": "role": "user" const x = await fetch(url, { headers }) if err != nil { return fmt.Errorf( import
	package main \n\n - [x] https://example.com/docs/page.html 2026-11-24T05:42:10Z 550e8400-e29b-41d4-a716-446655440000
	key secret password access api service build github.com discord please explain why this test fails on linux
	d41d8cd98f00b204e9800998ecf8427e <div class="container"> SELECT id, name FROM users WHERE created_at > 1700000000`)

func chat(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	b.WriteString(`{"messages":[{"role":"user","content":"`)
	for b.Len() < size {
		b.WriteString(words[r.IntN(len(words))])
		b.WriteByte(' ')
	}
	return []byte(b.String()[:size])
}

func randomBase64(enc *base64.Encoding, seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	raw := make([]byte, size*3/4/8*8+8)
	for i := 0; i < len(raw); i += 8 {
		v := r.Uint64()
		for j := range 8 {
			raw[i+j] = byte(v >> (8 * j))
		}
	}
	return []byte(enc.EncodeToString(raw))[:size]
}

// dense is nothing but beginnings of secrets, of every rule.
func dense(size int) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	var b []byte
	for len(b) < size {
		sample := Sample(Builtin()[r.IntN(len(Builtin()))], 1)
		b = append(b, sample[:min(len(sample), 6+r.IntN(10))]...)
	}
	return b[:size]
}

func bench(b *testing.B, data []byte) {
	s := builtin()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Scan(context.Background(), data, func(Match) bool { return true }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	b.Run("chat-1MiB", func(b *testing.B) { bench(b, chat(1<<20)) })
	b.Run("chat-10kB", func(b *testing.B) { bench(b, chat(10_000)) })
	b.Run("header-50B", func(b *testing.B) { bench(b, []byte("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36")) })
	b.Run("base64-1MiB", func(b *testing.B) { bench(b, randomBase64(base64.StdEncoding, 1, 1<<20)) })
	b.Run("dense-1MiB", func(b *testing.B) { bench(b, dense(1<<20)) })
	b.Run("hex-1MiB", func(b *testing.B) { bench(b, fmt.Appendf(nil, "%x", randomBase64(base64.StdEncoding, 1, 1<<19))) })
}

// BenchmarkWorst repeats one beginning, that of the rule that is dearest.
func BenchmarkWorst(b *testing.B) {
	for _, text := range []string{"sk-proj-", "eyJ", "eyJ.", "://", "1234567:", "hooks.slack.com/services/", "-----BEGIN ", "facebook_key", "AAAA", "facebook", "MTIz", "Q~1"} {
		b.Run(text, func(b *testing.B) { bench(b, []byte(strings.Repeat(text, 1<<20/len(text)))) })
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if _, err := New(Builtin()...); err != nil {
			b.Fatal(err)
		}
	}
}
