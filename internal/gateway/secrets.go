package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inject"
	"github.com/agentcage/agentcage/internal/inject/mint"
	"github.com/agentcage/agentcage/internal/inspect/known"
	"github.com/agentcage/agentcage/internal/secret"
)

// ownerInjection is whose values those of the rules are.
const ownerInjection = "injection"

// cageSecrets are the secrets of one config: its rules and what they are made
// of.
type cageSecrets struct {
	cfg      config.Injection
	injector *inject.Injector
	values   *known.Set
	minters  map[string]*minter
}

// newSecrets makes the secrets of a config. There are none without rules, save
// where there were some before: then their values go on being redacted.
func (g *Gateway) newSecrets(c *config.Config, client *http.Client) (*cageSecrets, error) {
	if len(c.Injection.Rules) == 0 && g.secrets == nil {
		return nil, nil
	}
	return newSecrets(c, g.options, &g.state.values, client)
}

// newSecrets makes the injector of a config. The options give the value of each rule;
// one that has none is an error, as the placeholder would go nowhere (rule 67).
func newSecrets(c *config.Config, o Options, values *known.Set, client *http.Client) (*cageSecrets, error) {
	injector, err := inject.New(c.Injection)
	if err != nil {
		return nil, err
	}
	s := &cageSecrets{cfg: c.Injection, injector: injector, values: values, minters: make(map[string]*minter)}
	for _, r := range c.Injection.Rules {
		if o.Secret == nil {
			return nil, fmt.Errorf("cannot get secret %s: nothing here can", r.Env)
		}
		m, err := newMinter(r, o, client, s.guardSource)
		if err != nil {
			return nil, fmt.Errorf("cannot use the transform of %s: %w", r.Env, err)
		}
		if m != nil {
			s.minters[r.Env] = m
			if err := injector.SetMinter(r.Env, guarded{m, r.Env, s}); err != nil {
				return nil, err
			}
		}
		v, err := o.Secret(r)
		if err != nil {
			return nil, err
		}
		if err := s.set(r, v); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *cageSecrets) get() *inject.Injector {
	if s == nil {
		return nil
	}
	return s.injector
}

func (s *cageSecrets) rule(env string) (config.InjectionRule, bool) {
	if s != nil {
		for _, r := range s.cfg.Rules {
			if r.Env == env {
				return r, true
			}
		}
	}
	return config.InjectionRule{}, false
}

// set gives a rule its value: to be injected, or what a transform makes another
// one of. Either way it must not be seen anywhere.
func (s *cageSecrets) set(r config.InjectionRule, v secret.Value) error {
	if err := s.guardSource(r.Env, v); err != nil {
		return err
	}
	if m := s.minters[r.Env]; m != nil {
		m.setSource(v)
		return nil
	}
	return s.injector.Set(r.Env, v)
}

// guardSource guards what is kept, in place of what was kept before.
func (s *cageSecrets) guardSource(env string, v secret.Value) error {
	s.values.Retire(ownerInjection, env)
	for _, part := range parts(v) {
		if err := s.guard(env, part, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// partNames are the fields of a secret in JSON that are secrets by themselves:
// of keys for AWS, of service accounts, and of OAuth clients.
var partNames = []string{"SecretAccessKey", "SessionToken", "private_key", "refresh_token", "client_secret"}

// parts are a value and what stands in it that is a secret by itself.
func parts(v secret.Value) []secret.Value {
	all := []secret.Value{v}
	var fields map[string]any
	v.Reveal(func(b []byte) {
		if json.Unmarshal(b, &fields) != nil {
			fields = nil // it is no object; it is one secret
		}
	})
	for _, name := range partNames {
		text, _ := fields[name].(string)
		if part, err := secret.New([]byte(text)); err == nil {
			all = append(all, part)
		}
	}
	return all
}

// guard makes a value one that is redacted, and blocked where it leaves.
func (s *cageSecrets) guard(env string, v secret.Value, until time.Time) error {
	if err := s.injector.Guard(env, v, until); err != nil {
		return err
	}
	allow := make([]config.Target, len(s.cfg.RedactTo))
	for i, host := range s.cfg.RedactTo {
		allow[i] = config.Target{Host: host, Zone: true}
	}
	if err := s.values.Add(ownerInjection, known.Value{Name: env, Bytes: v.RevealBytes(), AllowTo: allow}); err != nil {
		return fmt.Errorf("cannot look for secret %s: %w", env, err)
	}
	return nil
}

// SetSecret gives a secret of the running cage another value, from the next
// request on. The old one goes on being redacted, and being looked for.
func (g *Gateway) SetSecret(env string, v secret.Value) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := g.secrets.rule(env)
	if !ok {
		return fmt.Errorf("cannot set secret %s: no rule of the running cage is for it", env)
	}
	return g.secrets.set(r, v)
}

// UnsetSecret takes a secret of the running cage its value: from now on its
// placeholder is blocked.
func (g *Gateway) UnsetSecret(env string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.secrets.rule(env); !ok {
		return fmt.Errorf("cannot remove secret %s: no rule of the running cage is for it", env)
	}
	if m := g.secrets.minters[env]; m != nil {
		m.setSource(secret.Value{})
	}
	g.secrets.injector.Unset(env, "it was removed")
	return nil
}

// Redact takes the values of the cage's secrets out of a text.
func (g *Gateway) Redact(s string) string {
	if in := g.injector.Load(); in != nil {
		return in.Redactor().String(s)
	}
	return s
}

// minter makes values for one rule.
type minter struct {
	make func(context.Context) (secret.Value, time.Time, error)
	of   *mint.Minter // nil for what is made without asking anybody

	mu     sync.Mutex
	source secret.Value
}

func (m *minter) setSource(v secret.Value) {
	m.mu.Lock()
	m.source = v
	m.mu.Unlock()
	if m.of != nil {
		m.of.Forget()
	}
}

var errNoSource = errors.New("it was removed")

func (m *minter) current(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.source.IsZero() {
		return nil, errNoSource
	}
	return m.source.RevealBytes(), nil
}

// guarded makes what a minter makes known before it is used.
type guarded struct {
	*minter
	env string
	s   *cageSecrets
}

// Mint implements inject.Minter.
func (g guarded) Mint(ctx context.Context) (secret.Value, time.Time, error) {
	v, until, err := g.make(ctx)
	if err == nil {
		err = g.s.guard(g.env, v, until)
	}
	return v, until, err
}

// newMinter makes the transform of a rule; nil is none, or one that signs. guard
// makes what a source became known.
func newMinter(r config.InjectionRule, o Options, client *http.Client, guard func(env string, v secret.Value) error) (*minter, error) {
	t := r.Transform
	text := func(name string) string { return t.Settings[name].Text }
	list := func(name string) []string {
		if one := text(name); one != "" {
			return []string{one}
		}
		return t.Settings[name].List
	}
	if err := checkSettings(t); err != nil {
		return nil, err
	}
	m := &minter{}
	var maker mint.Maker
	switch t.Type {
	case "", "aws-sigv4":
		return nil, nil
	case "basic":
		m.make = func(ctx context.Context) (secret.Value, time.Time, error) {
			password, err := m.current(ctx)
			if err != nil {
				return secret.Value{}, time.Time{}, err
			}
			v, err := secret.New([]byte(base64.StdEncoding.EncodeToString(append([]byte(text("username")+":"), password...))))
			return v, time.Time{}, err
		}
		return m, nil
	case "google-jwt-bearer":
		maker = mint.GoogleJWT{Scopes: list("scopes"), Endpoint: text("audience"), Subject: text("subject")}
	case "github-app":
		maker = mint.GitHubApp{
			App: text("app"), Installation: text("installation"), Endpoint: text("endpoint"),
			Repositories: list("repositories"), Permissions: t.Settings["permissions"].Map,
		}
	case "oauth2-refresh":
		maker = mint.Refresh{Endpoint: text("endpoint"), ClientID: text("client_id"), Scopes: list("scopes")}
	default:
		return nil, fmt.Errorf("there is no transform %q", t.Type)
	}
	limits, err := mintLimits(t)
	if err != nil {
		return nil, err
	}
	limits.Maker, limits.Source, limits.Client = maker, m.current, client
	if o.KeepSecret != nil {
		limits.Rotated = func(source []byte) error {
			v, err := secret.New(source)
			if err == nil {
				err = guard(r.Env, v)
			}
			if err != nil {
				return err
			}
			m.mu.Lock()
			m.source = v
			m.mu.Unlock()
			return o.KeepSecret(r, v)
		}
	}
	m.of = mint.New(limits)
	m.make = func(ctx context.Context) (secret.Value, time.Time, error) {
		token, err := m.of.Token(ctx)
		if err != nil {
			return secret.Value{}, time.Time{}, err
		}
		v, err := secret.New(token.Value)
		return v, token.Expires, err
	}
	return m, nil
}

// settings are the keys of each transform, and those that it needs.
var settings = map[string]struct{ needs, takes []string }{
	"basic":             {needs: []string{"username"}},
	"aws-sigv4":         {takes: []string{"access_key_id", "access_key_id_env"}},
	"google-jwt-bearer": {needs: []string{"scopes"}, takes: []string{"audience", "subject", "mint_rate_per_hour", "refresh_margin"}},
	"github-app":        {needs: []string{"app", "installation"}, takes: []string{"endpoint", "repositories", "permissions", "mint_rate_per_hour", "refresh_margin"}},
	"oauth2-refresh":    {needs: []string{"endpoint"}, takes: []string{"client_id", "scopes", "mint_rate_per_hour", "refresh_margin"}},
}

// checkSettings holds that a transform has what it needs and nothing else, and
// that whom a credential is sent to is reached over TLS.
func checkSettings(t config.Transform) error {
	if t.Type == "" {
		return nil
	}
	known := settings[t.Type]
	for _, name := range known.needs {
		if s := t.Settings[name]; s.Text == "" && len(s.List) == 0 {
			return fmt.Errorf("%s needs %s", t.Type, name)
		}
	}
	all := slices.Concat(known.needs, known.takes)
	for name, s := range t.Settings {
		if !slices.Contains(all, name) {
			return fmt.Errorf("%s has no setting %q; it has %s", t.Type, name, strings.Join(all, ", "))
		}
		if (name == "endpoint" || name == "audience") && !strings.HasPrefix(s.Text, "https://") {
			return fmt.Errorf("%s must begin with https://", name)
		}
	}
	return nil
}

func mintLimits(t config.Transform) (o mint.Options, err error) {
	if s := t.Settings["refresh_margin"].Text; s != "" {
		if o.Margin, err = time.ParseDuration(s); err != nil || o.Margin <= 0 {
			return o, errors.New("refresh_margin is no duration such as 5m")
		}
	}
	if s := t.Settings["mint_rate_per_hour"].Text; s != "" {
		if _, err := fmt.Sscanf(s, "%d", &o.PerHour); err != nil || o.PerHour <= 0 || fmt.Sprint(o.PerHour) != s {
			return o, errors.New("mint_rate_per_hour is no whole number above 0")
		}
	}
	return o, nil
}

// mintClient reaches token endpoints as the engine reaches servers: by names
// that are resolved once, and at addresses that are vetted.
func (g *Gateway) mintClient(roots *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: nil, // an upstream proxy is the dialer's
		DialContext: func(ctx context.Context, _, authority string) (net.Conn, error) {
			host, port, err := hostname.ParseAuthority(authority)
			if err != nil {
				return nil, err
			}
			return g.route.Dial(ctx, host, port)
		},
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout: 10 * time.Second,
		DisableKeepAlives:   true, // a token is asked for once an hour
	}}
}

// checkTransforms finds what is wrong with the transforms of a config without
// the secrets.
func checkTransforms(c *config.Config) error {
	for _, r := range c.Injection.Rules {
		if _, err := newMinter(r, Options{}, nil, nil); err != nil {
			return fmt.Errorf("cannot use the transform of %s: %w", r.Env, err)
		}
	}
	return nil
}
