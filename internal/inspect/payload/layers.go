package payload

import (
	"bytes"
	"mime"
	"strings"

	"github.com/agentcage/agentcage/internal/decode"
	"github.com/agentcage/agentcage/internal/inspect"
)

// plan says how each layer of a tree is measured.
//
// Decoding looks for everything that somebody might read, and keeps what it
// finds in part, too. So that something was decoded explains nothing: only the
// content codings that the sender declares stand for the bytes they were
// decoded from, and the parts of multipart, which are slices of them. Archives
// and base64 are opened once more here, where they have to be whole.
type plan struct {
	skip  []bool
	above []bool // others were decoded from it
	parts map[int][]decode.Layer
}

// codings returns how many content codings a text was decoded from.
func codings(c *inspect.Content, p inspect.Place) int {
	n := 0
	if p != inspect.PlaceBody {
		return n
	}
	for _, value := range c.Encoding {
		for coding := range strings.SplitSeq(value, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				n++
			}
		}
	}
	return n
}

func planOf(tree *decode.Tree, codings int, head bool) plan {
	p := plan{skip: make([]bool, len(tree.Layers)), above: make([]bool, len(tree.Layers))}
	for i := range tree.Layers {
		l := &tree.Layers[i]
		if i == 0 {
			continue
		}
		p.skip[i] = p.skip[l.Parent] && !(i <= codings && l.Kind == decode.Coding)
		switch l.Kind {
		case decode.Coding:
			if i > codings || l.Parent != i-1 {
				p.skip[i] = true
			} else {
				p.skip[l.Parent] = true
			}
		case decode.Member, decode.Folded:
			p.skip[i] = true
		case decode.QuotedPrintable:
			p.skip[i] = p.skip[i] || head // for which = begins a value
		case decode.Base64, decode.Base32, decode.Hex:
			// Any text is a base64 of something.
			p.skip[i] = p.skip[i] || !isText(l.Data)
		case decode.Part:
			if p.parts == nil {
				p.parts = make(map[int][]decode.Layer)
			}
			p.parts[l.Parent] = append(p.parts[l.Parent], *l)
		default:
			if head && l.Parent == 0 && isWholeOf(l, tree.Layers[0].Data) {
				p.skip[0] = true // a part of the head is what the server reads
			}
		}
		p.above[l.Parent] = p.above[l.Parent] || !p.skip[i]
	}
	return p
}

// isWholeOf reports a layer that is all of its parent without its escapes:
// decoding keeps a KiB around each of them.
func isWholeOf(l *decode.Layer, parent []byte) bool {
	switch l.Kind {
	case decode.Percent, decode.Form, decode.Escapes:
		return l.Start == 0 && l.End == len(parent) && len(parent) <= 2<<10
	}
	return false
}

// layers measures the layers of a text. In all of them the same credentials
// stand, which count once.
func (x *examiner) layers(tree *decode.Tree, codings int) []Measure {
	var out []Measure
	p := planOf(tree, codings, x.head)
	proven, judged := make([]bool, len(tree.Layers)), make([]above, len(tree.Layers))
	before, most := x.root.spent, x.root.spent
	for i := range tree.Layers {
		l := &tree.Layers[i]
		if p.skip[i] || i > 0 && (len(l.Data) < minRun || proven[l.Parent] && l.Kind != decode.Part) {
			proven[i] = i > 0 && proven[l.Parent]
			continue
		}
		one := *x
		one.root.spent = before
		if i > 0 && l.Kind != decode.Coding && l.Kind != decode.Part && !p.skip[l.Parent] {
			up := judged[l.Parent]
			up.at = min(l.Start, len(up.data))
			one.above = &up
		}
		if l.Kind == decode.Form && l.Name != "" {
			one.name = l.Name
		}
		judged[i].data = l.Data
		if p.above[i] {
			one.here = &judged[i]
		}
		if len(p.parts[i]) > 0 {
			judged[i].noteAll() // most of it is in its parts
			one.here = nil
		}
		m := one.layer(l, p.parts[i])
		proven[i] = m.whole // whatever else somebody may read in a picture
		out = append(out, m)
		most.atLeast(x.root.spent)
	}
	x.root.spent = most
	return out
}

