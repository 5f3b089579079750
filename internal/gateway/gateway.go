// Package gateway wires one cage's exit: listeners, policy, inspectors, the
// engine, DNS and the audit log, in one process outside of the cage.
//
// A Gateway is built from a config. Reload builds a complete new policy and
// swaps it in one step, or keeps the old one and says so.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/dns"
	"github.com/agentcage/agentcage/internal/inject"
	"github.com/agentcage/agentcage/internal/inspect/budget"
	"github.com/agentcage/agentcage/internal/inspect/external/python"
	"github.com/agentcage/agentcage/internal/inspect/known"
	"github.com/agentcage/agentcage/internal/proxy"
	"github.com/agentcage/agentcage/internal/proxy/ca"
	"github.com/agentcage/agentcage/internal/secret"
)

// Options are what a Gateway is made of. Config and Audit are required.
type Options struct {
	Config *config.Config
	Audit  audit.Sink
	// Name of the cage, for the subject of its certificate authority.
	Name string
	// Authority signs for the cage. Nil makes a new one, whose key lives
	// in this process only.
	Authority *ca.Authority
	// HostNetwork says that the gateway has the host's own loopback, so
	// that a resolver at 127.0.0.53 is the right one to ask.
	HostNetwork bool
	// IPv6 says that the cage can use IPv6 addresses.
	IPv6 bool
	// Getenv looks up the variables that the config names for their values;
	// os.LookupEnv, where those are the gateway's own. Nil has none.
	Getenv func(string) (string, bool)
	// Workers starts the processes of inspectors in Python. Nil refuses a
	// config that has any.
	Workers python.Starter
	// DNSOnly says that nothing but queries will be served, so that
	// inspectors of content are not started.
	DNSOnly bool
	// Secret gives the value of a rule of secret_injection; it is asked about
	// each when the gateway is made and when it is reloaded. Nil has none, and
	// refuses a config with rules, all of which need a placeholder.
	Secret func(config.InjectionRule) (secret.Value, error)
	// KeepSecret keeps what a secret became, when its issuer replaced it. Nil
	// cannot, and refuses such a token.
	KeepSecret func(config.InjectionRule, secret.Value) error
	// Log takes what is of interest to whoever debugs the gateway itself.
	// Decisions go to Audit. Nil discards.
	Log *slog.Logger
}

// Gateway is the exit of one cage. Its methods are safe for concurrent use.
type Gateway struct {
	audit     *redactor
	log       *slog.Logger
	authority *ca.Authority
	engine    *proxy.Engine
	dns       *dns.Server
	host      bool

	options Options           // as New got them
	custom  *customInspectors // under mu
	secrets *cageSecrets      // under mu; nil for none

	injector atomic.Pointer[inject.Injector] // of secrets, for whoever does not wait

	self   addresses
	mu     sync.Mutex // serialises Reload
	policy *policy
	state  *state
	route  *route

	serving sync.WaitGroup
	totals  sync.Once
}

// New builds a gateway that listens to nothing yet.
func New(o Options) (*Gateway, error) {
	if o.Config == nil || o.Audit == nil {
		return nil, errors.New("cannot make a gateway: it needs a config and an audit log")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{authority: o.Authority, host: o.HostNetwork, state: new(state)}
	o.Log = slog.New(redacting{o.Log.Handler(), g.Redact})
	g.log, g.options = o.Log, o
	g.audit = &redactor{Sink: o.Audit}
	g.audit.values.Store(&g.state.values)
	if g.authority == nil {
		authority, err := ca.New(o.Name)
		if err != nil {
			return nil, err
		}
		g.authority = authority
	}
	custom, err := o.newCustom(o.Config)
	if err != nil {
		return nil, err
	}
	if err := g.build(o, custom); err != nil {
		return nil, errors.Join(err, custom.Close())
	}
	return g, nil
}

// build wires what New has prepared.
func (g *Gateway) build(o Options, custom *customInspectors) error {
	if err := g.state.hold(o.Config, g.options.Getenv); err != nil {
		return err
	}
	roots, err := rootCAs(o.Config.Upstream.CAFiles)
	if err != nil {
		return err
	}
	secrets, err := g.newSecrets(o.Config, g.mintClient(roots))
	if err != nil {
		return err
	}
	p, err := newPolicy(o.Config, g.state, secrets.get(), custom.list()...)
	if err != nil {
		return err
	}
	up, err := newUpstream(o.Config, p, g, roots)
	if err != nil {
		return err
	}
	g.policy, g.route, g.custom = p, newRoute(up), custom
	g.keep(secrets)
	g.audit.forms.Store(p.forms)
	if g.engine, err = proxy.New(proxy.Options{
		Policy:       p,
		Dialer:       g.route,
		Certificates: g.authority,
		RootCAs:      up.roots,
		Audit:        g.audit,
		Log:          o.Log,
	}); err != nil {
		return err
	}
	g.dns = &dns.Server{
		Table:      p.domains,
		Resolver:   g.route,
		Usable:     g.route.usable,
		Audit:      g.audit,
		IPv6:       o.IPv6,
		LogQueries: o.Config.Logging.DNSQueries,
	}
	return nil
}

// CACertificate is the certificate in PEM form that programs in the cage are
// to trust.
func (g *Gateway) CACertificate() []byte { return g.authority.PEM() }

// Ports are the TCP ports that must reach the gateway whatever the address.
func (g *Gateway) Ports() []uint16 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.policy.ports
}

