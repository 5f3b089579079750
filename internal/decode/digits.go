package decode

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	longRun      = 128 // digits of base64 that are a layer whatever they decode to
	longFind     = 64  // decoded bytes that are a layer of their own
	highFragment = 16  // the same with characters beyond ASCII, of which noise is full
	farFragment  = 12  // readable bytes that are a find in a long run at another alignment
	shortRun     = 512 // digits up to which minFragment is enough there, too
	tinyRun      = 24  // digits that are too few for letters of other scripts that look like a secret
)

// digits finds runs of base64, base32 and hex. What a child of escapes covers
// is looked at there, where runs that escapes cut in pieces are whole again;
// except for a run whose beginning an escape took.
func (d *decoder) digits(p int) {
	src := d.layers[p].Data
	d.basic(p, src)
	cover, bait := 0, 0
	for from := 0; ; {
		s, e := nextRun(src, from, base64Class, minRun)
		if s < 0 {
			break
		}
		for bait < len(d.baits) && d.baits[bait] < s {
			bait++
		}
		for cover < len(d.covered) && d.covered[cover].end <= s {
			cover++
		}
		taken := bait < len(d.baits) && d.baits[bait] == s
		if cover < len(d.covered) && !taken {
			if c := d.covered[cover]; c.start <= s && e <= c.end {
				tail := rewind(src, c.end, s, base64Class, "\r\n")
				if bait < len(d.baits) {
					tail = min(tail, d.baits[bait])
				}
				if e <= tail {
					from = tail
					continue
				}
			}
		}
		run, end := d.joinLines(src, s, e)
		if _, n := nextRun(run, 0, hexClass, len(run)); n < len(run) { // digests are no base64 of anything
			d.base64(p, run, s, end)
		}
		d.subruns(p, run, s, end)
		from = end
	}
	d.flush(p, Base64)
	d.flush(p, Base32)
	d.flush(p, Hex)
}

// dull reports that a short run decodes to nothing, whatever its digits are:
// words and paths of programs are such runs.
func dull(run []byte) bool {
	if len(run) > tinyRun {
		return false
	}
	for _, c := range [...]class{hexClass, upper32Class, lower32Class} {
		if s, _ := nextRun(run, 0, c, minRun); s >= 0 {
			return false
		}
	}
	var before [4]uint8
	for i := 0; i+4 <= len(run); i++ {
		g := group64(run, i)
		if g&before[i&3]&isASCII != 0 || couldBegin64(run[i:]) {
			return false
		}
		before[i&3] = g
	}
	return true
}

// rewind returns where what stands before i and goes on over it begins: bytes of
// a class and separators. A stretch that is covered may end in the middle of it.
func rewind(b []byte, i, low int, c class, separators string) int {
	for i > low && (is(b[i-1], c) || strings.IndexByte(separators, b[i-1]) >= 0) {
		i--
	}
	return i
}

// isBasic reports that a text holds credentials of HTTP's Basic scheme
// (RFC 7617), whose base64 may be shorter than a run that one would notice.
func isBasic(b []byte) bool {
	const scheme = "basic "
	return len(b) > len(scheme) && b[0]|0x20 == 'b' && bytes.EqualFold(b[:len(scheme)], []byte(scheme))
}

func (d *decoder) basic(p int, src []byte) {
	if !isBasic(src) {
		return
	}
	s := len("basic ")
	for s < len(src) && src[s] == ' ' {
		s++
	}
	e := s
	for e < len(src) && is(src[e], base64Class) {
		e++
	}
	if e-s < minRun && e-s >= 4 {
		d.add(Layer{Kind: Base64, Parent: p, Data: decode64(nil, src[s:e]), Start: s, End: e})
	}
}

// joinLines takes the lines that follow a run into it: base64 of mail and PEM
// is broken into lines of one length, of which the last may be shorter.
func (d *decoder) joinLines(src []byte, s, e int) (run []byte, end int) {
	next, width := lineOfRun(src, e)
	if width == 0 {
		return src[s:e], e
	}
	d.joined = append(d.joined[:0], src[s:e]...)
	end = e
	for full := width; width > 0 && width <= full; {
		d.joined = append(d.joined, src[next:next+width]...)
		end = next + width
		if width < full {
			break
		}
		next, width = lineOfRun(src, end)
	}
	return d.joined, end
}

