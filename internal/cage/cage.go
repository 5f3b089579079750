// Package cage says what a cage is: an agent that runs with a file system it
// was given and a network in which the gateway's listeners are the only thing
// that answers. The isolation backends differ only in how they make the two.
package cage

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Spec is everything a backend needs to know to start a cage once. Paths are
// absolute and on the host.
type Spec struct {
	Name    string
	Command []string // program and arguments; the program is looked up in the cage's PATH
	Dir     string   // working directory, read-write at its own path
	Env     []string // K=V added to the minimal environment, last one wins

	ReadWrite      []string // further paths, at their own places
	ReadOnly       []string
	AllowSensitive []string // paths that hold credentials and may be mounted all the same
	Unguarded      []string // paths below Dir that are not protected although the host runs them later

	PersistentHome string // host directory that becomes $HOME; empty for one that vanishes

	Ports []uint16 // TCP ports on which every address reaches the gateway, 53 excluded
	CA    []byte   // PEM certificate that programs in the cage are to trust

	Limits  Limits
	Without []Layer // layers that may be missing, because the user said so

	Stdin, Stdout, Stderr *os.File
}

// Limits bound what a cage may use of the host. Zero means the default of the
// backend, which may be no limit where the host offers no means.
type Limits struct {
	MemoryBytes int64
	CPUs        float64
	Processes   int
	OpenFiles   int
}

// Layer names one means of confinement, for messages and for the flag that
// accepts going without it.
type Layer string

// Listeners are the gateway's ends of a cage's network. They work outside of
// the cage's namespaces; whoever gets them closes them.
type Listeners struct {
	// Proxy is the explicit HTTP proxy that HTTP_PROXY names.
	Proxy net.Listener
	// Transparent accepts connections to any address, on the ports of the
	// spec. LocalAddr of an accepted connection is the destination that
	// the agent chose.
	Transparent []net.Listener
	// DNS and DNSStream get queries to any address.
	DNS       []net.PacketConn
	DNSStream []net.Listener
	// Refused yields what the kernel refused, and is closed with the cage.
	// It is nil when this host does not let us see it.
	Refused <-chan Refusal
	// HostPaths are directories of the host in which the backend removes
	// something at the end, for a gateway that confines itself.
	HostPaths []string
}

// Refusal is an attempt to leave the cage that never reached the gateway.
type Refusal struct {
	Kind   string // an audit kind: audit.KindTCP, KindUDP, KindICMP or KindSocket
	Dest   netip.AddrPort
	Detail string // for a socket: which family and type was asked for
	Count  int    // how many like attempts this stands for
}

// Status is how the command ended: its exit code, or 128+N after signal N.
type Status struct {
	Code   int
	Signal syscall.Signal // 0 when it exited by itself
}

// Process is a started cage. Its methods are safe for concurrent use.
type Process interface {
	// Wait returns when the command has ended and everything that was
	// made for the cage is gone. Every call returns the same.
	Wait() (Status, error)
	// Signal passes a signal to the command.
	Signal(syscall.Signal) error
	// Kill ends everything in the cage at once.
	Kill() error
}

// Backend makes cages of one isolation.
type Backend interface {
	// Name is the word of the config's isolation key.
	Name() string
	// Start makes the cage, passes its listeners to attach, and starts
	// the command when attach has returned without an error: no agent
	// ever runs without its gateway. Cancelling ctx kills the cage. On
	// an error nothing is left behind.
	Start(ctx context.Context, spec Spec, attach func(Listeners) error) (Process, error)
}
