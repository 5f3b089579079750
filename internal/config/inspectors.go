package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// InspectorRef is one entry of the section inspectors that is not about a
// built-in inspector. Either Path or When is set.
type InspectorRef struct {
	Name   string
	Path   string // absolute
	When   string
	Action string   // block, flag or observe; empty takes what the inspector says, and block for When
	Reason string   // of When; empty takes one that has the name in it
	On     []string // of When: request, response

	Config  map[string]any // for the inspector; values are those of JSON
	Timeout time.Duration  // of one answer; 0 takes the default of the inspector's kind, as below
	Workers int
	Memory  int64 // bytes of each worker
	MaxBody int64 // bytes

	Position Position
	at       map[string]place
}

// place is where a value stands in the file, for errors that are found later.
type place struct {
	Position
	file, source string
	width        int
	inner        int // characters before the text begins; -1 where it is not written as it is read
}

// Error is an error about the value of one of the entry's keys that is found
// after the file was read. column is a place in a text, in characters from 0.
func (i *InspectorRef) Error(key string, column int, why, hint string) *Error {
	p, ok := i.at[key]
	if !ok {
		return &Error{Position: i.Position, Why: why, Hint: hint}
	}
	e := &Error{Position: p.Position, File: p.file, Why: why, Hint: hint, source: p.source, width: p.width}
	if column > 0 && p.inner >= 0 {
		e.Column += p.inner + column
		e.width = 1
	}
	return e
}

// whenDirections are the values of on.
var whenDirections = []string{"request", "response"}

var inspectorKeys = []key[InspectorRef]{
	textKey("name", "", "Name of the inspector, as it is in the audit log. Required.", func(i *InspectorRef) *string { return &i.Name }),
	{name: "path", typ: "path", doc: "File of an inspector in Python or WebAssembly.", read: func(d *decoder, v value, i *InspectorRef) {
		i.note(d, "path", v)
		i.Path, _ = d.path(v)
	}},
	{name: "when", typ: "condition", doc: "Condition over the fields of inspectors.md, in place of path.", read: func(d *decoder, v value, i *InspectorRef) {
		i.note(d, "when", v)
		i.When, _ = d.text(v)
	}},
	choiceKey("action", "", "The most that is done with a finding. observe only records it. Without it a condition blocks, and others do as they say.",
		[]string{"block", "flag", "observe"}, func(i *InspectorRef) *string { return &i.Action }),
	textKey("reason", "", "Reason of a condition; without it the reason has the name.", func(i *InspectorRef) *string { return &i.Reason }),
	{name: "on", typ: "list of request, response", doc: "What a condition looks at; without it requests alone.", read: func(d *decoder, v value, i *InspectorRef) {
		i.On = list(d, v, func(v value) (string, bool) { return d.choice(v, whenDirections) })
	}},
	{name: "config", typ: typeMap + " of its own", doc: "Settings of the inspector. For a built-in one they replace those of its section.", read: func(d *decoder, v value, i *InspectorRef) {
		i.note(d, "config", v)
	}},
	durationKey("timeout", "", "Time for one answer. Without it 5s for Python and 1s for WebAssembly.", 5*time.Minute, func(i *InspectorRef) *time.Duration { return &i.Timeout }),
	intKey("workers", "", "Processes or instances of it that work at one time. Without it 2.", 1, 16, func(i *InspectorRef) *int { return &i.Workers }),
	{name: "memory", typ: "size", doc: "Limit of memory of each. Without it 512m for Python and 128m for WebAssembly.", read: func(d *decoder, v value, i *InspectorRef) { i.Memory, _ = d.bytes(v) }},
	{name: "max_body", typ: "size", doc: "Longest body that it is shown; a longer one blocks. Without it 10m.", read: func(d *decoder, v value, i *InspectorRef) { i.MaxBody, _ = d.bytes(v) }},
}

// maxInspectors bounds the list: each has processes of its own.
const maxInspectors = 16

// sections of built-in inspectors, by the inspector's name. A section that
// this version does not have is none of its inspectors either.
var sections = map[string]string{
	"domain": "domains", "secrets": "secrets", "body-size": "max_request_body", "entropy": "entropy", "content-type": "content_type",
	"rate-limit": "rate_limit", "known-values": "known_values", "budget": "budget",
}

// sectionKeys is topKeys, which names readInspectors itself.
var sectionKeys []key[Config]

func init() { sectionKeys = topKeys }

func sectionOf(builtin string) (key[Config], bool) {
	i := slices.IndexFunc(sectionKeys, func(k key[Config]) bool { return k.name == sections[builtin] })
	if i < 0 {
		return key[Config]{}, false
	}
	return sectionKeys[i], true
}

