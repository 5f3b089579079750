package gateway

import (
	"fmt"

	"golang.org/x/net/publicsuffix"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/budget"
	"github.com/agentcage/agentcage/internal/inspect/contenttype"
	"github.com/agentcage/agentcage/internal/inspect/domain"
	"github.com/agentcage/agentcage/internal/inspect/entropy"
	"github.com/agentcage/agentcage/internal/inspect/known"
	"github.com/agentcage/agentcage/internal/inspect/ratelimit"
	"github.com/agentcage/agentcage/internal/inspect/secrets"
)

// state is what was counted and seen. It outlives a policy, so that a reload
// gives nothing back.
type state struct {
	buckets ratelimit.State
	budget  budget.State
	values  known.Set
}

// hold makes the values that a config names those that are looked for. On an
// error nothing changes.
func (s *state) hold(c *config.Config, getenv func(string) (string, bool)) error {
	values, err := knownValues(c, getenv)
	if err != nil {
		return err
	}
	return s.values.Replace(ownerConfig, values)
}

// contents are the inspectors of content in the order in which they are asked.
// Those that count come last: what another one refuses never left.
func contents(c *config.Config, s *state, forms *secrets.Inspector, to func(hostname.Name) hostname.Name) []inspect.ContentInspector {
	var out []inspect.ContentInspector
	if c.Secrets.Enabled {
		out = append(out, forms)
	}
	if c.Entropy.Enabled {
		out = append(out, entropy.New(c.Entropy))
	}
	if c.ContentType.Enabled {
		out = append(out, contenttype.New(c.ContentType))
	}
	out = append(out, known.New(&s.values, to))
	if c.Budget.Enabled {
		out = append(out, budget.New(c.Budget, &s.budget, to))
	}
	return out
}

// secretForms returns the inspector of known forms. Where a config switches it
// off it is not in the chain, and the audit log has no secrets in it all the
// same.
func secretForms(c config.Secrets) (*secrets.Inspector, error) {
	if !c.Enabled {
		c = config.Secrets{}
	}
	return secrets.New(c)
}

// destination takes everything for one destination that one entry of the
// allowlist covers or, in a blocklist, that somebody registered as one domain.
// An agent that may use all of a zone can invent names in it.
func destination(domains *domain.Inspector) func(hostname.Name) hostname.Name {
	return func(host hostname.Name) hostname.Name {
		if entry, ok := domains.Listed(host); ok {
			return entry
		}
		if host.IsIP() {
			return host
		}
		registered, err := publicsuffix.EffectiveTLDPlusOne(host.String())
		if err != nil {
			return host
		}
		name, err := hostname.Parse(registered)
		if err != nil {
			return host
		}
		return name
	}
}

// ownerConfig is whose values those are that the config names.
const ownerConfig = "config"

// knownValues reads the variables that the config names in
// secrets.extra_patterns. One that is not set is an error: a check that
// somebody wrote down must not be left out in silence.
func knownValues(c *config.Config, getenv func(string) (string, bool)) ([]known.Value, error) {
	if !c.Secrets.Enabled {
		return nil, nil
	}
	var out []known.Value
	for _, p := range c.Secrets.ExtraPatterns {
		if p.Env == "" {
			continue
		}
		var v string
		ok := getenv != nil
		if ok {
			v, ok = getenv(p.Env)
		}
		if !ok || v == "" {
			return nil, fmt.Errorf("cannot look for the value of %s: the variable %s is not set", p.Name, p.Env)
		}
		value := known.Value{Name: p.Name, Bytes: []byte(v)}
		for _, host := range c.Secrets.AllowToDomains[p.Name] {
			value.AllowTo = append(value.AllowTo, config.Target{Host: host, Zone: true})
		}
		out = append(out, value)
	}
	return out, nil
}
