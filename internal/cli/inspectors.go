package cli

import (
	"path/filepath"
	"slices"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect/external/python"
	"github.com/agentcage/agentcage/internal/worker"
)

// workers is what starts inspectors in Python, or nothing. The zero workers is
// nothing.
type workers struct{ spawner *worker.Spawner }

func startWorkers(without []cage.Layer, avoid []string) (workers, error) {
	s, err := worker.Start(worker.Options{Without: without, Avoid: avoid})
	return workers{s}, err
}

// runWorkers starts what the inspectors of a cage need, if they need anything.
// It must be called before the gateway confines itself.
func runWorkers(cfg *config.Config, spec *cage.Spec) (workers, error) {
	python := func(file string) bool { return filepath.Ext(file) == ".py" }
	if !slices.ContainsFunc(inspectorFiles(cfg), python) {
		return workers{}, nil
	}
	avoid := append([]string{spec.Dir}, spec.ReadWrite...)
	if spec.PersistentHome != "" {
		avoid = append(avoid, spec.PersistentHome)
	}
	return startWorkers(spec.Without, avoid)
}

// starter is nil when there is nothing, as an interface.
func (w workers) starter() python.Starter {
	if w.spawner == nil {
		return nil
	}
	return w.spawner
}

// Close ends them.
func (w workers) Close() error {
	if w.spawner == nil {
		return nil
	}
	return w.spawner.Close()
}

// inspectorFiles lists the files of a config's own inspectors.
func inspectorFiles(cfg *config.Config) []string {
	var files []string
	for _, i := range cfg.Inspectors {
		if i.Path != "" {
			files = append(files, i.Path)
		}
	}
	return files
}
