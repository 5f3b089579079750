package proxy

import (
	"context"
	"errors"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// errNoMemory is the answer to whoever waited for memory in vain.
var errNoMemory = errors.New("no memory to inspect it: too much is being inspected at once")

// memory bounds what is kept of all requests, answers and messages together.
// Whoever needs more than there is waits, in the order of coming.
//
// All could hold a part and wait for the rest. So a reserve is kept that is
// large enough for any one of them, and one at a time may use it: that one
// never waits, and when it is done the next one gets it.
type memory struct {
	reserve int64         // the most that one share may have
	wait    time.Duration // for how long a share waits

	mu      sync.Mutex
	free    int64  // beside the reserve; below 0 while first uses that
	first   *share // who may use the reserve
	waiting []*claim
}

// claim is a share that waits.
type claim struct {
	share   *share
	need    int64
	granted chan struct{}
}

// newMemory returns a memory of total bytes, or of twice reserve if that is
// more.
func newMemory(total, reserve int64, wait time.Duration) *memory {
	return &memory{reserve: reserve, wait: wait, free: max(total, 2*reserve) - reserve}
}

// share is what one piece of content has of the memory. It is for one
// goroutine at a time.
type share struct {
	of *memory
	n  int64 // guarded by of.mu
}

// Grow makes the share one of so many bytes. Taking them and finding that they
// are there is one step. When there are none it waits, and the error is that of
// ctx or errNoMemory.
func (s *share) Grow(ctx context.Context, to int64) error {
	m := s.of
	m.mu.Lock()
	need := to - s.n
	if to > m.reserve {
		m.mu.Unlock()
		return errNoMemory
	}
	if need <= 0 || m.take(s, need) {
		m.mu.Unlock()
		return nil
	}
	c := &claim{share: s, need: need, granted: make(chan struct{})}
	m.waiting = append(m.waiting, c)
	m.mu.Unlock()
	return m.await(ctx, c)
}

// take is called with the lock held.
func (m *memory) take(s *share, need int64) bool {
	switch {
	case s == m.first:
	case len(m.waiting) == 0 && need <= m.free:
	case m.first == nil: // so nobody waits: the one in front would be first
		m.first = s
	default:
		return false
	}
	m.free -= need
	s.n += need
	return true
}

func (m *memory) await(ctx context.Context, c *claim) error {
	t := time.NewTimer(m.wait)
	defer t.Stop()
	err := errNoMemory
	select {
	case <-c.granted:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-t.C:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.waiting, c)
	if i < 0 {
		return nil // granted in the meantime
	}
	m.waiting = slices.Delete(m.waiting, i, i+1)
	m.serve()
	return err
}

// Release gives everything back. It may be called again.
func (s *share) Release() {
	m := s.of
	m.mu.Lock()
	defer m.mu.Unlock()
	m.give(s, s.n)
}

// shrink gives back what is more than so many bytes.
func (s *share) shrink(to int64) {
	m := s.of
	m.mu.Lock()
	defer m.mu.Unlock()
	m.give(s, max(s.n-to, 0))
}

// give is called with the lock held.
func (m *memory) give(s *share, n int64) {
	if n == 0 && s != m.first {
		return
	}
	m.free += n
	s.n -= n
	if m.first == s && s.n == 0 {
		m.first = nil
	}
	m.serve()
}

// serve lets those in front go on. It is called with the lock held.
func (m *memory) serve() {
	if m.free >= 0 {
		m.first = nil // the reserve is whole again
	}
	for len(m.waiting) > 0 {
		c := m.waiting[0]
		if c.need > m.free {
			if m.first != nil {
				return
			}
			m.first = c.share
		}
		m.waiting = slices.Delete(m.waiting, 0, 1)
		m.free -= c.need
		c.share.n += c.need
		close(c.granted)
	}
}

// Buffers are kept by size, in powers of two from the smallest on.
const smallestKept = 64 << 10

var keptBuffers [10]sync.Pool

// bufferSize is the size of the buffer that n bytes get.
func bufferSize(n int) int {
	if n <= smallestKept {
		return smallestKept
	}
	return 1 << bits.Len(uint(n-1))
}

func bufferPool(size int) *sync.Pool {
	i := bits.Len(uint(size)) - bits.Len(uint(smallestKept))
	if i < 0 || i >= len(keptBuffers) {
		return nil
	}
	return &keptBuffers[i]
}

// getBuffer returns a buffer of bufferSize(n), with anything in it.
func getBuffer(n int) []byte {
	size := bufferSize(n)
	if p := bufferPool(size); p != nil {
		if b, ok := p.Get().(*[]byte); ok {
			return *b
		}
	}
	return make([]byte, size)
}

// putBuffer takes a buffer back that nobody uses any more.
func putBuffer(b []byte) {
	if cap(b) == 0 {
		return
	}
	b = b[:cap(b)]
	if p := bufferPool(len(b)); p != nil {
		p.Put(&b)
	}
}
