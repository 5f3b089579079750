package inspect

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Chain asks inspectors one after the other and stops at the first block. It
// is immutable; a reload makes a new one.
type Chain struct {
	inspectors []Inspector
	contents   []ContentInspector
	adjust     func(*Request, Finding) Finding
	trace      func(Finding)
}

// NewChain returns a chain that asks in the order given. A chain without
// inspectors blocks everything.
func NewChain(inspectors ...Inspector) *Chain {
	return &Chain{inspectors: slices.Clone(inspectors)}
}

// WithContent returns the chain with inspectors of content, in the order
// given. They are asked by DecideContent, after Decide let the head pass.
func (c *Chain) WithContent(inspectors ...ContentInspector) *Chain {
	d := *c
	d.contents = slices.Clone(inspectors)
	return &d
}

// WithAdjust returns the chain with a function that sets the Mode of findings,
// before they are acted upon. It must not change anything else of them.
func (c *Chain) WithAdjust(adjust func(*Request, Finding) Finding) *Chain {
	d := *c
	d.adjust = adjust
	return &d
}

// WithTrace returns the chain with a function that is told what every inspector
// says, in the order in which they are asked: its findings with their modes, or
// one finding that is Allowed where it has nothing to object to. It is for
// whoever asks why a verdict is what it is, and changes none.
func (c *Chain) WithTrace(trace func(Finding)) *Chain {
	d := *c
	d.trace = trace
	return &d
}

// Inspectors returns all inspectors of the chain, those of content after those
// of heads.
func (c *Chain) Inspectors() []any {
	var all []any
	for _, in := range c.inspectors {
		all = append(all, in)
	}
	for _, in := range c.contents {
		all = append(all, in)
	}
	return all
}

// ReadsContent reports whether anybody is to be asked about content.
func (c *Chain) ReadsContent() bool { return c != nil && len(c.contents) > 0 }

// DecideContent asks the inspectors that read such content. What cannot be decoded blocks.
// It never panics: an inspector that does blocks.
func (c *Chain) DecideContent(ctx context.Context, content *Content) Verdict {
	v := c.decideContent(ctx, content)
	if !content.settled(v.Allowed()) {
		return blockedBy(Finding{Reason: "an inspector failed", Severity: Error}, v.Findings)
	}
	return v
}

func (c *Chain) decideContent(ctx context.Context, content *Content) Verdict {
	v := Verdict{Decision: Allowed, BodyLimit: -1}
	if !c.ReadsContent() || !c.Reads(content.Request).cover(content) {
		return v
	}
	if c.add(&v, content.Request, decodable(ctx, content)) {
		return v
	}
	for _, in := range c.contents {
		if !readsOf(in, content.Request).cover(content) {
			continue
		}
		found := askContent(ctx, in, content)
		if len(found) == 0 && c.trace != nil {
			c.trace(Finding{Inspector: in.Name(), Action: Allowed})
		}
		for _, f := range found {
			if c.add(&v, content.Request, f) {
				return v
			}
		}
		content.Prior = slices.Clip(v.Findings)
	}
	v.Reason = reasons(v.Findings)
	return v
}

// decodable decodes once for all inspectors.
func decodable(ctx context.Context, content *Content) (f Finding) {
	f = Finding{Inspector: "decode", Reason: "the content cannot be decoded", Severity: Error}
	defer func() { _ = recover() }() // the finding blocks as it stands
	if _, err := content.Texts(ctx); err != nil {
		f.Reason = err.Error()
		return f
	}
	f.Action, f.Reason, f.Severity = Allowed, "", ""
	return f
}

// add takes a finding into a verdict, and reports whether it ends the chain.
func (c *Chain) add(v *Verdict, r *Request, f Finding) bool {
	if f.Action != Allowed {
		f.Mode = c.mode(r, f)
	}
	if c.trace != nil {
		c.trace(f)
	}
	switch {
	case f.Action == Allowed:
	case f.Mode != Enforced:
		v.Findings = append(v.Findings, f)
	case f.Action == Flagged:
		v.Decision = Flagged
		v.Findings = append(v.Findings, f)
	default:
		*v = blockedBy(f, v.Findings)
		return true
	}
	return false
}

