package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/inject"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy/dial"
	"github.com/agentcage/agentcage/internal/proxy/strict"
	"github.com/agentcage/agentcage/internal/proxy/ws"
)

// exchange is one request and its answer.
type exchange struct {
	flow
	e  *Engine
	cc *clientConn
	w  http.ResponseWriter
	r  *http.Request

	target   target
	mu       sync.Mutex      // of verdict, once the request is forwarded
	verdict  inspect.Verdict // the latest
	upgrade  bool            // to WebSocket
	kept     bool            // the flow goes on after the handler
	answered bool            // a status was sent: it is too late for another one
	ended    atomic.Bool     // by us, where the context does not tell
	limit    *limitedBody
	interim  interim

	reads   inspect.Reads
	body    *reading                        // where requests are read
	stopped atomic.Pointer[inspect.Verdict] // that refused a part of what was let through

	secrets      secrets
	redactedBody *inject.Body // of the answer
}

// serveHTTP is the one handler behind every way in.
func (e *Engine) serveHTTP(w http.ResponseWriter, r *http.Request) {
	cc, ok := r.Context().Value(connKey{}).(*clientConn)
	if !ok {
		e.log.Error("request without connection")
		panic(http.ErrAbortHandler)
	}
	x := &exchange{e: e, cc: cc, w: w, r: r}
	x.id = audit.NewID()
	x.req.Via, x.req.Method, x.req.Header, x.req.ContentLength = cc.via, r.Method, r.Header, r.ContentLength
	x.req.URL = r.URL
	defer x.survive()
	if n := e.inflight.Add(1); n > int64(e.limits.MaxRequests) {
		x.refuseHead(http.StatusTooManyRequests, "too many requests at once")
	} else {
		x.serve()
	}
	e.inflight.Add(-1)
}

// survive turns a fault of ours into a refusal.
func (x *exchange) survive() {
	p := recover()
	if p == nil {
		return
	}
	x.e.inflight.Add(-1)
	if p == http.ErrAbortHandler {
		panic(p)
	}
	x.e.log.Error("request handler failed", "panic", p, "stack", string(debug.Stack()))
	x.refuse(http.StatusForbidden, "the gateway failed")
	if x.answered {
		panic(http.ErrAbortHandler)
	}
}

func (x *exchange) serve() {
	if x.r.Method == http.MethodConnect {
		x.acceptConnect()
		return
	}
	t, err := identify(x.cc, x.r)
	x.target = t
	x.req.Scheme, x.req.Host, x.req.Port = t.scheme, t.host, t.port
	if err == nil {
		err = x.checkKind()
	}
	if err != nil {
		x.refuseHead(http.StatusForbidden, err.Error())
		return
	}
	x.secrets.in = x.e.injector()
	x.prepare()
	ctx := x.cancellable()
	x.cc.requests.Add(1)
	x.e.flows.add(&x.flow)
	defer func() {
		if x.body != nil {
			x.body.end()
		}
		if !x.kept {
			x.end()
		}
	}()
	switch {
	case !x.decide(ctx):
	case x.ended.Load():
		panic(http.ErrAbortHandler)
	case x.upgrade:
		x.forwardUpgrade(ctx)
	default:
		x.forward(ctx)
	}
}

// cancellable gives the context of the exchange, and makes x.cancel end it.
func (x *exchange) cancellable() context.Context {
	ctx := x.r.Context()
	if x.r.ProtoMajor == 1 && !x.upgrade && x.inMemory() {
		// The server ends its context with the connection, which has
		// nothing else to carry: that saves a context for each request.
		// While a body is to be read the server does not watch.
		x.cancel = func(cause error) {
			if cause != nil {
				x.ended.Store(true)
				x.cc.Conn.Close()
			}
		}
		return ctx
	}
	if x.upgrade {
		ctx = x.e.ctx // it outlives the handler
	}
	ctx, x.cancel = context.WithCancelCause(ctx)
	return ctx
}

// end takes the flow off the list.
func (x *exchange) end() {
	x.e.flows.remove(&x.flow)
	x.cancel(nil)
}

// checkKind refuses the requests that are never forwarded, whatever the policy
// says. The upgrade is looked at before any header is taken away.
func (x *exchange) checkKind() error {
	r := x.r
	switch {
	case !isToken(r.Method):
		return errors.New("malformed method")
	case r.Method == http.MethodTrace || r.Method == "PRI":
		return fmt.Errorf("method %s is refused", r.Method)
	case r.ProtoMajor != 1 && hasKey(r.Header, strict.RefusedField):
		return errors.New("a field name is a look-alike of a framing field")
	case hasKey(r.Trailer, strict.RefusedTrailer):
		return errors.New("a trailer has a field that no trailer may have")
	case len(r.Header["Upgrade"]) == 0:
		return nil
	}
	x.upgrade = true
	if err := ws.ValidUpgradeRequest(r); err != nil {
		return fmt.Errorf("upgrade to %s is refused: %w", printable(strings.Join(r.Header["Upgrade"], ", ")), err)
	}
	return nil
}

