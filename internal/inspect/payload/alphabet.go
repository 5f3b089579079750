package payload

import (
	"math"
	"math/bits"
)

// Alphabet is a set of symbols that data is written in.
type Alphabet struct {
	Name string  // as a reason names it
	Bits float64 // of random data, a symbol
	size int
}

// The alphabets that are told apart.
var (
	Binary  = &Alphabet{"binary", 8, 256}
	Base85  = &Alphabet{"base85", math.Log2(85), 85}
	Base64  = &Alphabet{"base64", 6, 64}
	letters = &Alphabet{"base52", math.Log2(52), 52}
	Base36  = &Alphabet{"base36", math.Log2(36), 36}
	Base32  = &Alphabet{"base32", 5, 32}
	latin   = &Alphabet{"base26", math.Log2(26), 26}
	Hex     = &Alphabet{"hex", 4, 16}
	Decimal = &Alphabet{"decimal", math.Log2(10), 10}
)

// random reports whether n symbols, of which so many pairs are equal, may have
// been drawn at random from size symbols. Equal pairs are Poisson distributed
// around n(n-1)/2/size, at any n, while Shannon's entropy of a short text says
// more about its length than about the text. A quarter more than that leaves
// room for alphabets that are a little smaller than the one they were taken
// for (58 for 64, 32 for 36).
func random(pairs, n, size int, sigmas float64) bool {
	mean := float64(n) * float64(n-1) / 2 / float64(size)
	return float64(pairs) <= 1.25*mean+sigmas*math.Sqrt(mean)
}

// sigmas is how far above its mean random data may be: one block of 3,000 is.
const sigmas = 3.4

// Classes of characters, as bits of classOf.
const (
	isDigit = 1 << iota // 2 to 7
	isEdge              // 0, 1, 8, 9: digits that base32 has not
	isHexLower
	isHexUpper
	isLower // g to z
	isUpper // G to Z
	isSign  // + / - _
	isVisible
)

const inBase64 = isDigit | isEdge | isHexLower | isHexUpper | isLower | isUpper | isSign

var classOf = func() (t [256]uint8) {
	for b := range 256 {
		switch c := byte(b); {
		case '2' <= c && c <= '7':
			t[b] = isDigit
		case '0' <= c && c <= '9':
			t[b] = isEdge
		case 'a' <= c && c <= 'f':
			t[b] = isHexLower
		case 'A' <= c && c <= 'F':
			t[b] = isHexUpper
		case 'g' <= c && c <= 'z':
			t[b] = isLower
		case 'G' <= c && c <= 'Z':
			t[b] = isUpper
		case c == '+' || c == '/' || c == '-' || c == '_':
			t[b] = isSign
		}
		if b > ' ' && b < 0x7f {
			t[b] |= isVisible
		}
	}
	return t
}()

// blockSize is how many characters are judged by themselves, so that nothing
// before or behind random data hides it.
const blockSize = 64

// counts are how many characters of each class a block of at most blockSize
// characters has, one byte a class, and where letters of each case and digits stand.
type counts struct {
	n            int
	classes      uint64
	lower, upper uint64
	digit        uint64
}

// countOf adds one to the count of a character's class.
var countOf, lowerBit, upperBit, digitBit = func() (count, lower, upper, digit [256]uint64) {
	for b := range 256 {
		if class := classOf[b] & inBase64; class != 0 {
			count[b] = 1 << (8 * bits.TrailingZeros8(class))
		}
		if classOf[b]&(isHexLower|isLower) != 0 {
			lower[b] = 1
		}
		if classOf[b]&(isHexUpper|isUpper) != 0 {
			upper[b] = 1
		}
		if classOf[b]&(isDigit|isEdge) != 0 {
			digit[b] = 1
		}
	}
	return count, lower, upper, digit
}()

