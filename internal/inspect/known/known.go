// Package known finds values that the gateway holds, such as secrets, on their
// way out of the cage: whole or in pieces, in one request or in many.
package known

import (
	"context"
	"fmt"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// Inspector looks for the values of a Set in everything that goes to a server.
// It belongs before secrets are injected, so that it never sees one that may
// go. It is safe for concurrent use. The zero Inspector blocks everything.
type Inspector struct {
	set         *Set
	destination func(hostname.Name) hostname.Name
}

var (
	_ inspect.ContentInspector = (*Inspector)(nil)
	_ inspect.Reader           = (*Inspector)(nil)
)

// New returns an inspector for the values of a set. destination names what is
// taken for one destination; nil takes every host for one.
func New(set *Set, destination func(hostname.Name) hostname.Name) *Inspector {
	return &Inspector{set: set, destination: destination}
}

// Name returns "known-values".
func (in *Inspector) Name() string { return "known-values" }

// Reads implements inspect.Reader: where there is nothing to look for, nothing
// has to be read for it.
func (in *Inspector) Reads(*inspect.Request) inspect.Reads {
	looks := in.set == nil || in.set.current.Load() != nil
	return inspect.Reads{Request: looks, Messages: looks}
}

// InspectContent looks through every layer of the content.
func (in *Inspector) InspectContent(ctx context.Context, c *inspect.Content) inspect.Result {
	if in.set == nil {
		return inspect.Result{}
	}
	now := in.set.current.Load()
	if now == nil || c.Direction == inspect.ToClient {
		return inspect.Done()
	}
	l := look{index: now.get(), host: c.Request.Host, seen: make(map[*trace]*sighting)}
	l.content(ctx, c)
	if l.err != nil {
		return inspect.Done(inspect.Finding{Reason: l.err.Error(), Severity: inspect.Error})
	}
	if len(l.list) == 0 {
		return inspect.Done()
	}
	host := c.Request.Host
	if in.destination != nil {
		host = in.destination(host)
	}
	found, f, ok := in.set.charge(host, l.list)
	if !ok {
		return inspect.Done(inspect.Finding{Reason: "too many requests with pieces of known values at one time", Severity: inspect.Error})
	}
	if f != nil {
		c.Settle(func(sent bool) { in.set.settle(f, sent) })
	}
	out := make([]inspect.Finding, len(found))
	for i := range found {
		out[i] = found[i].report()
	}
	return inspect.Done(out...)
}

// report words a finding. It has the name of the value, and nothing of it.
func (f *finding) report() inspect.Finding {
	switch {
	case f.whole:
		return inspect.Finding{Rule: f.Name, Reason: "known value " + f.Name + " sent to unauthorized host", Severity: inspect.Critical}
	case f.block:
		return inspect.Finding{
			Rule: f.Name, Severity: inspect.Critical,
			Reason: fmt.Sprintf("known value %s sent in pieces to unauthorized host (%d of %d bytes seen)", f.Name, f.seen, f.total),
		}
	}
	return inspect.Finding{
		Action: inspect.Flagged, Rule: f.Name, Severity: inspect.Error,
		Reason: fmt.Sprintf("piece of known value %s (%d of %d bytes seen)", f.Name, f.seen, f.total),
	}
}

// look is the search through one content.
type look struct {
	*index
	host hostname.Name
	seen map[*trace]*sighting
	list []*sighting
	err  error
}

func (l *look) content(ctx context.Context, c *inspect.Content) {
	texts, err := c.Texts(ctx)
	for i := range texts {
		for k := range texts[i].Tree.Layers {
			l.text(texts[i].Tree.Layers[k].Data)
		}
	}
	if err == nil {
		return
	}
	// Where content that cannot be decoded is let through, what it is as it
	// stands has not been looked at.
	l.text(c.Body)
	if u := c.Request.URL; u != nil {
		l.text([]byte(c.Request.EscapedPath() + "?" + u.RawQuery))
	}
	for name, lines := range c.Header {
		l.text([]byte(name))
		for _, line := range lines {
			l.text([]byte(line))
		}
	}
}

func (l *look) text(text []byte) {
	if l.err != nil || len(text) < minPiece {
		return
	}
	l.err = l.scan(text, func(m match) {
		h := m.form.value
		first, end := m.form.covered(m.start, m.start+m.to-m.from)
		whole := first == 0 && end == len(h.Bytes)
		if h.allowed(l.host) || !whole && h.secret.countRange(first, end) < minPiece {
			return
		}
		g := l.seen[h.trace]
		if g == nil {
			g = &sighting{held: h}
			l.seen[h.trace] = g
			l.list = append(l.list, g)
		}
		if whole {
			g.whole = true
			return
		}
		g.add(first, end, l.weak(text, m))
	})
}
