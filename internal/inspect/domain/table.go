package domain

import (
	"context"
	"slices"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// Listed returns the most specific entry of the allowlist, passthrough
// included, that covers a name. In a blocklist nothing is listed.
func (in *Inspector) Listed(name hostname.Name) (entry hostname.Name, ok bool) {
	if in == nil || in.mode != config.Allowlist {
		return hostname.Name{}, false
	}
	entry, entries := in.covering(name)
	return entry, len(entries) > 0
}

// Names returns the listed hosts that DNS answers for: names only, sorted and
// without repetition. The caller must not change them.
func (in *Inspector) Names() []hostname.Name {
	if in == nil || in.mode != config.Allowlist {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(in.names), hostname.Name.IsIP)
}

// Open reports whether hosts are reachable without being listed: a blocklist.
func (in *Inspector) Open() bool {
	return in != nil && in.mode == config.Blocklist && len(in.rules) > 0
}

// Blocked reports whether no request for a name can pass, whatever its
// method, path and port. DNS asks it, which sees nothing but the name.
func (in *Inspector) Blocked(name hostname.Name) bool {
	if !in.Open() {
		_, ok := in.Listed(name)
		return !ok
	}
	whole := func(e config.Entry) bool {
		return len(e.Methods) == 0 && len(e.Paths) == 0 && len(e.Ports) == 0
	}
	for n := name; !n.IsZero(); n = n.Parent() {
		h := in.rules[n]
		if h != nil && (slices.ContainsFunc(h.zone, whole) || n == name && slices.ContainsFunc(h.exact, whole)) {
			return true
		}
	}
	return name.IsZero()
}

// Passthrough reports whether TLS to a name and port is to be spliced without
// being decrypted: the most specific host that is listed for the name is a
// passthrough host and the tunnel itself is admitted.
func (in *Inspector) Passthrough(name hostname.Name, port uint16) bool {
	if in == nil || in.mode == "" {
		return false
	}
	for n := name; !n.IsZero(); n = n.Parent() {
		h := in.rules[n]
		if h == nil || n != name && len(h.zone) == 0 && !h.passZone {
			continue
		}
		if !h.passZone && !(h.passExact && n == name) {
			return false
		}
		tunnel := &inspect.Request{Method: "CONNECT", Scheme: "https", Host: name, Port: port, Opaque: true}
		return in.Inspect(context.Background(), tunnel).Action == inspect.Allowed
	}
	return false
}

// Private reports whether a name may resolve to private addresses: an entry
// of the most specific listed host says so. In a blocklist none may.
func (in *Inspector) Private(name hostname.Name) bool {
	if in == nil || in.mode != config.Allowlist {
		return false
	}
	_, entries := in.covering(name)
	return slices.ContainsFunc(entries, func(e config.Entry) bool { return e.Private })
}

// Ports returns every port that an entry names, and 80 and 443, sorted. The
// caller must not change them.
func (in *Inspector) Ports() []uint16 {
	if in == nil || len(in.ports) == 0 {
		return defaultPorts
	}
	return in.ports
}
