package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// value is a node and the dotted path that messages call it by.
type value struct {
	n    *yaml.Node
	path string
}

func (v value) child(name string, n *yaml.Node) value {
	if utf8.RuneCountInString(name) > 64 {
		name = string([]rune(name)[:64]) + "…"
	}
	if v.path != "" {
		name = v.path + "." + name
	}
	return value{n: n, path: name}
}

func (v value) item(i int) value {
	return value{n: v.n.Content[i], path: fmt.Sprintf("%s[%d]", v.path, i)}
}

func (v value) position() Position {
	return Position{Key: v.path, Line: v.n.Line, Column: v.n.Column}
}

// isNull reports a value that is empty, null or ~.
func (v value) isNull() bool {
	return v.n.Kind == yaml.ScalarNode && v.n.ShortTag() == "!!null"
}

// width is how many characters the value takes, where that is known.
func (v value) width() int {
	if v.n.Kind != yaml.ScalarNode || strings.Contains(v.n.Value, "\n") {
		return 1
	}
	w := utf8.RuneCountInString(v.n.Value)
	if v.n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		w += 2
	}
	return w
}

// decoder reads one file. It collects every error instead of stopping at the
// first.
type decoder struct {
	file  string
	lines []string
	docs  []KeyDoc
	nodes int
	errs  Errors
	notes []Warning

	// where holds the key of every place that was read, by dotted path.
	where map[string]value

	dir  string                 // folder of the file, for relative paths
	home func() (string, error) // home directory, asked for only when a path begins with ~
}

func (d *decoder) line(n int) string {
	if n < 1 || n > len(d.lines) {
		return ""
	}
	return d.lines[n-1]
}

func (d *decoder) add(at Position, width int, why, hint string) {
	_ = d.newError(at, width, why, hint)
}

// newError records an error and returns it, so that its excerpt can be changed.
func (d *decoder) newError(at Position, width int, why, hint string) *Error {
	e := &Error{Position: at, File: d.file, Why: why, Hint: hint, source: d.line(at.Line), width: width}
	if len(d.errs) < maxErrors {
		d.errs = append(d.errs, e)
	}
	return e
}

// fail records what is wrong with a value.
func (d *decoder) fail(v value, why, hint string) {
	d.add(v.position(), v.width(), why, hint)
}

// failSecret is fail for values that may hold a credential: its excerpt shows
// the line up to the value and stars after that (rules 57, 71).
func (d *decoder) failSecret(v value, why, hint string) {
	e := d.newError(v.position(), v.width(), why, hint)
	line := []rune(e.source)
	for i := max(0, min(v.n.Column-1, len(line))); i < len(line); i++ {
		line[i] = '*'
	}
	e.source = string(line)
}

func (d *decoder) warn(at Position, text string) {
	d.notes = append(d.notes, Warning{Position: at, File: d.file, Text: text})
}

// fields reads a map by its table of keys, in the order of the table, and
// refuses every other key. A null map is one that says nothing.
func fields[T any](d *decoder, v value, keys []key[T], t *T) {
	if v.isNull() {
		return
	}
	if v.n.Kind != yaml.MappingNode {
		d.wrongKind(v, "a map of keys")
		return
	}
	if placeholder(v.n) {
		d.wrongKind(v, "a map of keys")
		return
	}
	found := make(map[string]value)
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		k := v.n.Content[i]
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
			continue // walk has refused it
		}
		if _, twice := found[k.Value]; twice {
			continue
		}
		c := v.child(k.Value, v.n.Content[i+1])
		found[k.Value] = c
		if slices.ContainsFunc(keys, func(x key[T]) bool { return x.name == k.Value }) {
			d.where[c.path] = value{n: k, path: c.path}
			continue
		}
		if len(d.errs) >= maxErrors {
			continue // a suggestion nobody sees costs as much as one that is seen
		}
		names := make([]string, len(keys))
		for i, x := range keys {
			names[i] = x.name
		}
		d.fail(value{n: k, path: c.path}, "there is no such key", hintUnknown(k.Value, names, d.docs))
	}
	for _, k := range keys {
		if c, ok := found[k.name]; ok {
			k.read(d, c, t)
		}
	}
}

