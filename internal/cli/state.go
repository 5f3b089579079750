package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
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
	top := filepath.Join(base, "agentcage")
	dir := filepath.Join(append([]string{top}, parts...)...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("cannot make the state directory: %w", err)
	}
	return dir, ownedBy(top, os.Geteuid())
}

// ownedBy refuses a state directory that somebody else can write to, as when
// root keeps a user's HOME: what is in it decides which configs are trusted and
// which placeholders are removed.
func ownedBy(dir string, uid int) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot look at the state directory: %w", err)
	}
	const hint = "set XDG_STATE_HOME to a directory of your own"
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != uid {
		return withHint(fmt.Errorf("cannot use the state directory %s: it belongs to another user", dir), hint)
	}
	if st.Mode().Perm()&0o022 != 0 {
		return withHint(fmt.Errorf("cannot use the state directory %s: other users can write to it", dir), "chmod go-w "+dir, hint)
	}
	return nil
}

// resolved is the real path of a file that need not exist yet.
func resolved(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(dir, filepath.Base(abs))
	}
	return abs
}

// inside tells whether path lies in one of the trees, by its name or by what
// the name leads to.
func inside(path string, trees []string) bool {
	abs, err := filepath.Abs(path)
	if err != nil {
		return true
	}
	for _, tree := range trees {
		for _, t := range []string{tree, resolved(tree)} {
			for _, p := range []string{abs, resolved(path)} {
				if rel, err := filepath.Rel(t, p); err == nil && filepath.IsLocal(rel) {
					return true
				}
			}
		}
	}
	return false
}
