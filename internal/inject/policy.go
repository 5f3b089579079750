package inject

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/agentcage/agentcage/internal/decode"
	"github.com/agentcage/agentcage/internal/inspect"
)

// Policy decides where placeholders may be, before any is replaced, and that no
// other credential takes their place.
type Policy struct{ in *Injector }

var _ inspect.ContentInspector = (*Policy)(nil)

// Policy returns the inspector of content that must have let a request pass
// before Head and Body are called for it.
func (in *Injector) Policy() *Policy { return &Policy{in} }

// Name returns "injection".
func (p *Policy) Name() string { return "injection" }

// InspectContent looks for placeholders, in every form, in all that leaves:
//
//   - to a host that no rule is for, and to one that the placeholder's own rule
//     is not for, save in bodies, they are blocked;
//   - in a slot of their rule they pass when they can be replaced there;
//   - in bodies and messages to a host that some rule is for they are text, and
//     pass with a flag: an agent that printed its environment must not be cut
//     off from its own model;
//   - anywhere else they are blocked: nothing would replace them.
func (p *Policy) InspectContent(ctx context.Context, c *inspect.Content) inspect.Result {
	if c.Direction != inspect.ToServer || !p.in.Active() || p.in.RedactsTo(c.Request.Host) {
		return inspect.Done()
	}
	texts, err := c.Texts(ctx)
	if err != nil {
		return inspect.Done(inspect.Finding{Reason: err.Error(), Severity: inspect.Error})
	}
	x := &examination{
		Policy: p, ctx: ctx, c: c, bound: p.in.boundTo(c.Request.Host), done: make(map[string]bool),
		query: make([]bool, len(p.in.rules)), part: make([]bool, len(p.in.rules)), found: make([]bool, len(p.in.rules)),
	}
	for _, t := range texts {
		x.text(t)
	}
	for id, is := range x.query {
		if is && !x.part[id] {
			x.block(p.in.rules[id], "placeholder %s in the query, which is no slot of its rule", p.in.rules[id].Env)
		}
	}
	if c.Kind == inspect.KindRequest && len(x.bound) > 0 {
		x.foreign()
	}
	return inspect.Done(x.findings...)
}

// examination is one piece of content that is looked at.
type examination struct {
	*Policy
	ctx      context.Context
	c        *inspect.Content
	bound    []*rule // that are for the host
	findings []inspect.Finding
	done     map[string]bool // reasons that are in findings

	// By rule, whether its placeholder is in the whole query, and in a name or
	// value of it.
	query, part []bool
	found       []bool // in the text that is looked at
}

func (x *examination) add(f inspect.Finding) {
	if !x.done[f.Reason] {
		x.done[f.Reason] = true
		x.findings = append(x.findings, f)
	}
}

func (x *examination) block(r *rule, format string, args ...any) {
	x.add(inspect.Finding{Rule: r.Env, Reason: fmt.Sprintf(format, args...), Severity: inspect.Critical})
}

// text looks at one text in everything that it decodes to.
func (x *examination) text(t inspect.Text) {
	if t.Tree == nil || len(t.Tree.Layers) == 0 {
		return
	}
	clear(x.found)
	for _, layer := range t.Tree.Layers {
		if layer.Kind == decode.Folded {
			continue // look-alikes are no placeholder: nobody would replace it
		}
		for id := range x.in.spotsIn(layer.Data, x.in.spots, levels, allEscapes) {
			x.found[id] = true
		}
	}
	for id, is := range x.found {
		switch {
		case !is:
			continue
		case t.Place == inspect.PlaceQuery && slices.Contains(x.bound, x.in.rules[id]):
			x.query[id] = true // it is looked at value by value
			continue
		case t.Place == inspect.PlaceQueryName, t.Place == inspect.PlaceQueryValue:
			x.part[id] = true
		}
		x.placeholder(x.in.rules[id], t)
	}
}

// placeholder decides about one that is in a text.
func (x *examination) placeholder(r *rule, t inspect.Text) {
	host := x.c.Request.Host
	inBody := t.Place == inspect.PlaceBody
	switch {
	case inBody && len(x.bound) > 0:
		x.inBody(r, t)
	case !slices.Contains(x.bound, r):
		x.block(r, "placeholder %s sent to unauthorized domain %s", r.Env, host)
	case !r.covers(x.c.Request):
		x.block(r, "placeholder %s is not for this method and path", r.Env)
	case !x.slot(r, t):
		x.block(r, "placeholder %s in %s, which is no slot of its rule%s", r.Env, where(x.c, t), hint(t))
	default:
		x.inSlot(r, t)
	}
}

