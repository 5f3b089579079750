package scan

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
)

const (
	gram       = 4          // bytes that the index looks up
	fold       = 0x20202020 // makes letters of both cases the same
	filterBits = 18
	maxGrams   = 4096 // of one shape
	maxSpread  = 32   // starts that one place of an anchor stands for
)

func hash(g uint32) uint32 { return g * 0x9e3779b1 }

// index finds the shapes to try by four bytes, folded. The filter answers
// nearly always; the table is exact.
type index struct {
	filter  *filter
	shift   uint32
	keys    []uint32
	at      []uint32 // where the targets of a key begin, plus one; 0 is free
	targets [][]target
}

// filter is a set of hashes, as their first bits. It has twenty times as many
// bits as there are known four bytes, and fits the first cache of a processor.
type filter [1 << (filterBits - 6)]uint64

// has returns 1 for a hash that may be in the set.
func (f *filter) has(h uint32) uint64 {
	return f[h>>(32-filterBits+6)] >> (h >> (32 - filterBits) & 63) & 1
}

func (f *filter) add(h uint32) {
	f[h>>(32-filterBits+6)] |= 1 << (h >> (32 - filterBits) & 63)
}

// target is a shape, and how far its anchor may be from its start; or, with a
// shape of -1, a slow rule, counted from one.
type target struct {
	shape  int32
	slow   int32
	lo, hi int32
}

// ref is a target before it is in the index.
type ref struct {
	grams  []uint32
	target target
}

func newIndex(refs []ref) index {
	all := make(map[uint32][]target)
	for _, r := range refs {
		for _, g := range r.grams {
			all[g] = append(all[g], r.target)
		}
	}
	bits := uint32(8)
	for 1<<bits < 2*len(all) {
		bits++
	}
	x := index{filter: new(filter), shift: 32 - bits, keys: make([]uint32, 1<<bits), at: make([]uint32, 1<<bits)}
	for g, ts := range all {
		h := hash(g)
		x.filter.add(h)
		i := h >> x.shift
		for x.at[i] != 0 {
			i = (i + 1) & (1<<bits - 1)
		}
		x.targets = append(x.targets, ts)
		x.keys[i], x.at[i] = g, uint32(len(x.targets))
	}
	return x
}

// find returns the targets of four folded bytes.
func (x *index) find(g, h uint32) []target {
	mask := uint32(len(x.keys) - 1)
	for i := h >> x.shift; x.at[i] != 0; i = (i + 1) & mask {
		if x.keys[i] == g {
			return x.targets[x.at[i]-1]
		}
	}
	return nil
}

// anchor is a set of four bytes, one of which is in every match of a shape,
// lo to hi bytes after its start.
type anchor struct {
	grams  []uint32
	lo, hi int
}

// stretch is a row of bytes of a match whose classes are known, lo to hi bytes
// after the start.
type stretch struct {
	bytes  []*byteSet
	lo, hi int
}

// byteSet is what one byte of an anchor may be.
type byteSet struct {
	folded []byte
	often  float64 // share of its bytes in text, by guess
}

func newByteSet(has *[256]bool) *byteSet {
	var seen [256]bool
	s := &byteSet{}
	for b := range has {
		if f := byte(b) | 0x20; has[b] && !seen[f] {
			seen[f] = true
			s.folded = append(s.folded, f)
			s.often += frequency(f)
		}
	}
	return s
}

// bytesAlone are the sets of one byte.
var bytesAlone = sync.OnceValue(func() (sets [256]*byteSet) {
	for b := range sets {
		var has [256]bool
		has[b] = true
		sets[b] = newByteSet(&has)
	}
	return sets
})

// anchorOf chooses the four bytes that are seldom in text.
func anchorOf(items []item) (anchor, bool) {
	var best anchor
	var chosen []*byteSet
	bestScore := -1.0
	for _, st := range stretches(items) {
		for i := 0; i+gram <= len(st.bytes); i++ {
			sets := st.bytes[i : i+gram]
			n, score := weigh(sets)
			if n > maxGrams {
				continue
			}
			score = (score + float64(n)*1e-7) * float64(1+st.hi-st.lo)
			if bestScore >= 0 && score >= bestScore {
				continue
			}
			bestScore = score
			best, chosen = anchor{lo: st.lo + i, hi: st.hi + i}, sets
		}
	}
	if bestScore < 0 {
		return anchor{}, false
	}
	best.grams = grams(chosen)
	return best, true
}

// stretches cuts a shape where the distance from its start is not known. An
// item of several counts ends one stretch with its least count, and begins the
// next one with it.
func stretches(items []item) []stretch {
	cur := stretch{}
	var out []stretch
	for i := range items {
		it := &items[i]
		for b := range []byte(it.literal) {
			cur.bytes = append(cur.bytes, bytesAlone()[it.literal[b]])
		}
		if it.class == nil {
			continue
		}
		n := min(it.min, 256)
		for range n {
			cur.bytes = append(cur.bytes, it.class.set)
		}
		if it.min == it.max && n == it.min {
			continue
		}
		out = append(out, cur.follow(it, items[i+1:]))
		keep := min(it.min, gram-1)
		end := len(cur.bytes) - n
		cur = stretch{lo: cur.lo + end + it.min - keep, hi: cur.hi + end + it.max - keep}
		if cur.hi-cur.lo > maxSpread {
			return out
		}
		for range keep {
			cur.bytes = append(cur.bytes, it.class.set)
		}
	}
	return append(out, cur)
}

