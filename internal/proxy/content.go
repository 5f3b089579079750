package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy/strict"
)

// ContentPolicy is an optional interface of a Policy that looks at what is in
// flows. Its methods are called concurrently. They must not change the content,
// and not use its body when they have returned.
type ContentPolicy interface {
	// Reads says what of a flow has to be read. It is asked when Decide has
	// allowed the head, and by Update about what goes on unread.
	Reads(r *inspect.Request) inspect.Reads
	// DecideContent gives the verdict of one piece, before a byte of it goes
	// on. The zero Verdict blocks.
	DecideContent(ctx context.Context, c *inspect.Content) inspect.Verdict
}

// readsOf asks what has to be read, and reads everything for a policy that
// cannot say.
func readsOf(p Policy, r *inspect.Request) (reads inspect.Reads) {
	defer func() {
		if recover() != nil {
			reads = inspect.Reads{Request: true, Messages: true, Responses: true}
		}
	}()
	if p, ok := p.(ContentPolicy); ok {
		return p.Reads(r)
	}
	return reads
}

// What of a flow goes on without being read.
const (
	unreadBody = 1 << iota
	unreadMessages
)

// reads asks the policy of now, and marks what goes on unread of a flow that is
// in e.flows, for a later policy that reads it. The policy that is asked is in
// force when the mark is there, so that Update sees either.
func (e *Engine) reads(f *flow, unread func(inspect.Reads) uint32) inspect.Reads {
	for {
		p := e.policy.Load()
		reads := readsOf(*p, &f.req)
		f.unread.Store(unread(reads))
		if e.policy.Load() == p {
			return reads
		}
	}
}

// decideContent is the one place where the policy is asked about content. It
// never panics.
func (e *Engine) decideContent(ctx context.Context, c *inspect.Content) (v inspect.Verdict) {
	p, ok := (*e.policy.Load()).(ContentPolicy)
	if !ok {
		return inspect.Verdict{Decision: inspect.Allowed, BodyLimit: -1} // nobody reads any more
	}
	defer func() {
		if r := recover(); r != nil {
			v = inspect.Verdict{Reason: "the policy failed"}
		}
	}()
	v = p.DecideContent(ctx, c)
	if !v.Allowed() && v.Reason == "" {
		v.Reason = "no verdict"
	}
	return v
}

// merge adds the verdict of a content to that of its head.
func merge(head, content inspect.Verdict) inspect.Verdict {
	head.Findings = append(head.Findings[:len(head.Findings):len(head.Findings)], content.Findings...)
	switch {
	case !content.Allowed():
		head.Decision, head.Reason, head.Status = content.Decision, content.Reason, content.Status
	case content.Decision == inspect.Flagged:
		if head.Decision == inspect.Flagged && head.Reason != "" {
			content.Reason = head.Reason + "; " + content.Reason
		}
		head.Decision, head.Reason = inspect.Flagged, content.Reason
	}
	return head
}

// refusedError ends a body whose content was refused, which has been recorded.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return e.reason }

// reading is what an exchange has of its body where the policy reads it.
type reading struct {
	small   []byte    // a body of a few packets
	kept    *kept     // a longer one, or its beginning
	whole   bool      // it is all there
	src     io.Reader // what follows the beginning
	share   share     // of small
	cut     *cutter
	decided *decided
}

// sent is called when nothing will be sent anew. A transport that still reads
// keeps what it reads.
func (b *reading) sent() {
	if b.kept != nil && b.decided == nil {
		b.kept.drop()
		b.kept = nil
	}
	if b.share.of != nil {
		b.share.Release()
	}
}

// end gives everything back, as soon as nobody reads it any more.
func (b *reading) end() {
	b.sent()
	if b.decided != nil {
		b.decided.drop()
		b.cut.end(false)
	}
}

// unread tells what of the request goes on unread, for a policy that reads so
// much.
func (x *exchange) unread(reads inspect.Reads) (marks uint32) {
	if x.upgrade && !reads.Messages {
		marks |= unreadMessages
	}
	if !x.inMemory() && !reads.Request {
		marks |= unreadBody
	}
	return marks
}

