package payload

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// maxMetadata is how much an image may carry beside its pixels before that is
// judged by itself, in bytes.
const maxMetadata = 256 << 10

// png walks over the chunks of ISO/IEC 15948, section 5.
func png(x *examiner, data []byte) (int, bool) {
	at, pixels, meta := 8, 0, 0
	for first := true; len(data)-at >= 12; first = false {
		n := int(binary.BigEndian.Uint32(data[at:]))
		if n > len(data)-at-12 {
			return 0, false
		}
		name, body := string(data[at+4:at+8]), data[at+8:at+8+n]
		if first != (name == "IHDR") || crc32.ChecksumIEEE(data[at+4:at+8+n]) != binary.BigEndian.Uint32(data[at+8+n:]) {
			return 0, false
		}
		at += 12 + n
		switch name {
		case "IEND":
			return at, pixels > 0 && n == 0
		case "IDAT", "fdAT":
			pixels += n
		case "IHDR", "PLTE":
		case "tRNS", "cHRM", "gAMA", "iCCP", "sBIT", "sRGB", "bKGD", "hIST", "pHYs", "sPLT", "eXIf", "tIME",
			"tEXt", "zTXt", "iTXt", "acTL", "fcTL", "cICP", "mDCV", "cLLI", "caBX":
			if meta += n; meta > maxMetadata {
				x.foreign(body)
			}
		default:
			x.foreign(body)
		}
	}
	return 0, false
}

// jpeg walks over the segments of ITU-T T.81, annex B, of one image or of
// several behind one another, as cameras write them.
func jpeg(x *examiner, data []byte) (int, bool) {
	end, ok := jpegOne(x, data)
	for more := ok; more && bytes.HasPrefix(data[end:], []byte("\xff\xd8\xff")); {
		var n int
		if n, more = jpegOne(x, data[end:]); more {
			end += n
		}
	}
	return end, ok
}

func jpegOne(x *examiner, data []byte) (int, bool) {
	var frame, tables, scan bool
	meta := 0
	for at := 2; at+4 <= len(data); {
		marker, n := data[at+1], int(binary.BigEndian.Uint16(data[at+2:]))
		if data[at] != 0xff {
			return 0, false
		}
		if marker == 0xff {
			at++
			continue
		}
		if n < 2 || at+2+n > len(data) {
			return 0, false
		}
		body := data[at+4 : at+2+n]
		at += 2 + n
		switch kindOf(marker) {
		case jpegTable:
			tables = true
		case jpegFrame:
			frame = len(body) >= 6 && binary.BigEndian.Uint16(body[1:]) > 0 && binary.BigEndian.Uint16(body[3:]) > 0
		case jpegMeta:
			if meta += len(body); meta > maxMetadata {
				x.foreign(body)
			}
		case jpegScan:
			scan = frame && tables
			at += entropyCoded(data[at:])
		default:
			return 0, false
		}
		if scan && bytes.HasPrefix(data[at:], []byte("\xff\xd9")) {
			return at + 2, true
		}
	}
	return 0, false
}

type jpegKind int

const (
	jpegBad jpegKind = iota
	jpegTable
	jpegFrame
	jpegMeta
	jpegScan
)

// kindOf sorts the markers of ITU-T T.81, table B.1.
func kindOf(marker byte) jpegKind {
	switch {
	case marker == 0xc4, marker == 0xdb, marker == 0xcc, marker == 0xdd:
		return jpegTable
	case marker >= 0xc0 && marker <= 0xcf && marker != 0xc8:
		return jpegFrame
	case marker == 0xda:
		return jpegScan
	case marker >= 0xe0 && marker <= 0xef, marker == 0xfe:
		return jpegMeta
	}
	return jpegBad
}

// entropyCoded returns the length of the data of a scan, up to the next marker
// that is neither a stuffed byte nor a restart.
func entropyCoded(data []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(data[at:], 0xff)
		if i < 0 || at+i+1 >= len(data) {
			return len(data)
		}
		at += i
		if m := data[at+1]; m != 0 && (m < 0xd0 || m > 0xd7) {
			return at
		}
		at += 2
	}
}

// gif walks over the blocks of GIF89a.
func gif(x *examiner, data []byte) (int, bool) {
	if len(data) < 13 || data[4] != '7' && data[4] != '9' || data[5] != 'a' {
		return 0, false
	}
	at := 13 + colors(data[10])
	images := 0
	for at < len(data) {
		switch data[at] {
		case 0x3b:
			return at + 1, images > 0
		case 0x21:
			start := at + 2
			end, ok := subBlocks(data, start)
			if !ok {
				return 0, false
			}
			if end-start > maxMetadata {
				x.foreign(data[start:end])
			}
			at = end
		case 0x2c:
			if at+10 >= len(data) {
				return 0, false
			}
			end, ok := subBlocks(data, at+11+colors(data[at+9]))
			if !ok {
				return 0, false
			}
			images++
			at = end
		default:
			return 0, false
		}
	}
	return 0, false
}

// colors returns the bytes of the colour table that a flag byte tells of.
func colors(flags byte) int {
	if flags&0x80 == 0 {
		return 0
	}
	return 3 << (flags&7 + 1)
}

