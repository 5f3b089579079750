package budget

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
)

const (
	slots       = 24      // of a window; what is counted stays for one more of them at most
	maxAccounts = 4096    // destinations
	maxNames    = 1 << 17 // host names of all destinations
)

// State is what was counted. It outlives an Inspector, so that a reload gives
// nothing back. Its zero value is ready, and it is safe for concurrent use.
type State struct {
	mu       sync.Mutex
	begin    time.Time
	slot     time.Duration                   // length of one
	accounts map[hostname.Name]*list.Element // of *account
	recent   list.List                       // most recently used first
	spill    account                         // shared by destinations that find no room
	cage     account
	names    int // in all accounts
}

// amount is what one content adds.
type amount struct {
	bytes, requests int64
	name            hostname.Name // zero when it is no request
}

// account is what one destination got in a window.
type account struct {
	host   hostname.Name
	ring   [slots]counts
	sum    counts
	newest int64 // number of the newest slot
	names  map[hostname.Name]*name

	sent Total // since the gateway began
}

type counts struct{ bytes, requests int64 }

// name is a host name that counts.
type name struct {
	slot    int64 // in which it was last used
	pending int   // requests for it that are not decided
	sent    bool  // one at least went out
}

// over is a threshold that an amount passes.
type over struct {
	rule, what   string
	count, limit int64
	block        bool
}

// charged is an amount on its way.
type charged struct {
	state  *State
	a      amount
	on     []*account
	counts []bool // whether names are counted, for each account
	slot   int64
	held   bool // it is in the accounts
	over   []over
}

// Total is what went to one destination since the gateway began.
type Total struct {
	Host     hostname.Name // zero for the destinations that found no room of their own
	Bytes    int64
	Requests int64
}

// charge judges an amount and, unless it is over a limit, reserves it, in one
// step with all others (peer-holes E8).
func (s *State) charge(dest hostname.Name, a amount, limits config.Limits, cfg config.Budget) *charged {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now(cfg.Window)
	acc := s.account(dest, now)
	to, from := " to "+dest.String(), " from the cage"
	under := " under " + dest.String()
	if acc == &s.spill {
		to, under = " to other hosts", " of other hosts"
	}
	c := &charged{state: s, a: a, on: []*account{acc, &s.cage}, slot: now}
	for i, l := range []config.Limits{limits, cfg.Total} {
		acc := c.on[i]
		acc.advance(s, now)
		c.counts = append(c.counts, !a.name.IsZero() && l.Hosts != config.Threshold{})
		prefix, to, under := "", to, under
		if i == 1 {
			prefix, to, under = "total-", from, from
		}
		c.judge(prefix+"bytes", "bytes"+to, acc.sum.bytes, a.bytes, l.Bytes)
		c.judge(prefix+"requests", "requests"+to, acc.sum.requests, a.requests, l.Requests)
		if c.counts[i] && acc.names[a.name] == nil {
			c.judge(prefix+"hosts", "host names"+under, int64(len(acc.names)), 1, l.Hosts)
			if s.names >= maxNames {
				c.over = append(c.over, over{rule: prefix + "hosts", what: "host names in all", count: int64(s.names), limit: maxNames, block: true})
			}
		}
	}
	c.held = !slices.ContainsFunc(c.over, func(o over) bool { return o.block })
	if c.held {
		c.add()
	}
	return c
}

// judge reports a count that passes its limit, or a multiple of what is flagged:
// each request after it is no news.
func (c *charged) judge(rule, what string, before, more int64, t config.Threshold) {
	after := before + more
	switch {
	case more <= 0:
	case t.Block > 0 && after > t.Block:
		c.over = append(c.over, over{rule, what, after, t.Block, true})
	case t.Flag > 0 && after > t.Flag && (after-1)/t.Flag > (before-1)/t.Flag:
		c.over = append(c.over, over{rule, what, after, t.Flag, false})
	}
}

// add puts the amount into its accounts.
func (c *charged) add() {
	for i, acc := range c.on {
		acc.advance(c.state, c.slot)
		at := &acc.ring[acc.newest%slots]
		at.bytes += c.a.bytes
		at.requests += c.a.requests
		acc.sum.bytes += c.a.bytes
		acc.sum.requests += c.a.requests
		if !c.counts[i] {
			continue
		}
		n := acc.names[c.a.name]
		if n == nil {
			if acc.names == nil {
				acc.names = make(map[hostname.Name]*name)
			}
			n = &name{}
			acc.names[c.a.name] = n
			c.state.names++
		}
		n.pending++
		n.slot = acc.newest
	}
}

