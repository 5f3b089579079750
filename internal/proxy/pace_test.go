package proxy

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: a byte now and then is not enough, a steady rate is, and time that
// somebody else takes does not count.
func TestPace(t *testing.T) {
	for name, tt := range map[string]struct {
		every time.Duration
		bytes int
		pause time.Duration
		want  time.Duration // when it is over; 0 is never
	}{
		"nothing":     {every: time.Hour, want: time.Minute},
		"drip":        {every: 50 * time.Second, bytes: 1, want: time.Minute},
		"fast, stops": {every: time.Hour, bytes: 100 << 20, want: time.Minute},
		"steady":      {every: 10 * time.Second, bytes: 11 * minRate},
		"half of it":  {every: 10 * time.Second, bytes: 5 * minRate, want: 2 * time.Minute},
		"paused":      {every: 50 * time.Second, bytes: 50 * minRate, pause: time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			over := make(chan time.Duration, 1)
			p := &pace{timeout: time.Minute, late: func() { over <- time.Since(begun) }}
			p.start()
			end := time.After(30 * time.Minute)
			for done := false; !done; {
				select {
				case got := <-over:
					if (got-tt.want).Abs() > 10*time.Second || tt.want == 0 {
						t.Errorf("%s: over after %s, want %s", name, got, tt.want)
					}
					done = true
				case <-end:
					if done = true; tt.want != 0 {
						t.Errorf("%s: never over", name)
					}
				case <-time.After(tt.every):
					p.moved(tt.bytes)
					if tt.pause > 0 {
						resume := p.pause()
						<-time.After(tt.pause)
						resume()
					}
				}
			}
			if p.stop() != (tt.want == 0) {
				t.Errorf("%s: stop says something else", name)
			}
		})
	}
}
