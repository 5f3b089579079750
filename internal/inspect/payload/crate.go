package payload

import (
	"encoding/binary"
	"encoding/json"
)

// isCrate recognizes what cargo publish sends (The Cargo Book, Registry Web
// API): JSON and a package, each behind its length, and nothing else.
func isCrate(data []byte) bool {
	_, pack, ok := crateParts(data)
	return ok && begins("\x1f\x8b\x08")(pack)
}

func crateParts(data []byte) (about, pack []byte, ok bool) {
	if len(data) < 8 {
		return nil, nil, false
	}
	n := int64(binary.LittleEndian.Uint32(data))
	if n < 2 || n > int64(len(data))-8 || data[4] != '{' {
		return nil, nil, false
	}
	about, rest := data[4:4+n], data[4+n:]
	return about, rest[4:], int64(binary.LittleEndian.Uint32(rest)) == int64(len(rest)-4)
}

func crate(x *examiner, data []byte) (int, bool) {
	about, pack, ok := crateParts(data)
	if !ok || !json.Valid(about) {
		return 0, false
	}
	if end, ok := gunzip(x, pack); !ok || end != len(pack) {
		return 0, false
	}
	x.content(about)
	return len(data), true
}