// Attach starts to serve a cage's listeners. It returns when all of them are
// being served; from then on the gateway owns them.
func (g *Gateway) Attach(l cage.Listeners) error {
	if l.Proxy == nil || len(l.DNS) == 0 || len(l.Transparent) == 0 {
		return errors.New("cannot attach the gateway: the cage has listeners missing")
	}
	// These addresses are the cage's own and not to be taken for ours.
	g.serve("proxy", func() error { return g.engine.ServeProxy(l.Proxy) })
	for _, t := range l.Transparent {
		g.serve("transparent", func() error { return g.engine.ServeTransparent(t, 0) })
	}
	g.ServeDNS(l.DNS, l.DNSStream)
	if l.Refused != nil {
		g.serve("refusals", func() error { return g.recordRefusals(l.Refused) })
	}
	return nil
}

// ServeProxy serves the explicit proxy on a listener of this host, in the
// background.
func (g *Gateway) ServeProxy(l net.Listener) {
	g.self.add(l.Addr())
	g.serve("proxy", func() error { return g.engine.ServeProxy(l) })
}

// ServeTransparent serves intercepted connections on a listener of this host,
// in the background. A port of 0 takes each connection's own address for its
// destination.
func (g *Gateway) ServeTransparent(l net.Listener, port uint16) {
	g.self.add(l.Addr())
	g.serve("transparent", func() error { return g.engine.ServeTransparent(l, port) })
}

// ServeDNS serves queries, in the background.
func (g *Gateway) ServeDNS(packets []net.PacketConn, streams []net.Listener) {
	for _, p := range packets {
		g.serve("dns", func() error { return g.dns.ServePacket(p) })
	}
	for _, s := range streams {
		g.serve("dns", func() error { return g.dns.ServeStream(s) })
	}
}

func (g *Gateway) serve(what string, f func() error) {
	g.serving.Go(func() {
		if err := f(); err != nil && !errors.Is(err, net.ErrClosed) {
			g.log.Error("listener ended", "listener", what, "error", err)
		}
	})
}

// Reload replaces the policy by that of a new config, and closes whatever the
// new one does not allow. On an error the old policy stays in force, and both
// outcomes are in the audit log.
func (g *Gateway) Reload(c *config.Config) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.reload(c)
	rec := audit.Record{Kind: audit.KindReload, Method: "RELOAD", Decision: "allowed", Reason: "a new policy is in force"}
	if err != nil {
		rec.Kind, rec.Decision, rec.Reason = audit.KindReloadFail, "blocked", err.Error()
	}
	return errors.Join(err, g.audit.Put(rec))
}

// ReloadFailed records that a config could not even be read.
func (g *Gateway) ReloadFailed(cause error) error {
	return g.audit.Put(audit.Record{Kind: audit.KindReloadFail, Method: "RELOAD", Decision: "blocked", Reason: cause.Error()})
}

