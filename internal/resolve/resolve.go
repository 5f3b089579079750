// Package resolve is the gateway's own DNS client.
//
// It asks every server at once and prefers a positive answer, earlier servers
// before later ones: split-horizon set-ups live by that order, and one dead
// server must cost no time. Names are always asked as they are, without a
// search list, since what is resolved has to be what was allowed. Servers are
// not trusted: answers to another question are ignored, and every answer, the
// cache and the number of queries are bounded.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/agentcage/agentcage/internal/hostname"
)

const (
	tryTimeout   = 1500 * time.Millisecond // one UDP exchange
	tries        = 2
	totalTimeout = 5 * time.Second
	// grace is how long a positive answer waits for a better one: of an
	// earlier server, or of the other address family.
	grace = 250 * time.Millisecond

	maxFlights = 64 // names resolved at once
	maxServers = 8
)

// ErrNotFound says that the servers know the name and it has no address, or
// that they know that it does not exist.
var ErrNotFound = errors.New("no such host")

// Client resolves names with a fixed list of servers. It may be used
// concurrently.
type Client struct {
	servers []string
	cache   cache
	flights singleflight.Group
	slots   chan struct{}
}

// New returns a Client of servers, each ADDRESS or ADDRESS:PORT, in order of
// preference. With no servers every Lookup fails.
func New(servers []string) *Client {
	c := &Client{slots: make(chan struct{}, maxFlights), cache: newCache(time.Now)}
	for _, s := range servers {
		if s = withPort(s); !slices.Contains(c.servers, s) && len(c.servers) < maxServers {
			c.servers = append(c.servers, s)
		}
	}
	return c
}

func withPort(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53).String()
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		return net.JoinHostPort(s, "53")
	}
	return s
}

// Lookup returns the addresses of name, IPv4 first, each once and at least
// one. It fails with [ErrNotFound], with ctx's error, or with what went wrong
// at the servers. An address is its own answer.
func (c *Client) Lookup(ctx context.Context, name hostname.Name) ([]netip.Addr, error) {
	switch {
	case name.IsZero():
		return nil, errors.New("cannot resolve: there is no name")
	case name.IsIP():
		return []netip.Addr{name.Addr()}, nil
	case len(c.servers) == 0:
		return nil, fmt.Errorf("cannot resolve %s: no DNS server is configured", name)
	}
	if addrs, err, ok := c.cache.get(name); ok {
		return addrs, err
	}
	// The flight has a context of its own: one caller that gives up must not
	// fail the others.
	result := c.flights.DoChan(name.String(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), totalTimeout)
		defer cancel()
		return c.ask(ctx, name)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return slices.Clone(r.Val.([]netip.Addr)), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Client) ask(ctx context.Context, name hostname.Name) ([]netip.Addr, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("cannot resolve %s: too many lookups are under way", name)
	}
	a := c.askAll(ctx, name)
	switch {
	case len(a.addrs) > 0:
		c.cache.put(name, a.addrs, nil, a.ttl)
		return a.addrs, nil
	case a.err == nil:
		err := fmt.Errorf("cannot resolve %s: %w", name, ErrNotFound)
		c.cache.put(name, nil, err, negativeTTL)
		return nil, err
	}
	return nil, fmt.Errorf("cannot resolve %s: %w", name, a.err)
}

// answer is what a server said: addresses, or that there are none, or why it
// could not be understood.
type answer struct {
	addrs []netip.Addr
	ttl   time.Duration
	err   error
}

func (a answer) positive() bool { return len(a.addrs) > 0 }

// askAll asks every server and returns the first positive answer in the order
// of servers, else a negative one, else the first error.
func (c *Client) askAll(ctx context.Context, name hostname.Name) answer {
	got := gather(ctx, len(c.servers), true, func(ctx context.Context, i int) answer {
		return askServer(ctx, c.servers[i], name)
	})
	best := got[0]
	for _, a := range got {
		if a.positive() {
			return a
		}
		if best.err != nil && a.err == nil {
			best = a
		}
	}
	return best
}

// askServer asks one server for both families.
func askServer(ctx context.Context, server string, name hostname.Name) answer {
	got := gather(ctx, len(families), false, func(ctx context.Context, i int) answer {
		return query(ctx, server, name, families[i])
	})
	out := answer{err: errors.Join(got[0].err, got[1].err)}
	for _, a := range got {
		if !a.positive() {
			continue
		}
		if !out.positive() || a.ttl < out.ttl {
			out.ttl = a.ttl
		}
		out.addrs = append(out.addrs, a.addrs...)
	}
	if out.positive() {
		out.err = nil
	}
	return out
}

// gather runs ask for 0 to n-1 at once and returns their answers. From the
// first positive answer on the others have the grace time, and when ordered is
// set, none at all when they come later in the order. What did not come is an
// error.
func gather(ctx context.Context, n int, ordered bool, ask func(context.Context, int) answer) []answer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		i int
		answer
	}
	results := make(chan result, n) // nobody may wait for us once we are gone
	got := make([]answer, n)
	for i := range n {
		got[i].err = errors.New("the DNS server did not answer in time")
		go func() { results <- result{i, ask(ctx, i)} }()
	}
	done := make([]bool, n)
	var late <-chan time.Time
	for range n {
		select {
		case r := <-results:
			got[r.i], done[r.i] = r.answer, true
		case <-late:
			return got
		case <-ctx.Done():
			return got
		}
		if ordered && settled(got, done) {
			return got
		}
		if late == nil && slices.ContainsFunc(got, answer.positive) {
			t := time.NewTimer(grace)
			defer t.Stop()
			late = t.C
		}
	}
	return got
}

// settled reports whether no answer that is missing could come before the
// first positive one.
func settled(got []answer, done []bool) bool {
	for i, ok := range done {
		if !ok {
			return false
		}
		if got[i].positive() {
			return true
		}
	}
	return true
}
