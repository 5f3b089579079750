// Package ratelimit bounds how many requests a second go to a host.
package ratelimit

import (
	"container/list"
	"context"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

const (
	maxHosts   = 4096 // buckets
	maxWaiting = 1024 // requests held at one time
)

// Inspector takes one token for each request from the bucket of its host. It
// belongs behind the domain inspector, so that hosts that are not allowed get
// no bucket. It is safe for concurrent use.
type Inspector struct {
	cfg   config.RateLimit
	state *State
	key   func(hostname.Name) (hostname.Name, bool)
}

var _ inspect.Inspector = (*Inspector)(nil)

// State is the buckets. It outlives an Inspector, so that a reload does not
// fill them up again. Its zero value is ready.
type State struct {
	mu      sync.Mutex
	buckets map[hostname.Name]*list.Element // of *bucket
	recent  list.List                       // most recently used first
	spill   bucket                          // shared by hosts that find no room
	waiting int
}

type bucket struct {
	host        hostname.Name
	rate, burst float64 // of whoever took the last token
	tokens      float64 // below zero when requests are held for tokens to come
	last        time.Time
}

// New returns an inspector on the buckets of state; a nil state is a new one.
func New(cfg config.RateLimit, state *State) *Inspector {
	if state == nil {
		state = &State{}
	}
	return &Inspector{cfg: cfg, state: state}
}

// KeyBy makes all hosts that one entry covers share one bucket: listed is the
// allowlist's own function. Without it an agent that may use a whole zone has
// as many buckets as it can invent names. Call it before the first request.
func (in *Inspector) KeyBy(listed func(hostname.Name) (hostname.Name, bool)) *Inspector {
	in.key = listed
	return in
}

// Name returns "rate-limit".
func (in *Inspector) Name() string { return "rate-limit" }

// Inspect takes a token, holding the request for one if the config says so,
// or refuses with 429. What runs took its token when it began.
func (in *Inspector) Inspect(ctx context.Context, r *inspect.Request) inspect.Finding {
	host, cfg := in.bucketOf(r.Host)
	if cfg.RequestsPerSecond == 0 || r.Again {
		return inspect.Pass()
	}
	wait, ok := in.state.take(host, cfg)
	if ok && wait > 0 {
		ok = in.state.hold(ctx, host, wait)
	}
	if ok {
		return inspect.Pass()
	}
	return inspect.Finding{
		Action:   inspect.Blocked,
		Reason:   "rate limit exceeded",
		Severity: inspect.Warning,
		Status:   http.StatusTooManyRequests,
	}
}

// bucketOf names the bucket of a host, and says how it is filled: the more
// specific one of the allowlist's entry and the config's own for that host.
func (in *Inspector) bucketOf(host hostname.Name) (hostname.Name, config.RateLimit) {
	var name hostname.Name
	if in.key != nil {
		if entry, ok := in.key(host); ok {
			name = entry
		}
	}
	own, cfg, ok := hostname.Nearest(in.cfg.PerHost, host)
	switch {
	case !ok && name.IsZero():
		return host, in.cfg
	case !ok:
		return name, in.cfg
	case name.IsZero() || own.Within(name):
		return own, cfg
	}
	return name, cfg
}

// take takes a token, at once or as one that comes after wait. Whoever is to
// wait is counted in s.waiting until hold ends.
func (s *State) take(host hostname.Name, cfg config.RateLimit) (wait time.Duration, ok bool) {
	rate, burst := cfg.RequestsPerSecond, float64(cfg.Burst)
	if !(rate > 0) || math.IsInf(rate, 1) || burst < 1 {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	b := s.bucket(host, burst, now)
	b.rate, b.burst = rate, burst
	b.tokens = b.level(now)
	b.last = now
	if b.tokens >= 1 {
		b.tokens--
		return 0, true
	}
	seconds := (1 - b.tokens) / rate
	if seconds > cfg.Wait.Seconds() || s.waiting >= maxWaiting {
		return 0, false
	}
	b.tokens--
	s.waiting++
	return time.Duration(math.Ceil(seconds * float64(time.Second))), true
}

// hold waits for a token that was taken in advance. A request that is given
// up gives it back.
func (s *State) hold(ctx context.Context, host hostname.Name, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var err error
	select {
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	if el := s.buckets[host]; err != nil && el != nil {
		el.Value.(*bucket).tokens++
	}
	return err == nil
}

// level is how many tokens the bucket holds now.
func (b *bucket) level(now time.Time) float64 {
	elapsed := max(now.Sub(b.last).Seconds(), 0)
	return min(b.tokens+elapsed*b.rate, b.burst)
}

// bucket finds the bucket of a host or makes a full one. When there is no room
// the least recently used one goes, but only if it is full again, so that
// nothing is gained by driving it out; else the host shares the spill bucket.
func (s *State) bucket(host hostname.Name, burst float64, now time.Time) *bucket {
	if el := s.buckets[host]; el != nil {
		s.recent.MoveToFront(el)
		return el.Value.(*bucket)
	}
	if s.buckets == nil {
		s.buckets = make(map[hostname.Name]*list.Element)
		s.spill = bucket{tokens: burst, last: now}
	}
	if len(s.buckets) >= maxHosts {
		oldest := s.recent.Back()
		b := oldest.Value.(*bucket)
		if b.level(now) < b.burst {
			return &s.spill
		}
		s.recent.Remove(oldest)
		delete(s.buckets, b.host)
	}
	b := &bucket{host: host, tokens: burst, last: now}
	s.buckets[host] = s.recent.PushFront(b)
	return b
}
