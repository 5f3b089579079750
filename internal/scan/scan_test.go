package scan

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/agentcage/agentcage/internal/hostname"
)

var builtin = sync.OnceValue(func() *Scanner {
	s, err := New(Builtin()...)
	if err != nil {
		panic(err)
	}
	return s
})

func mustNew(t testing.TB, rules ...*Rule) *Scanner {
	t.Helper()
	s, err := New(rules...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// foundIn returns the names of the rules that find something in a text.
func foundIn(t testing.TB, s *Scanner, text string) []string {
	t.Helper()
	var out []string
	if err := s.Scan(context.Background(), []byte(text), func(m Match) bool {
		out = append(out, m.Rule.Name)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestBuiltinRules is what is asked of the rules as data: enough of them, those
// of the original by name and with its hosts.
func TestBuiltinRules(t *testing.T) {
	hosts := map[string]string{}
	for _, r := range Builtin() {
		if first, ok := hosts[r.Name]; ok && first != strings.Join(r.Hosts, " ") {
			t.Errorf("%s: %s goes to other hosts than the rule of the same name before", r.source, r.Name)
		}
		hosts[r.Name] = strings.Join(r.Hosts, " ")
		for _, h := range r.Hosts {
			if n, err := hostname.Parse(h); err != nil || n.String() != h || n.IsIP() {
				t.Errorf("%s: %s has the host %q: %v", r.source, r.Name, h, err)
			}
		}
	}
	if len(hosts) < 300 {
		t.Errorf("%d rules, want 300", len(hosts))
	}
	for name, want := range map[string]string{
		"openai_key": "openai.com", "anthropic_key": "anthropic.com", "aws_access_key": "amazonaws.com",
		"github_token": "github.com githubusercontent.com", "github_pat": "github.com githubusercontent.com",
		"google_api_key": "googleapis.com google.com", "slack_token": "slack.com", "stripe_key": "stripe.com",
		"private_key": "", "gitlab_token": "gitlab.com", "huggingface_token": "huggingface.co hf.co",
		"databricks_token": "databricks.com", "azure_jwt": "", "openrouter_key": "openrouter.ai",
		"perplexity_key": "perplexity.ai", "brave_api_key": "search.brave.com", "telegram_bot_token": "api.telegram.org",
		"discord_bot_token": "discord.com", "firecrawl_key": "firecrawl.dev",
		"google_oauth_access_token": "googleapis.com google.com",
	} {
		if got, ok := hosts[name]; !ok || got != want {
			t.Errorf("%s goes to %q, want %q", name, got, want)
		}
	}
}

// TestRulesFindTheirSamples holds every rule to its examples, listed or made,
// alone and in company, and with something glued to them where no edge is
// asked for (rules 54).
func TestRulesFindTheirSamples(t *testing.T) {
	const samples = uint64(20)
	for _, r := range Builtin() {
		alone := mustNew(t, r)
		texts := r.Hits
		for n := range samples {
			texts = append(texts, string(Sample(r, n)))
		}
		for _, text := range texts {
			for _, form := range []string{"%s", "x %s y", `{"k":"%s"}`, "?a=%s&b"} {
				if in := fmt.Sprintf(form, text); len(foundIn(t, alone, in)) == 0 {
					t.Errorf("%s: %s does not find %q", r.source, r.Name, in)
				}
			}
			if !slices.Contains(foundIn(t, builtin(), text), r.Name) {
				t.Errorf("%s: with all rules %s does not find %q", r.source, r.Name, text)
			}
			if glue := glued(r, text); len(foundIn(t, alone, glue)) == 0 {
				t.Errorf("%s: %s does not find %q", r.source, r.Name, glue)
			}
		}
		for _, miss := range r.Misses {
			if len(foundIn(t, alone, miss)) > 0 {
				t.Errorf("%s: %s finds %q", r.source, r.Name, miss)
			}
		}
	}
}

// glued writes what an attacker writes to hide a secret, on the sides on which
// the rule must not care.
func glued(r *Rule, text string) string {
	if r.Left == AnyEdge || r.Left == BlobEdge {
		text = "xQ9" + text
	}
	if r.Right == AnyEdge || r.Right == BlobEdge {
		text += "!"
	}
	return text
}

// TestNearMisses takes a character off each example of fixed length, and
// changes one of each that has a checksum.
func TestNearMisses(t *testing.T) {
	fixed := 0
	for _, r := range Builtin() {
		alone := mustNew(t, r)
		sample := string(Sample(r, 7))
		if re := regexp.MustCompile("^(?:" + r.Pattern + ")$"); !re.MatchString(sample[:len(sample)-1]) && r.Check != CheckPEM && r.Check != CheckJWT && r.Check != CheckAzureJWT {
			fixed++
			if len(foundIn(t, alone, sample[:len(sample)-1])) > 0 {
				t.Errorf("%s: %s finds %q, which is cut", r.source, r.Name, sample[:len(sample)-1])
			}
		}
		if r.Check == CheckCRC32 && !r.Either || r.Check == CheckBech32 {
			i := len(sample) - 9
			other := sample[:i] + string(sample[i+1]) + string(sample[i]) + sample[i+2:]
			if other != sample && len(foundIn(t, alone, other)) > 0 {
				t.Errorf("%s: %s finds %q, whose checksum is wrong", r.source, r.Name, other)
			}
		}
	}
	if fixed < 200 {
		t.Errorf("%d rules have examples that can be cut", fixed)
	}
}

// TestKnownChecksums holds the checksums to values published by others.
func TestKnownChecksums(t *testing.T) {
	if got := CRC62([]byte("zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ")); got != "0mLq17" { // a revoked GitHub token
		t.Errorf("CRC62 = %s", got)
	}
	for _, s := range []string{"a12uel5l", "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw", "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33"} {
		if !CheckBech32.holds([]byte(s), nil) {
			t.Errorf("%s is refused", s)
		}
	}
	for _, s := range []string{"", "1", "a12uel5m", "split1cheo2y9e2w"} {
		if CheckBech32.holds([]byte(s), nil) {
			t.Errorf("%s is taken", s)
		}
	}
	if Check(99).holds([]byte("x"), nil) {
		t.Error("an unknown check holds")
	}
}

// TestJWT tells Microsoft's tokens from others by who issued them, and words
// that look like tokens from both.
func TestJWT(t *testing.T) {
	token := func(header, claims string) string {
		return url64(header) + "." + url64(claims) + "." + strings.Repeat("s", 43)
	}
	long := `"aud":"` + strings.Repeat("a", 40) + `",`
	for _, tt := range []struct {
		text string
		want []string
	}{
		{token(`{"alg":"RS256","typ":"JWT","kid":"0123456789abcdef"}`, `{`+long+`"iss":"https://sts.windows.net/1/"}`), []string{"azure_jwt", "jwt"}},
		{token(`{"alg":"RS256","typ":"JWT","kid":"0123456789abcdef"}`, `{`+long+`"iss":"https://auth.docker.example"}`), []string{"jwt"}},
		{token(`{"typ":"JWT","kid":"0123456789abcdef0123456789"}`, `{`+long+`"iss":"https://sts.windows.net/1/"}`), nil},
		{token(`{"alg":5,"kid":"0123456789abcdef0123456789abcdef"}`, `{`+long+`"iss":"https://sts.windows.net/1/"}`), nil},
	} {
		if got := foundIn(t, builtin(), tt.text); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.text, got, tt.want)
		}
	}
}

// TestRandomBase64 holds that no key comes about by chance in what is no text
// (rules 54): in one line and in lines of 76 and 64, in both alphabets. 64 MiB
// in all, less in short mode.
func TestRandomBase64(t *testing.T) {
	size := 16 << 20
	if testing.Short() {
		size = 1 << 20
	}
	std, url := randomBase64(base64.StdEncoding, 11, size), randomBase64(base64.URLEncoding, 12, size)
	for name, data := range map[string][]byte{"std": std, "url": url, "76": wrapped(std, 76, "\r\n"), "64": wrapped(url, 64, "\n")} {
		err := builtin().Scan(context.Background(), data, func(m Match) bool {
			t.Errorf("%s: %s finds %q", name, m.Rule.Name, data[m.Start:m.End])
			return true
		})
		if err != nil {
			t.Error(name, err)
		}
	}
}

func wrapped(data []byte, width int, end string) []byte {
	var b bytes.Buffer
	for line := range slices.Chunk(data, width) {
		b.Write(line)
		b.WriteString(end)
	}
	return b.Bytes()
}

// TestChance computes how often each rule finds something in 10 GiB of random
// base64. Either that is less than 0.01, or an edge has to make it so; an edge
// that is not needed lets a secret hide, and is a mistake too.
func TestChance(t *testing.T) {
	for _, r := range Builtin() {
		var cs classes
		tree, err := parsePattern(r.Pattern)
		if err != nil {
			t.Fatal(err)
		}
		shapes, err := shapesOf(tree, &cs)
		if err != nil {
			t.Fatal(err)
		}
		for _, alphabet := range []string{"+/", "-_"} {
			hits := 10 * float64(1<<30) * chance(shapes, base62+alphabet)
			if r.Check == CheckCRC32 && !r.Either {
				hits /= 1 << 32
			}
			if hits >= 0.01 && !edged(r, alphabet) {
				t.Errorf("%s: %s finds %.2g things in 10 GiB of base64 with %s, and has no edge against it", r.source, r.Name, hits, alphabet)
			}
		}
	}
}

// chance is the chance that a match begins at a place of random base64.
func chance(shapes []shape, alphabet string) float64 {
	sum := 0.0
	for _, sh := range shapes {
		p := 1.0
		for _, it := range sh.items {
			for _, b := range []byte(it.literal) {
				p *= float64(strings.Count(alphabet, string(b))) / 64
			}
			if it.class == nil {
				continue
			}
			in := 0
			for _, b := range []byte(alphabet) {
				if it.class.has[b] {
					in++
				}
			}
			for range it.min {
				p *= float64(in) / 64
			}
		}
		sum += p
	}
	return sum
}

// edged reports whether the edges rule out every place within a long row of an
// alphabet. One side is enough.
func edged(r *Rule, alphabet string) bool {
	for _, e := range []Edge{r.Left, r.Right} {
		if e == Base64Edge || alphabet == "-_" && e != AnyEdge {
			return true
		}
	}
	return false
}

// TestEdges is what each edge takes for a part of something longer.
func TestEdges(t *testing.T) {
	blob := strings.Repeat("aB3_", 32)
	for _, tt := range []struct {
		edge          Edge
		left, right   string
		clear, clear2 bool
	}{
		{AnyEdge, blob, blob, true, true},
		{WordEdge, "", "", true, true},
		{WordEdge, "=", ".", true, true},
		{WordEdge, "/", "+", true, true},
		{WordEdge, "-", "_", false, false},
		{Base64Edge, "/", "+", false, false},
		{Base64Edge, "=", "=", true, true},
		{BlobEdge, "x", "xyz", true, true},
		{BlobEdge, blob[1:], blob[1:], true, true},
		{BlobEdge, blob, blob, false, false},
		{BlobEdge, " " + blob[1:], blob[:127] + " ", true, true},
		{BlobEdge, blob[:64] + "\n" + blob[:64] + "\n", "ab\r\n" + blob[:76] + "\r\n" + blob[:76], false, false},
		{BlobEdge, strings.Repeat(blob[:40]+"\n", 9), strings.Repeat("\n"+blob[:40], 9), true, true},
	} {
		if got := tt.edge.clear([]byte(tt.left), lastByte); got != tt.clear {
			t.Errorf("edge %d, %q before: %v", tt.edge, tt.left, got)
		}
		if got := tt.edge.clear([]byte(tt.right), firstByte); got != tt.clear2 {
			t.Errorf("edge %d, %q after: %v", tt.edge, tt.right, got)
		}
	}
}

// TestBudget holds that a text made to be slow is refused and not passed, and
// that the densest one without ill will is not.
func TestBudget(t *testing.T) {
	slow := mustNew(t, &Rule{Name: "slow", Pattern: "abcd[a-z]{0,900}[a-y]{0,900}[a-x]{0,900}9"})
	text := []byte(strings.Repeat("abcd", 1<<12))
	if err := slow.Scan(context.Background(), text, func(Match) bool { return true }); !errors.Is(err, ErrBudget) {
		t.Errorf("a text that is made to be slow: %v", err)
	}
	if err := builtin().Scan(context.Background(), dense(1<<18), func(Match) bool { return true }); err != nil {
		t.Errorf("dense text: %v", err)
	}
	for _, text := range []string{"sk-proj-", "eyJ", "eyJ.", "://", "1234567:", "-----BEGIN ", "facebook_key", "AAAA", "MTIz", "Q~1", "secret_key=", "glpat-", "://a:"} {
		if err := builtin().Scan(context.Background(), []byte(strings.Repeat(text, 1<<16/len(text))), func(Match) bool { return true }); err != nil {
			t.Errorf("%q again and again: %v", text, err)
		}
	}
}

func TestScanStops(t *testing.T) {
	key := string(Sample(Builtin()[0], 1))
	calls := 0
	if err := builtin().Scan(context.Background(), []byte(key+" "+key), func(Match) bool { calls++; return false }); err != nil || calls != 1 {
		t.Errorf("%d calls after the first false, %v", calls, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := builtin().Scan(ctx, []byte(key), func(Match) bool { return true }); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled scan: %v", err)
	}
	for _, s := range []*Scanner{nil, {}} {
		if got := foundIn(t, s, key); len(got) > 0 {
			t.Errorf("a scanner without rules finds %v", got)
		}
	}
}

// TestPlaces finds a secret wherever it stands: at both ends, over the border
// of a chunk, within another match.
func TestPlaces(t *testing.T) {
	key := string(Sample(Builtin()[0], 1))
	for _, before := range []int{0, 1, 2, 3, 4, 5, chunk - 5, chunk - 4, chunk - 3, chunk - 2, chunk - 1, chunk, chunk + 1, chunk - len(key)} {
		for after := range 9 {
			text := strings.Repeat(" ", before) + key + strings.Repeat(" ", after)
			var at []int
			if err := builtin().Scan(context.Background(), []byte(text), func(m Match) bool {
				at = append(at, m.Start)
				return true
			}); err != nil || !slices.Contains(at, before) {
				t.Errorf("%d before, %d after: found at %v, %v", before, after, at, err)
			}
		}
	}
	token := "ghp_" + strings.Repeat("a", 30) + CRC62([]byte(strings.Repeat("a", 30)))
	if got := foundIn(t, builtin(), "ghp_ghp_"+token); !slices.Contains(got, "github_token") {
		t.Errorf("a token hides behind the beginning of another: %v", got)
	}
}

// TestUserPatterns are patterns of every kind: with shape, with a gate, with
// neither. Each finds what package regexp finds.
func TestUserPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		slow    int
		gated   bool
		yes, no string
	}{
		{`ACME-[0-9]{8}`, 0, false, "xACME-12345678", "ACME-1234567"},
		{`\bACME-[0-9]{8}\b`, 0, false, "x ACME-12345678.", "xACME-12345678"},
		{`^ACME-[0-9]{8}$`, 0, false, "ACME-12345678", "ACME-12345678\n"},
		{`(?m)^ACME-[0-9]{8}$`, 0, false, "a\nACME-12345678\nb", "a ACME-12345678\nb"},
		{`(?i)acme-(?:prod|dev)-[a-f0-9]+?x`, 0, false, "AcMe-PROD-afx", "acme-test-afx"},
		{`(?i)kiosk[0-9]{2}`, 0, false, "KIOSK12", "\u212aiosk12"},
		{`ACME "[^"]{4}"`, 1, true, `ACME "äöüß"`, `ACME "ab"`},
		{`ACME.{3,9}END`, 1, true, `ACME123END`, `ACME12`},
		{`(?:ab|cd)+[0-9]`, 1, false, `abcdab1`, `abc1`},
		{`x[0-9]`, 1, false, `x1`, `x`},
		{`schlüssel`, 0, false, `der schlüssel`, `der schlussel`},
		{`(?i)schlüssel`, 1, true, `der SCHLÜSSEL`, `der schlussel`},
	} {
		s := mustNew(t, &Rule{Name: "user", Pattern: tt.pattern})
		if len(s.slow) != tt.slow || tt.slow == 1 && s.slow[0].gated != tt.gated {
			t.Errorf("%s: slow %+v", tt.pattern, s.slow)
		}
		if len(foundIn(t, s, tt.yes)) == 0 {
			t.Errorf("%s does not find %q", tt.pattern, tt.yes)
		}
		if len(foundIn(t, s, tt.no)) > 0 {
			t.Errorf("%s finds %q", tt.pattern, tt.no)
		}
	}
	for _, bad := range []string{"(", "(?=x)", "", "a*", "(?:abcd)?"} {
		if _, err := New(&Rule{Name: "bad", Pattern: bad}); err == nil || !strings.HasPrefix(err.Error(), "cannot use the pattern bad: ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseRules(t *testing.T) {
	rules, err := parseRules("f", "# head\n\na_key\n  re a{assign}(b)\n  to x.test y.test\n  left word\n  weak\n  hit one two\n")
	if err != nil || len(rules) != 1 {
		t.Fatal(rules, err)
	}
	r := rules[0]
	if r.Pattern != "a"+assign+"(b)" || !r.Named || len(r.Hosts) != 2 || r.Left != WordEdge || r.Right != AnyEdge || !r.Weak || r.Hits[0] != "one two" || r.source != "f:3" {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{"a b\n  re x\n", "  re x\n", "a\n", "a\n  ra x\n", "a\n  re x\n  edge some\n", "a\n  re x\n  check some\n", "a\n  re x\n  entropy much\n"} {
		if _, err := parseRules("f", bad); err == nil || !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