// mode is how a finding is to be acted upon. What an inspector does not enforce
// itself stays so.
func (c *Chain) mode(r *Request, f Finding) Mode {
	if f.Mode != Enforced || c.adjust == nil {
		return f.Mode
	}
	return c.adjust(r, f).Mode
}

// askContent is ask for an inspector of content.
func askContent(ctx context.Context, in ContentInspector, content *Content) (fs []Finding) {
	name := "unknown"
	failed := func(reason string) []Finding {
		return []Finding{{Inspector: name, Reason: reason, Severity: Error}}
	}
	defer func() {
		if p := recover(); p != nil {
			fs = failed(fmt.Sprintf("inspector %s failed", name))
		}
	}()
	name = in.Name()
	if ctx.Err() != nil {
		return failed("the request was cancelled")
	}
	res := in.InspectContent(ctx, content)
	if !res.done {
		return failed(fmt.Sprintf("inspector %s gave no verdict", name))
	}
	for i := range res.findings {
		f := &res.findings[i]
		f.Inspector = name
		if f.Action != Allowed && f.Action != Flagged {
			f.Action = Blocked
			if f.Reason == "" {
				f.Reason = fmt.Sprintf("inspector %s gave no reason", name)
			}
		}
	}
	return res.findings
}

// Decide runs the chain. It never panics: an inspector that does blocks.
func (c *Chain) Decide(ctx context.Context, r *Request) Verdict {
	if c == nil || len(c.inspectors) == 0 {
		return blockedBy(Finding{Reason: "no inspectors are configured", Severity: Error}, nil)
	}
	v := Verdict{Decision: Allowed, BodyLimit: -1}
	for _, in := range c.inspectors {
		f, limit := ask(ctx, in, r)
		if c.add(&v, r, f) {
			return v
		}
		if limit >= 0 && c.mode(r, Finding{Inspector: f.Inspector}) != Enforced {
			limit = -1 // a body that passes it would be cut, which enforces it
		}
		v.BodyLimit = tighter(v.BodyLimit, limit)
	}
	v.Reason = reasons(v.Findings)
	return v
}

// ask turns everything that can go wrong in an inspector into a block. What a
// panic says is kept out of the reason: it may hold a part of the request.
func ask(ctx context.Context, in Inspector, r *Request) (f Finding, limit int64) {
	name := "unknown"
	defer func() {
		if p := recover(); p != nil {
			f = Finding{Inspector: name, Reason: fmt.Sprintf("inspector %s failed", name), Severity: Error}
		}
	}()
	name = in.Name()
	if ctx.Err() != nil {
		return Finding{Inspector: name, Reason: "the request was cancelled", Severity: Info}, 0
	}
	f = in.Inspect(ctx, r)
	f.Inspector = name
	limit = limitOf(in, r)
	if f.Action == Allowed || f.Action == Flagged {
		return f, limit
	}
	f.Action = Blocked
	if f.Reason == "" {
		f.Reason = fmt.Sprintf("inspector %s gave no verdict", name)
		f.Severity = Error
	}
	return f, limit
}

func blockedBy(f Finding, before []Finding) Verdict {
	if f.Status == 0 {
		f.Status = http.StatusForbidden
	}
	return Verdict{
		Decision: Blocked,
		Reason:   f.Reason,
		Status:   f.Status,
		Findings: append(before[:len(before):len(before)], f),
	}
}

func limitOf(in Inspector, r *Request) int64 {
	if l, ok := in.(BodyLimiter); ok {
		return l.BodyLimit(r)
	}
	return -1
}

// tighter returns the smaller of two limits, where a negative one is none.
func tighter(a, b int64) int64 {
	if a < 0 || (b >= 0 && b < a) {
		return b
	}
	return a
}

func reasons(fs []Finding) string {
	var parts []string
	for _, f := range fs {
		if f.Mode == Enforced {
			parts = append(parts, f.Reason)
		}
	}
	return strings.Join(parts, "; ")
}
