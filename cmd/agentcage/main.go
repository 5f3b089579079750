// Command agentcage runs AI agents in a cage.
package main

import (
	"os"

	"github.com/agentcage/agentcage/internal/backend/process"
	"github.com/agentcage/agentcage/internal/cli"
)

func main() {
	// The same binary is pid 1 of a cage: that has to come before
	// everything else, and never returns when it applies.
	process.MaybeInit()
	os.Exit(cli.Main())
}
