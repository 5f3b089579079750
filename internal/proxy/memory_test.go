package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestMemoryBounds is peer-holes E8: what is handed out is never more than there
// is, whoever comes at the same time, and all of it comes back.
func TestMemoryBounds(t *testing.T) {
	const total, reserve = 1000, 100
	m := newMemory(total, reserve, time.Minute)
	var mu sync.Mutex
	held, most := int64(0), int64(0)
	count := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		held += n
		most = max(most, held)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 200 {
				s := share{of: m}
				for to := r.Int64N(reserve); to < reserve; to += 1 + r.Int64N(reserve/2) {
					was := s.n
					if err := s.Grow(context.Background(), to); err != nil {
						t.Error(err)
					}
					count(to - was)
				}
				count(-s.n)
				s.Release()
			}
		})
	}
	wg.Wait()
	if most > total || held != 0 {
		t.Errorf("%d of %d were held at once, %d at the end", most, total, held)
	}
	if m.free != total-reserve || m.first != nil || len(m.waiting) != 0 {
		t.Errorf("left: %d free, first %v, %d waiting", m.free, m.first, len(m.waiting))
	}
}

// TestMemoryWaits: in the order of coming, for a bounded time, and one always
// goes on when each holds a part and needs the rest.
func TestMemoryWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		m := newMemory(30, 10, time.Second)
		var a, b, c, d share
		for _, s := range []*share{&a, &b, &c, &d} {
			s.of = m
		}
		for s, n := range map[*share]int64{&a: 2, &b: 6, &c: 6, &d: 6} {
			if err := s.Grow(ctx, n); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Grow(ctx, 4); err != nil { // all is handed out: a uses the reserve
			t.Fatal(err)
		}
		order := make(chan string, 3)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := b.Grow(ctx, 10); err == nil {
				order <- "b"
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if err := c.Grow(ctx, 10); err == nil {
				order <- "c"
			}
		})
		synctest.Wait()
		gone, cancel := context.WithCancel(ctx)
		wg.Go(func() {
			if err := d.Grow(gone, 7); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
		synctest.Wait()
		if len(order) != 0 {
			t.Fatal("somebody did not wait")
		}
		cancel()
		a.Release()
		synctest.Wait()
		if got := <-order; got != "b" || len(order) != 0 {
			t.Errorf("%s was first, and %d more went on", got, len(order))
		}
		b.Release()
		synctest.Wait()
		if got := <-order; got != "c" {
			t.Errorf("%s was second", got)
		}
		wg.Wait()

		// Whoever waits in vain leaves no trace.
		if err := a.Grow(ctx, 10); err != nil {
			t.Fatal(err)
		}
		if err := b.Grow(ctx, 10); !errors.Is(err, errNoMemory) {
			t.Errorf("no room: %v", err)
		}
		if err := b.Grow(ctx, 11); !errors.Is(err, errNoMemory) {
			t.Errorf("more than one may have: %v", err)
		}
		for _, s := range []*share{&a, &b, &c, &d, &a} {
			s.Release()
		}
		if m.free != 20 || m.first != nil || len(m.waiting) != 0 {
			t.Errorf("left: %d free, first %v, %d waiting", m.free, m.first, len(m.waiting))
		}
	})
}

func TestBufferSizes(t *testing.T) {
	for n, want := range map[int]int{0: 64 << 10, 1: 64 << 10, 64 << 10: 64 << 10, 64<<10 + 1: 128 << 10, 16 << 20: 16 << 20, 16<<20 + 1: 32 << 20, 33 << 20: 64 << 20} {
		b := getBuffer(n)
		if len(b) != want || cap(b) != want {
			t.Errorf("%d: %d bytes, want %d", n, len(b), want)
		}
		putBuffer(b[:7])
	}
	putBuffer(nil)
}
