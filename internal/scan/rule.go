package scan

import (
	"bytes"
	"math"
	"slices"
)

// Rule is one form of secret. A name may have several rules: each is one more
// form of the same.
type Rule struct {
	Name    string
	Pattern string // RE2; its first group, if it has one, is the secret

	// Check is what else the secret has to satisfy. Where Either is set, the
	// edges make up for a check that fails, and the other way round.
	Check  Check
	Either bool

	Left, Right Edge    // what must not stand before and after the match
	Entropy     float64 // least bits a byte of the secret
	Except      []string
	// Named wants what stands in the match before the secret to call it a
	// key, a token or the like, so that a list of files with their hashes
	// does not match by the name of a company.
	Named bool

	// Weak rules are for what is often no secret of anybody's: their
	// matches are worth a look and no more.
	Weak bool
	// Login rules are for what a login sends in the places for it, which
	// are the headers Authorization and Cookie: there it is no finding.
	Login bool

	Hosts []string // to which the secret may go, and to every name under them

	Hits, Misses []string // examples; Hits may be empty, when they can be made from the pattern

	source string // file and line; empty for a pattern of the user's
}

func (r *Rule) builtin() bool { return r.source != "" }

// Edge says which bytes beside a match make it a part of something longer.
type Edge uint8

// The edges.
const (
	// AnyEdge is none: the form is too special to come about by chance.
	AnyEdge Edge = iota
	// WordEdge is a letter, a digit, "_" or "-".
	WordEdge
	// Base64Edge is that, "+" or "/".
	Base64Edge
	// BlobEdge is a row of blobLength bytes of WordEdge, over line breaks
	// between long lines: what is glued to a secret does not hide it, and
	// nothing is found by chance in the midst of base64.
	BlobEdge
)

const (
	blobLength = 128
	blobLine   = 60 // base64 has lines of 64 or 76; lists of tokens have shorter ones
)

// mayBegin is the part of accepts that costs one look at the byte before.
func (r *Rule) mayBegin(data []byte, start int) bool {
	return r.Either || r.Left == AnyEdge || r.Left == BlobEdge || r.Left.clear(data[:start], lastByte)
}

// accepts reports whether a match of the pattern is a finding.
func (r *Rule) accepts(data []byte, start, end int, value span) bool {
	secret := data[value.start:value.end]
	clear := r.Left.clear(data[:start], lastByte) && r.Right.clear(data[end:], firstByte)
	if !clear && !r.Either {
		return false
	}
	if r.Check != NoCheck && !(clear && r.Either) && !r.Check.holds(secret, data[value.end:]) {
		return false
	}
	if r.Entropy > 0 && entropy(secret) < r.Entropy {
		return false
	}
	if r.Named && !named(data[start:value.start]) {
		return false
	}
	for _, known := range r.Except {
		if bytes.Contains(data[start:end], []byte(known)) {
			return false
		}
	}
	return true
}

// clear reports whether what stands on one side of a match, of which near
// returns the byte that is so many bytes away, is no part of it.
func (e Edge) clear(side []byte, near func(side []byte, away int) byte) bool {
	switch {
	case e == AnyEdge || len(side) == 0:
		return true
	case e == WordEdge:
		return !isWord(near(side, 0))
	case e == Base64Edge:
		b := near(side, 0)
		return !isWord(b) && b != '+' && b != '/'
	}
	return !blob(side, near)
}

// blob reports whether a side begins with a row of blobLength.
func blob(side []byte, near func(side []byte, away int) byte) bool {
	row := func(from, most int) int {
		n := 0
		for n < most && from+n < len(side) && isWord(near(side, from+n)) {
			n++
		}
		return n
	}
	at, total := 0, 0
	for total < blobLength {
		n := row(at, blobLength-total)
		at, total = at+n, total+n
		breaks := 0
		for breaks < 2 && at < len(side) && (near(side, at) == '\n' || near(side, at) == '\r') {
			at, breaks = at+1, breaks+1
		}
		if total < blobLength && (breaks == 0 || row(at, blobLine) < blobLine) {
			return false
		}
	}
	return true
}

var names = [][]byte{[]byte("key"), []byte("token"), []byte("secret"), []byte("pass"), []byte("pwd"), []byte("auth"), []byte("cred")}

func named(before []byte) bool {
	before = bytes.ToLower(before)
	return slices.ContainsFunc(names, func(n []byte) bool { return bytes.Contains(before, n) })
}

func firstByte(side []byte, away int) byte { return side[away] }
func lastByte(side []byte, away int) byte  { return side[len(side)-1-away] }

func isWord(b byte) bool {
	return isAlphanumeric(b) || b == '_' || b == '-'
}

func isAlphanumeric(b byte) bool {
	return isDigit(b) || isLetter(b)
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

// entropy is the Shannon entropy of the bytes, in bits a byte.
func entropy(b []byte) float64 {
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	sum := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(b))
			sum -= p * math.Log2(p)
		}
	}
	return sum
}
