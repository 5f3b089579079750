package known

import (
	"bytes"
	"encoding/json"
	"regexp"
)

// minPiece is how many secret bytes of a value make a piece of it.
const minPiece = 8

// prefixes are what everybody knows of a value in a well-known format. Shorter
// ones are not needed: they make no piece.
var prefixes = []string{
	"sk-ant-api03-", "sk-ant-admin01-", "sk-ant-oat01-", "sk-ant-ort01-", "sk-proj-", "sk-svcacct-", "sk-admin-", "sk-or-v1-",
	"github_pat_", "pypi-AgEIcHlwaS5vcmc", "sk_live_", "sk_test_", "rk_live_", "rk_test_", "AGE-SECRET-KEY-1", "xoxe.xoxp-1-",
	"secret-token:",
}

var (
	// ownPrefix is a prefix in the manner of the well-known ones: words of
	// small letters with a separator behind each, and a long run of what
	// keys are made of after the last one.
	ownPrefix = regexp.MustCompile(`^((?:[a-z]{1,12}[0-9]{0,3}[-_:.]){1,4})[A-Za-z0-9+/]{16}`)
	armour    = regexp.MustCompile(`-----(?:BEGIN|END)[ A-Z0-9]{0,60}-----`)
	jwtHeader = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]+\.eyJ`)
	// origin is the part of a URL that says where, without user and password.
	origin = regexp.MustCompile(`^[a-z][a-z0-9+.-]{1,30}://(?:[^/?#\s@]*@)?([^/?#\s@]+)`)
	scheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]{1,30}://`)
	words  = regexp.MustCompile(`(?i)password|production|development|staging|localhost|postgresql|postgres|username|database|internal|service|account|private|default|example|secret`)
)

// maxPrefix bounds what a prefix in a manner of its own may leave out.
const maxPrefix = 24

// secretBytes marks the bytes of a value that are secret: all but those that
// its format fixes, runs of one byte and a few words. Where less than a piece
// would be left, all are.
func secretBytes(value []byte) bitmap {
	secret := newBitmap(len(value))
	secret.set(0, len(value))
	for _, r := range publicRanges(value) {
		secret.clear(r[0], r[1])
	}
	if secret.count(secret) < minPiece {
		secret.set(0, len(value))
	}
	return secret
}

func publicRanges(v []byte) [][2]int {
	var out [][2]int
	add := func(from, to int) { out = append(out, [2]int{from, to}) }
	for _, m := range armour.FindAllIndex(v, -1) {
		add(m[0], m[1])
	}
	for _, m := range words.FindAllIndex(v, -1) {
		add(m[0], m[1])
	}
	add(0, prefixLen(v))
	if m := jwtHeader.FindIndex(v); m != nil {
		add(0, m[1]-len("eyJ"))
	}
	add(0, len(scheme.Find(v)))
	if m := origin.FindSubmatchIndex(v); m != nil {
		add(m[2], m[3])
	}
	for from := 0; from < len(v); {
		to := from + 1
		for to < len(v) && v[to] == v[from] {
			to++
		}
		if to-from >= 4 {
			add(from, to)
		}
		from = to
	}
	return append(out, documentRanges(v)...)
}

func prefixLen(v []byte) int {
	for _, p := range prefixes {
		if bytes.HasPrefix(v, []byte(p)) {
			return len(p)
		}
	}
	if m := ownPrefix.FindSubmatchIndex(v); m != nil && m[3] <= maxPrefix {
		return m[3]
	}
	return 0
}

// documentRanges is for a value that is a JSON document, such as the key of a
// service account: its keys, punctuation, names and addresses are no secret, and
// a program that uses it writes them down.
func documentRanges(v []byte) [][2]int {
	if len(v) == 0 || v[0] != '{' || !json.Valid(v) {
		return nil
	}
	var out [][2]int
	var key string
	rest := 0 // where the bytes begin that are in no secret string
	for i := bytes.IndexByte(v, '"'); i >= 0 && i < len(v); {
		end := stringEnd(v, i)
		text := v[i+1 : end-1]
		if colon := bytes.TrimLeft(v[end:], " \t\r\n"); len(colon) > 0 && colon[0] == ':' {
			key = string(text)
		} else if !publicField(key, text) {
			out = append(out, [2]int{rest, i + 1})
			rest = end - 1
		}
		next := bytes.IndexByte(v[end:], '"')
		if next < 0 {
			break
		}
		i = end + next
	}
	return append(out, [2]int{rest, len(v)})
}

// nameLike are keys of what names something.
var nameLike = regexp.MustCompile(`(?i)(id|email|name|uri|url|type|project|domain|region|host)$`)

func publicField(key string, text []byte) bool {
	if bytes.Contains(text, []byte("-----BEGIN")) {
		return false
	}
	return len(text) < 16 || nameLike.MatchString(key) || scheme.Match(text) || bytes.IndexByte(text, '@') >= 0
}

// stringEnd is the index behind the quote that ends the string at i.
func stringEnd(v []byte, i int) int {
	for i++; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(v)
}
