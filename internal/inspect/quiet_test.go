package inspect

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

func textsOf(t *testing.T, h http.Header) []Text {
	t.Helper()
	c := &Content{Request: &Request{}, Kind: KindTrailer, Direction: ToServer, Header: h}
	texts, err := c.Texts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// third sends a header three times and returns the text of its value the last time.
func third(t *testing.T, name, value string) Text {
	t.Helper()
	var last Text
	for range 3 {
		texts := textsOf(t, http.Header{name: {value}})
		last = texts[len(texts)-1]
	}
	return last
}

// TestQuiet holds what is remembered of a text: by the third time that it comes,
// under its own name, place and bytes only, and nothing of one that decodes to
// something or is long.
func TestQuiet(t *testing.T) {
	key, other := new(int), new(int)
	text := third(t, "X-Quiet", "a plain value")
	if text.Quiet == nil {
		t.Fatal("nothing is remembered")
	}
	text.Quiet.Add(key)
	again := third(t, "X-Quiet", "a plain value")
	if !again.Quiet.Is(key) || again.Quiet.Is(other) {
		t.Error("what was added is not there, or more is")
	}
	if string(again.Tree.Layers[0].Data) != "a plain value" || again.Name != "X-Quiet" || again.Place != PlaceHeader {
		t.Errorf("the text is %+v", again)
	}
	for _, changed := range [][2]string{{"X-Quieu", "a plain value"}, {"X-Quiet", "a plain valuf"}} {
		if third(t, changed[0], changed[1]).Quiet.Is(key) {
			t.Errorf("%v is taken for the other", changed)
		}
	}
	for _, value := range []string{"ghp_%41bc", "x=a%20b", strings.Repeat("long ", 60)} {
		if q := third(t, "X-Quiet", value).Quiet; q != nil {
			t.Errorf("%q is remembered", value)
		}
	}
	var none *Quiet
	none.Add(key)
	if none.Is(key) {
		t.Error("nothing remembers something")
	}
}

// TestQuietIsBounded holds that neither texts nor keys pile up.
func TestQuietIsBounded(t *testing.T) {
	for i := range 10 * remembered {
		third(t, "X-Many", fmt.Sprint("value ", i))
	}
	q := third(t, "X-Keys", "a value with many keys").Quiet
	for i := range 10 * mostKeys {
		q.Add(i)
	}
	if n := len(*q.keys.Load()); n > mostKeys || !q.Is(10*mostKeys-1) || q.Is(0) {
		t.Errorf("%d keys are kept", n)
	}
}

// TestQuietAtOnce is for the race detector.
func TestQuietAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 200 {
				q := third(t, "X-Race", fmt.Sprint("value ", n%7)).Quiet
				if q.Is(i + 1) {
					t.Error("a key that nobody added")
				}
				q.Add(-i)
			}
		})
	}
	wg.Wait()
}