func hasKey(h http.Header, bad func(string) bool) bool {
	for name := range h {
		if bad(name) {
			return true
		}
	}
	return false
}

// prepare makes the head that is inspected and sent on: the same bytes. Nothing
// may change it later, as Update reads it at any time.
func (x *exchange) prepare() {
	endToEnd(x.r.Header)
	x.secrets.ask(x.r.Header)
	if _, ok := x.r.Header["User-Agent"]; !ok {
		x.r.Header["User-Agent"] = nil // or the transport writes its own
	}
	in := x.r.URL
	u := &url.URL{
		Scheme:     x.target.scheme,
		Host:       x.target.host.Authority(x.target.port),
		Path:       in.Path,
		RawPath:    in.RawPath,
		ForceQuery: in.ForceQuery,
		RawQuery:   in.RawQuery,
	}
	escaped := u.EscapedPath()
	if sent := sentPath(x.r.RequestURI); sent != "" && sent != escaped {
		// Legal, but not as net/url would write it.
		u.Opaque, escaped = sent, sent
	}
	x.req.URL = u
	// An ambiguous path is no path: it blocks where a rule names paths.
	x.req.Path, _ = inspect.DecodePath(escaped)
}

// sentPath is the path of a request target as it came, or "" when it has none
// or one that net/url would take for an authority.
func sentPath(target string) string {
	path, _, _ := strings.Cut(target, "?")
	if !strings.HasPrefix(path, "/") {
		_, rest, ok := strings.Cut(path, "://")
		i := strings.IndexByte(rest, '/')
		if !ok || i < 0 {
			return ""
		}
		path = rest[i:]
	}
	if strings.HasPrefix(path, "//") {
		return ""
	}
	return path
}

// decide asks the policy about a request that is in e.flows, writes the verdict
// down and, when it is a refusal, answers. Nothing reaches an
// upstream server that this function has not allowed.
func (x *exchange) decide(ctx context.Context) bool {
	x.verdict = x.e.decide(ctx, &x.flow)
	limit := x.verdict.BodyLimit
	if x.verdict.Allowed() && limit >= 0 && x.r.ContentLength > limit {
		x.verdict = inspect.Verdict{Reason: tooLarge(x.r.ContentLength, limit), Status: http.StatusForbidden}
	}
	if x.verdict.Allowed() {
		x.reads = x.e.reads(&x.flow, x.unread)
		if x.reads.Request && !x.inspect(ctx) {
			return false
		}
	}
	x.inject(ctx)
	err := x.e.record(&x.flow, x.verdict)
	switch {
	case !x.verdict.Allowed():
		x.answer(refusalStatus(x.verdict.Status), x.verdict.Reason)
	case err != nil:
		x.answer(http.StatusServiceUnavailable, "the audit log cannot be written")
	default:
		return true
	}
	return false
}

// decide is the one place where the policy is asked. It never panics.
func (e *Engine) decide(ctx context.Context, f *flow) inspect.Verdict {
	return ask(ctx, *e.policy.Load(), f)
}

func ask(ctx context.Context, p Policy, f *flow) (v inspect.Verdict) {
	defer func() {
		if r := recover(); r != nil {
			v = inspect.Verdict{Reason: "the policy failed"}
		}
	}()
	v = p.Decide(ctx, &f.req)
	if !v.Allowed() && v.Reason == "" {
		v.Reason = "no verdict"
	}
	return v
}

// stillAllowed decides a running flow again, and gives the reason to end it. A
// refusal for the rate is about new requests.
func (e *Engine) stillAllowed(p Policy, f *flow) (reason string, ok bool) {
	if f.req.Opaque && !p.Passthrough(f.req.Host, f.req.Port) {
		return "policy changed: no passthrough for " + f.req.Host.String(), false
	}
	again := flow{req: f.req}
	again.req.Again = true
	v := ask(e.ctx, p, &again)
	if !v.Allowed() && v.Status != http.StatusTooManyRequests {
		return "policy changed: " + v.Reason, false
	}
	if unread := f.unread.Load(); unread != 0 {
		reads := readsOf(p, &f.req)
		if reads.Request && unread&unreadBody != 0 || reads.Messages && unread&unreadMessages != 0 {
			return "policy changed: what is sent has to be read", false
		}
	}
	return "", true
}

func refusalStatus(status int) int {
	if status < 400 || status > 599 {
		return http.StatusForbidden
	}
	return status
}

