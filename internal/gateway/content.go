package gateway

import (
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/secrets"
)

// contents makes the inspectors of content that a config asks for, in the order
// in which they are asked.
func contents(c *config.Config) ([]inspect.ContentInspector, error) {
	var out []inspect.ContentInspector
	if c.Secrets.Enabled {
		in, err := secrets.New(c.Secrets)
		if err != nil {
			return nil, err
		}
		out = append(out, in)
	}
	return out, nil
}
