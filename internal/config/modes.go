package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/agentcage/agentcage/internal/hostname"
)

// Exception is one line of observe or exempt: findings that are recorded and
// not acted upon.
type Exception struct {
	Inspector string
	Rule      string // of the inspector; empty is every rule, and findings without one

	// Where narrows it as an entry of domains narrows a host. Without a
	// host it is for every host, and without ports for every port.
	Where Entry

	Until  time.Time // first instant at which it is no longer in force; zero is never
	Reason string    // why it is there, for whoever reads the file

	Position Position
}

// InForce reports whether the exception has not ended at an instant.
func (e *Exception) InForce(now time.Time) bool {
	return e.Until.IsZero() || now.Before(e.Until)
}

// observable are the inspectors whose findings can be observed: everything
// that gives one in the gateway's chain, but for those that a user adds.
var observable = []string{
	"body-size", "budget", "content-type", "decode", "domain", "entropy", "injection", "known-values", "rate-limit", "secrets",
}

// guarded are the inspectors that keep the gateway's own secrets in. They are
// excepted for named hosts only: a secret of the user's must not become
// anybody's to read by one line without a name in it.
var guarded = []string{"known-values", "injection"}

var exceptionKeys = []key[Exception]{
	textKey("inspector", "", "Name of the inspector, as it is in the audit log. Required.", func(e *Exception) *string { return &e.Inspector }),
	textKey("rule", "", "Name of the rule, as it is in the audit log. Without it, everything that the inspector finds.", func(e *Exception) *string { return &e.Rule }),
	{name: "host", typ: "text", doc: "The host, as in an entry of domains. Without it, every host; known-values and injection need one.", read: readExceptionHost},
	whereKey("methods", typeList, "The HTTP methods it is for. Without it, all.", readMethods),
	whereKey("paths", typeList, "The paths it is for, as in an entry of domains. Without it, all.", readPaths),
	whereKey("ports", "list of numbers", "The ports it is for. Without it, all.", func(d *decoder, v value, e *rawEntry) {
		if d.some(v, "every port") {
			readPorts(d, v, e)
		}
	}),
	{name: "until", typ: "date or instant", doc: "When it ends: a date such as 2027-01-31, whose whole day in UTC still counts, or an instant such as 2027-01-31T18:00:00+01:00. Without it, never.", read: readUntil},
	textKey("reason", "", "Why it is there, for whoever reads the file.", func(e *Exception) *string { return &e.Reason }),
}

// whereKey reads a key of an entry of domains into the entry of an exception.
func whereKey(name, typ, doc string, read func(*decoder, value, *rawEntry)) key[Exception] {
	return key[Exception]{name: name, typ: typ, doc: doc, read: func(d *decoder, v value, e *Exception) {
		raw := rawEntry{Entry: e.Where}
		read(d, v, &raw)
		e.Where = raw.Entry
	}}
}

func readExceptionHost(d *decoder, v value, e *Exception) {
	raw := rawEntry{Entry: e.Where}
	readHost(d, v, &raw)
	if !raw.Host.IsZero() && !raw.Exact && !d.notSuffix(v, raw.Host, "; or ="+raw.Host.String()+" for that one name alone") {
		raw.Host = hostname.Name{}
	}
	e.Where = raw.Entry
}

// readUntil reads an instant. What cannot be read is an error, and never an
// exception without an end (rules.md 130).
func readUntil(d *decoder, v value, e *Exception) {
	s, ok := d.text(v)
	if !ok {
		return
	}
	at, err := time.Parse(time.RFC3339, s)
	if day, e := time.Parse(time.DateOnly, s); e == nil {
		at, err = day.AddDate(0, 0, 1), nil
	}
	if err != nil || at.IsZero() { // the zero instant means that there is no end
		d.fail(v, fmt.Sprintf("%q is neither a date nor an instant", clip(s)), "write a day such as 2027-01-31, or an instant with its offset such as 2027-01-31T18:00:00Z")
		return
	}
	e.Until = at.UTC()
}

func exceptionsKey(name, doc string, at func(*Config) *[]Exception) key[Config] {
	return key[Config]{name: name, typ: "list of maps", def: "[]", doc: doc, sub: docsOf("[].", exceptionKeys), read: func(d *decoder, v value, c *Config) {
		*at(c) = list(d, v, d.exception)
	}}
}

func (d *decoder) exception(v value) (Exception, bool) {
	e := Exception{Position: v.position()}
	before := len(d.errs)
	if v.n.Kind == yaml.ScalarNode && !v.isNull() {
		d.fail(v, "it is a single value, and must be a map of keys", "write {inspector: "+clip(v.n.Value)+"}")
		return e, false
	}
	fields(d, v, exceptionKeys, &e)
	if len(d.errs) == before && e.Inspector == "" {
		d.fail(v, "it has no inspector", "add inspector: NAME")
	}
	return e, len(d.errs) == before
}

// exceptions checks what an exception says against the inspectors that there
// are, the user's own among them.
func (d *decoder) exceptions(c *Config) {
	names := slices.Clone(observable)
	for _, i := range c.Inspectors {
		names = append(names, i.Name)
	}
	for _, e := range c.Observe {
		if d.excepted(e, names) {
			d.warnOpen(e)
		}
	}
	for _, e := range c.Exempt {
		at := d.where[e.Position.Key+".inspector"]
		switch {
		case !d.excepted(e, names):
		case e.Inspector == "domain":
			d.fail(at, "no host is exempt from domains", "add the host to domains.allow; or observe the inspector to learn what is needed")
		case e.Inspector == "decode" && e.Where.Host.IsZero():
			d.fail(at, "content that cannot be decoded is not looked at, and this would let it go to every host", "add host: HOST")
		}
	}
}

// excepted holds what is true of both lists.
func (d *decoder) excepted(e Exception, names []string) bool {
	at := d.where[e.Position.Key+".inspector"]
	switch {
	case !slices.Contains(names, e.Inspector):
		d.fail(at, fmt.Sprintf("there is no inspector %q", clip(e.Inspector)), hintChoice(strings.ReplaceAll(e.Inspector, "_", "-"), names))
	case slices.Contains(guarded, e.Inspector) && e.Where.Host.IsZero():
		d.fail(at, e.Inspector+" keeps the gateway's own secrets in, and this would let them go to every host", "add host: HOST")
	default:
		return true
	}
	return false
}

// warnOpen says what observing means where it opens more than it seems to.
func (d *decoder) warnOpen(e Exception) {
	to := "every host"
	if !e.Where.Host.IsZero() {
		to = e.Where.Host.String()
	}
	switch e.Inspector {
	case "domain":
		d.warn(e.Position, "domain is observed and not enforced: the cage reaches "+to+", whatever domains says")
	case "decode":
		d.warn(e.Position, "decode is observed and not enforced: what cannot be read goes to "+to+" without being looked at")
	}
}
