package inspect

import (
	"bytes"
	"compress/gzip"
	"context"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentcage/agentcage/internal/decode"
)

// hold is an inspector that keeps what it is shown until it is told to go on.
type hold struct {
	now, most *atomic.Int64
	on        chan struct{}
}

func (hold) Name() string { return "hold" }

func (h hold) InspectContent(context.Context, *Content) Result {
	if n := h.now.Add(1); n > h.most.Load() {
		h.most.Store(n)
	}
	<-h.on
	h.now.Add(-1)
	return Done()
}

func bomb(t *testing.T, n int) *Content {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(bytes.Repeat([]byte("some lines that compress well\n"), n/30+1))
	w.Close()
	r := &Request{URL: &url.URL{Path: "/"}}
	return &Content{Request: r, Kind: KindRequest, Direction: ToServer, Encoding: []string{"gzip"}, Body: b.Bytes()}
}

// withPermits gives a bubble permits of its own.
func withPermits(t *testing.T, n int) {
	before := permits
	permits = make(chan struct{}, n)
	t.Cleanup(func() { permits = before })
}

// TestManyBombs: a hundred small bodies that decode to much are not in memory at
// one time, and those that decode to little do not wait for them.
func TestManyBombs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		withPermits(t, 3)
		h := hold{new(atomic.Int64), new(atomic.Int64), make(chan struct{})}
		c := NewChain().WithContent(h)
		verdicts := make(chan Verdict, 200)
		decide := func(content *Content) { verdicts <- c.DecideContent(t.Context(), content) }
		for range 100 {
			go decide(bomb(t, 2*decode.LargeFrom))
		}
		synctest.Wait()
		if n := h.now.Load(); n != 3 {
			t.Errorf("%d are decided at one time", n)
		}
		for range 50 {
			go decide(bomb(t, decode.LargeFrom/2))
		}
		synctest.Wait()
		if n := h.now.Load(); n != 53 {
			t.Errorf("%d are decided with small ones", n)
		}
		close(h.on)
		for range 150 {
			if v := <-verdicts; v.Decision != Allowed {
				t.Errorf("%+v", v)
			}
		}
		if len(permits) != 0 {
			t.Errorf("%d permits are lost", len(permits))
		}
	})
}

// TestNoPermit: whoever waits in vain is blocked, and a failure loses none.
func TestNoPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		withPermits(t, 1)
		permits <- struct{}{}
		c := NewChain().WithContent(counter{told: new([]bool)})
		began := time.Now()
		if v := c.DecideContent(t.Context(), bomb(t, 2*decode.LargeFrom)); v.Allowed() || v.Reason != "too much is being decoded at once" || time.Since(began) != permitTime {
			t.Errorf("%+v after %v", v, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if v := c.DecideContent(ctx, bomb(t, 2*decode.LargeFrom)); v.Allowed() {
			t.Errorf("cancelled: %+v", v)
		}
		<-permits
		for range 3 {
			if v := NewChain().WithContent(counter{told: new([]bool), panic: true}).DecideContent(t.Context(), bomb(t, 2*decode.LargeFrom)); v.Allowed() || v.Reason != "an inspector failed" {
				t.Errorf("%+v", v)
			}
		}
		// Nobody takes one who would not give it back.
		if _, err := bomb(t, 2*decode.LargeFrom).Texts(t.Context()); err != nil || len(permits) != 0 {
			t.Errorf("%v, %d permits taken", err, len(permits))
		}
	})
}
