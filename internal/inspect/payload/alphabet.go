package payload

import "math"

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

// randomText reports in which alphabet a text of at most 255 characters of base64 may
// have been drawn at random; nil is in none. A few characters may be of another one:
// what stands before the data.
func randomText(block []byte) *Alphabet {
	var count [256]uint8
	var class [256]uint8 // by class; only powers of two are used
	var letters letterCase
	pairs := 0
	for _, c := range block {
		pairs += int(count[c])
		count[c]++
		class[classOf[c]&inBase64]++
		letters.add(classOf[c])
	}
	a := alphabetOf(&class, len(block))
	if a == Hex { // the two cases of a letter are one symbol
		for c := byte('a'); c <= 'f'; c++ {
			pairs += int(count[c]) * int(count[c-'a'+'A'])
		}
	}
	digits := class[isDigit] + class[isEdge]
	switch {
	case a.size > 36 && letters.areWords():
		return nil
	case a == latin && !random(pairs, len(block), a.size, 0):
		return nil
	case len(block) < blockSize && a.size > 32 && digits == 0:
		return nil // a name of several words may be as varied
	case len(block) < blockSize && !random(pairs, len(block), a.size, 1.5):
		return nil
	case !random(pairs, len(block), a.size, sigmas):
		return nil
	}
	return a
}

// letterCase counts letters that stand behind a letter, and those of them that
// have its case. Random letters change case at every other place, words do so
// at their beginnings.
type letterCase struct {
	before      uint8
	pairs, same int
}

func (l *letterCase) add(class uint8) {
	const lower, upper = isHexLower | isLower, isHexUpper | isUpper
	switch {
	case class&(lower|upper) == 0 || l.before&(lower|upper) == 0:
	case class&lower != 0 == (l.before&lower != 0):
		l.same++
		fallthrough
	default:
		l.pairs++
	}
	l.before = class
}

func (l *letterCase) areWords() bool { return l.same*4 > l.pairs*3 }

// alphabetOf returns the smallest alphabet that has all but a twelfth of n
// characters.
func alphabetOf(class *[256]uint8, n int) *Alphabet {
	of := func(classes ...int) bool {
		in := 0
		for _, c := range classes {
			in += int(class[c])
		}
		return n-in <= n/12
	}
	digits := class[isDigit] + class[isEdge]
	lower := of(isDigit, isEdge, isHexLower, isLower)
	upper := of(isDigit, isEdge, isHexUpper, isUpper)
	switch {
	case of(isDigit, isEdge):
		return Decimal
	case of(isDigit, isEdge, isHexLower, isHexUpper):
		return Hex
	case (lower || upper) && digits == 0:
		return latin
	case (lower || upper) && class[isEdge] == 0:
		return Base32
	case lower || upper:
		return Base36
	case digits == 0 && class[isSign] == 0:
		return letters
	}
	return Base64
}
