//go:build linux

package process

import (
	"testing"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/cage/cagetest"
)

// TestConformance runs the suite that every isolation backend passes.
func TestConformance(t *testing.T) {
	needNamespaces(t)
	cagetest.Run(t, func(*testing.T) cage.Backend { return Backend{} })
}
