package inspect

import (
	"context"
	"net/http"
	"strings"
	"testing"
)

// fake is an inspector with a fixed answer that records its turn.
type fake struct {
	name  string
	f     Finding
	panic bool
	turns *[]string
}

func (f fake) Name() string { return f.name }

func (f fake) Inspect(context.Context, *Request) Finding {
	if f.turns != nil {
		*f.turns = append(*f.turns, f.name)
	}
	if f.panic {
		panic("secret text")
	}
	return f.f
}

// limited adds a body limit to fake.
type limited struct {
	fake
	limit      int64
	panicLimit bool
}

func (l limited) BodyLimit(*Request) int64 {
	if l.panicLimit {
		panic("secret text")
	}
	return l.limit
}

func pass(name string) fake { return fake{name: name, f: Pass()} }

// TestZeroValuesBlock is peer-holes B13 and rules 46: nothing that was left
// out lets a request go on.
func TestZeroValuesBlock(t *testing.T) {
	ctx, r := context.Background(), &Request{}
	if v := NewChain(pass("a")).Decide(ctx, r); !v.Allowed() || v.Decision != Allowed || v.BodyLimit != -1 {
		t.Fatalf("positive control: %+v", v)
	}
	if (Verdict{}).Allowed() || Decision(0) != Blocked || Decision(9).String() != "blocked" {
		t.Error("a zero or unknown value does not block")
	}
	var none *Chain
	chains := map[string]*Chain{
		"nil":                 none,
		"zero":                {},
		"empty":               NewChain(),
		"zero finding":        NewChain(pass("a"), fake{name: "b"}),
		"panic":               NewChain(pass("a"), fake{name: "b", panic: true}),
		"panic in body limit": NewChain(limited{fake: pass("a"), panicLimit: true}),
		"nil inspector":       NewChain(nil),
		"nil pointer":         NewChain((*fake)(nil)),
		"unknown action":      NewChain(fake{name: "b", f: Finding{Action: 77}}),
	}
	for name, c := range chains {
		v := c.Decide(ctx, r)
		if v.Allowed() || v.Reason == "" || v.Status != http.StatusForbidden || len(v.Findings) == 0 {
			t.Errorf("%s: %+v", name, v)
		}
		if strings.Contains(v.Reason, "secret text") {
			t.Errorf("%s: the reason shows what the panic said: %s", name, v.Reason)
		}
	}
}

func TestChainBlocksWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if v := NewChain(pass("a")).Decide(ctx, &Request{}); v.Allowed() {
		t.Errorf("a cancelled request passed: %+v", v)
	}
}

func TestChainOrder(t *testing.T) {
	var turns []string
	flag := func(n string) fake {
		return fake{name: n, f: Finding{Action: Flagged, Reason: "odd " + n, Severity: Warning}, turns: &turns}
	}
	block := fake{name: "c", f: Finding{Reason: "no", Status: 429, Severity: Error}, turns: &turns}
	last := fake{name: "d", f: Pass(), turns: &turns}

	v := NewChain(flag("a"), flag("b"), block, last).Decide(context.Background(), &Request{})
	if got := strings.Join(turns, ""); got != "abc" {
		t.Errorf("turns %s, want abc: the first block ends the chain", got)
	}
	if v.Decision != Blocked || v.Reason != "no" || v.Status != 429 || len(v.Findings) != 3 || v.Findings[2].Inspector != "c" {
		t.Errorf("blocked verdict: %+v", v)
	}

	v = NewChain(flag("a"), last, flag("b")).Decide(context.Background(), &Request{})
	if v.Decision != Flagged || v.Reason != "odd a; odd b" || len(v.Findings) != 2 || !v.Allowed() {
		t.Errorf("flagged verdict: %+v", v)
	}
}

func TestBodyLimitIsTheTightest(t *testing.T) {
	tests := []struct {
		limits []int64
		want   int64
	}{
		{nil, -1}, {[]int64{-1}, -1}, {[]int64{10}, 10}, {[]int64{-1, 10, -1}, 10}, {[]int64{20, 10, 30}, 10}, {[]int64{10, 0}, 0},
	}
	for _, tt := range tests {
		ins := []Inspector{pass("a")}
		for _, l := range tt.limits {
			ins = append(ins, limited{fake: pass("l"), limit: l})
		}
		if v := NewChain(ins...).Decide(context.Background(), &Request{}); v.BodyLimit != tt.want {
			t.Errorf("%v: limit %d, want %d", tt.limits, v.BodyLimit, tt.want)
		}
	}
}

