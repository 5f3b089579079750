package inject

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxCodings is how many content codings may lie on top of one another.
	maxCodings = 3
	// zstdWindow is what RFC 8878 section 3.1.1.1.2 recommends to support.
	zstdWindow = 8 << 20
	// smallBody is up to which length, in bytes, a body is redacted as a
	// whole: its length stays known, and without a value in it it stays as it
	// is, compressed or not.
	smallBody = 64 << 10
)

// codings are the content codings that can be read (RFC 9110 section 8.4.1,
// RFC 7932, RFC 8878).
var codings = map[string]func(*bufio.Reader) (io.ReadCloser, error){
	"gzip":    newGzip,
	"x-gzip":  newGzip,
	"deflate": newDeflate,
	"br":      func(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(unbrotli{brotli.NewReader(r)}), nil },
	"zstd": func(r *bufio.Reader) (io.ReadCloser, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	},
}

func newGzip(r *bufio.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }

// newDeflate reads what is called deflate: zlib, or as some servers have it
// that without its frame (RFC 9110 section 8.4.1.2).
func newDeflate(r *bufio.Reader) (io.ReadCloser, error) {
	if head, err := r.Peek(2); err == nil && head[0]&0xf == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		return zlib.NewReader(r)
	}
	return flate.NewReader(r), nil
}

// errBehind says that something may follow the end of brotli.
var errBehind = errors.New("something follows")

// unbrotli knows the error of that, which the module also gives when the last
// bytes of a stream come one by one and nothing follows.
type unbrotli struct{ *brotli.Reader }

func (u unbrotli) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err != nil && err.Error() == "brotli: excessive input" {
		err = errBehind
	}
	return n, err
}

// AcceptEncoding takes from a request's Accept-Encoding what cannot be read in
// the answer, when there is something to look for. It also asks gRPC and
// Connect servers not to compress their messages.
func (r *Redactor) AcceptEncoding(h http.Header) {
	if !r.Active() {
		return
	}
	for _, name := range []string{"Grpc-Accept-Encoding", "Connect-Accept-Encoding"} {
		if _, ok := h[name]; ok {
			h[name] = []string{"identity"}
		}
	}
	var keep []string
	for _, v := range h["Accept-Encoding"] {
		for item := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(item, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			if _, ok := codings[name]; ok || name == "identity" {
				keep = append(keep, strings.TrimSpace(item))
			}
		}
	}
	if len(keep) == 0 {
		keep = []string{"identity"} // an absent field would mean any
	}
	h["Accept-Encoding"] = []string{strings.Join(keep, ", ")}
}

// Body is the body of a response that is redacted.
type Body struct {
	io.ReadCloser
	Length int64 // as in http.Response: -1 when it is not known
	names  func() []string
}

// Names returns the names of the secrets that were replaced in the header, and
// in the body as far as it was read.
func (b *Body) Names() []string { return b.names() }

// Response redacts a response with the header h, which it changes, and a body
// of length bytes, -1 when that is not known. The new body is decoded when it
// has a content coding, unless it is small and holds no value: then it is
// passed on as it came.
//
// An error of which Undecodable is true, here or while the body is read, says
// that the body cannot be looked at: the response must not be passed on, or no
// further.
func (r *Redactor) Response(h http.Header, body io.ReadCloser, length int64) (*Body, error) {
	if !r.Active() {
		return &Body{body, length, func() []string { return nil }}, nil
	}
	inHeader := r.Header(h)
	names := func(more []string) []string {
		all := slices.Concat(inHeader, more)
		slices.Sort(all)
		return slices.Compact(all)
	}
	list, err := contentCodings(h)
	if err != nil {
		return nil, err
	}
	if length == 0 {
		return &Body{body, 0, func() []string { return names(nil) }}, nil
	}
	var src io.Reader = body
	if 0 < length && length <= smallBody && !strings.HasPrefix(h.Get("Content-Type"), "text/event-stream") {
		whole := make([]byte, length)
		n, err := io.ReadFull(body, whole)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		whole = whole[:n]
		if err == nil {
			if out, in, ok := r.small(h, list, whole); ok {
				all := names(in)
				return &Body{readCloser{io.MultiReader(bytes.NewReader(out), ending{body}), body}, int64(len(out)), func() []string { return all }}, nil
			}
		}
		src = io.MultiReader(bytes.NewReader(whole), failing{err})
	}
	if len(list) > 0 {
		src = decoded(src, list, false)
		delete(h, "Content-Encoding")
		DropDigests(h)
	}
	delete(h, "Content-Length")
	stream := r.Reader(src)
	stream.s.keepLength = framed(h)
	return &Body{readCloser{stream, body}, -1, func() []string { return names(stream.Names()) }}, nil
}

