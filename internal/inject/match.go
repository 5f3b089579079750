package inject

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
)

// matcher finds every needle in every form at which a text can hold it. It is
// immutable.
//
// A match begins at its first character. That character and the next choose
// the needles that are tried there; where four bytes in a row are no escapes,
// a filter over the first four of every needle says first that there are none.
type matcher struct {
	needles []needle
	first   [256]bool            // bytes that a needle may begin with
	pairs   [1 << 16 / 64]uint64 // of first two bytes
	byPair  map[uint16][]group
	grams   []uint64 // of first four bytes, hashed
	shift   uint8    // of a hash, to the size of grams
	longest int      // bytes of a needle
}

// group is the needles of one form that begin with the same two bytes, sorted by
// their text.
type group struct {
	form    form
	needles []int32
}

// minNeedle is what the filter needs.
const minNeedle = 4

// special are the bytes at which a text may be something else than it looks:
// escapes, and line breaks, which may stand anywhere in base64 and hex.
var special = [256]bool{'%': true, '\\': true, '&': true, '\r': true, '\n': true}

func newMatcher(needles []needle) *matcher {
	m := &matcher{needles: needles, byPair: make(map[uint16][]group)}
	// One bit of 64 or fewer is set, within what a cache holds.
	size := max(12, min(20, bits.Len(uint(len(needles)*4*64))))
	m.grams = make([]uint64, 1<<size/64)
	m.shift = uint8(32 - size)
	for i, n := range needles {
		m.longest = max(m.longest, len(n.text))
		for _, v := range variants(n, 2) {
			pair := binary.LittleEndian.Uint16(v)
			m.first[v[0]] = true
			m.pairs[pair/64] |= 1 << (pair % 64)
			m.addTo(pair, n.form, int32(i))
		}
		for _, v := range variants(n, minNeedle) {
			h := m.hash(binary.LittleEndian.Uint32(v))
			m.grams[h/64] |= 1 << (h % 64)
		}
	}
	for _, groups := range m.byPair {
		for _, g := range groups {
			slices.SortFunc(g.needles, func(a, b int32) int { return bytes.Compare(needles[a].text, needles[b].text) })
		}
	}
	return m
}

func (m *matcher) addTo(pair uint16, f form, needle int32) {
	groups := m.byPair[pair]
	for i := range groups {
		if groups[i].form == f {
			groups[i].needles = append(groups[i].needles, needle)
			return
		}
	}
	m.byPair[pair] = append(groups, group{f, []int32{needle}})
}

// variants returns every text that folds to the first k bytes of a needle.
func variants(n needle, k int) [][]byte {
	out := [][]byte{nil}
	for _, want := range n.text[:k] {
		var next [][]byte
		for c, is := range fold[n.form] {
			if is != want {
				continue
			}
			for _, v := range out {
				next = append(next, append(v[:len(v):len(v)], byte(c)))
			}
		}
		out = next
	}
	return out
}

func (m *matcher) hash(gram uint32) uint32 { return gram * 0x9e3779b1 >> m.shift }

func (m *matcher) hasPair(a, b byte) bool {
	pair := uint16(a) | uint16(b)<<8
	return m.pairs[pair/64]&(1<<(pair%64)) != 0
}

// candidate returns the first place from at on at which a needle may begin, or
// the place of which the text is too short to say.
func (m *matcher) candidate(b []byte, at int) int {
	end := len(b) - minNeedle + 1
	if at >= end {
		return at
	}
	// next is one behind the last special byte of those up to at+3.
	next := at
	for i := at; i < at+minNeedle-1; i++ {
		if special[b[i]] {
			next = i + 1
		}
	}
	grams, shift := m.grams, m.shift&31
	for ; at < end; at++ {
		gram := binary.LittleEndian.Uint32(b[at:])
		if special[byte(gram>>24)] {
			next = at + minNeedle
		}
		if at < next {
			if m.possible(b[at : at+4]) {
				return at
			}
			continue
		}
		h := gram * 0x9e3779b1 >> shift
		if grams[h/64]&(1<<(h%64)) != 0 {
			return at
		}
	}
	return at
}

// possible reports whether a needle may begin at the front of four bytes, of
// which one is special.
func (m *matcher) possible(b []byte) bool {
	x, y := b[0], b[1]
	if escapeBytes[x] != 0 {
		c, sure := glance(b)
		return !sure || m.first[x] || m.first[c]
	}
	switch {
	case !m.first[x]:
		return false
	case m.hasPair(x, y):
		return true
	case escapeBytes[y] != 0:
		c, sure := glance(b[1:])
		return !sure || m.hasPair(x, c) || c == '\r' || c == '\n'
	case special[y]: // a line break
		return special[b[2]] || m.hasPair(x, b[2])
	}
	return false
}

