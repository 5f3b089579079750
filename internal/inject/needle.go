package inject

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
)

// form is the alphabet in which a value is looked for. Every form may be
// written with escapes on top.
type form uint8

const (
	plainForm form = iota // as it is; + may stand for a space
	hexForm               // in either case
	b64Form               // in either alphabet
	numForms  = iota
)

// fold maps every byte to the one that stands for it in a needle of that form.
var fold = func() (t [numForms][256]byte) {
	for f := range t {
		for i := range t[f] {
			t[f][i] = byte(i)
		}
	}
	t[plainForm]['+'] = ' '
	for c := 'A'; c <= 'F'; c++ {
		t[hexForm][c] = byte(c) + 'a' - 'A'
	}
	t[b64Form]['-'], t[b64Form][' '], t[b64Form]['_'] = '+', '+', '/'
	return t
}()

// needle is one text to look for.
type needle struct {
	id   int // of whom it is
	form form
	text []byte // folded
	with []byte // what is put in its place
}

func newNeedle(id int, f form, text, with []byte) needle {
	folded := make([]byte, len(text))
	for i, c := range text {
		folded[i] = fold[f][c]
	}
	return needle{id: id, form: f, text: folded, with: with}
}

// needles returns all forms of a value. Base64 is not looked for by decoding,
// because any word is base64, but by what the value is in it: at three
// alignments, of which each has the characters that hold bits of the value
// alone. So base64 also holds what is escaped inside of it: the value as JSON
// and as a form write it.
func needles(id int, value, placeholder []byte) []needle {
	out := []needle{
		newNeedle(id, plainForm, value, placeholder),
		newNeedle(id, hexForm, []byte(hex.EncodeToString(value)), []byte(hex.EncodeToString(placeholder))),
	}
	for _, text := range escaped(value) {
		for shift := range 3 {
			out = append(out, newNeedle(id, b64Form, b64Core(text, shift), b64Replacement(len(text), placeholder, shift)))
		}
	}
	return out
}

// escaped returns a value, and how common encoders write it where they write
// it differently.
func escaped(value []byte) [][]byte {
	out := [][]byte{value}
	add := func(s string) {
		for _, have := range out {
			if string(have) == s {
				return
			}
		}
		out = append(out, []byte(s))
	}
	if b, err := json.Marshal(string(value)); err == nil {
		add(string(b[1 : len(b)-1]))
	}
	var plainJSON strings.Builder
	enc := json.NewEncoder(&plainJSON)
	enc.SetEscapeHTML(false)
	if enc.Encode(string(value)) == nil {
		add(strings.TrimSuffix(plainJSON.String(), "\n")[1 : plainJSON.Len()-2])
	}
	add(url.QueryEscape(string(value)))
	add(url.PathEscape(string(value)))
	return out
}

// b64Core returns the characters that hold nothing but bits of text, when shift
// bytes stand before it.
func b64Core(text []byte, shift int) []byte {
	padded := append(make([]byte, shift), text...)
	all := base64.RawStdEncoding.EncodeToString(padded)
	return []byte(all[coreStart(shift) : len(padded)*8/6])
}

func coreStart(shift int) int { return (shift*8 + 5) / 6 }

// b64Replacement returns what takes the place of the core of n bytes: base64
// that ends where in a group of four the core did, so that what stands round
// it can still be read, and that decodes to the placeholder. At each end a byte
// that shares a character with what stays is filled up.
func b64Replacement(n int, placeholder []byte, shift int) []byte {
	const filling = '-'
	text := make([]byte, shift, shift+len(placeholder)+4)
	if shift > 0 {
		text = append(text, filling)
	}
	text = append(text, placeholder...)
	end := (shift + n) % 3
	if end != 0 {
		text = append(text, filling)
	}
	for len(text)%3 != end {
		text = append(text, filling)
	}
	all := base64.RawStdEncoding.EncodeToString(text)
	return []byte(all[coreStart(shift) : len(text)*8/6])
}
