package decode

import (
	"bytes"
	"compress/bzip2"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// undo takes off the content codings that are declared, the last one first
// (RFC 9110 section 8.4), and returns the layer below all of them. What is
// declared must decode, all of it: what a server reads otherwise, or reads
// further, was not looked at.
func (d *decoder) undo(in Input) int {
	last := 0
	for _, coding := range backwards(in.Encoding) {
		data := d.layers[last].Data
		if len(data) == 0 {
			break
		}
		readings := d.uncode(coding, data)
		if d.err != nil {
			return last
		}
		if len(readings) == 0 {
			d.fail(errCoded)
			return last
		}
		d.about[last].coding = coding
		parent := last
		for _, r := range readings {
			if !d.spend(len(r)) {
				return last
			}
			last = d.append(Layer{Kind: Coding, Parent: parent, Name: coding, Type: in.Type, Data: r, End: len(data)}, about{})
			if last < 0 {
				return 0
			}
		}
	}
	return last
}

// backwards returns the codings of all header lines, in the order of decoding.
func backwards(lines []string) []string {
	var all []string
	for _, line := range lines {
		for c := range strings.SplitSeq(line, ",") {
			c = strings.ToLower(strings.Trim(c, " \t"))
			if c != "" && c != "identity" {
				all = append(all, c)
			}
		}
	}
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all
}

// uncode returns what data decodes to: one reading, two where two parsers may
// differ, none where it is broken.
func (d *decoder) uncode(coding string, data []byte) [][]byte {
	var readings [][]byte
	try := func(open func(io.Reader) (io.Reader, func())) {
		in := bytes.NewReader(data)
		if out, err := d.inflate(open, in); err == nil && in.Len() == 0 {
			readings = append(readings, out)
		}
	}
	switch coding {
	case "gzip", "x-gzip":
		try(openGzip)
	case "deflate": // zlib by the standard, bare by custom
		try(openZlib)
		try(openFlate)
	case "br":
		try(openBrotli)
	case "zstd":
		try(openZstd)
	case "aws-chunked":
		if out, ok := unchunk(data); ok {
			readings = append(readings, out)
		}
	default:
		d.fail(errCoding)
	}
	return readings
}

func (d *decoder) fail(e *Error) {
	if d.err == nil {
		d.err = e
	}
}

var (
	errBomb   = errors.New("expands too much")
	errClosed = errors.New("cannot be opened")
)

// source is what is decompressed.
type source interface {
	io.Reader
	io.ByteReader // so that no decompressor reads further than it has to
	Len() int
}

// freeRatio is what may be decompressed whatever the ratio: a small file of
// zeros is no bomb.
const freeRatio = 1 << 20

// inflate decompresses what open reads. A bomb fails the tree; any other error
// comes with what was decompressed before it.
func (d *decoder) inflate(open func(io.Reader) (io.Reader, func()), in source) ([]byte, error) {
	if !d.spend(512) { // so that false beginnings cost something, too
		return nil, errBomb
	}
	size := in.Len()
	r, done := open(in)
	if r == nil {
		return nil, errClosed
	}
	defer done()
	left := d.limits.Bytes - d.spent
	out := make([]byte, 0, min(max(512, 4*size), 4<<10))
	for {
		if len(out) == cap(out) {
			out = append(out, 0)[:len(out)]
		}
		n, err := r.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		switch {
		case int64(len(out)) > left:
			d.fail(errBytes)
			return nil, errBomb
		case len(out) > freeRatio && len(out) > d.limits.Ratio*(size-in.Len()):
			d.fail(errRatio)
			return nil, errBomb
		case err == io.EOF:
			return out, nil
		case err != nil:
			return out, err
		case n == 0 && d.ctx.Err() != nil:
			d.fail(errTime)
			return nil, errBomb
		}
	}
}

// Decompressors have tens of kilobytes of tables, and are used again.
var (
	gzips   = sync.Pool{New: func() any { return new(gzip.Reader) }}
	zlibs   sync.Pool // of io.ReadCloser: there is no zlib reader without input
	flates  = sync.Pool{New: func() any { return flate.NewReader(nothing{}) }}
	brotlis = sync.Pool{New: func() any { return brotli.NewReader(nothing{}) }}
	zstds   = sync.Pool{New: newZstd}
)

// nothing is what a decompressor in a pool reads, so that it holds no input.
type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

func (nothing) ReadByte() (byte, error) { return 0, io.EOF }

func openGzip(in io.Reader) (io.Reader, func()) {
	r := gzips.Get().(*gzip.Reader)
	done := func() {
		_ = r.Reset(nothing{}) // it says that there is no header
		gzips.Put(r)
	}
	if err := r.Reset(in); err != nil {
		done()
		return nil, nil
	}
	return r, done
}

func openZlib(in io.Reader) (io.Reader, func()) {
	r, ok := zlibs.Get().(io.ReadCloser)
	if !ok {
		var err error
		if r, err = zlib.NewReader(in); err != nil {
			return nil, nil
		}
	} else if r.(zlib.Resetter).Reset(in, nil) != nil {
		zlibs.Put(r)
		return nil, nil
	}
	return r, func() {
		_ = r.(zlib.Resetter).Reset(nothing{}, nil) // it says that there is no header
		zlibs.Put(r)
	}
}

func openFlate(in io.Reader) (io.Reader, func()) {
	r := flates.Get().(io.ReadCloser)
	reset := r.(flate.Resetter)
	_ = reset.Reset(in, nil) // it never fails
	return r, func() {
		_ = reset.Reset(nothing{}, nil)
		flates.Put(r)
	}
}

func openBrotli(in io.Reader) (io.Reader, func()) {
	r := brotlis.Get().(*brotli.Reader)
	_ = r.Reset(in) // it never fails
	return r, func() {
		_ = r.Reset(nothing{})
		brotlis.Put(r)
	}
}

// largestWindow is what a decoder of zstd may need to keep: 8 MiB is what
// RFC 9659 section 3 allows a content coding.
const largestWindow = 8 << 20

func newZstd() any {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(largestWindow), zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		return nil
	}
	return r
}

