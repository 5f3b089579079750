package ws

import (
	"context"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// ledger is a Keeper with a limit.
type ledger struct {
	limit, most, now int
	whole            int
	released         chan bool
}

func (l *ledger) Grow(_ context.Context, to int) error {
	if to > l.limit {
		return errors.New("no memory")
	}
	l.now, l.most = to, max(l.most, to)
	return nil
}

func (l *ledger) Whole() { l.whole++ }

func (l *ledger) Release() {
	l.now = 0
	l.released <- true
}

// TestKeeper: memory is asked for before it is taken, and given back with each
// message; without it the connection ends.
func TestKeeper(t *testing.T) {
	up := &ledger{limit: 100_000, released: make(chan bool, 100)}
	down := &ledger{limit: 100_000, released: make(chan bool, 100)}
	r := start(t.Context(), t, Options{OnMessage: all, Keep: func(d Direction) Keeper {
		if d == ToServer {
			return up
		}
		return down
	}})
	for _, n := range []int{1, 50_000} {
		m := strings.Repeat("x", n)
		go r.client.Write(c(Text, m))
		r.want(r.server, Text, m)
		<-up.released
		if up.most < n || up.most > 2*n+maxHeader+keepRoom || up.now != 0 {
			t.Errorf("%d bytes: asked for %d, %d left", n, up.most, up.now)
		}
	}
	if up.whole != 2 || down.most != 0 {
		t.Errorf("%d messages were whole; the other direction was charged %d", up.whole, down.most)
	}
	go r.client.Write(c(Text, strings.Repeat("x", 150_000)))
	r.wantClosed(CloseTryLater)
	var ce *CloseError
	if err := <-r.result; !errors.As(err, &ce) || ce.Code != CloseTryLater {
		t.Errorf("%v", err)
	}
	if up.now != 0 {
		t.Errorf("%d left", up.now)
	}
}

// TestBlockSaysWhy to the client, and to the server no more than that.
func TestBlockSaysWhy(t *testing.T) {
	r := start(t.Context(), t, Options{OnMessage: func(_ context.Context, _ Direction, m *Message) Action {
		m.Reason = "no " + string(m.Data)
		return Block
	}})
	r.send(r.client, c(Text, "way"))
	r.want(r.client, opClose, "\x03\xf0agentcage: no way")
	r.want(r.server, opClose, "\x03\xf0blocked by agentcage")
	<-r.result
}

func TestClip(t *testing.T) {
	for in, want := range map[string]int{"": 0, strings.Repeat("a", 123): 123, strings.Repeat("a", 124): 123, strings.Repeat("é", 62): 122, strings.Repeat("\U0001f600", 40): 120, "\xff": 3} {
		if got := clip(in); len(got) != want || !utf8.ValidString(got) {
			t.Errorf("%q: %q", in, got)
		}
	}
}
