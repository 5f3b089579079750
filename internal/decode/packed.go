package decode

import (
	"bytes"
	"encoding/binary"
	"io"
)

// packer is a kind of compressed file.
type packer struct {
	name    string
	magic   string
	rare    byte // the byte of magic that is looked for, and where it stands
	at      int
	open    func(io.Reader) (io.Reader, func())
	archive bool
}

var packers = [...]packer{
	{name: "gzip", magic: "\x1f\x8b\x08", rare: 0x1f, open: openGzip},
	{name: "zstd", magic: "\x28\xb5\x2f\xfd", rare: 0xb5, at: 1, open: openZstd},
	{name: "bzip2", magic: "1AY&SY", rare: '&', at: 3, open: openBzip2}, // of the first block
	{name: "zip", magic: "PK\x03\x04", rare: 3, at: 2, archive: true},
}

// holdsPacked reports that something compressed seems to begin in b.
func holdsPacked(b []byte) bool {
	for i := range packers {
		if bytes.Contains(b, []byte(packers[i].magic)) {
			return true
		}
	}
	return zlibAtStart(b)
}

// zlibAtStart reports that b begins like zlib with the window that everybody
// uses (RFC 1950 section 2.2).
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
	high := nextHigh(src, 0) < len(src) // nothing compressed is ASCII, but a member may be stored
	for k := range packers {
		if q := &packers[k]; high || q.archive {
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
