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
}

// NewChain returns a chain that asks in the order given. A chain without
// inspectors blocks everything.
func NewChain(inspectors ...Inspector) *Chain {
	return &Chain{inspectors: slices.Clone(inspectors)}
}

// Decide runs the chain. It never panics: an inspector that does blocks.
func (c *Chain) Decide(ctx context.Context, r *Request) Verdict {
	if c == nil || len(c.inspectors) == 0 {
		return blockedBy(Finding{Reason: "no inspectors are configured", Severity: Error}, nil)
	}
	v := Verdict{Decision: Allowed, BodyLimit: -1}
	for _, in := range c.inspectors {
		f, limit := ask(ctx, in, r)
		switch f.Action {
		case Allowed:
		case Flagged:
			v.Decision = Flagged
			v.Findings = append(v.Findings, f)
		default:
			return blockedBy(f, v.Findings)
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
	if f.Action == Allowed || f.Action == Flagged {
		return f, limitOf(in, r)
	}
	f.Action = Blocked
	if f.Reason == "" {
		f.Reason = fmt.Sprintf("inspector %s gave no verdict", name)
		f.Severity = Error
	}
	return f, 0
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
		parts = append(parts, f.Reason)
	}
	return strings.Join(parts, "; ")
}
