// Package domain decides by destination: host, port, method and path.
package domain

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// maxShown is how many bytes of a method or path a reason repeats.
const maxShown = 200

// defaultPorts are the ports of an entry that names none.
var defaultPorts = []uint16{80, 443}

// overrides are request headers by which common frameworks take another
// method or path than that of the request line.
var (
	methodOverrides = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}
	pathOverrides   = []string{"X-Original-Url", "X-Rewrite-Url"}
)

// Inspector decides by a domain list. It is immutable and safe for concurrent
// use. The zero Inspector blocks everything.
type Inspector struct {
	mode  config.Mode
	rules map[hostname.Name]*host
	ports []uint16
	names []hostname.Name
}

// host is everything that is said about one listed host.
type host struct {
	zone  []config.Entry // entries that cover the host and everything under it
	exact []config.Entry // entries for the host alone

	passZone, passExact bool // its TLS is spliced
}

var _ inspect.Inspector = (*Inspector)(nil)

// New builds the table of a domain list. It fails on an unknown mode and on
// an entry without a host.
func New(d config.Domains) (*Inspector, error) {
	switch d.Mode {
	case "", config.Allowlist, config.Blocklist:
	default:
		return nil, fmt.Errorf("cannot use domains: the mode %q is neither allowlist nor blocklist", d.Mode)
	}
	in := &Inspector{mode: d.Mode, rules: make(map[hostname.Name]*host)}
	for _, e := range d.Entries {
		if err := in.add(e, false); err != nil {
			return nil, err
		}
	}
	for _, e := range d.Passthrough {
		if err := in.add(e, true); err != nil {
			return nil, err
		}
	}
	in.ports = append(in.ports, defaultPorts...)
	slices.Sort(in.ports)
	in.ports = slices.Compact(in.ports)
	slices.SortFunc(in.names, func(a, b hostname.Name) int { return strings.Compare(a.String(), b.String()) })
	in.names = slices.Compact(in.names)
	return in, nil
}

// add files one entry. In a blocklist the passthrough entries are kept apart,
// because they open and the others close.
func (in *Inspector) add(e config.Entry, passthrough bool) error {
	if e.Host.IsZero() {
		return fmt.Errorf("cannot use domains: the entry %s has no host", e.Position.Key)
	}
	h := in.rules[e.Host]
	if h == nil {
		h = &host{}
		in.rules[e.Host] = h
	}
	in.ports = append(in.ports, e.Ports...)
	if passthrough {
		h.passZone = h.passZone || !e.Exact
		h.passExact = true
	}
	if in.mode == config.Blocklist && passthrough {
		return nil
	}
	if in.mode != config.Blocklist {
		in.names = append(in.names, e.Host)
	}
	if e.Exact {
		h.exact = append(h.exact, e)
	} else {
		h.zone = append(h.zone, e)
	}
	return nil
}

// Name returns "domain".
func (in *Inspector) Name() string { return "domain" }

// Inspect decides about the destination of a request.
func (in *Inspector) Inspect(_ context.Context, r *inspect.Request) inspect.Finding {
	switch {
	case r.Host.IsZero():
		return block("the request has no host")
	case len(in.rules) == 0 || in.mode == "":
		return block("no domain allowlist configured (default-deny): " + r.Host.String())
	case in.mode == config.Blocklist:
		return in.byBlocklist(r)
	default:
		return in.byAllowlist(r)
	}
}

// byAllowlist lets the most specific listed host decide: any entry for it that
// admits the request is enough, and entries for hosts above it do not count.
func (in *Inspector) byAllowlist(r *inspect.Request) inspect.Finding {
	_, entries := in.covering(r.Host)
	if len(entries) == 0 {
		return block("domain not in allowlist: " + r.Host.String())
	}
	var nearest refusal
	for i := range entries {
		why := admits(&entries[i], r)
		if why == admitted {
			return inspect.Pass()
		}
		nearest = max(nearest, why)
	}
	return block(nearest.reason(r))
}

// byBlocklist blocks when any entry that covers the host matches, the ones
// for hosts above it included. The ports stay closed as in an allowlist.
func (in *Inspector) byBlocklist(r *inspect.Request) inspect.Finding {
	for n := r.Host; !n.IsZero(); n = n.Parent() {
		h := in.rules[n]
		if h == nil {
			continue
		}
		for i := range h.zone {
			if mayMatch(&h.zone[i], r) {
				return block("domain in blocklist: " + r.Host.String())
			}
		}
		for i := range h.exact {
			if n == r.Host && mayMatch(&h.exact[i], r) {
				return block("domain in blocklist: " + r.Host.String())
			}
		}
	}
	if !slices.Contains(defaultPorts, r.Port) {
		return block(wrongPort.reason(r))
	}
	return inspect.Pass()
}

// covering returns the most specific listed host that covers a name, and the
// entries that count for the name.
func (in *Inspector) covering(name hostname.Name) (hostname.Name, []config.Entry) {
	if in == nil {
		return hostname.Name{}, nil
	}
	for n := name; !n.IsZero(); n = n.Parent() {
		h := in.rules[n]
		switch {
		case h == nil:
		case n == name && len(h.exact) > 0 && len(h.zone) > 0:
			return n, slices.Concat(h.exact, h.zone)
		case n == name && len(h.exact) > 0:
			return n, h.exact
		case len(h.zone) > 0:
			return n, h.zone
		}
	}
	return hostname.Name{}, nil
}

func block(reason string) inspect.Finding {
	return inspect.Finding{Action: inspect.Blocked, Reason: reason, Severity: inspect.Warning}
}