// follow adds the byte after the least count of an item, where there must be
// one: another of the item, or what comes next.
func (st stretch) follow(it *item, rest []item) stretch {
	next := it.class.has
	for i := range rest {
		if rest[i].literal != "" {
			next[rest[i].literal[0]] = true
		} else if rest[i].class != nil {
			for b, has := range rest[i].class.has {
				next[b] = next[b] || has
			}
		}
		if rest[i].literal != "" || rest[i].min > 0 {
			st.bytes = append(slices.Clip(st.bytes), newByteSet(&next))
			break
		}
	}
	return st
}

// weigh returns how many four bytes the sets stand for, and how often one of
// them is in text, by guess.
func weigh(sets []*byteSet) (n int, often float64) {
	n, often = 1, 1
	for _, s := range sets {
		n = min(n*len(s.folded), maxGrams+1)
		often *= s.often
	}
	if n == 1 {
		often += float64(commonGrams()[grams(sets)[0]]) * 1e-4
	}
	return n, often
}

// common are words that are in nearly every text, and four letters of which
// make a bad anchor, however seldom the letters are.
const common = `the and that this with from have for not are you was but what which when there their would about into
	more other some than then them these only could should after also because before between both even first
	please explain package main import function return string error const class public private static value key keys
	name names type types file files path data user users access token secret password auth api service server client
	request response message messages content application json text html http https www com org net github git code
	test tests build run start stop create update delete get set list index item items check make true false null
	nil none self args options option config default object array number count length size time date id uuid
	true false while break continue else switch case struct interface func var let new async await export require
	module version license author description scripts dependencies node linux windows docker image container
	select insert where table order group limit database query result results status state event action
	system assistant model input output prompt language english project repository branch commit issue
	document element style color width height left right button script link head body title section example
	thing think know want need work works working using used use called call change changes look like just
	discussion company people world little great house point place state never same another while last might
	account team system market linear online steam stream master release public across network notion prefix
	background location position information section direction operation generation session connection collection
	reference difference sentence instance distance performance interface workspace namespace replace surface`

// commonGrams counts the folded four bytes of the common words.
var commonGrams = sync.OnceValue(func() map[uint32]int {
	counts := make(map[uint32]int)
	for word := range strings.FieldsSeq(common) {
		for i := 0; i+gram <= len(word); i++ {
			counts[binary.LittleEndian.Uint32([]byte(word[i:]))|fold]++
		}
	}
	return counts
})

// grams lists the four bytes, the first one lowest.
func grams(sets []*byteSet) []uint32 {
	out := []uint32{0}
	for i, s := range sets {
		var next []uint32
		for _, g := range out {
			for _, b := range s.folded {
				next = append(next, g|uint32(b)<<(8*i))
			}
		}
		out = next
	}
	return out
}

// letters is how many of a thousand bytes of text and code are which letter.
var letters = [26]float64{55, 12, 30, 30, 80, 20, 15, 30, 55, 3, 7, 35, 20, 55, 55, 20, 2, 50, 50, 60, 20, 8, 10, 5, 10, 3}

// frequency guesses the share of a folded byte in text and code.
func frequency(b byte) float64 {
	switch {
	case b >= 'a' && b <= 'z':
		return letters[b-'a'] / 1000
	case b >= '0' && b <= '9':
		return 0.01
	case b == ' ':
		return 0.12
	case b == '"' || b == '.' || b == '/' || b == '-' || b == ':' || b == 0x7f:
		return 0.01
	default:
		return 0.003
	}
}

// gateOf returns four bytes that every match of any pattern has somewhere, if
// there are any: a literal at the top of it.
func gateOf(re *syntax.Regexp) (anchor, bool) {
	for re.Op == syntax.OpCapture || re.Op == syntax.OpPlus {
		re = re.Sub[0]
	}
	subs := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		subs = re.Sub
	}
	var row []item
	best, found := anchor{}, false
	take := func() {
		if a, ok := anchorOf(finish(row)); ok && (!found || len(a.grams) < len(best.grams)) {
			best, found = a, true
		}
		row = nil
	}
	for _, sub := range subs {
		lists, err := expand(sub, &classes{})
		if err != nil || len(lists) != 1 || len(lists[0]) != 1 || lists[0][0].literal == "" && (lists[0][0].class == nil || lists[0][0].max != 1 || lists[0][0].min != 1) {
			take()
			continue
		}
		row = append(row, lists[0][0])
	}
	take()
	return best, found
}
