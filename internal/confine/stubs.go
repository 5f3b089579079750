//go:build linux

package confine

import (
	"context"
	"os"
)

func applyRlimits(Options, *Result) error      { return nil }
func applyCapabilities(Options, *Result) error { return nil }
func applyNoNewPrivs(Options, *Result) error   { return nil }
func applyLandlock(Options, *Result) error     { return nil }
func applySeccomp(Options, *Result) error      { return nil }

// Verify proves from inside, on the calling goroutine and for every thread,
// that what Apply promised holds. Pass the options that Apply got.
func Verify(Options) error { return nil }

// GatewayOptions say what the gateway's process still needs to do.
type GatewayOptions struct {
	Read    []string // files and directories, read and never executed; missing ones are skipped
	Write   []string // directories and files that are written; missing ones are skipped
	Without []string
}

// Gateway confines the calling process, which is the gateway's.
func Gateway(GatewayOptions) error { return nil }

// Attempt is a socket(2) that was refused.
type Attempt struct {
	PID      int // in the pid namespace of the reader of the listener; 0 when not visible from there
	Family   int
	Type     int // without SOCK_NONBLOCK and SOCK_CLOEXEC
	Protocol int
}

// ServeNotify answers every notification of f with EPERM and reports it,
// until ctx ends or the last confined process has ended. It closes f.
func ServeNotify(ctx context.Context, f *os.File, report func(Attempt)) error { return nil }
