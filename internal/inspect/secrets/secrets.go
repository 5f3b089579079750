// Package secrets finds known forms of secrets in what is sent, wherever they
// stand and whatever they are wrapped in.
package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/decode"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/scan"
)

const (
	// sameFrom is the length in bytes from which on it is cheaper to find
	// out that a text has been searched than to search it again.
	sameFrom = 256

	// labelsFrom is the length in bytes from which on the labels of a host
	// name could hold a secret between them, maxZone how many at its end
	// are looked at without.
	labelsFrom = 32
	maxZone    = 4

	// maxTime bounds the search of one content, whose layers can be 64 MiB.
	// It is looked at once in every checkEvery bytes.
	maxTime    = 5 * time.Second
	checkEvery = 1 << 20
)

var errTime = errors.New("cannot look for secrets: the content takes too long")

// Inspector looks for secrets. It is immutable and safe for concurrent use. The
// zero Inspector blocks everything.
type Inspector struct {
	scanner func() *scan.Scanner
	hosts   map[string][]hostname.Name // by pattern, to which it may go
	action  inspect.Decision
	mode    inspect.Mode
}

var _ inspect.ContentInspector = (*Inspector)(nil)

// New compiles the built-in patterns and those of a config. It fails on an
// unknown action, on a pattern that is no RE2, and on hosts for a pattern that
// there is not. Patterns by the value of a variable are left to others.
func New(c config.Secrets) (*Inspector, error) {
	in := &Inspector{hosts: make(map[string][]hostname.Name)}
	switch c.Action {
	case "block", "":
	case "flag":
		in.action = inspect.Flagged
	case "observe":
		in.mode = inspect.Observed
	default:
		return nil, fmt.Errorf("cannot use secrets: the action %q is none of block, flag and observe", c.Action)
	}
	if err := in.compile(c.ExtraPatterns); err != nil {
		return nil, fmt.Errorf("cannot use secrets.extra_patterns: %w", err)
	}
	if c.BuiltinAllowToDomains {
		if err := in.allowBuiltin(); err != nil {
			return nil, err
		}
	}
	return in, in.allow(c)
}

// builtin is compiled beside the start of a cage, of which it would be a good
// part, and at the latest when it is first asked for. Nothing in it is a user's:
// an error is one of ours, and the tests of package scan find it.
var builtin = sync.OnceValue(func() *scan.Scanner {
	s, err := scan.New(scan.Builtin()...)
	if err != nil {
		panic(err)
	}
	return s
})

func (in *Inspector) compile(extra []config.Pattern) error {
	rules := slices.Clone(scan.Builtin())
	for _, p := range extra {
		if p.Env == "" {
			rules = append(rules, &scan.Rule{Name: p.Name, Pattern: p.Pattern})
		}
	}
	if len(rules) == len(scan.Builtin()) {
		in.scanner = builtin
		go builtin()
		return nil
	}
	s, err := scan.New(rules...)
	in.scanner = func() *scan.Scanner { return s }
	return err
}

func (in *Inspector) allowBuiltin() error {
	for _, r := range scan.Builtin() {
		if in.hosts[r.Name] != nil {
			continue // of an earlier form of the same
		}
		for _, h := range r.Hosts {
			n, err := hostname.Parse(h)
			if err != nil {
				return fmt.Errorf("cannot use the pattern %s: %w", r.Name, err)
			}
			in.hosts[r.Name] = append(in.hosts[r.Name], n)
		}
	}
	return nil
}

// allow adds the hosts of a config to the built-in ones; an empty list takes
// those away.
func (in *Inspector) allow(c config.Secrets) error {
	var names []string
	for _, r := range scan.Builtin() {
		names = append(names, r.Name)
	}
	for _, p := range c.ExtraPatterns {
		names = append(names, p.Name)
	}
	for name, hosts := range c.AllowToDomains {
		if !slices.Contains(names, name) {
			return unknown(name, names)
		}
		if len(hosts) == 0 {
			delete(in.hosts, name)
			continue
		}
		in.hosts[name] = append(in.hosts[name], hosts...)
	}
	return nil
}

