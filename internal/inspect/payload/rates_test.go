package payload_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/contenttype"
	"github.com/agentcage/agentcage/internal/inspect/entropy"
	"github.com/agentcage/agentcage/internal/inspect/payload/payloadtest"
)

func findings(t testing.TB, c *inspect.Content) (out []string) {
	cfg := config.Default()
	chain := inspect.NewChain().WithContent(entropy.New(cfg.Entropy), contenttype.New(cfg.ContentType)).
		WithAdjust(func(_ *inspect.Request, f inspect.Finding) inspect.Finding {
			f.Mode = inspect.Observed
			return f
		})
	for _, f := range chain.DecideContent(context.Background(), c).Findings {
		out = append(out, f.Inspector+": "+f.Reason)
	}
	return out
}

// rounds is how many samples of each kind are made, with fixed seeds.
const rounds = 8

// TestRates holds what the two inspectors find of leaks, and what they find in
// honest content.
func TestRates(t *testing.T) {
	honest, alarms := 0, 0
	for _, s := range payloadtest.Honest() {
		wrong, example := 0, ""
		for seed := range uint64(rounds) {
			if f := findings(t, s.Make(payloadtest.New(seed))); len(f) > 0 {
				wrong++
				example = fmt.Sprintf("seed %d: %q", seed, f)
			}
		}
		honest, alarms = honest+rounds, alarms+wrong
		if wrong > 0 {
			t.Logf("false alarm in %d of %d: %s, %s", wrong, rounds, s.Name, example)
		}
	}
	leaks, missed := 0, 0
	for _, s := range payloadtest.Leaks() {
		wrong, example := 0, ""
		for seed := range uint64(rounds) {
			if len(findings(t, s.Make(payloadtest.New(seed)))) == 0 {
				wrong++
				example = fmt.Sprintf("seed %d", seed)
			}
		}
		leaks, missed = leaks+rounds, missed+wrong
		if wrong > 0 {
			t.Logf("missed %d of %d: %s, %s", wrong, rounds, s.Name, example)
		}
	}
	t.Logf("found %d of %d leaks, %d false alarms in %d honest samples", leaks-missed, leaks, alarms, honest)
	if missed*1000 > leaks {
		t.Errorf("missed %d of %d leaks", missed, leaks)
	}
	if alarms*1000 > honest {
		t.Errorf("%d false alarms in %d honest samples", alarms, honest)
	}
}
