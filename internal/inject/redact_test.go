package inject

import "testing"

func testRedactor(pairs ...string) *Redactor {
	var ns []needle
	set := &redactions{}
	for i := 0; i < len(pairs); i += 2 {
		ns = append(ns, needles(i/2, []byte(pairs[i]), []byte(pairs[i+1]))...)
		set.names = append(set.names, pairs[i+1])
	}
	set.m, set.levels, set.escapes = newMatcher(ns), levels, allEscapes
	r := &Redactor{}
	r.set.Store(set)
	return r
}

func TestSmoke(t *testing.T) {
	r := testRedactor("s3cr3t/va+lue", "{{A}}")
	for _, s := range []string{"x s3cr3t/va+lue y", `"s3cr3t\/va+lue"`, "s3cr3t%2fva%2Blue", "%73%33cr3t/va lue", "AczNjcjN0L3ZhK2x1ZQ==", "eHMzY3IzdC92YStsdWU=", "7333637233742f76612b6c7565"} {
		t.Logf("%q", r.String(s))
	}
}
