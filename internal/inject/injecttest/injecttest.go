// Package injecttest hides values in texts, in every form in which one may come
// back, and finds them again slowly and without anything of what it checks.
package injecttest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// levels is how many encodings may lie on top of one another.
const levels = 3

var (
	percentRE = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	jsonRE    = regexp.MustCompile(`(?s)(?:\\u[0-9A-Fa-f]{4})+|\\x[0-9A-Fa-f]{2}|\\.`)
	b64RE     = regexp.MustCompile(`[A-Za-z0-9+/_-]+`)
	hexRE     = regexp.MustCompile(`[0-9A-Fa-f]{2,}`)
	breakRE   = regexp.MustCompile(`[\r\n]+[ \t]*`)
)

func unpercent(s string) string {
	return percentRE.ReplaceAllStringFunc(s, func(m string) string {
		n, _ := strconv.ParseUint(m[1:], 16, 8)
		return string([]byte{byte(n)})
	})
}

func unjson(s string) string {
	return jsonRE.ReplaceAllStringFunc(s, func(m string) string {
		switch m[1] {
		case 'u':
			if len(m) < 6 {
				return m
			}
			var units []uint16
			for i := 2; i < len(m); i += 6 {
				n, _ := strconv.ParseUint(m[i:i+4], 16, 16)
				units = append(units, uint16(n))
			}
			return string(utf16.Decode(units))
		case 'x':
			if len(m) < 4 {
				return m
			}
			n, _ := strconv.ParseUint(m[2:], 16, 8)
			return string([]byte{byte(n)})
		case 'n', 'r', 't', 'b', 'f':
			return string("\n\r\t\b\f"[strings.IndexByte("nrtbf", m[1])])
		}
		return m[1:]
	})
}

// Holds reports whether text holds the value in any form.
func Holds(text, value []byte) bool {
	seen := map[string]bool{}
	var look func(s string, depth int) bool
	look = func(s string, depth int) bool {
		if seen[s] {
			return false
		}
		seen[s] = true
		if holds(s, value) {
			return true
		}
		if depth == 0 {
			return false
		}
		for _, op := range []func(string) string{unpercent, unjson, html.UnescapeString} {
			if look(op(s), depth-1) {
				return true
			}
		}
		return false
	}
	return look(string(text), levels)
}

func holds(s string, value []byte) bool {
	if strings.Contains(s, string(value)) || strings.Contains(strings.ReplaceAll(s, "+", " "), string(value)) {
		return true
	}
	joined := breakRE.ReplaceAllString(s, "")
	for _, run := range b64RE.FindAllString(joined, -1) {
		std := strings.NewReplacer("-", "+", "_", "/").Replace(run)
		for off := 0; off < 4 && off < len(std); off++ {
			part := std[off:]
			if len(part)%4 == 1 {
				part = part[:len(part)-1]
			}
			b, _ := base64.RawStdEncoding.DecodeString(part)
			if bytes.Contains(b, value) || strings.Contains(unjson(string(b)), string(value)) || strings.Contains(unpercent(string(b)), string(value)) {
				return true
			}
		}
	}
	for _, run := range hexRE.FindAllString(joined, -1) {
		for off := range 2 {
			part := run[off:]
			b, _ := hex.DecodeString(part[:len(part)&^1])
			if bytes.Contains(b, value) {
				return true
			}
		}
	}
	return false
}

// Encoding writes a value in one form.
type Encoding struct {
	Name string
	Of   func(value string) string
}

func each(f func(i int, b byte) string) func(string) string {
	return func(s string) string {
		var out strings.Builder
		for i := range len(s) {
			out.WriteString(f(i, s[i]))
		}
		return out.String()
	}
}

func eachRune(f func(r rune) string) func(string) string {
	return func(s string) string {
		var out strings.Builder
		for len(s) > 0 {
			r, n := utf8.DecodeRuneInString(s)
			if r == utf8.RuneError && n == 1 {
				out.WriteString(s[:1])
			} else {
				out.WriteString(f(r))
			}
			s = s[n:]
		}
		return out.String()
	}
}

func uEscape(format string) func(rune) string {
	return func(r rune) string {
		var out strings.Builder
		for _, u := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&out, format, u)
		}
		return out.String()
	}
}

// JSON escapes as most encoders do.
func JSON(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "/", `\/`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\x00", `\u0000`).Replace(s)
}

// Wrap breaks s into lines of n bytes.
func Wrap(s string, n int, with string) string {
	var out []string
	for len(s) > n {
		out, s = append(out, s[:n]), s[n:]
	}
	return strings.Join(append(out, s), with)
}

