package ws

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"unicode/utf8"
)

// Opcode says what a frame is (RFC 6455 section 5.2).
type Opcode uint8

// The opcodes that exist. All others are protocol errors.
const (
	continuation Opcode = 0
	Text         Opcode = 1
	Binary       Opcode = 2
	opClose      Opcode = 8
	opPing       Opcode = 9
	opPong       Opcode = 10
)

// Close codes that the relay sends itself (RFC 6455 section 7.4.1).
const (
	CloseNormal    uint16 = 1000
	CloseGoingAway uint16 = 1001
	CloseProtocol  uint16 = 1002
	CloseNotText   uint16 = 1007
	ClosePolicy    uint16 = 1008
	CloseTooBig    uint16 = 1009
	CloseTryLater  uint16 = 1013 // of the IANA registry
)

// maxHeader is a frame header with an 8-byte length and a mask.
const maxHeader = 14

// maxControl is the longest payload of a control frame (section 5.5).
const maxControl = 125

type header struct {
	fin    bool
	op     Opcode
	length int64
	mask   [4]byte
}

func (h header) control() bool { return h.op >= opClose }

// readHeader reads a frame header. masked says whether frames of this side
// must be masked: those of the client must be and those of the server must
// not (section 5.1). scratch is there so that an idle relay owns no buffer.
func readHeader(r io.Reader, masked bool, scratch *[maxHeader]byte) (header, error) {
	var h header
	if _, err := io.ReadFull(r, scratch[:2]); err != nil {
		return h, err
	}
	b0, b1 := scratch[0], scratch[1]
	h.fin, h.op = b0&0x80 != 0, Opcode(b0&0x0f)
	switch {
	case b0&0x70 != 0:
		return h, protocolError("a reserved bit is set")
	case h.op > Binary && h.op < opClose || h.op > opPong:
		return h, protocolError("the opcode is unknown")
	case b1&0x80 != 0 != masked:
		return h, protocolError("the mask bit is wrong for this side")
	case h.control() && !h.fin:
		return h, protocolError("a control frame is fragmented")
	case h.control() && b1&0x7f > maxControl:
		return h, protocolError("a control frame is too long")
	}
	return h, readLength(r, &h, b1, scratch)
}

func readLength(r io.Reader, h *header, b1 byte, scratch *[maxHeader]byte) error {
	wide := 0
	switch b1 & 0x7f {
	case 126:
		wide = 2
	case 127:
		wide = 8
	}
	rest := scratch[:wide]
	if b1&0x80 != 0 {
		rest = scratch[:wide+4]
	}
	if _, err := io.ReadFull(r, rest); err != nil {
		return midFrame(err)
	}
	h.length = int64(b1 & 0x7f)
	switch wide {
	case 2:
		h.length = int64(binary.BigEndian.Uint16(rest))
	case 8:
		h.length = int64(binary.BigEndian.Uint64(rest))
	}
	if h.length < 0 || wide == 2 && h.length < 126 || wide == 8 && h.length <= 0xffff {
		return protocolError("a length is not in its shortest form")
	}
	if b1&0x80 != 0 {
		h.mask = [4]byte(rest[wide:])
	}
	return nil
}

// midFrame makes an end inside a frame an error that is not a clean end.
func midFrame(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// putHeader writes the header of a frame of n payload bytes so that it ends
// where the payload begins, at dst[maxHeader], and returns where it starts.
func putHeader(dst []byte, fin bool, op Opcode, n int, mask *[4]byte) int {
	at := maxHeader
	b0, b1 := byte(op), byte(0)
	if fin {
		b0 |= 0x80
	}
	if mask != nil {
		at -= 4
		copy(dst[at:], mask[:])
		b1 = 0x80
	}
	switch {
	case n > 0xffff:
		at -= 8
		binary.BigEndian.PutUint64(dst[at:], uint64(n))
		b1 |= 127
	case n > maxControl:
		at -= 2
		binary.BigEndian.PutUint16(dst[at:], uint16(n))
		b1 |= 126
	default:
		b1 |= byte(n)
	}
	dst[at-2], dst[at-1] = b0, b1
	return at - 2
}

// freshMask is unpredictable, as section 10.3 demands.
func freshMask() (m [4]byte) {
	_, _ = rand.Read(m[:]) // never fails: crypto/rand ends the process instead
	return m
}

// xor applies a mask to b, which begins at offset pos of its frame.
func xor(b []byte, mask [4]byte, pos int64) {
	if mask == [4]byte{} {
		return
	}
	var wide [8]byte
	for i := range wide {
		wide[i] = mask[(pos+int64(i))&3]
	}
	w := binary.NativeEndian.Uint64(wide[:])
	for len(b) >= 8 {
		binary.NativeEndian.PutUint64(b, binary.NativeEndian.Uint64(b)^w)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= wide[i]
	}
}

// closeCode checks the payload of a close frame and returns its code, 0 when
// there is none (sections 5.5.1 and 7.4).
func closeCode(payload []byte) (uint16, error) {
	if len(payload) == 0 {
		return 0, nil
	}
	if len(payload) == 1 {
		return 0, protocolError("a close frame has half a code")
	}
	code := binary.BigEndian.Uint16(payload)
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
	default:
		return 0, protocolError("a close code is not one to be sent")
	}
	if !utf8.Valid(payload[2:]) {
		return 0, &CloseError{Code: CloseNotText, Reason: "a close reason is not UTF-8"}
	}
	return code, nil
}

// utf8Stream validates UTF-8 that comes in pieces.
type utf8Stream struct {
	tail [utf8.UTFMax]byte
	n    int
}

// write reports whether everything so far can be the beginning of valid text.
func (u *utf8Stream) write(p []byte) bool {
	for u.n > 0 && len(p) > 0 {
		u.tail[u.n] = p[0]
		u.n++
		p = p[1:]
		if utf8.FullRune(u.tail[:u.n]) {
			if r, _ := utf8.DecodeRune(u.tail[:u.n]); r == utf8.RuneError && string(u.tail[:u.n]) != "\ufffd" {
				return false
			}
			u.n = 0
		}
	}
	cut := len(p)
	for i := 1; i <= min(3, len(p)); i++ {
		if utf8.RuneStart(p[len(p)-i]) {
			if !utf8.FullRune(p[len(p)-i:]) {
				cut = len(p) - i
			}
			break
		}
	}
	if u.n == 0 {
		u.n = copy(u.tail[:], p[cut:])
	}
	return utf8.Valid(p[:cut])
}

// end reports whether no character was left incomplete.
func (u *utf8Stream) end() bool { return u.n == 0 }
