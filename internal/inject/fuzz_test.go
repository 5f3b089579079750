package inject

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// compressors make each content coding.
var compressors = map[string]func(io.Writer) io.WriteCloser{
	"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"br":   func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
	"zstd": func(w io.Writer) io.WriteCloser {
		e, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		return e
	},
	"deflate":     func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
	"deflate raw": func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 5); return f },
}

var codingNames = []string{"", "gzip", "br", "zstd", "deflate", "deflate raw", "gzip, br"}

// compress applies a list of codings; the header for it is what comes before a
// blank, so that deflate has two forms.
func compress(list string, data []byte) []byte {
	for name := range strings.SplitSeq(list, ", ") {
		if name == "" {
			continue
		}
		var b bytes.Buffer
		w := compressors[name](&b)
		_, _ = w.Write(data)
		_ = w.Close()
		data = b.Bytes()
	}
	return data
}

// mixed writes every character in a way that chance decides, with the rare one
// that may stand for itself.
func mixed(s string, seed uint64) string {
	rng := rand.New(rand.NewPCG(seed, 1))
	var out strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		one := s[:n]
		s = s[n:]
		ways := []func() string{
			func() string { return one },
			func() string { return each(func(_ int, b byte) string { return fmt.Sprintf("%%%02x", b) })(one) },
			func() string { return each(func(_ int, b byte) string { return fmt.Sprintf("%%%02X", b) })(one) },
			func() string { return each(func(_ int, b byte) string { return fmt.Sprintf("%%25%02X", b) })(one) },
			func() string { return each(func(_ int, b byte) string { return fmt.Sprintf(`\x%02x`, b) })(one) },
			func() string { return jsonShort(one) },
			func() string { return jsonShort(jsonShort(one)) },
			func() string { return uEscape(`\u%04x`)(r) },
			func() string { return uEscape(`\\u%04X`)(r) },
			func() string { return fmt.Sprintf("&#%d;", r) },
			func() string { return fmt.Sprintf("&#x%x;", r) },
			func() string { return fmt.Sprintf("&amp;#x%x;", r) },
			func() string { return fmt.Sprintf(`\u0026#%d;`, r) },
		}
		i := rng.IntN(len(ways))
		if r == utf8.RuneError || r == 0 {
			i = min(i, 4) // no code point stands for it
		}
		out.WriteString(ways[i]())
	}
	return out.String()
}

// FuzzRedact hides a value in a response and holds that nothing of what comes
// out of it holds the value, wherever it is cut and however it is compressed.
func FuzzRedact(f *testing.F) {
	kinds := encodings()
	i := 0
	for _, value := range values {
		for e := range len(kinds) + 2 {
			if i++; i%5 > 0 {
				continue // TestEveryForm has them all
			}
			f.Add([]byte(value), uint8(e), uint8(i), uint8(i%29), []byte("before \\"), []byte("\" after"), uint64(i))
		}
	}
	f.Fuzz(func(t *testing.T, secret []byte, enc, coding, piece uint8, before, after []byte, seed uint64) {
		const placeholder = "agentcage:secret:FUZZ:00112233445566778899aabbccddeeff"
		if len(secret) < 8 || len(secret) > 64 || len(before) > 64 || len(after) > 64 || oracle([]byte(placeholder), secret) {
			return
		}
		text := mixed(string(secret), seed)
		if int(enc) < len(kinds) {
			text = kinds[enc].of(string(secret))
		}
		whole := append(append(bytes.Clone(before), text...), after...)
		if oracle([]byte(string(before)+placeholder+string(after)), secret) {
			return // all but the end of it stands before a placeholder that begins as it ends
		}
		r := testRedactor(string(secret), placeholder)
		list := codingNames[int(coding)%len(codingNames)]
		body := compress(list, whole)
		h := http.Header{"Content-Type": {"text/plain"}, "X-Echo": {string(whole)}}
		if list != "" {
			h.Set("Content-Encoding", strings.TrimSuffix(list, " raw"))
		}
		length := int64(-1)
		if seed%2 == 0 {
			length = int64(len(body))
		}
		res, err := r.Response(h, io.NopCloser(&pieces{body, int(piece) + 1}), length)
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(res)
		if err != nil {
			t.Fatal(err)
		}
		if res.Length >= 0 && res.Length != int64(len(out)) {
			t.Fatalf("length %d of %d bytes", res.Length, len(out))
		}
		if h.Get("Content-Encoding") != "" {
			// It was passed on as it came; then there was nothing in it.
			if !bytes.Equal(out, body) {
				t.Fatal("a compressed body was changed")
			}
			out = whole
		}
		for what, s := range map[string]string{"the body": string(out), "the header": h.Get("X-Echo"), "String": r.String(string(whole))} {
			if oracle([]byte(s), secret) {
				t.Fatalf("%s holds %q in %q: %q", what, secret, whole, s)
			}
		}
	})
}

// FuzzNoHit holds that a text without a value stays as it is, and that where it
// is cut changes nothing.
func FuzzNoHit(f *testing.F) {
	for name, data := range corpora() {
		f.Add(data[:512], uint8(len(name)))
	}
	f.Add([]byte(`sk-live-4eC39HqLyjWDarjtT1zdp7d \u0073\u006B-live &amp;&#x73;k%2dlive &am`), uint8(3))
	f.Add([]byte("c2stbGl2ZS00ZUMz\r\n OUhxTHlqV0Rhcmp0VDF6ZHA3ZG\n"), uint8(1))
	var pairs []string
	for name, value := range values {
		pairs = append(pairs, value, "{{"+name+"}}")
	}
	r := testRedactor(pairs...)
	f.Fuzz(func(t *testing.T, data []byte, piece uint8) {
		if len(data) > 4096 {
			return
		}
		out, names := r.Bytes(data)
		if len(names) == 0 && !bytes.Equal(out, data) {
			t.Fatalf("%q became %q", data, out)
		}
		for _, n := range []int{1, int(piece) + 1} {
			if got := readAll(t, r.Reader(&pieces{data, n})); got != string(out) {
				t.Fatalf("%q in pieces of %d became %q, want %q", data, n, got, out)
			}
		}
		again, _ := r.Bytes(out)
		if len(names) == 0 && !bytes.Equal(again, out) {
			t.Fatalf("%q became %q the second time", out, again)
		}
	})
}
