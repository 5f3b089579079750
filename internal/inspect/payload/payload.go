// Package payload measures what a piece of content carries: how much of it
// looks random and is explained by nothing.
//
// Random data is judged against what its alphabet can hold: hex has 4 bits a
// character however random it is. Data that looks random is explained by what
// it decodes to (a base64 of text, an image whose structure is complete), by a
// well-known shape (a UUID, a hash), or by standing where a credential
// belongs; the last two up to a bound. See docs/adr/0014.
//
// The package says what is there; what may pass is for the inspectors.
package payload

import (
	"bytes"
	"context"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/agentcage/agentcage/internal/decode"
	"github.com/agentcage/agentcage/internal/inspect"
)

// Run is encoded random data in text.
type Run struct {
	Len      int // characters; 0 is none
	Alphabet *Alphabet
	Entropy  float64 // bits a character
}

// Media is data of a proven type that cannot be looked into further: an
// image, a sound, a font.
type Media struct {
	Type string
	Size int // bytes
}

// found is what a look at some data gave.
type found struct {
	Run     Run     // the longest
	Opaque  int     // bytes, outside of text, that look random
	Bits    float64 // of those, a byte
	Media   []Media
	Type    string // proven by magic bytes and structure, of the whole; may be empty
	IsText  bool
	ascii   bool // and nothing in it is more than ASCII
	medium  int  // characters in all runs from mediumRun on
	short   int  // in the others
	hashes  int  // in hashes
	uuids   int
	seen    int        // bytes that were looked at
	entropy *histogram // of the opaque bytes
}

// Measure is one layer of a text.
type Measure struct {
	Kind decode.Kind
	Type string // declared
	Size int    // bytes of the layer, less what its parts were decoded from
	data []byte
	found
}

// Entropy returns Shannon's entropy of the layer in bits a byte.
func (m *Measure) Entropy() float64 { return Entropy(m.data) }

// Proven returns the type of the layer as its bytes prove it, "" for none.
func (m *Measure) Proven() string { return m.found.Type }

// Sniff returns the type that the first bytes of the layer speak of.
func (m *Measure) Sniff() string {
	if m.found.Type != "" {
		return m.found.Type
	}
	return Sniff(m.data)
}

// MayExceed reports whether Entropy can be above a limit. For text it is mostly
// found without counting everything.
func (m *Measure) MayExceed(limit float64) bool {
	symbols := 256.0
	if m.ascii {
		symbols = 101 // 95 and the six control characters that isText accepts
	}
	if math.Log2(symbols) <= limit {
		return false
	}
	for _, c := range []string{" ", `"`, "e"} {
		f := float64(bytes.Count(m.data, []byte(c))) / float64(max(1, len(m.data)))
		if 0 < f && f < 1 && -f*math.Log2(f)-(1-f)*math.Log2((1-f)/(symbols-1)) <= limit {
			return false
		}
	}
	return true
}

// Scattered returns how many characters of the layer are random data in many
// small pieces; 0 when they are few in it.
func (m *Measure) Scattered() int { return m.scattered() }

func (f *found) scattered() int {
	medium := f.medium
	if f.hashes > maxHashes && f.hashes > f.seen/2 {
		medium += f.hashes
	}
	if f.uuids > maxUUIDs {
		medium += f.uuids
	}
	switch all := f.short + medium; {
	case medium >= 512 && medium >= f.seen/4, medium >= max(8<<10, f.seen/64):
		return medium
	case all >= 2<<10 && all >= f.seen*2/5:
		return all
	}
	return 0
}

// Pieces are characters of random data in the parts of a head, each of which
// may be too short to be judged by itself.
type Pieces struct{ short, medium int }

// Pieces returns those of the text, as the layer with most of them has them.
func (t *Text) Pieces() Pieces {
	var most Pieces
	for i := range t.Layers {
		if m := &t.Layers[i]; m.short+m.medium > most.short+most.medium {
			most = Pieces{m.short, m.medium}
		}
	}
	return most
}

