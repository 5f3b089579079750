package cli

import (
	"fmt"
	"os"
	"path/filepath"
)

// stateDir returns a directory of agentcage's own below the user's state
// directory (XDG Base Directory Specification), made when missing and open to
// the user alone.
func stateDir(parts ...string) (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", withHint(fmt.Errorf("cannot find the state directory: %w", err), "set HOME or XDG_STATE_HOME")
		}
		base = filepath.Join(home, ".local", "state")
	}
	dir := filepath.Join(append([]string{base, "agentcage"}, parts...)...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("cannot make the state directory: %w", err)
	}
	return dir, nil
}

// writeAtomic replaces a file in one step: readers see the old content or the
// new, also after a crash.
func writeAtomic(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // created 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Sync(); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
