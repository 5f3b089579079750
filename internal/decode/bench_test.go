package decode

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// chat is JSON of the size given as programs that talk to language models send
// it: prose, code and tool results.
func chat(size int) []byte {
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
	var all struct {
		Model    string    `json:"model"`
		Messages []message `json:"messages"`
	}
	all.Model = "some-model-2026"
	for n := 0; ; n++ {
		b, err := json.Marshal(all)
		if err != nil {
			panic(err)
		}
		if len(b) >= size {
			return b
		}
		for range max(1, (size-len(b))/2000) {
			all.Messages = append(all.Messages, message{"user", prose}, message{"assistant", code + prose}, message{"tool", list})
		}
	}
}

func imageChat(size int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	image := make([]byte, size*3/4)
	_, _ = r.Read(image)
	copy(image, "\x89PNG\r\n\x1a\n")
	return []byte(`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"What is in this image?\n"},` +
		`{"type":"image_url","image_url":{"url":"data:image/png;base64,` + base64.StdEncoding.EncodeToString(image) + `"}}]}]}`)
}

// dense is text made of everything that has to be looked at.
func dense(size int) []byte {
	var b bytes.Buffer
	for n := 0; b.Len() < size; n++ {
		fmt.Fprintf(&b, `%%41\u0041&#65;=41%s de:ad:be:ef:%02x 0x%02x AbCdEfGhIjKlMnOp%d é а\n`, "\u200b", n%256, n%256, n)
	}
	return b.Bytes()
}

func bench(b *testing.B, data []byte) {
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	ctx := context.Background()
	for b.Loop() {
		tree, err := Decode(ctx, Input{Data: data, Type: "application/json"}, Limits{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(tree.Layers)), "layers")
	}
}

func BenchmarkDecode10k(b *testing.B)  { bench(b, chat(10_000)) }
func BenchmarkDecode1MiB(b *testing.B) { bench(b, chat(1<<20)) }
func BenchmarkDecodeProse(b *testing.B) {
	bench(b, []byte(strings.Repeat("plain words, nothing else in them. ", 300)))
}
func BenchmarkDecodeImage(b *testing.B) { bench(b, imageChat(1<<20)) }

// BenchmarkDecodeDense is refused: what it measures is how long that takes.
func BenchmarkDecodeDense(b *testing.B) {
	data := dense(1 << 20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Decode(context.Background(), Input{Data: data}, Limits{}); err == nil {
			b.Fatal("it is not refused any more")
		}
	}
}

func BenchmarkDecodeBinary(b *testing.B) {
	data := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data)
	bench(b, data)
}

func BenchmarkDecodeHeader(b *testing.B) {
	for name, value := range map[string]string{
		"agent":   "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		"accept":  "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
		"short":   "application/json",
		"segment": "completions",
	} {
		data := []byte(value)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(context.Background(), Input{Data: data}, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
