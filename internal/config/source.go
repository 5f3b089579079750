package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Limits of a config file. They are far above what people write, and keep a
// hostile file from costing anything.
const (
	maxFile   = 1 << 20 // bytes
	maxNodes  = 50_000  // keys, values, lists and maps together
	maxItems  = 10_000  // of one list or map
	maxDepth  = 32
	maxString = 4096    // bytes, of a string that is a name, a path or a word
	maxText   = 1 << 16 // bytes, of an environment value, a pattern, an argument
)

// parseYAML reads exactly one YAML document as nodes. It returns nil without
// an error for a file without one.
func (d *decoder) parseYAML(data []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		d.syntax(err)
		return nil
	}
	var doc, second yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		d.syntax(err)
		return nil
	}
	switch err := loader.Load(&second); {
	case err == nil:
		d.add(Position{Line: second.Line, Column: second.Column}, 3,
			"a second YAML document begins here", "keep one document in the file: remove this line and what follows, or join the two")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil
	}
	return doc.Content[0]
}

// checkBytes refuses what must not even reach the YAML parser, which would
// guess UTF-16 and count lines at characters that editors do not break at.
func (d *decoder) checkBytes(data []byte) bool {
	line, column := 1, 0
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		column++
		why, hint := "", ""
		switch {
		case r == utf8.RuneError && size <= 1:
			why, hint = fmt.Sprintf("the byte 0x%02x is not UTF-8", data[0]), "save the file as UTF-8"
		case r == '\r' && (len(data) < 2 || data[1] != '\n'):
			why, hint = "a carriage return stands without a line feed", "save the file with ordinary line ends"
		case r == '\r' || r == '\t':
		case r == '\n':
			line, column = line+1, 0
		case isControl(r):
			why, hint = fmt.Sprintf("the character %U is not allowed", r), "remove it: it cannot be seen, and could hide what the file says"
		}
		if why != "" {
			d.add(Position{Line: line, Column: column}, 1, why, hint)
			return false
		}
		data = data[size:]
	}
	return true
}

// isControl covers C0, DEL and C1, the Unicode line breaks, the marks that
// reorder text on the screen, and a byte order mark inside the text.
func isControl(r rune) bool {
	switch {
	case r < ' ', 0x7f <= r && r <= 0x9f:
		return true
	case r == 0x200e, r == 0x200f, r == 0x2028, r == 0x2029, r == 0xfeff, r == 0xfffe, r == 0xffff:
		return true
	}
	return 0x202a <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069
}

// syntax turns an error of the YAML parser into one of ours.
func (d *decoder) syntax(err error) {
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		d.add(Position{Line: 1, Column: 1}, 1, "it is no valid YAML", "")
		return
	}
	at := Position{Line: le.Mark.Line, Column: le.Mark.Column}
	if (at.Line < 1 || strings.TrimSpace(d.line(at.Line)) == "") && le.ContextMark.Line > 0 {
		at = Position{Line: le.ContextMark.Line, Column: le.ContextMark.Column}
	}
	for at.Line > 1 && strings.TrimSpace(d.line(at.Line)) == "" {
		at.Line--
		at.Column = utf8.RuneCountInString(d.line(at.Line)) + 1
	}
	at.Line, at.Column = max(at.Line, 1), max(at.Column, 1)
	why, hint := d.explain(le.Message, at)
	d.add(at, 1, why, hint)
}

// explain gives the mistakes that people really make their own words.
func (d *decoder) explain(message string, at Position) (why, hint string) {
	line := d.line(at.Line)
	next := ""
	if rest := []rune(line); at.Column <= len(rest) {
		next = string(rest[at.Column-1])
	}
	switch {
	case next == "\t" || strings.Contains(message, "tab character"):
		return "the line is indented with a tab", "indent with spaces: YAML allows no tabs there"
	case strings.Contains(line, "{{"):
		return message, `quote a placeholder: "{{KEY}}"; without quotes { begins a YAML map`
	case strings.HasPrefix(message, "unknown anchor"):
		return "a value that begins with * is a YAML alias",
			"quote it; in a domain list write example.com, which covers every name under it"
	case strings.Contains(line, "[::") || strings.Contains(line, "]:"):
		return message, `quote an IPv6 address in brackets: "[::1]:443"`
	case strings.Contains(message, "cannot start any token"):
		return fmt.Sprintf("a value cannot begin with %q", next), "put the value in quotes"
	case strings.Contains(message, "mapping values are not allowed"):
		return "a second “key: value” stands on the line, or it is indented too far",
			"quote a value that holds “: ”, and give keys of one map the same indentation"
	case strings.Contains(message, "incompatible YAML document"):
		return "it asks for another version of YAML", "remove the %YAML line"
	case strings.Contains(message, "unexpected end of stream"):
		return "the quotes that open here are never closed", "close them"
	}
	return message, "check indentation, quotes and brackets from here upwards"
}

