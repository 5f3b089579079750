package proxy

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// minRate is how fast content has to come that is kept until it is whole, in
// bytes a second: the memory that it is kept in is for all. Clients are on the
// same machine.
const minRate = 64 << 10

// pace ends what comes too slowly: not at all for the time-out, or not by the
// time-out and what minRate adds to it. It is for one goroutine at a time.
type pace struct {
	timeout time.Duration
	late    func() // called once, by a goroutine of its own

	timer      *time.Timer
	begun, set time.Time
	got        int64
	over       atomic.Bool
}

func (p *pace) start() {
	p.begun, p.got = time.Now(), 0
	p.set = p.begun
	p.timer = time.AfterFunc(p.timeout, func() {
		p.over.Store(true)
		p.late()
	})
}

// moved is told of every part that comes.
func (p *pace) moved(n int) {
	p.got += int64(n)
	now := time.Now()
	if now.Sub(p.set) >= p.timeout/8 {
		p.reset(now)
	}
}

func (p *pace) reset(now time.Time) {
	p.set = now
	end := p.begun.Add(p.timeout + time.Duration(p.got)*time.Second/minRate)
	p.timer.Reset(min(p.timeout, end.Sub(now)))
}

// pause begins a time that the sender is not to blame for, and returns what
// ends it.
func (p *pace) pause() (resume func()) {
	since := time.Now()
	p.timer.Stop()
	return func() {
		now := time.Now()
		p.begun = p.begun.Add(now.Sub(since))
		p.reset(now)
	}
}

// stop reports whether it came in time.
func (p *pace) stop() bool {
	p.timer.Stop()
	return !p.over.Load()
}

// cutter ends a read of the body from any goroutine, and touches nothing of the
// server's when the handler may be gone.
type cutter struct {
	mu   sync.Mutex
	rc   *http.ResponseController
	over bool
}

func (c *cutter) now() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		_ = c.rc.SetReadDeadline(time.Unix(1, 0))
	}
}

// end takes the deadline away, unless the server is not to read on when it
// closes the body.
func (c *cutter) end(whole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if whole {
		_ = c.rc.SetReadDeadline(time.Time{})
	}
}
