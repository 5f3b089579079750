package scan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// parseRules reads a rule file. A line that is not indented is the name of a
// rule, an indented one says something of it: a word, and a value up to the
// end of the line. "#" begins a comment line. The words:
//
//	re PATTERN     required; {assign} stands for what is between a name and its value,
//	               and the name has to be that of a key, a token or the like
//	to HOST…       the secret may go there
//	check KIND     crc32, bech32, jwt, azure-jwt, pem, discord or mixed
//	either         the check or the edges, one of the two is enough
//	edge KIND      of both sides: word, base64 or blob; left and right are one side
//	entropy BITS   least entropy
//	except TEXT    a match with this in it is a known example
//	weak           worth a look, and no more
//	login          no finding where a login puts it
//	hit TEXT       an example; else one is made from the pattern
//	miss TEXT      text that is near and no match
func parseRules(file, text string) ([]*Rule, error) {
	var rules []*Rule
	var r *Rule
	for i, line := range strings.Split(text, "\n") {
		at := fmt.Sprintf("%s:%d", file, i+1)
		word, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case word == "" || word[0] == '#':
		case line[0] != ' ':
			if value != "" {
				return nil, fmt.Errorf("%s: a name is one word", at)
			}
			r = &Rule{Name: word, source: at}
			rules = append(rules, r)
		case r == nil:
			return nil, fmt.Errorf("%s: it belongs to no rule", at)
		default:
			if err := r.set(word, value); err != nil {
				return nil, fmt.Errorf("%s: %w", at, err)
			}
		}
	}
	for _, r := range rules {
		if r.Pattern == "" {
			return nil, fmt.Errorf("%s: %s has no pattern", r.source, r.Name)
		}
	}
	return rules, nil
}

// assign is what may stand between the name of a setting and its value, in
// code, JSON, YAML and the shell.
const assign = `[A-Za-z0-9_.-]{0,24}['"]?[ \t]{0,4}[:=]{1,2}>?[ \t]{0,4}['"]?`

var edgeNames = []string{AnyEdge: "any", WordEdge: "word", Base64Edge: "base64", BlobEdge: "blob"}

func (r *Rule) set(word, value string) (err error) {
	switch word {
	case "re":
		r.Pattern = strings.ReplaceAll(value, "{assign}", assign)
		r.Named = r.Pattern != value
	case "to":
		r.Hosts = append(r.Hosts, strings.Fields(value)...)
	case "check":
		r.Check = checkNames[value]
		if r.Check == NoCheck {
			err = fmt.Errorf("%q is no check", value)
		}
	case "edge", "left", "right":
		kind := slices.Index(edgeNames, value)
		if kind < 0 {
			return fmt.Errorf("%q is no edge", value)
		}
		if word != "right" {
			r.Left = Edge(kind)
		}
		if word != "left" {
			r.Right = Edge(kind)
		}
	case "entropy":
		r.Entropy, err = strconv.ParseFloat(value, 64)
	case "except":
		r.Except = append(r.Except, value)
	case "either":
		r.Either = true
	case "weak":
		r.Weak = true
	case "login":
		r.Login = true
	case "hit":
		r.Hits = append(r.Hits, value)
	case "miss":
		r.Misses = append(r.Misses, value)
	default:
		err = fmt.Errorf("%q is no word of a rule", word)
	}
	return err
}
