package decode

import (
	"bytes"
	"html"
	"unicode/utf16"
	"unicode/utf8"
)

// inline are the kinds that escapes rewrites, each with a bit of its own.
var inline = [3]Kind{Percent, JSON, HTML}

const (
	percentBit = 1 << iota
	jsonBit
	htmlBit
)

// escapes undoes percent, JSON's escapes and character references in one go.
//
// In a token that holds several of them, one may be bait that eats the first
// characters of a secret before the other uncovers the rest: %fc-\u0061… So
// such a token is read as each of them alone, too, and what comes out is worked
// on like any other layer. Whatever the order in which somebody wrapped it, one
// of the layers then is what he gets.
func (d *decoder) escapes(p int) {
	src := d.layers[p].Data
	d.covered, d.baits, d.mixed, d.listed = d.covered[:0], d.baits[:0], d.mixed[:0], false
	text := pieces{around: wideContext, spans: &d.covered}
	noisy := d.high < len(src) // noise is never ASCII alone
	bits, lastBit, lastStart, lastEnd := 0, 0, 0, -minFragment
	m := newMarks(src)
	for i := m.from(0); i < len(src); i = m.from(i) {
		n, bit := 2, jsonBit
		if src[i] == '\\' && i+1 < len(src) && plainEscapes[src[i+1]] != 0 { // nearly all there are
			d.escape = append(d.escape[:0], plainEscapes[src[i+1]])
		} else {
			n, bit = d.readEscape(src, i, percentBit|jsonBit|htmlBit)
		}
		if bit == 0 || noisy && i-lastEnd >= minFragment && !inText(src, i) {
			i += n
			continue
		}
		text.reach(src, i)
		text.put(d.escape, i+n)
		bits |= bit
		d.bait(src, i+1, i+n)
		if is(src[i+n-1], breakClass) { // \" and the like end a token
			lastBit = 0
		} else {
			if lastBit != 0 && lastBit != bit {
				d.mix(src, lastStart, lastEnd, i, i+n)
			}
			lastBit, lastStart = bit, i
		}
		lastEnd = i + n
		i = lastEnd
	}
	if bits == 0 {
		return
	}
	d.add(text.take(src, kindOf(bits), p))
	if len(d.mixed) > 0 {
		d.alone(p, src)
	}
}

// bait notes what an escape took its first characters from, if that is a run of
// digits or a list with something to find right at its beginning: where the
// escape is undone, the beginning is lost.
func (d *decoder) bait(src []byte, i, end int) {
	for i < end && (src[i] == '\\' || src[i] == '#') {
		i++
	}
	if i+minRun > len(src) {
		return
	}
	if isPair(src, i) || src[i] == '0' && src[i+1] == 'x' {
		d.listed = true
	}
	run := src[i : i+minRun]
	if !is(run[minRun-1], base64Class) || !is(run[minRun/2], base64Class) || !is(run[0], base64Class) {
		return
	}
	for o := 0; o < min(end-i, 4); o++ {
		if sixBits[run[o]]&0x30 == 0x20 {
			continue // the byte would be the middle of a character
		}
		if couldRead64(run[o:]) || couldBegin64(run[o:]) {
			d.baits = append(d.baits, i)
			return
		}
	}
	for _, c := range [...]class{hexClass, upper32Class, lower32Class} {
		if s, _ := nextRun(run, 0, c, minRun); s >= 0 {
			d.baits = append(d.baits, i)
			return
		}
	}
}

func kindOf(bits int) Kind {
	for k, kind := range inline {
		if bits == 1<<k {
			return kind
		}
	}
	return Escapes
}

// mix notes the token around two neighbouring escapes of different kinds, if
// they are in one.
func (d *decoder) mix(src []byte, lastStart, lastEnd, start, end int) {
	low := 0
	if n := len(d.mixed); n > 0 {
		low = d.mixed[n-1].end
	}
	if start < low {
		return // in the token that was noted last
	}
	for i := max(lastEnd, low); i < start; i++ {
		if is(src[i], breakClass) {
			return
		}
	}
	s := max(lastStart, low)
	for s > low && !is(src[s-1], breakClass) {
		s--
	}
	for end < len(src) && !is(src[end], breakClass) {
		end++
	}
	d.mixed = append(d.mixed, span{s, end})
}

