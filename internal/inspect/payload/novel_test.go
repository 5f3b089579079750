package payload

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/inspect/payload/payloadtest"
)

// ramp counts in single bytes.
func ramp(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// TestPatterns: what repeats or counts is not random, and what stands before,
// behind and between is judged without it.
func TestPatterns(t *testing.T) {
	r := payloadtest.New(10)
	const base64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	counted, woven, twice := "", "", ""
	for i := range 2000 {
		counted += fmt.Sprintf("%06d", i)
		woven += fmt.Sprintf("%d%03d", r.IntN(10), i%1000)
	}
	for range 40 {
		twice += strings.Repeat(r.Of(base64, 32), 2)
	}
	for _, tt := range []struct {
		name, text  string
		least, most int // characters that are random
	}{
		{"digits over and over", strings.Repeat("0123456789", 500), 0, 0},
		{"an alphabet over and over", strings.Repeat(base64, 100), 0, 0},
		{"a random line over and over", strings.Repeat(r.Of(base64, 76), 100), 0, 140},
		{"numbers that count", counted, 0, 256},
		{"very many of them", strings.Repeat(counted, 100), 0, 256},
		{"bytes that count, in hex", hex.EncodeToString(ramp(4096)), 0, 64},
		{"random digits", r.Of("0123456789", 4000), 3400, 4000},
		{"random digits between numbers that count", woven, 1500, 4000},
		{"random digits behind others", strings.Repeat("0123456789", 300) + r.Of("0123456789", 1000), 800, 1010},
		{"random digits before others", r.Of("0123456789", 1000) + strings.Repeat("0123456789", 300), 800, 1010},
		{"each piece of random base64 twice", twice, 1000, 1600},
		{"random base64, more than is looked at", r.Of(base64, 300<<10), 290 << 10, 300 << 10},
	} {
		f := look([]byte(tt.text)).found
		if n := f.medium + f.short; n < tt.least || n > tt.most {
			t.Errorf("%s: %d characters of %d are random; want %d to %d", tt.name, n, len(tt.text), tt.least, tt.most)
		}
	}
}

func TestPatternsOfBytes(t *testing.T) {
	r := payloadtest.New(11)
	noise := r.Bytes(4096)
	woven := make([]byte, 0, 8192)
	for i, b := range noise {
		woven = append(woven, byte(i), b)
	}
	for _, tt := range []struct {
		name        string
		data        []byte
		least, most int
	}{
		{"bytes that count", ramp(4 << 20), 0, 0},
		{"64 bytes over and over", []byte(strings.Repeat(string(noise[:64]), 100)), 0, 0},
		{"random ones among those that count", append(append(ramp(4096), noise...), ramp(4096)...), 4000, 4100},
		{"random ones between those that count", woven, 3500, 8192},
	} {
		if f := look(tt.data).found; f.Opaque < tt.least || f.Opaque > tt.most {
			t.Errorf("%s: %d bytes of %d are opaque; want %d to %d", tt.name, f.Opaque, len(tt.data), tt.least, tt.most)
		}
	}
}

// TestStamped: ids with an instant are known where others of that time stand
// beside them, up to a bound, and never within data.
func TestStamped(t *testing.T) {
	const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	r := payloadtest.New(12)
	list := func(n int, id func() string) []byte {
		var b strings.Builder
		for range n {
			b.WriteString(`"` + id() + `",`)
		}
		return []byte(b.String())
	}
	ulid := func() string { return "01KAS" + r.Of(crockford, 21) }
	for _, tt := range []struct {
		name string
		data []byte
		is   bool
	}{
		{"ULIDs", list(200, ulid), true},
		{"TypeIDs", list(200, func() string { return "order_" + strings.ToLower(ulid()) }), true},
		{"KSUIDs", list(200, func() string { return "35v" + r.Of(base62, 24) }), true},
		{"random in the length of ULIDs", list(200, func() string { return r.Of(crockford, 26) }), false},
		{"random in the length of KSUIDs", list(200, func() string { return r.Of(base62, 27) }), false},
		{"ULIDs of all times", list(200, func() string { return "0" + r.Of("0123", 1) + r.Of(crockford, 24) }), false},
		{"ULIDs in two cases", list(200, func() string { return "01KAS" + r.Of(crockford+"abcdefgh", 21) }), false},
		{"too many ULIDs", list(4000, ulid), false},
		{"one in a long run", []byte(ulid() + "-" + ulid() + "-" + r.Of(base62, 400)), false},
	} {
		f := look(tt.data).found
		if found := f.scattered() > 0 || f.medium >= 2*mediumRun; found == tt.is {
			t.Errorf("%s: %d short, %d medium, %d stamped", tt.name, f.short, f.medium, f.stamped)
		}
	}
	for id, want := range map[string]int64{
		"01ARYZ6S41TSV4RRFFQ69G5FAV":  1469918176, // the example of its specification
		"7ZZZZZZZZZZZZZZZZZZZZZZZZZ":  281474976710,
		"8ZZZZZZZZZZZZZZZZZZZZZZZZZ":  0,
		"01ARZ3NDEKTSV4RRFFQ69G5FAU":  0,          // it has no U
		"0ujtsYcgvSTl8PAuAdqWYSMnLOv": 1507608047, // the example of its documentation
		"aWgEPTl1tmebfsQzFP4bxwgy80V": 1<<32 - 1 + 1400000000,
		"aWgEPTl1tmebfsQzFP4bxwgy80W": 0,
	} {
		at := ksuidTime
		if len(id) == 26 {
			at = ulidTime
		}
		if got := at([]byte(id)); got != want {
			t.Errorf("%s is of %d; want %d", id, got, want)
		}
	}
}

// TestSignatures: each field of a signature ends where the next begins.
func TestSignatures(t *testing.T) {
	r := payloadtest.New(13)
	number := append([]byte("\x08\x00\x80"), r.Bytes(255)...)
	body := "\x04\x00\x01\x08\x00\x06\x05\x02\x6b\x05\x27\xe0\x00\x0a\x09\x10" + string(r.Bytes(8)) + "ab" + string(number)
	packet := "\x89" + string([]byte{byte(len(body) >> 8), byte(len(body))}) + body
	part := func(s string) string { return string([]byte{0, 0, byte(len(s) >> 8), byte(len(s))}) + s }
	ssh := func(key, hash string, size int) string {
		return "SSHSIG\x00\x00\x00\x01" + part(part(key)+part(string(r.Bytes(32)))) + part("git") + part("") + part(hash) + part(part(key)+part(string(r.Bytes(size))))
	}
	for name, tt := range map[string]struct {
		data string
		is   bool
	}{
		"PGP":                            {packet, true},
		"PGP with another":               {packet + packet, true},
		"PGP with something behind":      {packet + "x", false},
		"PGP with random for its body":   {"\x89\x01\x33\x04\x00\x01\x08" + string(r.Bytes(303)), false},
		"PGP of a number without a bit":  {strings.Replace(packet, string(number[:3]), "\x08\x00\x10", 1), false},
		"PGP of a user that is no text":  {"\xb4\x40" + string(r.Bytes(64)), false},
		"SSH":                            {ssh("ssh-ed25519", "sha512", 64), true},
		"SSH of no key":                  {ssh("x", "sha512", 64), false},
		"SSH of a hash that is not":      {ssh("ssh-ed25519", "rand", 64), false},
		"SSH with something behind":      {ssh("ssh-ed25519", "sha512", 64) + "x", false},
		"SSH that is longer than any is": {ssh("ssh-ed25519", "sha512", 4000), false},
	} {
		if got := publicKey([]byte(tt.data)); got != tt.is {
			t.Errorf("%s: %v", name, got)
		}
	}
	many := strings.Repeat("x: "+base64.StdEncoding.EncodeToString([]byte(packet))+"\n", 2*maxKeys/len(packet))
	if f := look([]byte(many)).found; f.medium < maxKeys/2 {
		t.Errorf("of twice as many signatures as anybody sends %d characters are random", f.medium)
	}
}

// TestCrate: both lengths are right, and nothing else is there.
func TestCrate(t *testing.T) {
	r := payloadtest.New(14)
	pack := payloadtest.Gzip(payloadtest.Tar(r.Files()))
	part := func(s []byte) []byte {
		return append([]byte{byte(len(s)), byte(len(s) >> 8), byte(len(s) >> 16), 0}, s...)
	}
	crate := append(part([]byte(`{"name":"demo"}`)), part(pack)...)
	for name, tt := range map[string]struct {
		data []byte
		is   bool
	}{
		"whole":                   {crate, true},
		"a byte behind":           {append(crate[:len(crate):len(crate)], 0), false},
		"cut":                     {crate[:len(crate)-9], false},
		"no JSON":                 {append(part([]byte(`{"name":"demo"`)), part(pack)...), false},
		"something in the second": {append(part([]byte(`{}`)), part(append(pack[:len(pack):len(pack)], r.Bytes(400)...))...), false},
	} {
		if x := look(tt.data); (x.found.Type == "application/x-cargo-publish") != tt.is {
			t.Errorf("%s: %q", name, x.found.Type)
		}
	}
	random := append(part([]byte(`{}`)), part(payloadtest.Gzip(payloadtest.Tar(map[string][]byte{"a": r.Bytes(9000)})))...)
	if x := look(random); x.found.Opaque < 8000 {
		t.Errorf("of 9,000 random bytes in a crate %d are opaque", x.found.Opaque)
	}
}

// FuzzShapes gives the parsers of ids, keys and crates what an agent may send.
func FuzzShapes(f *testing.F) {
	f.Add([]byte("01ARZ3NDEKTSV4RRFFQ69G5FAV"))
	f.Add([]byte("0ujtsYcgvSTl8PAuAdqWYSMnLOv"))
	f.Add([]byte("\x89\x00\x10\x04\x00\x01\x08\x00\x00\x00\x00ab\x00\x08\x80"))
	f.Add([]byte("\xc2\x10\x06\x00\x1b\x08\x00\x00\x00\x00\x00\x00\x00\x00ab\x00"))
	f.Add([]byte("SSHSIG\x00\x00\x00\x01\x00\x00\x00\x00"))
	f.Add([]byte("\x02\x00\x00\x00{}\x03\x00\x00\x00\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, data []byte) {
		x := &examiner{root: &root{bytes: 1 << 20}}
		publicKey(data)
		new(found).isStamped(data)
		if end, ok := crate(x, data); ok && end != len(data) {
			t.Errorf("a crate ends at %d of %d", end, len(data))
		}
		if rest := x.novel(data); len(rest) > len(data) {
			t.Errorf("%d of %d symbols are new", len(rest), len(data))
		}
	})
}
