package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/agentcage/agentcage/internal/inject"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy/ws"
)

// SecretPolicy is an optional interface of a Policy whose cage has secrets. The
// injector puts them into what the policy let pass, where no inspector looks
// any more, and takes them out of everything that comes back, before one looks.
type SecretPolicy interface {
	Secrets() *inject.Injector // nil for none
}

// injector is that of the policy of now, and nil where there are no secrets.
func (e *Engine) injector() *inject.Injector {
	p, ok := (*e.policy.Load()).(SecretPolicy)
	if !ok {
		return nil
	}
	if in := p.Secrets(); in.Active() {
		return in
	}
	return nil
}

var errPolicyChanged = errors.New("the policy changed meanwhile: send it again")

// secrets is what an exchange has to do with them.
type secrets struct {
	in   *inject.Injector // nil for none
	head inject.Head      // as it is sent
	body func(io.Reader) io.Reader
	kept []byte         // the body as it is sent, where that is known; nil when it is what was read
	sent *inject.Stream // of a body that is changed while it is sent

	injected []string
}

// ask lets a server answer only in a form that can be looked at.
func (s *secrets) ask(h http.Header) {
	if s.in != nil {
		s.in.Redactor().AcceptEncoding(h)
	}
}

// inject makes what is sent of a request that was let pass. What cannot be
// injected is not sent, and makes the verdict a refusal.
func (x *exchange) inject(ctx context.Context) {
	s := &x.secrets
	if !x.verdict.Allowed() {
		return
	}
	var err error
	switch now := x.e.injector(); {
	case now != s.in:
		// What decided is not what would inject.
		err = errPolicyChanged
	case now == nil:
		return
	default:
		err = x.injectAll(ctx)
	}
	if err != nil {
		reason := s.redactString(err.Error())
		x.verdict = merge(x.verdict, inspect.Verdict{
			Reason: reason, Status: http.StatusForbidden,
			Findings: []inspect.Finding{{Inspector: "injection", Reason: reason, Severity: inspect.Critical}},
		})
		return
	}
	slices.Sort(s.injected)
	s.injected = slices.Compact(s.injected)
	x.injected = s.injected
}

func (x *exchange) injectAll(ctx context.Context) (err error) {
	s := &x.secrets
	if s.head, err = s.in.Head(ctx, &x.req); err != nil {
		return err
	}
	s.injected = append(s.injected, s.head.Injected...)
	body, err := s.in.Body(ctx, &x.req)
	if err != nil {
		return err
	}
	whole := x.body != nil && x.body.whole
	switch {
	case body == nil:
	case whole:
		out, names := body.Bytes(x.body.bytes())
		if len(names) > 0 {
			s.kept = out
			s.injected = append(s.injected, names...)
			s.dropDigests()
		}
	default:
		s.dropDigests() // of what it was
		s.body = func(r io.Reader) io.Reader { s.sent = body.Reader(r); return s.sent }
	}
	return x.sign(ctx, whole)
}

// dropDigests takes away what says how a body was before something was put into
// it. Inspectors go on seeing it.
func (s *secrets) dropDigests() {
	s.head.Header = maps.Clone(s.head.Header)
	inject.DropDigests(s.head.Header)
}

// sign makes the signature of a request to AWS anew, over what is sent.
func (x *exchange) sign(ctx context.Context, whole bool) error {
	s := &x.secrets
	if !s.in.Signs(x.req.Host) {
		return nil
	}
	u := *s.head.URL
	r := &http.Request{
		Method: x.r.Method, Host: x.target.authority, URL: &u, Header: s.head.Header.Clone(), ContentLength: x.r.ContentLength,
	}
	var known []byte
	if whole {
		known = x.sentBody()
		r.ContentLength = int64(len(known))
	}
	signed, err := s.in.Sign(ctx, &x.req, r, known)
	if signed == nil || err != nil {
		return err
	}
	s.injected = append(s.injected, signed.Name)
	s.head.Header, s.head.URL = r.Header, r.URL
	if !whole {
		before := s.body
		s.body = func(r io.Reader) io.Reader {
			if before != nil {
				r = before(r)
			}
			return signed.Body(r)
		}
		return nil
	}
	out, err := io.ReadAll(signed.Body(bytes.NewReader(known)))
	if err == nil && len(known) > 0 {
		s.kept = out
	}
	return err
}

