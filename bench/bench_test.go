package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary stand in for the program, which starts itself
// again as the upstream and as goproxy.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && strings.HasPrefix(os.Args[1], "serve-") {
		main()
	}
	os.Exit(m.Run())
}

// tiny is a run that only shows that every scenario works.
var tiny = settings{Rounds: 1, Slice: 50 * time.Millisecond, Download: 1 << 20, Large: 1 << 20, Sockets: 10}

func TestEveryScenarioMeasuresGoproxy(t *testing.T) {
	dir := t.TempDir()
	lab, err := newLab(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.close()
	res := newResult(tiny)
	list := lab.contenders(filepath.Join(dir, "no-agentcage"), false, false)
	if err := measureMemory(t.Context(), lab, list, tiny, res); err != nil {
		t.Fatal(err)
	}
	if err := measureTraffic(t.Context(), lab, list, tiny, res); err != nil {
		t.Fatal(err)
	}
	for _, metric := range []string{getRate, postRate, freshRate, bytesRate, firstDelay, idleMem, largeMem, socketMem} {
		if v, ok := res.of(baseline, metric); !ok || v <= 0 {
			t.Errorf("%s is %v, %v", metric, v, ok)
		}
	}
	if _, ok := res.of(ours, getRate); ok {
		t.Error("a binary that is not there was measured")
	}
}

func TestJudge(t *testing.T) {
	res := newResult(tiny)
	for _, v := range res.judge() {
		if v.Met {
			t.Errorf("%q is met though nothing was measured", v.Target)
		}
	}
	// Four turns: the odd one out does not count.
	for _, v := range []float64{100, 100, 100, 9000} {
		res.add(baseline, getRate, v)
		res.add(ours, getRate, v*1.2)
	}
	got := res.judge()[0]
	if !got.Met || got.Measured != "1.20×" {
		t.Errorf("got %+v", got)
	}
	res.Medians[ours][getRate] = 99
	if got := res.judge()[0]; got.Met {
		t.Errorf("0.99 of goproxy counts as met: %+v", got)
	}
}

func TestPercentile(t *testing.T) {
	v := []float64{5, 1, 4, 2, 3}
	for p, want := range map[float64]float64{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := percentile(v, p); math.Abs(got-want) > 0 {
			t.Errorf("percentile %v is %v, want %v", p, got, want)
		}
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestWriteMarkdownKeepsTheRest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.md")
	if err := os.WriteFile(file, []byte("before\n"+markBegin+"\nold\n"+markEnd+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	res := newResult(tiny)
	res.add(baseline, getRate, 100)
	if err := res.writeMarkdown(file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := string(b)
	if !strings.HasPrefix(got, "before\n"+markBegin) || !strings.HasSuffix(got, markEnd+"\nafter\n") || strings.Contains(got, "old") {
		t.Errorf("got:\n%s", got)
	}
	if err := os.WriteFile(file, []byte("no marks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := res.writeMarkdown(file); err == nil {
		t.Error("a file without marks was written to")
	}
}
