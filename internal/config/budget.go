package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/agentcage/agentcage/internal/hostname"
)

// Budget bounds what leaves in a window of time, to each destination and from
// the cage as a whole.
type Budget struct {
	Enabled bool
	Window  time.Duration
	Each    Limits                   // of each destination
	Total   Limits                   // of the cage
	PerHost map[hostname.Name]Limits // of a host and every name under it, in place of Each
}

// Limits are the budgets of one destination.
type Limits struct {
	Bytes    Threshold // heads and bodies of requests, and messages
	Requests Threshold
	Hosts    Threshold // distinct names
}

// Threshold says above which count something is flagged, and above which it is
// blocked. 0 is never.
type Threshold struct {
	Flag, Block int64
}

var budgetKeys = []key[Budget]{
	boolKey("enabled", "true", "Whether the section is in force.", func(b *Budget) *bool { return &b.Enabled }),
	{name: "window", typ: "duration", def: "24h", doc: "Time after which what has left no longer counts, from 1m to 720h.", read: readWindow},
	thresholdKey("bytes", "Bytes to each destination: heads and bodies as they are sent, and messages.", bytesKeys("1GiB"),
		func(b *Budget) *Threshold { return &b.Each.Bytes }),
	thresholdKey("requests", "Requests to each destination.", countKeys("50000", ""),
		func(b *Budget) *Threshold { return &b.Each.Requests }),
	thresholdKey("hosts", "Distinct host names under one destination.", countKeys("50", "200"),
		func(b *Budget) *Threshold { return &b.Each.Hosts }),
	section("total", "The same for the cage as a whole.", limitsKeys, func(b *Budget) *Limits { return &b.Total }),
	{
		name: "per_host", typ: "maps by host", def: "{}", doc: "Budgets of a host and every name under it, which make it a destination of its own; what is left out is as for the others.",
		sub: docsOf("[].", limitsKeys), read: readBudgetHosts,
	},
}

var limitsKeys = []key[Limits]{
	thresholdKey("bytes", "Bytes, as above.", bytesKeys(""), func(l *Limits) *Threshold { return &l.Bytes }),
	thresholdKey("requests", "Requests.", countKeys("", ""), func(l *Limits) *Threshold { return &l.Requests }),
	thresholdKey("hosts", "Distinct host names.", countKeys("", ""), func(l *Limits) *Threshold { return &l.Hosts }),
}

func readBudgetHosts(d *decoder, v value, b *Budget) {
	b.PerHost = perHost(d, v, func(v value) Limits {
		l := b.Each
		fields(d, v, limitsKeys, &l)
		return l
	})
}

// readWindow holds that the window has a length at which counting makes sense.
func readWindow(d *decoder, v value, b *Budget) {
	w, ok := d.duration(v, math.MaxInt64)
	switch {
	case ok && (w < time.Minute || w > 720*time.Hour):
		d.fail(v, fmt.Sprintf("%s is out of range", clip(v.n.Value)), "write 1m to 720h; rate_limit is for less")
	case ok:
		b.Window = w
	}
}

// thresholdKey is a map of flag and block, or false for neither.
func thresholdKey[T any](name, doc string, keys []key[Threshold], at func(*T) *Threshold) key[T] {
	return key[T]{name: name, typ: "map, or false", doc: doc, sub: docsOf(".", keys), read: func(d *decoder, v value, t *T) {
		if isFalse(v) {
			*at(t) = Threshold{}
			return
		}
		fields(d, v, keys, at(t))
		flag, hasFlag := d.where[v.path+".flag"]
		_, hasBlock := d.where[v.path+".block"]
		if c := *at(t); hasFlag && hasBlock && c.Block > 0 && c.Flag >= c.Block {
			d.fail(flag, "nothing is flagged that is blocked before", "write less than block, or false")
		}
	}}
}

func bytesKeys(flag string) []key[Threshold] {
	size := func(d *decoder, v value) (int64, bool) { return d.quantity(v, 1, maxBudget) }
	return limitKeys("size, or false", flag, "", size)
}

func countKeys(flag, block string) []key[Threshold] {
	count := func(d *decoder, v value) (int64, bool) { return d.int(v, 1, maxCount) }
	return limitKeys("whole number, or false", flag, block, count)
}

// maxBudget and maxCount are the highest thresholds. Host names are kept while
// they count, so their number is bounded by them too.
const (
	maxBudget = 1 << 50
	maxCount  = 1 << 40
)