func unknown(name string, names []string) error {
	hint := "internal/inspect/secrets/README.md lists them"
	if n := config.Nearest(name, names); n != "" {
		hint = fmt.Sprintf("did you mean %q?", n)
	}
	return fmt.Errorf("cannot use secrets.allow_to_domains: there is no pattern %q; %s", name, hint)
}

// Name returns "secrets".
func (in *Inspector) Name() string { return "secrets" }

// InspectContent reports each pattern that is found once. What comes from
// servers is not looked at.
func (in *Inspector) InspectContent(ctx context.Context, c *inspect.Content) inspect.Result {
	if in.scanner == nil {
		return inspect.Result{}
	}
	if c.Direction == inspect.ToClient {
		return inspect.Done()
	}
	s := search{in: in, host: c.Request.Host, began: time.Now()}
	if err := s.all(ctx, c); err != nil {
		s.findings = append(s.findings, inspect.Finding{Reason: err.Error(), Severity: inspect.Error, Mode: in.mode})
	}
	return inspect.Done(s.findings...)
}

// search is the state of looking through one content.
type search struct {
	in       *Inspector
	host     hostname.Name
	findings []inspect.Finding
	login    bool     // the text is where a login puts its token
	asserted []string // tokens that the body asks for another one with
	began    time.Time
	bytes    int            // searched since the time was looked at
	hits     int            // of patterns, wherever they may go
	lengths  map[int][]byte // the first text of each length
	seen     map[uint64][][]byte
	line     []byte
}

func (s *search) all(ctx context.Context, c *inspect.Content) error {
	texts, err := c.Texts(ctx)
	if err != nil {
		return err
	}
	s.asserted = assertions(c)
	for i := range texts {
		t := &texts[i]
		if t.Quiet.Is(s.in.scanner()) {
			continue
		}
		hits := s.hits
		if err := s.text(ctx, t); err != nil {
			return err
		}
		if s.hits == hits && len(t.Tree.Layers[0].Data) < sameFrom { // all of it has been searched
			t.Quiet.Add(s.in.scanner())
		}
	}
	if c.Kind == inspect.KindRequest {
		return s.labels(ctx, c.Request.Host.String())
	}
	return nil
}

// JoinedLabels returns the texts in which to look for what is spread over the
// labels of a host name: one to maxZone labels at its end are taken for those of
// a domain of the sender's.
func JoinedLabels(host string) []string {
	var out []string
	if len(host) < labelsFrom {
		return nil
	}
	labels := strings.Split(host, ".")
	for n := len(labels) - 1; n > 1 && n >= len(labels)-maxZone; n-- {
		joined := strings.Join(labels[:n], "")
		if len(joined) < labelsFrom {
			break
		}
		out = append(out, joined)
	}
	return out
}

func (s *search) labels(ctx context.Context, host string) error {
	for _, joined := range JoinedLabels(host) {
		tree, err := decode.Decode(ctx, decode.Input{Data: []byte(joined)}, decode.Limits{})
		if err != nil {
			return err
		}
		if err := s.text(ctx, &inspect.Text{Place: inspect.PlaceHost, Tree: tree}); err != nil {
			return err
		}
	}
	return nil
}

// text searches every layer of a text, the raw one first.
func (s *search) text(ctx context.Context, t *inspect.Text) error {
	s.login = isLogin(t)
	if t.Place == inspect.PlaceHeader {
		// Some patterns need the name of what they are a value of.
		s.line = append(append(append(s.line[:0], t.Name...), ": "...), t.Tree.Layers[0].Data...)
		if err := s.scan(ctx, s.line); err != nil {
			return err
		}
	}
	if t.Place == inspect.PlaceHeaderName || t.Place == inspect.PlaceHost {
		// Names come in the case of HTTP or DNS, and not in that of the sender.
		for _, in := range [...]func([]byte) []byte{bytes.ToLower, bytes.ToUpper} {
			if err := s.scan(ctx, in(t.Tree.Layers[0].Data)); err != nil {
				return err
			}
		}
	}
	for i := range t.Tree.Layers {
		data := t.Tree.Layers[i].Data
		if !s.fresh(data) {
			continue
		}
		if err := s.scan(ctx, data); err != nil {
			return err
		}
	}
	return nil
}

