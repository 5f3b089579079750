package payload_test

import (
	"context"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/contenttype"
	"github.com/agentcage/agentcage/internal/inspect/entropy"
	"github.com/agentcage/agentcage/internal/inspect/payload"
	"github.com/agentcage/agentcage/internal/inspect/payload/payloadtest"
)

func BenchmarkEntropy(b *testing.B) {
	data := payloadtest.New(1).Chat(map[string]any{"text": payloadtest.New(2).Code(20000)})
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		payload.Entropy(data)
	}
}

// records is JSON as APIs have it.
func records(n int) []byte {
	r := payloadtest.New(5)
	var list []any
	for size := 0; size < n; {
		one := map[string]any{"id": r.UUID(), "name": r.Prose(3), "email": r.Of("abcdefghij", 8) + "@example.com", "text": r.Prose(20), "score": r.Float64(), "tags": []string{r.Prose(1), r.Prose(1)}, "url": "https://example.com/users/" + r.Of("0123456789", 7)}
		size += len(payloadtest.Marshal(one)) + 1
		list = append(list, one)
	}
	return payloadtest.Marshal(list)
}

// BenchmarkBoth runs both inspectors over a body of JSON.
func BenchmarkBoth(b *testing.B) {
	cfg := config.Default()
	both := []inspect.ContentInspector{entropy.New(cfg.Entropy), contenttype.New(cfg.ContentType)}
	for _, s := range []struct {
		name string
		body []byte
	}{
		{"10kB", records(10000)},
		{"10kB of code", payloadtest.New(1).Chat(map[string]any{"text": payloadtest.New(2).Code(200)})[:10000]},
		{"1MiB", payloadtest.New(1).Chat(map[string]any{"text": payloadtest.New(2).Prose(190000) + payloadtest.New(3).Code(1500)})[:1<<20]},
		{"1MiB of code", payloadtest.New(1).Chat(map[string]any{"text": payloadtest.New(2).Code(30000)})[:1<<20]},
		{"minified", []byte(payloadtest.New(1).Minified())},
		{"picture", payloadtest.New(1).Chat(map[string]any{"data": payloadtest.New(1).PNG(600, 600)})},
	} {
		b.Run(s.name, func(b *testing.B) {
			b.SetBytes(int64(len(s.body)))
			head := payloadtest.Request("POST", "https://api.example.com/v1/x", map[string]string{"Content-Type": "application/json", "User-Agent": "client/1.0"}, s.body)
			if _, err := head.Texts(context.Background()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				c := *head // decoded, and not measured
				for _, in := range both {
					in.InspectContent(context.Background(), &c)
				}
			}
		})
	}
}