// lineOfRun returns the digits at the beginning of the next line, behind what
// indents or quotes it.
func lineOfRun(src []byte, i int) (start, width int) {
	if i < len(src) && src[i] == '\r' {
		i++
	}
	if i >= len(src) || src[i] != '\n' {
		return 0, 0
	}
	i++
	for n := 0; n < 16 && i < len(src) && (src[i] == ' ' || src[i] == '\t' || src[i] == '>' || src[i] == '#' || src[i] == '*'); n++ {
		i++
	}
	start = i
	for i < len(src) && is(src[i], base64Class) {
		i++
	}
	return start, i - start
}

// base64 decodes a run. Where the whole of it is nothing to read, what can be
// read in it at any alignment is found: other digits may stand before it.
func (d *decoder) base64(p int, run []byte, s, e int) {
	size := len(run) * 3 / 4
	long := len(run) >= longRun
	text := couldBeText64(run, 0) && couldBeText64(run, 4)
	if text {
		d.scratch = decode64(d.scratch[:0], run[:min(len(run), longRun)])
		text = readable(d.scratch)
	}
	switch {
	case long || size >= longFind && text || couldBegin64(run) && beginsPacked(decode64(d.scratch[:0], run[:8])):
		data := decode64(make([]byte, 0, size+2), run)
		text = text && readable(data)
		d.add(Layer{Kind: Base64, Parent: p, Data: data, Start: s, End: e})
	case text:
		d.finds[Base64].add(d.scratch, s, e)
	}
	if text {
		return
	}
	// The first digits of a group may be missing: none stand in for them.
	d.padded = append(append(d.padded[:0], "AAA"...), run[:min(len(run), shortRun)]...)
	d.short64(d.padded, s, e)
	if bytes.Count(run, []byte("A")) >= len(run)/8 {
		d.wide64(p, run, long, s, e)
	}
	if len(run) > shortRun {
		for o := 1; o < 4; o++ {
			d.ascii64(run, o, farFragment, s, e)
			d.high64(run, o, s, e)
		}
	}
	d.packed64(p, run, long, s, e)
	d.deflated64(p, run, long, s, e)
}

// deflated64 is deflated for a run of digits, at any alignment that is not in a
// layer of the whole run.
func (d *decoder) deflated64(p int, run []byte, whole bool, s, e int) {
	const head = minDeflated / 3 * 4
	var buf [minDeflated]byte
	for o := range 4 {
		if o+head <= len(run) && !(whole && o == 0) && couldBeDeflate(decode64(buf[:0], run[o:o+head])) {
			d.bare(p, &digitReader{run: run[o:]}, s, e)
		}
	}
}

// wide64 decodes a run that may be UTF-16, whose zero bytes are the digit A, from
// each offset whose layer there is not yet.
func (d *decoder) wide64(p int, run []byte, whole bool, s, e int) {
	for o := range 4 {
		if o == 0 && whole {
			continue
		}
		d.scratch = decode64(d.scratch[:0], run[o:])
		if looksWide(d.scratch) {
			d.add(Layer{Kind: Base64, Parent: p, Data: bytes.Clone(d.scratch), Start: s, End: e})
		}
	}
}

// looksWide reports that b has zero bytes as UTF-16 has them.
func looksWide(b []byte) bool { return bytes.Count(b, []byte{0}) >= max(len(b)/4, minFragment/2) }

// sixBits are the values of the digits of both alphabets.
var sixBits = func() (t [256]byte) {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range digits {
		t[digits[i]] = byte(i)
	}
	t['-'], t['_'] = 62, 63
	return t
}()

