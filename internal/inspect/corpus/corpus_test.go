package corpus

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime/quotedprintable"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/agentcage/agentcage/internal/inspect"
)

const dir = "../testdata/corpus"

// TestLoad holds the corpus to its size and to being the same each time.
func TestLoad(t *testing.T) {
	one, err := Load(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	two, err := Load(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	leaks, honest := map[string]int{}, map[string]int{}
	total := map[bool]int{}
	for i, c := range one {
		count := honest
		if c.Leak {
			count = leaks
			if len(c.Expect) == 0 {
				t.Errorf("%s: %s: a leak that nobody is expected to find", c.At, c.Name)
			}
		}
		count[c.Category]++
		total[c.Leak]++
		for j, s := range c.Steps {
			for n, content := range s.Contents {
				if !bytes.Equal(content.Body, two[i].Steps[j].Contents[n].Body) {
					t.Errorf("%s: %s: the body differs from time to time", c.At, c.Name)
				}
				if !c.Leak && content.Type == "application/json" && len(content.Encoding) == 0 && content.Kind == inspect.KindRequest && !json.Valid(content.Body) && utf8.Valid(content.Body) {
					t.Errorf("%s: %s: an honest body that is no JSON: %.300s", c.At, c.Name, content.Body)
				}
				if strings.Contains(string(content.Body), "$wrap") || strings.Contains(s.Request.URL.String(), "$") && !strings.Contains(s.Request.URL.String(), "%24") {
					t.Errorf("%s: %s: a variable is left in it", c.At, c.Name)
				}
			}
		}
	}
	if total[true] < 400 || total[false] < 400 {
		t.Errorf("%d leaks and %d honest requests; want 400 of each", total[true], total[false])
	}
	t.Logf("%d leaks %v, %d honest requests %v", total[true], leaks, total[false], honest)
}

func TestBadCases(t *testing.T) {
	for name, text := range map[string]string{
		"no case":           "POST https://example.com/\n",
		"no request":        "=== a\nnonsense\n",
		"unknown source":    "=== a\nGET https://example.com/{{nothing}}\n",
		"unknown transform": "=== a\nGET https://example.com/{{uuid > nothing}}\n",
		"unknown secret":    "=== a\nGET https://example.com/{{secret nothing}}\n",
		"unknown option":    "=== a\n@nothing\nGET https://example.com/\n",
		"unknown kind":      "=== a\n@kind nothing\nGET https://example.com/\n",
		"not closed":        "=== a\nGET https://example.com/{{uuid\n",
		"bad header":        "=== a\nGET https://example.com/\nnothing\n",
		"twice":             "=== a\nGET https://example.com/\n=== a\nGET https://example.com/\n",
		"bad quotes":        "=== a\nGET https://example.com/{{\"x}}\n",
	} {
		files := fstest.MapFS{"samples.txt": {Data: []byte("a x{3}\n")}, "honest/x.txt": {Data: []byte(text)}}
		if cases, err := Load(files); err == nil {
			t.Errorf("%s: %+v", name, cases)
		}
	}
	good := fstest.MapFS{"samples.txt": {Data: []byte("a x{3}\n")}, "leaks/x.txt": {Data: []byte("=== $v\n@for v: b | c := d\n@expect s\nGET https://example.com/$v.name/{{secret a > prefix \"p\" > hex}}\n")}}
	cases, err := Load(good)
	if err != nil || len(cases) != 2 || cases[1].Name != "c" || cases[1].Steps[0].Request.Path != "/c/70787878" || !cases[0].Leak {
		t.Fatalf("positive control: %v %+v", err, cases)
	}
}

// TestWrappers takes off again what the transforms put on.
func TestWrappers(t *testing.T) {
	k := &kitchen{}
	want := strings.Repeat("a text that repeats itself, and then some; ", 40)
	read := func(r io.Reader, err error) string {
		t.Helper()
		if err != nil {
			t.Error(err)
			return ""
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	for name, open := range map[string]func(io.Reader) (io.Reader, error){
		"gzip":    func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"zlib":    func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) },
		"deflate": func(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil },
		"qp":      func(r io.Reader) (io.Reader, error) { return quotedprintable.NewReader(r), nil },
		"base64":  func(r io.Reader) (io.Reader, error) { return base64.NewDecoder(base64.StdEncoding, r), nil },
		"tar x": func(r io.Reader) (io.Reader, error) {
			z := tar.NewReader(r)
			_, _ = z.Next()
			_, err := z.Next()
			return z, err
		},
		"tar > gzip": func(r io.Reader) (io.Reader, error) {
			g, err := gzip.NewReader(r)
			z := tar.NewReader(g)
			_, _ = z.Next()
			_, _ = z.Next()
			return z, err
		},
	} {
		out, err := k.transform("", []byte(want), splitTrim(name, " > "))
		if err != nil {
			t.Fatal(err)
		}
		r, err := open(bytes.NewReader(out))
		if got := read(r, err); got != want {
			t.Errorf("%s: %.80q", name, got)
		}
	}
	out, err := k.transform("", []byte(want), []string{"zip a.txt"})
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(out), int64(len(out)))
	if err != nil || len(z.File) != 2 {
		t.Fatal(err)
	}
	if got := read(z.File[1].Open()); got != want {
		t.Errorf("zip: %.80q", got)
	}
}
