package payload

import "unicode/utf8"

// The bounds of looking into data.
const (
	maxDepth    = 4        // containers in one another
	maxUnpacked = 64 << 20 // bytes, for one piece of content
	minOpaque   = 8        // bytes; fewer cannot be judged
	minPairs    = 64       // bytes; fewer have too few equal pairs
	chunk       = 1 << 10
)

// root is what all looks into one piece of content share.
type root struct {
	bytes int64 // that may still be unpacked

	searched int             // symbols for which a pattern was looked for
	patterns [passes]pattern // the last ones
	spent    spent
}

// spent is what was taken from what structures may carry of random data, which
// is the same in all layers of a text.
type spent struct {
	slots    int // characters in places of credentials
	jar      int // those in cookies whose names say nothing
	reasoned int // characters of models' encrypted reasoning
	keys     int // bytes of certificates, public keys and signatures
}

func (s *spent) atLeast(o spent) {
	s.slots, s.jar = max(s.slots, o.slots), max(s.jar, o.jar)
	s.reasoned, s.keys = max(s.reasoned, o.reasoned), max(s.keys, o.keys)
}

// same reports that a look took nothing of what all share, and could have.
func (r *root) same(before *root) bool {
	return r.bytes == maxUnpacked && r.spent == before.spent && r.searched == before.searched
}

// examiner looks into data and everything that it can open in it.
type examiner struct {
	root      *root
	depth     int
	name      string // of the text, unless something nearer has one
	head      bool   // it is a part of one
	cookie    bool
	reasoning bool   // in the body of a request to a model's API
	upload    bool   // in the query of an upload to a registry of containers
	here      *above // what is judged in this layer, nil in what is inside of it
	above     *above // in the one that it was decoded from, where that was measured
	boundary  []byte // of the parts of the layer
	found     found
}

// sub returns an examiner for what is inside, nil when it is too deep.
func (x *examiner) sub() *examiner {
	if x.depth >= maxDepth {
		return nil
	}
	return &examiner{root: x.root, depth: x.depth + 1, name: x.name, cookie: x.cookie, reasoning: x.reasoning}
}

// examine looks into data of any kind.
func (x *examiner) examine(data []byte) {
	if text, ascii := textOf(data); text {
		x.found.IsText, x.found.ascii = true, ascii
		x.text(data)
		if !ascii {
			x.symbols(data)
		}
		return
	}
	if f := formatOf(data); f != nil {
		end, ok := f.parse(x, data)
		if ok && end <= len(data) {
			x.found.Type, x.found.whole = f.typ, end == len(data)
			if f.media {
				x.found.Media = append(x.found.Media, Media{Type: f.typ, Size: end})
			}
			x.foreign(data[end:])
			return
		}
	}
	if publicKey(data) && x.root.spent.keys+len(data) <= maxKeys {
		x.root.spent.keys += len(data)
		return
	}
	x.unknown(data)
}

// content looks into what was found in a container. What cannot be opened any
// more is opaque.
func (x *examiner) content(data []byte) {
	sub := x.sub()
	if sub == nil {
		x.opaque(data)
		return
	}
	sub.examine(data)
	x.merge(&sub.found)
}

func (x *examiner) merge(f *found) {
	x.found.Opaque += f.Opaque
	x.found.Foreign += f.Foreign
	if f.entropy != nil {
		x.histogram().merge(f.entropy)
	}
	x.found.Media = append(x.found.Media, f.Media...)
	x.found.medium += f.medium
	x.found.short += f.short
	x.found.hashes += f.hashes
	x.found.uuids += f.uuids
	x.found.stamped += f.stamped
	x.found.foretold += f.foretold
	x.found.text += f.text
	if f.Run.Len > x.found.Run.Len {
		x.found.Run = f.Run
	}
}

// foreign judges what stands in a known structure and is no part of it.
func (x *examiner) foreign(data []byte) {
	before := x.found.Opaque
	x.unknown(data)
	x.found.Foreign += x.found.Opaque - before
}

func (x *examiner) opaque(data []byte) {
	x.found.Opaque += len(data)
	x.histogram().add(data)
}

func (x *examiner) histogram() *histogram {
	if x.found.entropy == nil {
		x.found.entropy = new(histogram)
	}
	return x.found.entropy
}

// unknown judges data of no known type, block by block: what is random in it
// counts, whatever surrounds it.
func (x *examiner) unknown(data []byte) {
	if len(data) < minOpaque {
		return
	}
	x.text(data)
	if utf8.Valid(data) {
		x.symbols(data)
	}
	before := 0
	for block := range blocks(data, chunk) {
		if n := min(len(block), len(data)-before); n > 0 && randomBytes(block) && !x.above.hasBlock(block) {
			rest := x.novel(block)
			x.found.foretold += len(block) - len(rest)
			if len(rest) == len(block) || len(rest) >= minOpaque && randomBytes(rest) {
				x.opaque(rest[max(0, len(rest)-n):])
			}
		}
		before += len(block)
	}
}

// randomBytes reports whether a block of bytes may have been drawn at random.
func randomBytes(block []byte) bool {
	var count [256]uint32
	var pairs uint32
	for _, b := range block {
		pairs += count[b]
		count[b]++
	}
	if len(block) >= minPairs && !random(int(pairs), len(block), Binary.size, sigmas) {
		return false
	}
	if len(block) >= chunk {
		return true
	}
	// A few bytes hardly ever repeat. Text has no bytes that are not text.
	strange := 0
	for b, n := range count {
		if b < ' ' || b >= 0x7f {
			strange += int(n)
		}
	}
	return strange*4 >= len(block)
}
