package known

import (
	"container/list"

	"github.com/agentcage/agentcage/internal/hostname"
)

// sighting is what one content has of one value.
type sighting struct {
	*held
	whole  bool   // all of the value, in one piece
	pieces bitmap // nil when there are none
	maybe  bitmap // pieces that may be chance
}

func (g *sighting) add(first, end int, weak bool) {
	b := &g.pieces
	if weak {
		b = &g.maybe
	}
	if *b == nil {
		*b = newBitmap(len(g.Bytes))
	}
	(*b).set(first, end)
}

// finding is what is to be said about one value.
type finding struct {
	*held
	whole, block bool
	seen         int // secret bytes, with those of this content
}

// flight is a content that was judged and has neither left nor been refused.
type flight struct {
	host   hostname.Name
	pieces map[*trace]bitmap
	held   bool // what it carries counts already
}

// charge judges what a content to a destination has of values, in one step
// with all others, and reserves it unless it blocks. Settle must be called with
// the flight, if there is one. It is false when too many are under way.
func (s *Set) charge(host hostname.Name, sightings []*sighting) (out []finding, f *flight, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flying) >= maxFlying {
		return nil, nil, false
	}
	f = &flight{host: host, pieces: make(map[*trace]bitmap), held: true}
	for _, g := range sightings {
		v, reported := s.judge(host, g)
		if g.pieces != nil {
			f.pieces[g.trace] = g.pieces
		}
		if reported {
			out = append(out, v)
			f.held = f.held && !v.block
		}
	}
	if len(f.pieces) == 0 {
		return out, nil, true
	}
	if f.held {
		if s.flying == nil {
			s.flying = make(map[*flight]struct{})
		}
		s.flying[f] = struct{}{}
	}
	return out, f, true
}

// judge says what is to be reported about one value, if anything. What was
// seen before is no news, and is blocked only when it is all of the value.
func (s *Set) judge(host hostname.Name, g *sighting) (finding, bool) {
	if g.whole {
		g.add(0, len(g.Bytes), false)
		return finding{held: g.held, whole: true, block: true, seen: g.total}, true
	}
	seen := newBitmap(len(g.Bytes))
	seen.or(g.seen)
	for f := range s.flying {
		seen.or(f.pieces[g.trace])
	}
	before := seen.count(g.secret)
	g.sure(before > 0)
	if g.pieces == nil {
		return finding{}, false
	}
	seen.or(g.pieces)
	after := seen.count(g.secret)
	v := finding{held: g.held, seen: after, block: after > before && after >= g.limit}
	return v, after > before || s.news(host, g)
}

// sure decides about pieces that may be chance: the second one is none, and
// neither is one beside others.
func (g *sighting) sure(before bool) {
	if g.maybe == nil {
		return
	}
	once := g.maybe.count(g.secret)
	g.trace.maybe.or(g.maybe)
	if !before && g.pieces == nil && g.trace.maybe.count(g.secret) < once+minPiece && once < 2*minPiece {
		return
	}
	if g.pieces == nil {
		g.pieces = newBitmap(len(g.Bytes))
	}
	g.pieces.or(g.maybe)
	g.pieces.or(g.trace.maybe)
}

// news reports whether a destination has not had some of the pieces.
func (s *Set) news(host hostname.Name, g *sighting) bool {
	var had bitmap
	if el := s.dests[host]; el != nil {
		had = el.Value.(*destination).seen[g.trace]
	}
	for i, b := range g.pieces {
		b &= g.secret[i]
		if had != nil {
			b &^= had[i]
		}
		if b != 0 {
			return true
		}
	}
	return false
}

// settle writes down what left, or forgets about it.
func (s *Set) settle(f *flight, sent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flying, f)
	if !sent {
		return
	}
	d := s.destination(f.host)
	for t, pieces := range f.pieces {
		t.seen.or(pieces)
		if d.seen[t] == nil {
			d.seen[t] = make(bitmap, len(pieces))
			d.len += 8 * len(pieces)
			s.seenLen += 8 * len(pieces)
		}
		d.seen[t].or(pieces)
	}
	for s.seenLen > maxSeenBytes && s.recent.Len() > 1 {
		s.evict()
	}
}

// destination finds what a destination has seen, or begins with nothing.
func (s *Set) destination(host hostname.Name) *destination {
	if el := s.dests[host]; el != nil {
		s.recent.MoveToFront(el)
		return el.Value.(*destination)
	}
	if s.dests == nil {
		s.dests = make(map[hostname.Name]*list.Element)
	}
	if len(s.dests) >= maxDestinations {
		s.evict()
	}
	d := &destination{host: host, seen: make(map[*trace]bitmap)}
	s.dests[host] = s.recent.PushFront(d)
	return d
}

// evict forgets which destination it was that saw something. What decides, what
// was seen at all, stays in the traces.
func (s *Set) evict() {
	el := s.recent.Back()
	d := el.Value.(*destination)
	s.recent.Remove(el)
	delete(s.dests, d.host)
	s.seenLen -= d.len
}
