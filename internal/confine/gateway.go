//go:build linux

package confine

import (
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// GatewayOptions say what the gateway's process still needs after its start.
// Listeners and files that are open stay usable. Paths that do not exist are
// skipped, which allows less. A rule is bound to the file that lies there now:
// name the directory of a file that is replaced by renaming, as editors do.
type GatewayOptions struct {
	Read  []string // beside systemFiles
	Write []string // audit, placeholders: read, written, made, renamed, removed

	Without []Layer // LayerLandlock or LayerSeccomp, where the kernel lacks it
	// DropCapabilities gives up root's powers over other users' files and
	// low ports; for a gateway started by root whose listeners are open.
	DropCapabilities bool
}

// systemFiles are what resolving names, verifying certificates and reading
// the clock need. All of /etc, because resolv.conf is replaced by renaming
// when the network changes, and all of the directories it may be a link to.
var systemFiles = []string{
	"/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager",
	"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/pki",
	"/usr/share/zoneinfo", "/usr/lib/ssl", "/var/lib/ca-certificates", "/proc/sys/net/core/somaxconn",
}

// systemDevices keep the terminal and the source of randomness.
var systemDevices = []string{"/dev/null", "/dev/urandom", "/dev/tty"}

// Gateway confines the calling process, the gateway, once it has started: it
// can no longer start a program, debug or mount anything, or touch a file that
// is not listed, and no other process of its user can read its memory. An ordinary user may call it, from any goroutine. It makes a
// hole in the gateway worth less; the cage does not rest on it.
func Gateway(o GatewayOptions) error {
	if o.DropCapabilities {
		if err := applyCapabilities(Options{}, nil); err != nil {
			return &LayerError{LayerCapabilities, err}
		}
	}
	if err := applyNoNewPrivs(Options{}, nil); err != nil {
		return &LayerError{LayerNoNewPrivs, err}
	}
	if err := hideMemory(); err != nil {
		return &LayerError{LayerSeccomp, err}
	}
	if !slices.Contains(o.Without, LayerLandlock) {
		abi, err := landlockABI()
		if err == nil && abi < 8 && !perProcess() {
			err = ErrCgo
		}
		if err == nil {
			err = restrict(abi, o.grants())
		}
		if err != nil {
			return &LayerError{LayerLandlock, err}
		}
	}
	if !slices.Contains(o.Without, LayerSeccomp) {
		if _, err := install(filter(program{gateway: true}), 0); err != nil {
			return &LayerError{LayerSeccomp, err}
		}
		if err := tryAll([]probe{{"execve", unix.SYS_EXECVE, [3]uintptr{bad, bad, bad}, unix.EPERM}}); err != nil {
			return &LayerError{LayerSeccomp, err}
		}
	}
	return nil
}

// hideMemory keeps the values of secrets from dumps of the process, and from
// other processes of its user: a debugger, and /proc/PID/mem and environ.
func hideMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot make the gateway unreadable: %w", err)
	}
	if err := syscall.Setrlimit(unix.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("cannot switch core dumps off: %w", err)
	}
	return nil
}

func (o GatewayOptions) grants() []grant {
	var g []grant
	for _, p := range append(slices.Clone(systemFiles), o.Read...) {
		g = append(g, grant{path: p, rights: rightsRead, optional: true})
	}
	for _, p := range o.Write {
		g = append(g, grant{path: p, rights: rightsWrite, optional: true})
	}
	for _, p := range systemDevices {
		g = append(g, grant{path: p, rights: rightsDevice, optional: true})
	}
	return g
}
