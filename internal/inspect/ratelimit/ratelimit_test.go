package ratelimit

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

func request(host string) *inspect.Request {
	return &inspect.Request{Host: hostname.MustParse(host)}
}

// passed counts how many of n requests pass.
func passed(in *Inspector, host string, n int) int {
	ok := 0
	for range n {
		if in.Inspect(context.Background(), request(host)).Action == inspect.Allowed {
			ok++
		}
	}
	return ok
}

func want(t *testing.T, what string, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %d passed, want %d", what, got, want)
	}
}

func TestTokenBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := New(config.RateLimit{RequestsPerSecond: 2, Burst: 5}, nil)
		want(t, "a full bucket", passed(in, "a.test", 10), 5)
		want(t, "another host", passed(in, "b.test", 10), 5)
		time.Sleep(499 * time.Millisecond) //nolint:forbidigo // fake time
		want(t, "too early", passed(in, "a.test", 1), 0)
		time.Sleep(time.Millisecond) //nolint:forbidigo // fake time
		want(t, "one token later", passed(in, "a.test", 2), 1)
		time.Sleep(time.Hour) //nolint:forbidigo // fake time
		want(t, "no more than the burst", passed(in, "a.test", 10), 5)
	})
}

func TestRefusal(t *testing.T) {
	f := New(config.RateLimit{RequestsPerSecond: 1}, nil).Inspect(context.Background(), request("a.test"))
	if f.Action != inspect.Blocked || f.Reason != "rate limit exceeded" || f.Status != http.StatusTooManyRequests {
		t.Errorf("finding %+v", f)
	}
}

func TestExtremes(t *testing.T) {
	tests := []struct {
		name string
		cfg  config.RateLimit
		want int
	}{
		{"off", config.RateLimit{}, 3},
		{"off with burst", config.RateLimit{Burst: 1}, 3},
		{"burst 0", config.RateLimit{RequestsPerSecond: 5}, 0},
		{"burst 0 with wait", config.RateLimit{RequestsPerSecond: 5, Wait: time.Hour}, 0},
		{"negative burst", config.RateLimit{RequestsPerSecond: 5, Burst: -1}, 0},
		{"negative rate", config.RateLimit{RequestsPerSecond: -1, Burst: 5}, 0},
		{"NaN", config.RateLimit{RequestsPerSecond: math.NaN(), Burst: 5}, 0},
		{"infinite", config.RateLimit{RequestsPerSecond: math.Inf(1), Burst: 5}, 0},
		{"tiny rate", config.RateLimit{RequestsPerSecond: 1e-300, Burst: 1, Wait: time.Hour}, 1},
		{"works", config.RateLimit{RequestsPerSecond: 0.001, Burst: 2}, 2},
	}
	for _, tt := range tests {
		want(t, tt.name, passed(New(tt.cfg, nil), "a.test", 3), tt.want)
	}
}

// TestReloadKeepsBuckets is rules 98.
func TestReloadKeepsBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s State
		cfg := config.RateLimit{RequestsPerSecond: 1, Burst: 5}
		want(t, "before", passed(New(cfg, &s), "a.test", 10), 5)
		want(t, "after a reload", passed(New(cfg, &s), "a.test", 10), 0)
		cfg.Burst = 50
		want(t, "after the burst grew", passed(New(cfg, &s), "a.test", 10), 0)
		time.Sleep(time.Minute) //nolint:forbidigo // fake time
		cfg.Burst = 2
		want(t, "after the burst shrank", passed(New(cfg, &s), "a.test", 10), 2)
	})
}

// TestNamesOfOneEntryShareABucket: an agent that may use a zone must not get
// a new bucket for every label it invents.
func TestNamesOfOneEntryShareABucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := hostname.MustParse("example.com")
		cfg := config.RateLimit{RequestsPerSecond: 1, Burst: 5}
		attack := func(in *Inspector) (ok int) {
			for i := range 100 {
				ok += passed(in, fmt.Sprintf("a%d.example.com", i), 1)
			}
			return ok
		}
		want(t, "keyed by host", attack(New(cfg, nil)), 100)
		in := New(cfg, nil).KeyBy(func(n hostname.Name) (hostname.Name, bool) { return zone, n.Within(zone) })
		want(t, "keyed by entry", attack(in), 5)
		want(t, "a host without entry", passed(in, "other.test", 10), 5)
	})
}

