package known

import (
	"bytes"
	"container/list"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
)

// Limits of a Set.
const (
	MinValue = 8        // bytes: nothing shorter can be policed
	MaxValue = 64 << 10 // bytes

	maxValues  = 1000      // retired ones included
	maxTotal   = 512 << 10 // bytes of all values
	maxRetired = 200

	maxDestinations = 4096
	maxSeenBytes    = 8 << 20 // bytes of bitmaps of destinations
	maxFlying       = 1024    // contents that are judged at one time
)

// Value is something that must not leave the cage.
type Value struct {
	Name    string          // in findings
	Bytes   []byte          // must not be changed
	AllowTo []config.Target // hosts that may get it
	Retired bool            // it was replaced, and is looked for all the same
}

// allowed reports whether a host may get the value.
func (v *Value) allowed(host hostname.Name) bool {
	return slices.ContainsFunc(v.AllowTo, func(t config.Target) bool {
		return host == t.Host || t.Zone && host.Within(t.Host)
	})
}

// held is a value in a Set.
type held struct {
	Value
	owner string
	*trace
}

// trace is what is secret of the bytes of a value, and what was seen of them. It
// belongs to the bytes: whoever holds them under another name shares it.
type trace struct {
	secret bitmap
	total  int // secret bytes
	limit  int // with how many of them seen it is too much

	seen  bitmap // what left, to anywhere
	maybe bitmap // what left and may have been chance
}

// maxSeen bounds the secret bytes of a value that may leave in pieces. In
// proportion alone it would be too much of a long value: a quarter of a private
// key gives the rest away.
const maxSeen = 24

// newTrace works out what is secret. What leaves in pieces stays under three
// quarters of it and under maxSeen, and a whole piece at least stays here.
func newTrace(value []byte) *trace {
	t := &trace{secret: secretBytes(value), seen: newBitmap(len(value)), maybe: newBitmap(len(value))}
	t.total = t.secret.count(t.secret)
	t.limit = min((t.total*3+3)/4, maxSeen, t.total-minPiece+1)
	return t
}

// Set is the values that a gateway holds, and what was seen of each. It is
// shared by everybody who looks for them, outlives a reload, and is safe for
// concurrent use. The zero Set is empty and ready.
type Set struct {
	current atomic.Pointer[snapshot]

	mu      sync.Mutex
	held    []*held
	flying  map[*flight]struct{}
	dests   map[hostname.Name]*list.Element // of *destination
	recent  list.List                       // most recently used first
	seenLen int                             // bytes of the bitmaps in dests
}

// snapshot is the values at one time. Its index is made when somebody first looks
// for them, so that many changes in a row cost no more than one.
type snapshot struct {
	values []*held
	once   sync.Once
	index  *index
}

func (n *snapshot) get() *index {
	n.once.Do(func() { n.index = newIndex(n.values) })
	return n.index
}

// destination is what one destination has seen of each value.
type destination struct {
	host hostname.Name
	seen map[*trace]bitmap
	len  int // bytes of the bitmaps
}

// Replace makes values all that owner has in the set. What it had before is
// retired: it is still found, as long as there is room. On an error nothing
// changes; the error holds nothing of a value but its name.
func (s *Set) Replace(owner string, values []Value) error {
	total := 0
	for _, v := range values {
		if err := check(v); err != nil {
			return err
		}
		total += len(v.Bytes)
	}
	if err := room(len(values), total); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var next []*held
	for _, h := range s.held {
		if h.owner != owner {
			next = append(next, h)
		}
	}
	var added []*held
	for _, v := range values {
		added = append(added, s.take(v, owner, added))
	}
	for _, h := range s.held {
		if h.owner == owner && !slices.ContainsFunc(added, func(a *held) bool { return bytes.Equal(a.Bytes, h.Bytes) }) {
			next = append(next, h.retire())
		}
	}
	return s.commit(append(next, added...))
}