// wrongKind says what a value is and what it must be.
func (d *decoder) wrongKind(v value, want string) {
	what, hint := "it is a map", "write "+want
	switch {
	case v.n.Kind == yaml.AliasNode:
		return // walk has refused it
	case placeholder(v.n):
		what = "without quotes {{…}} is a YAML map"
		hint = `quote it: "{{` + printable(clip(v.n.Content[0].Content[0].Value)) + `}}"`
	case v.n.Kind == yaml.SequenceNode:
		what = "it is a list"
	case v.isNull():
		what, hint = "it has no value", "write "+want+", or remove the line"
	case v.n.Kind == yaml.ScalarNode:
		what = map[string]string{"!!int": "it is a number", "!!float": "it is a number", "!!bool": "it is true or false"}[v.n.ShortTag()]
		if what == "" {
			what = "it is text"
		}
		if want == "text" {
			hint = fmt.Sprintf("put it in quotes: %q", clip(v.n.Value))
		}
	}
	d.fail(v, what+", and must be "+want, hint)
}

func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

// text reads a string that is one line and not empty.
func (d *decoder) text(v value) (string, bool) {
	if v.n.Kind != yaml.ScalarNode {
		d.wrongKind(v, "text")
		return "", false
	}
	switch v.n.ShortTag() {
	case "!!str", "!!timestamp":
	default:
		d.wrongKind(v, "text")
		return "", false
	}
	return d.oneLine(v)
}

func (d *decoder) oneLine(v value) (string, bool) {
	switch s := v.n.Value; {
	case s == "":
		d.fail(v, "it is empty", "write a value, or remove it")
	case len(s) > maxString:
		d.fail(v, fmt.Sprintf("it is longer than %d bytes", maxString), "")
	case strings.ContainsAny(s, "\n\t"):
		d.fail(v, "it has a line break or a tab in it", "write it on one line")
	default:
		return s, true
	}
	return "", false
}

// literal reads a word, a number or a truth value as the text that stands in
// the file: PORT: 8080 is "8080", and DEBUG: true is "true".
func (d *decoder) literal(v value) (string, bool) {
	if v.n.Kind != yaml.ScalarNode || v.isNull() {
		d.wrongKind(v, "text")
		return "", false
	}
	return v.n.Value, true
}

func (d *decoder) bool(v value) (bool, bool) {
	const want = "true or false"
	if v.n.Kind != yaml.ScalarNode || v.isNull() {
		d.wrongKind(v, want)
		return false, false
	}
	if v.n.ShortTag() == "!!bool" {
		return strings.EqualFold(v.n.Value, "true"), true
	}
	hint := "write " + want
	switch strings.ToLower(v.n.Value) {
	case "yes", "on", "y", "1":
		hint = "write true"
	case "no", "off", "n", "0":
		hint = "write false"
	case "true", "false":
		hint = "remove the quotes"
	}
	d.fail(v, fmt.Sprintf("%q is neither true nor false", clip(v.n.Value)), hint)
	return false, false
}

// int reads a plain decimal whole number within bounds.
func (d *decoder) int(v value, lo, hi int64) (int64, bool) {
	const want = "a whole number"
	if v.n.Kind != yaml.ScalarNode || v.isNull() {
		d.wrongKind(v, want)
		return 0, false
	}
	s := v.n.Value
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case v.n.ShortTag() == "!!str" && err == nil:
		d.fail(v, "it is text, and must be "+want, "remove the quotes")
	case err != nil && !isDigits(s), err == nil && strconv.FormatInt(n, 10) != s:
		d.fail(v, fmt.Sprintf("%q is not %s", clip(s), want), "write it in decimal digits alone, such as "+strconv.FormatInt(max(lo, min(hi, 10)), 10))
	case err != nil || n < lo || n > hi:
		d.fail(v, fmt.Sprintf("%s is out of range", clip(s)), fmt.Sprintf("write %d to %d", lo, hi))
	default:
		return n, true
	}
	return 0, false
}

func isDigits(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return s != "" && strings.Trim(s, "0123456789") == "" && (s == "0" || s[0] != '0')
}

