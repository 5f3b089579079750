// Command agentcage runs AI agents in a cage.
package main

import (
	"os"

	"github.com/agentcage/agentcage/internal/backend/process"
	"github.com/agentcage/agentcage/internal/cli"
	"github.com/agentcage/agentcage/internal/worker"
)

func main() {
	// The same binary is pid 1 of a cage: that has to come before
	// everything else, and never returns when it applies.
	process.MaybeInit()
	worker.MaybeMain() // and the process that starts inspectors, and theirs
	os.Exit(cli.Main())
}
