// Package budget bounds how much leaves the cage in a window of time: bytes,
// requests and host names, to each destination and in all. It is what bounds
// slow exfiltration through an allowed host, which no look at one request does.
package budget

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// Inspector counts what goes to servers. It belongs behind all others, so that
// hosts that are not allowed are not counted, and what others block is given
// back at once. It is safe for concurrent use. The zero Inspector blocks
// everything.
type Inspector struct {
	cfg         config.Budget
	state       *State
	destination func(hostname.Name) hostname.Name
}

var (
	_ inspect.Inspector        = (*Inspector)(nil)
	_ inspect.ContentInspector = (*Inspector)(nil)
)

// New returns an inspector that counts in state. destination names what is
// taken for one destination; nil takes every host for one.
func New(cfg config.Budget, state *State, destination func(hostname.Name) hostname.Name) *Inspector {
	return &Inspector{cfg: cfg, state: state, destination: destination}
}

// Name returns "budget".
func (in *Inspector) Name() string { return "budget" }

// Inspect counts tunnels that nobody reads, as one request each: of those there
// is no content. What runs was counted when it began.
func (in *Inspector) Inspect(_ context.Context, r *inspect.Request) inspect.Finding {
	switch {
	case in.state == nil:
		return inspect.Finding{Reason: noState, Severity: inspect.Error}
	case !r.Opaque || r.Again:
		return inspect.Pass()
	}
	found, settle := in.charge(amount{requests: 1, name: r.Host}, r.Host)
	worst := inspect.Pass()
	for _, f := range found {
		if f.Action < worst.Action {
			worst = f
		}
	}
	settle(worst.Action != inspect.Blocked)
	return worst
}

const noState = "budget: there is nothing to count in"

// InspectContent counts what goes to a server, and reserves it until the chain
// has decided.
func (in *Inspector) InspectContent(_ context.Context, c *inspect.Content) inspect.Result {
	if in.state == nil {
		return inspect.Done(inspect.Finding{Reason: noState, Severity: inspect.Error})
	}
	if c.Direction == inspect.ToClient {
		return inspect.Done()
	}
	found, settle := in.charge(measure(c), c.Request.Host)
	c.Settle(settle)
	return inspect.Done(found...)
}

// What comes with each message on the wire (grpc.io, PROTOCOL-HTTP2.md; RFC 6455
// section 5.2, of a client). Empty ones carry data too, by their flags and number.
const (
	messageHead = 5
	frameHead   = 6
)

// measure is what a content adds: its bytes as they go out over HTTP/1.1, and
// for a request the request and the name.
func measure(c *inspect.Content) amount {
	a := amount{bytes: int64(len(c.Body) - min(max(c.Repeated, 0), len(c.Body)))}
	for name, lines := range c.Header {
		for _, line := range lines {
			a.bytes += int64(len(name) + len(line) + len(": \r\n"))
		}
	}
	switch c.Kind {
	case inspect.KindMessage:
		a.bytes += messageHead
	case inspect.KindWebSocket:
		a.bytes += frameHead
	}
	if c.Kind != inspect.KindRequest {
		return a
	}
	r := c.Request
	a.requests, a.name = 1, r.Host
	a.bytes += int64(len(r.Method) + len(r.Host.String()) + len("  HTTP/1.1\r\nHost: \r\n\r\n"))
	if r.URL != nil {
		a.bytes += int64(len(r.EscapedPath()) + len(r.URL.RawQuery))
	}
	return a
}

// charge judges an amount and reserves it, unless that blocks. The function it
// returns must be called once, with whether the amount leaves.
func (in *Inspector) charge(a amount, host hostname.Name) ([]inspect.Finding, func(sent bool)) {
	dest, limits := in.account(host)
	c := in.state.charge(dest, a, limits, in.cfg)
	var out []inspect.Finding
	for _, o := range c.over {
		out = append(out, in.finding(o))
	}
	return out, c.settle
}

// account names the destination of a host and its limits: the more specific one
// of what is one destination anyhow and of what has limits of its own.
func (in *Inspector) account(host hostname.Name) (hostname.Name, config.Limits) {
	dest := host
	if in.destination != nil {
		dest = in.destination(host)
	}
	own, limits, ok := hostname.Nearest(in.cfg.PerHost, host)
	if !ok {
		return dest, in.cfg.Each
	}
	if own.Within(dest) {
		dest = own
	}
	return dest, limits
}

// longestRetry is the longest window after which a client may as well try
// again by itself.
const longestRetry = 5 * time.Minute

func (in *Inspector) finding(o over) inspect.Finding {
	f := inspect.Finding{Action: inspect.Flagged, Rule: o.rule, Severity: inspect.Warning}
	which := "flag"
	if o.block {
		f.Action, f.Severity, which = inspect.Blocked, inspect.Error, "block"
		if in.cfg.Window <= longestRetry {
			f.Status = http.StatusTooManyRequests
		}
	}
	f.Reason = fmt.Sprintf("budget: %d %s in %s (%s at %d)", o.count, o.what, window(in.cfg.Window), which, o.limit)
	return f
}

// window writes 24h for 24h0m0s.
func window(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
