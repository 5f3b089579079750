package domain

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
)

// refusal says why an entry does not admit a request. The higher one was
// nearer to being admitted and makes the better reason.
type refusal uint8

const (
	wrongPort refusal = iota
	unseen            // the entry needs a method or path and the tunnel is not decrypted
	wrongMethod
	ambiguousPath
	wrongPath
	admitted
)

// reason is the text for the client and the audit log. Method and path are
// the agent's, so only the beginning is repeated.
func (why refusal) reason(r *inspect.Request) string {
	host := r.Host.String()
	switch why {
	case unseen:
		return fmt.Sprintf("tunnel not allowed for %s: its entry needs to see method or path", host)
	case wrongMethod:
		return fmt.Sprintf("method not allowed for %s: %s%s", host, clip(r.Method), overridden(r))
	case ambiguousPath:
		return fmt.Sprintf("path not allowed for %s: it is ambiguous", host)
	case wrongPath:
		return fmt.Sprintf("path not allowed for %s: %s", host, clip(r.Path))
	default:
		return fmt.Sprintf("port not allowed for %s: %d", host, r.Port)
	}
}

// admits compares a request with one entry of an allowlist.
func admits(e *config.Entry, r *inspect.Request) refusal {
	ports := e.Ports
	if len(ports) == 0 {
		ports = defaultPorts
	}
	if !slices.Contains(ports, r.Port) {
		return wrongPort
	}
	return within(e, r)
}

// Covers reports whether an exception with these terms is for a request.
// Without a host it is for every host, and without ports for every port.
// Methods and paths are held as strictly as those of an allowlist: what cannot
// be seen, or what two servers could read differently, is not covered.
func Covers(e *config.Entry, r *inspect.Request) bool {
	switch {
	case r.Host.IsZero():
		return false
	case e.Exact && r.Host != e.Host, !e.Host.IsZero() && !r.Host.Within(e.Host):
		return false
	case len(e.Ports) > 0 && !slices.Contains(e.Ports, r.Port):
		return false
	}
	return within(e, r) == admitted
}

// within holds a request against the methods and paths of an entry.
func within(e *config.Entry, r *inspect.Request) refusal {
	switch {
	case r.Opaque && (len(e.Methods) > 0 || len(e.Paths) > 0):
		return unseen
	case len(e.Methods) > 0 && !methodsIn(e.Methods, r):
		return wrongMethod
	case len(e.Paths) > 0 && ambiguous(r):
		return ambiguousPath
	case len(e.Paths) > 0 && !pathIn(e.Paths, r.Path):
		return wrongPath
	}
	return admitted
}

// mayMatch compares a request with one entry of a blocklist. What cannot be
// seen is taken for a match. An entry without ports closes every port.
func mayMatch(e *config.Entry, r *inspect.Request) bool {
	if len(e.Ports) > 0 && !slices.Contains(e.Ports, r.Port) {
		return false
	}
	if r.Opaque {
		return true
	}
	if len(e.Methods) > 0 && !anyMethodIn(e.Methods, r) {
		return false
	}
	return len(e.Paths) == 0 || ambiguous(r) || anyPathIn(e.Paths, r.Path)
}

// anyPathIn is for blocklists: some servers fold case, and some take a slash at
// the end for nothing.
func anyPathIn(globs []string, path string) bool {
	path = strings.TrimSuffix(strings.ToLower(path), "/")
	return slices.ContainsFunc(globs, func(g string) bool {
		g = strings.ToLower(g)
		return inspect.MatchPath(g, path) || inspect.MatchPath(g, path+"/")
	})
}

// methodsIn reports whether the method, and every method that a header asks
// the server to take instead, is listed. Methods are case-sensitive (RFC 9110
// section 9.1), so "get" is not the GET that was listed.
func methodsIn(list []string, r *inspect.Request) bool {
	if !contains(list, r.Method, func(a, b string) bool { return a == b }) {
		return false
	}
	for _, name := range methodOverrides {
		for _, v := range values(r.Header, name) {
			if !contains(list, strings.TrimSpace(v), strings.EqualFold) {
				return false
			}
		}
	}
	return true
}

// anyMethodIn is for blocklists: some servers fold case, so it does too.
func anyMethodIn(list []string, r *inspect.Request) bool {
	if contains(list, r.Method, strings.EqualFold) {
		return true
	}
	return overridden(r) != ""
}

// overridden names the header by which a request asks for another method.
func overridden(r *inspect.Request) string {
	for _, name := range methodOverrides {
		if len(values(r.Header, name)) > 0 {
			return " with " + name
		}
	}
	return ""
}

func contains(list []string, s string, equal func(a, b string) bool) bool {
	return slices.ContainsFunc(list, func(m string) bool { return equal(strings.ToUpper(m), s) })
}

// ambiguous reports whether a server might see another path than r.Path.
func ambiguous(r *inspect.Request) bool {
	if r.Path == "" {
		return true
	}
	return slices.ContainsFunc(pathOverrides, func(name string) bool { return len(values(r.Header, name)) > 0 })
}

func pathIn(globs []string, path string) bool {
	return slices.ContainsFunc(globs, func(g string) bool { return inspect.MatchPath(g, path) })
}

// values finds all that is stored under a name in any case, and with
// underscores for hyphens, which CGI-style servers do not tell apart.
func values(h http.Header, canonical string) []string {
	var all []string
	for k, v := range h {
		if len(k) == len(canonical) && strings.EqualFold(strings.ReplaceAll(k, "_", "-"), canonical) {
			all = append(all, v...)
		}
	}
	return all
}

func clip(s string) string {
	if len(s) > maxShown {
		return strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return s
}