// Add adds a value, or changes where one that is there may go.
func (s *Set) Add(owner string, v Value) error {
	if err := check(v); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(s.held), func(h *held) bool { return h.owner == owner && bytes.Equal(h.Bytes, v.Bytes) })
	return s.commit(append(next, s.take(v, owner, nil)))
}

// Retire marks an owner's values of a name as replaced.
func (s *Set) Retire(owner, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := slices.Clone(s.held)
	for i, h := range next {
		if h.owner == owner && h.Name == name {
			next[i] = h.retire()
		}
	}
	// It takes no more room than before.
	_ = s.commit(next)
}

// Values returns the values, retired ones included. Their bytes must not be
// changed.
func (s *Set) Values() []Value {
	now := s.current.Load()
	if now == nil {
		return nil
	}
	out := make([]Value, len(now.values))
	for i, h := range now.values {
		out[i] = h.Value
	}
	return out
}

// In reports whether a value or a piece of one is in a text, wherever it may go.
// It is true when the text cannot be searched.
func (s *Set) In(text []byte) bool {
	now := s.current.Load()
	if now == nil || len(text) < minPiece {
		return false
	}
	found := false
	err := now.get().scan(text, func(m match) {
		h := m.form.value
		first, end := m.form.covered(m.start, m.start+m.to-m.from)
		found = found || first == 0 && end == len(h.Bytes) || h.secret.countRange(first, end) >= minPiece
	})
	return found || err != nil
}

func check(v Value) error {
	switch {
	case v.Name == "":
		return fmt.Errorf("cannot look for a value: it has no name")
	case len(v.Bytes) < MinValue:
		return fmt.Errorf("cannot look for the value of %s: it is shorter than %d bytes, and would be found everywhere", v.Name, MinValue)
	case len(v.Bytes) > MaxValue:
		return fmt.Errorf("cannot look for the value of %s: it is longer than %d bytes", v.Name, MaxValue)
	}
	return nil
}

func room(n, total int) error {
	if n > maxValues || total > maxTotal {
		return fmt.Errorf("cannot look for %d values with %d bytes: the most is %d with %d", n, total, maxValues, maxTotal)
	}
	return nil
}

// take returns a value as one that is held, with what was seen of it before
// under whatever name.
func (s *Set) take(v Value, owner string, added []*held) *held {
	v.Bytes = bytes.Clone(v.Bytes)
	v.AllowTo = slices.Clone(v.AllowTo)
	for _, old := range slices.Concat(s.held, added) {
		if bytes.Equal(old.Bytes, v.Bytes) {
			return &held{Value: v, owner: owner, trace: old.trace}
		}
	}
	return &held{Value: v, owner: owner, trace: newTrace(v.Bytes)}
}

func (h *held) retire() *held {
	r := *h
	r.Retired = true
	return &r
}

// commit puts a list of values in force. When there is no room for all, the
// retired ones go, the oldest first, which stand first.
func (s *Set) commit(next []*held) error {
	retired, total, n := 0, 0, len(next)
	for _, h := range next {
		total += len(h.Bytes)
		if h.Retired {
			retired++
		}
	}
	next = slices.DeleteFunc(next, func(h *held) bool {
		if !h.Retired || retired <= maxRetired && n <= maxValues && total <= maxTotal {
			return false
		}
		retired, total, n = retired-1, total-len(h.Bytes), n-1
		return true
	})
	if err := room(n, total); err != nil {
		return err
	}
	s.held = next
	s.forget()
	if len(next) == 0 {
		s.current.Store(nil)
		return nil
	}
	s.current.Store(&snapshot{values: next})
	return nil
}

// forget drops what destinations saw of values that are no longer held.
func (s *Set) forget() {
	keep := make(map[*trace]bool, len(s.held))
	for _, h := range s.held {
		keep[h.trace] = true
	}
	for el := s.recent.Front(); el != nil; el = el.Next() {
		d := el.Value.(*destination)
		for t, b := range d.seen {
			if !keep[t] {
				delete(d.seen, t)
				d.len -= 8 * len(b)
				s.seenLen -= 8 * len(b)
			}
		}
	}
}
