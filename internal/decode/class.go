package decode

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// class says what a byte can be a part of.
type class uint8

const (
	base64Class  class = 1 << iota // either alphabet, without padding
	hexClass                       //
	upper32Class                   // base32
	lower32Class                   //
	textClass                      // printable ASCII, tab, CR, LF
	breakClass                     // ends a token: white space, controls, quotes, angle brackets
	wakeClass                      // a text that holds one is looked at closely
	maybeClass                     // the same, if what is around it fits
)

const (
	minRun      = 16 // digits of base64, base32 or hex in a row
	minFragment = 8  // readable bytes that are a find: no secret is shorter
)

var classes = func() (t [256]class) {
	mark := func(c class, from, to byte) {
		for b := int(from); b <= int(to); b++ {
			t[b] |= c
		}
	}
	mark(textClass, 0x20, 0x7e)
	mark(breakClass|wakeClass, 0, 0x20)
	mark(wakeClass, 0x7f, 0xff)
	for _, b := range "\t\r\n " {
		t[b] |= textClass
		t[b] &^= wakeClass
	}
	for _, b := range "\"'`<>\x7f" {
		t[b] |= breakClass
	}
	for _, b := range `%\` {
		t[b] |= wakeClass
	}
	for _, b := range "&=+x" {
		t[b] |= maybeClass
	}
	mark(base64Class, 'A', 'Z')
	mark(base64Class, 'a', 'z')
	mark(base64Class|hexClass, '0', '9')
	for _, b := range "+/-_" {
		t[b] |= base64Class
	}
	mark(hexClass, 'a', 'f')
	mark(hexClass, 'A', 'F')
	mark(upper32Class, 'A', 'Z')
	mark(lower32Class, 'a', 'z')
	mark(upper32Class|lower32Class, '2', '7')
	return t
}()

func is(b byte, c class) bool { return classes[b]&c != 0 }

// Plain reports that nothing in a text can decode to anything, so that its
// tree is the text alone. It may miss that, but never the contrary. It is meant
// for the many short texts of a request's head.
func Plain(b []byte) bool {
	var seen class
	for _, c := range b {
		seen |= classes[c]
	}
	if seen&wakeClass != 0 {
		return false
	}
	if seen&maybeClass != 0 && (mayRefer(b) || looksLikeForm(b) || findQuoted(b, 0) >= 0 || findPrefixed(b, 0) >= 0) {
		return false
	}
	if len(b) < minRun {
		return !isBasic(b)
	}
	for from := 0; ; {
		s, e := nextRun(b, from, base64Class, minRun)
		if s < 0 {
			break
		}
		if !dull(b[s:e]) || e < len(b) && (b[e] == '\n' || b[e] == '\r') {
			return false
		}
		from = e
	}
	return findPairs(b, 0) < 0 && !isBasic(b)
}

// nextRun returns the next maximal run of at least n bytes of a class, or -1.
// It looks at the last byte that a run of n would need first, so that it
// touches few bytes of ordinary text.
func nextRun(b []byte, from int, c class, n int) (start, end int) {
	for s := from; s+n <= len(b); {
		j := s + n - 1
		for j >= s && is(b[j], c) {
			j--
		}
		if j >= s {
			s = j + 1
			continue
		}
		e := s + n
		for e < len(b) && is(b[e], c) {
			e++
		}
		return s, e
	}
	return -1, -1
}

const (
	lows  = 0x0101010101010101
	highs = 0x8080808080808080
)

// zeros has the high bit set in the lowest zero byte of x; bits above it are
// not to be trusted.
func zeros(x uint64) uint64 { return (x - lows) &^ x & highs }

// marks walks over the places of a text at which an escape can begin. Each of
// the three bytes is looked for by itself: two of them are rare, and found once.
type marks struct {
	b    []byte
	next [3]int
}

func newMarks(b []byte) marks { return marks{b: b, next: [3]int{-1, -1, -1}} }

// from returns the next place at i or behind it, or len(b). What it is given
// must not decrease.
func (m *marks) from(i int) int {
	first := len(m.b)
	for k, c := range [3]byte{'%', '&', '\\'} {
		n := m.next[k]
		if n < i {
			if n = indexByte(m.b, i, c); n < 0 {
				n = len(m.b)
			}
			m.next[k] = n
		}
		first = min(first, n)
	}
	return first
}

// nextHigh returns the next byte that is not ASCII, or len(b).
func nextHigh(b []byte, i int) int {
	for ; i+32 <= len(b); i += 32 {
		x := binary.LittleEndian.Uint64(b[i:]) | binary.LittleEndian.Uint64(b[i+8:]) |
			binary.LittleEndian.Uint64(b[i+16:]) | binary.LittleEndian.Uint64(b[i+24:])
		if x&highs != 0 {
			break
		}
	}
	for ; i+8 <= len(b); i += 8 {
		if m := binary.LittleEndian.Uint64(b[i:]) & highs; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for i < len(b) && b[i] < utf8.RuneSelf {
		i++
	}
	return i
}

// readable reports that b could be read by a human: no control characters but
// line ends, and UTF-8. NUL is let through, for UTF-16.
func readable(b []byte) bool {
	high := false
	for _, c := range b {
		if !is(c, textClass) {
			if c != 0 && c < utf8.RuneSelf {
				return false
			}
			high = high || c != 0
		}
	}
	return !high || utf8.Valid(b)
}

// inText reports that at least minFragment bytes of text stand together around
// a position, or all of b: less than that hides nothing, and noise is full of
// it.
func inText(b []byte, i int) bool {
	n, back := 0, i
	for back > 0 && n < minFragment {
		size := textBefore(b[:back])
		if size == 0 {
			break
		}
		back -= size
		n += size
	}
	for i < len(b) && n < minFragment {
		size := textAt(b[i:])
		if size == 0 {
			return false
		}
		i += size
		n += size
	}
	return n >= minFragment || back == 0
}

// textAt returns the length of the character at the start of b, 0 where there
// is none that one could read.
func textAt(b []byte) int {
	if b[0] < utf8.RuneSelf {
		return int(classes[b[0]] & textClass / textClass)
	}
	r, size := utf8.DecodeRune(b)
	if r == utf8.RuneError {
		return 0
	}
	return size
}

func textBefore(b []byte) int {
	if last := b[len(b)-1]; last < utf8.RuneSelf {
		return int(classes[last] & textClass / textClass)
	}
	r, size := utf8.DecodeLastRune(b)
	if r == utf8.RuneError {
		return 0
	}
	return size
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// hexNumber reads exactly n hexadecimal digits at b[i:], or returns -1.
func hexNumber(b []byte, i, n int) int {
	if i+n > len(b) {
		return -1
	}
	v := 0
	for _, c := range b[i : i+n] {
		h := hexValue(c)
		if h < 0 {
			return -1
		}
		v = v<<4 | h
	}
	return v
}

// indexByte is bytes.IndexByte from a position on.
func indexByte(b []byte, from int, c byte) int {
	if from >= len(b) {
		return -1
	}
	if n := bytes.IndexByte(b[from:], c); n >= 0 {
		return from + n
	}
	return -1
}