// Add adds those of another part.
func (p *Pieces) Add(o Pieces) {
	p.short += o.short
	p.medium += o.medium
}

// Len returns how many characters they are.
func (p Pieces) Len() int { return p.short + p.medium }

// TooMany reports whether they are no ids and cursors any more.
func (p Pieces) TooMany() bool { return p.medium >= 192 || p.short+p.medium >= 1<<10 }

// Unexplained returns the opaque bytes that are not media of an accepted type.
func (m *Measure) Unexplained(accept func(typ string) bool) int {
	n := m.Opaque
	for _, f := range m.Media {
		if !accept(f.Type) {
			n += f.Size
		}
	}
	return n
}

// Text is everything that was measured of one inspect.Text.
type Text struct {
	Place  inspect.Place
	Name   string // of the header, parameter or cookie
	Layers []Measure
	size   int
}

// Size returns the bytes of the text as it stands.
func (t *Text) Size() int { return t.size }

// key is what the measure of a content is remembered under.
type key struct{}

// Of measures a piece of content, once for all who ask.
func Of(ctx context.Context, c *inspect.Content) ([]Text, error) {
	texts, err := c.Texts(ctx)
	if err != nil {
		return nil, err
	}
	return c.Memo(key{}, func() any { return measure(c, texts) }).([]Text), nil
}

func measure(c *inspect.Content, texts []inspect.Text) []Text {
	shared := &root{bytes: maxUnpacked}
	reasoning := isModelPath(c.Request.Path)
	out := make([]Text, 0, len(texts))
	for i := range texts {
		t := &texts[i]
		if t.Quiet.Is(key{}) {
			continue
		}
		before := *shared
		m := Text{Place: t.Place, Name: t.Name, size: len(t.Tree.Layers[0].Data)}
		x := examiner{root: shared, name: t.Name, cookie: t.Place == inspect.PlaceCookie, reasoning: reasoning && t.Place == inspect.PlaceBody}
		if m.size >= minRun && !isWhole(t) {
			m.Layers = x.layers(t.Tree)
		}
		if t.Place == inspect.PlaceHost {
			m.Layers = append(m.Layers, x.labels(t.Tree.Layers[0].Data))
		}
		if m.isQuiet() && shared.same(&before) {
			t.Quiet.Add(key{})
		}
		out = append(out, m)
	}
	return out
}

// isQuiet reports that a text has nothing in it that anybody asks for.
func (t *Text) isQuiet() bool {
	for i := range t.Layers {
		f := &t.Layers[i].found
		if f.Run.Len+f.Opaque+f.medium+f.short+f.hashes+f.uuids+len(f.Media) != 0 || f.Type != "" {
			return false
		}
	}
	return true
}

// isWhole reports a text whose parts are texts of their own.
func isWhole(t *inspect.Text) bool {
	return t.Place == inspect.PlacePath || t.Place == inspect.PlaceQuery || t.Place == inspect.PlaceHeader && t.Name == "Cookie"
}

// layers measures those layers of a text that have something of their own. In
// all of them the same credentials stand, which count once.
func (x *examiner) layers(tree *decode.Tree) []Measure {
	if len(tree.Layers) == 1 {
		return x.only(tree)
	}
	var out []Measure
	containers, escaped := containersOf(tree)
	before, most := *x.root, *x.root
	for i := range tree.Layers {
		if escaped[i] && x.name != "" {
			continue // a part of the head is judged as the server reads it
		}
		one := *x
		one.root.slots, one.root.reasoned = before.slots, before.reasoned
		if m, ok := one.layer(tree, i, containers[i]); ok {
			out = append(out, m)
		}
		most.slots, most.reasoned = max(most.slots, x.root.slots), max(most.reasoned, x.root.reasoned)
	}
	x.root.slots, x.root.reasoned = most.slots, most.reasoned
	return out
}

