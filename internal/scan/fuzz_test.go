package scan

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"sync"
	"testing"
)

// anchored are the patterns of the built-in rules for package regexp, at the
// beginning of a text only.
var anchored = sync.OnceValue(func() []*regexp.Regexp {
	var out []*regexp.Regexp
	for _, r := range Builtin() {
		tree, err := parsePattern(r.Pattern)
		if err != nil {
			panic(err)
		}
		out = append(out, regexp.MustCompile("^(?:"+tree.String()+")"))
	}
	return out
})

// byRegexp is what Scan does, slowly: every rule at every place.
func byRegexp(data []byte) []*Rule {
	var out []*Rule
	for i, r := range Builtin() {
		for start := range data {
			at := anchored()[i].FindSubmatchIndex(data[start:])
			if at == nil {
				continue
			}
			value := span{start + at[len(at)-2], start + at[len(at)-1]}
			if r.accepts(data, start, start+at[1], value) {
				out = append(out, r)
				break
			}
		}
	}
	return out
}

// FuzzScan compares with package regexp, on a text that has an example of some
// rule in it, cut somewhere.
func FuzzScan(f *testing.F) {
	for i := range 40 {
		f.Add(uint16(i*9), uint64(i), 0, 300, []byte("a key: "), []byte(" and"))
	}
	f.Add(uint16(1), uint64(1), 0, 30, []byte("ghp_ghp_eyJeyJ.eyJ"), []byte("AAAA://a:b1cdefgh@h"))
	f.Add(uint16(3), uint64(1), 3, 80, []byte("\xff\x00-----BEGIN "), []byte("sk-proj-T3BlbkFJ"))
	f.Fuzz(func(t *testing.T, rule uint16, n uint64, from, to int, before, after []byte) {
		if len(before)+len(after) > 300 {
			return
		}
		sample := Sample(Builtin()[int(rule)%len(Builtin())], n)
		sample = sample[max(0, min(from, len(sample))):]
		sample = sample[:max(0, min(to, len(sample)))]
		data := slices.Concat(before, sample, after)
		var got []*Rule
		if err := builtin().Scan(context.Background(), data, func(m Match) bool {
			if m.Start < 0 || m.End > len(data) || m.Start > m.End {
				t.Fatalf("%s at %d to %d of %d", m.Rule.Name, m.Start, m.End, len(data))
			}
			got = append(got, m.Rule)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		want := byRegexp(data)
		for _, r := range Builtin() {
			if slices.Contains(got, r) != slices.Contains(want, r) {
				t.Errorf("%s: %s: found %v, by regexp %v, in %q", r.source, r.Name, slices.Contains(got, r), slices.Contains(want, r), data)
			}
		}
	})
}

// FuzzRuleShape compares a user's pattern with package regexp.
func FuzzRuleShape(f *testing.F) {
	for _, s := range [][2]string{
		{`ACME-[0-9]{8}`, "xACME-12345678"},
		{`\bab[a-z]{2,5}?cd\b`, " abxxcd "},
		{`(?i)kiosk(?:ab|cd){1,3}x?`, "KIOSKabCDx"},
		{`[a-c]{0,3}abcd[a-d]+?d`, "aaabcdabcd"},
		{`(?:a|ab)(?:bcd|cde)f*$`, "abcdeff"},
		{`(?m)^[^"\n]{4}.*end$`, "ä\xffbcd end\n"},
		{`x{4}|(?:yz){2,}`, "yzyz"},
		{`a{0}bcde\Bf`, "bcdef"},
		{`(a+b|c)(d*)eeee`, "aabddeeee"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 60 || len(text) > 300 {
			return
		}
		s, err := New(&Rule{Name: "user", Pattern: pattern})
		if err != nil {
			return
		}
		tree, err := parsePattern(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		err = s.Scan(context.Background(), []byte(text), func(Match) bool { found = true; return true })
		if err != nil {
			if !errors.Is(err, ErrBudget) {
				t.Fatal(err)
			}
			return
		}
		if want := regexp.MustCompile(tree.String()).MatchString(text); found != want {
			t.Errorf("%q in %q: %v, by regexp %v", pattern, text, found, want)
		}
	})
}
