// Package inject keeps secrets from the agent: it replaces placeholders by real
// values in what leaves, where a rule says so, and real values by placeholders
// in what comes back, wherever they are.
//
// It knows nothing of connections. The engine asks the Policy about every piece
// of a flow, as a content inspector of the chain; calls Head and Body for a
// request that the chain let pass; and passes every response through the
// Redactor. All of it is safe for concurrent use.
package inject

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/secret"
)

// maxKnown is how many values of one secret are remembered. The oldest is
// forgotten first.
const maxKnown = 32

// Minter makes the value that is injected when it is needed: a transform of a
// secret that itself never leaves. Mint is called for every request, so that
// an implementation keeps what it made; it must be safe for concurrent use.
// Its error becomes a part of the reason of a block, and holds no value.
type Minter interface {
	Mint(ctx context.Context) (v secret.Value, expires time.Time, err error)
}

// Injector is the rules of one cage with the values of its secrets. A zero
// value of a secret blocks every request that has its placeholder.
type Injector struct {
	rules    []*rule
	exact    map[hostname.Name][]*rule
	zones    map[hostname.Name][]*rule
	redactTo []hostname.Name
	spots    *matcher    // placeholders in every form
	plain    *redactions // placeholders as they are
	ledger   *ledger
}

// ledger is every value that must not be seen. It outlives the rules that the
// values came by: see Inherit.
type ledger struct {
	redactor Redactor

	mu    sync.Mutex // guards what follows
	known []Known
}

// rule is one rule with its value.
type rule struct {
	config.InjectionRule
	id int

	mu     sync.Mutex // guards what follows
	value  secret.Value
	why    string // there is no value
	minter Minter
}

// Known is a value that is, was, or may become real, and what stands for it.
type Known struct {
	Env         string
	Placeholder string
	Value       secret.Value
	Until       time.Time // zero for ever
}

// New returns an injector without values. Every rule must have a placeholder.
func New(cfg config.Injection) (*Injector, error) {
	in := &Injector{
		redactTo: slices.Clone(cfg.RedactTo), plain: &redactions{}, ledger: &ledger{},
		exact: make(map[hostname.Name][]*rule), zones: make(map[hostname.Name][]*rule),
	}
	seen := make(map[string]string)
	var all, plain []needle
	for i, r := range cfg.Rules {
		if err := secret.CheckPlaceholder(r.Placeholder); err != nil {
			return nil, fmt.Errorf("cannot use the placeholder of %s: %w", r.Env, err)
		}
		if other, ok := seen[r.Placeholder]; ok {
			return nil, fmt.Errorf("cannot use the placeholder of %s: it is that of %s", r.Env, other)
		}
		seen[r.Placeholder] = r.Env
		p := []byte(r.Placeholder)
		in.rules = append(in.rules, &rule{InjectionRule: r, id: i})
		for _, t := range r.InjectTo {
			index := in.exact
			if t.Zone {
				index = in.zones
			}
			index[t.Host] = append(index[t.Host], in.rules[i])
		}
		all = append(all, needles(i, p, p)...)
		plain = append(plain, newNeedle(i, plainForm, p, p))
	}
	in.spots, in.plain.m = newMatcher(all), newMatcher(plain)
	return in, nil
}

// Redactor returns what takes values out of what comes back. It learns every
// value that the injector is given.
func (in *Injector) Redactor() *Redactor { return &in.ledger.redactor }

// Active reports whether there is any rule, or anything to redact.
func (in *Injector) Active() bool {
	return in != nil && (len(in.rules) > 0 || in.ledger.redactor.Active())
}

// Inherit makes all that an injector knows, whose rules are no longer in force,
// known to this one, and the other way round: streams that began under the old
// rules go on being redacted, of new values too. It must be called before the
// injector is used, and the values of rules that are gone stay.
func (in *Injector) Inherit(old *Injector) {
	own := in.ledger.all()
	in.ledger = old.ledger
	for _, k := range own {
		in.ledger.learn(k)
	}
}

// Set gives a secret its value, from the next request on. The value before it
// is redacted further on: it may still be valid, and come back late.
func (in *Injector) Set(env string, v secret.Value) error {
	r := in.rule(env)
	if r == nil {
		return fmt.Errorf("cannot set %s: no rule is for it", env)
	}
	if v.IsZero() {
		return fmt.Errorf("cannot set %s: it has no value", env)
	}
	in.ledger.learn(Known{Env: env, Placeholder: r.Placeholder, Value: v})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value, r.why = v, ""
	return nil
}

// Unset takes a secret its value, and says why: requests with its placeholder
// are blocked with that reason.
func (in *Injector) Unset(env, why string) {
	if r := in.rule(env); r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.value, r.why = secret.Value{}, why
	}
}

