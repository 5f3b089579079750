// Package scan finds many patterns in one text, within a bound on its work.
//
// The rules are data (see the folder rules and Builtin), more can be added to
// them. What is scanned is the agent's, and so is every worst case: a text in
// which everything looks like the beginning of a secret takes a bounded time,
// and a bound that is passed is an error.
//
// How it works: every rule is compiled into shapes, which are sequences of
// literals and classes of bytes with counts, and each shape names four bytes
// in a row that no match is without. One pass over the text looks up each four
// bytes in a table; only where they are known, a shape is tried. A pattern of a
// user that has no shape goes through package regexp, over the whole text.
package scan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"regexp"
)

const (
	// chunk is how many bytes are searched between two looks at the context.
	chunk = 64 << 10

	// workPerByte and workAtLeast bound the steps of the shapes over one
	// text. A step is a byte that is looked at, about a nanosecond. Dense
	// text made of nothing but beginnings of keys takes a tenth of it.
	workPerByte = 400
	workAtLeast = 1 << 20
)

// ErrBudget says that a text takes more work than is allowed, so that not all
// of it has been looked at.
var ErrBudget = errors.New("cannot look for secrets: the text is made to take too long")

// Match is one place at which a rule found something.
type Match struct {
	Rule       *Rule
	Start, End int // of the secret in the text: of the first group of the pattern, or of all of it
}

// Scanner holds compiled rules. It is immutable and safe for concurrent use.
// A nil or zero Scanner finds nothing; New makes one that does.
type Scanner struct {
	rules   []*Rule
	index   index
	shapes  []shape
	slow    []slowRule
	classes classes
}

// slowRule is a pattern without shapes. It runs over a whole text, at most
// once; with a gate only when the index saw one of the gate's four bytes.
type slowRule struct {
	rule  *Rule
	re    *regexp.Regexp
	gated bool
}

// New compiles rules. It fails on a pattern that is no RE2, or that matches
// the empty text.
func New(rules ...*Rule) (*Scanner, error) {
	s := &Scanner{}
	var refs []ref
	for _, r := range rules {
		more, err := s.compile(r)
		if err != nil {
			return nil, fmt.Errorf("cannot use the pattern %s: %w", r.Name, err)
		}
		s.rules = append(s.rules, r)
		refs = append(refs, more...)
	}
	s.index = newIndex(refs)
	return s, nil
}

// compile adds one rule, and returns where the index has to point to it.
func (s *Scanner) compile(r *Rule) ([]ref, error) {
	tree, err := parsePattern(r.Pattern)
	if err != nil {
		return nil, err
	}
	shapes, err := shapesOf(tree, &s.classes)
	if err == nil {
		if refs, ok := s.anchorAll(r, shapes); ok {
			return refs, nil
		}
	}
	if r.builtin() {
		return nil, errors.New("it has no four bytes to look for")
	}
	re, err := regexp.Compile(tree.String())
	if err != nil {
		return nil, err
	}
	if re.MatchString("") {
		return nil, errors.New("it matches the empty text, and so everything")
	}
	anchor, gated := gateOf(tree)
	s.slow = append(s.slow, slowRule{rule: r, re: re, gated: gated})
	if !gated {
		return nil, nil
	}
	return []ref{{grams: anchor.grams, target: target{slow: int32(len(s.slow)), shape: -1}}}, nil
}

// anchorAll takes the shapes of a rule over when each of them has an anchor.
func (s *Scanner) anchorAll(r *Rule, shapes []shape) ([]ref, bool) {
	var refs []ref
	for i := range shapes {
		a, ok := anchorOf(shapes[i].items)
		if !ok {
			return nil, false
		}
		refs = append(refs, ref{grams: a.grams, target: target{shape: int32(len(s.shapes) + i), lo: int32(a.lo), hi: int32(a.hi)}})
	}
	for i := range shapes {
		shapes[i].rule = r
	}
	s.shapes = append(s.shapes, shapes...)
	return refs, true
}

// Scan calls found for every match, in no order, until it returns false. The
// same match may be reported more than once. It fails when the context is
// done, and with ErrBudget.
//
// A rule matches at a place where its pattern does and what else it asks for
// holds. Matches of one rule may overlap, so that nothing that stands before a
// secret can hide it.
func (s *Scanner) Scan(ctx context.Context, data []byte, found func(Match) bool) error {
	if s == nil || len(s.rules) == 0 {
		return nil
	}
	m := matcher{data: data, limit: workAtLeast + workPerByte*len(data)}
	if len(s.slow) > 0 {
		m.gates = make([]bool, len(s.slow))
	}
	end := len(data) - 3
	for from := 0; from < end; from += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		if on, err := s.scanChunk(&m, from, min(from+chunk, end), found); !on || err != nil {
			return err
		}
	}
	return s.scanSlow(ctx, &m, found)
}

// scanChunk looks at the four bytes from each place on. Four places are looked
// up at once, from one load of eight bytes, as long as there are that many.
func (s *Scanner) scanChunk(m *matcher, from, to int, found func(Match) bool) (on bool, err error) {
	data, filter := m.data, s.index.filter
	i := from
	for ; i+4 <= to && i+8 <= len(data); i += 4 {
		w := binary.LittleEndian.Uint64(data[i:]) | fold<<32 | fold
		known := filter.has(hash(uint32(w))) | filter.has(hash(uint32(w>>8)))<<1 | filter.has(hash(uint32(w>>16)))<<2 | filter.has(hash(uint32(w>>24)))<<3
		for ; known != 0; known &= known - 1 {
			j := bits.TrailingZeros64(known)
			if on, err := s.look(m, uint32(w>>(8*j)), i+j, found); !on || err != nil {
				return false, err
			}
		}
	}
	for ; i < to; i++ {
		if on, err := s.look(m, binary.LittleEndian.Uint32(data[i:])|fold, i, found); !on || err != nil {
			return false, err
		}
	}
	return true, nil
}

// look tries what has four folded bytes for an anchor.
func (s *Scanner) look(m *matcher, g uint32, at int, found func(Match) bool) (on bool, err error) {
	for _, t := range s.index.find(g, hash(g)) {
		if t.shape < 0 {
			m.gates[t.slow-1] = true
		} else if on, err := s.try(m, t, at, found); !on || err != nil {
			return false, err
		}
	}
	return true, nil
}

// try tries a shape at every start that puts its anchor at a place.
func (s *Scanner) try(m *matcher, t target, at int, found func(Match) bool) (on bool, err error) {
	sh := &s.shapes[t.shape]
	for start := at - int(t.hi); start <= at-int(t.lo); start++ {
		if start < 0 || !sh.rule.mayBegin(m.data, start) {
			continue
		}
		m.work += len(sh.items)
		end, ok := m.match(sh, start)
		if m.work > m.limit {
			return false, ErrBudget
		}
		if ok && sh.rule.accepts(m.data, start, end, m.value) {
			if !found(Match{Rule: sh.rule, Start: m.value.start, End: m.value.end}) {
				return false, nil
			}
		}
	}
	return true, nil
}

func (s *Scanner) scanSlow(ctx context.Context, m *matcher, found func(Match) bool) error {
	for i := range s.slow {
		r := &s.slow[i]
		if r.gated && !m.gates[i] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if at := r.re.FindIndex(m.data); at != nil && !found(Match{Rule: r.rule, Start: at[0], End: at[1]}) {
			return nil
		}
	}
	return nil
}
