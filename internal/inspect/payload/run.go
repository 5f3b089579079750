package payload

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"math/bits"
	"strings"
)

const (
	minRun     = 20  // shorter runs are words and short ids
	mediumRun  = 32  // identifiers of APIs are shorter
	minNested  = 128 // in what was decoded from a run
	minLine    = 40  // lines of encoded data are at least so long
	minVisible = 64  // of base85, whose alphabet is that of code
)

// text looks for runs of encoded random data in text.
func (x *examiner) text(data []byte) {
	x.found.text += len(data)
	for at := 0; at < len(data); {
		start, end := nextRun(data, at, inBase64, minRun)
		if start < 0 {
			break
		}
		at = x.run(data, start, end)
	}
	x.visibleRuns(data)
	x.byteLists(data)
}

// nextRun finds the next run of at least least characters of a class. It looks
// at every leastth character only, while that is none of the class.
func nextRun(data []byte, at int, class uint8, least int) (start, end int) {
	for i := at + least - 1; i < len(data); {
		if classOf[data[i]]&class == 0 {
			i += least
			continue
		}
		start = i
		for start > at && classOf[data[start-1]]&class != 0 {
			start--
		}
		end = i + 1
		for end < len(data) && end-start < least && classOf[data[end]]&class != 0 {
			end++
		}
		if end-start < least {
			at = end + 1
			i = end + least
			continue
		}
		for end < len(data) && classOf[data[end]]&class != 0 {
			end++
		}
		return start, end
	}
	return -1, -1
}

// run judges one run, and returns where to go on.
func (x *examiner) run(data []byte, start, end int) int {
	if start > 0 && data[start-1] == '\\' && bytes.IndexByte([]byte("nrtbf/"), data[start]) >= 0 {
		start++ // of an escape of JSON
	}
	if bytes.HasPrefix(data[start:], []byte("eyJ")) {
		if n := webToken(data[start:]); n > 0 {
			x.webToken(data[start : start+n])
			return start + n
		}
	}
	end += padding(data[end:])
	run, end := joinLines(data, start, end)
	if !mayBeRandom(run) {
		return end
	}
	switch {
	case x.above.has(run), x.above.has(data[start:end]), x.isBoundary(run):
		x.here.note(data, start, start+unpadded(data[start:end]))
		return end
	case isNamedHash(data[:start], run):
		x.found.hashes += len(run)
		return end
	}
	parts := x.withoutIDs(run)
	if len(parts) == 0 {
		return end
	}
	x.here.note(data, start, start+unpadded(data[start:end]))
	key := keyBefore(data, start)
	if key == "" {
		key = x.name
	}
	for _, part := range parts {
		x.part(data, part, key)
	}
	return end
}

// unpadded returns how long the first line of a run is.
func unpadded(run []byte) int {
	n := 0
	for n < len(run) && classOf[run[n]]&inBase64 != 0 {
		n++
	}
	return n
}

func padding(data []byte) int {
	n := 0
	for n < len(data) && n < 6 && data[n] == '=' {
		n++
	}
	return n
}

// joinLines takes the lines that follow one of encoded data into the run:
// what is wrapped is one thing. In JSON text a line break is two characters.
func joinLines(data []byte, start, end int) (run []byte, at int) {
	run, line := data[start:end], end-start
	joined := false
	if line < minLine || lineBreak(data[end:]) == 0 || isID(run) {
		return run, end
	}
	for line >= minLine {
		gap := lineBreak(data[end:])
		next := end + gap
		stop := next
		for stop < len(data) && classOf[data[stop]]&inBase64 != 0 {
			stop++
		}
		stop += padding(data[stop:])
		if gap == 0 || stop == next || stop-next > line+4 || !endsLine(data[stop:]) || bytes.HasPrefix(data[next:], []byte("-----")) {
			break
		}
		if !joined {
			run, joined = bytes.Clone(run), true
		}
		run = append(run, data[next:stop]...)
		line, end = stop-next, stop
	}
	return run, end
}

var lineBreaks = [][]byte{[]byte("\n"), []byte("\r\n"), []byte(`\n`), []byte(`\r\n`)}

func lineBreak(data []byte) int {
	for _, b := range lineBreaks {
		if bytes.HasPrefix(data, b) {
			return len(b)
		}
	}
	return 0
}