func openZstd(in io.Reader) (io.Reader, func()) {
	r, ok := zstds.Get().(*zstd.Decoder)
	if !ok || r.Reset(in) != nil {
		return nil, nil
	}
	return r, func() {
		_ = r.Reset(nil)
		zstds.Put(r)
	}
}

func openBzip2(in io.Reader) (io.Reader, func()) { return bzip2.NewReader(in), func() {} }

// unchunk takes the framing of aws-chunked off: chunks with a size and
// extensions, of which one may be a signature, and a trailer. It is the framing
// of RFC 9112 section 7.1, read strictly.
func unchunk(b []byte) ([]byte, bool) {
	var out []byte
	for chunks := 0; ; chunks++ {
		line, rest, ok := bytes.Cut(b, []byte("\r\n"))
		if !ok || len(line) > 1024 {
			return nil, false
		}
		digits, _, _ := bytes.Cut(line, []byte(";"))
		size := hexNumber(digits, 0, len(digits))
		if len(digits) == 0 || len(digits) > 8 || size < 0 {
			return nil, false
		}
		if size == 0 {
			return out, trailer(rest)
		}
		if size+2 > len(rest) || rest[size] != '\r' || rest[size+1] != '\n' {
			return nil, false
		}
		if chunks == 0 {
			out = rest[:size:size]
		} else {
			out = append(out, rest[:size]...)
		}
		b = rest[size+2:]
	}
}

// trailer reports that b is a trailer: fields, an empty line, and no more.
func trailer(b []byte) bool {
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\r\n"))
		if !ok {
			return false
		}
		if len(line) == 0 {
			return len(rest) == 0
		}
		if bytes.IndexByte(line, ':') <= 0 {
			return false
		}
		b = rest
	}
	return true // some clients leave the empty line out
}