// layer measures one layer without its parts, which are layers of their own.
func (x *examiner) layer(l *decode.Layer, parts []decode.Layer) Measure {
	m := Measure{Kind: l.Kind, Type: l.Type, data: l.Data}
	if len(parts) > 0 {
		m.data = without(l.Data, parts)
		if _, params, err := mime.ParseMediaType(l.Type); err == nil {
			x.boundary = []byte(params["boundary"])
		}
	}
	x.examine(m.data)
	if l.Kind == decode.QuotedPrintable && x.found.Run.Len < minNested {
		x.found.medium, x.found.short = 0, 0 // every line that ends in = goes on for it
	}
	if x.found.Run.Len == 0 && x.found.scattered() > 0 {
		x.found.Run = Run{Len: 1, Alphabet: Hex, Entropy: Hex.Bits} // ids that are too many have no run
	}
	m.Size, m.found = len(m.data), x.found
	if m.entropy != nil {
		m.Bits = m.entropy.corrected(Binary)
	}
	return m
}

// IsWhole reports a layer that is all of something that was sent: not what
// decoding found in a corner of it.
func (m *Measure) IsWhole() bool {
	return m.Kind == decode.Raw || m.Kind == decode.Coding || m.Kind == decode.Part
}

// without returns the bytes of a layer that are in none of its parts.
func without(data []byte, parts []decode.Layer) []byte {
	var rest []byte
	at := 0
	for _, c := range parts {
		if c.Start < at || c.End > len(data) || c.Start > c.End {
			return data // they are none of its parts
		}
		rest = append(rest, data[at:c.Start]...)
		at = c.End
	}
	return append(rest, data[at:]...)
}

// above is the layer that another was decoded from, and the runs that were
// judged there. What was decoded repeats much of it, and may lack a beginning
// or an end: decoding keeps only what is near an escape.
type above struct {
	data   []byte
	begins map[string]int // where a run with such a beginning begins
	ends   map[string]int
	at     int // up to where blocks of bytes were found
	misses int // blocks that were not
}

// note remembers a run of a layer; of nil, nobody is to know.
func (u *above) note(data []byte, start, end int) {
	if u == nil || end-start < minRun {
		return
	}
	if u.begins == nil {
		u.begins, u.ends = make(map[string]int), make(map[string]int)
	}
	u.begins[string(data[start:start+minRun])] = start
	u.ends[string(data[end-minRun:end])] = end
}

// noteAll remembers the runs of a layer that is not judged as one.
func (u *above) noteAll() {
	for at := 0; at < len(u.data); {
		start, end := nextRun(u.data, at, inBase64, minRun)
		if start < 0 {
			return
		}
		if mayBeRandom(u.data[start:end]) {
			u.note(u.data, start, end)
		}
		at = end
	}
}

// has reports whether a run is one that was judged, or its beginning or end.
func (u *above) has(run []byte) bool {
	run = bytes.TrimRight(run, "=")
	if u == nil || len(run) < minRun {
		return false
	}
	if start, ok := u.begins[string(run[:minRun])]; ok && bytes.HasPrefix(u.data[start:], run) {
		return true
	}
	end, ok := u.ends[string(run[len(run)-minRun:])]
	return ok && bytes.HasSuffix(u.data[:end], run)
}

// hasBlock is has for a block of bytes, in which escapes may have been undone:
// it is one that was judged if its beginning or its end stands there. Blocks
// come in order. After a few that are not there, none is looked for.
func (u *above) hasBlock(block []byte) bool {
	const enough, most = 48, 32
	if u == nil || len(block) < enough || u.misses >= most {
		return false
	}
	for _, part := range [][]byte{block[:enough], block[len(block)-enough:]} {
		if i := bytes.Index(u.data[u.at:], part); i >= 0 {
			u.at += i
			return true
		}
	}
	u.misses++
	return false
}

// isBoundary reports the boundary between the parts of the layer. It is
// counted once, in the header.
func (x *examiner) isBoundary(run []byte) bool {
	return len(x.boundary) > 0 && bytes.Equal(bytes.Trim(run, "-"), bytes.Trim(x.boundary, "-"))
}
