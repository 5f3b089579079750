package injecttest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"unicode/utf8"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Compressors make each content coding.
var Compressors = map[string]func(io.Writer) io.WriteCloser{
	"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"br":   func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
	"zstd": func(w io.Writer) io.WriteCloser {
		e, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		return e
	},
	"deflate":     func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
	"deflate raw": func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 5); return f },
}

// CodingNames are lists of content codings, of which deflate has two forms.
var CodingNames = []string{"", "gzip", "br", "zstd", "deflate", "deflate raw", "gzip, br"}

// Compress applies a list of codings; the header for it is what comes before a
// blank, so that deflate has two forms.
func Compress(list string, data []byte) []byte {
	for name := range strings.SplitSeq(list, ", ") {
		if name == "" {
			continue
		}
		var b bytes.Buffer
		w := Compressors[name](&b)
		_, _ = w.Write(data)
		_ = w.Close()
		data = b.Bytes()
	}
	return data
}

// Mixed writes every character in a way that chance decides, with the rare one
// that may stand for itself.
func Mixed(s string, seed uint64) string {
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
			func() string { return JSON(one) },
			func() string { return JSON(JSON(one)) },
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

// Decompress undoes one content coding, as far as it goes.
func Decompress(name string, data []byte) []byte {
	src := bytes.NewReader(data)
	var r io.Reader = src
	switch name {
	case "gzip":
		if z, err := gzip.NewReader(src); err == nil {
			r = z
		}
	case "br":
		r = brotli.NewReader(src)
	case "zstd":
		if d, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	case "deflate":
		if z, err := zlib.NewReader(src); err == nil {
			r = z
		} else {
			r = flate.NewReader(bytes.NewReader(data))
		}
	}
	out, _ := io.ReadAll(io.LimitReader(r, 1<<20)) // what was good before an error
	return out
}