func count(block []byte) counts {
	c := counts{n: len(block)}
	for _, b := range block {
		c.classes += countOf[b]
		c.lower = c.lower<<1 | lowerBit[b]
		c.upper = c.upper<<1 | upperBit[b]
		c.digit = c.digit<<1 | digitBit[b]
	}
	return c
}

// of returns how many characters are of some classes. All together are at most
// blockSize, so that their sum fits into a byte.
func (c *counts) of(classes uint8) int {
	return int(c.classes & bytesOf[classes] * ones >> 56)
}

// bytesOf has the bytes of some classes set.
var bytesOf = func() (t [256]uint64) {
	for classes := range t {
		for i := range 8 {
			if classes>>i&1 != 0 {
				t[classes] |= 0xff << (8 * i)
			}
		}
	}
	return t
}()

// evenGroups reports whether signs stand at equal distances.
func (c *counts) evenGroups() bool {
	signs := ^(c.lower | c.upper | c.digit)
	if c.n < 64 {
		signs &= 1<<c.n - 1
	}
	last, gap := bits.TrailingZeros64(signs), 0
	for signs &= signs - 1; signs != 0; signs &= signs - 1 {
		at := bits.TrailingZeros64(signs)
		if gap > 0 && at-last != gap {
			return false
		}
		last, gap = at, at-last
	}
	return gap > 0
}

// areWords reports whether letters that stand behind a letter have mostly its
// case. Random letters change it at every other place, words at their
// beginnings.
func (c *counts) areWords() bool {
	letters := c.lower | c.upper
	same := bits.OnesCount64(c.lower&(c.lower<<1)) + bits.OnesCount64(c.upper&(c.upper<<1))
	return same*4 > bits.OnesCount64(letters&(letters<<1))*3
}

// randomText reports in which alphabet a text of at most blockSize characters of
// base64 may have been drawn at random; nil is in none. A few characters may be of
// another one: what stands before the data.
func randomText(block []byte) *Alphabet {
	c := count(block)
	a := c.alphabet()
	short := len(block) < blockSize
	if a.size > 36 && (c.areWords() || short && c.of(isDigit|isEdge) == 0) {
		return nil // a name of several words may be as varied
	}
	var times [256]uint8
	pairs, n := 0, len(block)
	for _, b := range block {
		pairs += int(times[b])
		times[b]++
	}
	if a.size <= 36 { // signs only group its symbols
		for _, sign := range []byte("+/-_") {
			pairs -= int(times[sign]) * (int(times[sign]) - 1) / 2
		}
		n -= c.of(isSign)
	}
	if a == Hex { // the two cases of a letter are one symbol
		for b := byte('a'); b <= 'f'; b++ {
			pairs += int(times[b]) * int(times[b-'a'+'A'])
		}
	}
	room := sigmas
	switch {
	case a == latin:
		room = 0
	case short:
		room = 1.5
	}
	if !random(pairs, n, a.size, room) {
		return nil
	}
	return a
}

// alphabet returns the smallest alphabet that has all but a twelfth of the
// characters. Signs may group the symbols of one that has none: of digits and
// hex anyhow, of letters in groups of one length, which words are not.
func (c *counts) alphabet() *Alphabet {
	const digits = isDigit | isEdge
	n := c.n - c.of(isSign)
	most := func(classes uint8) bool { return n-c.of(classes) <= n/12 }
	grouped := c.of(isSign) > c.n/12
	oneCase := (most(digits|isHexLower|isLower) || most(digits|isHexUpper|isUpper)) && (!grouped || c.evenGroups())
	switch {
	case n*2 < c.n:
		return Base64 // a rule across the page
	case most(digits):
		return Decimal
	case most(digits | isHexLower | isHexUpper):
		return Hex
	case oneCase && c.of(digits) == 0:
		return latin
	case oneCase && c.of(isEdge) == 0:
		return Base32
	case oneCase:
		return Base36
	case c.of(digits|isSign) == 0:
		return letters
	}
	return Base64
}
