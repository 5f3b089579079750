package scan

import (
	"errors"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds on what one pattern may become.
const (
	maxShapes = 64
	maxUnroll = 16
	unlimited = 1 << 30
)

// errNoShape says that a pattern is no sequence of literals and classes.
var errNoShape = errors.New("it has no shape")

// shape is one way to match a rule: its items one after the other.
type shape struct {
	rule  *Rule
	items []item
}

// item is one part of a shape. Exactly one of literal, class, assert and mark
// is set.
type item struct {
	literal string
	class   *class
	min     int
	max     int
	lazy    bool // fewest first
	alone   bool // one count fits at most: what follows begins with none of the class
	assert  syntax.EmptyOp
	mark    mark
}

// mark is the place where the first group begins or ends.
type mark uint8

const (
	markStart mark = iota + 1
	markEnd
)

// class is a set of bytes, all of them ASCII. Classes are shared, so that what
// is known of a run of one can be kept.
type class struct {
	has [256]bool
	set *byteSet
	run int // where matcher.runs has its run; -1 for none
}

func (c *class) meets(d *class) bool {
	for b := range c.has {
		if c.has[b] && d.has[b] {
			return true
		}
	}
	return false
}

// classes are the different classes of a scanner.
type classes struct {
	all  map[[256]bool]*class
	runs int
}

// get returns the one class with these members. Long runs get a place where
// they are remembered.
func (cs *classes) get(has [256]bool, long bool) *class {
	c := cs.all[has]
	if c == nil {
		if cs.all == nil {
			cs.all = make(map[[256]bool]*class)
		}
		c = &class{has: has, set: newByteSet(&has), run: -1}
		cs.all[has] = c
	}
	if long && c.run < 0 && cs.runs < maxRuns {
		c.run = cs.runs
		cs.runs++
	}
	return c
}

// parsePattern reads RE2. Ignoring case is for ASCII alone: the two letters
// outside of it that fold to k and s are the business of decoding.
func parsePattern(p string) (*syntax.Regexp, error) {
	re, err := syntax.Parse(p, syntax.Perl)
	if err != nil {
		return nil, err
	}
	return asciiFold(re), nil
}

func asciiFold(re *syntax.Regexp) *syntax.Regexp {
	for i, sub := range re.Sub {
		re.Sub[i] = asciiFold(sub)
	}
	switch {
	case re.Op == syntax.OpCharClass:
		re.Rune = withoutFolds(re.Rune)
	case re.Op == syntax.OpLiteral && re.Flags&syntax.FoldCase != 0:
		cat := &syntax.Regexp{Op: syntax.OpConcat}
		for _, r := range re.Rune {
			cat.Sub = append(cat.Sub, foldRune(r))
		}
		return cat
	}
	return re
}

func foldRune(r rune) *syntax.Regexp {
	up, low := r&^0x20, r|0x20
	if low < 'a' || low > 'z' {
		flags := syntax.Flags(0)
		if r >= utf8.RuneSelf {
			flags = syntax.FoldCase
		}
		return &syntax.Regexp{Op: syntax.OpLiteral, Rune: []rune{r}, Flags: flags}
	}
	return &syntax.Regexp{Op: syntax.OpCharClass, Rune: []rune{up, up, low, low}}
}

// withoutFolds removes U+017F and U+212A from a class that has nothing else
// outside of ASCII: they are there only because of (?i).
func withoutFolds(pairs []rune) []rune {
	var out []rune
	for i := 0; i < len(pairs); i += 2 {
		lo, hi := pairs[i], pairs[i+1]
		switch {
		case hi < utf8.RuneSelf:
			out = append(out, lo, hi)
		case lo != hi || lo != 0x17f && lo != 0x212a:
			return pairs
		}
	}
	return out
}

// shapesOf expands a pattern into shapes, in the order in which RE2 prefers
// them. It returns errNoShape for what needs more: bytes outside of ASCII in
// a class, and repeated groups without an end.
func shapesOf(re *syntax.Regexp, cs *classes) ([]shape, error) {
	lists, err := expand(re, cs)
	if err != nil {
		return nil, err
	}
	shapes := make([]shape, len(lists))
	for i, items := range lists {
		shapes[i] = shape{items: finish(items)}
	}
	return shapes, nil
}

func expand(re *syntax.Regexp, cs *classes) ([][]item, error) {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return [][]item{nil}, nil
	case syntax.OpLiteral:
		return expandLiteral(re)
	case syntax.OpCharClass:
		has, ok := members(re.Rune)
		if !ok {
			return nil, errNoShape
		}
		return [][]item{{{class: cs.get(has, false), min: 1, max: 1}}}, nil
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return [][]item{{{assert: asserts[re.Op]}}}, nil
	case syntax.OpCapture:
		lists, err := expand(re.Sub[0], cs)
		if re.Cap != 1 || err != nil {
			return lists, err
		}
		return product([][]item{{{mark: markStart}}}, lists, [][]item{{{mark: markEnd}}})
	case syntax.OpStar:
		return repeat(re, 0, -1, cs)
	case syntax.OpPlus:
		return repeat(re, 1, -1, cs)
	case syntax.OpQuest:
		return repeat(re, 0, 1, cs)
	case syntax.OpRepeat:
		return repeat(re, re.Min, re.Max, cs)
	case syntax.OpConcat:
		return expandAll(re.Sub, cs)
	case syntax.OpAlternate:
		var out [][]item
		for _, sub := range re.Sub {
			lists, err := expand(sub, cs)
			if err != nil || len(out)+len(lists) > maxShapes {
				return nil, errNoShape
			}
			out = append(out, lists...)
		}
		return out, nil
	default:
		return nil, errNoShape
	}
}