// decode64 appends what digits of base64 decode to. Bits that are left over are
// dropped.
func decode64(dst, run []byte) []byte {
	for ; len(run) >= 4; run = run[4:] {
		v := uint32(sixBits[run[0]])<<18 | uint32(sixBits[run[1]])<<12 | uint32(sixBits[run[2]])<<6 | uint32(sixBits[run[3]])
		dst = append(dst, byte(v>>16), byte(v>>8), byte(v))
	}
	switch len(run) {
	case 3:
		v := uint32(sixBits[run[0]])<<12 | uint32(sixBits[run[1]])<<6 | uint32(sixBits[run[2]])
		dst = append(dst, byte(v>>10), byte(v>>2))
	case 2:
		dst = append(dst, sixBits[run[0]]<<2|sixBits[run[1]]>>4)
	}
	return dst
}

// short64 finds what can be read in a short run, at any alignment: two groups
// of digits in a row that are ASCII, or three that may be UTF-8, which noise
// looks like more often.
func (d *decoder) short64(run []byte, s, e int) {
	var done [4]int
	var before [16]uint8 // what the groups at the last digits were
	first, second := textBits[run[0]], textBits[run[1]]
	for i := 0; i+4 <= len(run); i++ {
		third := textBits[run[i+2]]
		g := textGroups[(first|second>>8|third>>16)&0x7f]
		first, second = second, third
		before[i&15] = g
		g &= before[(i-4)&15]
		if g &= 1 | before[(i-8)&15]; g == 0 || i < done[i&3] {
			continue
		}
		from, to := max(i-8, done[i&3], i&3), i+4
		for from-4 >= done[i&3] && couldBeText64(run, from) {
			from -= 4
		}
		for to+4 <= len(run) && couldBeText64(run, to) {
			to += 4
		}
		done[i&3] = to
		d.scratch = decode64(d.scratch[:0], run[from:min(to+4, len(run))])
		d.fragments(Base64, d.scratch, minFragment, s, e)
	}
}

// couldRead64 reports that a find may begin in the first group of a run.
func couldRead64(run []byte) bool {
	const groups = minRun / 4
	var g [groups]uint8
	for i := range g {
		if 4*i+4 <= len(run) {
			g[i] = group64(run, 4*i)
		}
	}
	return g[1]&(g[0]|g[2])&isASCII != 0 || g[1]&g[2]&(g[0]|g[3])&isText != 0
}

const (
	isASCII = 1 << iota // all bytes of a group are ASCII
	isText              // they may stand in readable UTF-8
)

func group64(run []byte, i int) uint8 {
	return textGroups[(textBits[run[i]]|textBits[run[i+1]]>>8|textBits[run[i+2]]>>16)&0x7f]
}

func couldBeText64(run []byte, i int) bool { return group64(run, i) != 0 }

// textBits says of each digit what it tells of the byte that begins with it, in
// each place of a group, in a byte from the low one up: two bits for its own
// two, which tell ASCII (0 and 1), the middle of a character (2) and its
// beginning (3) apart, and one for a control character.
var textBits = func() (t [256]uint32) {
	const control = 64
	for c := range t {
		v := uint32(sixBits[c])
		first, second, third := v>>4<<4, v>>2&3<<2, v&3
		if v < ' '>>2 {
			first |= control
		}
		if v&0xf < ' '>>4 {
			second |= control
		}
		t[c] = first | second<<8 | third<<16
	}
	return t
}()

// textGroups says what a group is of which textBits are known.
var textGroups = func() (t [128]uint8) {
	for g := range t {
		first, second, third := g>>4&3, g>>2&3, g&3
		if first|second|third < 2 {
			t[g] |= isASCII
		}
		follows := func(a, b int) bool { return (b == 2 || a != 3) && (b != 2 || a >= 2) }
		if g < 64 && follows(first, second) && follows(second, third) {
			t[g] |= isText
		}
	}
	return t
}()

// ascii64 decodes only groups of digits that decode to ASCII, and of those that
// a find must hold in a row it looks at one first.
func (d *decoder) ascii64(run []byte, offset, least, s, e int) {
	row := least / 4 // 8 bytes hold 2 whole groups wherever they begin, 12 hold 3
	done := offset
	for g := offset; g+4 <= len(run); {
		if group64(run, g)&isASCII == 0 {
			g += 4 * row
			continue
		}
		from, to := g, g+4
		for from-4 >= done && group64(run, from-4)&isASCII != 0 {
			from -= 4
		}
		for to+4 <= len(run) && group64(run, to)&isASCII != 0 {
			to += 4
		}
		if to-from >= 4*row {
			part := run[max(from-4, offset):min(to+4, len(run))]
			d.scratch = decode64(d.scratch[:0], part)
			d.fragments(Base64, d.scratch, least, s, e)
		}
		done, g = to, to
	}
}

