package known

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

func value(name, text string) Value { return Value{Name: name, Bytes: []byte(text)} }

func TestSetRefuses(t *testing.T) {
	many := make([]Value, maxValues+1)
	for i := range many {
		many[i] = value("N", fmt.Sprintf("value number %d", i))
	}
	large := make([]Value, 9)
	for i := range large {
		large[i] = value("N", fmt.Sprint(i)+strings.Repeat("x", MaxValue-1))
	}
	for name, list := range map[string][]Value{
		"short":     {value("GOOD", "long enough"), value("N", "sevenby")},
		"empty":     {value("N", "")},
		"long":      {value("N", strings.Repeat("x", MaxValue+1))},
		"no name":   {value("", "long enough")},
		"too many":  many,
		"too large": large,
	} {
		s := hold(t, token)
		err := s.Replace("test", list)
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		if strings.Contains(err.Error(), "sevenby") {
			t.Errorf("%s: the error shows the value: %v", name, err)
		}
		if v := s.Values(); len(v) != 1 || v[0].Retired || send(s, "a.test", token).Allowed() {
			t.Errorf("%s: the set changed: %v", name, v)
		}
	}
}

// TestRetired: a value that was replaced is found like the new one.
func TestRetired(t *testing.T) {
	s := new(Set)
	old, young := "the old value 8c1f", "the new value 77aa"
	for _, v := range []string{old, young} {
		if err := s.Replace("config", []Value{value("KEY", v)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add("minted", value("TOKEN", "a token of an hour 5e")); err != nil {
		t.Fatal(err)
	}
	s.Retire("minted", "TOKEN")
	s.Retire("config", "TOKEN") // not its own
	var names []string
	for _, v := range s.Values() {
		names = append(names, fmt.Sprint(v.Name, " ", v.Retired))
		if f := send(s, "a.test", string(v.Bytes)); f.Allowed() {
			t.Errorf("%s passes", v.Bytes)
		}
	}
	if want := []string{"KEY true", "KEY false", "TOKEN true"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
	// It comes back when it is in force again.
	if err := s.Replace("config", []Value{value("KEY", old)}); err != nil {
		t.Fatal(err)
	}
	if v := s.Values(); len(v) != 3 || v[len(v)-1].Retired || string(v[len(v)-1].Bytes) != old {
		t.Errorf("%v", v)
	}
}

// TestRotationIsBounded is rules.md 114: a value that is renewed for ever does
// not fill the set, and the newest ones are kept.
func TestRotationIsBounded(t *testing.T) {
	s := new(Set)
	for i := range maxRetired + 50 {
		if err := s.Replace("config", []Value{value("KEY", fmt.Sprintf("value number %d of many", i))}); err != nil {
			t.Fatal(err)
		}
	}
	v := s.Values()
	if len(v) != maxRetired+1 || string(v[0].Bytes) != "value number 49 of many" {
		t.Errorf("%d values, the first %s", len(v), v[0].Bytes)
	}
	// Retired ones make room for those that are in force.
	if err := s.Replace("large", []Value{value("A", strings.Repeat("ab", MaxValue/2)), value("B", rest(7*MaxValue))}); err == nil {
		t.Error("a value that is too long was taken")
	}
	var list []Value
	for i := range 8 {
		list = append(list, value("L", rest(MaxValue)[:MaxValue-i]))
	}
	if err := s.Replace("large", list); err != nil {
		t.Fatal(err)
	}
	if v := s.Values(); v[0].Name != "KEY" && v[0].Name != "L" || len(v) > 10 {
		t.Errorf("%d values are left", len(v))
	}
}

func rest(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return string(b)
}

// TestReloadKeepsWhatWasSeen is rules.md 98: neither a reload nor another name
// makes a new value of an old one.
func TestReloadKeepsWhatWasSeen(t *testing.T) {
	s := hold(t, token)
	send(s, "a.test", "R4nd0m+Bytes AreHere_")
	for _, v := range []Value{value("V0", token), value("OTHER", token)} {
		if err := s.Replace("test", []Value{value("X", "something else")}); err != nil {
			t.Fatal(err)
		}
		if err := s.Replace("test", []Value{v}); err != nil {
			t.Fatal(err)
		}
		if f := send(s, "b.test", "ZyXwVuTs"); f.Allowed() {
			t.Errorf("as %s: %+v", v.Name, f)
		}
	}
	s.Replace("test", nil)
	for range maxRetired + 1 {
		s.Replace("test", []Value{value("N", rest(20))})
	}
	if d := s.dests[hostname.MustParse("a.test")].Value.(*destination); len(d.seen) != 0 || d.len != 0 || s.seenLen != 0 {
		t.Errorf("a value that is gone is remembered: %+v, %d", d, s.seenLen)
	}
}

// TestSetIsConcurrent gives the race detector everything at once.
func TestSetIsConcurrent(t *testing.T) {
	s := hold(t, token)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 20 {
				s.Add("add", value("A", fmt.Sprintf("value %d %d ----", i, k)))
				s.Retire("add", "A")
				s.Values()
				if send(s, fmt.Sprintf("h%d.test", k%7), "x "+token).Allowed() {
					t.Error("the value passes while others are added")
				}
				send(s, fmt.Sprintf("h%d.test", k%7), "x R4nd0m+Bytes")
			}
		})
	}
	wg.Wait()
}

// TestTextThatBegins: text that is made of beginnings of values costs a block
// and not the gateway's time; a value that repeats itself is found.
func TestTextThatBegins(t *testing.T) {
	var list []string
	for i := range 900 {
		list = append(list, fmt.Sprintf("QzXw7PlmK%03dendeavour", i))
	}
	s := hold(t, list...)
	if f := send(s, "a.test", strings.Repeat("QzXw7PlmK", 10_000)); f.Allowed() || f.Reason != errTooAlike.Error() {
		t.Errorf("%.100s", f.Reason)
	}
	if f := send(s, "a.test", strings.Repeat("QzXw7Plm K", 10)); f.Reason == errTooAlike.Error() {
		t.Errorf("%+v", f)
	}
	for _, v := range []string{strings.Repeat("ab", 500), strings.Repeat("abcdefgh", 80), "x" + strings.Repeat("abc", 300) + "y"} {
		s := hold(t, v)
		if f := send(s, "a.test", "text "+v+" text"); f.Allowed() || f.Findings[0].Reason != "known value V0 sent to unauthorized host" {
			t.Errorf("%.20s: %+v", v, f)
		}
		if f := send(hold(t, v), "a.test", base64.StdEncoding.EncodeToString([]byte("x"+v))); f.Allowed() {
			t.Errorf("%.20s in base64: %+v", v, f)
		}
	}
}

// TestLongValue: a private key of the largest size, in the middle of much else.
func TestLongValue(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("-----BEGIN PRIVATE KEY-----\n")
	for text := base64.StdEncoding.EncodeToString([]byte(rest(48000))); len(text) > 0; {
		n := min(64, len(text))
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	b.WriteString("-----END PRIVATE KEY-----\n")
	v := b.String()[:min(b.Len(), MaxValue)]
	noise := base64.StdEncoding.EncodeToString([]byte(rest(100_000)))
	s := hold(t, v)
	for _, name := range []string{"plain", "swapped", "base64 1", "base64url 2", "json", "path"} { // the rest is for the decoders, see maxAllForms
		if f := send(s, "a.test", noise+encodings[name](v)+noise); f.Allowed() {
			t.Errorf("%s passes: %+v", name, f)
		}
	}
	if f := send(s, "a.test", noise+v[5000:5010]); f.Decision != inspect.Flagged {
		t.Errorf("a piece: %+v", f)
	}
	if f := send(s, "a.test", v[9000:9030]); f.Allowed() {
		t.Errorf("a line: %+v", f)
	}
}

// naive finds a piece of value in text by trying everything.
func naive(value, text []byte) bool {
	for i := 0; i+minPiece <= len(value); i++ {
		if bytes.Contains(text, value[i:i+minPiece]) {
			return true
		}
	}
	return false
}

// FuzzScan holds the index against trying everything: whatever piece of a value
// is in a text, it is found, as it is and encoded.
func FuzzScan(f *testing.F) {
	f.Add([]byte("abcdefghijklmnopqrstuvwxyz"), []byte("xxxxxxxxxxx"), 3, 20, 5)
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x01"), []byte{}, 0, 9, 0)
	f.Add([]byte("aaaaaaaaaaaaaaaabaaaaaaaaaaaaaaa"), []byte("aaaaaaaaaaaaaaaa"), 7, 20, 9)
	f.Add([]byte("-----BEGIN KEY-----\nabcdefghijkl\n"), []byte("-----BEGIN KEY-----"), 19, 33, 4)
	f.Add([]byte(`{"private_key": "0123456789abcdefABCDEF", "b": [1, "\\"]}`), []byte(`{"a"`), 16, 40, 2)
	f.Fuzz(func(t *testing.T, v, noise []byte, from, to, at int) {
		if len(v) < MinValue || len(v) > 2000 || len(noise) > 1<<16 || from < 0 || to > len(v) || at < 0 || at > len(noise) || to-from < minPiece {
			return
		}
		s := new(Set)
		if err := s.Replace("fuzz", []Value{{Name: "V", Bytes: v}}); err != nil {
			t.Fatal(err)
		}
		h := s.held[0]
		if h.limit < 1 || h.limit > maxSeen || h.total-h.limit < minPiece-1 {
			t.Fatalf("limit %d of %d", h.limit, h.total)
		}
		for name, encode := range encodings {
			text := slices.Concat(noise[:at], []byte(encode(string(v[from:to]))), noise[at:])
			found, pieces := 0, newBitmap(len(v))
			err := s.current.Load().get().scan(text, func(m match) {
				first, end := m.form.covered(m.start, m.start+m.to-m.from)
				if first < 0 || end > len(v) || !bytes.EqualFold(m.form.text[m.start:m.start+m.to-m.from], text[m.from:m.to]) && name != "plain" {
					t.Fatalf("%s: match %+v", name, m)
				}
				pieces.set(first, end)
				found++
			})
			if name != "plain" || err != nil {
				continue
			}
			// Every secret byte of the piece is covered, but for what repeats itself.
			if h.secret.countRange(from, to) == to-from && found == 0 && naive(v, text) {
				t.Fatalf("%q in %q: not found", v[from:to], text)
			}
		}
	})
}

func bench(b *testing.B, values, length int, text []byte) {
	random := mrand.New(mrand.NewPCG(1, 2))
	var list []Value
	for i := range values {
		v := make([]byte, 0, length)
		for len(v) < length {
			v = append(v, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[random.IntN(64)])
		}
		list = append(list, Value{Name: fmt.Sprint(i), Bytes: v})
	}
	s := new(Set)
	if err := s.Replace("bench", list); err != nil {
		b.Fatal(err)
	}
	ix := s.current.Load().get()
	b.SetBytes(int64(len(text)))
	hits := 0
	for b.Loop() {
		if err := ix.scan(text, func(match) { hits++ }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(text)), "ns/byte")
	b.ReportMetric(float64(hits)/float64(b.N), "matches")
}

// jsonText is a megabyte like that of a chat or of a lock file.
func jsonText() []byte {
	random := mrand.New(mrand.NewPCG(3, 4))
	var b bytes.Buffer
	words := strings.Fields("the quick brown fox jumps over lazy dogs version resolved integrity function return const import string error")
	for b.Len() < 1<<20 {
		fmt.Fprintf(&b, `{"id":"%016x","text":"`, random.Uint64())
		for range 30 {
			b.WriteString(words[random.IntN(len(words))] + " ")
		}
		fmt.Fprintf(&b, "\",\"integrity\":\"sha512-%s\",\"n\":%d},\n", base64.StdEncoding.EncodeToString([]byte(fmt.Sprint(random.Uint64(), random.Uint64()))), random.IntN(1e9))
	}
	return b.Bytes()[:1<<20]
}

func BenchmarkScan(b *testing.B) {
	text := jsonText()
	random := []byte(base64.StdEncoding.EncodeToString([]byte(rest(3 << 18))))
	for _, bb := range []struct{ values, length int }{{1, 40}, {5, 40}, {100, 40}, {1000, 40}, {1, 60000}, {8, 60000}} {
		b.Run(fmt.Sprintf("json/%dx%d", bb.values, bb.length), func(b *testing.B) { bench(b, bb.values, bb.length, text) })
		b.Run(fmt.Sprintf("base64/%dx%d", bb.values, bb.length), func(b *testing.B) { bench(b, bb.values, bb.length, random) })
	}
}

func BenchmarkReplace(b *testing.B) {
	for _, bb := range []struct{ values, length int }{{100, 40}, {8, 60000}} {
		b.Run(fmt.Sprintf("%dx%d", bb.values, bb.length), func(b *testing.B) {
			var list []Value
			for i := range bb.values {
				list = append(list, Value{Name: fmt.Sprint(i), Bytes: []byte(rest(bb.length))})
			}
			s := new(Set)
			for b.Loop() {
				if err := s.Replace("bench", list); err != nil {
					b.Fatal(err)
				}
				s.current.Load().get()
			}
		})
	}
}
