package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/agentcage/agentcage/internal/atomicfile"
)

// listFiles names the secrets that have a file in a directory.
func listFiles(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list secrets: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && ValidName(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func removeFile(path, cage, name string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return notFound(cage, name)
	}
	_ = os.Remove(filepath.Dir(path)) // only if it is empty
	return err
}

// readPrivate reads a file that belongs to this user and that nobody else can
// read or write.
func readPrivate(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not an ordinary file")
	case !ok || int(sys.Uid) != os.Geteuid():
		return nil, errors.New("it belongs to another user")
	case info.Mode().Perm()&0o077 != 0:
		return nil, &modeError{path}
	case info.Size() > most:
		return nil, errors.New("it is too long")
	}
	return io.ReadAll(io.LimitReader(f, most))
}

type modeError struct{ path string }

func (e *modeError) Error() string { return "other users can read it" }
func (e *modeError) Hint() string  { return "chmod 600 " + e.path }

// writeFile writes a file that is there whole or not at all, with mode 0600
// from its first byte on (rule 80).
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(path, data)
}