// endsLine reports whether a line, or the text it is in, ends here.
func endsLine(rest []byte) bool {
	return len(rest) == 0 || lineBreak(rest) > 0 || bytes.IndexByte([]byte("\"'`<)\\"), rest[0]) >= 0
}

// mayBeRandom reports whether any block of a run looks random.
func mayBeRandom(run []byte) bool {
	for block := range blocks(run, blockSize) {
		if randomText(block) != nil {
			return true
		}
	}
	return false
}

// part judges a part of a run that is no id.
func (x *examiner) part(data, part []byte, key string) {
	n, a := randomExtent(part)
	if n < minRun || x.isSlot(data, part, key) {
		return
	}
	unexplained := x.decode(part, a)
	if n = min(n, unexplained); n < minRun {
		return
	}
	symbols := bytes.TrimRight(part, "=")
	if rest := x.novel(symbols); len(rest) < len(symbols) {
		symbols = rest
		if n, a = randomExtent(rest); n < minRun {
			return
		}
		n = min(n, unexplained)
	}
	if n >= mediumRun {
		x.found.medium += n
	} else {
		x.found.short += n
	}
	x.longest(n, a, symbols)
}

// randomExtent counts the characters of a part that stand in random blocks,
// and names the alphabet of the first one.
func randomExtent(part []byte) (n int, a *Alphabet) {
	part = bytes.TrimRight(part, "=")
	for block := range blocks(part, blockSize) {
		b := randomText(block)
		if b == nil {
			continue
		}
		n += min(len(block), len(part)-n)
		if a == nil {
			a = b
		}
	}
	return n, a
}

// blocks cuts data into blocks of a size. The last one overlaps the one before
// it, so that it is not too short to be judged.
func blocks(data []byte, size int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		if len(data) <= size {
			yield(data)
			return
		}
		for ; len(data) >= 2*size; data = data[size:] {
			if !yield(data[:size]) {
				return
			}
		}
		if yield(data[:size]) && len(data) > size {
			yield(data[len(data)-size:])
		}
	}
}

// decode looks into what a part decodes to, and returns how many of its
// characters nothing explains. Only the alphabet that the part is in counts:
// as base64, hex decodes to something that is not random.
func (x *examiner) decode(part []byte, a *Alphabet) int {
	var data []byte
	var err error
	trimmed := bytes.TrimRight(part, "=")
	switch a {
	case Hex:
		data, err = hex.AppendDecode(nil, trimmed[:len(trimmed)&^1])
	case Base32:
		data, err = base32.StdEncoding.WithPadding(base32.NoPadding).AppendDecode(nil, bytes.ToUpper(trimmed))
	case Base64, letters:
		data, err = fromBase64(trimmed)
	default:
		return len(part)
	}
	if err != nil || len(data) == 0 {
		return len(part)
	}
	return (x.inside(data)*len(part) + len(data) - 1) / len(data)
}

// inside returns how many bytes of decoded data nothing explains.
func (x *examiner) inside(data []byte) int {
	sub := x.sub()
	if sub == nil {
		return len(data)
	}
	sub.examine(data)
	f := &sub.found
	x.found.Media = append(x.found.Media, f.Media...)
	x.found.hashes += f.hashes
	x.found.uuids += f.uuids
	x.found.stamped += f.stamped
	n := f.Opaque
	if pieces := f.short + f.medium; f.Run.Len >= minNested || f.scattered() > 0 || pieces*2 >= len(data) {
		n += pieces
	}
	return min(len(data), n)
}

// fromBase64 decodes either alphabet, with and without padding.
func fromBase64(s []byte) ([]byte, error) {
	s = bytes.TrimRight(s, "=")
	if len(s)%4 == 1 {
		s = s[:len(s)-1]
	}
	if bytes.ContainsAny(s, "-_") {
		return base64.RawURLEncoding.AppendDecode(nil, s)
	}
	return base64.RawStdEncoding.AppendDecode(nil, s)
}

func isAll(s []byte, class uint8) bool {
	for _, c := range s {
		if classOf[c]&class == 0 {
			return false
		}
	}
	return true
}

