package payload

import (
	"encoding/binary"
	"math"
)

// Entropy returns Shannon's entropy of data in bits a byte, 0 to 8.
func Entropy(data []byte) float64 {
	var h histogram
	h.add(data)
	return h.entropy()
}

// histogram counts bytes. Four tables side by side, because one that is
// incremented twice in a row for the same byte waits for itself.
type histogram struct {
	n int
	c [4][256]uint32
}

func (h *histogram) add(data []byte) {
	h.n += len(data)
	for len(data) >= 8 {
		w := binary.LittleEndian.Uint64(data)
		h.c[0][byte(w)]++
		h.c[1][byte(w>>8)]++
		h.c[2][byte(w>>16)]++
		h.c[3][byte(w>>24)]++
		h.c[0][byte(w>>32)]++
		h.c[1][byte(w>>40)]++
		h.c[2][byte(w>>48)]++
		h.c[3][byte(w>>56)]++
		data = data[8:]
	}
	for _, b := range data {
		h.c[0][b]++
	}
}

// entropy is the plain estimate. It is too low for short data: n random bytes
// cannot measure more than log2(n) bits.
func (h *histogram) entropy() float64 {
	if h.n == 0 {
		return 0
	}
	sum := 0.0
	for i := range 256 {
		if c := h.c[0][i] + h.c[1][i] + h.c[2][i] + h.c[3][i]; c > 0 {
			sum += float64(c) * math.Log2(float64(c))
		}
	}
	return max(0, math.Log2(float64(h.n))-sum/float64(h.n))
}

// corrected is the estimate with what it is too low by for random data of an
// alphabet at this length, so that random data of any length measures the
// bits of its alphabet.
func (h *histogram) corrected(a *Alphabet) float64 {
	if h.n == 0 {
		return 0
	}
	return max(0, min(a.Bits, h.entropy()+a.Bits-expected(h.n, a.size)))
}

// expected is the mean of the plain estimate over n symbols that are drawn at
// random from so many. How often each is drawn is taken as Poisson distributed.
func expected(n, size int) float64 {
	mean := float64(n) / float64(size)
	p, sum := math.Exp(-mean), 0.0 // p is the chance of c draws
	if mean > 500 {
		return math.Log2(float64(size))
	}
	for c := 1.0; c < mean+12*math.Sqrt(mean)+12; c++ {
		p *= mean / c
		sum += p * c * math.Log2(c)
	}
	return math.Log2(float64(n)) - sum/mean
}

func (h *histogram) merge(o *histogram) {
	h.n += o.n
	for t := range h.c {
		for b, n := range o.c[t] {
			h.c[t][b] += n
		}
	}
}
