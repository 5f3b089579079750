//go:build linux

// Package confine takes from a process, and from everything it starts, what
// it does not need: capabilities, new privileges, files, system calls and
// resources. It is the second wall behind the namespaces of a cage, and the
// first round the gateway's own process. Each layer is asked for on its own,
// is an error when the kernel does not give it, and is verified by trying
// what it forbids.
//
// Landlock and capabilities belong to a thread, not to a process, and Go
// moves goroutines between threads. Apply therefore covers every thread, and
// Verify looks at every thread.
package confine

import (
	"fmt"
	"os"
	"slices"

	"github.com/agentcage/agentcage/internal/cage"
)

// Layer is short for the cage's type.
type Layer = cage.Layer

// The layers, in the order in which Apply puts them on.
const (
	LayerRlimits      Layer = "rlimits"
	LayerCapabilities Layer = "capabilities"
	LayerNoNewPrivs   Layer = "no-new-privs"
	LayerLandlock     Layer = "landlock"
	LayerSeccomp      Layer = "seccomp"
)

// Layers lists every layer, for flags and messages.
func Layers() []Layer {
	return []Layer{LayerRlimits, LayerCapabilities, LayerNoNewPrivs, LayerLandlock, LayerSeccomp}
}

// Options say what remains possible. The zero value allows no file at all.
// Paths are those that the process itself sees, so inside a cage they are the
// cage's. A path that does not exist is an error: a typo must not pass for a
// restriction. A path on a list covers everything below it.
type Options struct {
	ReadOnly  []string // files and directories that may be read and executed
	ReadWrite []string // may also be written, made, renamed and removed
	// Devices are device files, or directories of them such as /dev and
	// /dev/pts, that may be opened for reading and writing and be used
	// with ioctl(2); nothing can be made or removed there.
	Devices []string
	// List are directories whose names, and those of everything below them,
	// may be read, but no content. It is for the root of a view that shows
	// nothing but what was given: a program that lists / is no attack.
	List []string

	Without []Layer // layers that may be left out, because the user said so

	Processes int // RLIMIT_NPROC; 0 leaves it. Counted per user, within the user namespace
	OpenFiles int // RLIMIT_NOFILE; 0 leaves it

	// Single refuses further processes, where one limit on memory has to hold
	// for everything: threads remain, and so does exec.
	Single bool

	// NotifySockets asks for a listener that hears of refused sockets
	// (see ServeNotify). They are refused with or without it.
	NotifySockets bool
}

func (o Options) without(l Layer) bool { return slices.Contains(o.Without, l) }

// Result says what Apply did.
type Result struct {
	// Notify is the seccomp listener for refused sockets, nil when
	// Options.NotifySockets was not set, seccomp was left out, or the
	// process already has a listener. It is close-on-exec. Pass it to a
	// process outside of the cage and close it here at once: as long as
	// it is open and nobody answers, a refused socket(2) blocks.
	Notify *os.File
	// LandlockABI is the version of Landlock in force, 0 for none.
	LandlockABI int
}

// LayerError says that a layer cannot be had. It unwraps to the cause.
type LayerError struct {
	Layer Layer
	Err   error
}

func (e *LayerError) Error() string { return fmt.Sprintf("cannot apply %s: %v", e.Layer, e.Err) }
func (e *LayerError) Unwrap() error { return e.Err }

// Hint tells the user how to go on without the layer.
func (e *LayerError) Hint() string {
	return fmt.Sprintf("--without %s accepts a cage that lacks this layer", e.Layer)
}

// Apply confines the calling process for good. The caller is pid 1 of a cage:
// it has all capabilities in a user namespace of its own.
//
// The caller must have called runtime.LockOSThread, must start the agent's
// command from the same goroutine, and must never unlock it. That thread gets one thing
// more than the others: Landlock's scope for signals, so that the command
// cannot signal pid 1 while the other threads of pid 1 can still signal it.
// The kernel judges a signal by the receiver's main thread, so this has an
// effect only when the caller is on another (unix.Gettid() != unix.Getpid()):
// lock the main goroutine in an init function and call from a new one.
//
// On an error the process may be half confined and must not go on.
func Apply(o Options) (*Result, error) {
	r := &Result{}
	steps := []struct {
		layer Layer
		apply func(Options, *Result) error
	}{
		{LayerRlimits, applyRlimits},
		{LayerCapabilities, applyCapabilities},
		{LayerNoNewPrivs, applyNoNewPrivs},
		{LayerLandlock, applyLandlock},
		{LayerSeccomp, applySeccomp},
	}
	for _, s := range steps {
		if o.without(s.layer) {
			continue
		}
		if err := s.apply(o, r); err != nil {
			r.close()
			return nil, &LayerError{Layer: s.layer, Err: err}
		}
	}
	return r, nil
}

func (r *Result) close() {
	if r.Notify != nil {
		r.Notify.Close()
	}
}