// TestEvictionGivesNothing is rules 114: the table is capped, and pushing a
// bucket out of it does not fill it up.
func TestEvictionGivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s State
		in := New(config.RateLimit{RequestsPerSecond: 1, Burst: 2}, &s)
		want(t, "first", passed(in, "target.test", 5), 2)
		all := 0
		for i := range 2 * maxHosts {
			all += passed(in, fmt.Sprintf("h%d.test", i), 1)
		}
		want(t, "hosts and the spill bucket", all, maxHosts-1+2)
		want(t, "the first again", passed(in, "target.test", 5), 0)
		if len(s.buckets) != maxHosts || s.recent.Len() != maxHosts {
			t.Errorf("%d buckets, %d in the list", len(s.buckets), s.recent.Len())
		}
		time.Sleep(2 * time.Second) //nolint:forbidigo // fake time
		want(t, "a new host when the others are idle", passed(in, "new.test", 5), 2)
		if len(s.buckets) != maxHosts {
			t.Errorf("%d buckets", len(s.buckets))
		}
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s State
		in := New(config.RateLimit{RequestsPerSecond: 1, Burst: 1, Wait: 2 * time.Second}, &s)
		start := time.Now()
		results := make(chan string, 4)
		for range 4 {
			go func() {
				f := in.Inspect(context.Background(), request("a.test"))
				results <- fmt.Sprint(f.Action, time.Since(start))
			}()
		}
		var got []string
		for range 4 {
			got = append(got, <-results)
		}
		if g := strings.Join(got, " "); strings.Count(g, "blocked 0s") != 1 || strings.Count(g, "allowed 0s") != 1 || !strings.Contains(g, "allowed 1s") || !strings.Contains(g, "allowed 2s") {
			t.Errorf("results %s", g)
		}
		if s.waiting != 0 {
			t.Errorf("%d still counted as waiting", s.waiting)
		}
	})
}

func TestWaitCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s State
		in := New(config.RateLimit{RequestsPerSecond: 1, Burst: 1, Wait: 10 * time.Second}, &s)
		want(t, "first", passed(in, "a.test", 1), 1)
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		if in.Inspect(ctx, request("a.test")).Action != inspect.Blocked {
			t.Error("a cancelled request passed")
		}
		time.Sleep(500 * time.Millisecond) //nolint:forbidigo // fake time
		start := time.Now()
		want(t, "its token came back", passed(in, "a.test", 1), 1)
		if d := time.Since(start); d != 0 || s.waiting != 0 {
			t.Errorf("waited %v, %d waiting", d, s.waiting)
		}
	})
}

func TestWaitersAreCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		var s State
		in := New(config.RateLimit{RequestsPerSecond: 1, Burst: 1, Wait: time.Hour}, &s)
		for range maxWaiting + 100 {
			go in.Inspect(ctx, request("a.test"))
		}
		synctest.Wait()
		s.mu.Lock()
		n := s.waiting
		s.mu.Unlock()
		if n != maxWaiting {
			t.Errorf("%d requests are held", n)
		}
		cancel()
		synctest.Wait()
	})
}

func BenchmarkInspect(b *testing.B) {
	in := New(config.RateLimit{RequestsPerSecond: 1e9, Burst: 1e9}, nil)
	r := request("api.example.com")
	b.ReportAllocs()
	for b.Loop() {
		in.Inspect(context.Background(), r)
	}
}

// TestDecidingAgainIsFree: a reload decides all that runs once more, and must
// neither wait for tokens nor take them from new requests.
func TestDecidingAgainIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := New(config.RateLimit{RequestsPerSecond: 1, Burst: 2, Wait: time.Hour}, nil)
		start := time.Now()
		for range 100 {
			r := request("a.test")
			r.Again = true
			if f := in.Inspect(context.Background(), r); f.Action != inspect.Allowed {
				t.Fatalf("%+v", f)
			}
		}
		want(t, "new requests", passed(in, "a.test", 2), 2)
		if d := time.Since(start); d != 0 {
			t.Errorf("it waited for %v", d)
		}
	})
}

// TestPerHost: a host with a rate of its own has a bucket of its own, which
// all names under it share, and takes nothing from the others.
func TestPerHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zone := hostname.MustParse("example.com")
		in := New(config.RateLimit{RequestsPerSecond: 1, Burst: 2, PerHost: map[hostname.Name]config.RateLimit{
			hostname.MustParse("api.example.com"):  {RequestsPerSecond: 1, Burst: 5},
			hostname.MustParse("free.example.com"): {},
			hostname.MustParse("test"):             {RequestsPerSecond: 1, Burst: 3},
		}}, nil).KeyBy(func(n hostname.Name) (hostname.Name, bool) {
			if n.Within(hostname.MustParse("a.test")) {
				return hostname.MustParse("a.test"), true
			}
			return zone, n.Within(zone)
		})
		want(t, "the host", passed(in, "api.example.com", 3), 3)
		want(t, "a name under it shares its bucket", passed(in, "v1.api.example.com", 9), 2)
		want(t, "the rest of the entry has its own", passed(in, "www.example.com", 9), 2)
		want(t, "no limit", passed(in, "free.example.com", 99), 99)
		want(t, "an entry below the host keeps its bucket", passed(in, "x.a.test", 9), 3)
		want(t, "and so does another one", passed(in, "b.test", 9), 3)
	})
}

// TestEvictionKnowsEachBucket: a bucket is full by its own measure, not by that
// of the host that wants its room.
func TestEvictionKnowsEachBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := hostname.MustParse("big.test")
		var s State
		in := New(config.RateLimit{RequestsPerSecond: 1e6, Burst: 1, PerHost: map[hostname.Name]config.RateLimit{big: {RequestsPerSecond: 0.001, Burst: 9}}}, &s)
		want(t, "the big bucket", passed(in, "big.test", 20), 9)
		for i := range 2 * maxHosts {
			passed(in, fmt.Sprintf("h%d.test", i), 1)
			time.Sleep(time.Second) //nolint:forbidigo // fake time
		}
		want(t, "after a flood of names", passed(in, "big.test", 20), 8) // 8192 s at 0.001 a second
	})
}
