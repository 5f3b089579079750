package decode

import (
	"context"
	"math"
	"time"
)

// What one content may decode to before it has to ask, and before it has to ask
// again, in bytes. What all of them together hold is at most freeBytes for each,
// which are as many as there are requests, and what the places allow.
const (
	freeBytes    = 256 << 10
	middleBytes  = 4 << 20
	middlePlaces = 16
	largePlaces  = 2
)

// Room bounds what is decoded at one time. Small contents go by, so that they
// pay nothing; there are places for larger ones, and few for the largest. It is
// safe for concurrent use.
type Room struct {
	middle, large chan struct{}
	wait          time.Duration
}

// NewRoom returns a room in which a content waits for so long.
func NewRoom(wait time.Duration) *Room {
	return &Room{middle: make(chan struct{}, middlePlaces), large: make(chan struct{}, largePlaces), wait: wait}
}

// Share returns the share of one content, for all of its trees. Release has to
// be called when nobody needs them any more.
func (r *Room) Share() *Share { return &Share{room: r} }

// Share is what one content has of a room. It is for one goroutine at a time. A
// nil Share is one without bounds.
type Share struct {
	room   *Room
	spent  int64
	places [2]chan struct{} // that it has
}

// paid is up to where nothing has to be asked for.
func (s *Share) paid() int64 {
	switch {
	case s == nil || s.places[1] != nil:
		return math.MaxInt64
	case s.places[0] != nil:
		return middleBytes
	}
	return freeBytes
}

// grow takes the places that so many bytes need. Whoever has one of the large
// ones waits for nothing, so that those who wait for them get theirs.
func (s *Share) grow(ctx context.Context, to int64) *Error {
	for k, place := range [...]chan struct{}{s.room.middle, s.room.large} {
		if to <= s.paid() {
			return nil
		}
		if s.places[k] != nil {
			continue
		}
		if err := s.room.enter(ctx, place); err != nil {
			return err
		}
		s.places[k] = place
	}
	return nil
}

func (r *Room) enter(ctx context.Context, place chan struct{}) *Error {
	select {
	case place <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(r.wait)
	defer t.Stop()
	select {
	case place <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errTime
	case <-t.C:
		return errCrowded
	}
}

// Release gives the places back. It may be called again, and on nil.
func (s *Share) Release() {
	if s == nil {
		return
	}
	for k, place := range s.places {
		if place != nil {
			<-place
		}
		s.places[k] = nil
	}
	s.spent = 0
}
