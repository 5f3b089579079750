package config

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"golang.org/x/net/publicsuffix"

	"github.com/agentcage/agentcage/internal/hostname"
)

// rawDomains is the domains section as it was written, in any of its ages.
type rawDomains struct {
	mode                            Mode
	list, allow, block, passthrough []rawEntry
}

// rawEntry keeps the place of an entry until it is known what it is for: a
// public suffix may be blocked, and must not be allowed.
type rawEntry struct {
	Entry
	at    value
	exact *bool // what an entry's own key "exact" says
}

var domainKeys = []key[rawDomains]{
	{
		name: "allow", typ: "list of entries", doc: "The only hosts that can be reached.", sub: docsOf("[].", entryKeys),
		read: func(d *decoder, v value, r *rawDomains) { r.allow = list(d, v, d.entry) },
	},
	{
		name: "block", typ: "list of entries", doc: "Hosts that cannot be reached; all others can. Not together with allow. An empty list allows nothing.",
		read: func(d *decoder, v value, r *rawDomains) { r.block = list(d, v, d.entry) },
	},
	{
		name: "passthrough", typ: "list of entries", doc: "Hosts that can be reached, and whose TLS is passed on unread. An entry has no methods or paths.",
		read: func(d *decoder, v value, r *rawDomains) { r.passthrough = list(d, v, d.entry) },
	},
	{name: "mode", typ: "allowlist or blocklist", doc: "Older form: what list is. Without it list is an allowlist.", read: readMode},
	{
		name: "list", typ: "list of entries", doc: "Older form: the entries of mode.",
		read: func(d *decoder, v value, r *rawDomains) { r.list = list(d, v, d.entry) },
	},
}

var entryKeys = []key[rawEntry]{
	{name: "host", typ: "text", doc: "The host: example.com covers every name under it, =example.com only itself; a port may follow.", read: readHost},
	boolEntry("exact", "The host alone, and no name under it.", func(e *rawEntry, b bool) { e.exact = &b }),
	{name: "methods", typ: typeList, doc: "The HTTP methods it is for. Without it, all.", read: readMethods},
	{name: "paths", typ: typeList, doc: "The paths it is for: * is any part of a segment, ** any number of segments. Without it, all.", read: readPaths},
	{name: "ports", typ: "list of numbers", doc: "The ports it is for. Without it, 80 and 443; in a list that blocks, every port.", read: readPorts},
	boolEntry("private", "The host may have private addresses.", func(e *rawEntry, b bool) { e.Private = b }),
}

func boolEntry(name, doc string, set func(*rawEntry, bool)) key[rawEntry] {
	return key[rawEntry]{name: name, typ: "true or false", doc: doc, read: func(d *decoder, v value, e *rawEntry) {
		if b, ok := d.bool(v); ok {
			set(e, b)
		}
	}}
}

// readDomains reads the section. What is absent, null or empty allows
// nothing, an empty blocklist included (peer-holes B13).
func readDomains(d *decoder, v value, c *Config) {
	c.Domains = Domains{}
	var r rawDomains
	fields(d, v, domainKeys, &r)
	d.mixed(v)

	entries, mode := r.list, r.mode
	switch {
	case d.has(v, "allow"):
		entries, mode = r.allow, Allowlist
	case d.has(v, "block"):
		entries, mode = r.block, Blocklist
	case mode == "" && (d.has(v, "list") || len(r.passthrough) > 0):
		mode = Allowlist
	}
	if mode == Blocklist && len(entries) == 0 {
		mode = ""
		d.warn(d.keyOf(v), "the blocklist is empty, and an empty list allows nothing")
		if len(r.passthrough) > 0 {
			mode = Allowlist
		}
	}
	c.Domains.Mode = mode
	c.Domains.Entries = d.entries(entries, mode)
	d.passthrough(r.passthrough)
	d.unreadable(r.passthrough, entries)
	c.Domains.Passthrough = d.entries(r.passthrough, Allowlist)
	for _, old := range []string{"mode", "list"} {
		if at, ok := d.where[v.path+"."+old]; ok {
			d.warn(at.position(), "domains.mode and domains.list are the older form of domains.allow and domains.block")
			break
		}
	}
}

