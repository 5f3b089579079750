package inject

import (
	"html"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// escapes says which escapes a reading understands.
type escapes uint8

const (
	percent   escapes = 1 << iota // %41 (RFC 3986 section 2.1)
	backslash                     // \n, \/, \x41, \u0041, \u{41} (RFC 8259 section 7, and what languages print)
	reference                     // &#65; &#x41; &amp; (HTML section 13.5)
)

const allEscapes = percent | backslash | reference

// levels is how many escapes may lie on top of one another: JSON in JSON in
// JSON, or a percent sign of a percent sign.
const levels = 3

// The longest number and name in a reference that are read.
const (
	maxDigits = 10
	maxName   = 32
)

// view is a text that is read character by character, each in several ways.
type view struct {
	b       []byte
	final   bool // nothing follows b
	escapes escapes
}

// char is one reading of a character.
type char struct {
	b    [utf8.UTFMax]byte
	n    uint8  // bytes in b; 0 at the end
	code bool   // b came from the number of a code point
	open bool   // a reference without its semicolon
	size uint16 // bytes of the text
}

func (c char) is(b byte) bool { return c.n == 1 && c.b[0] == b }

// latin returns the byte that a code point is in ISO 8859-1.
func (c char) latin() (byte, bool) {
	if !c.code || c.n != 2 {
		return 0, false
	}
	r, _ := utf8.DecodeRune(c.b[:2])
	return byte(r), r <= 0xff
}

// escapeBytes are the bytes that may begin an escape.
var escapeBytes = [256]escapes{'%': percent, '\\': backslash, '&': reference}

// read reads the character at pos with at most level escapes on top of one
// another. more is set when the text must go on first.
func (v *view) read(pos, level int) (c char, more bool) {
	if c, more = v.raw(pos); c.n == 0 || level == 0 {
		return c, more
	}
	for l := range level {
		if !v.begins(c) {
			break
		}
		if c, _, more = v.unescape(c, pos, l); more {
			return char{}, true
		}
	}
	return c, false
}

// readings are the different ways in which a character can be read: as it is,
// by each level, and at each but the last in a second way.
type readings struct {
	c [2*levels + 1]char
	n int
}

// all reads the character at pos in every way up to level. There is none at the
// end.
func (v *view) all(pos, level int) (out readings, more bool) {
	c, more := v.raw(pos)
	if c.n == 0 {
		return out, more
	}
	out.c[0], out.n = c, 1
	more = v.expand(&out, c, pos, 0, level)
	return out, more
}

// expand adds the readings of which c, the character at pos, is the first of an
// escape, with from and up to level escapes on top of one another.
func (v *view) expand(out *readings, c char, pos, from, level int) (more bool) {
	for l := from; l < level; l++ {
		if !v.begins(c) {
			break
		}
		next, changed, more := v.unescape(c, pos, l)
		if more {
			return true
		}
		if !changed {
			continue
		}
		if next.open && v.closed(out, c, next.size, pos, l+1, level) {
			return true
		}
		c = next
		out.add(c)
	}
	return false
}

// closed adds the readings of a reference whose semicolon is escaped further
// than the rest of it, as in a path, where & needs no escape and ; does.
func (v *view) closed(out *readings, c char, size uint16, pos, from, level int) (more bool) {
	for l := from; l < level; l++ {
		next, changed, more := v.unescape(c, pos, l)
		if more {
			return true
		}
		if changed && next.size != size {
			out.add(next)
			return v.expand(out, next, pos, l+1, level)
		}
	}
	return false
}

func (r *readings) add(c char) {
	if r.n < len(r.c) {
		r.c[r.n] = c
		r.n++
	}
}

func (v *view) raw(pos int) (c char, more bool) {
	if pos >= len(v.b) {
		return char{}, !v.final
	}
	return char{b: [4]byte{v.b[pos]}, n: 1, size: 1}, false
}

// begins reports whether a character may be the first of an escape.
func (v *view) begins(c char) bool { return c.n == 1 && escapeBytes[c.b[0]]&v.escapes != 0 }

// unescape reads the escape that c, the character at pos, is the first of. What
// follows is read with level escapes on top of one another.
func (v *view) unescape(c char, pos, level int) (out char, changed, more bool) {
	p := parser{v: v, pos: pos + int(c.size), level: level}
	var r rune
	kind := escapeBytes[c.b[0]]
	switch kind {
	case percent:
		r = p.hex(2)
	case backslash:
		r = p.backslash()
	case reference:
		r = p.reference()
	}
	if p.more || r < 0 {
		return c, false, p.more
	}
	return p.char(r, kind == percent || p.byte, pos), true, false
}

// parser reads what follows the first character of an escape, one level down.
type parser struct {
	v     *view
	pos   int
	level int
	more  bool
	byte  bool // the result is a byte and no code point
	open  bool // it is a reference without its semicolon
}

const none rune = -1

func (p *parser) char(r rune, isByte bool, from int) char {
	c := char{size: uint16(p.pos - from), open: p.open}
	if isByte || r < 0x80 {
		c.b[0], c.n = byte(r), 1
		return c
	}
	c.n, c.code = uint8(utf8.EncodeRune(c.b[:], r)), true
	return c
}

// next takes one character, and returns none for those that are no ASCII.
func (p *parser) next() rune {
	if at := p.pos; at < len(p.v.b) && escapeBytes[p.v.b[at]] == 0 {
		if c := p.v.b[at]; c < 0x80 {
			p.pos++
			return rune(c)
		}
		return none
	}
	c, more := p.v.read(p.pos, p.level)
	if p.more = p.more || more; more || c.n != 1 || c.b[0] >= 0x80 {
		return none
	}
	p.pos += int(c.size)
	return rune(c.b[0])
}

// peek is next that takes nothing.
func (p *parser) peek() rune {
	at := p.pos
	r := p.next()
	p.pos = at
	return r
}

// hex reads exactly n digits.
func (p *parser) hex(n int) rune {
	var r rune
	for range n {
		d := unhex(p.next())
		if d < 0 {
			return none
		}
		r = r<<4 | d
	}
	return r
}

func unhex(r rune) rune {
	switch {
	case '0' <= r && r <= '9':
		return r - '0'
	case 'a' <= r && r <= 'f':
		return r - 'a' + 10
	case 'A' <= r && r <= 'F':
		return r - 'A' + 10
	}
	return none
}

// simple holds what a backslash and one character stand for: punctuation for
// itself, letters for a control character, and 0xff for nothing.
var simple = func() (t [256]byte) {
	for c := range t {
		t[c] = 0xff
		if ' ' <= c && c <= '/' || ':' <= c && c <= '@' || '[' <= c && c <= '`' || '{' <= c && c <= '~' {
			t[c] = byte(c)
		}
	}
	for i, c := range "0abtnvfr" {
		t[c] = []byte("\x00\a\b\t\n\v\f\r")[i]
	}
	t['e'] = 0x1b
	return t
}()

func (p *parser) backslash() rune {
	switch r := p.next(); r {
	case none:
		return none
	case 'u':
		return p.unicode()
	case 'U':
		return p.codePoint(p.hex(8))
	case 'x':
		p.byte = true
		return p.hex(2)
	default:
		if c := simple[r]; c != 0xff {
			return rune(c)
		}
		return none
	}
}

func (p *parser) codePoint(r rune) rune {
	if r > utf8.MaxRune || r < 0 {
		return none
	}
	return r
}

// unicode reads what follows \u: four digits, of which two in a row may be a
// surrogate pair, or any number in braces.
func (p *parser) unicode() rune {
	if p.peek() == '{' {
		p.next()
		r := p.number(16)
		if p.next() != '}' {
			return none
		}
		return r
	}
	high := p.hex(4)
	if high < 0 || !utf16.IsSurrogate(high) {
		return high
	}
	at := p.pos
	if p.next() == '\\' && p.next() == 'u' {
		if r := utf16.DecodeRune(high, p.hex(4)); r != utf8.RuneError {
			return r
		}
	}
	p.pos = at
	return utf8.RuneError
}

// number reads one digit or more.
func (p *parser) number(base rune) rune {
	var r rune
	for i := 0; ; i++ {
		d := unhex(p.peek())
		if d < 0 || d >= base {
			if i == 0 {
				return none
			}
			return r
		}
		if r = r*base + d; r > utf8.MaxRune || i >= maxDigits {
			return none
		}
		p.next()
	}
}

// reference reads what follows &. The semicolon may be missing after a number
// and after the oldest names, as browsers have it.
func (p *parser) reference() rune {
	if p.peek() != '#' {
		return p.named()
	}
	p.next()
	base := rune(10)
	if r := p.peek(); r == 'x' || r == 'X' {
		p.next()
		base = 16
	}
	r := p.number(base)
	if r < 0 {
		return r
	}
	if p.open = p.peek() != ';'; !p.open {
		p.next()
	}
	return r
}

// oldName looks up the names that need no semicolon.
func oldName(name []byte) rune {
	switch string(name) {
	case "amp", "AMP":
		return '&'
	case "lt", "LT":
		return '<'
	case "gt", "GT":
		return '>'
	case "quot", "QUOT":
		return '"'
	}
	return none
}

func (p *parser) named() rune {
	var room [maxName + 1]byte
	name := room[:0]
	oldest, end := none, 0
	for len(name) <= maxName {
		r := p.next()
		if r == ';' {
			if r := entity(name); r >= 0 {
				return r
			}
		}
		if letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'; !letter {
			break
		}
		name = append(name, byte(r))
		if r := oldName(name); r >= 0 {
			oldest, end = r, p.pos
		}
	}
	if oldest >= 0 && !p.more {
		p.pos, p.open = end, true
		return oldest
	}
	return none
}

