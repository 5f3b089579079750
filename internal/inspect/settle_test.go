package inspect

import (
	"context"
	"slices"
	"testing"
)

// counter is an inspector of content that reserves, and keeps what it was told.
type counter struct {
	told  *[]bool
	f     []Finding
	panic bool
}

func (counter) Name() string { return "counter" }

func (c counter) InspectContent(_ context.Context, content *Content) Result {
	content.Settle(func(sent bool) {
		*c.told = append(*c.told, sent)
		if c.panic {
			panic("secret text")
		}
	})
	return Done(c.f...)
}

// TestSettle is peer-holes E8: whoever reserves is told what became of it, once
// for each time it was asked, whoever decided.
func TestSettle(t *testing.T) {
	block := Finding{Reason: "no", Severity: Error}
	observe := func(_ *Request, f Finding) Finding { f.Mode = Observed; return f }
	for _, tt := range []struct {
		name  string
		chain func(told *[]bool) *Chain
		sent  bool
	}{
		{"allowed", func(told *[]bool) *Chain { return NewChain().WithContent(counter{told: told}) }, true},
		{"blocked by itself", func(told *[]bool) *Chain { return NewChain().WithContent(counter{told: told, f: []Finding{block}}) }, false},
		{"blocked by another", func(told *[]bool) *Chain {
			return NewChain().WithContent(counter{told: told}, counter{told: new([]bool), f: []Finding{block}})
		}, false},
		{"observed", func(told *[]bool) *Chain {
			return NewChain().WithContent(counter{told: told, f: []Finding{block}}).WithAdjust(observe)
		}, true},
	} {
		var told []bool
		v := tt.chain(&told).DecideContent(context.Background(), &Content{Request: &Request{}})
		if v.Allowed() != tt.sent || !slices.Equal(told, []bool{tt.sent}) {
			t.Errorf("%s: %+v, told %v", tt.name, v, told)
		}
	}
}

// TestSettlingThatFailsBlocks, and the others are told all the same.
func TestSettlingThatFailsBlocks(t *testing.T) {
	var told []bool
	c := NewChain().WithContent(counter{told: &told, panic: true}, counter{told: &told})
	content := &Content{Request: &Request{}}
	if v := c.DecideContent(context.Background(), content); v.Allowed() || v.Reason == "" || len(told) != 2 {
		t.Errorf("%+v, told %v", v, told)
	}
	if content.settle != nil {
		t.Error("it would be told twice")
	}
}
