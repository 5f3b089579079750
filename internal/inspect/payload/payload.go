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
	Run      Run     // the longest
	Opaque   int     // bytes, outside of text, that look random
	Foreign  int     // those of them that stand in a known structure and are no part of it
	Bits     float64 // of the opaque ones, a byte
	Media    []Media
	Type     string // proven by magic bytes and structure, of the whole; may be empty
	whole    bool   // it ends where the data ends
	IsText   bool
	ascii    bool // and nothing in it is more than ASCII
	medium   int  // characters in all runs from mediumRun on
	short    int  // in the others
	hashes   int  // in hashes
	uuids    int
	stamped  int               // in ids that begin with an instant
	stamp    [stampKinds]int64 // the last instant of each kind
	foretold int               // bytes of data of no known type that only repeat or count
	text     int               // bytes of text that were looked at
	entropy  *histogram        // of the opaque bytes
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

// Patterned reports whether the layer has few bytes but such that repeat or count.
func (m *Measure) Patterned() bool { return m.foretold*8 >= m.Size*7 }

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
	if f.hashes > maxHashes && f.hashes > f.text/2 {
		medium += f.hashes
	}
	if f.uuids > maxUUIDs {
		medium += f.uuids
	}
	if f.stamped > maxStamped {
		medium += f.stamped
	}
	switch all := f.short + medium; {
	case medium >= 512 && medium >= f.text/4, medium >= max(8<<10, f.text/64):
		return medium
	case all >= 2<<10 && all >= f.text*2/5:
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
		x := examiner{root: shared, name: t.Name, head: t.Place != inspect.PlaceBody, cookie: t.Place == inspect.PlaceCookie, reasoning: reasoning && t.Place == inspect.PlaceBody}
		x.upload = t.Place == inspect.PlaceQueryValue && isUploadPath(c.Request.Path)
		if m.size >= minRun && !isWhole(t) {
			m.Layers = x.layers(t.Tree, codings(c, t.Place))
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

// isUploadPath reports the path under which a registry of containers takes the
// blobs of an image (OCI distribution specification, pushing blobs).
func isUploadPath(path string) bool {
	return strings.HasPrefix(path, "/v2/") && strings.Contains(path, "/blobs/uploads/")
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
