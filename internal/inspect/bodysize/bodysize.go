// Package bodysize bounds the body of a request.
package bodysize

import (
	"context"
	"fmt"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// Inspector blocks requests with a body larger than the limit of their host. It
// is immutable and safe for concurrent use. The zero Inspector has no limit.
type Inspector struct {
	max     int64 // bytes
	perHost map[hostname.Name]int64
}

var (
	_ inspect.Inspector   = (*Inspector)(nil)
	_ inspect.BodyLimiter = (*Inspector)(nil)
)

// New returns an inspector that lets bodies of up to max bytes pass, and as many
// as perHost says to its hosts and every name under them. A limit of 0 is none,
// and a negative one lets no body pass. The caller must not change the map.
func New(max int64, perHost map[hostname.Name]int64) *Inspector {
	return &Inspector{max: max, perHost: perHost}
}

// Name returns "body-size".
func (in *Inspector) Name() string { return "body-size" }

// Inspect refuses a body whose length is known beforehand and too large.
func (in *Inspector) Inspect(_ context.Context, r *inspect.Request) inspect.Finding {
	limit := in.BodyLimit(r)
	if limit < 0 || r.ContentLength <= limit {
		return inspect.Pass()
	}
	return inspect.Finding{Action: inspect.Blocked, Reason: Reason(r.ContentLength, limit), Severity: inspect.Warning}
}

// BodyLimit returns the most bytes that may follow, for a body whose length is
// not known; -1 when the host has no limit, and for a tunnel, whose bytes are
// not a body.
func (in *Inspector) BodyLimit(r *inspect.Request) int64 {
	limit := in.max
	if _, own, ok := hostname.Nearest(in.perHost, r.Host); ok {
		limit = own
	}
	if limit == 0 || r.Opaque {
		return -1
	}
	return max(limit, 0)
}

// Reason is the reason of a block, also for whoever finds out while the body
// is being sent. Both numbers are bytes.
func Reason(size, limit int64) string {
	return fmt.Sprintf("body too large: %d > %d", size, limit)
}