// In reports whether a text has a secret in it as it stands, wherever that may
// go. It is true when the text cannot be searched.
func (in *Inspector) In(ctx context.Context, data []byte) bool {
	found := false
	err := in.scanner().Scan(ctx, data, func(scan.Match) bool {
		found = true
		return false
	})
	return found || err != nil
}

// isLogin reports whether a text stands where credentials of a server's own
// are meant to be.
func isLogin(t *inspect.Text) bool {
	switch t.Place {
	case inspect.PlaceCookie:
		return true
	case inspect.PlaceHeader:
		return t.Name == "Authorization" || t.Name == "Cookie"
	default:
		return false
	}
}

// maxForm is the most bytes of a form that asks for a token.
const maxForm = 64 << 10

// assertions returns the tokens that a request for a token of OAuth consists of
// (RFC 7521 section 4, RFC 8693 section 2.1): each is the whole value of the
// field for it.
func assertions(c *inspect.Content) (all []string) {
	typ, _, _ := strings.Cut(c.Type, ";")
	if c.Kind != inspect.KindRequest || len(c.Body) > maxForm || !strings.EqualFold(strings.TrimSpace(typ), "application/x-www-form-urlencoded") {
		return nil
	}
	form, err := url.ParseQuery(string(c.Body))
	if err != nil || len(form["grant_type"]) != 1 {
		return nil
	}
	for _, name := range []string{"assertion", "client_assertion", "subject_token", "actor_token"} {
		if len(form[name]) == 1 {
			all = append(all, form[name][0])
		}
	}
	return all
}

var seed = maphash.MakeSeed()

// fresh reports whether a text has not been searched before, and is going to
// be. Where a login stands is no place to count for others.
func (s *search) fresh(data []byte) bool {
	if len(data) < sameFrom || s.login {
		return true
	}
	// Texts of different lengths are different, and nearly all are.
	if s.lengths == nil {
		s.lengths, s.seen = make(map[int][]byte), make(map[uint64][][]byte)
	}
	first, ok := s.lengths[len(data)]
	if !ok {
		s.lengths[len(data)] = data
		return true
	}
	h, same := maphash.Bytes(seed, data), func(d []byte) bool { return bytes.Equal(d, data) }
	if same(first) || slices.ContainsFunc(s.seen[h], same) {
		return false
	}
	s.seen[h] = append(s.seen[h], data)
	return true
}

func (s *search) scan(ctx context.Context, data []byte) error {
	if s.bytes += len(data); s.bytes > checkEvery {
		s.bytes = 0
		if time.Since(s.began) > maxTime {
			return errTime
		}
	}
	return s.in.scanner().Scan(ctx, data, func(m scan.Match) bool {
		s.hits++
		s.add(m.Rule, data[m.Start:m.End])
		return true
	})
}

// add takes a match into the findings, unless its pattern may go to the host.
// The rest of the search goes on: another pattern may be hidden behind it.
func (s *search) add(r *scan.Rule, secret []byte) {
	if r.Login && (s.login || slices.Contains(s.asserted, string(secret))) {
		return
	}
	f := s.in.finding(r)
	for i := range s.findings {
		if s.findings[i].Rule == r.Name {
			if f.Action < s.findings[i].Action {
				s.findings[i] = f // a stricter form of the same
			}
			return
		}
	}
	if !slices.ContainsFunc(s.in.hosts[r.Name], s.host.Within) {
		s.findings = append(s.findings, f)
	}
}

func (in *Inspector) finding(r *scan.Rule) inspect.Finding {
	f := inspect.Finding{
		Action:   in.action,
		Rule:     r.Name,
		Reason:   "secret detected: " + r.Name,
		Severity: inspect.Critical,
		Mode:     in.mode,
	}
	if r.Weak {
		f.Action, f.Severity = inspect.Flagged, inspect.Warning
	}
	return f
}
