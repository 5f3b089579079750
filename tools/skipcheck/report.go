package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build event
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// report collects the events of a whole run.
type report struct {
	out io.Writer
	has func(need string) (present, known bool)

	output  map[string][]string // of the tests that still run
	passed  int
	failed  int
	skipped int
	refused []string // skips that this machine has no excuse for
	open    map[string]bool
}

func newReport(out io.Writer, has func(string) (bool, bool)) *report {
	return &report{out: out, has: has, output: map[string][]string{}, open: map[string]bool{}}
}

// read consumes events until the end of r. A line that is no event, such as a
// message of the go command itself, is passed on and counts as a failure only
// when the event stream says so.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(r.out, "%s", line)
			} else {
				r.add(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "start":
		r.open[e.Package] = true
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "pass", "fail", "skip":
		r.finish(key, e)
		delete(r.output, key)
		if e.Test == "" {
			delete(r.open, e.Package)
		}
	}
}

func (r *report) finish(key string, e event) {
	if e.Test == "" {
		r.finishPackage(key, e)
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.print(key)
	case "skip":
		r.skipped++
		r.judge(key, strings.Join(r.output[key], ""))
	}
}

func (r *report) finishPackage(key string, e event) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.out, "ok  \t%s\t%.3fs\n", e.Package, e.Elapsed)
	case "skip":
		fmt.Fprintf(r.out, "?   \t%s\t[no test files]\n", e.Package)
	case "fail":
		// A package can fail without a failed test: it did not build, it
		// crashed, TestMain said no.
		r.failed++
		r.print(key)
		fmt.Fprintf(r.out, "FAIL\t%s\t%.3fs\n", e.Package, e.Elapsed)
	}
}

func (r *report) print(key string) {
	for _, line := range r.output[key] {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprint(r.out, line)
		}
	}
}

// needs finds the reason in what t.Skip printed: "    file_test.go:12: needs X: why".
var needs = regexp.MustCompile(`(?m)^\s*[\w.-]+\.go:\d+: needs (?:an? |the )?([^:;,(\n]+)`)

// judge decides whether a skip is excused.
func (r *report) judge(key, output string) {
	m := needs.FindStringSubmatch(output)
	if m == nil {
		r.refuse(key, `its reason does not have the form "needs X: why"`, output)
		return
	}
	need := strings.TrimSpace(m[1])
	present, known := r.has(need)
	switch {
	case !known:
		r.refuse(key, fmt.Sprintf("skipcheck has no probe for %q", need), output)
	case present:
		r.refuse(key, fmt.Sprintf("this machine has %s", need), output)
	default:
		fmt.Fprintf(r.out, "skip\t%s: needs %s\n", key, need)
	}
}

func (r *report) refuse(key, why, output string) {
	r.refused = append(r.refused, key+": "+why)
	fmt.Fprintf(r.out, "SKIPPED WITHOUT EXCUSE\t%s: %s\n%s", key, why, output)
}

// close counts what never ended and reports whether the run may pass.
func (r *report) close() bool {
	for pkg := range r.open {
		r.failed++
		fmt.Fprintf(r.out, "FAIL\t%s\t(ended without a verdict)\n", pkg)
		for key := range r.output {
			if strings.HasPrefix(key, pkg+" ") {
				r.print(key)
			}
		}
	}
	for _, why := range r.refused {
		fmt.Fprintf(r.out, "skipped without excuse: %s\n", why)
	}
	return r.failed == 0 && len(r.refused) == 0 && r.passed > 0
}

// summary is the closing line. A refused skip counts as failed.
func (r *report) summary() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", r.passed, r.failed+len(r.refused), r.skipped-len(r.refused))
}
