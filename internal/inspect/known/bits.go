package known

import "math/bits"

// bitmap is a set of the bytes of one value.
type bitmap []uint64

func newBitmap(n int) bitmap { return make(bitmap, (n+63)/64) }

func (b bitmap) has(i int) bool { return b[i/64]>>(i%64)&1 != 0 }

// set adds from up to and without to.
func (b bitmap) set(from, to int) {
	for i := from; i < to; i++ {
		b[i/64] |= 1 << (i % 64)
	}
}

func (b bitmap) clear(from, to int) {
	for i := from; i < to; i++ {
		b[i/64] &^= 1 << (i % 64)
	}
}

// or adds another bitmap of the same value; nil is empty.
func (b bitmap) or(c bitmap) {
	for i := range c {
		b[i] |= c[i]
	}
}

// count is how many of the bytes are in mask too.
func (b bitmap) count(mask bitmap) int {
	n := 0
	for i := range b {
		n += bits.OnesCount64(b[i] & mask[i])
	}
	return n
}

// countRange is how many bytes from up to and without to are in the set.
func (b bitmap) countRange(from, to int) int {
	n := 0
	for i := from; i < to; i++ {
		if b.has(i) {
			n++
		}
	}
	return n
}

// sums says for every byte, and for the end, how many before it are in the set.
func (b bitmap) sums(n int) []int {
	out := make([]int, n+1)
	for i := range n {
		out[i+1] = out[i] + int(b[i/64]>>(i%64)&1)
	}
	return out
}
