package decode

import (
	"bytes"
	"compress/gzip"
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func zipped(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(bytes.Repeat([]byte("0123456789abcdef words of a text that is long, "), n/47+1)[:n]); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRoom holds who waits for what: the small for nothing, the middle for the
// middle ones, the large for the large ones, and nobody for ever.
func TestRoom(t *testing.T) {
	small, middle, large := zipped(t, freeBytes-1024), zipped(t, 1<<20), zipped(t, 5<<20)
	decode := func(ctx context.Context, s *Share, data []byte) error {
		_, err := Decode(ctx, Input{Data: data, Encoding: []string{"gzip"}}, Limits{Share: s, Ratio: 1 << 20})
		return err
	}
	for _, tt := range []struct {
		name          string
		middle, large int // places that others have
		data          []byte
		waits         bool
	}{
		{"a small one goes by", middlePlaces, largePlaces, small, false},
		{"a middle one takes the last place", middlePlaces - 1, largePlaces, middle, false},
		{"a middle one waits", middlePlaces, 0, middle, true},
		{"a large one takes the last places", middlePlaces - 1, largePlaces - 1, large, false},
		{"a large one waits for a middle place", middlePlaces, 0, large, true},
		{"a large one waits for a large place", 0, largePlaces, large, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const wait = time.Second
				r := NewRoom(wait)
				for range tt.middle {
					r.middle <- struct{}{}
				}
				for range tt.large {
					r.large <- struct{}{}
				}
				s, began := r.Share(), time.Now()
				err := decode(context.Background(), s, tt.data)
				waited := time.Since(began) == wait
				if tt.waits != waited || tt.waits != (err == errCrowded) || !tt.waits && err != nil {
					t.Errorf("waited %v: %v", time.Since(began), err)
				}
				s.Release()
				s.Release()
				if len(r.middle) != tt.middle || len(r.large) != tt.large {
					t.Errorf("%d and %d places are left taken", len(r.middle)-tt.middle, len(r.large)-tt.large)
				}
				if !tt.waits {
					return
				}
				ctx, cancel := context.WithTimeout(context.Background(), wait/2)
				defer cancel()
				if err := decode(ctx, r.Share(), tt.data); err != errTime {
					t.Errorf("a request that is cancelled: %v", err)
				}
			})
		})
	}
}

// TestRoomLetsAllThrough: more than there are places, each of which gets one in
// the end, and never more at once than there are.
func TestRoomLetsAllThrough(t *testing.T) {
	r := NewRoom(time.Minute)
	large := zipped(t, 5<<20)
	var wg sync.WaitGroup
	for range 3 * largePlaces {
		wg.Go(func() {
			s := r.Share()
			defer s.Release()
			if _, err := Decode(context.Background(), Input{Data: large, Encoding: []string{"gzip"}}, Limits{Share: s, Ratio: 1 << 20}); err != nil {
				t.Error(err)
			}
			if n := len(r.large); n == 0 || n > largePlaces {
				t.Errorf("%d places are taken", n)
			}
		})
	}
	wg.Wait()
	if len(r.middle)+len(r.large) != 0 {
		t.Error("places are left taken")
	}
}

// TestShareIsOfAllTrees: many trees of one content count together, and are
// bounded together.
func TestShareIsOfAllTrees(t *testing.T) {
	r := NewRoom(time.Minute)
	s := r.Share()
	defer s.Release()
	part := zipped(t, 200<<10)
	var err error
	for n := 0; err == nil; n++ {
		if taken := len(r.middle) + len(r.large); n == 1 && taken != 0 || n == 10 && taken != 1 || n == 30 && taken != 2 {
			t.Fatalf("after %d trees %d places are taken", n, taken)
		}
		_, err = Decode(context.Background(), Input{Data: part, Encoding: []string{"gzip"}}, Limits{Share: s, Bytes: 8 << 20, Ratio: 1 << 20})
	}
	if err != errBytes {
		t.Errorf("%v", err)
	}
}