// sentBody is the whole body as it is sent.
func (x *exchange) sentBody() []byte {
	if x.secrets.kept != nil {
		return x.secrets.kept
	}
	if b := x.body.bytes(); b != nil {
		return b
	}
	return []byte{}
}

// apply puts what was injected into the request that is sent.
func (s *secrets) apply(out *http.Request) {
	if s.in == nil {
		return
	}
	out.Header, out.URL = s.head.Header, s.head.URL
	switch {
	case s.kept != nil:
		setSmall(out, s.kept)
		out.ContentLength = int64(len(s.kept))
	case s.body != nil && out.Body != nil:
		body := out.Body
		out.Body, out.GetBody = readCloser{s.body(body), body}, nil
		if s.sent != nil {
			out.ContentLength = -1 // it may become another
		}
	}
}

type readCloser struct {
	io.Reader
	io.Closer
}

// redact takes secrets out of an answer before anybody looks at it. The error
// is one that says that the answer cannot be looked at.
func (x *exchange) redact(res *http.Response) error {
	s := &x.secrets
	if s.in == nil {
		return nil
	}
	red := s.in.Redactor()
	x.redactHeader(res.Trailer) // the names, which are announced
	if bodiless(x.r.Method, res) {
		x.redacted = append(x.redacted, red.Header(res.Header)...)
		return nil
	}
	body, err := red.Response(res.Header, res.Body, res.ContentLength)
	if err != nil {
		return err
	}
	res.Body, res.ContentLength = body, body.Length
	x.redactedBody = body
	return nil
}

// bodiless tells answers that have no body whatever their header says (RFC 9112
// section 6.3).
func bodiless(method string, res *http.Response) bool {
	return method == http.MethodHead || res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified ||
		res.StatusCode == http.StatusSwitchingProtocols || res.ContentLength == 0
}

// redactHeader is for interim answers and trailers.
func (x *exchange) redactHeader(h http.Header) {
	if x.secrets.in != nil {
		x.redacted = append(x.redacted, x.secrets.in.Redactor().Header(h)...)
	}
}

// tellSecrets writes down what was found when all of the answer was seen, and
// what was put into a body while it was sent.
func (x *exchange) tellSecrets() {
	s := &x.secrets
	if s.in == nil {
		return
	}
	if x.redactedBody != nil {
		x.redacted = append(x.redacted, x.redactedBody.Names()...)
	}
	var late []string
	if s.sent != nil {
		late = s.sent.Names()
	}
	if len(x.redacted)+len(late) == 0 {
		return
	}
	x.injected = append(x.injected, late...)
	slices.Sort(x.redacted)
	x.redacted = slices.Compact(x.redacted)
	x.mu.Lock()
	is := x.verdict
	x.mu.Unlock()
	_ = x.tell(is) // the answer has gone, and the log has counted the error
}

// redactString is what may be said of an error that a server had a part in. It
// comes first: half a value, or one that was made printable, is not found.
func (s *secrets) redactString(reason string) string {
	if s.in == nil {
		return reason
	}
	return s.in.Redactor().String(reason)
}

// inject puts secrets into a message that was let pass. The injector is the one
// that the message was decided under.
func (s *webSocket) inject(ctx context.Context, in *inject.Injector, m *ws.Message) ([]string, error) {
	now := s.e.injector()
	switch {
	case now != in:
		return nil, errPolicyChanged
	case now == nil:
		return nil, nil
	}
	out, injected, err := in.Message(ctx, &s.flow.req, m.Data)
	if err != nil {
		return nil, errors.New(in.Redactor().String(err.Error()))
	}
	m.Data = out
	return injected, nil
}

// redactMessage takes secrets out of a message to the client.
func redactMessage(in *inject.Injector, data []byte) (out []byte, names []string) {
	if in == nil {
		return data, nil
	}
	return in.Redactor().Bytes(data)
}