func subBlocks(data []byte, at int) (end int, ok bool) {
	for at < len(data) {
		n := int(data[at])
		at += 1 + n
		if n == 0 {
			return at, true
		}
	}
	return 0, false
}

func riffOf(form string) func([]byte) bool {
	return func(data []byte) bool {
		return len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == form
	}
}

// riff walks over the chunks of a RIFF file. Chunks of other names are judged
// by themselves.
func riff(names ...string) func(*examiner, []byte) (int, bool) {
	known := make(map[string]bool)
	for _, n := range names {
		known[n] = true
	}
	return func(x *examiner, data []byte) (int, bool) {
		end := 8 + int(binary.LittleEndian.Uint32(data[4:]))
		if end > len(data) || end < 20 {
			return 0, false
		}
		at, found := 12, false
		for at+8 <= end {
			n := int(binary.LittleEndian.Uint32(data[at+4:]))
			if n > end-at-8 {
				return 0, false
			}
			name, body := string(data[at:at+4]), data[at+8:at+8+n]
			switch {
			case !known[name]:
				x.foreign(body)
			case name == "EXIF" || name == "XMP " || name == "ICCP" || name == "LIST" || name == "JUNK":
				if n > maxMetadata {
					x.foreign(body)
				}
			case name == "VP8 " && !vp8(body), name == "VP8L" && (n < 5 || body[0] != 0x2f):
				return 0, false
			default:
				found = true
			}
			at += 8 + n + n&1
		}
		return end, found && at >= end
	}
}

// vp8 reports a key frame of RFC 6386, section 9.1, whose first partition is
// inside of it.
func vp8(frame []byte) bool {
	if len(frame) < 10 || frame[0]&1 != 0 || !bytes.Equal(frame[3:6], []byte("\x9d\x01\x2a")) {
		return false
	}
	first := (int(frame[0]) | int(frame[1])<<8 | int(frame[2])<<16) >> 5
	return first <= len(frame)-10 && binary.LittleEndian.Uint16(frame[6:])&0x3fff > 0 && binary.LittleEndian.Uint16(frame[8:])&0x3fff > 0
}

// bmp compares the header with the size of the pixels.
func bmp(_ *examiner, data []byte) (int, bool) {
	if len(data) < 54 {
		return 0, false
	}
	le := binary.LittleEndian
	size, offset := int(le.Uint32(data[2:])), int(le.Uint32(data[10:]))
	width, height, depth := int(int32(le.Uint32(data[18:]))), int(int32(le.Uint32(data[22:]))), int(le.Uint16(data[28:]))
	height = max(height, -height)
	if width <= 0 || width > 1<<15 || height > 1<<15 || depth > 32 || offset < 54 || offset > 54+1024+84 {
		return 0, false
	}
	pixels := (width*depth + 31) / 32 * 4 * height
	return size, size <= len(data) && pixels > 0 && size-offset >= pixels && size-offset <= pixels+2 && le.Uint32(data[30:]) == 0
}

// boxesOf recognizes ISO/IEC 14496-12 by its first box; "" is any brand.
func boxesOf(brands ...string) func([]byte) bool {
	return func(data []byte) bool {
		if len(data) < 16 || string(data[4:8]) != "ftyp" {
			return false
		}
		for _, b := range brands {
			if b == "" || string(data[8:12]) == b {
				return true
			}
		}
		return false
	}
}

// boxes walks over the boxes of the top level, one of which has to describe
// the data in boxes of its own.
func boxes(index string, head int, needed ...string) func(*examiner, []byte) (int, bool) {
	return func(x *examiner, data []byte) (int, bool) {
		at, indexed, filled := 0, false, false
		for len(data)-at >= 8 {
			name, body, n, ok := box(data[at:])
			if !ok {
				return at, indexed && filled
			}
			switch name {
			case "mdat", "idat":
				filled = true
			case "ftyp", "moof", "sidx", "mfra", "styp", "iinf", "iloc":
			case index:
				if len(body) < head || len(body) > maxMetadata*16 || !hasBoxes(body[head:], needed) {
					return 0, false
				}
				indexed = true
			default:
				x.foreign(body)
			}
			at += n
		}
		return at, indexed && filled
	}
}

// box returns the box that data begins with, and its whole length.
func box(data []byte) (name string, body []byte, n int, ok bool) {
	if len(data) < 8 {
		return "", nil, 0, false
	}
	size, head := uint64(binary.BigEndian.Uint32(data)), 8
	switch {
	case size == 0:
		size = uint64(len(data))
	case size == 1 && len(data) >= 16:
		size, head = binary.BigEndian.Uint64(data[8:]), 16
	}
	if size < uint64(head) || size > uint64(len(data)) || !printable4(string(data[4:8])) {
		return "", nil, 0, false
	}
	return string(data[4:8]), data[head:size], int(size), true
}

// hasBoxes reports whether data is boxes and nothing else, with those needed
// among them.
func hasBoxes(data []byte, needed []string) bool {
	found := make(map[string]bool)
	for len(data) > 0 {
		name, _, n, ok := box(data)
		if !ok {
			return false
		}
		found[name] = true
		data = data[n:]
	}
	for _, n := range needed {
		if !found[n] {
			return false
		}
	}
	return true
}

func printable4(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
