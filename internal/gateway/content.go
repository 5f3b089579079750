package gateway

import (
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
)

// contents makes the inspectors of content that a config asks for, in the order
// in which they are asked. This version has none.
func contents(*config.Config) ([]inspect.ContentInspector, error) { return nil, nil }
