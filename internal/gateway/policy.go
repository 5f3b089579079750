package gateway

import (
	"context"
	"slices"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/bodysize"
	"github.com/agentcage/agentcage/internal/inspect/domain"
	"github.com/agentcage/agentcage/internal/inspect/ratelimit"
	"github.com/agentcage/agentcage/internal/proxy"
)

var (
	_ proxy.ContentPolicy = (*policy)(nil)
	_ proxy.DropPolicy    = (*policy)(nil)
)

// policy is everything that a config decides about requests. It is immutable;
// only the token buckets in it outlive a reload.
type policy struct {
	domains *domain.Inspector
	ports   []uint16
	chain   *inspect.Chain
	drop    bool // blocked messages of WebSockets, in place of closing them
}

func newPolicy(c *config.Config, buckets *ratelimit.State, custom ...inspect.ContentInspector) (*policy, error) {
	domains, err := domain.New(c.Domains)
	if err != nil {
		return nil, err
	}
	contents, err := contents(c)
	if err != nil {
		return nil, err
	}
	chain := inspect.NewChain(
		// Order matters. The domain comes first, so that buckets are
		// kept for allowed hosts only and an agent cannot fill the
		// table with names of its own.
		domains,
		ratelimit.New(c.RateLimit, buckets).KeyBy(domains.Listed),
		bodysize.New(c.MaxRequestBody),
	).WithContent(append(contents, custom...)...)
	return &policy{domains: domains, ports: domains.Ports(), chain: chain, drop: c.WebSocket.OnBlock == "drop"}, nil
}

// Decide implements proxy.Policy. It is the only place where a request is
// decided, whatever the way it came.
func (p *policy) Decide(ctx context.Context, r *inspect.Request) inspect.Verdict {
	return p.chain.Decide(ctx, r)
}

// Reads implements proxy.ContentPolicy.
func (p *policy) Reads(r *inspect.Request) inspect.Reads { return p.chain.Reads(r) }

// DecideContent implements proxy.ContentPolicy. It is the only place where
// content is decided.
func (p *policy) DecideContent(ctx context.Context, c *inspect.Content) inspect.Verdict {
	return p.chain.DecideContent(ctx, c)
}

// DropMessages implements proxy.DropPolicy.
func (p *policy) DropMessages() bool { return p.drop }

// OpenPort implements proxy.PortPolicy.
func (p *policy) OpenPort(port uint16) bool { return slices.Contains(p.ports, port) }

// Passthrough implements proxy.Policy.
func (p *policy) Passthrough(host hostname.Name, port uint16) bool {
	return p.domains.Passthrough(host, port)
}
