package scan

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"hash/crc32"
	"slices"
	"strings"
)

// Check is a test that secrets of a form pass and other text does not. The
// zero Check passes everything.
type Check uint8

// The checks.
const (
	NoCheck Check = iota
	// CheckCRC32: the last six characters are the CRC-32 of those between
	// the first "_" and them, in base 62.
	CheckCRC32
	// CheckBech32 is the checksum of BIP 173.
	CheckBech32
	// CheckJWT: the first part decodes to a JSON object with a text "alg"
	// (RFC 7515 section 4.1.1), or "enc" (RFC 7516).
	CheckJWT
	// CheckAzureJWT is CheckJWT with an issuer of Microsoft's in the second part.
	CheckAzureJWT
	// CheckPEM: base64 follows the header (RFC 7468).
	CheckPEM
	// CheckDiscord: the first part is the base64 of a number.
	CheckDiscord
	// CheckMixed: there are letters and digits in it.
	CheckMixed
)

var checkNames = map[string]Check{
	"crc32": CheckCRC32, "bech32": CheckBech32, "jwt": CheckJWT, "azure-jwt": CheckAzureJWT, "pem": CheckPEM,
	"discord": CheckDiscord, "mixed": CheckMixed,
}

// holds tests a secret, and the text after it.
func (c Check) holds(secret, after []byte) bool {
	switch c {
	case NoCheck:
		return true
	case CheckCRC32:
		return crcHolds(secret)
	case CheckBech32:
		return bech32Holds(string(secret))
	case CheckJWT:
		return jwtHolds(secret)
	case CheckAzureJWT:
		return jwtHolds(secret) && azureIssuer(secret)
	case CheckPEM:
		return pemFollows(after)
	case CheckDiscord:
		return isNumber(secret)
	case CheckMixed:
		return bytes.ContainsFunc(secret, isRune(isDigit)) && bytes.ContainsFunc(secret, isRune(isLetter))
	default:
		return false
	}
}

func isRune(is func(byte) bool) func(rune) bool {
	return func(r rune) bool { return r < 0x80 && is(byte(r)) }
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

const crcLength = 6

func crcHolds(secret []byte) bool {
	_, random, ok := bytes.Cut(secret, []byte("_"))
	if !ok || len(random) <= crcLength {
		return false
	}
	cut := len(random) - crcLength
	return CRC62(random[:cut]) == string(random[cut:])
}

// CRC62 is the CRC-32 of the bytes as six digits of base 62.
func CRC62(random []byte) string {
	sum := crc32.ChecksumIEEE(random)
	out := make([]byte, crcLength)
	for i := range out {
		out[crcLength-1-i] = base62[sum%62]
		sum /= 62
	}
	return string(out)
}

const bech32Digits = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

// bech32Holds takes a string of one case, whose checksum is its last six
// characters, without a limit on its length (as age has it).
func bech32Holds(s string) bool {
	s = strings.ToLower(s)
	one := strings.LastIndexByte(s, '1')
	if one < 1 {
		return false
	}
	values := make([]byte, 0, len(s)-one)
	for i := one + 1; i < len(s); i++ {
		v := strings.IndexByte(bech32Digits, s[i])
		if v < 0 {
			return false
		}
		values = append(values, byte(v))
	}
	return bech32Sum(s[:one], values) == 1
}

// Bech32 appends the checksum to the digits of a text in lower case whose last
// "1" separates the prefix.
func Bech32(s string) string {
	one := strings.LastIndexByte(s, '1')
	var values []byte
	for i := one + 1; i < len(s); i++ {
		values = append(values, byte(strings.IndexByte(bech32Digits, s[i])))
	}
	sum := bech32Sum(s[:one], append(values, 0, 0, 0, 0, 0, 0)) ^ 1
	for i := range 6 {
		s += string(bech32Digits[sum>>(5*(5-i))&31])
	}
	return s
}

// bech32Sum is the polymod of BIP 173 over the expanded prefix and the values.
func bech32Sum(prefix string, values []byte) uint32 {
	var all []byte
	for i := range len(prefix) {
		all = append(all, prefix[i]>>5)
	}
	all = append(all, 0)
	for i := range len(prefix) {
		all = append(all, prefix[i]&31)
	}
	sum := uint32(1)
	for _, v := range append(all, values...) {
		top := sum >> 25
		sum = sum&0x1ffffff<<5 ^ uint32(v)
		for i, g := range [5]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	return sum
}

// jwtHolds looks at the header of a token in compact form.
func jwtHolds(secret []byte) bool {
	first, _, _ := bytes.Cut(secret, []byte("."))
	var header struct {
		Alg any `json:"alg"`
		Enc any `json:"enc"`
	}
	if err := json.Unmarshal(unbase64(first), &header); err != nil {
		return false
	}
	_, alg := header.Alg.(string)
	_, enc := header.Enc.(string)
	return alg || enc
}

// issuers are where Microsoft's tokens say that they are from.
var issuers = []string{"sts.windows.net", "login.microsoftonline.", "login.partner.microsoftonline.", ".b2clogin.com", ".ciamlogin.com", "login.windows.net"}

func azureIssuer(secret []byte) bool {
	parts := bytes.Split(secret, []byte("."))
	if len(parts) < 2 {
		return false
	}
	// The pattern cuts off what is very long, so this is no JSON to parse.
	payload := string(unbase64(parts[1]))
	return slices.ContainsFunc(issuers, func(i string) bool { return strings.Contains(payload, i) })
}

// unbase64 decodes the URL alphabet, as far as it goes.
func unbase64(b []byte) []byte {
	out := make([]byte, base64.RawURLEncoding.DecodedLen(len(b)))
	n, _ := base64.RawURLEncoding.Decode(out, b)
	return out[:n]
}

const (
	pemWithin = 400 // bytes after the header: there may be others, "Proc-Type: …"
	pemLeast  = 32  // characters of base64 in a row
)

// pemFollows wants a row of base64 with a digit, before the next line of
// dashes. Source code that names the header has none.
func pemFollows(after []byte) bool {
	after, _, _ = bytes.Cut(after[:min(len(after), pemWithin)], []byte("-----"))
	row, digit := 0, false
	for _, b := range after {
		if !isAlphanumeric(b) && b != '+' && b != '/' {
			row, digit = 0, false
			continue
		}
		row, digit = row+1, digit || isDigit(b)
		if row >= pemLeast && digit {
			return true
		}
	}
	return false
}

// isNumber reports whether the part before the first "." is the base64 of
// decimal digits.
func isNumber(secret []byte) bool {
	first, _, _ := bytes.Cut(secret, []byte("."))
	number := unbase64(first)
	return len(number) >= 15 && !bytes.ContainsFunc(number, func(r rune) bool { return r < '0' || r > '9' })
}