func (d *decoder) has(v value, name string) bool {
	_, ok := d.where[v.path+"."+name]
	return ok
}

// keyOf is the position of the key of v, not of its value.
func (d *decoder) keyOf(v value) Position {
	if at, ok := d.where[v.path]; ok {
		return at.position()
	}
	return v.position()
}

// mixed refuses a section that says the same thing twice.
func (d *decoder) mixed(v value) {
	allow, hasAllow := d.where[v.path+".allow"]
	block, hasBlock := d.where[v.path+".block"]
	if hasAllow && hasBlock {
		d.fail(later(allow, block), "allow and block cannot be used together",
			"keep allow: what it does not name is blocked anyway; narrow it with methods, paths or =host")
	}
	for _, old := range []string{"mode", "list"} {
		at, has := d.where[v.path+"."+old]
		if has && (hasAllow || hasBlock) {
			d.fail(at, "the older mode and list cannot be mixed with allow or block", "move the entries to allow or block, and remove mode and list")
			return
		}
	}
}

// entries finishes a list: what may be reached is no public suffix, and what
// is blocked has no say about private addresses.
func (d *decoder) entries(raw []rawEntry, mode Mode) []Entry {
	var out []Entry
	for _, r := range raw {
		if mode == Blocklist && r.Private {
			d.fail(r.at, "an entry that blocks cannot be private", "name the host in upstream.allow_private")
			continue
		}
		if mode != Blocklist && !r.Exact && !d.notSuffix(r.at, r.Host, "; or ="+r.Host.String()+" for that one name alone") {
			continue
		}
		out = append(out, r.Entry)
	}
	return out
}

// notSuffix refuses names under which strangers register theirs. A single
// label that is no domain of the public DNS, such as localhost or corp, is
// none of those.
func (d *decoder) notSuffix(at value, host hostname.Name, hint string) bool {
	if host.IsIP() || host.IsZero() || host.String() == "home.arpa" {
		return true // home.arpa is the zone of home networks (RFC 8375)
	}
	suffix, icann := publicsuffix.PublicSuffix(host.String())
	isSuffix := suffix == host.String()
	// The list has "*.ck" and no "ck": everything under such a name is for
	// registration too.
	below := "x." + host.String()
	wild, wildICANN := publicsuffix.PublicSuffix(below)
	if isSuffix && icann || wild == below && wildICANN {
		d.fail(at, fmt.Sprintf("%s is a public suffix: it would cover every domain that anyone registers under it", host),
			fmt.Sprintf("name the hosts, such as example.%s", host)+hint)
		return false
	}
	if isSuffix && strings.Contains(suffix, ".") {
		d.warn(at.position(), fmt.Sprintf("anyone can have a name under %s; write the whole name of the host", host))
	}
	return true
}

// passthrough refuses what cannot be looked at when TLS is not opened.
func (d *decoder) passthrough(raw []rawEntry) {
	for _, r := range raw {
		at, narrow := d.where[r.at.path+".methods"]
		if !narrow {
			at, narrow = d.where[r.at.path+".paths"]
		}
		if narrow {
			d.fail(at, "an entry of passthrough cannot have methods or paths, because its requests are never read",
				"move the entry to allow, or remove methods and paths")
		}
	}
}

// unreadable refuses a passthrough entry for the host of an entry with
// methods or paths, which could not be held once TLS is passed on unread.
func (d *decoder) unreadable(pass, entries []rawEntry) {
	narrow := make(map[hostname.Name][]rawEntry)
	for _, e := range entries {
		if len(e.Methods) > 0 || len(e.Paths) > 0 {
			narrow[e.Host] = append(narrow[e.Host], e)
		}
	}
	for _, p := range pass {
		for _, e := range narrow[p.Host] {
			if !portsMeet(p.Ports, e.Ports) {
				continue
			}
			d.fail(p.at, fmt.Sprintf("the entry on line %d limits methods or paths of %s, and passthrough would not read them", e.Position.Line, p.Host),
				"remove one of the two, or give them different ports")
			break
		}
	}
}