// only measures a text that decodes to nothing, as nearly all of a head.
func (x *examiner) only(tree *decode.Tree) []Measure {
	one := *x
	m, ok := one.layer(tree, 0, false)
	if !ok {
		return nil
	}
	return []Measure{m}
}

// labels measures a host name without its dots, so that data in many short
// labels is seen as what it is.
func (x *examiner) labels(host []byte) Measure {
	one := *x
	var joined []byte
	labels := bytes.Split(host, []byte("."))
	for _, label := range labels[:max(0, len(labels)-2)] {
		if n, _ := idAt(label, 0, new(found)); n < len(label) {
			joined = append(joined, label...)
		}
	}
	one.text(joined)
	return Measure{Size: len(joined), data: joined, found: one.found}
}

// isModelPath reports the path of an API of language models.
func isModelPath(path string) bool {
	for _, suffix := range []string{
		"/messages", "/messages/count_tokens", "/responses", "/responses/compact", "/chat/completions",
		":generateContent", ":streamGenerateContent", ":countTokens", "/converse", "/converse-stream", "/invoke", "/invoke-with-response-stream",
	} {
		if strings.HasSuffix(path, suffix) {
			return true
		}
	}
	return false
}

// layer measures one layer, without what other layers say of it: what parts,
// files and content codings were decoded from.
func (x *examiner) layer(tree *decode.Tree, i int, container bool) (Measure, bool) {
	l := &tree.Layers[i]
	m := Measure{Kind: l.Kind, Type: l.Type, data: l.Data}
	switch l.Kind {
	case decode.Folded:
		return m, false
	case decode.Base64, decode.Base32, decode.Hex:
		// Any text is a base64 of something. What it was decoded from is
		// judged where it stands, and what it decodes to when it is text.
		if !isText(l.Data) {
			return m, false
		}
	case decode.JSON, decode.Form:
		if len(l.Data) < minRun || len(l.Data) < minVisible && tree.Layers[0].Kind == decode.Raw && l.Parent == 0 {
			return m, false // seen in what it stands in
		}
		if l.Name != "" {
			x.name = l.Name
		}
	}
	if container {
		m.data = uncovered(tree, i)
		x.unknown(m.data)
		x.found.Type = Sniff(l.Data)
	} else {
		x.examine(l.Data)
	}
	m.Size = len(m.data)
	m.found = x.found
	if m.entropy != nil {
		m.Bits = m.entropy.corrected(Binary)
	}
	return m, true
}

// isContent reports the kinds of layers that are looked at in place of what they
// were decoded from.
func isContent(k decode.Kind) bool {
	return k == decode.Part || k == decode.Member || k == decode.Coding
}

// containersOf returns the layers that such layers were decoded from, and
// those that are escaped as in a URL.
func containersOf(tree *decode.Tree) (containers, escaped map[int]bool) {
	containers, escaped = map[int]bool{}, map[int]bool{}
	for _, l := range tree.Layers {
		switch {
		case isContent(l.Kind):
			containers[l.Parent] = true
		case l.Kind == decode.Percent:
			escaped[l.Parent] = true
		}
	}
	return containers, escaped
}

// uncovered returns the bytes of a layer that no content was decoded from. A
// content that does not say where it was covers everything.
func uncovered(tree *decode.Tree, i int) []byte {
	data := tree.Layers[i].Data
	var rest []byte
	at, placed := 0, false
	for _, c := range tree.Layers[i+1:] {
		if c.Parent != i || !isContent(c.Kind) || c.End == 0 {
			continue
		}
		placed = true
		if at < c.Start && c.Start <= len(data) {
			rest = append(rest, data[at:c.Start]...)
		}
		at = max(at, min(c.End, len(data)))
	}
	if !placed {
		return nil
	}
	return append(rest, data[at:]...)
}

// Clip makes text of the agent's fit for a reason: printable, and short.
func Clip(s string) string {
	const most = 64
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == most {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			r = '?'
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}
