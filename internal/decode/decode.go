// Package decode finds what a text is wrapped in: it turns one input into a
// tree of layers, the raw bytes first, and everything that they decode to
// below them.
//
// The input is the agent's. Depth, number of layers, bytes and time are
// bounded, and a bound that is passed is an error, which blocks: what was not
// looked at must not leave.
//
// A text is rewritten whole or in stretches: a layer of kind Percent, JSON,
// HTML, Escapes, QuotedPrintable or Folded holds the places of its parent that
// decode to something else, with what stands around them, and a layer of small
// finds (Base64, Base32, Hex, Charset) holds them one in a line. So the number
// of layers does not grow with the number of escapes.
package decode

import (
	"context"
	"time"
)

// Kind says how a layer came about.
type Kind uint8

// The kinds of layers.
const (
	Raw             Kind = iota // the input itself
	Coding                      // a content coding or a compressed file: gzip, deflate, br, zstd, aws-chunked
	Charset                     // UTF-16, UTF-32 or a declared character set, turned into UTF-8
	Percent                     // percent (RFC 3986 section 2.1), at any depth
	JSON                        // the escapes of JSON strings, which JavaScript and C share
	Form                        // a name or a value of a form: percent and plus
	Part                        // a part of multipart
	Base64                      // either alphabet
	Base32                      // RFC 4648 section 6, in either case
	Hex                         // in pairs, with separators or without
	HTML                        // character references
	QuotedPrintable             // RFC 2045 section 6.7
	Folded                      // look-alikes, zero-width and combining characters folded to ASCII
	Member                      // a file in an archive
	Escapes                     // several of Percent, JSON and HTML at once
)

// Layer is one reading of the input. Data must not be changed, and may share
// memory with the input and with other layers.
type Layer struct {
	Kind   Kind
	Parent int    // index in Tree.Layers; -1 for the raw input
	Name   string // what it was in: a coding, a field's, a part's or a member's name
	Type   string // declared content type of an input or a part
	Data   []byte
	// Start and End are the bytes of the parent that the layer was decoded
	// from; both 0 where there are no such bytes.
	Start, End int
}

// Tree is all layers of one input. Layers[0] is the raw input.
type Tree struct {
	Layers []Layer
}

// Input is a text with what its sender says about it.
type Input struct {
	Data     []byte
	Type     string   // declared content type, with its parameters
	Encoding []string // values of Content-Encoding, in order
}

// Limits bound one tree. Zero fields mean the defaults.
type Limits struct {
	Depth  int           // layers on top of one another, the raw one included; 8
	Layers int           // in all; 50,000
	Bytes  int64         // in all, decoded; 96 MiB
	Ratio  int           // of decompressed bytes to compressed ones, above 1 MiB; 200
	Time   time.Duration // 10 s: a last resort, since Bytes bounds the work
}

func (l Limits) orDefaults() Limits {
	set(&l.Depth, 8)
	set(&l.Layers, 50_000)
	set(&l.Bytes, 96<<20)
	set(&l.Ratio, 200)
	set(&l.Time, 10*time.Second)
	return l
}

func set[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Error says why an input cannot be looked at in full. Reason is fixed text
// that holds no byte of the input.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

// What stops a tree. Each is a sentence for the one who reads the refusal.
var (
	errDepth     = &Error{"the content is nested too deeply"}
	errLayers    = &Error{"the content has too many layers"}
	errBytes     = &Error{"the content decodes to too much"}
	errRatio     = &Error{"the content expands too much"}
	errTime      = &Error{"decoding the content took too long"}
	errCoding    = &Error{"the content coding is unknown"}
	errCoded     = &Error{"the content does not match its content coding"}
	errCharset   = &Error{"the character set is unknown"}
	errEncrypted = &Error{"an archive is encrypted"}
	errMethod    = &Error{"an archive is compressed in an unknown way"}
	errArchive   = &Error{"an archive contradicts itself"}
)

// Decode returns all layers of an input, or an *Error. It is safe for
// concurrent use.
func Decode(ctx context.Context, in Input, limits Limits) (*Tree, error) {
	if in.Type == "" && len(in.Encoding) == 0 && Plain(in.Data) {
		return plain(in.Data), nil
	}
	d := newDecoder(ctx, limits)
	defer d.free()
	return d.run(in)
}

// plain makes the tree of a text with nothing to decode.
func plain(data []byte) *Tree { return new(Single).Tree(data) }

// Single is the memory of a tree with one layer. A slice of them serves many
// Plain texts at once. It must not be copied once Tree was called.
type Single struct {
	tree   Tree
	layers [1]Layer
}

// Tree returns the tree of data alone.
func (s *Single) Tree(data []byte) *Tree {
	s.layers[0] = Layer{Kind: Raw, Parent: -1, Data: data}
	s.tree.Layers = s.layers[:]
	return &s.tree
}
