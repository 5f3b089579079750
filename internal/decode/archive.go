package decode

import (
	"bytes"
	"encoding/binary"
	"io"
	"strconv"
	"strings"
)

// A zip archive is read from its local headers, wherever one stands: that finds
// every member that any reader can find, whatever the directory at the end
// says, behind whatever the archive stands, and when two archives overlap.

// Offsets in a local header of zip (APPNOTE.TXT section 4.3.7), and in an entry
// of the directory (4.3.12), from its third field on.
const (
	zipHeader    = 30
	zipDirHeader = 46
	zipSigned    = "PK\x01\x02"
)

// Methods of compression (APPNOTE.TXT section 4.4.5).
const (
	zipStored  = 0
	zipDeflate = 8
	zipBzip2   = 12
	zipZstd    = 93
	zipAES     = 99
)

// member reads the member whose local header is at start. It reports whether
// there is one: four bytes alone are none.
func (d *decoder) member(p, start int) bool {
	src := d.layers[p].Data
	if start+zipHeader > len(src) {
		return false
	}
	h := src[start:]
	flags, method := binary.LittleEndian.Uint16(h[6:]), binary.LittleEndian.Uint16(h[8:])
	size := int(binary.LittleEndian.Uint32(h[18:]))
	nameLen, extraLen := int(binary.LittleEndian.Uint16(h[26:])), int(binary.LittleEndian.Uint16(h[28:]))
	data := start + zipHeader + nameLen + extraLen
	if h[4] > 100 || method > 100 || nameLen == 0 || data > len(src) {
		return false
	}
	name := string(h[zipHeader : zipHeader+nameLen])
	d.noteMethod(name, method)
	const encrypted, masked = 1, 1 << 13
	if flags&(encrypted|masked) != 0 || method == zipAES {
		d.fail(errEncrypted)
		return true
	}
	d.contents(p, name, method, data, size)
	return true
}

func (d *decoder) noteMethod(name string, method uint16) {
	if d.methods == nil {
		d.methods = map[string]uint16{}
	}
	if before, ok := d.methods[name]; ok && before != method {
		method = anyMethod // a name may be there twice
	}
	d.methods[name] = method
}

const anyMethod = 1 << 15

// contents appends a member's contents. A size that is not known yet does not
// matter: compressed data ends by itself, and stored data is looked at where it
// stands.
func (d *decoder) contents(p int, name string, method uint16, data, size int) {
	src := d.layers[p].Data
	l := Layer{Kind: Member, Parent: p, Name: name, Start: data}
	var open func(io.Reader) (io.Reader, func())
	switch method {
	case zipStored:
		l.End = min(data+size, len(src))
		l.Data = src[data:l.End]
		d.share(l)
		return
	case zipDeflate:
		open = openFlate
	case zipBzip2:
		open = openBzip2
	case zipZstd:
		open = openZstd
	default:
		d.fail(errMethod)
		return
	}
	if data == len(src) {
		return
	}
	in := bytes.NewReader(src[data:])
	l.Data, _ = d.inflate(open, in)
	l.End = len(src) - in.Len()
	d.add(l)
}

// directory holds the entries of zip directories to what the local headers say.
// A reader that believes the one would see other contents than one that
// believes the other.
func (d *decoder) directory(p int) {
	src := d.layers[p].Data
	for i := 0; d.err == nil; i++ {
		n := bytes.Index(src[i:], []byte(zipSigned))
		if n < 0 {
			break
		}
		i += n
		if i+zipDirHeader > len(src) {
			break
		}
		h := src[i:]
		nameLen := int(binary.LittleEndian.Uint16(h[28:]))
		if zipDirHeader+nameLen > len(h) || h[6] > 100 {
			continue
		}
		method, ok := d.methods[string(h[zipDirHeader:zipDirHeader+nameLen])]
		if !ok || method != anyMethod && method != binary.LittleEndian.Uint16(h[10:]) {
			d.fail(errArchive)
		}
		if h[8]&1 != 0 {
			d.fail(errEncrypted)
		}
	}
	clear(d.methods)
}

const tarBlock = 512

// tar lists the members of a tar archive (POSIX ustar, and what GNU made of
// it). Their bytes stand in the archive as they are.
func (d *decoder) tar(p int) {
	src := d.layers[p].Data
	for at := 0; at+tarBlock <= len(src) && d.err == nil; {
		h := src[at : at+tarBlock]
		if string(h[257:262]) != "ustar" || !tarSum(h) {
			return
		}
		size := tarNumber(h[124:136])
		data := at + tarBlock
		if size < 0 || size > len(src)-data {
			return
		}
		if kind := h[156]; kind == 0 || kind == '0' || kind == '7' {
			d.share(Layer{
				Kind: Member, Parent: p, Name: tarName(h), Data: src[data : data+size],
				Start: data, End: data + size,
			})
		}
		at = data + (size+tarBlock-1)/tarBlock*tarBlock
	}
}

// tarSum checks the sum of a header, in which its own field counts as spaces.
func tarSum(h []byte) bool {
	sum := 0
	for i, c := range h {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int(c)
	}
	return sum == tarNumber(h[148:156])
}

// tarNumber reads an octal number, or a binary one as GNU writes them. It is -1
// where there is none.
func tarNumber(b []byte) int {
	if b[0] == 0x80 {
		v := binary.BigEndian.Uint64(b[len(b)-8:])
		if v > 1<<40 {
			return -1
		}
		return int(v)
	}
	v, err := strconv.ParseInt(strings.Trim(string(b), " \x00"), 8, 64)
	if err != nil {
		return -1
	}
	return int(v)
}

func tarName(h []byte) string {
	name, prefix := cString(h[:100]), cString(h[345:500])
	if prefix == "" || h[262] != 0 {
		return name
	}
	return prefix + "/" + name
}

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