// entity looks a name up. Those of two code points stand for nothing here.
func entity(name []byte) rune {
	if r := oldName(name); r >= 0 {
		return r
	}
	if string(name) == "nbsp" {
		return 0xa0 // by far the most frequent one
	}
	s := html.UnescapeString("&" + string(name) + ";")
	r, size := utf8.DecodeRuneInString(s)
	if size != len(s) || strings.HasPrefix(s, "&") {
		return none
	}
	return r
}

// glance reads the escape at the front of b, of three bytes or more, when it is
// of the simplest kinds. sure is set when every reading of it is that character
// or the first of b.
func glance(b []byte) (c byte, sure bool) {
	next := b[1]
	if next == '\\' && b[0] == next {
		next = b[2] // in JSON in JSON; the other reading is b[0]
	}
	if escapeBytes[next] != 0 {
		return 0, false
	}
	c = b[0]
	switch c {
	case '\\':
		if next == 'u' || next == 'U' || next == 'x' {
			return 0, false
		}
		if simple[next] != 0xff {
			c = simple[next]
		}
	case '%':
		high, low := unhex(rune(next)), unhex(rune(b[2]))
		if high < 0 {
			break
		}
		if low < 0 {
			return c, escapeBytes[b[2]] == 0
		}
		c = byte(high<<4 | low)
		return c, escapeBytes[c] == 0
	case '&':
		if next == '#' || 'a' <= next && next <= 'z' || 'A' <= next && next <= 'Z' {
			return 0, false
		}
	}
	return c, true
}
