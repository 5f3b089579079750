package inspect

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DecodePath decodes the escaped path of a URL once (RFC 3986 section 2.1)
// and refuses every path that two servers might read differently, so that
// what a rule matches is what the server serves. An empty path is "/", as
// RFC 9110 section 4.2.3 has it.
//
// It refuses: a path that does not begin with "/" (so "*" too), bad escapes,
// an encoded slash, a backslash in any form, empty segments, "." and ".." in
// any encoding, text that would decode a second time, control characters,
// bytes that are no UTF-8, and ";" in any form, because some servers cut a
// segment there ("/admin;x" is "/admin", "/..;/" is "/../") and others do not.
func DecodePath(escaped string) (string, error) {
	if escaped == "" {
		return "/", nil
	}
	path, err := unescapeOnce(escaped)
	if err != nil {
		return "", fmt.Errorf("cannot decode path: %w", err)
	}
	if err := checkPath(path); err != nil {
		return "", fmt.Errorf("cannot decode path: %w", err)
	}
	return path, nil
}

// unescapeOnce decodes %XX. A slash or backslash must not come out of it:
// servers differ on whether "%2f" separates segments.
func unescapeOnce(s string) (string, error) {
	if strings.ContainsAny(s, "?#") {
		return "", errors.New("it has a query or a fragment")
	}
	if !strings.Contains(s, "%") {
		return s, nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '%' {
			out = append(out, c)
			continue
		}
		if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
			return "", errors.New("it has a bad percent escape")
		}
		c = unhex(s[i+1])<<4 | unhex(s[i+2])
		if c == '/' {
			return "", errors.New("it has an encoded slash")
		}
		out = append(out, c)
		i += 2
	}
	return string(out), nil
}

func checkPath(p string) error {
	if p[0] != '/' {
		return errors.New("it does not begin with a slash")
	}
	if !utf8.ValidString(p) {
		return errors.New("it is not UTF-8")
	}
	for i, r := range p {
		switch {
		case r == '\\':
			return errors.New("it has a backslash")
		case r == ';':
			return errors.New("it has a semicolon")
		case unicode.IsControl(r):
			return errors.New("it has a control character")
		case r == '%' && decodesAgain(p[i+1:]):
			return errors.New("it is encoded twice")
		}
	}
	return checkSegments(p)
}

func checkSegments(p string) error {
	for rest, more := p[1:], true; more; {
		var seg string
		seg, rest, more = strings.Cut(rest, "/")
		switch {
		case seg == "" && more:
			return errors.New("it has an empty segment")
		case seg == "." || seg == "..":
			return errors.New("it has a dot segment")
		}
	}
	return nil
}

// decodesAgain reports whether the text after a "%" makes an escape for some
// decoder: two hex digits, or the "%uXXXX" of old Microsoft servers.
func decodesAgain(after string) bool {
	if len(after) > 0 && (after[0] == 'u' || after[0] == 'U') {
		return true
	}
	return len(after) > 1 && isHex(after[0]) && isHex(after[1])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}

// MatchPath reports whether a glob matches a whole decoded path. "*" stands
// for any run of characters within one segment, and a segment "**" for any
// number of segments, none included: "/v1/**" matches "/v1", "/v1/" and
// "/v1/a/b". Everything else is literal and case-sensitive, and "/a" is not
// "/a/". A glob that does not begin with "/" is read as if it did. A path
// that does not begin with "/", and so the empty one, matches nothing.
//
// The time is at most len(glob) × len(path) steps, whatever the two hold.
func MatchPath(glob, path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	return matchSegments(strings.TrimPrefix(glob, "/"), path[1:])
}

// matchSegments goes back only to the latest "**": what an earlier one could
// still swallow, the latest one can swallow too. So each segment of the glob
// meets each segment of the path at most once for every "**".
func matchSegments(glob, path string) bool {
	g, p := segments{rest: glob}, segments{rest: path}
	var starG, starP segments
	star := false
	for !p.done {
		seg := g.peek()
		switch {
		case !g.done && seg == "**":
			g.next()
			star, starG, starP = true, g, p
		case !g.done && matchSegment(seg, p.peek()):
			g.next()
			p.next()
		case star:
			starP.next()
			g, p = starG, starP
		default:
			return false
		}
	}
	for !g.done && g.peek() == "**" {
		g.next()
	}
	return g.done
}

// segments walks over text cut at "/". Text always has one segment more than
// it has slashes.
type segments struct {
	rest string
	done bool
}

func (s *segments) peek() string {
	if i := strings.IndexByte(s.rest, '/'); i >= 0 {
		return s.rest[:i]
	}
	return s.rest
}

func (s *segments) next() {
	if i := strings.IndexByte(s.rest, '/'); i >= 0 {
		s.rest = s.rest[i+1:]
		return
	}
	s.rest, s.done = "", true
}

// matchSegment matches one segment, with "*" for any run of bytes.
func matchSegment(glob, seg string) bool {
	gi, si := 0, 0
	starG, starS := -1, 0
	for si < len(seg) {
		switch {
		case gi < len(glob) && glob[gi] == '*':
			starG, starS = gi, si
			gi++
		case gi < len(glob) && glob[gi] == seg[si]:
			gi++
			si++
		case starG >= 0:
			starS++
			gi, si = starG+1, starS
		default:
			return false
		}
	}
	for gi < len(glob) && glob[gi] == '*' {
		gi++
	}
	return gi == len(glob)
}
