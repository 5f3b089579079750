package scan

import (
	"regexp/syntax"
)

const (
	// longRun is the count from which on a run of a class is remembered.
	longRun = 24
	// maxRuns is how many classes can have a run that is remembered.
	maxRuns = 12
)

// matcher tries shapes on one text. It is for one goroutine.
type matcher struct {
	data        []byte
	work, limit int
	value       span
	gates       []bool // by slow rule, whether its gate was seen
	runs        [maxRuns]run
}

type span struct{ start, end int }

// run is what is known of a class: all bytes from start to end belong to it.
// Where it is open, the byte at end has not been looked at.
type run struct {
	start, end int
	open       bool
}

// match tries a shape at a place and returns where the match ends. It sets
// value to the first group, or to all of the match.
func (m *matcher) match(sh *shape, start int) (end int, ok bool) {
	m.value = span{-1, -1}
	end = m.items(sh.items, start)
	if end < 0 {
		return 0, false
	}
	if m.value.start < 0 {
		m.value = span{start, end}
	}
	return end, true
}

// items matches a sequence and returns its end, or -1.
func (m *matcher) items(items []item, at int) int {
	for i := range items {
		it := &items[i]
		switch {
		case it.literal != "":
			if len(m.data)-at < len(it.literal) || string(m.data[at:at+len(it.literal)]) != it.literal {
				return -1
			}
			at += len(it.literal)
		case it.class != nil:
			n := m.count(it.class, at, it.max)
			if n < it.min {
				return -1
			}
			if !it.alone {
				return m.choose(it, n, items[i+1:], at)
			}
			if it.lazy && i == len(items)-1 {
				n = it.min
			}
			at += n
		case it.mark == markStart:
			m.value.start = at
		case it.mark == markEnd:
			m.value.end = at
		case !holds(it.assert, m.data, at):
			return -1
		}
	}
	return at
}

// choose tries the counts of an item, the one that RE2 prefers first, until
// what follows fits.
func (m *matcher) choose(it *item, n int, rest []item, at int) int {
	m.work += n - it.min + 1
	first, step := n, -1
	if it.lazy {
		first, step = it.min, 1
	}
	lead := ""
	if len(rest) > 0 {
		lead = rest[0].literal
	}
	for count := first; it.min <= count && count <= n && m.work <= m.limit; count += step {
		if lead != "" && (at+count == len(m.data) || m.data[at+count] != lead[0]) {
			continue
		}
		if end := m.items(rest, at+count); end >= 0 {
			return end
		}
	}
	return -1
}

// count returns how many bytes from a place on belong to a class, max at most.
func (m *matcher) count(c *class, at, most int) int {
	limit := len(m.data)
	if most < limit-at {
		limit = at + most
	}
	if c.run < 0 {
		end := at
		for end < limit && c.has[m.data[end]] {
			end++
		}
		m.work += end - at
		return end - at
	}
	r := &m.runs[c.run]
	if at < r.start || at >= r.end {
		*r = run{start: at, end: at, open: true}
	}
	if r.open && r.end < limit {
		end := r.end
		for end < limit && c.has[m.data[end]] {
			end++
		}
		m.work += end - r.end
		r.end, r.open = end, end == limit
	}
	return min(r.end, limit) - at
}

// holds reports whether assertions are true between two bytes.
func holds(op syntax.EmptyOp, data []byte, at int) bool {
	before, after := rune(-1), rune(-1)
	if at > 0 {
		before = rune(data[at-1])
	}
	if at < len(data) {
		after = rune(data[at])
	}
	return syntax.EmptyOpContext(before, after)&op == op
}
