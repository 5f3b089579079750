package gateway

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/corpus"
)

var updateFigures = flag.Bool("update", false, "write the figures of the corpus instead of comparing them")

const (
	corpusDir   = "../inspect/testdata/corpus"
	figuresFile = corpusDir + "/figures.txt"
)

// corpusConfig reaches every host, so that what is decided is the content.
const corpusConfig = `name: corpus
domains: {block: [blocked.example]}
rate_limit: {requests_per_second: 0}
max_request_body: 0
secrets:
  extra_patterns: [{name: corpus, env: AGENTCAGE_CORPUS_VALUE}]
entropy: {enabled: true}
content_type: {enabled: true}
`

// corpusPolicy builds a policy as New does, with everything that is built in.
func corpusPolicy(t testing.TB) *policy {
	t.Helper()
	c, err := config.Parse("cage.yaml", []byte(corpusConfig))
	if err != nil {
		t.Fatal(err)
	}
	st := new(state)
	if err := st.hold(c, os.LookupEnv); err != nil {
		t.Fatal(err)
	}
	p, err := newPolicy(c, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// judged is what became of a case.
type judged struct {
	corpus.Case
	decision inspect.Decision
	found    []inspect.Finding
}

// judge sends a case through the chain as the engine does: the head, then its
// content, step by step. The strictest decision counts.
func judge(p *policy, c corpus.Case) judged {
	j := judged{Case: c, decision: inspect.Allowed}
	take := func(v inspect.Verdict) {
		j.decision = min(j.decision, v.Decision)
		j.found = append(j.found, v.Findings...)
	}
	for _, s := range c.Steps {
		take(p.chain.Decide(context.Background(), s.Request))
		for _, content := range s.Contents {
			take(p.chain.DecideContent(context.Background(), content))
		}
	}
	return j
}

func (j judged) String() string {
	var by []string
	for _, f := range j.found {
		by = append(by, fmt.Sprintf("%s %s %s: %s", f.Inspector, f.Action, f.Rule, f.Reason))
	}
	return fmt.Sprintf("%s %s/%s, %s [%s]", j.At, j.Category, j.Name, j.decision, strings.Join(by, "; "))
}

// figures are the sums of one side of the corpus.
type figures struct{ cases, wrong int }

// TestCorpus measures all built-in inspectors together. A leak has to be
// blocked or flagged, and an honest request is a false alarm when it is not
// allowed. It fails below the figures that the project promises, and when a
// figure is worse than the one on record.
func TestCorpus(t *testing.T) {
	t.Setenv("AGENTCAGE_CORPUS_VALUE", corpus.Known)
	cases, err := corpus.Load(os.DirFS(corpusDir))
	if err != nil {
		t.Fatal(err)
	}
	leaks, honest := map[string]*figures{}, map[string]*figures{}
	by := map[string]int{}
	var p *policy
	category := ""
	for _, c := range cases {
		if c.Category != category || c.Category == "known" {
			// What one case left in windows and buckets is not the
			// next one's.
			p, category = corpusPolicy(t), c.Category
		}
		j := judge(p, c)
		sums, wrong := honest, j.decision != inspect.Allowed
		if c.Leak {
			sums, wrong = leaks, j.decision == inspect.Allowed
			by[verdictBy(j)]++
		}
		if sums[c.Category] == nil {
			sums[c.Category] = &figures{}
		}
		sums[c.Category].cases++
		if wrong {
			sums[c.Category].wrong++
			t.Log(j)
		}
	}
	var table strings.Builder
	missed := tabulate(&table, "leaks", "missed", leaks)
	alarms := tabulate(&table, "honest", "false alarms", honest)
	t.Logf("\n%sleaks found by %v", table.String(), by)
	if 100*missed.wrong > missed.cases {
		t.Errorf("%d of %d leaks are missed; 1 %% may be", missed.wrong, missed.cases)
	}
	if 200*alarms.wrong > alarms.cases {
		t.Errorf("%d of %d honest requests are refused; 0.5 %% may be", alarms.wrong, alarms.cases)
	}
	compareFigures(t, missed, alarms)
}

// verdictBy names who found a leak first, the one that was expected to if it
// did.
func verdictBy(j judged) string {
	if len(j.found) == 0 {
		return "nobody"
	}
	for _, f := range j.found {
		if len(j.Expect) > 0 && f.Inspector == j.Expect[0] {
			return f.Inspector
		}
	}
	return j.found[0].Inspector + ", in place of " + j.Expect[0]
}

func tabulate(b *strings.Builder, title, wrong string, sums map[string]*figures) figures {
	var all figures
	fmt.Fprintf(b, "%-12s %6s %12s\n", title, "cases", wrong)
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(b, "  %-10s %6d %12d\n", name, sums[name].cases, sums[name].wrong)
		all.cases += sums[name].cases
		all.wrong += sums[name].wrong
	}
	fmt.Fprintf(b, "  %-10s %6d %12d  %.2f %%\n", "all", all.cases, all.wrong, 100*float64(all.wrong)/float64(all.cases))
	return all
}

// compareFigures fails when a share is larger than the one on record.
func compareFigures(t *testing.T, missed, alarms figures) {
	t.Helper()
	const form = "missed %d of %d leaks\nrefused %d of %d honest requests\n"
	if *updateFigures {
		if err := os.WriteFile(figuresFile, fmt.Appendf(nil, form, missed.wrong, missed.cases, alarms.wrong, alarms.cases), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	data, err := os.ReadFile(figuresFile)
	if err != nil {
		t.Fatalf("%v; run go test -run TestCorpus -update", err)
	}
	var wasMissed, wasAlarms figures
	if _, err := fmt.Sscanf(string(data), form, &wasMissed.wrong, &wasMissed.cases, &wasAlarms.wrong, &wasAlarms.cases); err != nil {
		t.Fatalf("%s: %v", figuresFile, err)
	}
	if worse(missed, wasMissed) {
		t.Errorf("%d of %d leaks are missed, and %d of %d were", missed.wrong, missed.cases, wasMissed.wrong, wasMissed.cases)
	}
	if worse(alarms, wasAlarms) {
		t.Errorf("%d of %d honest requests are refused, and %d of %d were", alarms.wrong, alarms.cases, wasAlarms.wrong, wasAlarms.cases)
	}
}

func worse(is, was figures) bool { return is.wrong*was.cases > was.wrong*is.cases }

// TestCorpusFigures holds that the comparison can fail at all.
func TestCorpusFigures(t *testing.T) {
	for _, tt := range []struct {
		is, was figures
		want    bool
	}{
		{figures{400, 2}, figures{400, 2}, false},
		{figures{400, 3}, figures{400, 2}, true},
		{figures{800, 4}, figures{400, 2}, false},
		{figures{400, 0}, figures{400, 2}, false},
	} {
		if got := worse(tt.is, tt.was); got != tt.want {
			t.Errorf("%v after %v: %v", tt.is, tt.was, got)
		}
	}
}