// refuse records and answers a refusal that is no verdict of the policy, at any
// time of a request.
func (x *exchange) refuse(status int, reason string) {
	_ = x.e.record(&x.flow, inspect.Verdict{Reason: reason}) // it is refused in any case
	if !x.answered {
		x.answer(status, reason)
	}
}

// refuseHead is refuse for a request that the policy is not even asked about.
func (x *exchange) refuseHead(status int, reason string) {
	x.cc.requests.Add(1)
	x.refuse(status, reason)
}

// record writes one decision to the audit log.
func (e *Engine) record(f *flow, v inspect.Verdict) error {
	return e.put(f, v, "")
}

// revise writes down what came of a tunnel that was let through. It is too late
// to refuse on an error, which the log has counted.
func (e *Engine) revise(f *flow, was, is inspect.Verdict) {
	_ = e.put(f, is, was.Decision.String())
}

// tell writes down what came of a request that was let through.
func (x *exchange) tell(is inspect.Verdict) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	was := x.verdict
	x.verdict = is
	return x.e.put(&x.flow, is, was.Decision.String())
}

func (e *Engine) put(f *flow, v inspect.Verdict, revises string) error {
	r := audit.Record{
		Revises:  revises,
		Kind:     f.kind,
		ID:       f.id,
		Method:   f.req.Method,
		Host:     f.req.Host.String(),
		Port:     f.req.Port,
		Decision: v.Decision.String(),
		Reason:   v.Reason,

		SecretsInjected: f.injected,
		SecretsRedacted: f.redacted,
	}
	if f.req.URL != nil {
		r.Path = f.req.EscapedPath()
		r.URL = auditURL(&f.req, r.Path)
	}
	if len(v.Findings) > 0 {
		r.Inspectors = make([]audit.Finding, len(v.Findings))
		for i, fd := range v.Findings {
			r.Inspectors[i] = audit.Finding{
				Name: fd.Inspector, Action: fd.Action.String(), Reason: fd.Reason, Severity: string(fd.Severity),
				Rule: fd.Rule, Mode: fd.Mode.String(),
			}
		}
	}
	err := e.audit.Put(r)
	if err != nil {
		e.log.Error("cannot write audit record", "error", err)
	}
	return err
}

func auditURL(r *inspect.Request, path string) string {
	port := r.Port
	if port == defaultPort(r.Scheme) {
		port = 0
	}
	s := r.Scheme + "://" + r.Host.Authority(port) + path
	if r.URL.RawQuery != "" {
		s += "?" + r.URL.RawQuery
	}
	return s
}

// recordUpstream notes that an allowed request came to nothing.
func (x *exchange) recordUpstream(reason string) {
	f := flow{req: x.req, id: x.id, kind: audit.KindUpstream}
	x.mu.Lock()
	was := x.verdict
	x.mu.Unlock()
	x.e.revise(&f, was, inspect.Verdict{Decision: was.Decision, Reason: reason})
}

// failed answers a request whose upstream did not.
func (x *exchange) failed(ctx context.Context, err error) {
	var refused *dial.RefusedError
	var ended *endedError
	var malformed *strict.RejectError
	stopped := x.stopped.Load()
	switch {
	case stopped != nil:
		if !x.answered {
			x.answer(refusalStatus(stopped.Status), stopped.Reason)
		}
	case x.limit != nil && x.limit.over.Load():
		reason := tooLarge(x.limit.max+1, x.limit.max)
		_ = x.tell(inspect.Verdict{Reason: reason}) // it is refused in any case
		if !x.answered {
			x.answer(http.StatusForbidden, reason)
		}
	case errors.As(context.Cause(ctx), &ended):
		if !x.answered {
			x.answer(http.StatusForbidden, ended.reason)
		}
	case errors.As(err, &refused):
		_ = x.tell(inspect.Verdict{Reason: refused.Error()}) // it is refused in any case
		if !x.answered {
			x.answer(http.StatusForbidden, refused.Error())
		}
	case inject.Undecodable(err):
		reason := "response: " + err.Error()
		_ = x.tell(inspect.Verdict{Reason: reason}) // it is refused in any case
		if !x.answered {
			x.answer(http.StatusForbidden, reason)
		}
	case x.r.Context().Err() != nil, errors.As(err, &malformed):
		panic(http.ErrAbortHandler) // the client went away, or sent what was refused
	default:
		reason := upstreamReason(x.secrets.redactString(err.Error()))
		x.recordUpstream(reason)
		if !x.answered {
			x.answerError(reason)
		}
	}
}

func upstreamReason(text string) string {
	return printable(strings.TrimPrefix(text, "net/http: "))
}

func tooLarge(size, limit int64) string {
	return fmt.Sprintf("body too large: %d > %d", size, limit)
}
