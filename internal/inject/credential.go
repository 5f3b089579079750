package inject

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/agentcage/agentcage/internal/inspect"
)

// foreign finds credentials in slots of credentials that are not the
// placeholder of a rule for the host: with a key of an attacker's own, an agent
// that may talk to an API may carry anything to that API (peer-holes C1).
//
// The rules for one host agree on the strictest of what they say.
func (x *examination) foreign() {
	action := x.foreignAction()
	if action == inspect.Allowed {
		return
	}
	report := func(slot string) {
		x.add(inspect.Finding{Action: action, Rule: "foreign_credentials", Reason: "foreign credential in " + slot, Severity: inspect.Critical})
	}
	for _, name := range slices.Sorted(maps.Keys(x.c.Header)) {
		for _, v := range x.c.Header[name] {
			x.foreignHeader(name, v, report)
		}
	}
	u := x.c.Request.URL
	if u == nil {
		return
	}
	if u.User != nil && u.User.String() != "" {
		report("the user information of the URL")
	}
	if u.RawQuery == "" {
		return
	}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, value = unescape(name), unescape(value)
		if isCredentialParameter(name) && value != "" && !x.isOwn(value) && !x.ownSignature(name) {
			report("query parameter " + printable(name))
		}
	}
}

func (x *examination) foreignAction() inspect.Decision {
	action := inspect.Allowed
	for _, r := range x.bound {
		switch r.Foreign {
		case "allow":
		case "flag":
			action = min(action, inspect.Flagged)
		default:
			return inspect.Blocked
		}
	}
	return action
}

func unescape(s string) string {
	if out, err := url.QueryUnescape(s); err == nil {
		return out
	}
	return s
}

func (x *examination) foreignHeader(name, value string, report func(string)) {
	value = strings.TrimSpace(value)
	if value == "" {
		return
	}
	switch strings.ToLower(name) {
	case "cookie":
		x.foreignCookies(value, report)
		return
	case "sec-websocket-protocol":
		if x.foreignProtocols(value) {
			report(name)
		}
		return
	}
	if !isCredentialHeader(name) {
		return
	}
	if b, ok := parseBasic(value); ok {
		if x.foreignBasic(b.text) {
			report(printable(name))
		}
		return
	}
	if !x.isOwnHeader(value) {
		report(printable(name))
	}
}

// isOwn reports whether s is the placeholder of a rule for the host.
func (x *examination) isOwn(s string) bool {
	return slices.ContainsFunc(x.bound, func(r *rule) bool { return r.Placeholder == s })
}

// beforeOwn is what may stand before a placeholder in a header: a scheme, and
// the name of a parameter. Neither is long enough, nor has the characters, to
// be a credential itself.
var beforeOwn = regexp.MustCompile(`^(?:[A-Za-z][A-Za-z-]{0,19} +)?(?:[A-Za-z_]{1,20}=)?"?$`)

// isOwnHeader reports whether a value is a placeholder of a rule for the host
// with nothing beside it but its scheme. With anything else beside it, a server
// may read that.
func (x *examination) isOwnHeader(value string) bool {
	for _, r := range x.bound {
		before, after, ok := strings.Cut(value, r.Placeholder)
		if !ok {
			continue
		}
		if beforeOwn.MatchString(before) && (after == "" || after == `"` && strings.HasSuffix(before, `"`)) {
			return true
		}
		// The transform signs the request again, and nothing of this is sent.
		if r.signs() && before == "AWS4-HMAC-SHA256 Credential=" && strings.HasPrefix(after, "/") {
			return true
		}
	}
	return false
}

// foreignBasic looks at a user and a password. One of the two must be a
// placeholder; the other may be a name, as in x-access-token or an address.
func (x *examination) foreignBasic(text string) bool {
	if text == "" || text == ":" {
		return false
	}
	// A placeholder may have colons itself.
	for _, r := range x.bound {
		if rest, ok := strings.CutPrefix(text, r.Placeholder); ok && (rest == "" || rest[0] == ':') {
			password := strings.TrimPrefix(rest, ":")
			return !x.isOwn(password) && !isName(password)
		}
		if user, ok := strings.CutSuffix(text, ":"+r.Placeholder); ok {
			return !isName(user) || strings.Contains(user, ":")
		}
	}
	return true
}

