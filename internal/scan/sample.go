package scan

import (
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"strings"
)

// Sample makes the n-th example of a rule, for tests: it matches the pattern,
// as random as real ones are, with the checksum put right. The same n gives
// the same example.
func Sample(r *Rule, n uint64) []byte {
	h := fnv.New64a()
	h.Write([]byte(r.Name + r.Pattern))
	g := generator{rand.New(rand.NewPCG(h.Sum64(), n))}
	// Names in the tests are names of keys, as Named wants it.
	tree, err := parsePattern(strings.ReplaceAll(r.Pattern, assign, `(?:_API_KEY=|_secret: "|_token" = ')`))
	if err != nil {
		panic("scan: " + err.Error())
	}
	re := regexp.MustCompile(tree.String())
	for range 1000 {
		s := g.mend(r, g.write(nil, tree))
		if at := re.FindSubmatchIndex(s); r.Check != CheckMixed || CheckMixed.holds(s[at[len(at)-2]:at[len(at)-1]], nil) {
			return s
		}
	}
	panic("scan: no example of " + r.Name)
}

type generator struct{ *rand.Rand }

// write appends text that a pattern matches.
func (g generator) write(out []byte, re *syntax.Regexp) []byte {
	switch re.Op {
	case syntax.OpLiteral:
		return append(out, string(re.Rune)...)
	case syntax.OpCharClass:
		return append(out, g.member(re.Rune))
	case syntax.OpAlternate:
		return g.write(out, re.Sub[g.IntN(len(re.Sub))])
	case syntax.OpStar:
		return g.repeat(out, re.Sub[0], 0, 10)
	case syntax.OpPlus:
		return g.repeat(out, re.Sub[0], 1, 10)
	case syntax.OpQuest:
		return g.repeat(out, re.Sub[0], 0, 1)
	case syntax.OpRepeat:
		hi := re.Min + 20
		if re.Max >= 0 {
			hi = min(hi, re.Max)
		}
		return g.repeat(out, re.Sub[0], re.Min, hi)
	default:
		for _, sub := range re.Sub {
			out = g.write(out, sub)
		}
		return out
	}
}

func (g generator) repeat(out []byte, re *syntax.Regexp, lo, hi int) []byte {
	for range lo + g.IntN(hi-lo+1) {
		out = g.write(out, re)
	}
	return out
}

func (g generator) member(pairs []rune) byte {
	var all []byte
	for i := 0; i < len(pairs); i += 2 {
		for r := pairs[i]; r <= pairs[i+1]; r++ {
			all = append(all, byte(r))
		}
	}
	return all[g.IntN(len(all))]
}

// mend makes a text pass the check of its rule.
func (g generator) mend(r *Rule, s []byte) []byte {
	switch r.Check {
	case CheckCRC32:
		head, random, _ := strings.Cut(string(s), "_")
		random = random[:len(random)-crcLength]
		return []byte(head + "_" + random + CRC62([]byte(random)))
	case CheckBech32:
		text := Bech32(strings.ToLower(string(s[:len(s)-6])))
		if s[0] < 'a' {
			text = strings.ToUpper(text)
		}
		return []byte(text)
	case CheckJWT, CheckAzureJWT:
		claims := fmt.Sprintf(`{"iss":"https://issuer.example/%d","sub":"%d","exp":2000000000}`, g.Uint64(), g.Uint64())
		if r.Check == CheckAzureJWT {
			claims = strings.Replace(claims, "issuer.example", "sts.windows.net", 1)
		}
		header := fmt.Sprintf(`{"typ":"JWT","alg":"RS256","kid":"%d"}`, g.Uint64())
		return []byte(url64(header) + "." + url64(claims) + "." + url64(g.bytes(64)))
	case CheckPEM:
		return append(s, "\n"+base64.StdEncoding.EncodeToString([]byte("0123"+g.bytes(44)))+"\n"...)
	case CheckDiscord:
		_, rest, _ := strings.Cut(string(s), ".")
		return []byte(url64(fmt.Sprint(100_000_000_000_000_000+g.Uint64N(1e18))) + "." + rest)
	default:
		return s
	}
}

func (g generator) bytes(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return string(b)
}

func url64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
