package inject

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/secret"
)

// Head is the head of a request as it is sent: a copy where anything changed.
type Head struct {
	Header   http.Header
	URL      *url.URL
	Injected []string // names of secrets, sorted
}

// Head injects into the header and the query of a request that the Policy let
// pass, and never into scheme, host, port or path. An error says why the
// request must not be sent.
func (in *Injector) Head(ctx context.Context, req *inspect.Request) (Head, error) {
	out := Head{Header: req.Header, URL: req.URL}
	if in.RedactsTo(req.Host) {
		return in.redactHead(req)
	}
	s := in.sender(ctx, req)
	if len(s.rules) == 0 {
		return out, nil
	}
	if err := s.header(&out); err != nil {
		return Head{}, err
	}
	if err := s.query(&out); err != nil {
		return Head{}, err
	}
	out.Injected = s.names()
	return out, nil
}

// redactHead puts placeholders in place of values, for a host of redact_to.
func (in *Injector) redactHead(req *inspect.Request) (Head, error) {
	out := Head{Header: req.Header.Clone(), URL: req.URL}
	in.ledger.redactor.Header(out.Header)
	if u := req.URL; u != nil {
		if _, found := in.ledger.redactor.Bytes([]byte(u.EscapedPath())); len(found) > 0 {
			return Head{}, fmt.Errorf("secret %s is in the path", found[0])
		}
		v := *u
		v.RawQuery = in.ledger.redactor.String(u.RawQuery)
		out.URL = &v
	}
	return out, nil
}

// sender injects into one request.
type sender struct {
	in       *Injector
	ctx      context.Context
	req      *inspect.Request
	rules    []*rule // that are for its host, method and path, and do not sign
	injected map[string]bool
}

func (in *Injector) sender(ctx context.Context, req *inspect.Request) *sender {
	s := &sender{in: in, ctx: ctx, req: req, injected: make(map[string]bool)}
	if in.Active() {
		s.rules = slices.DeleteFunc(in.boundTo(req.Host), func(r *rule) bool { return r.signs() || !r.covers(req) })
	}
	return s
}

func (s *sender) names() []string { return slices.Sorted(maps.Keys(s.injected)) }

func (s *sender) value(r *rule) ([]byte, error) {
	v, err := s.in.current(s.ctx, r)
	if err != nil {
		return nil, err
	}
	return v.RevealBytes(), nil
}

// replace puts values in place of the placeholders of the rules that slot
// allows. write says how a value is written there.
func (s *sender) replace(text string, lv int, esc escapes, slot func(*rule) bool, write func([]byte) (string, error)) (string, error) {
	var b strings.Builder
	done := 0
	for id, m := range s.in.spotsIn([]byte(text), s.in.plain.m, lv, esc) {
		r := s.in.rules[id]
		if !slices.Contains(s.rules, r) || !slot(r) {
			continue
		}
		value, err := s.value(r)
		if err != nil {
			return "", err
		}
		with, err := write(value)
		if err != nil {
			return "", fmt.Errorf("secret %s cannot be injected: %w", r.Env, err)
		}
		b.WriteString(text[done:m.start])
		b.WriteString(with)
		done = m.end
		s.injected[r.Env] = true
	}
	if done == 0 {
		return text, nil
	}
	b.WriteString(text[done:])
	return b.String(), nil
}

// spotsIn gives the places at which a matcher of placeholders finds one, the
// longest where they overlap.
func (in *Injector) spotsIn(text []byte, m *matcher, lv int, esc escapes) func(yield func(int, match) bool) {
	return func(yield func(int, match) bool) {
		if len(text) < minNeedle {
			return
		}
		s := search{m: m, levels: lv, view: view{b: text, final: true, escapes: esc}}
		for end := 0; ; {
			found, ok := s.find()
			if !ok {
				return
			}
			if found.end <= end {
				continue
			}
			end = found.end
			if !yield(m.needles[found.needle].id, found) {
				return
			}
		}
	}
}