var asserts = map[syntax.Op]syntax.EmptyOp{
	syntax.OpBeginLine:      syntax.EmptyBeginLine,
	syntax.OpEndLine:        syntax.EmptyEndLine,
	syntax.OpBeginText:      syntax.EmptyBeginText,
	syntax.OpEndText:        syntax.EmptyEndText,
	syntax.OpWordBoundary:   syntax.EmptyWordBoundary,
	syntax.OpNoWordBoundary: syntax.EmptyNoWordBoundary,
}

func expandLiteral(re *syntax.Regexp) ([][]item, error) {
	if re.Flags&syntax.FoldCase != 0 || slices.Contains(re.Rune, utf8.RuneError) {
		return nil, errNoShape
	}
	return [][]item{{{literal: string(re.Rune)}}}, nil
}

// members turns the pairs of a class into a set, if all of it is ASCII.
func members(pairs []rune) (has [256]bool, ok bool) {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] >= utf8.RuneSelf {
			return has, false
		}
		for r := pairs[i]; r <= pairs[i+1]; r++ {
			has[r] = true
		}
	}
	return has, true
}

func expandAll(subs []*syntax.Regexp, cs *classes) ([][]item, error) {
	parts := make([][][]item, len(subs))
	for i, sub := range subs {
		var err error
		if parts[i], err = expand(sub, cs); err != nil {
			return nil, err
		}
	}
	return product(parts...)
}

// product joins every choice of the first part with every choice of the next.
func product(parts ...[][]item) ([][]item, error) {
	out := [][]item{nil}
	for _, part := range parts {
		if len(out)*len(part) > maxShapes {
			return nil, errNoShape
		}
		var next [][]item
		for _, head := range out {
			for _, tail := range part {
				next = append(next, append(slices.Clip(head), tail...))
			}
		}
		out = next
	}
	return out, nil
}

// repeat counts a single byte, and writes a group with few repeats out.
func repeat(re *syntax.Regexp, lo, hi int, cs *classes) ([][]item, error) {
	if hi == 0 {
		return [][]item{nil}, nil
	}
	lazy := re.Flags&syntax.NonGreedy != 0
	lists, err := expand(re.Sub[0], cs)
	if err != nil {
		return nil, err
	}
	if it, ok := single(lists, cs); ok {
		if lo == hi && len(lists[0][0].literal) == 1 {
			return [][]item{{{literal: strings.Repeat(lists[0][0].literal, lo)}}}, nil
		}
		it.min, it.max, it.lazy = lo, hi, lazy
		if hi < 0 {
			it.max = unlimited
		}
		it.class = cs.get(it.class.has, it.max > longRun)
		return [][]item{{it}}, nil
	}
	if hi < 0 || hi > maxUnroll {
		return nil, errNoShape
	}
	var out [][]item
	for n := lo; n <= hi; n++ {
		parts := make([][][]item, n)
		for i := range parts {
			parts[i] = lists
		}
		more, err := product(parts...)
		if err != nil || len(out)+len(more) > maxShapes {
			return nil, errNoShape
		}
		if lazy {
			out = append(out, more...)
		} else {
			out = append(more, out...)
		}
	}
	return out, nil
}

// single reports whether what is repeated is one byte of a class.
func single(lists [][]item, cs *classes) (item, bool) {
	if len(lists) != 1 || len(lists[0]) != 1 {
		return item{}, false
	}
	it := lists[0][0]
	if len(it.literal) == 1 {
		var has [256]bool
		has[it.literal[0]] = true
		return item{class: cs.get(has, false)}, true
	}
	return it, it.class != nil && it.min == 1 && it.max == 1
}

// finish joins neighbouring literals, and finds the items for which one count
// fits at most, so that matching need not go back to them.
func finish(items []item) []item {
	var out []item
	for _, it := range items {
		if last := len(out) - 1; it.literal != "" && last >= 0 && out[last].literal != "" {
			out[last].literal += it.literal
			continue
		}
		out = append(out, it)
	}
	for i := range out {
		if c := out[i].class; c != nil {
			out[i].alone = out[i].min == out[i].max || settled(&out[i], out[i+1:])
		}
	}
	return out
}

// settled reports whether the first count that is tried decides: nothing that
// may follow begins with a byte of the class, or nothing has to follow.
func settled(it *item, rest []item) bool {
	for i := range rest {
		next := &rest[i]
		switch {
		case next.mark != 0:
			continue
		case next.assert != 0:
			return false
		case next.literal != "":
			return !it.class.has[next.literal[0]]
		case it.class.meets(next.class):
			return false
		case next.min > 0:
			return true
		}
	}
	return true
}
