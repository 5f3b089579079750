package payload

import (
	"bytes"
	"encoding/binary"
)

// isMPEG recognizes a frame of MPEG audio layer III, with or without an ID3v2
// tag before it.
func isMPEG(data []byte) bool {
	return bytes.HasPrefix(data, []byte("ID3")) || frameLen(data) > 0
}

// mpeg walks from frame to frame. Two of them prove nothing, so many do: each
// has eleven bits that are fixed and a length that leads to the next one.
func mpeg(x *examiner, data []byte) (int, bool) {
	at := 0
	if len(data) > 10 && string(data[:3]) == "ID3" {
		at = min(10+(int(data[6]&0x7f)<<21|int(data[7]&0x7f)<<14|int(data[8]&0x7f)<<7|int(data[9]&0x7f)), len(data))
		if at > maxMetadata {
			x.foreign(data[10:at])
		}
	}
	frames := 0
	for at < len(data) {
		n := frameLen(data[at:])
		if n == 0 || n > len(data)-at {
			break
		}
		at += n
		frames++
	}
	return at, frames >= 8
}

var bitRates = [2][15]int{
	{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320},
	{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
}

// frameLen returns the bytes of the frame of layer III that data begins with.
func frameLen(data []byte) int {
	if len(data) < 4 || data[0] != 0xff || data[1]&0xe6 != 0xe2 {
		return 0
	}
	version, rate, freq := data[1]>>3&3, int(data[2]>>4), int(data[2]>>2&3)
	if version == 1 || rate == 0 || rate == 15 || freq == 3 {
		return 0
	}
	hz := []int{44100, 48000, 32000}[freq]
	samples, table := 144, 0
	if version != 3 {
		hz, samples, table = hz/2, 72, 1
		if version == 0 {
			hz /= 2
		}
	}
	return samples*bitRates[table][rate]*1000/hz + int(data[2]>>1&1)
}

// woff compares the header of a web font (W3C WOFF 1.0, 2.0) with its length.
// The tables of a font are compressed by means that are not undone here, so
// fonts have a bound.
func woff(head int, two bool) func(*examiner, []byte) (int, bool) {
	return func(x *examiner, data []byte) (int, bool) {
		if len(data) < head || len(data) > 1<<20 {
			return 0, false
		}
		be := binary.BigEndian
		size, tables, plain := int(be.Uint32(data[8:])), int(be.Uint16(data[12:])), int(be.Uint32(data[16:]))
		if size > len(data) || tables == 0 || tables > 64 || plain < size/2 || be.Uint16(data[14:]) != 0 {
			return 0, false
		}
		if two {
			packed := int(be.Uint32(data[20:]))
			return size, packed > 0 && packed <= size-head-tables && packed+head+tables*11+4 >= size-int(be.Uint32(data[32:]))-int(be.Uint32(data[44:]))
		}
		return size, woffTables(data[head:], tables, size)
	}
}

// woffTables reports whether the directory of a WOFF 1.0 font lists tables
// that are inside of it.
func woffTables(dir []byte, tables, size int) bool {
	if len(dir) < tables*20 {
		return false
	}
	be := binary.BigEndian
	sum := 0
	for i := range tables {
		e := dir[i*20:]
		offset, n := int(be.Uint32(e[4:])), int(be.Uint32(e[8:]))
		if !printable4(string(e[:4])) || offset > size || n > size-offset || n > int(be.Uint32(e[12:])) {
			return false
		}
		sum += (n + 3) &^ 3
	}
	return sum+44+tables*20+maxMetadata >= size
}

// type1 recognizes a font of Adobe's Type 1 format as PDF files hold it, whose
// second part is encrypted with a fixed key (Adobe Type 1 Font Format,
// section 7.3).
func type1(_ *examiner, data []byte) (int, bool) {
	const key, c1, c2 = 55665, 52845, 22719
	mark := []byte("currentfile eexec")
	i := bytes.Index(data[:min(len(data), 64<<10)], mark)
	if i < 0 || len(data) > 1<<20 {
		return 0, false
	}
	cipher := bytes.TrimLeft(data[i+len(mark):], " \r\n\t")
	plain := make([]byte, 0, len(cipher))
	r := uint16(key)
	for _, c := range cipher {
		plain = append(plain, c^byte(r>>8))
		r = (uint16(c)+r)*c1 + c2
	}
	private, strings := bytes.Index(plain, []byte("/Private")), bytes.Index(plain, []byte("/CharStrings"))
	return len(data), private >= 0 && private < 4096 && strings > private
}