// state is a needle of which the first at bytes are matched up to pos.
type state struct {
	needle int32
	at     int32
	pos    int
	breaks int8 // line breaks that were skipped in a row
}

// match is where a needle was found.
type match struct {
	needle     int32
	start, end int
}

// maxBreaks is how many blanks may stand before a line of base64, and two.
const maxBreaks = 8

// maxHeld is how much of a stream is held back for a match that is not decided.
// The longest value takes less, with three levels of escapes on each of its
// bytes; it is here so that no fault makes memory grow.
const maxHeld = 16 << 20

// errHeld ends a stream.
var errHeld = errors.New("cannot redact the stream: too much of it may belong to a secret")

// search looks for needles in a text that comes in pieces. Matches come with
// the leftmost first, and of those at one place the longest; a match may begin
// inside of the one before.
type search struct {
	view
	m      *matcher
	levels int
	next   int // the first place at which nothing was tried

	// What is known of the place next, when the text ended before it was
	// decided.
	open    bool
	begun   bool // every needle is tried that may begin there
	waiting []state
	best    match
	work    []state
	room    [4]state // for work, as long as it is short
}

// find returns the next match. ok is false when there is none, or none yet: see
// open.
func (s *search) find() (found match, ok bool) {
	for {
		if !s.open {
			s.next = s.m.candidate(s.b, s.next)
			if s.next >= len(s.b) {
				return match{}, false
			}
			s.begun = false
		}
		if s.begun {
			s.resume()
		} else {
			s.best = match{start: s.next}
			s.waiting = s.waiting[:0]
			s.begun = s.begin(s.next)
		}
		if s.open = !s.begun || len(s.waiting) > 0; s.open {
			return match{}, false
		}
		s.next++
		if s.best.end > 0 {
			return s.best, true
		}
	}
}

// resume goes on where the text ended before.
func (s *search) resume() {
	old := s.waiting
	s.waiting = nil
	for _, st := range old {
		s.run(st)
	}
}

// begin tries every needle at a place. It reports false when the text is too
// short to say which.
func (s *search) begin(at int) (decided bool) {
	in, more := s.all(at, s.levels)
	if more {
		return false
	}
	for _, c := range in.c[:in.n] {
		if c.n > 1 {
			s.try(at, c.b[0], c.b[1])
		} else if !s.second(at, at+int(c.size), c.b[0]) {
			return false
		}
		if b, ok := c.latin(); ok && !s.second(at, at+int(c.size), b) {
			return false
		}
	}
	return true
}

// second reads what may come after a first byte.
func (s *search) second(at, pos int, a byte) (decided bool) {
	if !s.m.first[a] {
		return true
	}
	in, more := s.all(pos, s.levels)
	if more {
		return false
	}
	for level, c := range in.c[:in.n] {
		s.try(at, a, c.b[0])
		if b, ok := c.latin(); ok {
			s.try(at, a, b)
		}
		if _, is := afterBreak(0, c); is && !s.behindBreak(at, pos, a, level) {
			return false
		}
	}
	return true
}

// afterBreak counts what lies between two lines of base64 or hex: one line
// break, and blanks that indent the next line. An empty line ends what was
// wrapped, so that an event, which ends with one, need not wait for the next.
func afterBreak(breaks int8, c char) (int8, bool) {
	switch {
	case c.is('\r') && breaks == 0:
		return 1, true
	case c.is('\n') && breaks < 2:
		return 2, true
	case (c.is(' ') || c.is('\t')) && breaks > 0 && breaks < maxBreaks:
		return max(breaks, 2) + 1, true
	}
	return 0, false
}

// behindBreak reads what comes behind a line break at pos.
func (s *search) behindBreak(at, pos int, a byte, level int) (decided bool) {
	for breaks, more := int8(0), true; more; {
		in, short := s.all(pos, s.levels)
		if short {
			return false
		}
		if in.n == 0 {
			return true
		}
		for _, c := range in.c[:in.n] {
			s.try(at, a, c.b[0])
		}
		c := in.c[min(level, in.n-1)]
		pos += int(c.size)
		breaks, more = afterBreak(breaks, c)
	}
	return true
}