func limitKeys(typ, flag, block string, read func(*decoder, value) (int64, bool)) []key[Threshold] {
	limit := func(name, def, doc string, at func(*Threshold) *int64) key[Threshold] {
		return key[Threshold]{name: name, typ: typ, def: def, doc: doc, read: func(d *decoder, v value, t *Threshold) {
			if isFalse(v) {
				*at(t) = 0
			} else if n, ok := read(d, v); ok {
				*at(t) = n
			}
		}}
	}
	return []key[Threshold]{
		limit("flag", flag, "The most that is not flagged.", func(t *Threshold) *int64 { return &t.Flag }),
		limit("block", block, "The most that is let through.", func(t *Threshold) *int64 { return &t.Block }),
	}
}

func isFalse(v value) bool {
	return v.n.Kind == yaml.ScalarNode && v.n.ShortTag() == "!!bool" && strings.EqualFold(v.n.Value, "false")
}

// perHost reads a map from hosts, each of which stands for every name under it
// too.
func perHost[T any](d *decoder, v value, read func(value) T) map[hostname.Name]T {
	var out map[hostname.Name]T
	d.table(v, func(k, v value) {
		host, ok := d.host(k)
		before := len(d.errs)
		t := read(v)
		switch _, twice := out[host]; {
		case !ok || len(d.errs) > before:
			return
		case twice:
			d.fail(k, fmt.Sprintf("%s is there already, in other letters", host), "remove one of the two")
			return
		}
		if out == nil {
			out = make(map[hostname.Name]T)
		}
		out[host] = t
	})
	return out
}

// quantity reads a number of bytes: a whole number, or one with a unit.
func (d *decoder) quantity(v value, lo, hi int64) (int64, bool) {
	if v.n.Kind != yaml.ScalarNode || v.n.ShortTag() != "!!str" {
		return d.int(v, lo, hi)
	}
	n, ok := parseSize(v.n.Value)
	switch {
	case isDigits(v.n.Value):
		return d.int(v, lo, hi) // which says what is wrong with quotes
	case !ok:
		d.fail(v, fmt.Sprintf("%q is not a size", clip(v.n.Value)), "write a number of bytes, or one with a unit of powers of 1024, such as 10MiB")
		return 0, false
	case n < lo || n > hi:
		d.fail(v, fmt.Sprintf("%s is out of range", clip(v.n.Value)), fmt.Sprintf("write %d to %d", lo, hi))
		return 0, false
	}
	return n, true
}

// parseSize reads a whole number with a unit of powers of 1024: b, k, m, g, t,
// of which all but b may be written as in KiB.
func parseSize(s string) (int64, bool) {
	digits, shift := strings.ToLower(s), 0
	digits = strings.TrimSuffix(digits, "ib")
	if i := strings.IndexByte("bkmgt", last(digits)); digits != "" && i >= 0 && (i > 0 || len(digits) == len(s)) {
		digits, shift = digits[:len(digits)-1], 10*i
	} else if len(digits) < len(s) {
		return 0, false // "10ib"
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !isDigits(digits) || n < 0 || n > math.MaxInt64>>(shift+1) {
		return 0, false
	}
	return n << shift, true
}

// readBody reads max_request_body in both forms.
func readBody(d *decoder, v value, c *Config) {
	if v.n.Kind != yaml.MappingNode || placeholder(v.n) {
		if n, ok := d.quantity(v, 0, maxBody); ok {
			c.MaxRequestBody = n
		}
		return
	}
	fields(d, v, bodyKeys, c)
}

const maxBody = 1 << 40

var bodyKeys = []key[Config]{
	{name: "default", typ: "size", doc: "The limit of every other host.", read: func(d *decoder, v value, c *Config) {
		if n, ok := d.quantity(v, 0, maxBody); ok {
			c.MaxRequestBody = n
		}
	}},
	{name: "per_host", typ: "sizes by host", doc: "The limit of a host and every name under it.", read: func(d *decoder, v value, c *Config) {
		c.MaxRequestBodyPerHost = perHost(d, v, func(v value) int64 {
			n, _ := d.quantity(v, 0, maxBody)
			return n
		})
	}},
}

// readRateHosts reads rate_limit.per_host, whose defaults are the section's own.
func readRateHosts(d *decoder, v value, r *RateLimit) {
	r.PerHost = perHost(d, v, func(v value) RateLimit {
		own := RateLimit{RequestsPerSecond: r.RequestsPerSecond, Burst: r.Burst, Wait: r.Wait}
		fields(d, v, bucketKeys, &own)
		return own
	})
}
