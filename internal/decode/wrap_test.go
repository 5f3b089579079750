package decode

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"mime/quotedprintable"
	"net/url"
	"strings"
	"unicode/utf16"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// wrapper wraps a text. What a wrapper of binary gives has to be wrapped in
// one that makes text of it before anything but compression.
type wrapper struct {
	name   string
	binary bool
	wrap   func(string) string
}

func each(s string, f func(r rune) string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteString(f(r))
	}
	return b.String()
}

func eachByte(s string, f func(c byte) string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteString(f(s[i]))
	}
	return b.String()
}

// shift replaces the letters of ASCII by those of a block of Unicode.
func shift(upper, lower, digit rune) func(string) string {
	return func(s string) string {
		return each(s, func(r rune) string {
			switch {
			case r >= 'A' && r <= 'Z':
				return string(upper + r - 'A')
			case r >= 'a' && r <= 'z':
				return string(lower + r - 'a')
			case r >= '0' && r <= '9':
				return string(digit + r - '0')
			}
			return string(r)
		})
	}
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return `{"key":` + string(b) + `}`
}

func lines(s string, width int, end string) string {
	var b strings.Builder
	for len(s) > width {
		b.WriteString(s[:width] + end)
		s = s[width:]
	}
	return b.String() + s
}

func utf16Of(s string, order binary.AppendByteOrder) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

func utf32Of(s string, order binary.AppendByteOrder) string {
	var b []byte
	for _, r := range s {
		b = order.AppendUint32(b, uint32(r))
	}
	return string(b)
}

func gzipOf(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

func zlibOf(s string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

func flateOf(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 9)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

func brotliOf(s string) string {
	var b bytes.Buffer
	w := brotli.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

func zstdOf(s string) string {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	defer w.Close()
	return string(w.EncodeAll([]byte(s), nil))
}

func quotedOf(s string) string {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

func pairs(s, before, between string) string {
	parts := make([]string, len(s))
	for i := range len(s) {
		parts[i] = fmt.Sprintf("%s%02x", before, s[i])
	}
	return strings.Join(parts, between)
}

// everyOther wraps every second character only, so that no run is long.
func everyOther(f func(string) string) func(string) string {
	return func(s string) string {
		n := 0
		return each(s, func(r rune) string {
			if n++; n%2 == 0 && !strings.ContainsRune(`\%&=`, r) {
				return string(r)
			}
			return f(string(r))
		})
	}
}

func percentAll(s string) string {
	return eachByte(s, func(c byte) string { return fmt.Sprintf("%%%02X", c) })
}

func jsonAll(s string) string {
	return each(s, func(r rune) string {
		return eachByte(utf16Of(string(r), binary.BigEndian), func(byte) string { return "" }) + escapeUnits(r)
	})
}

func escapeUnits(r rune) string {
	out := ""
	for _, u := range utf16.Encode([]rune{r}) {
		out += fmt.Sprintf(`\u%04x`, u)
	}
	return out
}

var wrappers = []wrapper{
	{"percent", false, url.QueryEscape},
	{"percent all", false, percentAll},
	{"percent lower", false, func(s string) string { return strings.ToLower(percentAll(s)) }},
	{"percent every other", false, everyOther(percentAll)},
	{"percent twice", false, func(s string) string { return url.PathEscape(percentAll(s)) }},
	{"percent u", false, func(s string) string { return strings.ReplaceAll(jsonAll(s), `\u`, "%u") }},
	{"form", false, func(s string) string { return "a=b+c&name=" + url.QueryEscape(s) + "&d=e" }},
	{"json", false, quote},
	{"json all", false, jsonAll},
	{"json every other", false, everyOther(jsonAll)},
	{"json in json", false, func(s string) string { return quote(quote(s)) }},
	{"json in json in json", false, func(s string) string { return quote(quote(quote(s))) }},
	{"json slash", false, func(s string) string { return strings.ReplaceAll(quote(s), "/", `\/`) }},
	{"js x", false, func(s string) string { return eachByte(s, func(c byte) string { return fmt.Sprintf(`\x%02x`, c) }) }},
	{"js braces", false, func(s string) string { return each(s, func(r rune) string { return fmt.Sprintf(`\u{%x}`, r) }) }},
	{"c octal", false, func(s string) string { return eachByte(s, func(c byte) string { return fmt.Sprintf(`\%03o`, c) }) }},
	{"html", false, html.EscapeString},
	{"html decimal", false, func(s string) string { return each(s, func(r rune) string { return fmt.Sprintf("&#%d;", r) }) }},
	{"html hex", false, func(s string) string { return each(s, func(r rune) string { return fmt.Sprintf("&#x%x;", r) }) }},
	{"html every other", false, everyOther(func(s string) string { return fmt.Sprintf("&#%d;", []rune(s)[0]) })},
	{"quoted-printable", false, quotedOf},
	{"quoted-printable all", false, func(s string) string { return eachByte(s, func(c byte) string { return fmt.Sprintf("=%02X", c) }) }},
	{"base64", false, func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }},
	{"base64 raw", false, func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte(s)) }},
	{"base64 url", false, func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }},
	{"base64 +1", false, func(s string) string { return "x" + base64.RawStdEncoding.EncodeToString([]byte(s)) }},
	{"base64 +2", false, func(s string) string { return "xy" + base64.RawStdEncoding.EncodeToString([]byte(s)) + "z" }},
	{"base64 +3", false, func(s string) string { return "key" + base64.RawURLEncoding.EncodeToString([]byte(s)) + "zz" }},
	{"base64 in a path", false, func(s string) string { return "/v1/x/" + base64.RawStdEncoding.EncodeToString([]byte(s)) + "/y" }},
	{"base64 lines", false, func(s string) string {
		return lines(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("some text before ", 9)+s)), 76, "\r\n")
	}},
	{"base64 pem", false, func(s string) string {
		return "-----BEGIN X-----\n" + lines(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x80\x90\xff", 31)+s)), 64, "\n") + "\n-----END X-----\n"
	}},
	{"base64 lines in json", false, func(s string) string {
		return quote(lines(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("some text before ", 9)+s)), 76, "\n"))
	}},
	{"base32", false, func(s string) string { return base32.StdEncoding.EncodeToString([]byte(s)) }},
	{"base32 lower", false, func(s string) string {
		return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(s)))
	}},
	{"hex", false, func(s string) string { return hex.EncodeToString([]byte(s)) }},
	{"hex upper", false, func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) }},
	{"hex odd", false, func(s string) string { return "0" + hex.EncodeToString([]byte(s)) }},
	{"hex colons", false, func(s string) string { return pairs(s, "", ":") }},
	{"hex spaces", false, func(s string) string { return pairs(s, "", " ") }},
	{"hex 0x", false, func(s string) string { return pairs(s, "0x", ", ") }},
	{"utf-16le", true, func(s string) string { return utf16Of(s, binary.LittleEndian) }},
	{"utf-16be", true, func(s string) string { return utf16Of(s, binary.BigEndian) }},
	{"utf-16 odd", true, func(s string) string { return "\xff" + utf16Of(s, binary.LittleEndian) }},
	{"utf-16 marked", true, func(s string) string { return utf16Of("\ufeff"+s, binary.LittleEndian) }},
	{"utf-32le", true, func(s string) string { return utf32Of(s, binary.LittleEndian) }},
	{"utf-32be", true, func(s string) string { return utf32Of(s, binary.BigEndian) }},
	{"utf-32 marked", true, func(s string) string { return utf32Of("\ufeff"+s, binary.LittleEndian) }},
	{"gzip", true, gzipOf},
	{"gzip behind text", true, func(s string) string { return "some text" + gzipOf(s) }},
	{"gzip cut", true, func(s string) string { g := gzipOf(s); return g[:len(g)-9] }},
	{"zlib", true, zlibOf},
	{"zstd", true, zstdOf},
}

