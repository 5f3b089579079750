package decode

import (
	"context"
	"errors"
	"strings"
	"testing"
)

const secret = "sk-proj-Abc_123/x+y=Kv0o"

// layersOf decodes, and checks what holds of every tree.
func layersOf(t *testing.T, in Input) []Layer {
	t.Helper()
	tree, err := Decode(context.Background(), in, Limits{})
	if err != nil {
		t.Fatalf("cannot decode %.300q: %v", in.Data, err)
	}
	checkTree(t, in, tree)
	return tree.Layers
}

func checkTree(t *testing.T, in Input, tree *Tree) {
	t.Helper()
	raw := tree.Layers[0]
	if raw.Kind != Raw || raw.Parent != -1 || string(raw.Data) != string(in.Data) {
		t.Fatalf("the first layer is not the input: %+v", raw)
	}
	for i, l := range tree.Layers[1:] {
		if l.Parent < 0 || l.Parent > i || l.Kind == Raw || len(l.Data) == 0 {
			t.Fatalf("layer %d is malformed: %+v", i+1, l)
		}
		if parent := tree.Layers[l.Parent].Data; l.Start < 0 || l.End < l.Start || l.End > len(parent) {
			t.Fatalf("layer %d (%d) is from %d to %d of %d bytes", i+1, l.Kind, l.Start, l.End, len(parent))
		}
	}
}

// finds reports whether a layer other than the raw one holds a text.
func findsIn(layers []Layer, text string) bool {
	for _, l := range layers[1:] {
		if strings.Contains(string(l.Data), text) {
			return true
		}
	}
	return false
}

// atStart are wrappers that are only known at the beginning of a layer.
var atStart = map[string]bool{"zlib": true, "utf-16 marked": true, "utf-32 marked": true}

// noASCII are wrappers after which UTF-16 is not known by its zero bytes.
var noASCII = map[string]bool{"full width": true, "mathematical": true, "monospace": true, "circled": true, "tags": true}

func TestWrappers(t *testing.T) {
	for _, w := range append(append([]wrapper{}, wrappers...), folded...) {
		for _, around := range [][2]string{{"", ""}, {`{"a":"`, `"}`}, {"text before ", " and behind"}} {
			if around[0] != "" && atStart[w.name] {
				continue
			}
			data := around[0] + w.wrap(secret) + around[1]
			if strings.Contains(data, secret) {
				continue // nothing of it had to be wrapped
			}
			if !findsIn(layersOf(t, Input{Data: []byte(data)}), secret) {
				t.Errorf("%s in %q: the secret is not found in %.200q", w.name, around, data)
			}
		}
	}
}

func TestPairsOfWrappers(t *testing.T) {
	for _, inner := range append(append([]wrapper{}, wrappers...), folded...) {
		for _, outer := range wrappers {
			if inner.binary && !strings.Contains("gzip zlib zstd", outer.name) && !takesBinary(outer.name) {
				continue
			}
			if strings.HasPrefix(outer.name, "utf-") && noASCII[inner.name] {
				continue
			}
			data := outer.wrap(inner.wrap(secret))
			if strings.Contains(data, secret) {
				continue
			}
			if !findsIn(layersOf(t, Input{Data: []byte(data)}), secret) {
				t.Errorf("%s in %s: the secret is not found in %.300q", inner.name, outer.name, data)
			}
		}
	}
}

func takesBinary(name string) bool {
	return strings.HasPrefix(name, "base") || strings.HasPrefix(name, "hex") || strings.HasPrefix(name, "gzip") ||
		name == "percent all" || name == "js x" || name == "c octal" || name == "quoted-printable"
}

func reasonOf(t *testing.T, in Input, limits Limits) string {
	t.Helper()
	_, err := Decode(context.Background(), in, limits)
	if err == nil {
		return ""
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("not an *Error: %v", err)
	}
	return e.Reason
}
