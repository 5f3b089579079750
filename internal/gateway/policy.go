package gateway

import (
	"context"
	"slices"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inject"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/bodysize"
	"github.com/agentcage/agentcage/internal/inspect/budget"
	"github.com/agentcage/agentcage/internal/inspect/domain"
	"github.com/agentcage/agentcage/internal/inspect/mode"
	"github.com/agentcage/agentcage/internal/inspect/ratelimit"
	"github.com/agentcage/agentcage/internal/inspect/secrets"
	"github.com/agentcage/agentcage/internal/proxy"
)

var (
	_ proxy.ContentPolicy = (*policy)(nil)
	_ proxy.DropPolicy    = (*policy)(nil)
	_ proxy.SecretPolicy  = (*policy)(nil)
)

// policy is everything that a config decides about requests. It is immutable;
// only the state that it counts in outlives a reload.
type policy struct {
	domains *domain.Inspector
	ports   []uint16
	chain   *inspect.Chain
	forms   *secrets.Inspector // in the chain or not
	secrets *inject.Injector   // nil for none
	drop    bool               // blocked messages of WebSockets, in place of closing them
}

func newPolicy(c *config.Config, s *state, injector *inject.Injector, custom ...inspect.ContentInspector) (*policy, error) {
	domains, err := domain.New(c.Domains)
	if err != nil {
		return nil, err
	}
	to := destination(domains)
	heads := []inspect.Inspector{
		// Order matters. The domain comes first, so that buckets are
		// kept for allowed hosts only and an agent cannot fill the
		// table with names of its own.
		domains,
		ratelimit.New(c.RateLimit, &s.buckets).KeyBy(domains.Listed),
		bodysize.New(c.MaxRequestBody, c.MaxRequestBodyPerHost),
	}
	if c.Budget.Enabled {
		heads = append(heads, budget.New(c.Budget, &s.budget, to))
	}
	forms, err := secretForms(c.Secrets)
	if err != nil {
		return nil, err
	}
	all := contents(c, s, forms, to)
	if injector.Active() {
		all = append(all, injector.Policy())
	}
	chain, err := withModes(inspect.NewChain(heads...).WithContent(append(all, custom...)...), c)
	if err != nil {
		return nil, err
	}
	return &policy{domains: domains, ports: domains.Ports(), chain: chain, forms: forms, secrets: injector, drop: c.WebSocket.OnBlock == "drop"}, nil
}

// withModes makes a chain enforce no more than the config's exceptions leave.
// It comes last, when all inspectors are in the chain.
func withModes(chain *inspect.Chain, c *config.Config) (*inspect.Chain, error) {
	modes, err := mode.New(c, chain.Inspectors()...)
	if err != nil || modes.Empty() {
		return chain, err
	}
	return chain.WithAdjust(modes.Adjust), nil
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

// Secrets implements proxy.SecretPolicy.
func (p *policy) Secrets() *inject.Injector { return p.secrets }

// DropMessages implements proxy.DropPolicy.
func (p *policy) DropMessages() bool { return p.drop }

// OpenPort implements proxy.PortPolicy.
func (p *policy) OpenPort(port uint16) bool { return slices.Contains(p.ports, port) }

// Passthrough implements proxy.Policy.
func (p *policy) Passthrough(host hostname.Name, port uint16) bool {
	return p.domains.Passthrough(host, port)
}
