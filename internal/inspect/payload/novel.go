package payload

// What repeats, counts or follows a period is not random, however evenly it
// uses its symbols: 0123456789 over and over has every digit as often as random
// digits have it. So a symbol that what stands before it foretells carries
// nothing, and the rest is judged by itself, so that a pattern around or
// between random symbols hides none of them.
const (
	maxLag   = 128 // symbols back that are looked at: a line of encoded data and its end
	minSame  = 12  // symbols of a block that must be foretold
	maxNovel = 64 << 10
)

// novel returns the symbols that nothing foretells. Enough of them in one piece
// of content are random whatever follows, and then all of data comes back.
func (x *examiner) novel(data []byte) []byte {
	for range 3 { // the rest of a table of counters repeats, too
		if x.root.novel >= maxNovel {
			return data
		}
		rest := x.once(data)
		if len(rest) == len(data) {
			break
		}
		data = rest
	}
	return data
}

func (x *examiner) once(data []byte) []byte {
	rest := make([]byte, 0, min(len(data), maxNovel))
	p := pattern{lag: 1}
	for at := 0; at < len(data); at += blockSize {
		if x.root.novel >= maxNovel {
			return append(rest, data[at:]...)
		}
		end := min(at+blockSize, len(data))
		before := len(rest)
		p = p.of(data, at, end)
		for i := at; i < end; i++ {
			if p.lag == 0 || !p.foretells(data, i) {
				rest = append(rest, data[i])
			}
		}
		if p.lag == 0 {
			x.root.novel += len(rest) - before
		}
	}
	return rest
}

// pattern says that a symbol is the one so far before it and a difference; a
// lag of 0 is none.
type pattern struct {
	lag  int
	more byte
}

func (p pattern) foretells(data []byte, i int) bool {
	return i >= p.lag && data[i] == data[i-p.lag]+p.more
}

func (p pattern) count(data []byte, at, end int) int {
	n := 0
	for i := max(at, p.lag); i < end; i++ {
		if data[i] == data[i-p.lag]+p.more {
			n++
		}
	}
	return n
}

// of returns the pattern that foretells most of a block, and more of it than
// chance does: two fifths. The one of the block before is tried first.
func (p pattern) of(data []byte, at, end int) pattern {
	if p.lag > 0 && p.count(data, at, end)*8 >= (end-at)*7 {
		return p
	}
	best, most := pattern{}, max(minSame, (end-at)*2/5)
	try := func(q pattern) {
		if n := q.count(data, at, end); n > most {
			best, most = q, n
		}
	}
	for lag := 1; lag <= min(maxLag, end-minSame); lag++ {
		try(pattern{lag: lag})
	}
	try(pattern{1, step(data[at:end])})
	return best
}

// step returns the most frequent difference between neighbours.
func step(block []byte) (most byte) {
	var times [256]uint8
	for i := 1; i < len(block); i++ {
		d := block[i] - block[i-1]
		if times[d]++; times[d] > times[most] {
			most = d
		}
	}
	return most
}
