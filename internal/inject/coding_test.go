package inject

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/agentcage/agentcage/internal/inject/injecttest"
)

const (
	theValue = "s3cr3t-value-1234"
	thePlace = "agentcage:secret:A:00112233445566778899aabbccddeeff"
)

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// respond sends a body through Response.
func respond(r *Redactor, h http.Header, body []byte, length int64, piece int) (*Body, string, error) {
	res, err := r.Response(h, io.NopCloser(&pieces{body, piece}), length)
	if err != nil {
		return nil, "", err
	}
	out, err := io.ReadAll(res)
	return res, string(out), err
}

func TestContentCodings(t *testing.T) {
	r := testRedactor(theValue, thePlace)
	for _, list := range injecttest.CodingNames {
		for _, size := range []int{0, 10, 100 << 10} {
			for _, known := range []bool{true, false} {
				fill := strings.Repeat("0123456789 filling\n", size/19+1)
				body := injecttest.Compress(list, []byte(fill+theValue+fill))
				h := header("Content-Type", "text/plain", "Content-Length", "x", "Digest", "sha-256=x", "Etag", `"1"`)
				if list != "" {
					h.Set("Content-Encoding", strings.TrimSuffix(list, " raw"))
				}
				length := int64(-1)
				if known {
					length = int64(len(body))
				}
				res, out, err := respond(r, h, body, length, 999)
				if err != nil || out != fill+thePlace+fill {
					t.Errorf("%q, %d bytes: %v, %d bytes", list, size, err, len(out))
					continue
				}
				if h.Get("Content-Encoding") != "" || !slices.Equal(res.Names(), []string{thePlace}) {
					t.Errorf("%q: header %v, names %q", list, h, res.Names())
				}
				if _, ok := h["Content-Length"]; ok && res.Length < 0 {
					t.Errorf("%q: a length is claimed that is not known", list)
				}
				if res.Length >= 0 && h.Get("Content-Length") != "" && res.Length != int64(len(out)) {
					t.Errorf("%q: length %d of %d", list, res.Length, len(out))
				}
			}
		}
	}
}