// settle keeps what left and gives back what did not. What left although it is
// over a limit, because nobody enforced that, is counted now.
func (c *charged) settle(sent bool) {
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	switch {
	case !c.held && !sent:
		return
	case !c.held:
		c.slot = c.state.present()
		c.add()
	}
	for i, acc := range c.on {
		if sent {
			acc.sent.Bytes += c.a.bytes
			acc.sent.Requests += c.a.requests
		} else {
			acc.giveBack(c.a, c.slot)
		}
		if n := acc.names[c.a.name]; c.counts[i] && n != nil {
			n.pending--
			n.sent = n.sent || sent
			if !n.sent && n.pending <= 0 {
				delete(acc.names, c.a.name)
				c.state.names--
			}
		}
	}
}

// giveBack takes an amount out of the slot it was put in, if that still counts.
func (a *account) giveBack(was amount, slot int64) {
	if slot <= a.newest-slots || slot > a.newest {
		return
	}
	at := &a.ring[slot%slots]
	bytes, requests := min(at.bytes, was.bytes), min(at.requests, was.requests)
	at.bytes -= bytes
	at.requests -= requests
	a.sum.bytes -= bytes
	a.sum.requests -= requests
}

// advance drops what is older than the window.
func (a *account) advance(s *State, now int64) {
	if now <= a.newest {
		return
	}
	for i := max(a.newest, now-slots); i < now; i++ {
		at := &a.ring[(i+1)%slots]
		a.sum.bytes -= at.bytes
		a.sum.requests -= at.requests
		*at = counts{}
	}
	a.newest = now
	for host, n := range a.names {
		if n.slot <= now-slots && n.pending <= 0 {
			delete(a.names, host)
			s.names--
		}
	}
}

func (s *State) present() int64 { return int64(time.Since(s.begin) / s.slot) }

// now is the number of the present slot. Another length of the window makes
// everything that counts an amount of the present.
func (s *State) now(window time.Duration) int64 {
	if s.begin.IsZero() {
		s.begin = time.Now()
	}
	length := max(window/slots, time.Millisecond)
	if s.slot != length && s.slot != 0 {
		for _, acc := range s.all() {
			acc.advance(s, s.present())
			acc.move(int64(time.Since(s.begin) / length))
		}
	}
	s.slot = length
	return s.present()
}

// move puts everything that counts into one slot.
func (a *account) move(slot int64) {
	a.ring = [slots]counts{}
	a.ring[slot%slots] = a.sum
	a.newest = slot
	for _, n := range a.names {
		n.slot = slot
	}
}

func (s *State) all() []*account {
	out := []*account{&s.cage, &s.spill}
	for el := s.recent.Front(); el != nil; el = el.Next() {
		out = append(out, el.Value.(*account))
	}
	return out
}

// account finds the account of a destination. When there is no room the least
// recently used one goes, but only if nothing in it counts any more, so that
// nothing is gained by driving it out; else the destination shares one.
func (s *State) account(dest hostname.Name, now int64) *account {
	if el := s.accounts[dest]; el != nil {
		s.recent.MoveToFront(el)
		return el.Value.(*account)
	}
	if s.accounts == nil {
		s.accounts = make(map[hostname.Name]*list.Element)
	}
	if len(s.accounts) >= maxAccounts {
		oldest := s.recent.Back()
		acc := oldest.Value.(*account)
		acc.advance(s, now)
		if acc.sum != (counts{}) || len(acc.names) > 0 {
			return &s.spill
		}
		s.spill.sent.Bytes += acc.sent.Bytes
		s.spill.sent.Requests += acc.sent.Requests
		s.recent.Remove(oldest)
		delete(s.accounts, acc.host)
	}
	acc := &account{host: dest, newest: now}
	s.accounts[dest] = s.recent.PushFront(acc)
	return acc
}

// Totals returns what went to each destination since the gateway began, the most
// first. Destinations that found no room are one without a host.
func (s *State) Totals() []Total {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Total
	for _, acc := range s.all()[1:] {
		if t := acc.sent; t != (Total{}) {
			t.Host = acc.host
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b Total) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Host.String(), b.Host.String()))
	})
	return out
}
