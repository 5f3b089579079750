package known

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sort"
)

// gram is the length of what an index knows by heart. Each piece of minPiece
// bytes holds a whole one that begins at a multiple of stride, wherever the
// piece itself begins.
const (
	gram   = 5
	stride = minPiece - gram + 1
)

const (
	letterCase = 0x2020202020202020 // what small and capital letters differ in
	mixer      = 0x9e3779b97f4a7c15 // 2^64 by the golden ratio: spreads what it multiplies

	// maxSame is how many places of one form are compared for one gram. The
	// first ones are enough: where all of a value stands, its first gram at
	// a multiple of stride is one of its first stride places.
	maxSame = stride
)

// index finds pieces of values in texts. It is immutable and safe for
// concurrent use.
type index struct {
	forms  []form
	starts []int // where each form begins in exact, and its length

	exact, folded []byte // all forms in a row, as they are and in small letters

	seen  []uint64 // one bit a hash: whether any gram has it
	shift uint
	heads []uint32 // by hash: one more than the first place in next and exact
	next  []uint32 // by place
	place []uint32
	short uint
}

func newIndex(values []*held) *index {
	ix := &index{}
	for _, h := range values {
		for _, f := range forms(h) {
			ix.starts = append(ix.starts, len(ix.exact))
			ix.forms = append(ix.forms, f)
			ix.exact = append(ix.exact, f.text...)
		}
	}
	ix.starts = append(ix.starts, len(ix.exact))
	ix.exact = append(ix.exact, make([]byte, 8)...) // so that a gram can be read as a word
	ix.folded = make([]byte, len(ix.exact))
	for i, b := range ix.exact {
		ix.folded[i] = fold[b]
	}
	ix.shift = 64 - uint(bits.Len(uint(len(ix.exact)*sparse(len(ix.exact)))))
	ix.short = 64 - uint(bits.Len(uint(len(ix.exact))))
	ix.seen = make([]uint64, 1<<(64-ix.shift)/64+1)
	ix.heads = make([]uint32, 1<<(64-ix.short))
	for i := range ix.forms {
		ix.add(i)
	}
	return ix
}

// sparse is how many bits there are for one gram: a hit by chance costs as much
// as thirty misses, and a miss as much more as the table is larger than the
// cache.
func sparse(grams int) int {
	switch {
	case grams <= 1<<14:
		return 64
	case grams <= 1<<17:
		return 32
	}
	return 16
}

// add files the grams of a form that hold a secret byte.
func (ix *index) add(i int) {
	f := &ix.forms[i]
	before := f.value.secret.sums(len(f.value.Bytes))
	// From the end on, so that a list begins with the first places.
	for p := len(f.text) - gram; p >= 0; p-- {
		if first, end := f.covered(p, p+gram); before[first] == before[end] {
			continue
		}
		at := ix.starts[i] + p
		h := hash(binary.LittleEndian.Uint64(ix.exact[at:]))
		ix.seen[h>>ix.shift/64] |= 1 << (h >> ix.shift % 64)
		ix.place = append(ix.place, uint32(at))
		ix.next = append(ix.next, ix.heads[h>>ix.short])
		ix.heads[h>>ix.short] = uint32(len(ix.place))
	}
}

// hash is of the gram that a word begins with, whatever the case of its letters.
func hash(word uint64) uint64 { return (word | letterCase) << (64 - 8*gram) * mixer }

// fold makes small letters of capital ones.
var fold = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if 'A' <= i && i <= 'Z' {
			t[i] |= 0x20
		}
	}
	return t
}()

// match is a part of a text that is a part of a form, as long as can be.
type match struct {
	form     *form
	at       int // index of the form
	from, to int // in the text
	start    int // in the form, where from is
}

var errTooAlike = errors.New("the content has too many beginnings of known values in it")

// scanner is the work on one text.
type scanner struct {
	*index
	text  []byte
	work  int // bytes that may still be compared
	last  [16]match
	turns int
	found func(match)
}

