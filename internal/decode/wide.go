package decode

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
)

// unit is how UTF-16 or UTF-32 lays out its units.
type unit struct {
	name  string
	width int
	order binary.ByteOrder
	utf8  func(dst, b []byte, order binary.ByteOrder) []byte
}

// The wider ones come first: UTF-32 looks like UTF-16 with zeros in between.
var units = [...]unit{
	{"utf-32le", 4, binary.LittleEndian, utf32To8},
	{"utf-32be", 4, binary.BigEndian, utf32To8},
	{"utf-16le", 2, binary.LittleEndian, utf16To8},
	{"utf-16be", 2, binary.BigEndian, utf16To8},
}

// ascii reports whether a unit is a readable character of ASCII.
func (u *unit) ascii(b []byte) bool {
	v := uint32(0)
	if u.width == 2 {
		v = uint32(u.order.Uint16(b))
	} else {
		v = u.order.Uint32(b)
	}
	return v < utf8.RuneSelf && is(byte(v), textClass)
}

// wide finds UTF-16 and UTF-32 that nobody declared: characters with zero bytes
// before or behind each.
func (d *decoder) wide(p int) {
	src := d.layers[p].Data
	if bytes.IndexByte(src, 0) < 0 {
		return
	}
	d.wides = d.wides[:0]
	for k := range units {
		for offset := range units[k].width {
			d.wideAt(p, src, offset, &units[k])
		}
	}
	d.flush(p, Charset)
}

// wideAt looks for stretches of units of which at least minFragment are ASCII,
// and no more than a few in a row are not.
func (d *decoder) wideAt(p int, src []byte, offset int, u *unit) {
	count, start, end := 0, 0, 0
	for i := offset; i+u.width <= len(src); i += u.width {
		if count == 0 { // on to the next zero byte
			z := indexByte(src, i, 0)
			if z < 0 {
				return
			}
			if i += (z - i) / u.width * u.width; i+u.width > len(src) {
				return
			}
		}
		switch {
		case u.ascii(src[i:]):
			if count == 0 {
				start = i
			}
			count, end = count+1, i+u.width
		case count > 0 && i-end >= others*u.width:
			d.wideFound(p, src, start, end, count, u)
			count = 0
		}
	}
	d.wideFound(p, src, start, end, count, u)
}

// others is how many units in a row may be no ASCII, at either end, too.
const others = 3

// mostWides is how many stretches are remembered.
const mostWides = 16

func (d *decoder) wideFound(p int, src []byte, start, end, count int, u *unit) {
	if count < minFragment {
		return
	}
	for _, w := range d.wides {
		if w.start <= start && end <= w.end {
			return // the same, read with its zeros on the other side
		}
	}
	if len(d.wides) < mostWides {
		d.wides = append(d.wides, span{start, end})
	}
	for n := 0; n < others && start >= u.width; n++ {
		start -= u.width
	}
	b := src[start:min(end+others*u.width, len(src))]
	d.scratch = u.utf8(d.scratch[:0], b, u.order)
	if len(d.scratch) >= longFind {
		d.add(Layer{Kind: Charset, Parent: p, Name: u.name, Data: bytes.Clone(d.scratch), Start: start, End: start + len(b)})
		return
	}
	d.finds[Charset].add(d.scratch, start, start+len(b))
}

