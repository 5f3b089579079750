package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/gateway"
)

func newCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a config file and say what it allows",
		Long: `Check reads a config file as every other command does and prints what is wrong
with it, all at once, or what it allows. Warnings do not change the exit code.

Exit codes: 0 the file is good, 2 it is not.`,
		Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := loadConfig(args[0])
			if err != nil {
				return err
			}
			warn(c, cfg)
			if err := gateway.Check(cfg); err != nil {
				return &exitError{exitUsage, err}
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: ok: cage %q, %s\n", args[0], cfg.Name, reach(cfg))
			return nil
		},
	}
}

// loadConfig reads a config; whatever is wrong with it is a usage error.
func loadConfig(file string) (*config.Config, error) {
	cfg, err := config.Load(file)
	if err == nil {
		err = gateway.CheckInspectors(cfg)
	}
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return cfg, nil
}

func warn(c *cobra.Command, cfg *config.Config) {
	for _, w := range cfg.Warnings() {
		fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", w)
	}
}

// reach says in half a sentence what the domains section allows.
func reach(cfg *config.Config) string {
	n := len(cfg.Domains.Entries) + len(cfg.Domains.Passthrough)
	switch {
	case n == 0:
		return "nothing is reachable"
	case cfg.Domains.Mode == config.Blocklist:
		return fmt.Sprintf("everything is reachable but what %d entries block", n)
	default:
		return entries(n) + " reachable"
	}
}

// exactArgs is cobra.ExactArgs with our exit code.
func exactArgs(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(c, args); err != nil {
			return &exitError{exitUsage, withHint(err, "usage: "+c.UseLine())}
		}
		return nil
	}
}

func entries(n int) string {
	if n == 1 {
		return "1 listed host is"
	}
	return fmt.Sprintf("%d listed hosts are", n)
}