// high64 finds UTF-8 beyond ASCII in a long run: it decodes a few bytes in
// every probeStep digits, and everything around those that can be read.
func (d *decoder) high64(run []byte, offset, s, e int) {
	done := offset
	for g := offset; g < len(run); g += probeStep {
		if g < done || !rowOfText64(run, g) || !probe64(run, g, true) {
			continue
		}
		from, to := max(g-probeStep, done), g+probeStep
		for probe64(run, to, false) {
			to += probeStep
		}
		to = min(to+probeStep, len(run))
		d.scratch = decode64(d.scratch[:0], run[from:to])
		d.fragments(Base64, d.scratch, highFragment, s, e)
		done = to
	}
}

func rowOfText64(run []byte, i int) bool {
	return i+12 <= len(run) && group64(run, i)&isText != 0 && group64(run, i+4)&isText != 0 && group64(run, i+8)&isText != 0
}

// probe64 reports that what begins at a digit can be cut out of readable UTF-8,
// and not of ASCII alone if that is asked.
func probe64(run []byte, at int, high bool) bool {
	const digits = probeSize / 3 * 4
	if at+digits > len(run) {
		return false
	}
	var buf [probeSize]byte
	b := decode64(buf[:0], run[at:at+digits])
	return (!high || nextHigh(b, 0) < len(b)) && couldBeUTF8(b)
}

const (
	probeSize = 9  // bytes that are looked at; random ones look like text once in a thousand
	probeStep = 32 // digits, of 24 bytes
)

// couldBeUTF8 reports that b can be cut out of readable UTF-8.
func couldBeUTF8(b []byte) bool {
	for n := 0; n < utf8.UTFMax-1 && b[0]&0xc0 == 0x80; n++ {
		b = b[1:]
	}
	for len(b) > 0 {
		n := textAt(b)
		if n == 0 {
			return !utf8.FullRune(b)
		}
		b = b[n:]
	}
	return true
}

// fragments keeps the readable stretches of decoded bytes, those with more than
// ASCII only if they are longer.
func (d *decoder) fragments(kind Kind, b []byte, least, s, e int) {
	start, high := 0, 0
	for i := 0; i <= len(b); {
		if i < len(b) {
			n := 1
			if b[i] != 0 {
				n = textAt(b[i:])
			}
			if n > 0 {
				high |= n - 1
				i += n
				continue
			}
		}
		if i-start >= least && (high == 0 || i-start >= highFragment) {
			d.finds[kind].add(b[start:i], s, e)
		}
		i++
		start, high = i, 0
	}
}

// packed64 finds compressed files that begin inside a run, at any alignment
// that is not in a layer of the whole run.
func (d *decoder) packed64(p int, run []byte, whole bool, s, e int) {
	for i := 1; i+8 <= len(run) && d.err == nil; i++ {
		if !couldBegin64(run[i:]) {
			continue
		}
		var buf [7]byte
		head := decode64(buf[:0], run[i:i+8])
		for k := range packers {
			q := &packers[k]
			if !bytes.HasPrefix(head, []byte(q.begin)) || whole && i%4 == 0 && q.magic != "" {
				continue
			}
			if q.archive {
				d.add(Layer{Kind: Base64, Parent: p, Data: decode64(nil, run[i:]), Start: s, End: e})
				continue
			}
			out, _ := d.inflate(q.open, &digitReader{run: run[i:]})
			d.add(Layer{Kind: Coding, Parent: p, Name: q.name, Data: out, Start: s, End: e})
		}
	}
}

// couldBegin64 reports that the first two digits are those of a compressed file.
func couldBegin64(run []byte) bool {
	return packedDigits[run[0]] && packedPairs[uint(sixBits[run[0]])<<6|uint(sixBits[run[1]])]
}

