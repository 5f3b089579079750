package payload

// What repeats, counts or follows a period is not random, however evenly it
// uses its symbols: 0123456789 over and over has every digit as often as random
// digits have it. So a symbol that what stands before it foretells carries
// nothing, and the rest is judged by itself, so that a pattern around or
// between random symbols hides none of them.
const (
	maxLag   = 128      // symbols back that are looked at: a line of encoded data and its end
	minSame  = 12       // symbols of a block that must be foretold
	maxNovel = 64 << 10 // symbols for which a pattern is looked for
	passes   = 3        // the rest of a table of counters repeats, too
)

// novel returns the symbols that nothing foretells. A pattern is looked for only
// so often in one piece of content: where that was not enough, what follows counts
// as random.
func (x *examiner) novel(data []byte) []byte {
	for pass := range passes {
		rest := x.root.patterns[pass].without(data, &x.root.searched)
		if len(rest) == len(data) {
			break
		}
		data = rest
	}
	return data
}

// without returns data without what the pattern, or one that is found meanwhile,
// foretells.
func (p *pattern) without(data []byte, searched *int) []byte {
	rest := make([]byte, 0, min(len(data), maxNovel))
	for at := 0; at < len(data); at += blockSize {
		end := min(at+blockSize, len(data))
		if !p.holds(data, at, end) {
			if *searched >= maxNovel {
				return append(rest, data[at:]...)
			}
			*searched += end - at
			*p = find(data, at, end)
		}
		for i := at; i < end; i++ {
			if !p.foretells(data, i) {
				rest = append(rest, data[i])
			}
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
	return p.lag > 0 && i >= p.lag && data[i] == data[i-p.lag]+p.more
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

// holds reports whether the pattern still foretells half of a block.
func (p pattern) holds(data []byte, at, end int) bool {
	return p.lag > 0 && p.count(data, at, end) >= max(minSame, (end-at)/2)
}

// find returns the pattern that foretells most of a block, and more of it than
// chance does: two fifths.
func find(data []byte, at, end int) pattern {
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
