package ws

import "sync"

// firstRoom is the payload that a buffer has at first, and keepRoom the most
// that one may have and still be kept for the next message.
const (
	firstRoom = 4 << 10
	keepRoom  = 64 << 10
)

// buffer is a payload with room for a frame header before it.
type buffer struct{ b []byte }

var pool = sync.Pool{New: func() any { return &buffer{make([]byte, maxHeader, maxHeader+firstRoom)} }}

func getBuffer() *buffer { return pool.Get().(*buffer) }

func (b *buffer) put() {
	if cap(b.b) > maxHeader+keepRoom {
		return
	}
	clear(b.b) // what one agent sent is nothing to another
	b.b = b.b[:maxHeader]
	pool.Put(b)
}

func (b *buffer) size() int       { return len(b.b) - maxHeader }
func (b *buffer) payload() []byte { return b.b[maxHeader:] }
func (b *buffer) add(n int)       { b.b = b.b[:len(b.b)+n] }

// sizeFor is the size that the buffer will have when want more bytes come. It at
// most doubles.
func (b *buffer) sizeFor(want int64) int {
	if len(b.b) < cap(b.b) {
		return cap(b.b)
	}
	return int(min(int64(2*len(b.b)), int64(len(b.b))+want))
}

// room returns where to read up to want more bytes to; add makes them part of
// the payload.
func (b *buffer) room(want int64) []byte {
	if len(b.b) == cap(b.b) {
		bigger := make([]byte, len(b.b), b.sizeFor(want))
		copy(bigger, b.b)
		b.b = bigger
	}
	return b.b[len(b.b) : int64(len(b.b))+min(want, int64(cap(b.b)-len(b.b)))]
}

// piece returns the payload's place, for up to want bytes.
func (b *buffer) piece(want int64) []byte {
	b.b = b.b[:int64(maxHeader)+min(want, int64(cap(b.b)-maxHeader))]
	return b.b[maxHeader:]
}

// with returns the buffer with data as its payload, where data may be a part
// of it already.
func (b *buffer) with(data []byte) []byte {
	b.b = append(b.b[:maxHeader], data...)
	return b.b
}