// TestChainKeepsItsOwnList: a caller that changes its slice later must not
// change what is decided.
func TestChainKeepsItsOwnList(t *testing.T) {
	list := []Inspector{fake{name: "no", f: Finding{Reason: "no"}}}
	c := NewChain(list...)
	list[0] = pass("yes")
	if v := c.Decide(context.Background(), &Request{}); v.Allowed() {
		t.Error("the chain changed with the caller's slice")
	}
}

// contentFake is an inspector of content with a fixed answer.
type contentFake struct {
	name string
	res  Result
}

func (f contentFake) Name() string { return f.name }

func (f contentFake) InspectContent(context.Context, *Content) Result { return f.res }

// observing is an adjust that enforces nothing of some inspectors.
func observing(names string) func(*Request, Finding) Finding {
	return func(_ *Request, f Finding) Finding {
		if strings.Contains(names, f.Inspector) {
			f.Mode = Observed
		}
		return f
	}
}

// TestModes: a finding that is not enforced is kept, ends nothing, and makes no
// reason; and one that was never a finding is not made one.
func TestModes(t *testing.T) {
	block := func(n string) fake { return fake{name: n, f: Finding{Reason: "no " + n}} }
	flag := func(n string) fake { return fake{name: n, f: Finding{Action: Flagged, Reason: "odd " + n}} }
	for _, tt := range []struct {
		observed  string
		decision  Decision
		reason    string
		inspected string
	}{
		{"", Blocked, "no b", "b"},
		{"ab", Flagged, "odd c", "bc"},
		{"abc", Allowed, "", "bc"},
		{"c", Blocked, "no b", "b"},
	} {
		v := NewChain(pass("a"), block("b"), flag("c"), pass("d")).WithAdjust(observing(tt.observed)).Decide(context.Background(), &Request{})
		got := ""
		for _, f := range v.Findings {
			got += f.Inspector
		}
		if v.Decision != tt.decision || v.Reason != tt.reason || got != tt.inspected {
			t.Errorf("observed %q: %+v", tt.observed, v)
		}
	}
}

// TestModesOfContent is TestModes for inspectors of content: an exempt finding
// hides no other one of the same inspector.
func TestModesOfContent(t *testing.T) {
	both := contentFake{"s", Done(Finding{Rule: "one", Reason: "1"}, Finding{Rule: "two", Reason: "2"})}
	c := NewChain(pass("a")).WithContent(both).WithAdjust(func(_ *Request, f Finding) Finding {
		if f.Rule == "one" {
			f.Mode = Exempt
		}
		return f
	})
	v := c.DecideContent(context.Background(), &Content{Request: &Request{}})
	if v.Decision != Blocked || v.Reason != "2" || len(v.Findings) != 2 || v.Findings[0].Mode != Exempt {
		t.Errorf("%+v", v)
	}
	v = NewChain(pass("a")).WithContent(both, contentFake{name: "zero"}).WithAdjust(observing("s zero")).DecideContent(context.Background(), &Content{Request: &Request{}})
	if v.Decision != Allowed || len(v.Findings) != 3 || v.Reason != "" {
		t.Errorf("all observed: %+v", v)
	}
}

// TestTrace: it tells of everybody who was asked, in order, and of nobody else.
func TestTrace(t *testing.T) {
	var told []string
	c := NewChain(pass("a"), fake{name: "b", f: Finding{Action: Flagged, Reason: "odd"}}).
		WithContent(contentFake{"c", Done()}, contentFake{"d", Done(Finding{Reason: "one", Mode: Observed}, Finding{Reason: "two"}, Finding{Reason: "three"})}, contentFake{"e", Done()}).
		WithTrace(func(f Finding) { told = append(told, f.Inspector+" "+f.Action.String()+" "+f.Reason) })
	c.Decide(context.Background(), &Request{})
	c.DecideContent(context.Background(), &Content{Request: &Request{}})
	want := "a allowed ,b flagged odd,decode allowed ,c allowed ,d blocked one,d blocked two"
	if got := strings.Join(told, ","); got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}