// walk holds every node, known key or not, to what no config needs: anchors,
// aliases, merge keys, tags, keys that are no words, duplicates, control
// characters and absurd sizes. It reports whether the tree may be read.
func (d *decoder) walk(v value, depth int) bool {
	d.nodes++
	switch {
	case d.nodes > maxNodes:
		d.fail(v, fmt.Sprintf("the file has more than %d values", maxNodes), "split what is in it, or list zones instead of hosts")
		return false
	case depth > maxDepth:
		d.fail(v, fmt.Sprintf("it is nested deeper than %d levels", maxDepth), "")
		return false
	case v.n.Kind == yaml.AliasNode:
		d.fail(v, "YAML aliases are not supported", "write the value out; quote it if it is meant to begin with *")
		return false
	case v.n.Anchor != "":
		d.fail(v, "YAML anchors are not supported", "remove &"+printable(v.n.Anchor)+", and write the value out where it is needed")
		return false
	case v.n.Style&yaml.TaggedStyle != 0:
		d.fail(v, "YAML tags are not supported", "remove "+printable(v.n.Tag)+"; put text in quotes")
		return false
	}
	switch v.n.Kind {
	case yaml.MappingNode:
		return d.walkMap(v, depth)
	case yaml.SequenceNode:
		return d.walkList(v, depth)
	}
	return d.checkText(v)
}

func (d *decoder) walkList(v value, depth int) bool {
	if len(v.n.Content) > maxItems {
		d.fail(v, fmt.Sprintf("it has more than %d entries", maxItems), "")
		return false
	}
	ok := true
	for i := range v.n.Content {
		ok = d.walk(v.item(i), depth+1) && ok
		if d.nodes > maxNodes {
			return false
		}
	}
	return ok
}

func (d *decoder) walkMap(v value, depth int) bool {
	if len(v.n.Content) > 2*maxItems {
		d.fail(v, fmt.Sprintf("it has more than %d keys", maxItems), "")
		return false
	}
	if placeholder(v.n) {
		return true // the reader of the value has the better words for it
	}
	ok := true
	seen := make(map[string]int, len(v.n.Content)/2)
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		k := v.n.Content[i]
		at := value{n: k, path: v.path}
		switch {
		case k.Kind != yaml.ScalarNode && k.Kind != yaml.AliasNode:
			hint := `quote it if it is text: "{{KEY}}" without quotes is a YAML map`
			if k.Kind == yaml.SequenceNode {
				hint = `quote an IPv6 address in brackets: "[::1]:443"`
			}
			d.fail(at, "a key must be a word", hint)
			ok = false
			continue
		case k.ShortTag() == "!!merge":
			d.fail(at, "YAML merge keys are not supported", "write the keys out")
			ok = false
			continue
		}
		child := v.child(k.Value, v.n.Content[i+1])
		if first := seen[k.Value]; first > 0 {
			d.fail(value{n: k, path: child.path}, fmt.Sprintf("the key is already on line %d", first), "keep one of the two")
			ok = false
			continue
		}
		seen[k.Value] = k.Line
		ok = d.walk(at, depth+1) && ok
		ok = d.walk(child, depth+1) && ok
		if d.nodes > maxNodes {
			return false
		}
	}
	return ok
}

func (d *decoder) checkText(v value) bool {
	if len(v.n.Value) > maxText {
		d.fail(v, fmt.Sprintf("it is longer than %d bytes", maxText), "")
		return false
	}
	for _, r := range v.n.Value {
		if r != '\n' && r != '\t' && isControl(r) {
			d.fail(v, fmt.Sprintf("the character %U is not allowed", r), "control characters are refused everywhere")
			return false
		}
	}
	return true
}

// placeholder recognises {{KEY}} written without quotes: a map whose only key
// is a map whose only key has no value.
func placeholder(n *yaml.Node) bool {
	if n.Kind != yaml.MappingNode || len(n.Content) != 2 || n.Content[0].Kind != yaml.MappingNode {
		return false
	}
	in := n.Content[0].Content
	return len(in) == 2 && in[0].Kind == yaml.ScalarNode && in[1].ShortTag() == "!!null" &&
		n.Content[1].ShortTag() == "!!null"
}
