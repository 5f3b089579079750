package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is a run: for every contender and metric what each turn gave. The
// median of the turns counts.
type result struct {
	Time     time.Time
	Go       string
	CPUs     int
	Load     string // of the machine before the run (proc_loadavg(5))
	Settings settings
	Turns    map[string]map[string][]float64 // contender, metric
	Medians  map[string]map[string]float64
	Targets  []verdict
}

func newResult(s settings) *result {
	return &result{
		Time: time.Now(), Go: runtime.Version(), CPUs: runtime.NumCPU(), Load: loadAverage(), Settings: s,
		Turns: map[string]map[string][]float64{}, Medians: map[string]map[string]float64{},
	}
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

func (r *result) add(contender, metric string, value float64) {
	if r.Turns[contender] == nil {
		r.Turns[contender] = map[string][]float64{}
		r.Medians[contender] = map[string]float64{}
	}
	r.Turns[contender][metric] = append(r.Turns[contender][metric], value)
	r.Medians[contender][metric] = median(r.Turns[contender][metric])
}

// of returns the median, and whether there is one.
func (r *result) of(contender, metric string) (float64, bool) {
	v, ok := r.Medians[contender][metric]
	return v, ok
}

// columns are what the table shows, in this order.
var columns = []struct {
	metric, title string
	ratio         bool // shown with the ratio to goproxy
}{
	{getRate, "GET/s", true},
	{getLate, "p99 ms", false},
	{h2Rate, "h2 GET/s", false},
	{postRate, "POST 10 kB/s", true},
	{chatTime, "1 MiB JSON ms", false},
	{denseTime, "1 MiB dense ms", false},
	{plainMedian, "at 1,000/s ms", false},
	{pythonAdds, "+ Python ms", false},
	{wasmAdds, "+ WASM ms", false},
	{whenAdds, "+ when ms", false},
	{freshRate, "new conn/s", true},
	{bytesRate, "MB/s", true},
	{firstDelay, "1st event ms", false},
	{eventLate, "events p99 ms", false},
	{idleMem, "idle MB", false},
	{largeMem, "1 GB MB", false},
	{socketMem, "1k ws MB", false},
	{secretGets, "100 secrets: GET ×", false},
	{secretEvents, "100 secrets: 1st event + ms", false},
	{secretMem, "100 secrets: 1 GB MB", false},
	{redactText, "redact text MB/s", false},
	{redactGzip, "redact gzip MB/s", false},
	{startTime, "start ms", false},
}

var order = []string{direct, baseline, squid, mitmproxy, "bubblewrap", ours}

// rows are the cells of the table, the titles first.
func (r *result) rows() [][]string {
	head := []string{""}
	for _, c := range columns {
		head = append(head, c.title)
	}
	rows := [][]string{head}
	for _, name := range order {
		if r.Medians[name] == nil {
			continue
		}
		row := []string{name}
		for _, c := range columns {
			row = append(row, r.cell(name, c.metric, c.ratio))
		}
		rows = append(rows, row)
	}
	return rows
}

func (r *result) cell(name, metric string, ratio bool) string {
	v, ok := r.of(name, metric)
	if !ok {
		return "–"
	}
	text := figure(v)
	if base, ok := r.of(baseline, metric); ratio && ok && base > 0 && name != baseline && name != direct {
		text += fmt.Sprintf(" (%.2f×)", v/base)
	}
	return text
}

// figure writes three figures that mean something.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func (r *result) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range r.rows() {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // a Builder takes everything
	return b.String()
}

// verdict is one target of the project and what was measured.
type verdict struct {
	Target   string
	Measured string
	Met      bool
}