// SetMinter has the values of a secret made when they are needed. A nil Minter
// is none.
func (in *Injector) SetMinter(env string, m Minter) error {
	r := in.rule(env)
	if r == nil {
		return fmt.Errorf("cannot set %s: no rule is for it", env)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.minter = m
	return nil
}

// Guard makes a value known that is never injected: what a transform makes its
// tokens of, or a token. A zero until is for ever. The env needs a rule.
func (in *Injector) Guard(env string, v secret.Value, until time.Time) error {
	r := in.rule(env)
	if r == nil || v.IsZero() {
		return fmt.Errorf("cannot guard %s: there is no rule or no value", env)
	}
	in.ledger.learn(Known{Env: env, Placeholder: r.Placeholder, Value: v, Until: until})
	return nil
}

// Known returns every value that must not be seen, the newest last: those in
// use, those before them, and those that transforms made until they expire.
func (in *Injector) Known() []Known { return in.ledger.all() }

func (l *ledger) all() []Known {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(time.Now())
	return slices.Clone(l.known)
}

func (in *Injector) rule(env string) *rule {
	for _, r := range in.rules {
		if r.Env == env {
			return r
		}
	}
	return nil
}

// learn takes up a value, and gives the redactor a new set.
func (l *ledger) learn(k Known) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(time.Now())
	count, oldest := 0, -1
	for i, have := range l.known {
		if have.Env != k.Env {
			continue
		}
		if have.Value.Equal(k.Value) {
			if later(k.Until, have.Until) {
				l.known[i].Until = k.Until
			}
			if have.Placeholder != k.Placeholder {
				l.known[i].Placeholder = k.Placeholder
				l.rebuild()
			}
			return
		}
		if count++; oldest < 0 {
			oldest = i
		}
	}
	if count >= maxKnown {
		l.known = slices.Delete(l.known, oldest, oldest+1)
	}
	l.known = append(l.known, k)
	l.rebuild()
}

// later reports whether a is later than b, where the zero time is for ever.
func later(a, b time.Time) bool { return !b.IsZero() && (a.IsZero() || a.After(b)) }

func (l *ledger) expire(now time.Time) {
	l.known = slices.DeleteFunc(l.known, func(k Known) bool { return !k.Until.IsZero() && k.Until.Before(now) })
}

func (l *ledger) rebuild() {
	set := &redactions{levels: levels, escapes: allEscapes}
	var all []needle
	for i, k := range l.known {
		set.names = append(set.names, k.Env)
		k.Value.Reveal(func(b []byte) {
			all = append(all, needles(i, b, []byte(k.Placeholder))...)
			set.lower = append(set.lower, strings.ToLower(string(b)))
			if set.shortest == 0 || len(b) < set.shortest {
				set.shortest = len(b)
			}
		})
	}
	set.m = newMatcher(all)
	l.redactor.set.Store(set)
}

// errNoValue is why a placeholder cannot be replaced.
type errNoValue struct{ env, why string }

func (e errNoValue) Error() string {
	if e.why == "" {
		return fmt.Sprintf("secret %s has no value: agentcage secret set CAGE %s", e.env, e.env)
	}
	return fmt.Sprintf("secret %s has no value: %s", e.env, e.why)
}

// current returns the value that is to be injected. A minted one is known to
// the redactor before it is used.
func (in *Injector) current(ctx context.Context, r *rule) (secret.Value, error) {
	r.mu.Lock()
	v, why, minter := r.value, r.why, r.minter
	r.mu.Unlock()
	if minter == nil {
		if v.IsZero() {
			return v, errNoValue{r.Env, why}
		}
		return v, nil
	}
	v, expires, err := minter.Mint(ctx)
	switch {
	case err != nil:
		return secret.Value{}, errNoValue{r.Env, in.ledger.redactor.String(err.Error())}
	case v.IsZero():
		return v, errNoValue{r.Env, "its transform made none"}
	}
	in.ledger.learn(Known{Env: r.Env, Placeholder: r.Placeholder, Value: v, Until: expires})
	return v, nil
}

// covers reports whether a rule is for the method and path of a request. A path
// that cannot be decoded without doubt is no path.
func (r *rule) covers(req *inspect.Request) bool {
	if len(r.Methods) > 0 && !slices.Contains(r.Methods, req.Method) {
		return false
	}
	return len(r.Paths) == 0 || slices.ContainsFunc(r.Paths, func(g string) bool { return req.Path != "" && inspect.MatchPath(g, req.Path) })
}

// slotHeader reports whether a rule is for a header.
func (r *rule) slotHeader(name string) bool {
	if len(r.InjectHeaders) > 0 {
		return slices.ContainsFunc(r.InjectHeaders, func(h string) bool { return strings.EqualFold(h, name) })
	}
	name = strings.ToLower(name)
	return strings.Contains(name, "auth") || strings.Contains(name, "key") || strings.Contains(name, "token")
}

// boundTo returns the rules that are for a host, in their order.
func (in *Injector) boundTo(host hostname.Name) []*rule {
	out := slices.Clone(in.exact[host])
	for zone := host; !zone.IsZero() && len(in.zones) > 0; zone = zone.Parent() {
		out = append(out, in.zones[zone]...)
	}
	slices.SortFunc(out, func(a, b *rule) int { return a.id - b.id })
	return slices.Compact(out)
}

// InjectsTo reports whether any rule is for a host.
func (in *Injector) InjectsTo(host hostname.Name) bool { return in != nil && len(in.boundTo(host)) > 0 }

// RedactsTo reports whether real values on their way to a host are replaced by
// their placeholders instead of blocked. A rule for the host comes first.
func (in *Injector) RedactsTo(host hostname.Name) bool {
	return in != nil && slices.ContainsFunc(in.redactTo, host.Within) && !in.InjectsTo(host)
}

// errHeaderValue is why a value is not put into a header, which it would end.
var errHeaderValue = errors.New("the value has a line break or a control character, and cannot stand in a header")
