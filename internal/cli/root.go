// Package cli is the command line: one file for each command. What a command
// prints and returns is specified by the scripts in testdata.
package cli

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/spf13/cobra"
)

// Version is set by the linker.
var Version = "dev"

// Main runs the command line and returns the exit code.
func Main() int {
	// Only net/http's transport writes to it, and what it does is to quote
	// what a server sent, where a secret may be in it.
	log.SetOutput(io.Discard)
	root := newRoot()
	begun := usageErrors(root)
	err := root.ExecuteContext(context.Background())
	if err != nil && !*begun {
		err = &exitError{exitUsage, err}
	}
	return report(os.Stderr, err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "agentcage",
		Short: "Run AI agents in a cage whose only exit reads what leaves",
		Long: `agentcage runs any program in a cage. The program's only way out is a gateway
that terminates TLS, inspects every request and DNS query, and forwards or
refuses it. What is not allowed is refused, with the reason, in the audit log.

  agentcage run --allow api.example.com -- COMMAND    run COMMAND in a cage
  agentcage demo                                      see what a cage stops`,
		Version:       Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetVersionTemplate("agentcage, version {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &exitError{exitUsage, withHint(err, "see '"+c.CommandPath()+" --help'")}
	})
	root.AddCommand(newRun(), newDemo(), newCheck(), newPolicy(), newProxy(), newDNS(), newTrust(), newSecret())
	return root
}

// knownCommand refuses what is no command; cobra alone would print the help
// and call it a success.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see '" + c.CommandPath() + " --help'"
	if like := c.SuggestionsFor(args[0]); len(like) > 0 {
		hint = "did you mean '" + c.CommandPath() + " " + like[0] + "'?"
	}
	return &exitError{exitUsage, withHint(fmt.Errorf("unknown command %q", args[0]), hint)}
}

// usageErrors gives everything that cobra refuses before a command begins the
// exit code of a wrong flag.
func usageErrors(root *cobra.Command) (begun *bool) {
	begun = new(bool)
	markBegun(root, begun)
	return begun
}

func markBegun(c *cobra.Command, begun *bool) {
	for _, sub := range c.Commands() {
		markBegun(sub, begun)
	}
	run := c.RunE
	if run == nil {
		return
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		*begun = true
		return run(c, args)
	}
}