// slot reports whether a rule injects into the place of a text.
func (x *examination) slot(r *rule, t inspect.Text) bool {
	if x.c.Kind != inspect.KindRequest {
		return false // a trailer
	}
	switch t.Place {
	case inspect.PlaceHeader:
		return r.slotHeader(t.Name)
	case inspect.PlaceCookie:
		return r.slotHeader("Cookie")
	case inspect.PlaceQueryValue:
		return r.InjectQuery || r.signs() && strings.EqualFold(t.Name, "X-Amz-Credential")
	}
	return false
}

// inSlot holds that a placeholder in a slot will be replaced there.
func (x *examination) inSlot(r *rule, t inspect.Text) {
	raw := t.Tree.Layers[0].Data
	lv, esc, encoded := 0, escapes(0), false
	switch t.Place {
	case inspect.PlaceQueryValue:
		lv, esc = 1, percent
	case inspect.PlaceHeader:
		if b, ok := parseBasic(string(raw)); ok {
			raw, encoded = []byte(b.text), true
		}
	}
	plain := false
	for id := range x.in.spotsIn(raw, x.in.plain.m, lv, esc) {
		plain = plain || id == r.id
	}
	if !plain {
		x.block(r, "placeholder %s in %s is encoded, and cannot be replaced there", r.Env, where(x.c, t))
		return
	}
	x.available(r, t, encoded, rawSyntax)
}

// available holds that there is a value, and that it can stand there.
func (x *examination) available(r *rule, t inspect.Text, encoded bool, syn syntax) {
	v, err := x.in.current(x.ctx, r)
	if err != nil {
		x.block(r, "%v", err)
		return
	}
	if r.signs() {
		return // it is not written anywhere
	}
	if err := writable(v, t.Place, encoded, syn); err != nil {
		x.block(r, "secret %s cannot be injected: %v", r.Env, err)
	}
}

// inBody decides about a placeholder in a body or message to a host that some
// rule is for.
func (x *examination) inBody(r *rule, t inspect.Text) {
	injects := r.InjectBody && slices.Contains(x.bound, r) && r.covers(x.c.Request)
	syn := syntaxOf(x.c.Type)
	switch x.c.Kind {
	case inspect.KindWebSocket:
		syn = messageSyntax(t.Tree.Layers[0].Data)
	case inspect.KindMessage:
		injects = false
	default:
		injects = injects && !framed(http.Header{"Content-Type": {x.c.Type}})
	}
	if injects {
		if list, err := contentCodings(http.Header{"Content-Encoding": x.c.Encoding}); err != nil || len(list) > 0 {
			x.block(r, "placeholder %s in a compressed body cannot be replaced", r.Env)
			return
		}
		x.available(r, t, false, syn)
		lv, esc := syn.read()
		for id := range x.in.spotsIn(t.Tree.Layers[0].Data, x.in.plain.m, lv, esc) {
			if id == r.id {
				return
			}
		}
	}
	x.add(inspect.Finding{
		Action: inspect.Flagged, Rule: r.Env, Severity: inspect.Info,
		Reason: fmt.Sprintf("placeholder %s in the body is sent as it is", r.Env),
	})
}

// where says in words where a text stands.
func where(c *inspect.Content, t inspect.Text) string {
	switch t.Place {
	case inspect.PlaceMethod:
		return "the method"
	case inspect.PlaceHost:
		return "the host name"
	case inspect.PlacePath, inspect.PlaceSegment:
		return "the path"
	case inspect.PlaceQuery:
		return "the query"
	case inspect.PlaceQueryName:
		return "the name of a query parameter"
	case inspect.PlaceQueryValue:
		return "query parameter " + printable(t.Name)
	case inspect.PlaceHeaderName:
		return "the name of a header"
	case inspect.PlaceHeader:
		if c.Kind == inspect.KindTrailer {
			return "a trailer"
		}
		return "header " + printable(t.Name)
	case inspect.PlaceCookie:
		return "cookie " + printable(t.Name)
	default:
		return "the body"
	}
}

// hint says which key would make a slot of a place.
func hint(t inspect.Text) string {
	switch t.Place {
	case inspect.PlaceHeader:
		return "; name the header in inject_headers"
	case inspect.PlaceCookie:
		return "; name Cookie in inject_headers"
	case inspect.PlaceQueryValue:
		return "; set inject_query"
	}
	return ""
}

// printable keeps a name that the agent chose within bounds in a reason.
func printable(s string) string {
	const most = 40
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return '?'
		}
		return r
	}, s)
}