// try runs the needles that begin with two bytes.
func (s *search) try(at int, a, b byte) {
	if !s.m.hasPair(a, b) {
		return
	}
	raw := at+1 < len(s.b) && !special[s.b[at]] && !special[s.b[at+1]]
	for _, g := range s.m.byPair[uint16(a)|uint16(b)<<8] {
		if raw {
			s.narrow(at, g)
			continue
		}
		for _, i := range g.needles {
			s.run(state{needle: i, pos: at})
		}
	}
}

// narrow runs those needles of a group that the text goes on with, as far as
// it is no choice how to read it. Secrets of one kind begin alike.
func (s *search) narrow(at int, g group) {
	list, k := g.needles, 2
	for len(list) > 0 && at+k < len(s.b) && !special[s.b[at+k]] {
		for len(s.m.needles[list[0]].text) == k { // it is all there
			s.run(state{needle: list[0], at: int32(k), pos: at + k})
			if list = list[1:]; len(list) == 0 {
				return
			}
		}
		c := fold[g.form][s.b[at+k]]
		byNext := func(i int32, c byte) int { return int(s.m.needles[i].text[k]) - int(c) }
		from, _ := slices.BinarySearchFunc(list, c, byNext)
		upTo, _ := slices.BinarySearchFunc(list, c+1, byNext)
		if c == 0xff {
			upTo = len(list)
		}
		list = list[from:upTo]
		if k++; len(list) == 1 {
			break
		}
	}
	for _, i := range list {
		s.run(state{needle: i, at: int32(k), pos: at + k})
	}
}

// run follows one needle as far as the text goes. Of all states the one with
// the least pos is next, so that two that meet are one.
func (s *search) run(from state) {
	if s.work == nil {
		s.work = s.room[:0]
	}
	s.work = append(s.work[:0], from)
	for len(s.work) > 0 {
		least := 0
		for i, st := range s.work {
			if st.pos < s.work[least].pos {
				least = i
			}
		}
		st := s.work[least]
		last := len(s.work) - 1
		s.work[least] = s.work[last]
		s.work = s.work[:last]
		s.step(st)
	}
}

// step matches what it can without a choice, and then every reading of one
// character.
func (s *search) step(st state) {
	n := &s.m.needles[st.needle]
	table := &fold[n.form]
	for st.breaks == 0 && int(st.at) < len(n.text) && st.pos < len(s.b) {
		c := s.b[st.pos]
		if special[c] || table[c] != n.text[st.at] {
			break
		}
		st.at++
		st.pos++
	}
	if int(st.at) == len(n.text) {
		if st.pos > s.best.end {
			s.best.needle, s.best.end = st.needle, st.pos
		}
		return
	}
	if in, more := s.all(st.pos, s.levels); more {
		s.wait(st)
	} else {
		for _, c := range in.c[:in.n] {
			s.advance(st, n, c)
		}
	}
}

// advance adds the states that one reading of a character leads to.
func (s *search) advance(st state, n *needle, c char) {
	to := state{needle: st.needle, pos: st.pos + int(c.size)}
	rest := n.text[st.at:]
	switch {
	case c.n == 1 && fold[n.form][c.b[0]] == rest[0]:
		to.at = st.at + 1
		s.add(to)
	case c.n > 1 && len(rest) >= int(c.n) && string(c.b[:c.n]) == string(rest[:c.n]):
		to.at = st.at + int32(c.n)
		s.add(to)
	}
	if b, ok := c.latin(); ok && b == rest[0] {
		to.at = st.at + 1
		s.add(to)
	}
	if st.at == 0 {
		return
	}
	if breaks, ok := afterBreak(st.breaks, c); ok && (n.form != plainForm || breaks == 1 && rest[0] == '\n') {
		to.at, to.breaks = st.at, breaks
		s.add(to)
	}
}

func (s *search) add(to state) {
	for _, st := range s.work {
		if st.at == to.at && st.pos == to.pos {
			return
		}
	}
	s.work = append(s.work, to)
}

func (s *search) wait(st state) {
	for _, w := range s.waiting {
		if w.needle == st.needle && w.at == st.at && w.pos == st.pos {
			return
		}
	}
	s.waiting = append(s.waiting, st)
}

// drop takes n bytes away from the front of the text, which all must be behind
// the search.
func (s *search) drop(n int) {
	s.b = s.b[n:]
	s.next -= n
	s.best.start -= n
	s.best.end = max(s.best.end-n, 0)
	for i := range s.waiting {
		s.waiting[i].pos -= n
	}
}
