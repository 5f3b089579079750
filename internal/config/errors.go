package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxErrors bounds what is kept of a file that is wrong everywhere.
const maxErrors = 50

// excerptWidth is the number of characters of a line that an excerpt shows.
const excerptWidth = 96

// Error is one thing that is wrong in a config file.
type Error struct {
	Position
	File string
	Why  string // completes "cannot read KEY: "
	Hint string // what to write instead; may be empty
	Err  error  // the cause, when the file could not be read at all

	source string // the line, without its line break
	width  int    // characters under the carets
}

// Error prints "FILE:LINE:COL: cannot read KEY: why" (or "cannot read the
// file", where no key is to blame), then the line with a
// caret under the place, then the hint. It ends without a line break, and the
// text of the file in it holds no byte that a terminal would act on.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Summary())
	if e.Line > 0 && e.source != "" {
		b.WriteByte('\n')
		b.WriteString(e.excerpt())
	}
	if e.Hint != "" {
		b.WriteString("\nhint: " + e.Hint)
	}
	return b.String()
}

// Summary is the first line of Error alone, for logs of one line an event.
func (e *Error) Summary() string {
	place := printable(e.File)
	if e.Line > 0 {
		place += fmt.Sprintf(":%d:%d", e.Line, e.Column)
	}
	what := "cannot read the file"
	if e.Key != "" {
		what = "cannot read " + printable(e.Key)
	} else if e.Line == 0 {
		what = "cannot read"
	}
	return place + ": " + what + ": " + e.Why
}

// Unwrap returns the cause, so that errors.Is finds fs.ErrNotExist.
func (e *Error) Unwrap() error { return e.Err }

// excerpt draws the line and the carets under it:
//
//	12 |   alow: [example.com]
//	   |   ^^^^
func (e *Error) excerpt() string {
	line := []rune(printable(e.source))
	at := min(max(e.Column-1, 0), len(line))
	width := max(1, min(e.width, len(line)-at))
	if len(line) > excerptWidth {
		line, at = window(line, at)
		width = max(1, min(width, len(line)-at))
	}
	number := strconv.Itoa(e.Line)
	bar := strings.Repeat(" ", len(number)+1) + " | "
	return " " + number + " | " + string(line) + "\n" +
		bar + strings.Repeat(" ", at) + strings.Repeat("^", width)
}

// window cuts a long line round the place that matters.
func window(line []rune, at int) ([]rune, int) {
	from := max(0, min(at-excerptWidth/3, len(line)-excerptWidth))
	to := min(len(line), from+excerptWidth)
	out := slices.Clone(line[from:to])
	if from > 0 {
		out[0] = '…'
	}
	if to < len(line) {
		out[len(out)-1] = '…'
	}
	return out, at - from
}

// printable replaces what a terminal would act on, one character by one, so
// that columns stay what they were. Configs come with cloned repositories.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError || !unicode.IsPrint(r):
			b.WriteRune('�')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Errors is everything that is wrong in a config file, in the order of the
// file. Load and Parse return no other type of error.
type Errors []*Error

// Error prints every error, with an empty line between two.
func (es Errors) Error() string {
	parts := make([]string, len(es))
	for i, e := range es {
		parts[i] = e.Error()
	}
	return strings.Join(parts, "\n\n")
}

// Summary is every error in one line, without the text of the file, for logs
// and the audit.
func (es Errors) Summary() string {
	parts := make([]string, len(es))
	for i, e := range es {
		parts[i] = e.Summary()
	}
	return strings.Join(parts, "; ")
}

// Unwrap gives errors.Is and errors.As each of them.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// sort brings errors into the order of the file and drops the second error at
// one place, which is nearly always the same mistake seen twice.
func (es Errors) sort() Errors {
	slices.SortStableFunc(es, func(a, b *Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return slices.CompactFunc(es, func(a, b *Error) bool {
		return a.Position == b.Position
	})
}
