package bodysize

import (
	"context"
	"testing"

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
		v := inspect.NewChain(New(tt.max)).Decide(context.Background(), &inspect.Request{ContentLength: tt.length, Opaque: tt.opaque})
		if v.Reason != tt.reason || v.Allowed() != (tt.reason == "") {
			t.Errorf("%s: %+v", tt.name, v)
		}
		if v.Allowed() && v.BodyLimit != tt.limit {
			t.Errorf("%s: limit %d, want %d", tt.name, v.BodyLimit, tt.limit)
		}
	}
}