var packedDigits = func() (t [256]bool) {
	for c := range 256 {
		for _, q := range packers {
			t[c] = t[c] || is(byte(c), base64Class) && sixBits[c] == q.begin[0]>>2
		}
	}
	return t
}()

var packedPairs = func() (t [1 << 12]bool) {
	for _, q := range packers {
		t[binary.BigEndian.Uint16([]byte(q.begin))>>4] = true
	}
	return t
}()

// digitReader decodes base64 as far as somebody reads it.
type digitReader struct {
	run  []byte
	buf  [768]byte
	left []byte
}

// Len returns how many bytes are left.
func (r *digitReader) Len() int { return len(r.left) + len(r.run)*3/4 }

func (r *digitReader) fill() error {
	if len(r.left) > 0 {
		return nil
	}
	n := min(len(r.run), len(r.buf)/3*4)
	r.left = decode64(r.buf[:0], r.run[:n])
	r.run = r.run[n:]
	if len(r.left) == 0 {
		return io.EOF
	}
	return nil
}

// Read implements io.Reader.
func (r *digitReader) Read(p []byte) (int, error) {
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// ReadByte implements io.ByteReader.
func (r *digitReader) ReadByte() (byte, error) {
	if err := r.fill(); err != nil {
		return 0, err
	}
	c := r.left[0]
	r.left = r.left[1:]
	return c, nil
}

// subruns finds base32 and hex in a run of the larger alphabet.
func (d *decoder) subruns(p int, run []byte, s, e int) {
	for _, c := range [...]class{hexClass, upper32Class, lower32Class} {
		for from := 0; ; {
			i, j := nextRun(run, from, c, minRun)
			if i < 0 {
				break
			}
			from = j
			if len(run) == e-s { // not joined of lines: the place is known
				d.subrun(p, c, run[i:j], s+i, s+j)
			} else {
				d.subrun(p, c, run[i:j], s, e)
			}
		}
	}
}

func (d *decoder) subrun(p int, c class, run []byte, s, e int) {
	if c == hexClass {
		d.aligned(p, Hex, 2, run, s, e, decodeHex)
	} else {
		d.aligned(p, Base32, 8, run, s, e, decode32)
	}
}

// aligned decodes a run from each offset in a group of digits.
func (d *decoder) aligned(p int, kind Kind, group int, run []byte, s, e int, decode func(dst, run []byte) []byte) {
	for o := 0; o < group && o < len(run); o++ {
		d.scratch = decode(d.scratch[:0], run[o:])
		switch {
		case holdsPacked(d.scratch), looksWide(d.scratch), len(d.scratch) >= longFind && (o == 0 || readable(d.scratch)):
			d.add(Layer{Kind: kind, Parent: p, Data: bytes.Clone(d.scratch), Start: s + o, End: e})
		default:
			d.fragments(kind, d.scratch, minFragment, s, e)
			d.deflated(p, d.scratch, s, e)
		}
		if o == 0 && readable(d.scratch) {
			return
		}
	}
}

func decodeHex(dst, run []byte) []byte {
	for ; len(run) >= 2; run = run[2:] {
		dst = append(dst, byte(hexValue(run[0])<<4|hexValue(run[1])))
	}
	return dst
}

func decode32(dst, run []byte) []byte {
	v, bits := uint32(0), 0
	for _, c := range run {
		five := uint32(c - '2' + 26)
		if c >= 'A' {
			five = uint32(c|0x20) - 'a'
		}
		v = v<<5 | five
		if bits += 5; bits >= 8 {
			bits -= 8
			dst = append(dst, byte(v>>bits))
		}
	}
	return dst
}

const minPairs = minFragment // pairs of hex digits with separators

// lists finds hex in pairs with one separator between them ("de:ad:be:ef"),
// and with 0x before each (0xde, 0xad).
func (d *decoder) lists(p int) {
	if d.listed || len(d.covered) == 0 {
		d.listsIn(p, 0, len(d.layers[p].Data))
	} else {
		from := 0
		for _, c := range d.covered {
			d.listsIn(p, from, c.start)
			from = rewind(d.layers[p].Data, c.end, c.start, hexClass, listSeparators)
		}
		d.listsIn(p, from, len(d.layers[p].Data))
	}
	d.flush(p, Hex)
}

const listSeparators = "x:,;-. \t\r\n"

// listsIn looks for lists in a part of a layer. What a child of escapes covers
// is looked at there, unless it lost its beginning.
func (d *decoder) listsIn(p, from, to int) {
	src := d.layers[p].Data[:to]
	for i := findPairs(src, from); i >= 0; i = findPairs(src, i) {
		s := i
		d.scratch = d.scratch[:0]
		for sep := src[i+2]; ; i += 3 {
			d.scratch = append(d.scratch, byte(hexNumber(src, i, 2)))
			if i+5 > len(src) || src[i+2] != sep || hexNumber(src, i+3, 2) < 0 {
				i += 2
				break
			}
		}
		d.list(p, s, i)
	}
	for i := findPrefixed(src, from); i >= 0; i = findPrefixed(src, i) {
		s := i
		d.scratch = d.scratch[:0]
		for {
			v, next := prefixed(src, i)
			if v < 0 {
				break
			}
			d.scratch = append(d.scratch, byte(v))
			i = next
		}
		d.list(p, s, i)
	}
}

func (d *decoder) list(p, s, e int) {
	if len(d.scratch) >= longFind || holdsPacked(d.scratch) || looksWide(d.scratch) {
		d.add(Layer{Kind: Hex, Parent: p, Data: bytes.Clone(d.scratch), Start: s, End: e})
		return
	}
	d.deflated(p, d.scratch, s, e)
	d.fragments(Hex, d.scratch, minFragment, s, e)
}

// findPairs returns where the next list of hex pairs begins, or -1. Such a list
// repeats its separator every three bytes, and is long enough to hold every
// place that is looked at.
func findPairs(b []byte, from int) int {
	const length = 3*minPairs - 1
	for i := from; i+8 <= len(b); i += length - 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		if zeros((x^x>>24)|0xffffff<<40) == 0 {
			continue
		}
		for k := i; k < i+3 && k+3 < len(b); k++ {
			if b[k] == b[k+3] && hexValue(b[k]) < 0 && hexNumber(b, k+1, 2) >= 0 {
				if s, n := pairsAround(b, k, from); n >= minPairs {
					return s
				}
			}
		}
	}
	return -1
}

