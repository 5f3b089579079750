package process

import (
	"testing"

	"github.com/agentcage/agentcage/internal/cage"
)

// BenchmarkTrue is the whole life of a cage: start, "true", end.
func BenchmarkTrue(b *testing.B) {
	dir := b.TempDir()
	b.Setenv("XDG_STATE_HOME", b.TempDir())
	for b.Loop() {
		p, err := Backend{}.Start(b.Context(), cage.Spec{Command: []string{"true"}, Dir: dir, Ports: []uint16{80, 443}},
			func(l cage.Listeners) error { closeListeners(l); return nil })
		if err != nil {
			b.Fatal(err)
		}
		if st, err := p.Wait(); err != nil || st.Code != 0 {
			b.Fatal(st, err)
		}
	}
}

// BenchmarkPlan is the part that is decided on the host.
func BenchmarkPlan(b *testing.B) {
	dir := b.TempDir()
	b.Setenv("XDG_STATE_HOME", b.TempDir())
	for b.Loop() {
		p, err := newPlan(cage.Spec{Command: []string{"true"}, Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		reg, err := p.guard()
		if err != nil {
			b.Fatal(err)
		}
		reg.release()
	}
}