func utf16To8(dst, b []byte, order binary.ByteOrder) []byte {
	for ; len(b) >= 2; b = b[2:] {
		r := rune(order.Uint16(b))
		if utf16.IsSurrogate(r) && len(b) >= 4 {
			if pair := utf16.DecodeRune(r, rune(order.Uint16(b[2:]))); pair != utf8.RuneError {
				r = pair
				b = b[2:]
			}
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

func utf32To8(dst, b []byte, order binary.ByteOrder) []byte {
	for ; len(b) >= 4; b = b[4:] {
		dst = utf8.AppendRune(dst, rune(order.Uint32(b)))
	}
	return dst
}

// mark reads a text that begins with a byte order mark.
func (d *decoder) mark(p int) {
	src := d.layers[p].Data
	name, data := "", []byte(nil)
	switch {
	case bytes.HasPrefix(src, []byte("\xff\xfe\x00\x00")):
		name, data = "utf-32", utf32To8(nil, src[4:], binary.LittleEndian)
	case bytes.HasPrefix(src, []byte("\x00\x00\xfe\xff")):
		name, data = "utf-32", utf32To8(nil, src[4:], binary.BigEndian)
	case bytes.HasPrefix(src, []byte("\xff\xfe")):
		name, data = "utf-16", utf16To8(nil, src[2:], binary.LittleEndian)
	case bytes.HasPrefix(src, []byte("\xfe\xff")):
		name, data = "utf-16", utf16To8(nil, src[2:], binary.BigEndian)
	}
	d.add(Layer{Kind: Charset, Parent: p, Name: name, Data: data, End: len(src)})
}

// charset reads a layer in the character set that is declared for it. One that
// nobody here knows blocks: the server may.
func (d *decoder) charset(p int, name string) {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" || name == "utf-8" {
		return
	}
	src := d.layers[p].Data
	ascii := d.high == len(src)
	add := func(data []byte) {
		if !bytes.Equal(data, src) {
			d.add(Layer{Kind: Charset, Parent: p, Name: name, Data: data, End: len(src)})
		}
	}
	switch strings.ReplaceAll(strings.ReplaceAll(name, "-", ""), "_", "") {
	case "utf8", "utf8mb4", "usascii", "ascii", "binary", "none":
	case "utf7":
		add(utf7To8(src))
	case "utf16", "ucs2", "iso10646ucs2":
		// Without a mark it may be either, whatever the standard says.
		add(utf16To8(nil, src, binary.BigEndian))
		add(utf16To8(nil, src, binary.LittleEndian))
	case "utf16le":
		add(utf16To8(nil, src, binary.LittleEndian))
	case "utf16be":
		add(utf16To8(nil, src, binary.BigEndian))
	case "utf32", "ucs4", "iso10646ucs4":
		add(utf32To8(nil, src, binary.BigEndian))
		add(utf32To8(nil, src, binary.LittleEndian))
	case "utf32le":
		add(utf32To8(nil, src, binary.LittleEndian))
	case "utf32be":
		add(utf32To8(nil, src, binary.BigEndian))
	case "iso88591", "latin1", "windows1252", "cp1252", "iso885915":
		if ascii {
			return // the usual case, and the same bytes
		}
		fallthrough
	default:
		enc := lookUp(name)
		if enc == nil {
			d.fail(errCharset)
			return
		}
		if data, err := enc.NewDecoder().Bytes(src); err == nil {
			add(data)
		}
	}
}

func lookUp(name string) encoding.Encoding {
	if enc, err := htmlindex.Get(name); err == nil && enc != encoding.Replacement {
		return enc
	}
	for _, index := range [...]*ianaindex.Index{ianaindex.MIME, ianaindex.IANA} {
		if enc, err := index.Encoding(name); err == nil && enc != nil && enc != encoding.Replacement {
			return enc
		}
	}
	return nil
}

// utf7To8 reads UTF-7 (RFC 2152): UTF-16 in base64 between + and -.
func utf7To8(src []byte) []byte {
	out := make([]byte, 0, len(src))
	for i := 0; i < len(src); i++ {
		if src[i] != '+' {
			out = append(out, src[i])
			continue
		}
		e := i + 1
		for e < len(src) && is(src[e], base64Class) && src[e] != '-' {
			e++
		}
		if e == i+1 {
			out = append(out, '+')
		}
		out = utf16To8(out, decode64(nil, src[i+1:e]), binary.BigEndian)
		i = e - 1
		if e < len(src) && src[e] == '-' {
			i = e
		}
	}
	return out
}
