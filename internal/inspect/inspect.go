// Package inspect decides about requests: a chain of inspectors looks at each
// one before its first byte leaves, and gives a verdict.
//
// Everything here denies by its zero value: a Decision that nobody set, a
// Finding that an inspector forgot to fill, a Verdict that was never reached
// and a Chain without inspectors all block.
package inspect

import (
	"context"
	"net/http"
	"net/url"

	"github.com/agentcage/agentcage/internal/hostname"
)

// Decision is what happens to a request. The zero Decision blocks.
type Decision uint8

// The decisions, from the strictest on.
const (
	Blocked Decision = iota
	Flagged          // passed on, and recorded as worth a look
	Allowed
)

// String returns the word used in the audit log.
func (d Decision) String() string {
	switch d {
	case Flagged:
		return "flagged"
	case Allowed:
		return "allowed"
	default:
		return "blocked"
	}
}

// Severity says how much a finding matters to whoever reads the audit log.
type Severity string

// The severities of the audit log, from the lowest on.
const (
	Debug    Severity = "debug"
	Info     Severity = "info"
	Warning  Severity = "warning"
	Error    Severity = "error"
	Critical Severity = "critical"
)

// Via is the way on which a request reached the gateway. It is recorded, and
// it never changes a decision.
type Via string

// The ways in.
const (
	ViaProxy          Via = "proxy"            // absolute-form request to the explicit proxy
	ViaConnect        Via = "connect"          // inside TLS inside a CONNECT tunnel
	ViaConnectPlain   Via = "connect-plain"    // plain HTTP inside a CONNECT tunnel
	ViaTransparentTLS Via = "transparent-tls"  // TLS that was sent to any address
	ViaTransparent    Via = "transparent-http" // plain HTTP that was sent to any address
)

// Request is what inspectors see of a request, before any secret is put into
// it. Inspectors must not change it.
type Request struct {
	Via    Via
	Method string        // "CONNECT" when Opaque
	Scheme string        // "http" or "https"
	Host   hostname.Name // the canonical destination: CONNECT target, SNI and Host agree on it
	Port   uint16

	// Path is the decoded path that rules match, from DecodePath. URL
	// keeps the escaped form that is sent on.
	Path string
	URL  *url.URL

	Header        http.Header
	ContentLength int64 // -1 when not known beforehand

	// Opaque is set for a TLS tunnel that is not decrypted: there is no
	// method, path or header to look at, and a rule that needs one blocks.
	Opaque bool

	// Again is set when something that runs is decided once more, by
	// another policy: an inspector that counts requests counts no new one.
	Again bool
}

// EscapedPath returns the path as it is sent on: where net/url would write it in
// another way, the engine keeps it in URL.Opaque.
func (r *Request) EscapedPath() string {
	switch {
	case r.URL == nil:
		return ""
	case r.URL.Opaque != "":
		return r.URL.Opaque
	default:
		return r.URL.EscapedPath()
	}
}

// Finding is what one inspector says of one request. The zero Finding blocks.
type Finding struct {
	Inspector string // filled in by the chain
	Action    Decision
	Rule      string // which rule of the inspector, as in "github_token"; may be empty
	Reason    string
	Severity  Severity
	Status    int  // HTTP status of a refusal; 0 means 403
	Mode      Mode // whether the action is enforced
}

// Mode says whether a finding is enforced. The zero Mode enforces.
type Mode uint8

// The modes.
const (
	Enforced Mode = iota
	Observed      // recorded as it would have been decided
	Exempt        // the config excepts it
)

// String returns the word used in the audit log, and nothing for what is
// enforced.
func (m Mode) String() string {
	switch m {
	case Observed:
		return "observe"
	case Exempt:
		return "exempt"
	default:
		return ""
	}
}

// Pass is the finding of an inspector that has nothing to object to.
func Pass() Finding { return Finding{Action: Allowed} }

// Inspector looks at one request.
//
// Inspect is called concurrently. It must return Pass() to let the request
// go on; the zero Finding, a panic and a cancelled context block.
type Inspector interface {
	Name() string
	Inspect(ctx context.Context, r *Request) Finding
}

// BodyLimiter is an optional interface of an Inspector that bounds the body of
// a request whose length is not known beforehand.
type BodyLimiter interface {
	// BodyLimit returns the most bytes of body that may be sent, or -1
	// for no limit.
	BodyLimit(r *Request) int64
}

// Verdict is the outcome of the whole chain. The zero Verdict blocks.
type Verdict struct {
	Decision Decision
	Reason   string    // of the block, or the flags joined by "; "
	Status   int       // HTTP status of the refusal: 403 or 429
	Findings []Finding // every finding that flagged or blocked, enforced or not
	// BodyLimit is the most bytes of body that may follow, -1 for no
	// limit. It means something only when the request is not blocked.
	BodyLimit int64
}

// Allowed reports whether the request may go on, flagged or not.
func (v Verdict) Allowed() bool { return v.Decision != Blocked }
