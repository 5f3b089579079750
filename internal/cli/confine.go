package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/confine"
)

// confineGateway makes our own process less worth breaking into, once it has
// opened everything and started everybody: it can start no program any more,
// and touch only the paths that it still needs. The cage does not rest on it.
func confineGateway(without []cage.Layer, read, write []string) error {
	// crypto/x509 reads these when the first server is verified.
	read = append(read, directories(os.Getenv("SSL_CERT_FILE"))...)
	read = append(read, filepath.SplitList(os.Getenv("SSL_CERT_DIR"))...)
	o := confine.GatewayOptions{Read: read, Write: write, Without: without}
	err := confine.Gateway(o)
	if errors.Is(err, confine.ErrCgo) {
		// Only a binary that somebody built with cgo gets here; the ones
		// that make builds are static.
		fmt.Fprintln(os.Stderr, "warning: this binary was built with cgo, so the gateway itself is not confined by Landlock; build with CGO_ENABLED=0")
		o.Without = append(slices.Clone(without), confine.LayerLandlock)
		err = confine.Gateway(o)
	}
	if err != nil {
		return fmt.Errorf("cannot confine the gateway: %w", err)
	}
	return nil
}

// directories are the folders of files that are replaced by renaming.
func directories(files ...string) []string {
	var dirs []string
	for _, f := range files {
		if f != "" && f != "-" {
			dirs = append(dirs, filepath.Dir(f))
		}
	}
	return dirs
}
