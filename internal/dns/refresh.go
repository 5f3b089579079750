package dns

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/hostname"
)

const (
	maxEntries    = 4096 // entries resolved; those beyond get the synthetic address
	maxLookups    = 8    // at one time
	maxAddrs      = 8    // of each family of an entry, so that an answer fits 512 bytes
	lookupTimeout = 10 * time.Second
	firstWait     = 2 * time.Second // a query waits for the first result of its entry
	refreshEvery  = 5 * time.Minute
	retryFirst    = 5 * time.Second
)

// entry is a listed entry and its addresses. It is resolved on the server's
// own schedule: when a query comes in has no influence, so that even the time
// of a lookup tells nothing.
type entry struct {
	name   hostname.Name
	cancel context.CancelFunc
	ready  chan struct{} // closed after the first attempt

	mu    sync.Mutex
	addrs []netip.Addr // never changed in place
}

func (e *entry) get() []netip.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.addrs
}

// setTable starts the entries that are new and stops those that are gone.
func (s *Server) setTable(t Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table = t
	var names []hostname.Name
	if t != nil {
		names = t.Names()
	}
	keep := make(map[hostname.Name]bool)
	for _, n := range names[:min(len(names), maxEntries)] {
		keep[n] = true
	}
	for n, e := range s.entries {
		if !keep[n] {
			e.cancel()
			delete(s.entries, n)
		}
	}
	if s.closed || s.Resolver == nil {
		return
	}
	for n := range keep {
		if s.entries[n] == nil && !n.IsIP() && !n.IsZero() {
			s.entries[n] = s.follow(n)
		}
	}
}

// follow resolves one entry again and again. s.mu is held.
func (s *Server) follow(n hostname.Name) *entry {
	ctx, cancel := context.WithCancel(s.ctx)
	e := &entry{name: n, cancel: cancel, ready: make(chan struct{})}
	s.wg.Go(func() {
		defer cancel()
		retry := retryFirst
		for first := true; ctx.Err() == nil; first = false {
			wait := refreshEvery
			if addrs, ok := s.lookup(ctx, n); ok {
				e.mu.Lock()
				e.addrs = addrs
				e.mu.Unlock()
				retry = retryFirst
			} else {
				wait, retry = retry, min(2*retry, refreshEvery)
			}
			if first {
				close(e.ready)
			}
			timer := time.NewTimer(wait*4/5 + rand.N(wait*2/5))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
		}
	})
	return e
}

// lookup asks the resolver. A failure keeps the addresses that are known.
func (s *Server) lookup(ctx context.Context, n hostname.Name) (addrs []netip.Addr, ok bool) {
	select {
	case s.lookups <- struct{}{}:
	case <-ctx.Done():
		return nil, false
	}
	defer func() { <-s.lookups }()
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := s.Resolver.Lookup(ctx, n)
	if err != nil {
		return nil, false
	}
	var n4, n6 int
	for _, a := range found {
		a = a.Unmap().WithZone("")
		count := &n6
		if a.Is4() {
			count = &n4
		}
		if a.IsValid() && *count < maxAddrs {
			*count++
			addrs = append(addrs, a)
		}
	}
	return addrs, true
}

// addresses returns what may be handed out for a listed entry, waiting a
// little when it was never resolved.
func (s *Server) addresses(n hostname.Name) []netip.Addr {
	s.mu.Lock()
	e := s.entries[n]
	s.mu.Unlock()
	if e == nil || s.Usable == nil {
		return nil
	}
	timer := time.NewTimer(firstWait)
	defer timer.Stop()
	select {
	case <-e.ready:
	case <-timer.C:
	case <-s.ctx.Done():
	}
	var usable []netip.Addr
	for _, a := range e.get() {
		if s.Usable(n, a) {
			usable = append(usable, a)
		}
	}
	return usable
}

// maxHanded is how many addresses are remembered.
const maxHanded = 4096

// handed remembers for which name an address was handed out last. When it is
// full the oldest is forgotten.
type handed struct {
	mu    sync.Mutex
	names map[netip.Addr]hostname.Name
	order []netip.Addr // a ring
	next  int
}

func (h *handed) put(a netip.Addr, n hostname.Name) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.names == nil {
		h.names = make(map[netip.Addr]hostname.Name)
	}
	if _, known := h.names[a]; !known {
		if len(h.order) < maxHanded {
			h.order = append(h.order, a)
		} else {
			delete(h.names, h.order[h.next])
			h.order[h.next] = a
			h.next = (h.next + 1) % maxHanded
		}
	}
	h.names[a] = n
}

// NameOf returns the name for which an address was handed out last. The
// synthetic address has none.
func (s *Server) NameOf(a netip.Addr) (hostname.Name, bool) {
	s.handed.mu.Lock()
	defer s.handed.mu.Unlock()
	n, ok := s.handed.names[a.Unmap().WithZone("")]
	return n, ok
}