// portsMeet reports whether two lists of ports have one in common, where an
// empty one is 80 and 443.
func portsMeet(a, b []uint16) bool {
	usual := []uint16{80, 443}
	if len(a) == 0 {
		a = usual
	}
	if len(b) == 0 {
		b = usual
	}
	return slices.ContainsFunc(a, func(p uint16) bool { return slices.Contains(b, p) })
}

func readMode(d *decoder, v value, r *rawDomains) {
	if v.isNull() {
		return
	}
	s, _ := d.choice(v, []string{string(Allowlist), string(Blocklist)})
	r.mode = Mode(s)
}

// entry reads one line of a list: a host, or a map that narrows one.
func (d *decoder) entry(v value) (rawEntry, bool) {
	e := rawEntry{at: v, Entry: Entry{Position: v.position()}}
	before := len(d.errs)
	switch {
	case v.n.Kind != yaml.MappingNode || placeholder(v.n):
		readHost(d, v, &e)
	case len(v.n.Content) == 2 && v.n.Content[1].ShortTag() == "!!int" && !isEntryKey(v.n.Content[0].Value):
		d.fail(v, "a port must follow the colon without a space", fmt.Sprintf("write %s:%s", clip(v.n.Content[0].Value), clip(v.n.Content[1].Value)))
	default:
		fields(d, v, entryKeys, &e)
		if !d.has(v, "host") {
			d.fail(v, "it has no host", "add host: example.com")
		}
	}
	if e.exact != nil {
		if e.Exact && !*e.exact {
			d.fail(d.where[v.path+".exact"], "the host begins with =, which means exact", "remove one of the two")
		}
		e.Exact = *e.exact
	}
	return e, len(d.errs) == before && !e.Host.IsZero()
}

func isEntryKey(s string) bool {
	return slices.ContainsFunc(entryKeys, func(k key[rawEntry]) bool { return k.name == s })
}

// readHost reads "example.com", ".example.com", "=api.example.com" and an
// address, each with or without a port.
func readHost(d *decoder, v value, e *rawEntry) {
	read := d.text
	if tag := v.n.ShortTag(); tag == "!!int" || tag == "!!float" {
		read = d.literal // 127.1 is a number to YAML, and no host in quotes either
	}
	s, ok := read(v)
	if !ok {
		return
	}
	host, exact := strings.CutPrefix(s, "=")
	if !exact {
		host, _ = strings.CutPrefix(host, ".")
	}
	name, port, err := splitHost(host)
	if err != nil {
		why, hint := explainHost(host, err)
		d.fail(v, why, hint)
		return
	}
	if name.IsIP() && len(host) != len(s) {
		d.fail(v, "an address has no names under it", "write the address alone: "+name.String())
		return
	}
	e.Host, e.Exact = name, exact
	if port == 0 {
		return
	}
	e.Ports = []uint16{port}
}

// splitHost is hostname.ParseAuthority that also takes a bare IPv6 address.
func splitHost(s string) (hostname.Name, uint16, error) {
	if strings.Count(s, ":") > 1 && !strings.HasPrefix(s, "[") {
		n, err := hostname.Parse(s)
		return n, 0, err
	}
	return hostname.ParseAuthority(s)
}

// explainHost finds what somebody meant who wrote no host.
func explainHost(s string, err error) (why, hint string) {
	why = fmt.Sprintf("%q is no host", clip(s))
	if i := strings.Index(s, "://"); i >= 0 {
		rest, _, _ := strings.Cut(s[i+3:], "/")
		return why + " but a URL", "write only the host: " + clip(rest)
	}
	host, path, hasPath := strings.Cut(s, "/")
	_, prefixErr := netip.ParsePrefix(s)
	switch {
	case s == "*" || s == "*.*" || s == "":
		return why, "list the hosts; domains.block is for all hosts but some"
	case strings.HasPrefix(s, "*."):
		return why, fmt.Sprintf("write %s: it covers every name under it", clip(s[2:]))
	case strings.Contains(s, "*"):
		return why, "wildcards are not supported; example.com covers every name under it"
	case prefixErr == nil:
		return why + " but a range of addresses", "list the addresses one by one; ranges belong in upstream.allow_private"
	case hasPath:
		return why, fmt.Sprintf("write {host: %s, paths: [/%s]}", clip(host), clip(path))
	case strings.Contains(s, "@"):
		return why, "leave out the user"
	case strings.ContainsAny(s, " ,;"):
		return why, "write one host an entry"
	case strings.HasPrefix(s, "=") || strings.HasPrefix(s, "."):
		return why, "write one = or one . in front of a host, not more"
	}
	if strings.HasPrefix(err.Error(), "cannot read port") {
		return why + ": its port must be 1 to 65535", "write a port such as 443, or none"
	}
	_, reason, _ := strings.Cut(err.Error(), ": ")
	return why + ": " + reason, "write a name such as example.com, or an address"
}