// float reads a number within bounds; NaN and the infinities are in none.
func (d *decoder) float(v value, lo, hi float64) (float64, bool) {
	const want = "a number"
	if v.n.Kind != yaml.ScalarNode || v.isNull() {
		d.wrongKind(v, want)
		return 0, false
	}
	f, err := strconv.ParseFloat(v.n.Value, 64)
	switch tag := v.n.ShortTag(); {
	case tag == "!!str" && err == nil && v.width() > len(v.n.Value):
		d.fail(v, "it is text, and must be "+want, "remove the quotes")
	case tag != "!!int" && tag != "!!float", strings.ContainsAny(v.n.Value, "_xXoO"):
		d.fail(v, fmt.Sprintf("%q is not %s", clip(v.n.Value), want), "write it in decimal digits, such as 2.5")
	case err != nil || math.IsNaN(f) || f < lo || f > hi:
		d.fail(v, fmt.Sprintf("%s is out of range", clip(v.n.Value)), "write "+strconv.FormatFloat(lo, 'f', -1, 64)+" to "+strconv.FormatFloat(hi, 'f', -1, 64))
	default:
		return f, true
	}
	return 0, false
}

// duration reads "30s", "1m30s" or 0.
func (d *decoder) duration(v value, hi time.Duration) (time.Duration, bool) {
	if v.n.Kind != yaml.ScalarNode || v.isNull() {
		d.wrongKind(v, `a duration such as "30s"`)
		return 0, false
	}
	t, err := time.ParseDuration(v.n.Value)
	switch {
	case err != nil:
		d.fail(v, fmt.Sprintf("%q is not a duration", clip(v.n.Value)), `write a number with its unit, such as "500ms", "30s" or "2m"`)
	case t < 0 || t > hi:
		d.fail(v, fmt.Sprintf("%s is out of range", clip(v.n.Value)), fmt.Sprintf("write 0s to %v", hi))
	default:
		return t, true
	}
	return 0, false
}

func (d *decoder) choice(v value, options []string) (string, bool) {
	s, ok := d.text(v)
	if !ok {
		return "", false
	}
	if !slices.Contains(options, s) {
		d.fail(v, fmt.Sprintf("%q is not one of its values", clip(s)), hintChoice(s, options))
		return "", false
	}
	return s, true
}

// list reads a list through a reader of its items. A null list is an empty
// one.
func list[E any](d *decoder, v value, read func(value) (E, bool)) []E {
	if v.isNull() {
		return nil
	}
	if v.n.Kind != yaml.SequenceNode {
		d.notList(v)
		return nil
	}
	var out []E
	for i := range v.n.Content {
		if e, ok := read(v.item(i)); ok {
			out = append(out, e)
		}
	}
	return out
}

func (d *decoder) notList(v value) {
	if v.n.Kind == yaml.ScalarNode {
		d.fail(v, "it is a single value, and must be a list", fmt.Sprintf("write [%s]", clip(v.n.Value)))
		return
	}
	d.wrongKind(v, "a list")
}

// table reads a map whose keys are the user's own names, in the order of the
// file.
func (d *decoder) table(v value, read func(k, v value)) {
	if v.isNull() {
		return
	}
	if v.n.Kind != yaml.MappingNode || placeholder(v.n) {
		d.wrongKind(v, "a map")
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		k := v.n.Content[i]
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" || seen[k.Value] {
			continue // walk has refused it
		}
		seen[k.Value] = true
		c := v.child(k.Value, v.n.Content[i+1])
		read(value{n: k, path: c.path}, c)
	}
}

// env reads a map of environment variables.
func (d *decoder) env(v value) map[string]string {
	out := make(map[string]string)
	d.table(v, func(k, v value) {
		if !ValidEnv(k.n.Value) {
			d.failSecret(k, "it is no name of an environment variable", "use letters, digits and _, and begin with no digit")
			return
		}
		if v.n.Kind != yaml.ScalarNode || v.isNull() {
			why := "it must be text"
			if v.isNull() {
				why = "it has no value"
			}
			hint := `write text; for an empty variable write ""`
			if placeholder(v.n) {
				why, hint = "without quotes {{…}} is a YAML map", `quote it: "{{KEY}}"`
			}
			d.failSecret(v, why, hint)
			return
		}
		out[k.n.Value] = v.n.Value
	})
	if len(out) == 0 {
		return nil
	}
	return out
}

// ValidEnv reports whether s can name an environment variable: at most 256
// letters, digits and _, and no digit first.
func ValidEnv(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 256
}
