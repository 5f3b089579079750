package resolve

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/hostname"
)

const (
	maxCached   = 4096
	minTTL      = 5 * time.Second
	maxTTL      = time.Hour
	negativeTTL = 5 * time.Second
)

type entry struct {
	addrs []netip.Addr
	err   error
	until time.Time
}

// cache keeps answers for as long as their TTL says, within limits.
type cache struct {
	now func() time.Time

	mu      sync.Mutex
	entries map[hostname.Name]entry
}

func newCache(now func() time.Time) cache {
	return cache{now: now, entries: make(map[hostname.Name]entry)}
}

func (c *cache) get(name hostname.Name) ([]netip.Addr, error, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[name]
	if !ok || !c.now().Before(e.until) {
		return nil, nil, false
	}
	return slices.Clone(e.addrs), e.err, true
}

func (c *cache) put(name hostname.Name, addrs []netip.Addr, err error, ttl time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[name]; !ok && len(c.entries) >= maxCached {
		c.evict()
	}
	ttl = min(max(ttl, minTTL), maxTTL)
	c.entries[name] = entry{slices.Clone(addrs), err, c.now().Add(ttl)}
}

// evict drops what has expired, and an eighth of the rest, in the order of the
// map, when that was nothing.
func (c *cache) evict() {
	now := c.now()
	for n, e := range c.entries {
		if !now.Before(e.until) {
			delete(c.entries, n)
		}
	}
	for n := range c.entries {
		if len(c.entries) <= maxCached-maxCached/8 {
			return
		}
		delete(c.entries, n)
	}
}
