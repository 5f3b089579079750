package payload

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"strconv"
)

// isPack recognizes a git pack, by itself or behind the commands of a push
// (gitprotocol-pack, "Reference Update Request").
func isPack(data []byte) bool { return packStart(data) >= 0 }

// packStart returns where a pack begins: at once, or behind pkt-lines.
func packStart(data []byte) int {
	at := 0
	for lines := 0; lines < 10000; lines++ {
		if bytes.HasPrefix(data[at:], []byte("PACK")) {
			return at
		}
		n, ok := pktLine(data[at:])
		if !ok {
			return -1
		}
		at += n
	}
	return -1
}

// pktLine returns the length of a pkt-line (gitprotocol-common), with its four
// digits of length.
func pktLine(data []byte) (n int, ok bool) {
	if len(data) < 4 {
		return 0, false
	}
	size, err := strconv.ParseUint(string(data[:4]), 16, 16)
	switch n = int(size); {
	case err != nil, n == 3, n > len(data):
		return 0, false
	case n < 4: // flush, delimiter, end
		return 4, true
	}
	return n, true
}

// Kinds of objects in a pack (gitformat-pack).
const (
	packTree        = 2
	packOffsetDelta = 6
	packRefDelta    = 7
)

// pack looks into every object of a pack, version 2 or 3. Its checksum has to
// hold: a pack that no git can read is none.
func pack(x *examiner, data []byte) (int, bool) {
	start := packStart(data)
	if start < 0 || len(data)-start < 32 {
		return 0, false
	}
	x.text(data[:start])
	version, count := binary.BigEndian.Uint32(data[start+4:]), binary.BigEndian.Uint32(data[start+8:])
	if version != 2 && version != 3 {
		return 0, false
	}
	at := start + 12
	var deltas []byte // small ones say nothing by themselves
	for range count {
		n, ok := x.packed(data[at:], &deltas)
		if !ok {
			return 0, false
		}
		at += n
	}
	x.unknown(deltas)
	return packEnd(data, start, at)
}

// packed looks into one object, and returns its length.
func (x *examiner) packed(data []byte, deltas *[]byte) (n int, ok bool) {
	size, shift := uint64(0), uint(4)
	for at := 0; ; at++ {
		if at >= len(data) || at > 9 {
			return 0, false
		}
		b := data[at]
		if at == 0 {
			size = uint64(b & 15)
		} else {
			size |= uint64(b&0x7f) << shift
			shift += 7
		}
		if b&0x80 == 0 {
			n = at + 1
			break
		}
	}
	kind := data[0] >> 4 & 7
	switch kind {
	case 0, 5:
		return 0, false
	case packOffsetDelta:
		for n < len(data) && data[n]&0x80 != 0 {
			n++
		}
		n++
	case packRefDelta:
		n += sha1.Size
	}
	if n > len(data) || n > 64 {
		return 0, false
	}
	plain, used, ok := x.inflate(data[n:])
	if !ok || uint64(len(plain)) != size {
		return 0, false
	}
	switch {
	case kind == packTree:
		x.tree(plain)
	case kind < packOffsetDelta:
		x.content(plain)
	case len(*deltas) < 1<<20:
		*deltas = append(*deltas, plain...)
	default:
		x.unknown(plain)
	}
	return n + used, true
}

// tree looks into a tree object, but for the hashes that it holds.
func (x *examiner) tree(data []byte) {
	var names []byte
	for rest := data; len(rest) > 0; {
		i := bytes.IndexByte(rest, 0)
		if i < 0 || i+1+sha1.Size > len(rest) {
			names = data
			break
		}
		names = append(names, rest[:i]...)
		rest = rest[i+1+sha1.Size:]
	}
	x.content(names)
}

// packEnd checks the checksum behind the objects, of SHA-1 or SHA-256.
func packEnd(data []byte, start, at int) (int, bool) {
	if sum := sha1.Sum(data[start:at]); bytes.HasPrefix(data[at:], sum[:]) {
		return at + len(sum), true
	}
	sum := sha256.Sum256(data[start:at])
	return at + len(sum), bytes.HasPrefix(data[at:], sum[:])
}
