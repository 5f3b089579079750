package payload

import (
	"encoding/binary"
	"unicode/utf8"
)

const (
	minSymbols = 256  // characters outside of ASCII that are judged
	buckets    = 4096 // that they are sorted into
)

// symbols looks for data in characters outside of ASCII, as base2048 and
// base32768 write it. The most frequent characters of any language are a large
// part of its text, while those of an encoding are all as frequent. In a table of
// characters they are too, but there each is near the one before it. Characters
// below U+0100 are bytes, and are judged as those.
func (x *examiner) symbols(data []byte) {
	if isASCII(data) {
		return
	}
	if low, ok := latin1(data); ok {
		x.latin1(low)
		return
	}
	var count [buckets]uint16
	n, pairs, near := 0, 0, 0
	for i, before := 0, rune(0); i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		i += size
		if r < 0x100 || size == 1 {
			continue
		}
		if d := r - before; -32 <= d && d <= 32 {
			near++
		}
		before = r
		b := uint32(r) * 2654435761 >> 20
		pairs += int(count[b])
		count[b] = min(count[b]+1, 1<<15)
		n++
	}
	if n >= minSymbols && near*3 < n && float64(pairs) < float64(n)*float64(n-1)/2*0.0012 {
		x.symbolic(3 * n)
	}
}

// latin1 judges characters that are bytes, in blocks as bytes are, with twice
// as many equal pairs for alphabets without control characters.
func (x *examiner) latin1(low []byte) {
	n := 0
	for block := range blocks(low, chunk/2) {
		var count [256]uint32
		var pairs uint32
		high := 0
		for _, b := range block {
			pairs += count[b]
			count[b]++
			high += int(b >> 7)
		}
		if len(block) >= minSymbols && high*4 > len(block) && random(int(pairs), len(block), Binary.size/2, sigmas) {
			n += len(block)
		}
	}
	if n = min(n, len(low)); n > 0 {
		x.symbolic(n)
	}
}

func (x *examiner) symbolic(n int) {
	x.found.medium += n
	if n <= x.found.Run.Len {
		return
	}
	x.found.Run = Run{Len: n, Alphabet: Binary, Entropy: 8}
}

// latin1 turns text without characters from U+0100 on into one byte for each.
func latin1(data []byte) ([]byte, bool) {
	out := make([]byte, 0, min(len(data), 1<<20))
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r >= 0x100 {
			return nil, false
		}
		out = append(out, byte(r))
		i += size
	}
	return out, true
}

func isASCII(data []byte) bool {
	for len(data) >= 8 {
		if binary.LittleEndian.Uint64(data)&(ones*0x80) != 0 {
			return false
		}
		data = data[8:]
	}
	for _, b := range data {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// ones has a 1 in each of its bytes.
const ones = 0x0101010101010101

// isText reports whether data is UTF-8 text without control characters.
func isText(data []byte) bool {
	text, _ := textOf(data)
	return text
}

// textOf also reports whether text is ASCII.
func textOf(data []byte) (text, ascii bool) {
	rest, all := data, uint64(0)
	for ; len(rest) >= 8; rest = rest[8:] {
		// The high bit of a byte of low is set for a byte below a blank,
		// and now and then for one beside it; both are looked at again.
		w := binary.LittleEndian.Uint64(rest)
		all |= w
		low := (w - ones*' ') &^ w & (ones * 0x80)
		del := (w ^ ones*0x7f) - ones
		if (low|del&^(w^ones*0x7f)&(ones*0x80)) != 0 && hasControl(rest[:8]) {
			return false, false
		}
	}
	if hasControl(rest) {
		return false, false
	}
	ascii = all&(ones*0x80) == 0 && isASCII(rest)
	return ascii || utf8.Valid(data), ascii
}

func hasControl(data []byte) bool {
	for _, b := range data {
		switch {
		case b >= ' ' && b != 0x7f:
		case b == '\n', b == '\t', b == '\r', b == '\f', b == '\v', b == 0x1b:
		default:
			return true
		}
	}
	return false
}
