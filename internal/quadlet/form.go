package quadlet

import (
	"errors"
	"fmt"
	"strings"
)

// form is how the values of a key are written.
type form struct {
	least, most int  // how many values it takes; most 0 is any number
	command     bool // systemd also replaces $NAME in it
	words       bool // is split at spaces, with quotes
	pair        bool // two values, as NAME=VALUE in one word
	check       func(string) error
}

// join escapes values and makes one text of them.
func (f form) join(values []string) (string, error) {
	if len(values) < f.least || f.most > 0 && len(values) > f.most {
		return "", fmt.Errorf("it does not take %d values", len(values))
	}
	for _, v := range values {
		if err := f.fits(v); err != nil {
			return "", err
		}
	}
	if f.pair {
		if name := values[0]; name == "" || strings.ContainsAny(name, "= \t\"'\\$%") {
			return "", fmt.Errorf("%q is no name", clip(name))
		}
		values = []string{values[0] + "=" + values[1]}
	}
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = f.escape(v)
	}
	text := strings.Join(parts, " ")
	if len(text) > maxValue {
		return "", fmt.Errorf("it is longer than %d bytes", maxValue)
	}
	return text, nil
}

// fits tells why a value cannot be written in this form.
func (f form) fits(v string) error {
	if err := printable(v); err != nil {
		return err
	}
	if f.check != nil {
		if err := f.check(v); err != nil {
			return err
		}
	}
	switch {
	case f.command && !f.pair && v == ";":
		// The generator writes it without the quotes that keep systemd from
		// reading the end of a command in it.
		return errors.New("a lone semicolon cannot be passed on")
	case f.words && !f.pair && v == "":
		// The generator takes it for the end and drops what comes after.
		return errors.New("an empty argument cannot be passed on")
	case f.words:
	case v == "":
		return errors.New("it is empty, which would take back what stands before it")
	case strings.Trim(v, `"'`) != v:
		return fmt.Errorf("%q begins or ends with a quote, which the generator would take off", clip(v))
	case strings.TrimSpace(v) != v:
		return fmt.Errorf("%q begins or ends with a space, which would be lost", clip(v))
	case strings.HasSuffix(v, `\`):
		return fmt.Errorf("%q ends with a backslash, which would join the next line to it", clip(v))
	}
	return nil
}

func (f form) escape(v string) string {
	v = strings.ReplaceAll(v, "%", "%%")
	if f.command {
		v = strings.ReplaceAll(v, "$", "$$")
	}
	if f.words && !plain(v) {
		v = `"` + quoted.Replace(v) + `"`
	}
	return v
}

var quoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// plain tells whether a word means itself without quotes.
func plain(word string) bool {
	for i := range len(word) {
		c := word[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && !strings.ContainsRune("-_./:=,@+%$", rune(c)) {
			return false
		}
	}
	return word != ""
}

// split is the inverse of join.
func (f form) split(text string) ([]string, error) {
	words := []string{text}
	if f.words {
		var err error
		if words, err = splitWords(text); err != nil {
			return nil, err
		}
	}
	for i, w := range words {
		var err error
		if w, err = halve(w, '%'); err != nil {
			return nil, err
		}
		if f.command {
			if w, err = halve(w, '$'); err != nil {
				return nil, err
			}
		}
		words[i] = w
	}
	if f.pair {
		name, value, ok := strings.Cut(words[0], "=")
		if len(words) != 1 || !ok {
			return nil, fmt.Errorf("%q is not NAME=VALUE", clip(text))
		}
		words = []string{name, value}
	}
	return words, nil
}

// halve undoes a doubling. A single one means something of systemd's, which
// Add never writes.
func halve(s string, c byte) (string, error) {
	one, two := string(c), string([]byte{c, c})
	if strings.Contains(strings.ReplaceAll(s, two, ""), one) {
		return "", fmt.Errorf("%q has a single %s", clip(s), one)
	}
	return strings.ReplaceAll(s, two, one), nil
}

func splitWords(text string) ([]string, error) {
	var words []string
	for rest := text; ; {
		word, tail, err := firstWord(rest)
		if err != nil {
			return nil, err
		}
		words = append(words, word)
		if tail == "" {
			return words, nil
		}
		if tail[0] != ' ' {
			return nil, fmt.Errorf("%q has no space after a quote", clip(text))
		}
		rest = tail[1:]
	}
}

// firstWord takes one word off a text, without its quotes.
func firstWord(text string) (word, tail string, err error) {
	if !strings.HasPrefix(text, `"`) {
		if i := strings.IndexByte(text, ' '); i >= 0 {
			return text[:i], text[i:], nil
		}
		return text, "", nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return b.String(), text[i+1:], nil
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("a quote is not closed")
}
