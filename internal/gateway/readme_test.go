package gateway

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/bodysize"
	"github.com/agentcage/agentcage/internal/inspect/ratelimit"
)

var example = regexp.MustCompile("Example: `([^`]+)`.*Reason: `([^`]+)`")

// readme returns the config of the example in an inspector's README, and the
// reason that it gives.
func readme(t *testing.T, inspector string) (*config.Config, string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "inspect", inspector, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := example.FindStringSubmatch(string(text))
	if m == nil {
		t.Fatal("there is no example")
	}
	c, err := config.Parse("README.md", []byte("name: a\n"+m[1]+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return c, m[2]
}

// TestReadmeOfRateLimit: the bucket is full of 10, and in 5 seconds of waiting
// 10 more tokens come.
func TestReadmeOfRateLimit(t *testing.T) {
	c, reason := readme(t, "ratelimit")
	synctest.Test(t, func(t *testing.T) {
		in := ratelimit.New(c.RateLimit, nil)
		var passed, refused atomic.Int32
		var all sync.WaitGroup
		for range 25 {
			all.Go(func() {
				switch f := in.Inspect(t.Context(), &inspect.Request{Host: hostname.MustParse("a.test")}); {
				case f.Action == inspect.Allowed:
					passed.Add(1)
				case f.Reason == reason && f.Status == 429:
					refused.Add(1)
				default:
					t.Errorf("%+v", f)
				}
			})
		}
		all.Wait()
		if passed.Load() != 20 || refused.Load() != 5 {
			t.Errorf("%d passed and %d were refused", passed.Load(), refused.Load())
		}
	})
}

func TestReadmeOfBodySize(t *testing.T) {
	c, reason := readme(t, "bodysize")
	reason = strings.NewReplacer("SIZE", "1048577", "MAX", "1048576").Replace(reason)
	chain := inspect.NewChain(bodysize.New(c.MaxRequestBody, c.MaxRequestBodyPerHost))
	for size, want := range map[int64]string{1048576: "", 1048577: reason} {
		if v := chain.Decide(t.Context(), &inspect.Request{ContentLength: size}); v.Reason != want || v.Allowed() != (want == "") {
			t.Errorf("%d bytes: %+v", size, v)
		}
	}
}
