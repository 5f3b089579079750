// Package mode says which findings are acted upon: it holds the config's lists
// of what is observed and of what is exempt.
package mode

import (
	"fmt"
	"slices"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/domain"
)

// Ruled is an inspector that knows the names of its rules. An exception for a
// rule that it does not have is an error, because it would do nothing.
type Ruled interface {
	Name() string
	Rules() []string
}

// Modes are the exceptions of a config. They are immutable and safe for
// concurrent use. The zero Modes enforce everything.
type Modes struct {
	observe, exempt map[string][]config.Exception // by inspector
}

// New reads the lists of a config. inspectors are those of the chain, of any
// type; those that are Ruled say which rules there are. An error is an *Error.
func New(c *config.Config, inspectors ...any) (*Modes, error) {
	rules := make(map[string][]string)
	for _, in := range inspectors {
		if r, ok := in.(Ruled); ok {
			rules[r.Name()] = r.Rules()
		}
	}
	m := &Modes{observe: make(map[string][]config.Exception), exempt: make(map[string][]config.Exception)}
	for _, list := range []struct {
		from []config.Exception
		to   map[string][]config.Exception
	}{{c.Observe, m.observe}, {c.Exempt, m.exempt}} {
		for _, e := range list.from {
			known, ruled := rules[e.Inspector]
			if e.Rule != "" && ruled && !slices.Contains(known, e.Rule) {
				return nil, &Error{File: c.File, Exception: e, rules: known}
			}
			list.to[e.Inspector] = append(list.to[e.Inspector], e)
		}
	}
	return m, nil
}

// Empty reports whether everything is enforced.
func (m *Modes) Empty() bool { return len(m.observe)+len(m.exempt) == 0 }

// Adjust sets the mode of a finding, for inspect.Chain.WithAdjust. One exception
// that covers the finding and has not ended is enough: one that has ended, or
// that is for something else, hides no other (rules.md 130). The clock is read
// each time, so that an exception ends without a reload.
func (m *Modes) Adjust(r *inspect.Request, f inspect.Finding) inspect.Finding {
	switch {
	case f.Mode != inspect.Enforced:
	case covered(m.exempt[f.Inspector], r, f.Rule):
		f.Mode = inspect.Exempt
	case covered(m.observe[f.Inspector], r, f.Rule):
		f.Mode = inspect.Observed
	}
	return f
}

func covered(list []config.Exception, r *inspect.Request, rule string) bool {
	for i := range list {
		e := &list[i]
		if (e.Rule == "" || e.Rule == rule) && domain.Covers(&e.Where, r) && e.InForce(time.Now()) {
			return true
		}
	}
	return false
}

// Error is an exception for a rule that its inspector does not have.
type Error struct {
	File string
	config.Exception
	rules []string
}

// Error gives the place in the file and what is wrong there.
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: cannot read %s.rule: %s has no rule %q", e.File, e.Position.Line, e.Position.Column, e.Position.Key, e.Inspector, e.Rule)
}

// Hint says which rule could have been meant.
func (e *Error) Hint() string {
	if like := config.Nearest(e.Rule, e.rules); like != "" {
		return fmt.Sprintf("did you mean %q?", like)
	}
	return "`agentcage policy test` shows the rule of a finding"
}
