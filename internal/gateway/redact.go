package gateway

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/decode"
	"github.com/agentcage/agentcage/internal/inspect/known"
	"github.com/agentcage/agentcage/internal/inspect/secrets"
)

// redacted stands where a secret was.
const redacted = "[redacted]"

// redactor is the only way to the audit log (rules.md 71): a request that is
// blocked because its URL has a secret in it must not put it there. It looks at
// every record, since one that is refused for its host was never inspected.
//
// It takes out the whole part in which something is found, so that it need not
// know where in it, behind which encodings, a secret begins and ends.
type redactor struct {
	audit.Sink
	values atomic.Pointer[known.Set]
	forms  atomic.Pointer[secrets.Inspector]
}

// Put implements audit.Sink.
func (r *redactor) Put(rec audit.Record) error {
	host := r.host(rec.Host)
	if host != rec.Host {
		rec.URL = strings.Replace(rec.URL, rec.Host, host, 1)
		rec.Reason = strings.ReplaceAll(rec.Reason, rec.Host, host)
	}
	if k, ok := r.Sink.(audit.Keeper); ok && !k.Keeps(&rec) {
		rec.Host, rec.Path, rec.URL = host, "", "" // as in nearly all records of a busy cage
		return r.Sink.Put(rec)
	}
	path := r.text(rec.Path, "", "/")
	url := r.url(rec.URL, rec.Path, path)
	changed := url != rec.URL || path != rec.Path
	rec.Path, rec.URL, rec.Method, rec.Reason = path, url, r.text(rec.Method, ""), r.reason(rec.Reason, changed)
	rec.Inspectors = slices.Clone(rec.Inspectors) // the caller's
	for i := range rec.Inspectors {
		f := &rec.Inspectors[i]
		if host != rec.Host {
			f.Reason = strings.ReplaceAll(f.Reason, rec.Host, host)
		}
		f.Reason = r.reason(f.Reason, changed)
	}
	rec.Host = host
	return r.Sink.Put(rec)
}

const (
	formType = "application/x-www-form-urlencoded"
	words    = ` "'(),;` // what ends a word of a reason
)

// clipped is a word of which the end is missing.
var clipped = regexp.MustCompile("[^" + words + "]*…")

// reason takes secrets out of a text of ours that may repeat a part of a URL.
// When that was changed, what is left of a clipped part is not known by its form
// any more.
func (r *redactor) reason(s string, changed bool) string {
	if changed {
		s = clipped.ReplaceAllLiteralString(s, redacted)
	}
	return r.text(s, "", words)
}

// url goes through path and query of a URL as the inspectors do. Of one path it
// is known what becomes of it.
func (r *redactor) url(s, path, as string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	n := strings.IndexAny(rest, "/?")
	if !ok || n < 0 {
		return s // no more than a host
	}
	head, rest := scheme+"://"+rest[:n], rest[n:]
	rest, query, ok := strings.Cut(rest, "?")
	if rest != path {
		as = r.text(rest, "", "/")
	}
	s = head + as
	if ok {
		s += "?" + r.text(query, formType, "&=", "&")
	}
	return s
}

// host takes out the labels that hold a secret, or all when it is spread over
// them.
func (r *redactor) host(s string) string {
	labels := strings.Split(s, ".")
	for i, l := range labels {
		if r.inName(l) {
			labels[i] = redacted
		}
	}
	s = strings.Join(labels, ".")
	if slices.ContainsFunc(secrets.JoinedLabels(s), r.inName) {
		return redacted
	}
	return s
}

// inName is holds for names, which come in small letters.
func (r *redactor) inName(s string) bool { return r.holds(s, "") || r.holds(strings.ToUpper(s), "") }

// text takes out the pieces between the bytes of a cut that hold a secret, for
// each cut in turn, and all of the text when it still holds one.
func (r *redactor) text(s, typ string, cuts ...string) string {
	for _, cut := range cuts {
		s = r.pieces(s, typ, cut)
	}
	if r.holds(s, typ) {
		return redacted
	}
	return s
}

func (r *redactor) pieces(s, typ, cut string) string {
	for from := 0; from < len(s); {
		end := len(s)
		if n := strings.IndexAny(s[from:], cut); n >= 0 {
			end = from + n
		}
		if r.holds(s[from:end], typ) {
			s = s[:from] + redacted + s[end:]
			end = from + len(redacted)
		}
		from = end + 1
	}
	return s
}

// holds reports whether a secret is in a text or in what it decodes to. A text
// that cannot be looked at may well hold one. It never panics: records are also
// written where that would end the process.
func (r *redactor) holds(s, typ string) (found bool) {
	defer func() {
		if recover() != nil {
			found = true
		}
	}()
	if len(s) < known.MinValue || s == redacted {
		return false
	}
	if !strings.ContainsAny(s, "+%") {
		typ = "" // a form is encoded by these, and without a type most texts are plain
	}
	ctx := context.Background() // decoding and searching have bounds of their own
	tree, err := decode.Decode(ctx, decode.Input{Data: []byte(s), Type: typ}, decode.Limits{})
	if err != nil {
		return true
	}
	for i := range tree.Layers {
		data := tree.Layers[i].Data
		if r.values.Load().In(data) || r.forms.Load().In(ctx, data) {
			return true
		}
	}
	return false
}
