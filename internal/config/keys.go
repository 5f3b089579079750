package config

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// KeyDoc describes one key of cage.yaml.
type KeyDoc struct {
	Path    string // dotted; [] stands for the items of a list
	Type    string // in words, as in "list of text"
	Default string // in YAML; empty when there is none
	Doc     string // one line
}

// key is one row of the table that everything else is made from: decoding,
// defaults, suggestions and documentation. T is the struct it is read into.
type key[T any] struct {
	name string
	typ  string
	def  string // YAML; read by the same reader as the user's value
	doc  string
	read func(d *decoder, v value, t *T)
	sub  []KeyDoc // the keys below it, with paths from here on
}

// Keys returns every key of cage.yaml, sections before what is in them, in
// the order of the documentation. The result is the caller's.
func Keys() []KeyDoc { return docsOf("", topKeys) }

func docsOf[T any](prefix string, keys []key[T]) []KeyDoc {
	var out []KeyDoc
	for _, k := range keys {
		path := prefix + k.name
		out = append(out, KeyDoc{Path: path, Type: k.typ, Default: k.def, Doc: k.doc})
		for _, s := range k.sub {
			s.Path = path + s.Path
			out = append(out, s)
		}
	}
	return out
}

// Default returns the config of a cage that nobody configured: it has every
// default of the table of keys, no name, and allows nothing.
func Default() *Config {
	d := newDecoder("defaults", nil)
	root := d.parseYAML(defaultsYAML())
	c := new(Config)
	fields(d, value{n: root}, topKeys, c)
	if len(d.errs) > 0 {
		panic("config: the table of keys has a default it cannot read: " + d.errs.Error())
	}
	return c
}

// defaultsYAML writes the defaults of the table as the file that sets them.
var defaultsYAML = sync.OnceValue(func() []byte {
	var b strings.Builder
	for _, k := range Keys() {
		depth := strings.Count(k.Path, ".")
		name := k.Path[strings.LastIndexByte(k.Path, '.')+1:]
		if strings.Contains(k.Path, "[]") || k.Default == "" && !strings.HasPrefix(k.Type, typeMap) {
			continue
		}
		fmt.Fprintf(&b, "%s%s: %s\n", strings.Repeat("  ", depth), name, k.Default)
	}
	return []byte(b.String())
})

const (
	typeMap  = "map"
	typeList = "list of text"
	typePath = "list of paths"
)

// section is a key that holds a map of further keys.
func section[T, S any](name, doc string, keys []key[S], at func(*T) *S) key[T] {
	return key[T]{
		name: name, typ: typeMap, doc: doc, sub: docsOf(".", keys),
		read: func(d *decoder, v value, t *T) { fields(d, v, keys, at(t)) },
	}
}

func textKey[T any](name, def, doc string, at func(*T) *string) key[T] {
	return key[T]{name: name, typ: "text", def: def, doc: doc, read: func(d *decoder, v value, t *T) {
		if def == `""` && isEmptyText(v) {
			*at(t) = ""
		} else if s, ok := d.text(v); ok {
			*at(t) = s
		}
	}}
}

func boolKey[T any](name, def, doc string, at func(*T) *bool) key[T] {
	return key[T]{name: name, typ: "true or false", def: def, doc: doc, read: func(d *decoder, v value, t *T) {
		if b, ok := d.bool(v); ok {
			*at(t) = b
		}
	}}
}

func intKey[T any, N int | int64](name, def, doc string, lo, hi int64, at func(*T) *N) key[T] {
	return key[T]{name: name, typ: "whole number", def: def, doc: doc, read: func(d *decoder, v value, t *T) {
		if n, ok := d.int(v, lo, hi); ok {
			*at(t) = N(n)
		}
	}}
}

func floatKey[T any](name, def, doc string, lo, hi float64, at func(*T) *float64) key[T] {
	return key[T]{name: name, typ: "number", def: def, doc: doc, read: func(d *decoder, v value, t *T) {
		if f, ok := d.float(v, lo, hi); ok {
			*at(t) = f
		}
	}}
}

func durationKey[T any](name, def, doc string, hi time.Duration, at func(*T) *time.Duration) key[T] {
	return key[T]{name: name, typ: "duration", def: def, doc: doc, read: func(d *decoder, v value, t *T) {
		if w, ok := d.duration(v, hi); ok {
			*at(t) = w
		}
	}}
}

func choiceKey[T any](name, def, doc string, options []string, at func(*T) *string) key[T] {
	return key[T]{name: name, typ: orList(options), def: def, doc: doc, read: func(d *decoder, v value, t *T) {
		if s, ok := d.choice(v, options); ok {
			*at(t) = s
		}
	}}
}

// literalsKey is a list whose items are taken as they stand in the file, so
// that a number needs no quotes.
func literalsKey[T any](name, def, doc string, at func(*T) *[]string) key[T] {
	return key[T]{name: name, typ: typeList, def: def, doc: doc, read: func(d *decoder, v value, t *T) {
		*at(t) = list(d, v, d.literal)
	}}
}

func textsKey[T any](name, def, doc string, at func(*T) *[]string) key[T] {
	return key[T]{name: name, typ: typeList, def: def, doc: doc, read: func(d *decoder, v value, t *T) {
		*at(t) = list(d, v, d.text)
	}}
}

func pathsKey[T any](name, doc string, at func(*T) *[]string) key[T] {
	return key[T]{name: name, typ: typePath, def: "[]", doc: doc, read: func(d *decoder, v value, t *T) {
		*at(t) = list(d, v, d.path)
	}}
}

func envKey[T any](name, doc string, at func(*T) *map[string]string) key[T] {
	return key[T]{name: name, typ: "map of variable to text", def: "{}", doc: doc, read: func(d *decoder, v value, t *T) {
		*at(t) = d.env(v)
	}}
}
