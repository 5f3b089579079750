// Package entropy refuses what looks encrypted or compressed.
package entropy

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/payload"
)

const (
	// dilution is how much of a body may look random in it as long as it
	// is less than a quarter: programs have keys and pictures in them.
	dilution = 16 << 10
	// minHost is how long random data in a host name is, in characters;
	// names of clusters and accounts have 32.
	minHost = 40
	// urlBits is the alphabet that url_threshold is meant for: base64.
	urlBits = 6
)

// Inspector blocks, or flags, requests and messages that carry data which
// looks encrypted or compressed and which nothing explains. It is immutable
// and safe for concurrent use.
type Inspector struct {
	cfg    config.Entropy
	params params
}

var _ inspect.ContentInspector = (*Inspector)(nil)

// New returns an inspector; a zero cfg measures everything and finds all of
// it too random.
func New(cfg config.Entropy) *Inspector {
	return &Inspector{cfg: cfg, params: newParams(cfg.HostURLParamAllowlist)}
}

// Name returns "entropy".
func (in *Inspector) Name() string { return "entropy" }

// InspectContent looks at what goes to a server: all parts of the URL, header
// lines, cookies, and bodies and messages in everything they decode to.
func (in *Inspector) InspectContent(ctx context.Context, c *inspect.Content) inspect.Result {
	if c.Direction == inspect.ToClient {
		return inspect.Done()
	}
	texts, err := payload.Of(ctx, c)
	if err != nil {
		return inspect.Done(in.finding("cannot measure: " + err.Error()))
	}
	var out []inspect.Finding
	var pieces map[string]payload.Pieces
	for i := range texts {
		reason, whole := in.text(c, &texts[i])
		if reason != "" {
			out = append(out, in.finding(reason))
			continue
		}
		if p := texts[i].Pieces(); whole != "" && p.Len() > 0 {
			if pieces == nil {
				pieces = make(map[string]payload.Pieces)
			}
			p.Add(pieces[whole])
			pieces[whole] = p
		}
	}
	for _, whole := range []string{"URL path", "URL query", "headers"} {
		if p := pieces[whole]; p.TooMany() {
			out = append(out, in.finding(fmt.Sprintf("high entropy %s: %d characters in pieces", whole, p.Len())))
		}
	}
	return inspect.Done(out...)
}

func (in *Inspector) finding(reason string) inspect.Finding {
	f := inspect.Finding{Reason: reason, Severity: inspect.Error}
	switch in.cfg.Action {
	case "flag":
		f.Action = inspect.Flagged
	case "observe":
		f.Mode = inspect.Observed
	}
	return f
}

// text returns what is wrong with one text, "" for nothing, and what it is a
// piece of.
func (in *Inspector) text(c *inspect.Content, t *payload.Text) (wrong, whole string) {
	if t.Place == inspect.PlaceBody {
		return in.body(c, t), ""
	}
	whole, ok := in.part(c, t)
	if !ok {
		return "", ""
	}
	if e, threshold, found := in.short(t); found {
		return reason(title(t), e, threshold), ""
	}
	return "", whole
}

// part says what a part of the head is a piece of, and whether it is to be
// looked at.
func (in *Inspector) part(c *inspect.Content, t *payload.Text) (whole string, ok bool) {
	switch t.Place {
	case inspect.PlaceMethod, inspect.PlaceHost:
		return "", true
	case inspect.PlaceHeaderName, inspect.PlaceHeader, inspect.PlaceCookie:
		return "headers", true
	case inspect.PlaceSegment:
		return "URL path", in.cfg.CheckURLPath && !in.params.all(c.Request.Host)
	case inspect.PlaceQueryName, inspect.PlaceQueryValue:
		return "URL query", in.checkParam(c, t)
	}
	return "", false
}

func (in *Inspector) checkParam(c *inspect.Content, t *payload.Text) bool {
	host := c.Request.Host
	return in.cfg.CheckURLParams && !in.params.all(host) && (!in.params.allows(host, t.Name) || t.Size() > maxSigned)
}

