package decode

import (
	"bytes"
	"context"
	"hash/maphash"
	"mime"
	"slices"
	"strings"
	"sync"
	"time"
)

// decoder makes one tree. Its layers are worked through in order, and what is
// found in one is appended, so that parents precede their children and nothing
// recurses.
type decoder struct {
	ctx      context.Context
	limits   Limits
	deadline time.Time
	err      *Error
	layers   []Layer
	about    []about // of the layer with the same index
	spent    int64   // decoded bytes, and what attempts cost
	source   int64   // bytes of the input, and what was decompressed
	rewrites int64   // bytes of all other layers
	large    bool    // Limits.Large has been asked
	seen     map[uint64]struct{}

	// Reused from layer to layer, and from tree to tree.
	finds   [kinds]finds      // short finds of one layer
	high    int               // the first byte of the layer at hand that is not ASCII, or its length
	escape  []byte            // what one escape decodes to
	scratch []byte            // what one run decodes to
	joined  []byte            // lines of one run
	padded  []byte            // the beginning of one run
	covered []span            // of the layer at hand, by its child of escapes
	baits   []int             // runs in covered whose beginning an escape took
	listed  bool              // a list of hex is among them
	mixed   []span            // tokens with several kinds of escapes
	wides   []span            // of the layer at hand, what UTF-16 and UTF-32 was found in
	methods map[string]uint16 // of the members of an archive
}

const kinds = int(Escapes) + 1

// about is what the decoder has to know of a layer.
type about struct {
	depth  uint8
	shared bool   // its bytes stand in the parent as they are, and were looked at there
	coding string // declared for these bytes and undone
}

type span struct{ start, end int }

var (
	decoders = sync.Pool{New: func() any { return new(decoder) }}
	seed     = maphash.MakeSeed()
)

func newDecoder(ctx context.Context, limits Limits) *decoder {
	d := decoders.Get().(*decoder)
	d.ctx, d.limits = ctx, limits.orDefaults()
	return d
}

// keep is the most scratch memory that is kept for the next tree.
const keep = 1 << 20

// free gives back the scratch memory. Layers are the tree's and are not kept.
func (d *decoder) free() {
	clear(d.seen)
	clear(d.methods)
	fresh := decoder{
		about: d.about[:0], seen: d.seen, methods: d.methods,
		covered: d.covered[:0], baits: d.baits[:0], mixed: d.mixed[:0], wides: d.wides[:0],
		escape: d.escape[:0], scratch: d.scratch[:0], joined: d.joined[:0], padded: d.padded[:0],
	}
	if cap(d.scratch)+cap(d.joined)+cap(d.escape)+8*cap(d.covered)+8*cap(d.mixed)+8*cap(d.baits)+24*cap(d.about) > keep || len(d.seen) > 1000 {
		fresh = decoder{}
	}
	*d = fresh
	decoders.Put(d)
}

func (d *decoder) run(in Input) (*Tree, error) {
	tree := plain(in.Data)
	d.source = int64(len(in.Data))
	d.layers = tree.Layers
	d.about = append(d.about, about{})
	last := d.undo(in)
	d.layers[0].Type, d.layers[last].Type = in.Type, in.Type
	for i := 0; i < len(d.layers) && d.err == nil; i++ {
		d.expand(i, i != 0 || last == 0)
	}
	if d.err != nil {
		return nil, d.err
	}
	tree.Layers = d.layers
	return tree, nil
}

// expand appends everything that a layer decodes to. typed says that the
// layer's type speaks of its bytes.
func (d *decoder) expand(i int, typed bool) {
	if len(d.layers[i].Data) == 0 || !d.alive() {
		return
	}
	d.high = nextHigh(d.layers[i].Data, 0)
	if !d.about[i].shared {
		d.escapes(i)
		d.quoted(i)
		d.fold(i)
		d.digits(i)
		d.lists(i)
		d.wide(i)
		d.packed(i)
	}
	if d.about[i].coding == "" {
		d.leading(i)
	}
	if typed {
		d.declared(i)
	}
}