// alone reads the tokens with several kinds of escapes as each kind alone.
func (d *decoder) alone(p int, src []byte) {
	for k, kind := range inline {
		f, used := pieces{around: tightContext}, 0
		for _, m := range d.mixed {
			f.reach(src, m.start)
			f.pos = m.start
			token := src[:m.end]
			marks := newMarks(token)
			for i := marks.from(m.start); i < m.end; i = marks.from(i) {
				n, bit := d.readEscape(token, i, 1<<k)
				if bit != 0 {
					f.out = append(f.out, src[f.pos:i]...)
					f.put(d.escape, i+n)
				}
				used |= bit
				i += n
			}
		}
		l := f.take(src, kind, p)
		if used != 0 {
			d.add(l)
		}
	}
}

// readEscape reads what stands at one of % & \ into d.escape. It returns how
// many bytes it looked at, and whose escape it is: 0 for none.
func (d *decoder) readEscape(b []byte, i, want int) (n, bit int) {
	d.escape = d.escape[:0]
	switch b[i] {
	case '%':
		bit, n = percentBit, d.percent(b, i)
	case '&':
		bit, n = htmlBit, d.reference(b, i)
	default:
		return d.backslashes(b, i, want)
	}
	if n == 0 || want&bit == 0 {
		return 1, 0
	}
	return n, bit
}

// percent reads %41 and %u0041, which some servers take.
func (d *decoder) percent(b []byte, i int) int {
	if i+1 < len(b) && (b[i+1] == 'u' || b[i+1] == 'U') {
		return d.unit(b, i, 2)
	}
	v := hexNumber(b, i+1, 2)
	if v < 0 {
		return 0
	}
	d.escape = append(d.escape, byte(v))
	return 3
}

// unit reads four hexadecimal digits behind an introduction of the length
// given, and those of the other half of a surrogate pair.
func (d *decoder) unit(b []byte, i, intro int) int {
	v := hexNumber(b, i+intro, 4)
	if v < 0 {
		return 0
	}
	n := intro + 4
	if next := i + n; utf16.IsSurrogate(rune(v)) && next+intro <= len(b) && string(b[next:next+intro]) == string(b[i:i+intro]) {
		if low := hexNumber(b, next+intro, 4); low >= 0 {
			if r := utf16.DecodeRune(rune(v), rune(low)); r != utf8.RuneError {
				d.escape = utf8.AppendRune(d.escape, r)
				return 2 * n
			}
		}
	}
	d.escape = utf8.AppendRune(d.escape, rune(v))
	return n
}

// backslashes reads a run of them with the escape at its end. Of an even run
// only the pairs are undone, and nothing of one behind which no digit or letter
// can become something else, so that a drawing made of backslashes is no
// nesting.
func (d *decoder) backslashes(b []byte, i, want int) (n, bit int) {
	run := 1
	for i+run < len(b) && b[i+run] == '\\' {
		run++
	}
	last := i + run - 1
	n = d.backslash(b, last)
	even := run%2 == 0
	if n == 0 || want&jsonBit == 0 || even && !is(b[last+1], base64Class) {
		d.escape = d.escape[:0]
		return run, 0
	}
	if run == 1 {
		return n, jsonBit
	}
	one := string(d.escape)
	d.escape = append(d.escape[:0], b[i:i+run/2]...)
	if even {
		return run, jsonBit
	}
	d.escape = append(d.escape, one...)
	return run - 1 + n, jsonBit
}

// plainEscapes are the escapes of one letter in JSON (RFC 8259 section 7),
// JavaScript and C.
var plainEscapes = [256]byte{
	'"': '"', '\'': '\'', '`': '`', '/': '/',
	'a': 7, 'b': 8, 't': 9, 'n': 10, 'v': 11, 'f': 12, 'r': 13,
}

// backslash reads one escape, and returns its length, 0 for none.
func (d *decoder) backslash(b []byte, i int) int {
	if i+1 == len(b) {
		return 0
	}
	c := b[i+1]
	if e := plainEscapes[c]; e != 0 {
		d.escape = append(d.escape, e)
		return 2
	}
	switch c {
	case 'u':
		if i+2 < len(b) && b[i+2] == '{' {
			return d.braces(b, i)
		}
		return d.unit(b, i, 2)
	case 'U':
		return d.char(hexNumber(b, i+2, 8), 10)
	case 'x':
		if v := hexNumber(b, i+2, 2); v >= 0 {
			d.escape = append(d.escape, byte(v))
			return 4
		}
	case '\n': // a line that is continued
		return 2
	}
	if c >= '0' && c <= '3' {
		return d.octal(b, i)
	}
	return 0
}

