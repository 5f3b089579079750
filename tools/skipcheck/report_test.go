package main

import (
	"io"
	"strings"
	"testing"
)

// machineWith is a machine that has only the named things and knows "root".
func machineWith(things ...string) func(string) (bool, bool) {
	return func(need string) (bool, bool) {
		for _, t := range things {
			if t == need {
				return true, true
			}
		}
		return false, need == "root" || need == "java"
	}
}

const (
	started  = `{"Action":"start","Package":"p"}` + "\n"
	onePass  = `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"
	pkgPass  = `{"Action":"pass","Package":"p"}` + "\n"
	skipRoot = `{"Action":"output","Package":"p","Test":"TestB","Output":"    a_test.go:7: needs root: chroot\n"}` + "\n" +
		`{"Action":"skip","Package":"p","Test":"TestB"}` + "\n"
	skipJava = `{"Action":"output","Package":"p","Test":"TestB","Output":"    a_test.go:7: needs java\n"}` + "\n" +
		`{"Action":"skip","Package":"p","Test":"TestB"}` + "\n"
	skipVague = `{"Action":"output","Package":"p","Test":"TestB","Output":"    a_test.go:7: flaky\n"}` + "\n" +
		`{"Action":"skip","Package":"p","Test":"TestB"}` + "\n"
	skipUnknown = `{"Action":"output","Package":"p","Test":"TestB","Output":"    a_test.go:7: needs good luck: today\n"}` + "\n" +
		`{"Action":"skip","Package":"p","Test":"TestB"}` + "\n"
)

func TestReport(t *testing.T) {
	tests := []struct {
		name, in string
		has      []string
		ok       bool
		summary  string
	}{
		{"all passed", started + onePass + pkgPass, nil, true, "1 passed, 0 failed, 0 skipped"},
		{"skip with an excuse", started + onePass + skipRoot + pkgPass, nil, true, "1 passed, 0 failed, 1 skipped"},
		{"skip although the machine has it", started + onePass + skipRoot + pkgPass, []string{"root"}, false, "1 passed, 1 failed, 0 skipped"},
		{"reason without a why", started + onePass + skipJava + pkgPass, nil, true, "1 passed, 0 failed, 1 skipped"},
		{"vague reason", started + onePass + skipVague + pkgPass, nil, false, "1 passed, 1 failed, 0 skipped"},
		{"unknown need", started + onePass + skipUnknown + pkgPass, nil, false, "1 passed, 1 failed, 0 skipped"},
		{"nothing ran", "", nil, false, "0 passed, 0 failed, 0 skipped"},
		{"only skips", started + skipRoot + pkgPass, nil, false, "0 passed, 0 failed, 1 skipped"},
		{"package failed to build", onePass + `{"Action":"fail","Package":"p"}` + "\n", nil, false, "1 passed, 1 failed, 0 skipped"},
		{"cut off", started + onePass, nil, false, "1 passed, 1 failed, 0 skipped"},
		{"noise is passed over", "go: downloading\n" + started + onePass + pkgPass, nil, true, "1 passed, 0 failed, 0 skipped"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newReport(io.Discard, machineWith(tt.has...))
			if err := r.read(strings.NewReader(tt.in)); err != nil {
				t.Fatal(err)
			}
			if ok := r.close(); ok != tt.ok {
				t.Errorf("may pass: %v, want %v", ok, tt.ok)
			}
			if got := r.summary(); got != tt.summary {
				t.Errorf("summary %q, want %q", got, tt.summary)
			}
		})
	}
}

func TestHas(t *testing.T) {
	tests := []struct {
		need           string
		present, known bool
	}{
		{"go", true, true},
		{"go program", true, true},
		{"no-such-program-anywhere", false, true},
		{"some dark magic", false, false},
		{"", false, false},
	}
	for _, tt := range tests {
		if present, known := (machine{}).has(tt.need); present != tt.present || known != tt.known {
			t.Errorf("has(%q) = %v, %v, want %v, %v", tt.need, present, known, tt.present, tt.known)
		}
	}
}