// TestCompressedStaysAsItIs holds that a small body without a value keeps its
// bytes, and that one is found that hides beside what is compressed.
func TestCompressedStaysAsItIs(t *testing.T) {
	r := testRedactor(theValue, thePlace)
	for _, list := range injecttest.CodingNames {
		body := injecttest.Compress(list, []byte("nothing in it"))
		h := header("Content-Encoding", strings.TrimSuffix(list, " raw"), "Digest", "d", "Content-Length", "1")
		want := h.Clone()
		res, out, err := respond(r, h, body, int64(len(body)), 7)
		if err != nil || out != string(body) || res.Length != int64(len(body)) || len(res.Names()) > 0 {
			t.Errorf("%q: %v, %q", list, err, out)
		}
		for name := range want {
			if !slices.Equal(h[name], want[name]) {
				t.Errorf("%q: %s became %q", list, name, h[name])
			}
		}
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Comment = theValue
	_, _ = w.Write([]byte("nothing in it"))
	_ = w.Close()
	h := header("Content-Encoding", "gzip")
	_, out, err := respond(r, h, b.Bytes(), int64(b.Len()), 100)
	if err != nil || out != "nothing in it" || h.Get("Content-Encoding") != "" {
		t.Errorf("a value in the header of gzip: %v, %q", err, out)
	}
}

func TestUndecodable(t *testing.T) {
	r := testRedactor(theValue, thePlace)
	long := strings.Repeat("0123456789abcdefghijklm "+theValue, 9999)
	for _, tt := range []struct {
		name, coding string
		body         []byte
	}{
		{"unknown", "snappy", []byte("x")},
		{"too many", "gzip, gzip, gzip, gzip", injecttest.Compress("gzip", []byte("x"))},
		{"no gzip", "gzip", []byte("this is no gzip, but a text")},
		{"no zstd", "zstd", []byte("this is no zstd, but a text")},
		{"no br", "br", []byte("this is no brotli, but a text\xff\xff\xff")},
		{"no deflate", "deflate", []byte("\xff\xffthis is no deflate")},
		{"cut gzip", "gzip", injecttest.Compress("gzip", []byte(long))[:500]},
		{"cut br", "br", injecttest.Compress("br", []byte(long))[:30]},
		{"cut zstd", "zstd", injecttest.Compress("zstd", []byte(long))[:30]},
		{"cut deflate", "deflate", injecttest.Compress("deflate", []byte(long))[:500]},
		{"behind gzip", "gzip", append(injecttest.Compress("gzip", []byte(long)), theValue...)},
		{"behind deflate", "deflate", append(injecttest.Compress("deflate", []byte(long)), theValue...)},
		{"behind raw deflate", "deflate", append(injecttest.Compress("deflate raw", []byte(long)), theValue...)},
		{"behind zstd", "zstd", append(injecttest.Compress("zstd", []byte(long)), theValue...)},
		{"two names", "gzip, identity, br", injecttest.Compress("gzip", []byte(long))},
	} {
		for _, known := range []bool{true, false} {
			length := int64(-1)
			if known {
				length = int64(len(tt.body))
			}
			_, out, err := respond(r, header("Content-Encoding", tt.coding), tt.body, length, 5000)
			if !Undecodable(err) {
				t.Errorf("%s: %v", tt.name, err)
			}
			if strings.Contains(out, theValue) {
				t.Errorf("%s: the value came through", tt.name)
			}
		}
	}
	for _, length := range []int64{-1, int64(len(injecttest.Compress("br", []byte("text")))) + 17} {
		behind := append(injecttest.Compress("br", []byte("text")), theValue...)
		if _, out, err := respond(r, header("Content-Encoding", "br"), behind, length, 50); err != nil || out != "text" {
			t.Errorf("behind br: %q, %v", out, err) // it is dropped
		}
		behind = append(injecttest.Compress("br", []byte("text")), "seventeen bytes.."...)
		if _, out, err := respond(r, header("Content-Encoding", "br"), behind, length, 50); err != nil || out != "text" {
			t.Errorf("behind br: %q, %v", out, err)
		}
	}
	if _, _, err := respond(r, header("Grpc-Encoding", "gzip", "Content-Type", "application/grpc"), []byte("x"), -1, 1); !Undecodable(err) {
		t.Errorf("compressed messages: %v", err)
	}
	broken := errors.New("connection reset")
	body := io.MultiReader(bytes.NewReader(injecttest.Compress("gzip", []byte(long))[:500]), failing{broken})
	res, err := r.Response(header("Content-Encoding", "gzip"), io.NopCloser(body), -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(res); !errors.Is(err, broken) || Undecodable(err) {
		t.Errorf("a broken connection: %v", err)
	}
}

func TestLengths(t *testing.T) {
	r := testRedactor(theValue, thePlace)
	h := header("Content-Length", "5")
	if res, out, err := respond(r, h, []byte("short"), 5, 2); err != nil || out != "short" || res.Length != 5 || h.Get("Content-Length") != "5" {
		t.Errorf("a small body: %q, %v", out, err)
	}
	if _, out, err := respond(r, header(), []byte("short"), 50, 2); err != io.ErrUnexpectedEOF || out != "short" {
		t.Errorf("a body cut short: %q, %v", out, err)
	}
	for _, coding := range []string{"", "gzip", "br", "zstd"} {
		if res, out, err := respond(r, header("Content-Encoding", coding), nil, -1, 2); err != nil || out != "" {
			t.Errorf("an empty body of %q: %v, %+v", coding, err, res)
		}
		if res, _, err := respond(r, header("Content-Encoding", coding, "Content-Length", "0"), nil, 0, 2); err != nil || res.Length != 0 {
			t.Errorf("no body of %q: %v", coding, err)
		}
	}
	h = header("Content-Type", "text/event-stream", "Content-Length", "50")
	if res, _, err := respond(r, h, []byte("data: 1\n\n"), 9, 9); err != nil || res.Length != -1 || h.Get("Content-Length") != "" {
		t.Errorf("events with a length are waited for: %v, %v", h, err)
	}
	var none Redactor
	h = header("Content-Encoding", "snappy")
	if _, out, err := respond(&none, h, []byte("x"), 1, 1); err != nil || out != "x" || h.Get("Content-Encoding") != "snappy" {
		t.Errorf("without a value something was looked at: %v", err)
	}
}

// TestFramedKeepsItsLength holds that a value in a gRPC message is replaced by
// as many bytes: every length in front of it stays right.
func TestFramedKeepsItsLength(t *testing.T) {
	r := testRedactor(theValue, "{{A}}")
	in := "\x00\x00\x00\x00\x13\x0a\x11" + theValue
	for _, length := range []int64{-1, int64(len(in))} {
		_, out, err := respond(r, header("Content-Type", "application/grpc+proto"), []byte(in), length, 3)
		if want := "\x00\x00\x00\x00\x13\x0a\x11{{A}}************"; err != nil || out != want {
			t.Errorf("%q, %v, want %q", out, err, want)
		}
	}
}

// TestCompressedEvents holds that an event comes through before the next one.
func TestCompressedEvents(t *testing.T) {
	r := testRedactor(theValue, thePlace)
	for name := range injecttest.Compressors {
		pr, pw := io.Pipe()
		w := injecttest.Compressors[name](pw).(interface {
			io.WriteCloser
			Flush() error
		})
		next := make(chan struct{})
		go func() {
			for range next {
				_, _ = io.WriteString(w, "data: one "+theValue+"\n\n")
				_ = w.Flush()
			}
			w.Close()
			pw.Close()
		}()
		res, err := r.Response(header("Content-Type", "text/event-stream", "Content-Encoding", strings.TrimSuffix(name, " raw")), pr, -1)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			next <- struct{}{}
			want := "data: one " + thePlace + "\n\n"
			got := make([]byte, len(want))
			if _, err := io.ReadFull(res, got); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		close(next)
		if rest := readAll(t, res); rest != "" {
			t.Errorf("%s: %q at the end", name, rest)
		}
	}
}

func TestAcceptEncoding(t *testing.T) {
	r := testRedactor(theValue, thePlace)
	for _, tt := range []struct{ in, want string }{
		{"gzip, deflate, br, zstd", "gzip, deflate, br, zstd"},
		{"gzip;q=0.5, snappy, *;q=0.1", "gzip;q=0.5"},
		{"compress", "identity"},
		{"GZIP , identity;q=0", "GZIP, identity;q=0"},
		{"", "identity"},
	} {
		h := header("Accept-Encoding", tt.in, "Grpc-Accept-Encoding", "gzip")
		r.AcceptEncoding(h)
		if got := h.Values("Accept-Encoding"); !slices.Equal(got, []string{tt.want}) || h.Get("Grpc-Accept-Encoding") != "identity" {
			t.Errorf("%q became %q", tt.in, got)
		}
	}
	h := http.Header{}
	if r.AcceptEncoding(h); h.Get("Accept-Encoding") != "identity" {
		t.Errorf("none became %v", h)
	}
	h = header("Accept-Encoding", "snappy")
	if new(Redactor).AcceptEncoding(h); h.Get("Accept-Encoding") != "snappy" {
		t.Error("it was changed without a value to look for")
	}
}
