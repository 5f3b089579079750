package cli

import (
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect/budget"
)

func TestPrintSent(t *testing.T) {
	host := hostname.MustParse("api.example.com")
	for _, tt := range []struct {
		sent []budget.Total
		want string
	}{
		{nil, ""},
		{[]budget.Total{{Host: host, Bytes: 1000, Requests: 2}}, "  1000 bytes left in 2 requests, most of it to api.example.com\n"},
		{[]budget.Total{{Host: host, Bytes: 5 << 20, Requests: 2}, {Bytes: 1 << 19, Requests: 1}}, "  5.5 MiB left in 3 requests, most of it to api.example.com\n"},
		{[]budget.Total{{Bytes: 3 << 50, Requests: 1}}, "  3072.0 TiB left in 1 requests, most of it to (others)\n"},
	} {
		var b strings.Builder
		printSent(&b, tt.sent)
		if b.String() != tt.want {
			t.Errorf("%q, want %q", b.String(), tt.want)
		}
	}
}