// judge compares with the targets. What was not measured is not met.
func (r *result) judge() []verdict {
	var all []verdict
	ratio := func(what, metric string, least float64) {
		v, ok := r.of(ours, metric)
		base, okBase := r.of(baseline, metric)
		all = append(all, r.verdict(fmt.Sprintf("%s: at least %.1f× goproxy", what, least), "%.2f×", v/base, ok && okBase, v/base >= least))
	}
	most := func(what, metric, unit string, limit float64) {
		v, ok := r.of(ours, metric)
		all = append(all, r.verdict(fmt.Sprintf("%s: at most %g %s", what, limit, unit), "%.1f "+unit, v, ok, v <= limit))
	}
	ratio("small GETs on 16 kept connections", getRate, 1)
	ratio("POST of 10 kB of JSON, all built-in inspectors on", postRate, 0.9)
	ratio("new connections", freshRate, 1.5)
	ratio("100 MB download", bytesRate, 1)

	beyond := func(what, metric string, limit float64) {
		v, ok := r.of(ours, metric)
		base, okBase := r.of(baseline, metric)
		all = append(all, r.verdict(fmt.Sprintf("%s: at most %g ms more than goproxy, which keeps and reads nothing", what, limit), "%+.1f ms", v-base, ok && okBase, v-base <= limit))
	}
	beyond("1 MiB of JSON decided", chatTime, 15)
	beyond("1 MiB that meets rules at every word decided", denseTime, 60)
	adds := func(what, metric string, limit float64) {
		v, ok := r.of(ours, metric)
		all = append(all, r.verdict(fmt.Sprintf("%s, 1,000 requests/s: adds at most %g ms at the median", what, limit), "%+.2f ms", v, ok, v <= limit))
	}
	adds("an inspector in Python", pythonAdds, 1)
	adds("an inspector in WebAssembly", wasmAdds, 0.1)

	v, ok := r.of(ours, firstDelay)
	base, okBase := r.of(direct, firstDelay)
	all = append(all, r.verdict("first event: at most 2 ms after the server's, above the direct way", "%.2f ms", v-base, ok && okBase, v-base <= 2))

	most("memory when idle", idleMem, "MB", 40)
	idle, okIdle := r.of(ours, idleMem)
	large, okLarge := r.of(ours, largeMem)
	all = append(all, r.verdict("memory during a 1 GB download: flat, at most 16 MB more than idle", "%+.1f MB", large-idle, okIdle && okLarge, large-idle <= 16))
	most("memory with 1,000 idle WebSockets", socketMem, "MB", 100)
	most("agentcage run -- true", startTime, "ms", 30)
	return append(all, r.judgeSecrets()...)
}

func (r *result) judgeSecrets() []verdict {
	var all []verdict
	one := func(what, metric, format string, met func(v float64) bool) {
		v, ok := r.of(ours, metric)
		all = append(all, r.verdict(what, format, v, ok, met(v)))
	}
	least := func(limit float64) func(float64) bool { return func(v float64) bool { return v >= limit } }
	one("small GETs with 100 secrets: at least 0.95× without", secretGets, "%.2f×", least(0.95))
	one("first event with 100 secrets: at most 1 ms more than without", secretEvents, "%+.2f ms", func(v float64) bool { return v <= 1 })
	one("redaction of plain text with 100 secrets: at least 300 MB/s on a core", redactText, "%.0f MB/s", least(300))
	one("redaction through gzip with 100 secrets: at least 100 MB/s on a core", redactGzip, "%.0f MB/s", least(100))
	idle, ok := r.of(ours, idleMem)
	one("memory during a 1 GB download with 100 secrets: flat, at most 24 MB more than idle without", secretMem, "%.1f MB", func(v float64) bool { return ok && v-idle <= 24 })
	return all
}

func (r *result) verdict(target, format string, value float64, measured, met bool) verdict {
	if !measured {
		return verdict{target, "not measured", false}
	}
	return verdict{target, fmt.Sprintf(format, value), met}
}

func (r *result) verdicts() string {
	r.Targets = r.judge()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, v := range r.Targets {
		fmt.Fprintf(w, "%s\t%s\t%s\n", yes(v.Met), v.Measured, v.Target)
	}
	_ = w.Flush() // a Builder takes everything
	return b.String()
}

func yes(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}

// Between these two lines the document belongs to -write.
const (
	markBegin = "<!-- bench: begin -->"
	markEnd   = "<!-- bench: end -->"
)

// writeMarkdown replaces what stands between the marks in file.
func (r *result) writeMarkdown(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), markBegin)
	_, after, ok2 := strings.Cut(rest, markEnd)
	if !ok || !ok2 {
		return errors.New("cannot write into " + file + ": it lacks the lines " + markBegin + " and " + markEnd)
	}
	return os.WriteFile(file, []byte(before+markBegin+"\n"+r.markdown()+markEnd+after), 0o644)
}

func (r *result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s, %s, %d cores, medians of %d turns. Load of the machine before: %s.\n\n",
		r.Time.UTC().Format(time.DateOnly), r.Go, r.CPUs, r.Settings.Rounds, r.Load)
	for i, row := range transpose(r.rows()) {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
	fmt.Fprint(&b, "\n| target | measured | |\n|---|---|---|\n")
	for _, v := range r.judge() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", v.Target, v.Measured, yes(v.Met))
	}
	return b.String()
}

// transpose turns the table, which is too wide for a page, on its side.
func transpose(rows [][]string) [][]string {
	turned := make([][]string, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			turned[i] = append(turned[i], cell)
		}
	}
	return slices.Clip(turned)
}
