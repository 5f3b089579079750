// Package proxy is the engine of the gateway: it takes connections of the
// agent, finds out who they are really for, asks the policy about every
// request, and forwards what is allowed.
//
// Four ways lead in (explicit proxy, CONNECT, transparent TLS, transparent
// HTTP), and all of them end in one http.Server, one handler and one decision
// function. The address that the agent chose is never dialled: a destination
// is a name on which the CONNECT target, the TLS server name and the Host
// header agree, and that name is resolved, dialled and verified.
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// Policy decides. Its methods are called concurrently, and must not change the
// request. It is immutable to the engine: a reload passes another to Update.
type Policy interface {
	// Decide gives the verdict of one request or, when Opaque is set, of
	// one TLS tunnel that is not decrypted. The zero Verdict blocks.
	Decide(ctx context.Context, r *inspect.Request) inspect.Verdict
	// Passthrough reports whether TLS for the host is spliced without
	// being decrypted, which Decide has to allow all the same.
	Passthrough(host hostname.Name, port uint16) bool
}

// PortPolicy is an optional interface of a Policy that knows ports on which no
// request can pass, whatever its host. CONNECT to one is refused at once.
type PortPolicy interface {
	OpenPort(port uint16) bool
}

// Dialer connects to hosts by name. It resolves once, refuses addresses that
// the cage must not reach with a dial.RefusedError, and connects to the address
// that it vetted.
type Dialer interface {
	Dial(ctx context.Context, host hostname.Name, port uint16) (net.Conn, error)
}

// Certificates gives the certificate that is shown to the agent for a host.
type Certificates interface {
	Certificate(host hostname.Name) (*tls.Certificate, error)
}

// Options make an Engine. Policy, Dialer, Certificates and Audit are required.
type Options struct {
	Policy       Policy
	Dialer       Dialer
	Certificates Certificates
	Audit        audit.Sink
	// RootCAs are trusted for servers; nil means the system's.
	RootCAs *x509.CertPool
	Limits  Limits
	// Log gets what only a developer wants to see; nil discards it.
	Log *slog.Logger
}

// Limits bound what the agent and the servers may use. Zero fields mean the
// defaults.
type Limits struct {
	MaxConns       int           // connections of the agent at once; 4096
	MaxRequests    int           // requests at once over all connections; 8192
	MaxStreams     int           // requests at once on one HTTP/2 connection; 250
	MaxHeaderBytes int           // of a request; 64 KiB
	MaxMessage     int           // of a WebSocket message that is read, in bytes; 16 MiB
	MaxKept        int           // of a body that is read before any of it goes on, in bytes; 16 MiB
	MaxKeptTotal   int           // of all bodies and messages that are read at once; 256 MiB, at least twice the larger of the two above
	HeaderTimeout  time.Duration // for a TLS handshake, and for a request's header; 30 s
	IdleTimeout    time.Duration // of a kept connection between requests; 2 min
	BodyTimeout    time.Duration // without a byte of a body that is kept, or without memory for it; 1 min
	TunnelIdle     time.Duration // of a passed-through tunnel or a WebSocket without a byte; 1 h
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.MaxConns, 4096)
	setDefault(&l.MaxRequests, 8192)
	setDefault(&l.MaxStreams, 250)
	setDefault(&l.MaxHeaderBytes, 64<<10)
	setDefault(&l.MaxMessage, 16<<20)
	setDefault(&l.MaxKept, 16<<20)
	setDefault(&l.MaxKeptTotal, 256<<20)
	setDefault(&l.HeaderTimeout, 30*time.Second)
	setDefault(&l.IdleTimeout, 2*time.Minute)
	setDefault(&l.BodyTimeout, time.Minute)
	setDefault(&l.TunnelIdle, time.Hour)
	return l
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// newMemory makes the memory of all that is read. Its reserve holds the largest
// buffer of any body or message.
func (l Limits) newMemory() *memory {
	reserve := max(bufferSize(l.MaxKept), window, l.MaxMessage+smallestKept)
	return newMemory(int64(l.MaxKeptTotal), int64(reserve), l.BodyTimeout)
}

// Engine is one gateway's proxy. Its methods are safe for concurrent use.
type Engine struct {
	dialer Dialer
	certs  Certificates
	audit  audit.Sink
	limits Limits
	memory *memory
	log    *slog.Logger

	policy atomic.Pointer[Policy]
	flows  flows

	tlsConfig *tls.Config
	upstream  atomic.Pointer[upstream]
	server    *http.Server
	handoff   *handoff

	ctx    context.Context // ends when the engine is closed for good
	cancel context.CancelFunc

	slots    chan struct{}
	inflight atomic.Int64
	work     sync.WaitGroup // accept loops, connections outside of the server, tunnels

	mu        sync.Mutex
	roots     *x509.CertPool
	retired   []*upstream   // that Update replaced, the newest last
	closing   chan struct{} // closed when Shutdown begins
	listeners map[net.Listener]struct{}
	conns     map[*clientConn]struct{}
}

// New returns an engine that serves nothing yet. Shutdown ends it.
func New(o Options) (*Engine, error) {
	if o.Policy == nil || o.Dialer == nil || o.Certificates == nil || o.Audit == nil {
		return nil, errors.New("cannot make proxy engine: policy, dialer, certificates and audit are required")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	e := &Engine{
		dialer:    o.Dialer,
		certs:     o.Certificates,
		audit:     o.Audit,
		limits:    o.Limits.withDefaults(),
		log:       o.Log,
		closing:   make(chan struct{}),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*clientConn]struct{}),
		roots:     o.RootCAs,
	}
	e.memory = e.limits.newMemory()
	e.policy.Store(&o.Policy)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.slots = make(chan struct{}, e.limits.MaxConns)
	e.handoff = newHandoff(e.closing)
	e.tlsConfig = e.newTLSConfig()
	e.upstream.Store(e.newUpstream(o.RootCAs))
	e.server = e.newServer()
	e.work.Go(func() { _ = e.server.Serve(e.handoff) }) // it ends with Shutdown only
	return e, nil
}