// isName reports whether s is short, or an address, and so no key: those have
// twenty characters and more, with letters and digits mixed.
func isName(s string) bool {
	const longestName, longestAddress = 19, 64
	if len(s) <= longestName {
		return true
	}
	return len(s) <= longestAddress && (strings.Contains(s, "@") || !strings.ContainsAny(s, "0123456789"))
}

// foreignCookies looks at cookies whose name says that they log somebody in. A
// cookie of any other name passes: clients send back what a server's balancer
// or its protection against bots gave them.
func (x *examination) foreignCookies(value string, report func(string)) {
	for pair := range strings.SplitSeq(value, ";") {
		name, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
		v = strings.Trim(v, `"`)
		if v != "" && isCredentialCookie(name) && !x.isOwn(v) {
			report("cookie " + printable(name))
		}
	}
}

// foreignProtocols looks for keys in the names of WebSocket protocols, where
// browsers put them for want of headers.
func (x *examination) foreignProtocols(value string) bool {
	named, foreign := false, false
	for item := range strings.SplitSeq(value, ",") {
		item = strings.TrimSpace(item)
		own := slices.ContainsFunc(x.bound, func(r *rule) bool {
			before, ok := strings.CutSuffix(item, r.Placeholder)
			return ok && isName(before)
		})
		if own {
			continue
		}
		if containsAny(strings.ToLower(item), "auth", "key", "token", "bearer", "secret") {
			named = true
			foreign = foreign || !isName(item)
		} else if !isName(item) {
			foreign = true
		}
	}
	return named && foreign
}

// harmless are headers that are named like credentials and are none.
var harmless = map[string]bool{
	"idempotency-key": true, "x-idempotency-key": true, "sec-websocket-key": true,
	"x-csrf-token": true, "x-xsrf-token": true, "x-csrftoken": true, "csrf-token": true, "anti-csrf-token": true,
	"authority": true, "author": true, "x-author": true, "x-git-author": true,
	"x-auth-email": true, "x-auth-user": true, "x-auth-type": true, "x-auth-method": true,
	"surrogate-key": true, "cache-key": true, "x-cache-key": true, "partition-key": true, "x-partition-key": true,
	"x-max-tokens": true, "x-ms-documentdb-partitionkey": true, "keep-alive": true,
	"x-amz-server-side-encryption-aws-kms-key-id": true, "x-continuation-token": true, "x-ms-continuation-token": true,
}

// isCredentialHeader judges a header by its name. Proxy-Authorization is for
// the gateway, and goes no further.
func isCredentialHeader(name string) bool {
	name = strings.ToLower(name)
	if harmless[name] || name == "proxy-authorization" {
		return false
	}
	return containsAny(name, "auth", "key", "token", "secret", "credential", "password", "signature", "session", "jwt")
}

// pages are beginnings of the names of tokens that are none: where a list goes
// on, and what makes a request unique.
var pages = []string{"page", "next", "prev", "continu", "sync", "start", "pagination", "cursor", "resume", "csrf", "xsrf", "client", "idempotency", "max"}

// separators are what names differ in.
var separators = strings.NewReplacer("-", "", "_", "", ".", "", "[", "", "]", "")

// isCredentialParameter judges a query parameter by its name.
func isCredentialParameter(name string) bool {
	name = strings.ToLower(name)
	name = separators.Replace(name)
	switch name {
	case "key", "auth", "authorization", "sig", "signature", "password", "passwd", "pwd", "pass", "secret", "jwt", "bearer", "session", "sessionid", "sid", "credentials", "credential":
		return true
	}
	if strings.HasSuffix(name, "token") {
		return !slices.ContainsFunc(pages, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	for _, end := range []string{"apikey", "accesskey", "accesskeyid", "secretkey", "authkey", "appkey", "privatekey", "subscriptionkey", "secret", "password", "signature", "credential"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

func isCredentialCookie(name string) bool {
	name = strings.ToLower(name)
	if containsAny(name, "csrf", "xsrf") {
		return false
	}
	return name == "sid" || strings.HasSuffix(name, ".sid") || strings.HasSuffix(name, "_sid") ||
		containsAny(name, "sess", "auth", "token", "key", "jwt", "secret", "credential", "login", "passw", "remember")
}

func containsAny(s string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(s, w) })
}
