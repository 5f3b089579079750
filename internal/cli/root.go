// Package cli is the command line: one file for each command. What a command
// prints and returns is specified by the scripts in testdata.
package cli

import (
	"context"
	"os"

	"github.com/spf13/cobra"
)

// Version is set by the linker.
var Version = "dev"

// Main runs the command line and returns the exit code.
func Main() int {
	root := newRoot()
	err := root.ExecuteContext(context.Background())
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
		Args:          cobra.NoArgs,
	}
	root.SetVersionTemplate("agentcage, version {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &exitError{exitUsage, withHint(err, "see '"+c.CommandPath()+" --help'")}
	})
	root.AddCommand(newRun(), newDemo(), newCheck(), newProxy(), newDNS(), newTrust())
	return root
}