// DropDigests takes away what says how a body was before it was changed (RFC
// 9530, and RFC 1864 and 3230 before it).
func DropDigests(h http.Header) {
	for _, name := range []string{"Content-Md5", "Digest", "Content-Digest", "Repr-Digest"} {
		delete(h, name)
	}
}

// small redacts a body that is in memory. ok is false when it must be decoded.
func (r *Redactor) small(h http.Header, list []string, whole []byte) (out []byte, in []string, ok bool) {
	out, in = r.bytes(whole, framed(h))
	if len(list) == 0 {
		if len(in) > 0 {
			h["Content-Length"] = []string{fmt.Sprint(len(out))}
			DropDigests(h)
		}
		return out, in, true
	}
	if len(in) > 0 {
		return nil, nil, false // outside of what is compressed
	}
	stream := r.Reader(decoded(bytes.NewReader(whole), list, true))
	_, err := io.Copy(io.Discard, stream)
	return whole, nil, err == nil && len(stream.Names()) == 0
}

// framed reports content whose parts have their length in front: what is put
// into it must be as long as what it replaces.
func framed(h http.Header) bool {
	t := strings.ToLower(h.Get("Content-Type"))
	for _, prefix := range []string{"application/grpc", "application/connect+", "application/proto", "application/x-protobuf", "application/vnd.google.protobuf"} {
		if strings.HasPrefix(t, prefix) {
			return true
		}
	}
	return false
}

// contentCodings returns the codings of a body, in the order in which they were
// applied.
func contentCodings(h http.Header) ([]string, error) {
	for _, name := range []string{"Grpc-Encoding", "Connect-Content-Encoding"} {
		if v := h.Get(name); v != "" && v != "identity" {
			return nil, errUndecodable{"its messages are compressed, although that was not asked for"}
		}
	}
	var out []string
	for _, v := range h["Content-Encoding"] {
		for name := range strings.SplitSeq(v, ",") {
			name = strings.ToLower(strings.TrimSpace(name))
			if name == "" || name == "identity" {
				continue
			}
			if _, ok := codings[name]; !ok {
				return nil, errUndecodable{"its content coding is not known"}
			}
			out = append(out, name)
		}
	}
	if len(out) > maxCodings {
		return nil, errUndecodable{"it has too many content codings"}
	}
	return out, nil
}

// decoded returns what src, to which list was applied, was before. Nothing is
// read before the first Read.
func decoded(src io.Reader, list []string, whole bool) io.Reader {
	for _, name := range slices.Backward(list) {
		from := &source{Reader: src}
		src = &decoder{from: from, src: bufio.NewReader(from), open: codings[name], whole: whole}
	}
	return src
}

type decoder struct {
	from *source
	src  *bufio.Reader
	open func(*bufio.Reader) (io.ReadCloser, error)
	r    io.ReadCloser
	err  error

	whole bool // the coded bytes are passed on, not what they decode to
}

// Read implements io.Reader. An empty body stays empty, whatever its coding,
// and what follows the end of the coding is an error: clients do not agree on
// whether it is read.
func (d *decoder) Read(p []byte) (n int, err error) {
	if d.err != nil {
		return 0, d.err
	}
	if d.r == nil {
		if _, err := d.src.Peek(1); err != nil {
			d.err = err
			return 0, err
		}
		if d.r, err = d.open(d.src); err != nil {
			d.err = d.undecodable(err)
			return 0, d.err
		}
	}
	n, err = d.r.Read(p)
	if err == nil {
		return n, nil
	}
	_ = d.r.Close()
	if err == errBehind && !d.whole {
		d.err = io.EOF // what follows is dropped
		return n, io.EOF
	}
	if d.err = d.undecodable(err); err == io.EOF {
		d.err = io.EOF
		if _, more := d.src.Peek(1); more == nil {
			d.err = errUndecodable{"something follows its compressed content"}
		}
	}
	return n, d.err
}

// undecodable tells an error of the content from one of the connection.
func (d *decoder) undecodable(err error) error {
	switch {
	case d.from.err != nil:
		return d.from.err
	case err == io.ErrUnexpectedEOF:
		return errUndecodable{"its compressed content is cut short"}
	}
	return errUndecodable{"its compressed content is damaged"}
}

// source remembers how a reader failed.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

type readCloser struct {
	io.Reader
	io.Closer
}

// ending waits for the end of a body of which all bytes were read: trailers come
// with it.
type ending struct{ body io.Reader }

func (e ending) Read([]byte) (int, error) {
	var more [1]byte
	_, err := io.ReadFull(e.body, more[:])
	if err == nil {
		err = errors.New("the body is longer than its length")
	}
	return 0, err
}

// failing is a reader that fails, or ends for want of an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}
