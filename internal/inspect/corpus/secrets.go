package corpus

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"regexp/syntax"
	"strings"
)

// sample says how secrets of one form are made.
type sample struct {
	kind    string // "" for the pattern alone
	pattern *syntax.Regexp
}

// readSamples reads lines "NAME [!KIND] PATTERN": a secret is a random text that
// the pattern matches, finished as the kind says.
func (k *kitchen) readSamples(file string) error {
	data, err := fs.ReadFile(k.files, file)
	if err != nil {
		return err
	}
	k.samples = make(map[string]sample)
	for i, line := range strings.Split(string(data), "\n") {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" || name[0] == '#' {
			continue
		}
		var s sample
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "!") {
			s.kind, rest, _ = strings.Cut(rest[1:], " ")
		}
		if s.pattern, err = syntax.Parse(strings.TrimSpace(rest), syntax.Perl); err != nil {
			return fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
		if _, twice := k.samples[name]; twice {
			return fmt.Errorf("%s:%d: %s is there already", file, i+1, name)
		}
		k.samples[name] = s
	}
	return nil
}

// secret makes a secret; the same for the same case, name and seed.
func secret(k *kitchen, c *call) ([]byte, error) {
	name := c.text(0, "")
	s, ok := k.samples[name]
	if !ok {
		return nil, fmt.Errorf("there is no secret %q", name)
	}
	r := c.rng()
	text := generate(r, s.pattern)
	switch s.kind {
	case "":
	case "crc32":
		_, random, _ := strings.Cut(text, "_")
		text += crc62(random)
	case "bech32":
		text = bech32(strings.ToLower(text))
		text = strings.ToUpper(text)
	case "bech32low":
		text = bech32(text)
	case "jwt":
		text = jwt(r, "https://issuer.example.com/")
	case "azure-jwt":
		text = jwt(r, "https://sts.windows.net/"+generate(r, uuidForm)+"/")
	case "pem":
		text = privateKey(r, text)
	case "base64url":
		text = base64.RawURLEncoding.EncodeToString([]byte(text))
	case "discord":
		id, rest, _ := strings.Cut(text, ".")
		text = base64.RawURLEncoding.EncodeToString([]byte(id)) + "." + rest
	default:
		return nil, fmt.Errorf("there is no kind %q", s.kind)
	}
	return []byte(text), nil
}

var uuidForm = mustParse(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)

func mustParse(pattern string) *syntax.Regexp {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		panic(err)
	}
	return re
}

// maxMore is how much longer than need be an open repetition gets.
const maxMore = 12

// generate makes a text that a pattern matches.
func generate(r *rand.Rand, re *syntax.Regexp) string {
	repeat := func(lo, hi int) string {
		if hi < 0 || hi > lo+maxMore {
			hi = lo + maxMore
		}
		var b strings.Builder
		for range lo + r.IntN(hi-lo+1) {
			b.WriteString(generate(r, re.Sub[0]))
		}
		return b.String()
	}
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		return string(pick(r, re.Rune))
	case syntax.OpCapture:
		return generate(r, re.Sub[0])
	case syntax.OpAlternate:
		return generate(r, re.Sub[r.IntN(len(re.Sub))])
	case syntax.OpConcat:
		var b strings.Builder
		for _, sub := range re.Sub {
			b.WriteString(generate(r, sub))
		}
		return b.String()
	case syntax.OpRepeat:
		return repeat(re.Min, re.Max)
	case syntax.OpStar:
		return repeat(0, -1)
	case syntax.OpPlus:
		return repeat(1, -1)
	case syntax.OpQuest:
		return repeat(0, 1)
	}
	return ""
}

// pick takes one character of a class, which is given as ranges.
func pick(r *rand.Rand, class []rune) rune {
	total := rune(0)
	for i := 0; i+1 < len(class); i += 2 {
		total += class[i+1] - class[i] + 1
	}
	n := r.Int32N(total)
	for i := 0; i+1 < len(class); i += 2 {
		size := class[i+1] - class[i] + 1
		if n < size {
			return class[i] + n
		}
		n -= size
	}
	return 0
}

// crc62 is the checksum of GitHub's tokens: CRC-32 as six digits of base 62.
func crc62(random string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := crc32.ChecksumIEEE([]byte(random))
	out := make([]byte, 6)
	for i := range out {
		out[5-i] = digits[sum%62]
		sum /= 62
	}
	return string(out)
}

// bech32 appends the checksum of BIP 173 to a text in small letters.
func bech32(s string) string {
	const digits = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	prefix, data := s[:strings.LastIndexByte(s, '1')], s[strings.LastIndexByte(s, '1')+1:]
	var values []byte
	for i := range len(prefix) {
		values = append(values, prefix[i]>>5)
	}
	values = append(values, 0)
	for i := range len(prefix) {
		values = append(values, prefix[i]&31)
	}
	for i := range len(data) {
		values = append(values, byte(strings.IndexByte(digits, data[i])))
	}
	sum := uint32(1)
	for _, v := range append(values, 0, 0, 0, 0, 0, 0) {
		top := sum >> 25
		sum = sum&0x1ffffff<<5 ^ uint32(v)
		for i, g := range [5]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	sum ^= 1
	for i := range 6 {
		s += string(digits[sum>>(5*(5-i))&31])
	}
	return s
}

// jwt makes a token in compact form (RFC 7519) with a random signature.
func jwt(r *rand.Rand, issuer string) string {
	enc := base64.RawURLEncoding.EncodeToString
	head, _ := json.Marshal(map[string]any{"alg": "RS256", "typ": "JWT", "kid": generate(r, mustParse(`[A-Za-z0-9]{20}`))}) // plain data
	body, _ := json.Marshal(map[string]any{                                                                                 // plain data
		"iss": issuer, "sub": generate(r, uuidForm), "aud": "api", "iat": 1790000000 + r.IntN(1e6), "exp": 1791000000 + r.IntN(1e6),
		"scope": "read write offline_access",
	})
	return enc(head) + "." + enc(body) + "." + enc(randomBytes(r, 256))
}

// privateKey makes a key in PEM form, of the type that stands in the header.
func privateKey(r *rand.Rand, typ string) string {
	if typ == "PRIVATE KEY" {
		der, _ := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(randomBytes(r, ed25519.SeedSize))) // a good key
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: randomBytes(r, 300+r.IntN(800))}))
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