// alive reports that there is time left. What is done between two calls is
// bounded by Limits.Bytes.
func (d *decoder) alive() bool {
	if d.err == nil && d.ctx.Err() != nil {
		d.err = errTime
	}
	const cheap = 64 << 10
	if d.spent < cheap || d.err != nil {
		return d.err == nil
	}
	now := time.Now()
	if d.deadline.IsZero() {
		d.deadline = now.Add(d.limits.Time)
	} else if now.After(d.deadline) {
		d.err = errTime
	}
	return d.err == nil
}

// declared reads a layer as its type says.
func (d *decoder) declared(i int) {
	l := d.layers[i]
	if l.Type == "" {
		d.form(i, false)
		return
	}
	kind, params := parseType(l.Type)
	d.charset(i, params["charset"])
	switch {
	case strings.HasPrefix(kind, "multipart/"):
		d.multipart(i, params["boundary"])
	case kind == "application/x-www-form-urlencoded":
		d.form(i, true)
	default:
		d.form(i, false)
	}
}

func parseType(s string) (kind string, params map[string]string) {
	if strings.IndexByte(s, ';') < 0 {
		return strings.ToLower(strings.TrimSpace(s)), nil
	}
	kind, params, err := mime.ParseMediaType(s)
	if err != nil {
		kind, params = laxType(s)
	}
	return kind, params
}

// ambiguous is a parameter that is there twice with different values: no two
// parsers agree which one counts.
const ambiguous = "?"

// laxType reads what it can of a type that is not well-formed: a server might.
func laxType(s string) (kind string, params map[string]string) {
	params = map[string]string{}
	kind, rest, _ := strings.Cut(s, ";")
	for p := range strings.SplitSeq(rest, ";") {
		k, v, _ := strings.Cut(p, "=")
		k, v = strings.ToLower(strings.TrimSpace(k)), strings.Trim(strings.TrimSpace(v), `"'`)
		if before, twice := params[k]; twice && before != v {
			v = ambiguous
		}
		params[k] = v
	}
	return strings.ToLower(strings.TrimSpace(kind)), params
}

// add appends a layer whose bytes were made by decoding, unless the tree has
// the same already.
func (d *decoder) add(l Layer) {
	if d.err != nil || len(l.Data) == 0 || !d.spend(len(l.Data)) || d.known(l.Data) {
		return
	}
	if l.Kind == Coding || l.Kind == Member {
		d.source += int64(len(l.Data))
	} else if d.rewrites += int64(len(l.Data)); d.rewrites > freeRewrites && d.rewrites > mostRewrites*d.source {
		d.err = errBytes
		return
	}
	d.append(l, about{})
}

// What escapes and digits decode to is less than what they stand for, and
// ordinary text has few kinds of them: it comes to about as much again. Many
// times as much is text made to cost everybody who reads it.
const (
	mostRewrites = 16
	freeRewrites = 1 << 20
)

// share appends a layer whose bytes stand in its parent as they are.
func (d *decoder) share(l Layer) int {
	if d.err != nil || len(l.Data) == 0 || !d.spend(64) {
		return -1
	}
	return d.append(l, about{shared: true})
}

func (d *decoder) append(l Layer, a about) int {
	a.depth = d.about[l.Parent].depth + 1
	switch {
	case int(a.depth) >= d.limits.Depth:
		d.err = errDepth
	case len(d.layers) >= d.limits.Layers:
		d.err = errLayers
	default:
		d.layers = append(d.layers, l)
		d.about = append(d.about, a)
		return len(d.layers) - 1
	}
	return -1
}

// spend charges n bytes, and reports whether they were left.
func (d *decoder) spend(n int) bool {
	d.spent += int64(n)
	if d.spent > d.limits.Bytes && d.err == nil {
		d.err = errBytes
	}
	return d.room(0)
}

// room reports whether there may be n more bytes than were charged.
func (d *decoder) room(n int) bool {
	if d.large || d.spent+int64(n) <= LargeFrom || d.limits.Large == nil || d.err != nil {
		return d.err == nil
	}
	d.large = true
	if !d.limits.Large(d.ctx) {
		d.err = errBusy
	}
	d.deadline = time.Time{} // begins anew
	return d.err == nil
}

