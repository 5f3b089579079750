package gateway

import (
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/contenttype"
	"github.com/agentcage/agentcage/internal/inspect/entropy"
)

// contents returns the inspectors of content that a config asks for, in the
// order in which they are asked.
func contents(c *config.Config) []inspect.ContentInspector {
	var out []inspect.ContentInspector
	if c.Entropy.Enabled {
		out = append(out, entropy.New(c.Entropy))
	}
	if c.ContentType.Enabled {
		out = append(out, contenttype.New(c.ContentType))
	}
	return out
}
