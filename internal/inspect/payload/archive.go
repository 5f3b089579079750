package payload

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"slices"
)

// maxRatio is how much larger than its packed form data may be, above 1 MiB.
const maxRatio = 200

var errTooLarge = errors.New("too large")

// read unpacks, within what may still be unpacked.
func (x *examiner) read(r io.Reader, packed int) ([]byte, error) {
	most := min(x.root.bytes, int64(1<<20)+int64(packed)*maxRatio)
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	x.root.bytes -= int64(len(data))
	if err == nil && int64(len(data)) > most {
		err = errTooLarge
	}
	return data, err
}

// gunzip unpacks all members of RFC 1952, whose checksums hold.
func gunzip(x *examiner, data []byte) (int, bool) {
	r := bytes.NewReader(data)
	z, err := gzip.NewReader(r)
	if err != nil {
		return 0, false
	}
	end := 0
	for err == nil {
		z.Multistream(false)
		var plain []byte
		if plain, err = x.read(z, len(data)); err != nil {
			break
		}
		end = len(data) - r.Len()
		x.content(plain)
		if len(z.Extra)+len(z.Comment)+len(z.Name) > 1<<10 {
			x.foreign([]byte(string(z.Extra) + z.Comment + z.Name))
		}
		err = z.Reset(r)
	}
	return end, end > 0 && err != errTooLarge
}

// isZlib recognizes RFC 1950 as every library writes it.
func isZlib(data []byte) bool {
	return len(data) > 8 && data[0] == 0x78 && (int(data[0])<<8|int(data[1]))%31 == 0 && data[1]&0x20 == 0
}

func unzlib(x *examiner, data []byte) (int, bool) {
	plain, end, ok := x.inflate(data)
	if ok {
		x.content(plain)
	}
	return end, ok
}

// inflate unpacks one zlib stream, and returns where it ends.
func (x *examiner) inflate(data []byte) (plain []byte, end int, ok bool) {
	r := bytes.NewReader(data)
	z, err := zlib.NewReader(r)
	if err != nil {
		return nil, 0, false
	}
	plain, err = x.read(z, len(data))
	return plain, len(data) - r.Len(), err == nil
}

// maxFiles bounds the files of one archive.
const maxFiles = 10000

// unzip looks into each file of an archive, and at what is between them.
func unzip(x *examiner, data []byte) (int, bool) {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil || len(z.File) == 0 || len(z.File) > maxFiles {
		return 0, false
	}
	z.RegisterDecompressor(zip.Deflate, flate.NewReader)
	type span struct{ from, to int }
	var files []span
	for _, f := range z.File {
		from, err := f.DataOffset()
		if err != nil || f.CompressedSize64 > uint64(len(data)) {
			return 0, false
		}
		to := int(from) + int(f.CompressedSize64)
		if to > len(data) || !x.zipped(f) {
			return 0, false
		}
		files = append(files, span{int(from), to})
	}
	slices.SortFunc(files, func(a, b span) int { return a.from - b.from })
	var between []byte
	at := 0
	for _, s := range files {
		if s.from > at {
			between = append(between, data[at:s.from]...)
		}
		at = max(at, s.to)
	}
	x.foreign(append(between, data[at:]...))
	return len(data), true
}

// zipped looks into one file. Encrypted ones cannot be read.
func (x *examiner) zipped(f *zip.File) bool {
	if f.Flags&1 != 0 {
		return false
	}
	r, err := f.Open()
	if err != nil {
		return false
	}
	plain, err := x.read(r, int(f.CompressedSize64))
	if err != nil || r.Close() != nil {
		return false
	}
	x.content(plain)
	return true
}

// isTar recognizes a tar archive (POSIX ustar, GNU).
func isTar(data []byte) bool { return len(data) >= 512 && string(data[257:262]) == "ustar" }

// untar looks into each file of an archive, and at what is between them.
func untar(x *examiner, data []byte) (int, bool) {
	r := bytes.NewReader(data)
	t := tar.NewReader(r)
	var between []byte
	at := 0
	for range maxFiles {
		h, err := t.Next()
		if err != nil {
			x.foreign(append(between, data[at:]...))
			return len(data), err == io.EOF && at > 0
		}
		from := len(data) - r.Len()
		if from < at {
			return 0, false // a sparse file, which is smaller than it says
		}
		between = append(between, data[at:from]...)
		at = from
		if h.Typeflag != tar.TypeReg || h.Size > int64(r.Len()) {
			continue
		}
		at += int(h.Size)
		x.content(data[from:at])
	}
	return 0, false
}
