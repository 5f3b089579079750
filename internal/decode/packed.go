package decode

import (
	"bytes"
	"encoding/binary"
	"io"
)

// packer is a kind of compressed file.
type packer struct {
	name    string
	begin   string // the first bytes of a file
	magic   string // what is looked for, if it is enough to tell one inside of something else
	rare    byte   // the byte of magic that is looked for first, and where it stands
	at      int
	open    func(io.Reader) (io.Reader, func())
	archive bool
}

// Archives come first: what is in them then has the member's name.
var packers = [...]packer{
	{name: "zip", begin: "PK\x03\x04", magic: "PK\x03\x04", rare: 3, at: 2, archive: true},
	{name: "gzip", begin: "\x1f\x8b\x08", magic: "\x1f\x8b\x08", rare: 0x1f, open: openGzip},
	{name: "zstd", begin: "\x28\xb5\x2f\xfd", magic: "\x28\xb5\x2f\xfd", rare: 0xb5, at: 1, open: openZstd},
	{name: "bzip2", begin: "BZh", magic: "1AY&SY", rare: '&', at: 3, open: openBzip2}, // of the first block
	{name: "zlib", begin: "\x78\x01", open: openZlib},                                 // RFC 1950 section 2.2: the usual window, and four levels
	{name: "zlib", begin: "\x78\x5e", open: openZlib},
	{name: "zlib", begin: "\x78\x9c", open: openZlib},
	{name: "zlib", begin: "\x78\xda", open: openZlib},
}

// beginsPacked reports that b begins like something compressed.
func beginsPacked(b []byte) bool {
	if len(b) == 0 || !packedBytes[b[0]] {
		return false
	}
	for i := range packers {
		if bytes.HasPrefix(b, []byte(packers[i].begin)) {
			return true
		}
	}
	return false
}

var packedBytes = func() (t [256]bool) {
	for _, q := range packers {
		t[q.begin[0]] = true
	}
	return t
}()

// holdsPacked reports that something compressed seems to begin in b.
func holdsPacked(b []byte) bool {
	for i := range packers {
		if q := &packers[i]; q.magic != "" && bytes.Contains(b, []byte(q.magic)) {
			return true
		}
	}
	return beginsPacked(b)
}

// zlibAtStart reports that b begins like zlib with the usual window.
func zlibAtStart(b []byte) bool {
	return len(b) > 6 && b[0] == 0x78 && binary.BigEndian.Uint16(b)%31 == 0
}

// packed decompresses what looks compressed, wherever it begins. Nobody
// declared it, so it need not be whole: what comes out before an error is kept,
// as a server may keep it.
func (d *decoder) packed(p int) {
	src := d.layers[p].Data
	if zlibAtStart(src) {
		d.unpack(p, 0, "zlib", openZlib)
	}
	d.deflated(p, src, 0, len(src))
	high := d.high < len(src) // nothing compressed is ASCII, but a member may be stored
	for k := range packers {
		if q := &packers[k]; q.magic != "" && (high || q.archive) {
			d.packedBy(p, q)
		}
	}
}

func (d *decoder) packedBy(p int, q *packer) {
	src := d.layers[p].Data
	found := false
	for i := indexByte(src, 0, q.rare); i >= 0 && d.err == nil; i = indexByte(src, i+1, q.rare) {
		start := i - q.at
		if start < 0 || !bytes.HasPrefix(src[start:], []byte(q.magic)) {
			continue
		}
		switch {
		case q.archive:
			found = d.member(p, start) || found
		case q.name == "bzip2":
			if start >= 4 && string(src[start-4:start-1]) == "BZh" {
				d.unpack(p, start-4, q.name, q.open)
			}
		case start > 0 || d.about[p].coding != q.name && d.about[p].coding != "x-"+q.name:
			d.unpack(p, start, q.name, q.open)
		}
	}
	if found {
		d.directory(p)
	}
}

func (d *decoder) unpack(p, start int, name string, open func(io.Reader) (io.Reader, func())) {
	src := d.layers[p].Data
	in := bytes.NewReader(src[start:])
	out, _ := d.inflate(open, in)
	d.add(Layer{Kind: Coding, Parent: p, Name: name, Data: out, Start: start, End: len(src) - in.Len()})
}

const (
	minDeflated = 24 // bytes of bare deflate, and of what it holds, that are looked at
	mostLengths = 19 // of codes in the header of a block with codes of its own
)

// deflated decompresses bare deflate (RFC 1951). It has no magic, so it is tried
// where its first block could be one, and kept when it ends where the data does
// or holds text.
func (d *decoder) deflated(p int, data []byte, s, e int) {
	if couldBeDeflate(data) {
		d.bare(p, bytes.NewReader(data), s, e)
	}
}

func (d *decoder) bare(p int, in source, s, e int) {
	out, err := d.inflate(openFlate, in)
	if whole := err == nil && in.Len() == 0; len(out) >= minDeflated && (whole || readable(out)) {
		d.add(Layer{Kind: Coding, Parent: p, Name: "deflate", Data: out, Start: s, End: e})
	}
}

// couldBeDeflate looks at the header of the first block: a stored one says its
// length twice, and one with codes of its own has lengths of codes that fill
// their space exactly, which random bits hardly ever have.
func couldBeDeflate(data []byte) bool {
	if len(data) < minDeflated || readable(data[:minDeflated]) {
		return false
	}
	switch data[0] >> 1 & 3 {
	case 0:
		return data[1] == ^data[3] && data[2] == ^data[4]
	case 1:
		return true
	case 2:
		return binary.LittleEndian.Uint16(data)>>3&31 < 30 && fillsSpace(data)
	}
	return false
}

// fillsSpace reads the lengths of the code for lengths (section 3.2.7), of three
// bits each.
func fillsSpace(data []byte) bool {
	bits := func(at int) uint32 { return binary.LittleEndian.Uint32(data[at/8:]) >> (at % 8) }
	filled := uint32(0)
	for i := range min(int(bits(13)&15)+4, mostLengths) {
		if n := bits(17+3*i) & 7; n > 0 {
			filled += 1 << (7 - n)
		}
	}
	return filled == 1<<7
}

// leading reads what can only be at the beginning of a layer.
func (d *decoder) leading(p int) {
	src := d.layers[p].Data
	d.mark(p)
	if d.about[p].shared && zlibAtStart(src) {
		d.unpack(p, 0, "zlib", openZlib)
	}
	d.tar(p)
}