func (e *Engine) newServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:           http.HandlerFunc(e.serveHTTP),
		Protocols:         protocols,
		ReadHeaderTimeout: e.limits.HeaderTimeout,
		IdleTimeout:       e.limits.IdleTimeout,
		MaxHeaderBytes:    e.limits.MaxHeaderBytes,
		// Else "OPTIONS *" is answered past the policy and the audit log.
		DisableGeneralOptionsHandler: true,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: e.limits.MaxStreams,
			// One slow stream must not stop the others of its connection.
			MaxReceiveBufferPerConnection: 4 << 20,
			MaxReceiveBufferPerStream:     1 << 20,
		},
		BaseContext: func(net.Listener) context.Context { return e.ctx },
		ConnContext: connContext,
		ErrorLog:    slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}
}

// newTLSConfig is for the agent's side, which is loopback or a virtual link on
// the same machine: a post-quantum key exchange would cost time there and
// protect nothing.
func (e *Engine) newTLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{"h2", "http/1.1"},
		CurvePreferences:            []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384},
		GetConfigForClient:          e.onHello,
		GetCertificate:              e.certificate,
		DynamicRecordSizingDisabled: true,
	}
}

// ServeProxy serves an explicit HTTP proxy: absolute-form requests and CONNECT.
// It closes the listener when it returns, which is nil after Shutdown.
func (e *Engine) ServeProxy(l net.Listener) error {
	return e.serve(l, func(c net.Conn) {
		cc := e.newConn(c, inspect.ViaProxy)
		e.hand(cc, cc)
	})
}

// ServeTransparent serves connections that the agent made to any address, TLS
// or HTTP, whichever it turns out to be. With port 0 the accepted socket's own
// address is the destination that the agent chose, and a Host header must name
// that port or none. Another port is what to assume for a Host header that
// names none, for listeners that are told nothing about the destination.
// It closes the listener when it returns, which is nil after Shutdown.
func (e *Engine) ServeTransparent(l net.Listener, port uint16) error {
	return e.serve(l, func(c net.Conn) {
		cc := e.newConn(c, inspect.ViaTransparent)
		cc.port = port
		if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
			cc.dest = hostname.FromAddr(a.AddrPort().Addr())
			if port == 0 {
				cc.port, cc.portFixed = a.AddrPort().Port(), true
			}
		}
		e.sniff(cc)
	})
}

// Update makes another policy decide from now on. Every running request,
// WebSocket and tunnel is decided again by the head it began with, and ended
// when the new policy does not allow it. Connections to servers are not used
// again, so that what the Dialer decides now holds for all new requests.
func (e *Engine) Update(p Policy) {
	e.policy.Store(&p)
	for _, f := range e.flows.snapshot() {
		if reason, ok := e.stillAllowed(p, f); !ok {
			_ = e.record(f, inspect.Verdict{Reason: reason})
			f.cancel(&endedError{reason})
		}
	}
	e.renewUpstream()
}

// UpdateRoots makes new connections to servers trust other authorities; nil
// means the system's.
func (e *Engine) UpdateRoots(roots *x509.CertPool) {
	e.mu.Lock()
	e.roots = roots
	e.mu.Unlock()
	e.renewUpstream()
}

// maxRetired bounds how many replaced upstreams are remembered. Those that are
// forgotten close their connections by themselves, later.
const maxRetired = 16

func (e *Engine) renewUpstream() {
	e.mu.Lock()
	old := e.upstream.Swap(e.newUpstream(e.roots))
	if e.retired = append(e.retired, old); len(e.retired) > maxRetired {
		e.retired = e.retired[1:]
	}
	e.mu.Unlock()
	old.closeIdle()
}

// Shutdown takes no more connections, closes idle ones and lets running
// requests end until ctx does; then it closes what is left. When it returns,
// nothing of the engine runs any more. The error is that of ctx when something
// had to be cut off.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.beginShutdown()
	err := e.server.Shutdown(ctx)
	if err == nil {
		err = e.waitForWork(ctx)
	}
	e.cancel()
	e.server.Close()
	e.flows.cancelAll(&endedError{"the gateway stops"})
	e.closeConns(func(*clientConn) bool { return true })
	e.work.Wait()
	_ = e.flows.wait(context.Background()) // has no error without an end
	e.closeUpstream()
	return err
}

func (e *Engine) closeUpstream() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, u := range append(e.retired, e.upstream.Load()) {
		u.closeIdle()
	}
}

func (e *Engine) beginShutdown() {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.closing:
		return
	default:
	}
	close(e.closing)
	for l := range e.listeners {
		l.Close()
	}
	for cc := range e.conns {
		// Those that never asked for anything: the server would wait
		// for their first request.
		if cc.requests.Load() == 0 {
			cc.Conn.Close()
		}
	}
}

// waitForWork waits for tunnels, WebSockets and the requests of HTTP/2.
func (e *Engine) waitForWork(ctx context.Context) error {
	if err := e.flows.wait(ctx); err != nil {
		return err
	}
	e.closeConns(func(*clientConn) bool { return true })
	return nil
}

func (e *Engine) closeConns(which func(*clientConn) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for cc := range e.conns {
		if which(cc) {
			cc.Conn.Close()
		}
	}
}
