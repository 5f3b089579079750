// Package secret holds what must not be printed: the value of a secret, and the
// placeholder that the agent has in its place.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// The bounds of a value, in bytes. What is shorter than MinLength stands in
// ordinary content by chance, so that it can neither be looked for nor kept
// from leaving.
const (
	MinLength = 8
	MaxLength = 64 << 10
)

// Mark is what is printed in place of a value, whatever prints it.
const Mark = "[secret]"

// The errors of New.
var (
	ErrShort = fmt.Errorf("the secret is shorter than %d bytes", MinLength)
	ErrLong  = fmt.Errorf("the secret is longer than %d bytes", MaxLength)
)

// HintShort says what to do about ErrShort.
const HintShort = "a shorter value stands in ordinary text by chance and cannot be kept from leaving; use a longer one"

// Value is the value of a secret: any bytes, line breaks and NULs among them.
// It prints as Mark and encodes as Mark. The zero Value is none. It is
// immutable and safe for concurrent use.
//
// The bytes are inside of a function, because package fmt reads unexported
// fields, and follows pointers in them, without asking for their methods; and
// because two functions cannot be compared by ==, but only by Equal.
type Value struct{ reveal func() []byte }

// New returns a value with a copy of b, or ErrShort or ErrLong. No error holds
// a byte of it.
func New(b []byte) (Value, error) {
	switch {
	case len(b) < MinLength:
		return Value{}, ErrShort
	case len(b) > MaxLength:
		return Value{}, ErrLong
	}
	b = append([]byte(nil), b...)
	return Value{reveal: func() []byte { return b }}, nil
}

// IsZero reports whether there is no value.
func (v Value) IsZero() bool { return v.reveal == nil }

// Len returns the length in bytes.
func (v Value) Len() int {
	if v.IsZero() {
		return 0
	}
	return len(v.reveal())
}

// Equal compares in a time that does not depend on what the values are. No
// value equals the zero Value.
func (v Value) Equal(w Value) bool {
	if v.IsZero() || w.IsZero() {
		return false
	}
	a, b := sha256.Sum256(v.reveal()), sha256.Sum256(w.reveal())
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// RevealBytes returns a copy of the value. Its name is long so that a review
// finds every place in which a secret leaves its type.
func (v Value) RevealBytes() []byte {
	if v.IsZero() {
		return nil
	}
	return append([]byte(nil), v.reveal()...)
}

// Reveal calls f with the value itself, which f must neither change nor keep.
// It does not call f for the zero Value.
func (v Value) Reveal(f func(b []byte)) {
	if !v.IsZero() {
		f(v.reveal())
	}
}

// String returns Mark.
func (Value) String() string { return Mark }

// GoString returns Mark.
func (Value) GoString() string { return Mark }

// Format writes Mark for every verb and flag.
func (Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Mark) }

// MarshalText returns Mark, for JSON's map keys, YAML and XML.
func (Value) MarshalText() ([]byte, error) { return []byte(Mark), nil }

// MarshalJSON returns Mark as JSON text.
func (Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Mark + `"`), nil }

// LogValue returns Mark.
func (Value) LogValue() slog.Value { return slog.StringValue(Mark) }

// GobEncode fails: there is nothing that could be read back.
func (Value) GobEncode() ([]byte, error) { return nil, errors.New("cannot encode a secret") }
