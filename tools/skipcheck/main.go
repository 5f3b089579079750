// Command skipcheck reads the output of `go test -json` and decides whether it
// may pass. A test that was skipped although this machine has what it asked
// for counts as a failure: a suite that quietly tests nothing is worse than a
// red one.
//
// A test that cannot run says what it lacks, in this form:
//
//	t.Skip("needs user namespaces: the kernel refuses unshare")
//
// The words between "needs " and the colon are looked up in the table of
// probes; a single word that is not in it is looked up as a program in PATH.
// A reason of any other form is refused, and so is one whose probe succeeds.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == probeChild {
		return // see userNamespaces
	}
	total := flag.String("total", "", "also write the closing line to `file`")
	flag.Parse()

	r := newReport(os.Stdout, machine{}.has)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintf(os.Stderr, "skipcheck: cannot read the test output: %v\n", err)
		os.Exit(2)
	}
	ok := r.close()
	line := r.summary()
	fmt.Println(line)
	if *total != "" {
		if err := os.WriteFile(*total, []byte(line+"\n"), 0o644); err != nil { //nolint:gosec // not a secret
			fmt.Fprintf(os.Stderr, "skipcheck: cannot write the total: %v\n", err)
			os.Exit(2)
		}
	}
	if !ok {
		os.Exit(1)
	}
}
