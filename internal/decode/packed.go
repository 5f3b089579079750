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

// leading reads what can only be at the beginning of a layer.
func (d *decoder) leading(p int) {
	src := d.layers[p].Data
	d.mark(p)
	if d.about[p].shared && zlibAtStart(src) {
		d.unpack(p, 0, "zlib", openZlib)
	}
	d.tar(p)
}