// inspect reads what is decided before anything is sent, decides it, and merges
// the verdict into that of the head, before that is written down. It is false
// when the request was ended meanwhile, which is written down already.
func (x *exchange) inspect(ctx context.Context) bool {
	x.body = &reading{}
	framed := x.r.ContentLength != 0 && isFramed(x.r.Header)
	var err error
	if !framed {
		err = x.readBody(ctx)
	}
	var ended *endedError
	switch {
	case errors.As(context.Cause(ctx), &ended):
		x.answer(http.StatusForbidden, ended.reason)
		return false
	case x.ended.Load():
		panic(http.ErrAbortHandler) // the connection is closed
	case err != nil:
		x.unreadable(err)
		return true
	}
	x.verdict = merge(x.verdict, x.decideBody(ctx))
	if framed || x.body.kept != nil && !x.body.whole {
		x.streamBody(ctx, framed)
	}
	return true
}

// decideBody decides the head with what is there of the body. The names of
// trailers go out with the head, and their values behind the body.
func (x *exchange) decideBody(ctx context.Context) inspect.Verdict {
	if len(x.r.Header["Content-Type"]) > 1 {
		return inspect.Verdict{Reason: "there is more than one Content-Type"}
	}
	v := x.e.decideContent(ctx, x.content(inspect.KindRequest, x.body.bytes(), codings(x.r.Header)))
	if v.Allowed() && len(x.r.Trailer) > 0 {
		v = merge(v, x.e.decideContent(ctx, x.trailerContent()))
	}
	return v
}

func (b *reading) bytes() []byte {
	if b.kept != nil {
		return b.kept.bytes()
	}
	return b.small
}

// content is a piece of the request.
func (x *exchange) content(kind inspect.Kind, body []byte, encoding []string) *inspect.Content {
	c := &inspect.Content{Request: &x.req, Kind: kind, Direction: inspect.ToServer, Encoding: encoding, Body: body}
	if t := x.r.Header["Content-Type"]; len(t) > 0 {
		c.Type = t[0]
	}
	if kind == inspect.KindRequest {
		c.Header = x.r.Header
	}
	return c
}

func (x *exchange) trailerContent() *inspect.Content {
	return &inspect.Content{Request: &x.req, Kind: inspect.KindTrailer, Direction: inspect.ToServer, Header: x.r.Trailer}
}

// codings are the content codings of a body, in the order in which they were
// applied (RFC 9110 section 8.4). Identity is none.
func codings(h http.Header) []string {
	var out []string
	for _, v := range h["Content-Encoding"] {
		for one := range strings.SplitSeq(v, ",") {
			if one = strings.ToLower(strings.TrimSpace(one)); one != "" && one != "identity" {
				out = append(out, one)
			}
		}
	}
	return out
}

// source is the client's side of the body, within its limit.
func (x *exchange) source() io.ReadCloser {
	if x.verdict.BodyLimit < 0 {
		return x.r.Body
	}
	if x.limit == nil {
		x.limit = &limitedBody{ReadCloser: x.r.Body, max: x.verdict.BodyLimit, left: x.verdict.BodyLimit}
	}
	return x.limit
}

// readBody reads all of the body, or the beginning of one that is too long to
// be kept.
func (x *exchange) readBody(ctx context.Context) error {
	n := x.r.ContentLength
	switch {
	case n == 0:
		x.body.whole = true
		return nil
	case !x.inMemory():
		return x.keepBody(ctx)
	}
	x.body.share.of = x.e.memory
	if err := x.body.share.Grow(ctx, n); err != nil {
		return err
	}
	buf, err := x.readSmall(n)
	x.body.small, x.body.whole = buf, err == nil
	return err
}

func (x *exchange) keepBody(ctx context.Context) error {
	most := x.e.limits.MaxKept
	if x.r.ContentLength > int64(most) {
		most = window
	}
	cut := &cutter{rc: http.NewResponseController(x.w)}
	defer context.AfterFunc(ctx, cut.now)()
	p := &pace{timeout: x.e.limits.BodyTimeout, late: cut.now}
	p.start()
	err := x.fill(ctx, most, p)
	if !p.stop() && err != nil {
		err = errSlow
	}
	cut.end(err == nil)
	return err
}