func (g *Gateway) reload(c *config.Config) error {
	custom, err := g.options.newCustom(c)
	if err != nil {
		return fmt.Errorf("cannot reload: %w", err)
	}
	p, up, secrets, err := g.prepare(c, custom)
	if err != nil {
		return errors.Join(fmt.Errorf("cannot reload: %w", err), custom.Close())
	}
	if g.secrets != nil {
		secrets.injector.Inherit(g.secrets.injector)
	}
	g.keep(secrets)
	old := g.custom
	g.audit.forms.Store(p.forms)
	g.policy, g.custom = p, custom
	g.route.set(up)
	g.engine.UpdateRoots(up.roots)
	g.engine.Update(p)
	g.dns.Update(p.domains)
	return old.Close()
}

// prepare makes what a reload puts in force.
func (g *Gateway) prepare(c *config.Config, custom *customInspectors) (*policy, *upstream, *cageSecrets, error) {
	roots, err := rootCAs(c.Upstream.CAFiles)
	if err != nil {
		return nil, nil, nil, err
	}
	secrets, err := g.newSecrets(c, g.mintClient(roots))
	if err != nil {
		return nil, nil, nil, err
	}
	p, err := newPolicy(c, g.state, secrets.get(), custom.list()...)
	if err != nil {
		return nil, nil, nil, err
	}
	up, err := newUpstream(c, p, g, roots)
	if err != nil {
		return nil, nil, nil, err
	}
	return p, up, secrets, g.state.hold(c, g.options.Getenv) // the last thing that can fail
}

// keep makes secrets those of the gateway.
func (g *Gateway) keep(secrets *cageSecrets) {
	g.secrets = secrets
	g.injector.Store(secrets.get())
}

// Values is the set of values that must not leave. Whoever holds further ones
// adds them to it.
func (g *Gateway) Values() *known.Set { return &g.state.values }

// Totals returns what went to each destination since the gateway began, the
// most first. It is empty when budgets are switched off.
func (g *Gateway) Totals() []budget.Total { return g.state.budget.Totals() }

// Shutdown stops accepting, lets what is under way finish until ctx ends, cuts
// the rest, and returns when every goroutine has ended.
func (g *Gateway) Shutdown(ctx context.Context) error {
	err := errors.Join(g.engine.Shutdown(ctx), g.dns.Shutdown(ctx))
	g.serving.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(err, g.custom.Close(), g.recordTotals())
}

// recordTotals writes down what went to each destination, once.
func (g *Gateway) recordTotals() error {
	var failed error
	g.totals.Do(func() {
		for _, t := range g.Totals() {
			failed = errors.Join(failed, g.audit.Put(audit.Record{
				Kind: audit.KindBudget, Method: "BUDGET", Host: hostOf(t), Decision: "allowed",
				Reason: fmt.Sprintf("%d bytes in %d requests went there", t.Bytes, t.Requests),
			}))
		}
	})
	return failed
}

func hostOf(t budget.Total) string {
	if t.Host.IsZero() {
		return audit.Others
	}
	return t.Host.String()
}

// recordRefusals writes what the kernel refused into the audit log, with the
// name that the address was handed out for when there is one.
func (g *Gateway) recordRefusals(refused <-chan cage.Refusal) error {
	var failed error
	for r := range refused {
		rec := audit.Record{Kind: r.Kind, Method: refusalMethod[r.Kind], Decision: "blocked", Count: r.Count, Reason: refusalReason(r)}
		if r.Dest.IsValid() {
			rec.Host, rec.Port = r.Dest.Addr().String(), r.Dest.Port()
			rec.URL = "tcp://" + r.Dest.String()
			if r.Kind != audit.KindTCP {
				rec.URL = "udp://" + r.Dest.String()
			}
			if name, ok := g.dns.NameOf(r.Dest.Addr()); ok {
				rec.Host = name.String()
			}
		}
		failed = errors.Join(failed, g.audit.Put(rec))
	}
	return failed
}

var refusalMethod = map[string]string{
	audit.KindTCP:    "CONNECT",
	audit.KindUDP:    "UDP",
	audit.KindICMP:   "ICMP",
	audit.KindSocket: "SOCKET",
}

func refusalReason(r cage.Refusal) string {
	switch r.Kind {
	case audit.KindTCP:
		return fmt.Sprintf("port not allowed: %d", r.Dest.Port())
	case audit.KindUDP:
		return fmt.Sprintf("UDP is not allowed: port %d", r.Dest.Port())
	case audit.KindSocket:
		return "socket not allowed: " + r.Detail
	default:
		return "ICMP is not allowed"
	}
}
