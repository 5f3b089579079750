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
	e, _ := h.measure()
	return e
}

// corrected is the estimate of Miller and Madow, which adds the (m-1)/2n nats
// that m symbols lose in n samples; never more than bits.
func (h *histogram) corrected(bits float64) float64 {
	e, symbols := h.measure()
	if h.n == 0 {
		return 0
	}
	return min(bits, e+float64(symbols-1)/(2*float64(h.n)*math.Ln2))
}

func (h *histogram) measure() (e float64, symbols int) {
	if h.n == 0 {
		return 0, 0
	}
	sum := 0.0
	for i := range 256 {
		if c := h.c[0][i] + h.c[1][i] + h.c[2][i] + h.c[3][i]; c > 0 {
			symbols++
			sum += float64(c) * math.Log2(float64(c))
		}
	}
	n := float64(h.n)
	return max(0, math.Log2(n)-sum/n), symbols
}

func (h *histogram) merge(o *histogram) {
	h.n += o.n
	for t := range h.c {
		for b, n := range o.c[t] {
			h.c[t][b] += n
		}
	}
}