// builtin lists the inspectors that may be named without path and when.
func builtin() []string {
	var out []string
	for name := range sections {
		if _, ok := sectionOf(name); ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// note keeps where a value stands.
func (i *InspectorRef) note(d *decoder, key string, v value) {
	if i.at == nil {
		i.at = make(map[string]place)
	}
	p := place{Position: v.position(), file: d.file, source: d.line(v.n.Line), width: v.width(), inner: -1}
	if v.n.Kind == yaml.ScalarNode && strings.Contains(p.source, v.n.Value) {
		p.inner = (v.width() - len([]rune(v.n.Value))) / 2
	}
	i.at[key] = p
}

func readInspectors(d *decoder, v value, c *Config) {
	seen := make(map[string]int)
	c.Inspectors = list(d, v, func(v value) (InspectorRef, bool) {
		i := InspectorRef{Position: v.position()}
		before := len(d.errs)
		fields(d, v, inspectorKeys, &i)
		if len(d.errs) > before {
			return i, false
		}
		first, twice := seen[i.Name]
		seen[i.Name] = v.n.Line
		_, own := sections[i.Name]
		switch {
		case i.Name == "":
			d.fail(v, "it has no name", "add name: NAME")
		case len(i.Name) > 64:
			d.fail(d.where[v.path+".name"], "the name is longer than 64 bytes", "")
		case twice:
			d.fail(d.where[v.path+".name"], fmt.Sprintf("the inspector on line %d has that name", first), "give every inspector a name of its own")
		case own || i.Path == "" && i.When == "":
			d.builtinRef(v, i.Name, c)
			return i, false
		case i.Path != "" && i.When != "":
			d.fail(v, "it has both path and when", "keep one of the two")
		default:
			d.customRef(v, &i)
		}
		return i, len(d.errs) == before
	})
	if len(c.Inspectors) > maxInspectors {
		d.fail(d.where[v.path], fmt.Sprintf("there are more than %d inspectors", maxInspectors), "")
	}
}

// refKeys are the keys that an entry has, by name.
func refKeys(v value) map[string]value {
	out := make(map[string]value)
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		k := v.n.Content[i]
		out[k.Value] = v.child(k.Value, v.n.Content[i+1])
	}
	return out
}

// only refuses the keys of an entry that its kind does not have.
func (d *decoder) only(v value, kind string, names ...string) {
	for name := range refKeys(v) {
		if !slices.Contains(append(names, "name"), name) {
			d.fail(d.where[v.path+"."+name], "it is not for "+kind, "remove it")
		}
	}
}

func (d *decoder) customRef(v value, i *InspectorRef) {
	if i.When != "" {
		d.only(v, "a condition", "when", "action", "reason", "on")
		return
	}
	d.only(v, "an inspector with a path", "path", "action", "config", "timeout", "workers", "memory", "max_body")
	if at, ok := refKeys(v)["config"]; ok {
		i.Config = d.plainMap(at)
	}
}

// builtinRef reads the settings of a built-in inspector as its section would be
// read, on top of nothing but the defaults.
func (d *decoder) builtinRef(v value, name string, c *Config) {
	at := d.where[v.path+".name"]
	section, ok := sectionOf(name)
	if _, known := sections[name]; !ok {
		if known {
			d.fail(at, fmt.Sprintf("this version has no inspector %q", name), "")
			return
		}
		d.fail(at, fmt.Sprintf("%q is no built-in inspector", clip(name)), "add a path to its program, or a condition with when; "+hintChoice(name, builtin()))
		return
	}
	before := len(d.errs)
	d.only(v, "a built-in inspector", "config")
	config, ok := refKeys(v)["config"]
	if !ok || len(d.errs) > before {
		return
	}
	if config.n.Kind != yaml.MappingNode || placeholder(config.n) {
		d.table(config, func(_, _ value) {})
		return
	}
	if other, both := d.where[section.name]; both {
		d.fail(d.where[config.path], fmt.Sprintf("the section %s on line %d sets the same", section.name, other.n.Line), "keep one of the two")
		return
	}
	if _, named := refKeys(config)[section.name]; named || len(section.sub) == 0 { // a single value
		fields(d, config, []key[Config]{section}, c)
		return
	}
	section.read(d, config, c)
}

// plainMap turns a map into values of JSON. walk has refused what YAML has on
// top of that and counted the values.
func (d *decoder) plainMap(v value) map[string]any {
	out := make(map[string]any)
	d.table(v, func(k, v value) { out[k.n.Value] = d.plain(v) })
	return out
}

func (d *decoder) plain(v value) any {
	switch v.n.Kind {
	case yaml.MappingNode:
		return d.plainMap(v)
	case yaml.SequenceNode:
		out := make([]any, 0, len(v.n.Content))
		for i := range v.n.Content {
			out = append(out, d.plain(v.item(i)))
		}
		return out
	case yaml.ScalarNode:
		return d.plainScalar(v)
	default:
		return nil // walk has refused it
	}
}

func (d *decoder) plainScalar(v value) any {
	s := v.n.Value
	switch v.n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(s, "true")
	case "!!int":
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && strconv.FormatInt(n, 10) == s {
			return n
		}
		d.fail(v, fmt.Sprintf("%q is not a whole number in decimal digits", clip(s)), "write it in decimal digits, or put it in quotes")
	case "!!float":
		if f, err := strconv.ParseFloat(s, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) && !strings.ContainsAny(s, "_xX") {
			return f
		}
		d.fail(v, fmt.Sprintf("%q is not a number that JSON can hold", clip(s)), "write it in decimal digits, or put it in quotes")
	}
	return s
}
