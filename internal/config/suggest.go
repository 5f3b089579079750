package config

import (
	"fmt"
	"slices"
	"strings"
)

// Nearest returns the name that s was meant for, or "" when none is near enough.
func Nearest(s string, names []string) string { return nearest(s, names) }

// nearest returns the name that s is a shorter or longer form of, or else the
// closest in edits, or "" when none is near enough to be what was meant.
func nearest(s string, names []string) string {
	best, distance := "", 1+max(1, min(3, len(s)/3))
	lower := strings.ToLower(s)
	for _, n := range names {
		if len(s) >= 3 && strings.HasPrefix(n, lower) || len(n) >= 4 && strings.HasPrefix(lower, n) {
			return n
		}
	}
	for _, n := range names {
		if d := levenshtein(lower, n); d < distance {
			best, distance = n, d
		}
	}
	return best
}

// levenshtein counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b (optimal string alignment). It gives up on
// long words, which are no misspelt keys.
func levenshtein(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	before, prev := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev = prev, cur
	}
	return prev[len(b)]
}

// hintUnknown says what an unknown key could have been: a misspelling, a key
// of another section, or one of the keys that there are.
func hintUnknown(name string, siblings []string, all []KeyDoc) string {
	if n := nearest(name, siblings); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	for _, k := range all {
		if k.Path == name || strings.HasSuffix(k.Path, "."+name) {
			return fmt.Sprintf("there is a key %s; check the indentation", k.Path)
		}
	}
	if len(siblings) > 10 {
		return "docs/configuration.md lists the keys of cage.yaml"
	}
	return "the keys here are " + strings.Join(slices.Sorted(slices.Values(siblings)), ", ")
}

// hintChoice is the hint for a word that is none of a closed set.
func hintChoice(word string, options []string) string {
	if n := nearest(word, options); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	return "write " + orList(options)
}

func orList(options []string) string {
	if len(options) < 2 {
		return strings.Join(options, "")
	}
	last := len(options) - 1
	return strings.Join(options[:last], ", ") + " or " + options[last]
}
