package payload

// minList is how many bytes a list of numbers has before it is judged.
const minList = 128

// inList are the characters of lists of bytes: [12, 240, 7], a3:f0:9c, a3 f0
// 9c, \xa3\xf0 and 0xa3, 0xf0.
var inList = func() (t [256]bool) {
	for _, c := range "0123456789abcdefABCDEFxX\\, :;-\t\r\n" {
		t[c] = true
	}
	return t
}()

// byteLists looks for data that is written as a list of bytes.
func (x *examiner) byteLists(data []byte) {
	const least = 2 * minList
	for at := least - 1; at < len(data); {
		if !inList[data[at]] {
			at += least
			continue
		}
		start := at
		for start > 0 && inList[data[start-1]] && at-start < least {
			start--
		}
		end := at + 1
		for end < len(data) && inList[data[end]] {
			end++
		}
		at = end + least
		if end-start >= least {
			x.byteList(data[start:end])
			x.here.note(data, start, end)
		}
	}
}

func (x *examiner) byteList(list []byte) {
	values := readBytes(list)
	if len(values) < minList || isTable(values) {
		return
	}
	if n := x.inside(values); n < minList || x.above.has(list) {
		return
	}
	x.found.medium += len(list)
	x.longest(len(list), Binary, values)
}

// isTable reports values that mostly follow one another, as in 0, 1, 2, 3, and
// short lists that hold each value once, as the tables of ciphers do.
func isTable(values []byte) bool {
	var times [256]int
	near, pairs := 0, 0
	for i, v := range values {
		pairs += times[v]
		times[v]++
		if i > 0 && -2 <= int(v)-int(values[i-1]) && int(v)-int(values[i-1]) <= 2 {
			near++
		}
	}
	n := len(values)
	return near*3 > n || n <= 2*256 && pairs < n*(n-1)/2/256/2
}

// readBytes reads numbers that stand by themselves: as hex when they have two
// digits, as decimal when they are less than 256. Nothing comes back when more
// than a few are neither, so that timestamps and ids of tokens are no lists.
func readBytes(list []byte) []byte {
	var hexa, dec []byte
	total := 0
	for i := 0; i < len(list); {
		if c := list[i]; classOf[c]&(isDigit|isEdge|isHexLower|isHexUpper) == 0 || i+1 < len(list) && list[i+1] == 'x' {
			i++
			continue
		}
		j, h, d, decimal := i, 0, 0, true
		for j < len(list) && classOf[list[j]]&(isDigit|isEdge|isHexLower|isHexUpper) != 0 {
			v := unhex(list[j])
			decimal = decimal && v < 10 && j-i < 3
			h, d = (h*16+v)&0xff, min(d*10+v, 256)
			j++
		}
		if j-i == 2 {
			hexa = append(hexa, byte(h))
		}
		if decimal && d < 256 {
			dec = append(dec, byte(d))
		}
		total++
		i = j
	}
	most := total - 4 - total/50
	switch {
	case len(dec) >= most && !(len(hexa) >= most && allBelow(dec, 100)):
		return dec
	case len(hexa) >= most:
		return hexa
	}
	return nil
}

func allBelow(values []byte, limit byte) bool {
	for _, v := range values {
		if v >= limit {
			return false
		}
	}
	return true
}

func unhex(c byte) int {
	switch {
	case c <= '9':
		return int(c - '0')
	case c <= 'F':
		return int(c-'A') + 10
	default:
		return int(c-'a') + 10
	}
}