// fill keeps most bytes, and finds out whether that is all.
func (x *exchange) fill(ctx context.Context, most int, p *pace) error {
	b, src := x.body, x.source()
	b.kept = newKept(x.e.memory)
	var err error
	if b.whole, err = b.kept.fill(ctx, src, most, p); err != nil || b.whole {
		return err
	}
	var more [1]byte
	switch _, err = io.ReadFull(src, more[:]); err {
	case io.EOF:
		b.whole = true
		return nil
	case nil:
		b.src = io.MultiReader(bytes.NewReader(more[:]), src)
		if len(codings(x.r.Header)) > 0 || isCompressed(b.kept.bytes()) {
			return &bodyError{http.StatusForbidden, fmt.Sprintf("body too large to decode: more than %d bytes", x.e.limits.MaxKept)}
		}
	}
	return err
}

// bodyError is why a body is refused that was not decided.
type bodyError struct {
	status int
	reason string
}

func (e *bodyError) Error() string { return e.reason }

// unreadable makes the verdict on a request whose body did not come as it has
// to. It panics when there is nobody to answer.
func (x *exchange) unreadable(err error) {
	var body *bodyError
	var malformed *strict.RejectError
	switch {
	case x.limit != nil && x.limit.over.Load():
		body = &bodyError{http.StatusForbidden, tooLarge(x.limit.max+1, x.limit.max)}
	case errors.As(err, &body):
	case errors.Is(err, errNoMemory):
		body = &bodyError{http.StatusServiceUnavailable, err.Error()}
	case errors.Is(err, errSlow), errors.Is(err, os.ErrDeadlineExceeded):
		body = &bodyError{http.StatusRequestTimeout, errSlow.Error()}
	case errors.As(err, &malformed):
		panic(http.ErrAbortHandler) // which is in the audit log
	default:
		_ = x.e.record(&x.flow, inspect.Verdict{Reason: "the body did not arrive"}) // nothing is sent in any case
		panic(http.ErrAbortHandler)
	}
	x.verdict = merge(x.verdict, inspect.Verdict{Reason: body.reason, Status: body.status})
}

// streamBody makes the body one of which each piece is decided before it goes
// on.
func (x *exchange) streamBody(ctx context.Context, framed bool) {
	b := x.body
	b.cut = &cutter{rc: http.NewResponseController(x.w)}
	p := &pace{timeout: x.e.limits.BodyTimeout, late: b.cut.now}
	j := judge{
		decide: func(kind inspect.Kind, body []byte, encoding []string, repeated int) error {
			c := x.content(kind, body, encoding)
			c.Repeated = repeated
			return x.judge(ctx, c)
		},
		refuse: func(reason string) error { return x.stop(inspect.Verdict{Reason: reason}) },
	}
	b.decided = &decided{Closer: x.source(), ctx: ctx, judge: j, trailer: func() error {
		if len(x.r.Trailer) == 0 {
			return nil
		}
		return x.judge(ctx, x.trailerContent())
	}}
	if framed {
		b.decided.pieces = newMessages(j, x.source(), x.e.memory, p, x.e.limits.MaxKept, x.r.Header, inspect.ToServer)
	} else {
		b.decided.pieces = &windows{judge: j, src: b.src, kept: b.kept, pace: p}
	}
}

// judge decides a piece of a flow that is under way. What is merely allowed
// makes no record.
func (x *exchange) judge(ctx context.Context, c *inspect.Content) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // nobody waits for it
	}
	v := x.e.decideContent(ctx, c)
	if v.Decision == inspect.Allowed && len(v.Findings) == 0 {
		return nil
	}
	if c.Direction == inspect.ToClient {
		v.Reason = "response: " + v.Reason
	}
	if !v.Allowed() {
		return x.stop(v)
	}
	if err := x.tell(v); err != nil {
		return x.stop(inspect.Verdict{Reason: "the audit log cannot be written", Status: http.StatusServiceUnavailable})
	}
	return nil
}

// stop refuses what was on its way.
func (x *exchange) stop(v inspect.Verdict) error {
	_ = x.tell(v) // it is refused in any case
	x.stopped.Store(&v)
	return &refusedError{v.Reason}
}
