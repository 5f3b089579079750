package decode

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// FuzzDecode holds what is true of every tree: it is bounded, its first layer
// is the input, parents precede their children, an error is an *Error, and what
// is Plain has nothing to decode.
func FuzzDecode(f *testing.F) {
	for _, w := range append(append([]wrapper{}, wrappers...), folded...) {
		f.Add([]byte(w.wrap(secret)), "text/plain; charset=utf-16", "gzip")
	}
	f.Add([]byte("--b\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJj\r\n--b--"), "multipart/form-data; boundary=b", "")
	f.Add([]byte(brotliOf(secret)), "", "br")
	f.Add([]byte(zipOf(f, map[string]string{"a": secret})), "application/zip", "identity")
	f.Add([]byte(tarOf(f, "a/b", secret)), "", "")
	f.Add([]byte("5;chunk-signature=a\r\nabcde\r\n0\r\n\r\n"), "", "aws-chunked")
	limits := Limits{Depth: 8, Layers: 2000, Bytes: 4 << 20, Ratio: 200, Time: time.Minute}
	f.Fuzz(func(t *testing.T, data []byte, kind, coding string) {
		in := Input{Data: data, Type: kind, Encoding: []string{coding}}
		tree, err := Decode(context.Background(), in, limits)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Reason == "" {
				t.Fatalf("not an *Error: %v", err)
			}
			return
		}
		checkTree(t, in, tree)
		if len(tree.Layers) > limits.Layers {
			t.Fatalf("%d layers", len(tree.Layers))
		}
		decoded, depth := int64(0), make([]int, len(tree.Layers))
		for i, l := range tree.Layers[1:] {
			depth[i+1] = depth[l.Parent] + 1
			if depth[i+1] >= limits.Depth {
				t.Fatalf("layer %d is at depth %d", i+1, depth[i+1])
			}
			if l.Kind != Part && l.Kind != Member {
				decoded += int64(len(l.Data))
			}
		}
		if decoded > limits.Bytes {
			t.Fatalf("%d bytes were decoded", decoded)
		}
		if Plain(data) {
			if alone, err := Decode(context.Background(), Input{Data: data, Type: "text/plain"}, limits); err != nil || len(alone.Layers) != 1 {
				t.Fatalf("plain, and yet: %v, %+v", err, alone)
			}
		}
	})
}

// chain wraps a secret by wrappers that a seed chooses. It returns their names.
func chain(seed uint64, depth int) (data, names string) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	r := rand.New(rand.NewPCG(seed, 1))
	secret := make([]byte, 16+r.IntN(48))
	for i := range secret {
		secret[i] = letters[r.IntN(len(letters))]
	}
	data, names = string(secret), ""
	binary, wide := false, false
	for n := 0; n < depth; {
		from := wrappers
		if n == 0 && r.IntN(4) == 0 {
			from = folded
		}
		w := from[r.IntN(len(from))]
		if binary && !takesBinary(w.name) || strings.HasPrefix(w.name, "utf-") && (wide || binary) {
			continue
		}
		if n == 0 && strings.HasPrefix(w.name, "gzip cut") {
			continue // of a text so short nothing is left
		}
		data, names = w.wrap(data), names+" "+w.name
		binary = w.binary
		wide = wide || noASCII[w.name]
		n++
	}
	return string(secret), data + "\x00" + names
}

// FuzzChain holds that a secret is found in up to three wrappers on top of one
// another, or refused as nested too deeply.
func FuzzChain(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed, uint8(seed%3+1))
	}
	f.Fuzz(func(t *testing.T, seed uint64, depth uint8) {
		secret, data := chain(seed, int(depth%3)+1)
		data, names, _ := cutLast(data)
		tree, err := Decode(context.Background(), Input{Data: []byte(data)}, Limits{})
		if err != nil {
			var e *Error
			if errors.As(err, &e) && e == errDepth {
				return
			}
			t.Fatalf("%s: %v", names, err)
		}
		for _, l := range tree.Layers {
			if strings.Contains(string(l.Data), secret) {
				return
			}
		}
		t.Errorf("%s: %q is not found in %.400q", names, secret, data)
	})
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, 0)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
