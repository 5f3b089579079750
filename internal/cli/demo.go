package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/demo"
)

func newDemo() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "See what a cage lets through and what it stops, offline",
		Long: `Demo starts an API server and an attacker's server of its own on this machine,
runs a scripted agent in a cage that works honestly with the one and then tries
to get data to the other in every way it knows, and prints what happened, as
seen from outside of the cage. It needs no network and leaves nothing behind.

Exit codes: 0 when all honest work succeeded and every way out was stopped.`,
		Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error { return runDemo(c.Context(), c.OutOrStdout(), asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a step")
	c.AddCommand(&cobra.Command{
		Use:    "agent",
		Hidden: true,
		Args:   exactArgs(0),
		RunE:   func(c *cobra.Command, _ []string) error { return demo.Agent(c.OutOrStdout()) },
	})
	return c
}

func runDemo(ctx context.Context, out io.Writer, asJSON bool) (err error) {
	stage, err := demo.NewStage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	if err := stage.Control(ctx); err != nil {
		return fmt.Errorf("cannot trust the demo: %w", err)
	}
	steps, err := playDemo(ctx, stage)
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(out)
		for _, s := range steps {
			if err := enc.Encode(s); err != nil {
				return err
			}
		}
	} else if err := printDemo(out, steps); err != nil {
		return err
	}
	return demoVerdict(stage, steps)
}

// playDemo runs the scripted agent in a cage on the stage.
func playDemo(ctx context.Context, stage *demo.Stage) ([]demo.Step, error) {
	cfg, err := config.Parse("demo.yaml", stage.Config())
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find our own program: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer read.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	defer null.Close()
	steps := demo.Collect(read)
	spec := cage.Spec{
		Name: cfg.Name, Command: []string{exe, "demo", "agent"}, Dir: stage.Project, Env: stage.Env(),
		// The demo's home is not the user's, in which our program may lie.
		ReadOnly: []string{exe}, AllowSensitive: []string{exe}, Stdin: null, Stdout: write, Stderr: os.Stderr,
	}
	log, err := audit.Open(filepath.Join(stage.Dir, "audit.jsonl"), audit.Options{KeepAllowed: true})
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	defer log.Close()
	_, err = runCage(ctx, caged{cfg, &spec, audit.Multi(log, stage.Audit()), &vault{cage: spec.Name}, &redactor{}}, filepath.Dir(stage.Dir)) // the parent, from which the stage is removed
	err = errors.Join(err, write.Close())
	return stage.Judge(<-steps), err
}

func printDemo(out io.Writer, steps []demo.Step) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tTHE AGENT TRIES TO\tWHAT HAPPENED\tSTOPPED BY")
	for _, s := range steps {
		mark := "ok  "
		if !s.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", mark, s.Title, printable(clip(s.Outcome, 72)), s.Layer)
	}
	return w.Flush()
}

func clip(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) > n {
		return s[:n-1] + "…"
	}
	return s
}

// demoVerdict is the view from outside: what the attacker has, and whether
// every step went as it should.
func demoVerdict(stage *demo.Stage, steps []demo.Step) error {
	failed := 0
	for _, s := range steps {
		if !s.OK {
			failed++
		}
	}
	if got := stage.Stolen(); got != "" {
		return fmt.Errorf("the attacker received %q from the cage", clip(got, 200))
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d steps did not go as they should", failed, len(steps))
	}
	fmt.Fprintf(os.Stderr, "\nThe attacker's server received nothing. It was reachable from outside of the cage: the demo tried.\n")
	return nil
}
