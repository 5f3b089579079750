package bodysize

import (
	"context"
	"testing"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

func TestInspect(t *testing.T) {
	tests := []struct {
		name        string
		max, length int64
		opaque      bool
		reason      string
		limit       int64
	}{
		{"smaller", 10, 9, false, "", 10},
		{"equal", 10, 10, false, "", 10},
		{"larger", 10, 11, false, "body too large: 11 > 10", 0},
		{"unknown", 10, -1, false, "", 10},
		{"none", 10, 0, false, "", 10},
		{"off", 0, 1 << 40, false, "", -1},
		{"negative limit, body", -5, 1, false, "body too large: 1 > 0", 0},
		{"negative limit, unknown", -5, -1, false, "", 0},
		{"tunnel", 10, -1, true, "", -1},
	}
	for _, tt := range tests {
		v := inspect.NewChain(New(tt.max, nil)).Decide(context.Background(), &inspect.Request{ContentLength: tt.length, Opaque: tt.opaque})
		if v.Reason != tt.reason || v.Allowed() != (tt.reason == "") {
			t.Errorf("%s: %+v", tt.name, v)
		}
		if v.Allowed() && v.BodyLimit != tt.limit {
			t.Errorf("%s: limit %d, want %d", tt.name, v.BodyLimit, tt.limit)
		}
	}
}

// TestPerHost: the most specific host that is named decides, whether it gives
// more or less.
func TestPerHost(t *testing.T) {
	in := New(10, map[hostname.Name]int64{
		hostname.MustParse("example.com"):         100,
		hostname.MustParse("strict.example.com"):  1,
		hostname.MustParse("uploads.example.com"): 0,
	})
	for host, want := range map[string]int64{
		"other.test": 10, "notexample.com": 10, "example.com": 100, "a.b.example.com": 100,
		"strict.example.com": 1, "x.strict.example.com": 1, "uploads.example.com": -1,
	} {
		r := &inspect.Request{Host: hostname.MustParse(host), ContentLength: -1}
		if got := in.BodyLimit(r); got != want {
			t.Errorf("%s: limit %d, want %d", host, got, want)
		}
		if r.ContentLength = want + 1; want >= 0 && in.Inspect(context.Background(), r).Action != inspect.Blocked {
			t.Errorf("%s: %d bytes pass", host, want+1)
		}
		if r.ContentLength = max(want, 0); in.Inspect(context.Background(), r).Action != inspect.Allowed {
			t.Errorf("%s: %d bytes do not pass", host, want)
		}
	}
}