// header injects into the values of fields that are slots, where they stand.
func (s *sender) header(out *Head) error {
	copied := false
	for name, values := range s.req.Header {
		slot := func(r *rule) bool { return r.slotHeader(name) }
		if !slices.ContainsFunc(s.rules, slot) {
			continue
		}
		for i, v := range values {
			with, err := s.headerValue(v, slot)
			if err != nil {
				return err
			}
			if with == v {
				continue
			}
			if !copied {
				out.Header = maps.Clone(s.req.Header)
				copied = true
			}
			fresh := slices.Clone(out.Header[name])
			fresh[i] = with
			out.Header[name] = fresh
		}
	}
	return nil
}

func (s *sender) headerValue(v string, slot func(*rule) bool) (string, error) {
	if b, ok := parseBasic(v); ok {
		text, err := s.replace(b.text, 0, 0, slot, func(value []byte) (string, error) { return string(value), nil })
		if err != nil || text == b.text {
			return v, err
		}
		return b.with(text), nil
	}
	return s.replace(v, 0, 0, slot, func(value []byte) (string, error) {
		if !httpguts.ValidHeaderFieldValue(string(value)) {
			return "", errHeaderValue
		}
		return string(value), nil
	})
}

// basic is the value of a header with a user and a password in it (RFC 7617).
type basic struct {
	scheme string // with the blanks behind it, as it was written
	text   string // decoded
	coding *base64.Encoding
}

func parseBasic(v string) (basic, bool) {
	const scheme = "basic"
	if len(v) <= len(scheme) || !strings.EqualFold(v[:len(scheme)], scheme) || v[len(scheme)] != ' ' {
		return basic{}, false
	}
	encoded := strings.TrimLeft(v[len(scheme):], " ")
	head := v[:len(v)-len(encoded)]
	for _, coding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if text, err := coding.Strict().DecodeString(encoded); err == nil && !strings.ContainsAny(encoded, "\r\n") {
			return basic{head, string(text), coding}, true
		}
	}
	return basic{}, false
}

func (b basic) with(text string) string { return b.scheme + b.coding.EncodeToString([]byte(text)) }

// query injects into values of the query. All other bytes stay as they are.
func (s *sender) query(out *Head) error {
	if out.URL == nil || out.URL.RawQuery == "" {
		return nil
	}
	pairs := strings.Split(out.URL.RawQuery, "&")
	for i, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			continue
		}
		with, err := s.replace(value, 1, percent, func(r *rule) bool { return r.InjectQuery }, func(v []byte) (string, error) {
			return escapeQuery(v), nil
		})
		if err != nil {
			return err
		}
		pairs[i] = name + "=" + with
	}
	if q := strings.Join(pairs, "&"); q != out.URL.RawQuery {
		u := *out.URL
		u.RawQuery = q
		out.URL = &u
	}
	return nil
}

// escapeQuery escapes all but the unreserved characters (RFC 3986 section 2.3),
// so that forms and URLs read the same.
func escapeQuery(v []byte) string {
	return strings.ReplaceAll(url.QueryEscape(string(v)), "+", "%20")
}

// syntax is how a body is written.
type syntax uint8

const (
	rawSyntax  syntax = iota // values stand in it as they are
	jsonSyntax               // in strings
	formSyntax
)

func syntaxOf(contentType string) syntax {
	t, _, _ := mime.ParseMediaType(contentType)
	switch {
	case t == "application/x-www-form-urlencoded":
		return formSyntax
	case t == "application/json", t == "text/json", strings.HasSuffix(t, "+json"), strings.HasSuffix(t, "json-seq"),
		t == "application/x-ndjson", t == "application/ndjson", t == "application/jsonl", t == "application/json-lines":
		return jsonSyntax
	}
	return rawSyntax
}

var errNoText = errors.New("the value is no UTF-8, and cannot stand in JSON")

// write returns a value as it is written in a syntax.
func (x syntax) write(value []byte) ([]byte, error) {
	switch x {
	case formSyntax:
		return []byte(escapeQuery(value)), nil
	case jsonSyntax:
		if !utf8.Valid(value) {
			return nil, errNoText
		}
		b, err := json.Marshal(string(value))
		if err != nil {
			return nil, errNoText
		}
		return b[1 : len(b)-1], nil
	default:
		return value, nil
	}
}