// Encodings are all forms in which servers and clients are known to write a
// value, and more.
func Encodings() []Encoding {
	b64 := base64.StdEncoding
	var out []Encoding
	add := func(name string, of func(string) string) { out = append(out, Encoding{name, of}) }
	add("raw", func(s string) string { return s })
	add("percent upper", each(func(_ int, b byte) string { return fmt.Sprintf("%%%02X", b) }))
	add("percent lower", each(func(_ int, b byte) string { return fmt.Sprintf("%%%02x", b) }))
	add("percent every second", each(func(i int, b byte) string {
		if i%2 == 0 || b == '%' {
			return fmt.Sprintf("%%%02x", b)
		}
		return string([]byte{b})
	}))
	add("percent behind four", each(func(i int, b byte) string {
		if i >= 4 {
			return fmt.Sprintf("%%%02x", b)
		}
		return string([]byte{b})
	}))
	add("plus", func(s string) string { return strings.ReplaceAll(s, " ", "+") })
	add("percent twice", each(func(_ int, b byte) string { return fmt.Sprintf("%%25%02X", b) }))
	add("json", JSON)
	add("json in json", func(s string) string { return JSON(JSON(s)) })
	add("json in json in json", func(s string) string { return JSON(JSON(JSON(s))) })
	add("json u lower", eachRune(uEscape(`\u%04x`)))
	add("json u upper", eachRune(uEscape(`\u%04X`)))
	add("json u in json", eachRune(uEscape(`\\u%04x`)))
	add("braces", eachRune(func(r rune) string { return fmt.Sprintf(`\u{%x}`, r) }))
	add("x", each(func(_ int, b byte) string { return fmt.Sprintf(`\x%02x`, b) }))
	add("html decimal", eachRune(func(r rune) string { return fmt.Sprintf("&#%d;", r) }))
	add("html hex", eachRune(func(r rune) string { return fmt.Sprintf("&#x%X;", r) }))
	add("html zeros", eachRune(func(r rune) string { return fmt.Sprintf("&#%07d;", r) }))
	add("html", html.EscapeString)
	add("html twice", func(s string) string { return html.EscapeString(html.EscapeString(s)) })
	add("html in json", func(s string) string { return JSON(html.EscapeString(s)) })
	add("html in a path", func(s string) string { return url.PathEscape(html.EscapeString(s)) })
	add("html twice in a path", func(s string) string { return url.PathEscape(html.EscapeString(html.EscapeString(s))) })
	add("html numbers in a path", func(s string) string {
		return url.PathEscape(eachRune(func(r rune) string { return fmt.Sprintf("&#%d;", r) })(s))
	})
	add("mixed", each(func(i int, b byte) string {
		switch {
		case i%5 == 0:
			return fmt.Sprintf("%%%02x", b)
		case b >= 0x80 || b == 0:
			return string([]byte{b})
		}
		return []string{fmt.Sprintf(`\u%04X`, b), fmt.Sprintf("&#%d;", b), fmt.Sprintf(`\\u%04x`, b), fmt.Sprintf("%%25%02x", b)}[i%4]
	}))
	add("hex lower", func(s string) string { return hex.EncodeToString([]byte(s)) })
	add("hex upper", func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) })
	for shift := range 3 {
		pre := "abc"[:shift]
		for _, c := range []struct {
			name string
			enc  *base64.Encoding
		}{{"std", base64.StdEncoding}, {"raw std", base64.RawStdEncoding}, {"url", base64.URLEncoding}, {"raw url", base64.RawURLEncoding}} {
			add(fmt.Sprintf("base64 %s %d", c.name, shift), func(s string) string { return c.enc.EncodeToString([]byte(pre + s)) })
			add(fmt.Sprintf("base64 %s %d tail", c.name, shift), func(s string) string { return c.enc.EncodeToString([]byte(pre + s + "tail")) })
		}
		add(fmt.Sprintf("base64 in json %d", shift), func(s string) string {
			return strings.ReplaceAll(b64.EncodeToString([]byte(pre+s)), "/", `\/`)
		})
		add(fmt.Sprintf("base64 in a form %d", shift), func(s string) string {
			return strings.NewReplacer("+", "%2B", "/", "%2f", "=", "%3D").Replace(b64.EncodeToString([]byte(pre + s)))
		})
		add(fmt.Sprintf("base64 wrapped %d", shift), func(s string) string { return Wrap(b64.EncodeToString([]byte(pre+s)), 7, "\r\n") })
		add(fmt.Sprintf("base64 wrapped in json %d", shift), func(s string) string { return Wrap(b64.EncodeToString([]byte(pre+s)), 5, `\n`) })
		add(fmt.Sprintf("base64 of json %d", shift), func(s string) string { return b64.EncodeToString([]byte(`{"k` + pre + `":"` + jsonGo(s) + `"}`)) })
	}
	add("basic", func(s string) string { return "Basic " + b64.EncodeToString([]byte("user:"+s)) })
	return out
}

func jsonGo(s string) string {
	b, _ := json.Marshal(s) // no string fails
	return string(b[1 : len(b)-1])
}
