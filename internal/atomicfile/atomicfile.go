// Package atomicfile replaces files in one step.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
)

// Write replaces a file: readers see the old content or the new, also after a
// crash. It has mode 0600 from its first byte on (rule 80). Its directory must
// exist.
func Write(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(data); err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
