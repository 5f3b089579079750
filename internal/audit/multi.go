package audit

import (
	"errors"
	"slices"
	"time"
)

// Multi returns a Sink that hands each record to all sinks, also when one of
// them fails, and returns their errors joined. The record gets its id and time
// before, so that all of them write the same ones.
func Multi(sinks ...Sink) Sink {
	m := make(multi, 0, len(sinks))
	for _, s := range sinks {
		if s != nil {
			m = append(m, s)
		}
	}
	return m
}

type multi []Sink

func (m multi) Put(r Record) error {
	r.complete()
	var all error
	for _, s := range m {
		if err := s.Put(r); err != nil {
			all = errors.Join(all, err)
		}
	}
	return all
}

// Keeps implements Keeper: one is enough.
func (m multi) Keeps(r *Record) bool {
	return slices.ContainsFunc(m, func(s Sink) bool { return keeps(s, r) })
}

// keeps takes a sink that does not say for one that keeps all.
func keeps(s Sink, r *Record) bool {
	k, ok := s.(Keeper)
	return !ok || k.Keeps(r)
}

// complete fills in what a producer may leave to the sink.
func (r *Record) complete() {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	if r.ID == "" {
		r.ID = NewID()
	}
}
