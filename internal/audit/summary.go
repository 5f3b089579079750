package audit

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Limits of a Summary: rows, and bytes of each text in a row.
const (
	maxRows    = 1000
	maxRowText = 300
)

// Others is the host of the row that counts what no longer got a row of its
// own.
const Others = "(others)"

// Failed is the decision of a row about requests that were allowed and that no
// server answered.
const Failed = "failed"

// Row is one line of a Summary.
type Row struct {
	Decision string // "blocked", "flagged" or "allowed", or "failed" when allowed and not answered
	Host     string
	Reason   string // empty when allowed
	Count    int
}

// Summary counts records by decision, host and reason in bounded memory. Its
// zero value is ready, and it is safe for concurrent use.
type Summary struct {
	Redact Redactor // nil changes nothing; set it before the first Put

	mu   sync.Mutex
	rows map[Row]int
}

var (
	_ Sink   = (*Summary)(nil)
	_ Keeper = (*Summary)(nil)
)

// Put counts a record. Policy reloads and totals are no decision and are left
// out.
func (s *Summary) Put(r Record) error {
	if r.Kind == KindReload || r.Kind == KindReloadFail || r.Kind == KindBudget {
		return nil
	}
	key := Row{Decision: decision(r.Decision), Host: s.clean(r.Host)}
	if r.Kind == KindUpstream {
		key.Decision = Failed
	}
	if key.Decision != "allowed" {
		key.Reason = s.clean(r.Reason)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revise(r.Revises, key.Host)
	if s.rows == nil {
		s.rows = make(map[Row]int)
	}
	if _, ok := s.rows[key]; !ok && len(s.rows) >= maxRows {
		key = Row{Decision: key.Decision, Host: Others}
	}
	s.rows[key] += max(r.Count, 1)
	return nil
}

// Keeps implements Keeper: of what was allowed the host is counted.
func (s *Summary) Keeps(r *Record) bool { return decision(r.Decision) != "allowed" }

// revise takes back an allowed request that came to nothing, so that it is not
// counted twice. One with a reason is left: flags are worth seeing.
func (s *Summary) revise(was, host string) {
	row := Row{Decision: was, Host: host}
	if n, ok := s.rows[row]; ok && n > 1 {
		s.rows[row]--
	} else {
		delete(s.rows, row)
	}
}

// Snapshot returns the rows: blocked before flagged before allowed, and the
// most frequent first. Their texts are printable.
func (s *Summary) Snapshot() []Row {
	s.mu.Lock()
	rows := make([]Row, 0, len(s.rows))
	for r, n := range s.rows {
		r.Count = n
		rows = append(rows, r)
	}
	s.mu.Unlock()
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(
			cmp.Compare(rank(a.Decision), rank(b.Decision)),
			cmp.Compare(b.Count, a.Count),
			strings.Compare(a.Host, b.Host),
			strings.Compare(a.Reason, b.Reason),
		)
	})
	return rows
}

func rank(decision string) int {
	return slices.Index([]string{"blocked", "flagged", Failed, "allowed"}, decision)
}

// clean makes text of the agent's fit for a terminal and for a bounded map.
func (s *Summary) clean(text string) string {
	if s.Redact != nil {
		text = s.Redact(text)
	}
	if len(text) > maxRowText {
		text = text[:maxRowText] + "..."
	}
	q := strconv.QuoteToGraphic(text)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
