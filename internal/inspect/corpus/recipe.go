package corpus

import (
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"strings"
)

// kitchen makes what recipes ask for.
type kitchen struct {
	files   fs.FS
	samples map[string]sample
}

// Known is the value that the gateway is to hold when the corpus is run.
const Known = "k9Qw3-Zr7Tn2Xb8LmV5cHs1Jd4Gf6Py0Ae"

// rng is a source of chance that gives the same for the same words.
func rng(words ...string) *rand.Rand {
	h := fnv.New64a()
	for _, w := range words {
		h.Write([]byte(w + "\x00"))
	}
	return rand.New(rand.NewPCG(h.Sum64(), uint64(len(words)))) //nolint:gosec // it is to be the same each time
}

// fill replaces every recipe in a text: {{SOURCE > TRANSFORM > …}}.
func (k *kitchen) fill(name, text string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{{")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		recipe, after, closed := cutRecipe(rest)
		if !closed {
			return "", fmt.Errorf("a recipe is not closed: {{%.40s", rest)
		}
		out, err := k.cook(name, recipe)
		if err != nil {
			return "", fmt.Errorf("{{%s}}: %w", recipe, err)
		}
		b.Write(out)
		text = after
	}
}

// cutRecipe ends a recipe at the first "}}" that is not within quotes.
func cutRecipe(s string) (recipe, after string, closed bool) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			q, err := strconv.QuotedPrefix(s[i:])
			if err != nil {
				return "", "", false
			}
			i += len(q) - 1
		case strings.HasPrefix(s[i:], "}}"):
			return s[:i], s[i+2:], true
		}
	}
	return "", "", false
}

// cook makes what one recipe asks for.
func (k *kitchen) cook(name, recipe string) ([]byte, error) {
	steps := splitTrim(recipe, " > ")
	if strings.HasPrefix(steps[0], `"`) {
		text, err := strconv.Unquote(steps[0])
		if err != nil {
			return nil, err
		}
		return k.transform(name, []byte(text), steps[1:])
	}
	word, args := words(steps[0])
	source, ok := sources[word]
	if !ok {
		return nil, fmt.Errorf("there is no source %q", word)
	}
	out, err := source(k, &call{name: name, word: word, args: args})
	if err != nil {
		return nil, err
	}
	return k.transform(name, out, steps[1:])
}

// call is one step of a recipe.
type call struct {
	name, word string
	args       []string
}

// rng gives chance that depends on the case and on the whole step.
func (c *call) rng() *rand.Rand {
	return rng(append([]string{c.name, c.word}, c.args...)...)
}

// number returns an argument, or a default where there is none.
func (c *call) number(i, or int) int {
	if i < len(c.args) {
		if n, err := strconv.Atoi(c.args[i]); err == nil {
			return n
		}
	}
	return or
}

func (c *call) text(i int, or string) string {
	if i < len(c.args) {
		return c.args[i]
	}
	return or
}

func words(s string) (string, []string) {
	var all []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if s[0] == '"' {
			if q, err := strconv.QuotedPrefix(s); err == nil {
				text, _ := strconv.Unquote(q) // QuotedPrefix has found it good
				all, s = append(all, text), s[len(q):]
				continue
			}
		}
		word, rest, _ := strings.Cut(s, " ")
		all, s = append(all, word), rest
	}
	if len(all) == 0 {
		return "", nil
	}
	return all[0], all[1:]
}

// transform sends data through the steps of a recipe.
func (k *kitchen) transform(name string, data []byte, steps []string) ([]byte, error) {
	for _, s := range steps {
		if s == "" {
			continue
		}
		word, args := words(s)
		t, ok := transforms[word]
		if !ok {
			return nil, fmt.Errorf("there is no transform %q", word)
		}
		out, err := t(&call{name: name, word: word, args: args}, data)
		if err != nil {
			return nil, err
		}
		data = out
	}
	return data, nil
}