// scan calls found for every part of text that is a part of a form and of which
// a gram is filed. It fails when there are so many that finding them all would
// take too long, which text that was not made for it does not have.
func (ix *index) scan(text []byte, found func(match)) error {
	s := scanner{index: ix, text: text, work: 64*len(text) + 1<<20, found: found}
	i := 0
	// Four at a time: hardly ever is there anything to see.
	for seen, shift := ix.seen, ix.shift&63; i+4*stride+4 <= len(text); i += 4 * stride {
		t := text[i : i+4*stride+4 : i+4*stride+4]
		a := hash(binary.LittleEndian.Uint64(t)) >> shift
		b := hash(binary.LittleEndian.Uint64(t[stride:])) >> shift
		c := hash(binary.LittleEndian.Uint64(t[2*stride:])) >> shift
		d := hash(binary.LittleEndian.Uint64(t[3*stride:])) >> shift
		if (seen[a/64]>>(a%64)|seen[b/64]>>(b%64)|seen[c/64]>>(c%64)|seen[d/64]>>(d%64))&1 != 0 {
			if s.around(i, 4); s.work < 0 {
				return errTooAlike
			}
		}
	}
	if s.around(i, (len(text)-i)/stride+1); s.work < 0 {
		return errTooAlike
	}
	return nil
}

// around looks at n grams from i on, as far as there are any.
func (s *scanner) around(i, n int) {
	for ; n > 0 && i+gram <= len(s.text); n-- {
		var word [8]byte
		copy(word[:], s.text[i:])
		h := hash(binary.LittleEndian.Uint64(word[:]))
		if s.seen[h>>s.shift/64]>>(h>>s.shift%64)&1 != 0 {
			s.look(i, h)
		}
		i += stride
	}
}

// look compares the text around i with the places of its gram.
func (s *scanner) look(i int, h uint64) {
	form, same := -1, 0
	for at := s.heads[h>>s.short]; at != 0 && s.work >= 0; at = s.next[at-1] {
		p := int(s.place[at-1])
		s.work--
		if !s.equal(i, p) {
			continue
		}
		n := sort.SearchInts(s.starts, p+1) - 1
		if n != form {
			form, same = n, 0
		}
		if same++; same > maxSame || s.inside(n, i, p) {
			continue
		}
		m := s.extend(n, i, p)
		s.work -= m.to - m.from
		s.last[s.turns%len(s.last)] = m
		s.turns++
		s.found(m)
	}
}

func (s *scanner) equal(i, p int) bool {
	for k := range gram {
		if fold[s.text[i+k]] != s.folded[p+k] {
			return false
		}
	}
	return true
}

// inside reports whether this is a place in a match that was found already.
func (s *scanner) inside(n, i, p int) bool {
	for k := range s.last {
		m := &s.last[k]
		if m.form != nil && m.at == n && i >= m.from && i < m.to && i-m.from == p-s.starts[n]-m.start {
			return true
		}
	}
	return false
}

// extend makes a match as long as can be.
func (s *scanner) extend(n, i, p int) match {
	from, start := i, p
	for from > 0 && start > s.starts[n] && fold[s.text[from-1]] == s.folded[start-1] {
		from, start = from-1, start-1
	}
	to, end := i+gram, p+gram
	for to < len(s.text) && end < s.starts[n+1] && fold[s.text[to]] == s.folded[end] {
		to, end = to+1, end+1
	}
	return match{form: &s.forms[n], at: n, from: from, to: to, start: start - s.starts[n]}
}

// weak reports whether a match may be chance: a few digits or hexadecimal
// digits, or letters of the wrong case, in the middle of a longer word.
// Data of such an alphabet has runs of eight that are also in a value once in
// some hundred megabytes.
func (ix *index) weak(text []byte, m match) bool {
	within := m.from > 0 && isAlphanumeric(text[m.from-1]) || m.to < len(text) && isAlphanumeric(text[m.to])
	n := m.to - m.from
	if !within || n >= 12 {
		return false
	}
	digits, hexes, exact := true, true, true
	for i, b := range text[m.from:m.to] {
		digits = digits && '0' <= b && b <= '9'
		hexes = hexes && ('0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'f')
		exact = exact && b == m.form.text[m.start+i]
	}
	return digits || n < 10 && (hexes || !exact)
}
