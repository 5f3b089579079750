package dns

import (
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
)

const (
	repeatWindow = time.Second
	maxRepeats   = 1024 // names counted at one time
	manyNames    = "(many names)"
)

// record audits one query. It returns false when an allowed query could not
// be recorded as asked for, and must not be answered.
func (s *Server) record(q dns.Question, name hostname.Name, v verdict, from net.Addr) bool {
	if s.Audit == nil || v.reason == "" && !s.LogQueries {
		return true
	}
	host := name.String()
	if name.IsZero() {
		host = strings.TrimSuffix(q.Name, ".")
	}
	r := audit.Record{
		Time: time.Now(), Method: "DNS", Host: host, Port: 53, URL: "dns://" + host,
		Decision: "allowed", Reason: v.reason, Source: source(from), Kind: audit.KindDNS,
	}
	if v.reason == "" {
		return s.Audit.Put(r) == nil
	}
	r.Decision = "blocked"
	r.Inspectors = []audit.Finding{{Name: "dns", Action: "blocked", Reason: v.reason, Severity: "warning"}}
	s.repeats.put(r)
	return true
}

func source(a net.Addr) string {
	if a == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// repeats writes the first refusal of a name at once, and counts those that
// follow within a second into one more record. When too many names are asked
// for at one time the rest is counted together.
type repeats struct {
	sink audit.Sink

	mu      sync.Mutex
	pending map[string]*pending
}

type pending struct {
	record audit.Record
	count  int
	timer  *time.Timer
}

func (r *repeats) put(rec audit.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := rec.Host + "\x00" + rec.Reason
	p := r.pending[key]
	if p == nil && len(r.pending) >= maxRepeats {
		key = manyNames
		rec.Host, rec.URL = manyNames, "dns://"
		p = r.pending[key]
	}
	if p != nil {
		p.count++
		return
	}
	if r.pending == nil {
		r.pending = make(map[string]*pending)
	}
	r.pending[key] = &pending{record: rec, timer: time.AfterFunc(repeatWindow, func() { r.flush(key) })}
	_ = r.sink.Put(rec) // the writer counts its failures, and the query is refused either way
}

func (r *repeats) flush(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pending[key]
	if p == nil {
		return
	}
	delete(r.pending, key)
	p.timer.Stop()
	if p.count > 0 {
		p.record.Count = p.count
		p.record.ID = ""
		_ = r.sink.Put(p.record) // as in put
	}
}

func (r *repeats) flushAll() {
	r.mu.Lock()
	keys := make([]string, 0, len(r.pending))
	for k := range r.pending {
		keys = append(keys, k)
	}
	r.mu.Unlock()
	for _, k := range keys {
		r.flush(k)
	}
}