// read returns how a placeholder may be written in a syntax.
func (x syntax) read() (levels int, e escapes) {
	switch x {
	case formSyntax:
		return 1, percent
	case jsonSyntax:
		return 1, backslash
	default:
		return 0, 0
	}
}

// BodyInjection puts values into one body.
type BodyInjection struct{ set *redactions }

// Body returns what injects into the body of a request that the Policy let
// pass, and nil when nothing does: without inject_body, in a body with a
// content coding, and in messages that have their length in front. For a host
// of redact_to it is what puts placeholders in place of values.
func (in *Injector) Body(ctx context.Context, req *inspect.Request) (*BodyInjection, error) {
	if in.RedactsBody(req) && in.ledger.redactor.Active() {
		return &BodyInjection{in.ledger.redactor.set.Load()}, nil
	}
	s := in.sender(ctx, req)
	if !slices.ContainsFunc(s.rules, func(r *rule) bool { return r.InjectBody }) || !injectable(req.Header) {
		return nil, nil
	}
	return s.body(syntaxOf(req.Header.Get("Content-Type")))
}

// RedactsBody reports whether real values in the body of a request are replaced
// by their placeholders. Where they are not, as in a compressed body, they must
// be blocked.
func (in *Injector) RedactsBody(req *inspect.Request) bool {
	return in.RedactsTo(req.Host) && injectable(req.Header)
}

// injectable reports whether anything can be put into a body.
func injectable(h http.Header) bool {
	list, err := contentCodings(h)
	return err == nil && len(list) == 0 && !framed(h)
}

// body makes the set of replacements. A rule without a value has none: the
// Policy does not let its placeholder pass.
func (s *sender) body(x syntax) (*BodyInjection, error) {
	lv, esc := x.read()
	set := &redactions{levels: lv, escapes: esc}
	var ns []needle
	for _, r := range s.rules {
		if !r.InjectBody {
			continue
		}
		value, err := s.value(r)
		if err != nil {
			continue
		}
		with, err := x.write(value)
		if err != nil {
			continue
		}
		ns = append(ns, newNeedle(len(set.names), plainForm, []byte(r.Placeholder), with))
		set.names = append(set.names, r.Env)
	}
	if len(ns) == 0 {
		return nil, nil
	}
	set.m = newMatcher(ns)
	return &BodyInjection{set}, nil
}

// Bytes returns a whole body with values in it, whose length is the new
// Content-Length, and the names of the secrets.
func (b *BodyInjection) Bytes(p []byte) (out []byte, names []string) {
	if len(p) < minNeedle {
		return p, nil
	}
	return b.set.replace(p, false)
}

// Reader returns src with values in it, of a length that is not known
// beforehand. Its Names are those of the secrets.
func (b *BodyInjection) Reader(src io.Reader) *Stream {
	return &Stream{src: src, s: newRedaction(b.set)}
}

// Message injects into a message of a WebSocket that the Policy let pass. req
// is the head of its handshake.
func (in *Injector) Message(ctx context.Context, req *inspect.Request, p []byte) (out []byte, names []string, err error) {
	if in.RedactsTo(req.Host) {
		out, _ = in.ledger.redactor.Bytes(p)
		return out, nil, nil
	}
	s := in.sender(ctx, req)
	if !slices.ContainsFunc(s.rules, func(r *rule) bool { return r.InjectBody }) {
		return p, nil, nil
	}
	b, err := s.body(messageSyntax(p))
	if b == nil || err != nil {
		return p, nil, err
	}
	out, names = b.Bytes(p)
	return out, names, nil
}

func messageSyntax(p []byte) syntax {
	if json.Valid(p) {
		return jsonSyntax
	}
	return rawSyntax
}

// writable says why a value cannot stand where its placeholder does.
func writable(v secret.Value, place inspect.Place, encoded bool, x syntax) (err error) {
	v.Reveal(func(b []byte) {
		switch {
		case place == inspect.PlaceHeader && !encoded && !httpguts.ValidHeaderFieldValue(string(b)):
			err = errHeaderValue
		case place == inspect.PlaceBody:
			_, err = x.write(b)
		}
	})
	return err
}