// folded wrappers keep letters, digits and signs only, and stand at the inside
// of a chain.
var folded = []wrapper{
	{"full width", false, func(s string) string { return each(s, func(r rune) string { return string(r - '!' + '！') }) }},
	{"mathematical", false, shift(0x1d400, 0x1d41a, 0x1d7ce)},
	{"monospace", false, shift(0x1d670, 0x1d68a, 0x1d7f6)},
	{"circled", false, shift(0x24b6, 0x24d0, '0')},
	{"zero width", false, func(s string) string { return each(s, func(r rune) string { return string(r) + "\u200b" }) }},
	{"soft hyphens", false, func(s string) string { return each(s, func(r rune) string { return string(r) + "\u00ad" }) }},
	{"variation selectors", false, func(s string) string { return each(s, func(r rune) string { return string(r) + "\ufe0f" }) }},
	{"accents", false, func(s string) string { return each(s, func(r rune) string { return string(r) + "\u0301" }) }},
	{"composed", false, strings.NewReplacer("a", "á", "e", "ê", "n", "ñ", "C", "Ç").Replace},
	{"cyrillic", false, strings.NewReplacer("a", "а", "c", "с", "e", "е", "o", "о", "p", "р", "x", "х", "A", "А", "K", "К").Replace},
	{"greek", false, strings.NewReplacer("o", "ο", "A", "Α", "B", "Β", "K", "Κ", "I", "Ι", "v", "ν").Replace},
	{"tags", false, func(s string) string { return each(s, func(r rune) string { return string(r + 0xe0000) }) }},
	{"dashes", false, strings.NewReplacer("-", "‐", "_", "＿").Replace},
}