func (d *decoder) char(v, n int) int {
	if v < 0 || v > utf8.MaxRune {
		return 0
	}
	d.escape = utf8.AppendRune(d.escape, rune(v))
	return n
}

// braces reads \u{1F600}.
func (d *decoder) braces(b []byte, i int) int {
	for n := 1; n <= 6; n++ {
		if end := i + 3 + n; end < len(b) && b[end] == '}' {
			return d.char(hexNumber(b, i+3, n), n+4)
		}
	}
	return 0
}

// octal reads \101, and \0.
func (d *decoder) octal(b []byte, i int) int {
	v, n := 0, 1
	for n < 4 && i+n < len(b) && b[i+n] >= '0' && b[i+n] <= '7' {
		v = v<<3 | int(b[i+n]-'0')
		n++
	}
	if n != 4 && (n != 2 || v != 0) {
		return 0
	}
	d.escape = append(d.escape, byte(v))
	return n
}

// mayRefer reports that b can hold a character reference.
func mayRefer(b []byte) bool {
	i := bytes.IndexByte(b, '&')
	return i >= 0 && (bytes.IndexByte(b[i:], ';') > 0 || bytes.Contains(b[i:], []byte("&#")))
}

// reference reads a character reference of HTML, a named one only with its
// semicolon: without, a query's &copy=1 would be one.
func (d *decoder) reference(b []byte, i int) int {
	const longest = 33
	if i+2 >= len(b) {
		return 0
	}
	if b[i+1] == '#' {
		return d.numeric(b, i)
	}
	n := 1
	for n < longest && i+n < len(b) && is(b[i+n], base64Class) {
		n++
	}
	if n < 3 || i+n >= len(b) || b[i+n] != ';' {
		return 0
	}
	switch name := string(b[i+1 : i+n]); name {
	case "amp":
		d.escape = append(d.escape, '&')
	case "lt":
		d.escape = append(d.escape, '<')
	case "gt":
		d.escape = append(d.escape, '>')
	case "quot":
		d.escape = append(d.escape, '"')
	case "nbsp":
		d.escape = append(d.escape, ' ')
	default:
		s := "&" + name + ";"
		r := html.UnescapeString(s)
		if r[0] == '&' && len(r) > 1 {
			return 0
		}
		d.escape = append(d.escape, r...)
	}
	return n + 1
}

// numeric reads &#65; and &#x41; with or without the semicolon.
func (d *decoder) numeric(b []byte, i int) int {
	const digits = 8
	base, n := 10, 2
	if i+2 < len(b) && b[i+2]|0x20 == 'x' {
		base, n = 16, 3
	}
	v, start := 0, n
	for n-start < digits && i+n < len(b) {
		h := hexValue(b[i+n])
		if h < 0 || h >= base {
			break
		}
		v = v*base + h
		n++
	}
	if n == start {
		return 0
	}
	if i+n < len(b) && b[i+n] == ';' {
		n++
	}
	return d.char(v, n)
}

// quoted undoes quoted-printable (RFC 2045 section 6.7) that nobody declared.
// It is no escape among the others: what stands behind the = of a form field
// would be eaten.
func (d *decoder) quoted(p int) {
	src := d.layers[p].Data
	i := findQuoted(src, 0)
	if i < 0 {
		return
	}
	text := pieces{around: tightContext}
	if bytes.Contains(src[i:], []byte("=\n")) || bytes.Contains(src[i:], []byte("=\r\n")) {
		text.around = wideContext
	}
	for ; i >= 0; i = findQuoted(src, i) {
		text.reach(src, i)
		i += d.unquote(src, i)
		text.put(d.escape, i)
	}
	d.add(text.take(src, QuotedPrintable, p))
}

// findQuoted returns the next = that quotes a character or ends a line that
// goes on, or -1.
func findQuoted(b []byte, i int) int {
	for ; i < len(b); i++ {
		n := indexByte(b, i, '=')
		if n < 0 {
			return -1
		}
		i = n
		if i+1 < len(b) && (b[i+1] == '\n' || b[i+1] == '\r' && i+2 < len(b) && b[i+2] == '\n') {
			return i
		}
		if hexNumber(b, i+1, 2) >= 0 && inText(b, i) {
			return i
		}
	}
	return -1
}

// unquote reads what findQuoted found.
func (d *decoder) unquote(b []byte, i int) int {
	d.escape = d.escape[:0]
	switch b[i+1] {
	case '\n':
		return 2
	case '\r':
		return 3
	}
	d.escape = append(d.escape, byte(hexNumber(b, i+1, 2)))
	return 3
}
