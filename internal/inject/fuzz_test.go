package inject

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/inject/injecttest"
)

// FuzzRedact hides a value in a response and holds that nothing of what comes
// out of it holds the value, wherever it is cut and however it is compressed.
func FuzzRedact(f *testing.F) {
	kinds := injecttest.Encodings()
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
		if len(secret) < 8 || len(secret) > 64 || len(before) > 64 || len(after) > 64 || injecttest.Holds([]byte(placeholder), secret) {
			return
		}
		text := injecttest.Mixed(string(secret), seed)
		if int(enc) < len(kinds) {
			text = kinds[enc].Of(string(secret))
		}
		whole := append(append(bytes.Clone(before), text...), after...)
		if injecttest.Holds([]byte(string(before)+placeholder+string(after)), secret) {
			return // all but the end of it stands before a placeholder that begins as it ends
		}
		r := testRedactor(string(secret), placeholder)
		list := injecttest.CodingNames[int(coding)%len(injecttest.CodingNames)]
		body := injecttest.Compress(list, whole)
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
			if injecttest.Holds([]byte(s), secret) {
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