func readMethods(d *decoder, v value, e *rawEntry) { e.Methods = d.methods(v) }

// methods takes capitals only: methods are case-sensitive (RFC 9110 section
// 9.1), and "get" would match nothing.
func (d *decoder) methods(v value) []string {
	if !d.some(v, "every method") {
		return nil
	}
	return list(d, v, func(v value) (string, bool) {
		s, ok := d.text(v)
		switch {
		case !ok:
		case s == http.MethodConnect:
			d.fail(v, "CONNECT opens a tunnel and is no method of a request", "allow the host; name the port under ports")
			ok = false
		case s != strings.ToUpper(s):
			d.fail(v, fmt.Sprintf("%q is not in capitals", clip(s)), "write "+clip(strings.ToUpper(s)))
			ok = false
		case strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || len(s) > 32:
			d.fail(v, fmt.Sprintf("%q is no HTTP method", clip(s)), "write one such as GET, one an item")
			ok = false
		}
		return s, ok
	})
}

// some refuses a list that is there and empty: left out it means everything,
// so empty could be read as either everything or nothing (rule 30).
func (d *decoder) some(v value, all string) bool {
	if v.isNull() || v.n.Kind == yaml.SequenceNode && len(v.n.Content) == 0 {
		d.fail(v, "it is empty", "name at least one, or remove the key for "+all)
		return false
	}
	return true
}

func readPaths(d *decoder, v value, e *rawEntry) { e.Paths = d.paths(v) }

func (d *decoder) paths(v value) []string {
	if !d.some(v, "every path") {
		return nil
	}
	return list(d, v, func(v value) (string, bool) {
		s, ok := d.text(v)
		if !ok {
			return "", false
		}
		if why, hint := checkGlob(s); why != "" {
			d.fail(v, fmt.Sprintf("%q %s", clip(s), why), hint)
			return "", false
		}
		return s, true
	})
}

// checkGlob holds a pattern to the paths that requests can have after they
// were decoded; every other pattern would match nothing, or would match what
// two servers read differently (peer-holes A7).
func checkGlob(s string) (why, hint string) {
	switch {
	case s[0] != '/':
		return "does not begin with /", "write /" + clip(s)
	case strings.Contains(s, "%"):
		return "has a percent sign", "write the decoded path: patterns are matched after decoding"
	case strings.ContainsAny(s, "?#"):
		return "has a query or a fragment", "patterns are for the path alone"
	case strings.ContainsAny(s, `\;`):
		return `has a \ or a ;`, "servers do not agree on what it means; requests with it are refused"
	case strings.Contains(s, "//"):
		return "has an empty segment", "write one / between segments"
	case !utf8.ValidString(s):
		return "is not UTF-8", ""
	}
	for _, segment := range strings.Split(s, "/") {
		switch {
		case segment == "." || segment == "..":
			return "has a . or .. segment", "write the path it leads to"
		case segment != "**" && strings.Contains(segment, "**"):
			return "has ** within a segment", "write /**/ for any number of segments, and * within one"
		}
	}
	return "", ""
}

func readPorts(d *decoder, v value, e *rawEntry) {
	if !d.some(v, "80 and 443") {
		return
	}
	if len(e.Ports) > 0 {
		d.fail(v, "the host has a port already", "keep one of the two")
		return
	}
	e.Ports = list(d, v, func(v value) (uint16, bool) {
		n, ok := d.int(v, 1, 65535)
		return uint16(n), ok
	})
}