// visibleRuns looks for base85: it has no alphabet of its own, but no code and
// no markup uses all of ASCII evenly.
func (x *examiner) visibleRuns(data []byte) {
	for at := 0; at < len(data); {
		start, end := nextRun(data, at, isVisible, minVisible)
		if start < 0 {
			return
		}
		at = end
		n := unquoted(data[start:end])
		if n > 0 {
			n = min(n, unquoted(x.novel(data[start:end])))
			x.here.note(data, start, end)
		}
		if n > 0 && !x.above.has(data[start:end]) && !x.isSlot(data, data[start:end], keyBefore(data, start)) {
			x.found.medium += n
			x.longest(n, Base85, data[start:end])
		}
	}
}

// evenExtent counts the characters of blocks that look like base85.
func evenExtent(run []byte) int {
	n := 0
	for block := range blocks(run, 2*blockSize) {
		if evenASCII(block) {
			n += len(block)
		}
	}
	return min(n, len(run))
}

// longest remembers a run of n characters if it is the longest.
func (x *examiner) longest(n int, a *Alphabet, symbols []byte) {
	if n <= x.found.Run.Len {
		return
	}
	var h histogram
	h.add(symbols)
	x.found.Run = Run{Len: n, Alphabet: a, Entropy: h.corrected(a)}
}

// beside is the punctuation of JSON and of code that stands next to the quotes
// of their strings.
var beside = func() (t [256]bool) {
	for _, c := range []byte(":,{}[]()=") {
		t[c] = true
	}
	return t
}()

// endsString reports a quote that begins or ends a string.
func endsString(run []byte, i int) bool {
	return run[i] == '"' && (i > 0 && beside[run[i-1]] || i+1 < len(run) && beside[run[i+1]])
}

// unquoted counts the characters of a run that look like base85, apart in each
// of the strings that are in it. It looks from the end of the shortest piece
// that is judged backwards, as nextRun does.
func unquoted(run []byte) int {
	n := 0
next:
	for at := 0; at+minVisible <= len(run); {
		for i := at + minVisible - 1; i >= at; i-- {
			if endsString(run, i) {
				at = i + 1
				continue next
			}
		}
		end := at + minVisible
		for end < len(run) && !endsString(run, end) {
			end++
		}
		n += evenExtent(run[at:end])
		at = end
	}
	return n
}

// evenASCII reports whether a block looks random and has the punctuation of
// base85: a quarter of it, of many kinds and everywhere. Markup has much of a
// few kinds, and code has words.
func evenASCII(block []byte) bool {
	var kinds [2]uint64
	least, all := len(block), 0
	for quarter := range blocks(block, max(1, len(block)/4)) {
		signs := 0
		for _, c := range quarter {
			if classOf[c]&(inBase64&^isSign) == 0 {
				signs++
				kinds[c>>6&1] |= 1 << (c & 63)
			}
		}
		least, all = min(least, signs), all+signs
		if least*40 <= len(block)-40 {
			return false
		}
	}
	if all*6 <= len(block) || bits.OnesCount64(kinds[0])+bits.OnesCount64(kinds[1]) < 11 {
		return false
	}
	var times [256]uint8
	pairs, most := 0, uint8(0)
	for _, c := range block {
		pairs += int(times[c])
		times[c]++
		if classOf[c]&(inBase64&^isSign) == 0 {
			most = max(most, times[c])
		}
	}
	for part := range blocks(block, blockSize) {
		if c := count(part); c.areWords() {
			return false
		}
	}
	return int(most)*5 < all && random(pairs, len(block), Base85.size, sigmas)
}

// keyBefore returns the name that stands before a value: the key of JSON text,
// also inside of a JSON string, and name=value of a form, a URL or a cookie.
func keyBefore(data []byte, at int) string {
	const most = 64
	before := data[max(0, at-maxSlot):at]
	before = before[bytes.LastIndexAny(before, "\"'=&?;, \t\r\n<>{}[]()")+1:]
	before = data[max(0, at-maxSlot-most) : at-len(before)]
	for _, scheme := range []string{"Bearer ", "bearer ", "Basic ", "token ", "Token "} {
		before = bytes.TrimSuffix(before, []byte(scheme))
	}
	before = bytes.TrimRight(before, `\"' `)
	if len(before) == 0 || before[len(before)-1] != ':' && before[len(before)-1] != '=' {
		return ""
	}
	before = bytes.TrimRight(before[:len(before)-1], `\"' `)
	name := before[bytes.LastIndexAny(before, "\"'&?;,{ \t\r\n/\\")+1:]
	if len(name) > most {
		return ""
	}
	return strings.ToLower(string(name))
}
