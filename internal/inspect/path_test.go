package inspect

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDecodePath(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", "/"},
		{"/", "/"},
		{"/a/b/", "/a/b/"},
		{"/a%20b", "/a b"},
		{"/%c3%a4", "/ä"},
		{"/ä", "/ä"},
		{"/100%25", "/100%"},
		{"/100%25/x", "/100%/x"},
		{"/.well-known/x", "/.well-known/x"},
		{"/...", "/..."},
		{"/what%3f", "/what?"},
		{"/a:b@c", "/a:b@c"},
	}
	for _, tt := range tests {
		if got, err := DecodePath(tt.in); err != nil || got != tt.want {
			t.Errorf("DecodePath(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

// TestDecodePathRefuses is peer-holes A7.
func TestDecodePathRefuses(t *testing.T) {
	for _, in := range []string{
		"*", "a", "%2fa", "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "//", "//a", "/a//b", "/a//",
		"/.", "/..", "/a/./b", "/a/../b", "/a/..", "/%2e%2e/b", "/.%2E/b", "/%2e",
		"/%252e", "/%25%32%65", "/%252fetc", "/a%25u002e", "/%u002e", "/a%00b", "/a\x00b", "/a%0ab", "/a\nb", "/%7f", "/%c2%85",
		"/%ff", "/\xff", "/%c0%ae%c0%ae/", "/%", "/%2", "/%zz", "/a;x", "/..;/b", "/a%3bx", "/a?b", "/a#b",
	} {
		if got, err := DecodePath(in); err == nil || got != "" {
			t.Errorf("DecodePath(%q) = %q, %v; want an error", in, got, err)
		}
	}
}

func TestMatchPath(t *testing.T) {
	tests := []struct {
		glob, path string
		want       bool
	}{
		{"/v1/messages", "/v1/messages", true},
		{"/v1/messages", "/v1/messages/", false},
		{"/v1/messages", "/v1/messages/x", false},
		{"/v1/messages", "/x/v1/messages", false},
		{"/v1/*", "/v1/a", true},
		{"/v1/*", "/v1/", true},
		{"/v1/*", "/v1", false},
		{"/v1/*", "/v1/a/b", false},
		{"/v1/*.git", "/v1/x.git", true},
		{"/v1/*.git", "/v1/x.gitx", false},
		{"/v1/**", "/v1", true},
		{"/v1/**", "/v1/", true},
		{"/v1/**", "/v1/a/b/c", true},
		{"/v1/**", "/v10", false},
		{"/**", "/", true},
		{"/**", "/a/b", true},
		{"**", "/a/b", true},
		{"/**/info", "/info", true},
		{"/**/info", "/a/b/info", true},
		{"/**/info", "/a/b/infos", false},
		{"/a/**/b/**/c", "/a/x/b/y/b/c", true},
		{"/a/**/b/**/c", "/a/x/y/c", false},
		{"/a**b", "/axxb", true},
		{"/a**b", "/ax/xb", false},
		{"/A", "/a", false},
		{"v1/*", "/v1/a", true},
		{"/", "/", true},
		{"", "/", true},
		{"/a[b]?", "/a[b]?", true},
		{"/a?", "/ab", false},
		{"/**", "", false},
		{"/**", "*", false},
	}
	for _, tt := range tests {
		if got := MatchPath(tt.glob, tt.path); got != tt.want {
			t.Errorf("MatchPath(%q, %q) = %v, want %v", tt.glob, tt.path, got, tt.want)
		}
	}
}

// TestMatchPathBlowUp would take longer than the age of the universe with a
// matcher that goes back to more than the latest star.
func TestMatchPathBlowUp(t *testing.T) {
	if MatchPath("/"+strings.Repeat("*a", 200)+"b", "/"+strings.Repeat("a", 8000)) {
		t.Error("matched within a segment")
	}
	if MatchPath("/"+strings.Repeat("**/a/", 200)+"b", strings.Repeat("/a", 4000)) {
		t.Error("matched over segments")
	}
}

func FuzzDecodePath(f *testing.F) {
	for _, s := range []string{"/a/b", "/%2e%2e", "/%252e", "/a%2fb", "//", "/100%25", "/;x", "*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := DecodePath(s)
		if err != nil {
			if p != "" {
				t.Fatalf("DecodePath(%q) returned %q beside its error", s, p)
			}
			return
		}
		if p[0] != '/' || !utf8.ValidString(p) || strings.ContainsAny(p, "\\;\x00\n\x7f") || strings.Contains(p, "//") {
			t.Fatalf("DecodePath(%q) = %q", s, p)
		}
		again, err := url.PathUnescape(p)
		if err == nil && again != p {
			t.Fatalf("DecodePath(%q) = %q, which decodes again to %q", s, p, again)
		}
		for _, seg := range strings.Split(p, "/") {
			if seg == "." || seg == ".." {
				t.Fatalf("DecodePath(%q) = %q has a dot segment", s, p)
			}
		}
	})
}

// FuzzMatchPath compares with a regular expression of the same meaning.
func FuzzMatchPath(f *testing.F) {
	for _, s := range [][2]string{{"/**/a", "/b/a"}, {"/v1/*", "/v1/"}, {"**/**", "/"}, {"/a**b/**", "/axb/c"}, {"/**/", "/"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, glob, path string) {
		if len(glob) > 40 || !utf8.ValidString(glob) || !utf8.ValidString(path) {
			return
		}
		want := strings.HasPrefix(path, "/") && asRegexp(glob).MatchString(path)
		if got := MatchPath(glob, path); got != want {
			t.Fatalf("MatchPath(%q, %q) = %v, want %v (%s)", glob, path, got, want, asRegexp(glob))
		}
	})
}

func asRegexp(glob string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)^`)
	for _, seg := range strings.Split(strings.TrimPrefix(glob, "/"), "/") {
		if seg == "**" {
			b.WriteString(`(?:/[^/]*)*`)
			continue
		}
		b.WriteByte('/')
		for _, r := range seg {
			if r == '*' {
				b.WriteString(`[^/]*`)
			} else {
				b.WriteString(regexp.QuoteMeta(string(r)))
			}
		}
	}
	return regexp.MustCompile(b.String() + `$`)
}
