package known

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"sort"
	"strings"
)

// form is a value as it may stand in a text.
type form struct {
	value *held
	text  []byte

	// Character i of the text holds the bits of the value from
	// i*width+shift on. With a width of 0 byte k of the value begins at
	// character at[k], and the last element of at is the length.
	width, shift int
	at           []int
}

// maxAllForms is the length of a value up to which it is looked for in every
// form. The rarer ones of a longer one are left to the decoders, which find
// whatever is long.
const maxAllForms = 4 << 10

// forms lists the readings of a value that are looked for where they stand, so
// that neither the end of a window nor a limit of a decoder hides one.
func forms(h *held) []form {
	v := h.Bytes
	out := []form{{value: h, text: v, width: 8}}
	for skip := range 3 {
		std := aligned(h, v, skip, 6, base64.RawStdEncoding.AppendEncode)
		out = append(out, std)
		if strings.ContainsAny(string(std.text), "+/") {
			out = append(out, aligned(h, v, skip, 6, base64.RawURLEncoding.AppendEncode))
		}
	}
	out = escaped(out, h, escapeJSON)
	if len(v) > maxAllForms {
		return out
	}
	out = append(out, form{value: h, text: []byte(hex.EncodeToString(v)), width: 4})
	for skip := range 5 {
		out = append(out, aligned(h, v, skip, 5, base32.StdEncoding.WithPadding(base32.NoPadding).AppendEncode))
	}
	for _, escape := range []func(byte) string{escapeSlash, escapeHTML, escapeURL, escapeForm, escapeAll} {
		out = escaped(out, h, escape)
	}
	return out
}

// aligned encodes a value as it comes out with skip bytes before it, and keeps
// the characters that depend on nothing but the value.
func aligned(h *held, v []byte, skip, width int, encode func(dst, src []byte) []byte) form {
	text := encode(nil, append(make([]byte, skip), v...))
	from := (8*skip + width - 1) / width
	to := 8 * (skip + len(v)) / width
	return form{value: h, text: text[from:to], width: width, shift: from*width - 8*skip}
}

// escaped adds the value with some bytes escaped, if that is a reading of its
// own.
func escaped(out []form, h *held, escape func(byte) string) []form {
	f := form{value: h, at: make([]int, 0, len(h.Bytes)+1)}
	for _, b := range h.Bytes {
		f.at = append(f.at, len(f.text))
		f.text = append(f.text, escape(b)...)
	}
	f.at = append(f.at, len(f.text))
	same := func(g form) bool { return slices.Equal(g.text, f.text) }
	if slices.ContainsFunc(out, same) {
		return out
	}
	return append(out, f)
}

// covered says which bytes of the value stand in a part of the text. A byte of
// which half the bits do is one: what is encoded by itself ends in such a byte.
func (f *form) covered(from, to int) (first, end int) {
	if f.width == 0 {
		first = sort.SearchInts(f.at, from)
		end = sort.SearchInts(f.at, to+1) - 1
		return first, max(first, end)
	}
	from, to = from*f.width+f.shift, to*f.width+f.shift
	first = max(0, (from-4+7)/8)
	end = min(len(f.value.Bytes), (to+4)/8)
	return first, max(first, end)
}

const hexUpper = "0123456789ABCDEF"

func escapeAll(b byte) string { return "%" + string(hexUpper[b>>4]) + string(hexUpper[b&15]) }

// escapeURL is percent-encoding of all but the unreserved characters of RFC
// 3986 section 2.3.
func escapeURL(b byte) string {
	if isAlphanumeric(b) || strings.IndexByte("-._~", b) >= 0 {
		return string([]byte{b})
	}
	return escapeAll(b)
}

// escapeForm is the same for forms (WHATWG URL section 5.2).
func escapeForm(b byte) string {
	if b == ' ' {
		return "+"
	}
	return escapeURL(b)
}

// escapeJSON writes what RFC 8259 section 7 does not let stand as it is.
func escapeJSON(b byte) string {
	switch {
	case b == '"' || b == '\\':
		return `\` + string([]byte{b})
	case b == '\n':
		return `\n`
	case b == '\r':
		return `\r`
	case b == '\t':
		return `\t`
	case b < ' ':
		return `\u00` + hex.EncodeToString([]byte{b})
	}
	return string([]byte{b})
}

// escapeSlash and escapeHTML are what encoders do that keep JSON fit for a
// script element.
func escapeSlash(b byte) string {
	if b == '/' {
		return `\/`
	}
	return escapeJSON(b)
}

func escapeHTML(b byte) string {
	if strings.IndexByte("<>&'", b) >= 0 {
		return `\u00` + hex.EncodeToString([]byte{b})
	}
	return escapeJSON(b)
}

func isAlphanumeric(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'z'
}