// known remembers what the tree has, and reports that it has these bytes.
func (d *decoder) known(b []byte) bool {
	if d.seen == nil {
		d.seen = map[uint64]struct{}{}
	}
	if len(d.seen) == 0 {
		d.seen[maphash.Bytes(seed, d.layers[0].Data)] = struct{}{}
	}
	h := maphash.Bytes(seed, b)
	_, ok := d.seen[h]
	d.seen[h] = struct{}{}
	return ok
}

// pieces gathers the rewritten stretches of one text. Stretches that are far
// from one another are separated by a line end.
type pieces struct {
	out        []byte
	start, pos int // of the first stretch in the source; up to where it is written
	begun      int // of the stretch at hand
	open       bool
	around     int     // bytes of context that are kept at least
	spans      *[]span // where not nil, the stretches are recorded there
}

// Context keeps lists and broken lines together, of which one element has an
// escape. Without more than = and two digits there is little of it, since every
// program is full of that.
const (
	wideContext  = 1 << 10
	tightContext = 64
	longToken    = 4 << 10 // beyond the context, the rest of a token is not waited for
	wholeFrom    = 32 << 10
)

// reach writes the source up to i as it is.
func (p *pieces) reach(src []byte, i int) {
	if n := len(p.out); n >= wholeFrom && n+i-p.pos > cap(p.out) {
		// So much of the text was written that the rest will be, too.
		p.out = slices.Grow(p.out, len(src)-p.pos)
	}
	if p.open && i-p.pos <= 2*p.around {
		p.out = append(p.out, src[p.pos:i]...)
		return
	}
	if !p.open {
		p.begin(src, backward(src, 0, i, p.around), i)
		return
	}
	end := forward(src, p.pos, i, p.around)
	begin := backward(src, end, i, p.around)
	if begin == end {
		p.out = append(p.out, src[p.pos:i]...)
		return
	}
	p.close(src, end)
	p.begin(src, begin, i)
}

func (p *pieces) begin(src []byte, from, to int) {
	if p.out == nil {
		p.out = make([]byte, 0, min(len(src)-from, 64<<10))
		p.start = from
	} else {
		p.out = append(p.out, '\n')
	}
	p.open, p.begun = true, from
	p.out = append(p.out, src[from:to]...)
}

// put writes what the source's bytes up to next decode to.
func (p *pieces) put(decoded []byte, next int) {
	p.out = append(p.out, decoded...)
	p.pos = next
}

func (p *pieces) close(src []byte, end int) {
	p.out = append(p.out, src[p.pos:end]...)
	p.open, p.pos = false, end
	if p.spans != nil {
		*p.spans = append(*p.spans, span{p.begun, end})
	}
}

// take ends the last stretch, and returns the layer.
func (p *pieces) take(src []byte, kind Kind, parent int) Layer {
	if p.open {
		p.close(src, forward(src, p.pos, len(src), p.around))
	}
	l := Layer{Kind: kind, Parent: parent, Data: p.out, Start: p.start, End: p.pos}
	return l
}

// backward returns where the token that ends before i begins, with some
// context, but not before low. forward is its counterpart.
func backward(b []byte, low, i, around int) int {
	s := max(i-around, low)
	low = max(s-longToken, low)
	for s > low && !is(b[s-1], breakClass) {
		s--
	}
	return s
}

func forward(b []byte, i, high, around int) int {
	e := min(i+around, high)
	high = min(e+longToken, high)
	for e < high && !is(b[e], breakClass) {
		e++
	}
	return e
}

// finds gathers what is too short to be a layer of its own, one in a line.
type finds struct {
	out        []byte
	start, end int
}

func (f *finds) add(b []byte, start, end int) {
	if len(f.out) > 0 {
		f.out = append(f.out, '\n')
	} else {
		f.start = start
	}
	f.out = append(f.out, b...)
	f.end = max(f.end, end)
}

// flush makes a layer of the finds of one kind.
func (d *decoder) flush(parent int, kind Kind) {
	f := &d.finds[kind]
	if len(f.out) > 0 {
		d.add(Layer{Kind: kind, Parent: parent, Data: bytes.Clone(f.out), Start: f.start, End: f.end})
		*f = finds{out: f.out[:0]}
	}
}