// isPair reports that two hex digits stand at i, and two more with the same
// separators behind each.
func isPair(b []byte, i int) bool {
	return i+6 <= len(b) && b[i+2] == b[i+5] && hexValue(b[i+2]) < 0 && hexNumber(b, i, 2) >= 0 && hexNumber(b, i+3, 2) >= 0
}

// pairsAround returns the beginning of the list around a separator, and how
// many pairs follow.
func pairsAround(b []byte, k, from int) (start, n int) {
	sep := b[k]
	start = k + 1
	for start-3 >= from && b[start-1] == sep && hexNumber(b, start-3, 2) >= 0 {
		start -= 3
	}
	for i := start; n < minPairs; i += 3 {
		if hexNumber(b, i, 2) < 0 || n > 0 && b[i-1] != sep {
			break
		}
		n++
	}
	return start, n
}

// findPrefixed returns where the next list of numbers like 0x41 begins, or -1.
func findPrefixed(b []byte, from int) int {
	for i := from; i < len(b); i++ {
		x := indexByte(b, i, 'x')
		if x < 0 {
			return -1
		}
		i = x
		if x == from || b[x-1] != '0' {
			continue
		}
		s := x - 1
		n, v, next := 0, 0, s
		for n < minPairs && v >= 0 {
			if v, next = prefixed(b, next); v >= 0 {
				n++
			}
		}
		if n >= minPairs {
			return s
		}
	}
	return -1
}

// prefixed reads 0x41 and what separates it from the next one.
func prefixed(b []byte, i int) (v, next int) {
	if i+4 > len(b) || b[i] != '0' || b[i+1] != 'x' {
		return -1, i
	}
	v = hexNumber(b, i+2, 2)
	i += 4
	for n := 0; n < 4 && i < len(b) && (b[i] == ',' || b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t' || b[i] == ';'); n++ {
		i++
	}
	return v, i
}