// title names a part of the head in a reason.
func title(t *payload.Text) string {
	switch t.Place {
	case inspect.PlaceMethod:
		return "method"
	case inspect.PlaceHost:
		return "host label"
	case inspect.PlaceHeaderName:
		return "header name"
	case inspect.PlaceHeader:
		return "header " + quote(t.Name)
	case inspect.PlaceCookie:
		return "cookie " + quote(t.Name)
	case inspect.PlaceSegment:
		return "URL path segment"
	case inspect.PlaceQueryName:
		return "URL param name"
	default:
		return "URL param " + quote(t.Name)
	}
}

func quote(s string) string { return "'" + payload.Clip(s) + "'" }

func reason(what string, e, threshold float64) string {
	return fmt.Sprintf("high entropy %s: %.2f (threshold %s)", what, e, decimal(threshold))
}

// decimal writes a threshold with one digit behind the point at least, and two
// at most.
func decimal(f float64) string {
	s := strconv.FormatFloat(math.Round(f*100)/100, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// short judges a text of the head.
func (in *Inspector) short(t *payload.Text) (e, threshold float64, found bool) {
	least := max(in.cfg.URLMinValueBytes, 1)
	for i := range t.Layers {
		m := &t.Layers[i]
		switch {
		case t.Place == inspect.PlaceHost && m.Run.Len >= minHost, m.Run.Len >= least:
			e, threshold = m.Run.Entropy, in.cfg.URLThreshold*m.Run.Alphabet.Bits/urlBits
		case m.Opaque >= least:
			e, threshold = m.Bits, in.cfg.URLThreshold
		default:
			continue
		}
		if in.over(e, threshold) {
			return e, threshold, true
		}
	}
	return 0, 0, false
}

// over reports whether a measure reaches a threshold. One of eight bits, which
// no real data has, is that of somebody who wants none.
func (in *Inspector) over(e, threshold float64) bool { return e >= threshold && threshold < 8 }

// body judges a body in each of its layers.
func (in *Inspector) body(c *inspect.Content, t *payload.Text) string {
	if c.Kind == inspect.KindWindow && in.hostExempt(c, c.Type) {
		return "" // its structure cannot be proven from a piece of it
	}
	for i := range t.Layers {
		e, threshold, ok := in.layer(c, &t.Layers[i])
		if ok {
			return reason("body", e, threshold)
		}
	}
	return ""
}

func (in *Inspector) layer(c *inspect.Content, m *payload.Measure) (e, threshold float64, found bool) {
	least := max(in.cfg.MinBodyBytes, 1)
	threshold = in.cfg.Threshold
	opaque := m.Unexplained(func(typ string) bool { return in.exempt(c, typ) })
	if opaque >= least && (opaque*4 >= m.Size || opaque >= dilution || m.Foreign >= least) {
		if e = m.Bits; m.Opaque < least {
			e = m.Entropy()
		}
		if in.over(e, threshold) {
			return e, threshold, true
		}
	}
	if m.IsWhole() && m.Proven() == "" && !m.IsText && !m.Patterned() && m.Size >= least {
		if e = m.Entropy(); in.over(e, threshold) {
			return e, threshold, true
		}
	}
	if m.Run.Len >= least || m.Run.Len > 0 && m.Size >= least && m.Scattered() > 0 {
		threshold *= m.Run.Alphabet.Bits / 8
		if e = m.Run.Entropy; in.cfg.Threshold < 8 && in.over(e, threshold) {
			return e, threshold, true
		}
	}
	return 0, 0, false
}

// exempt reports whether data that proved to be of a type may pass.
func (in *Inspector) exempt(c *inspect.Content, typ string) bool {
	return hasPrefix(in.cfg.ExemptContentTypes, typ) || strings.HasPrefix(typ, "font/") || in.hostExempt(c, typ)
}

// hostExempt reports whether the config exempts a type for the host.
func (in *Inspector) hostExempt(c *inspect.Content, typ string) bool {
	for n := c.Request.Host; !n.IsZero(); n = n.Parent() {
		if hasPrefix(in.cfg.HostExemptContentTypes[n], typ) {
			return true
		}
	}
	return false
}

func hasPrefix(prefixes []string, typ string) bool {
	typ = strings.ToLower(strings.TrimSpace(typ))
	for _, p := range prefixes {
		if strings.HasPrefix(typ, strings.ToLower(p)) {
			return typ != ""
		}
	}
	return false
}
