package process

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/confine"
)

// confineSelf gives up all privileges of init, for good, and proves it. offer
// gets the listener for refused sockets, or nil.
func confineSelf(l launch, offer func(notify *os.File) error) error {
	o := confine.Options{
		ReadOnly:      existing(l.ReadOnly),
		ReadWrite:     l.ReadWrite,
		Devices:       l.Devices,
		List:          []string{"/"}, // the view's root, which holds only what was given
		Without:       l.Without,
		Processes:     l.Procs,
		OpenFiles:     l.Files,
		NotifySockets: true,
	}
	r, err := confine.Apply(o)
	if err != nil {
		return err
	}
	if err := offer(r.Notify); err != nil {
		return err
	}
	return confine.Verify(o)
}

// existing leaves out what was optional in the view, and is not there.
func existing(paths []string) []string {
	var out []string
	for _, p := range paths {
		if unix.Access(p, unix.F_OK) == nil {
			out = append(out, p)
		}
	}
	return out
}

// watchSockets reports the sockets that seccomp refuses.
func (p *Process) watchSockets(f *os.File) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = confine.ServeNotify(ctx, f, func(a confine.Attempt) {
			p.refused.add(audit.KindSocket, netip.AddrPort{}, socketDetail(a))
		})
	}()
	p.sockets = func() { cancel(); <-done }
}

// socketDetail names what was asked for in the terms of socket(2).
func socketDetail(a confine.Attempt) string {
	family, ok := map[int]string{
		unix.AF_INET: "AF_INET", unix.AF_INET6: "AF_INET6", unix.AF_PACKET: "AF_PACKET",
		unix.AF_VSOCK: "AF_VSOCK", unix.AF_NETLINK: "AF_NETLINK", unix.AF_UNIX: "AF_UNIX",
		unix.AF_ALG: "AF_ALG", unix.AF_BLUETOOTH: "AF_BLUETOOTH", unix.AF_XDP: "AF_XDP",
	}[a.Family]
	if !ok {
		family = fmt.Sprintf("family %d", a.Family)
	}
	kind, ok := map[int]string{
		unix.SOCK_STREAM: "SOCK_STREAM", unix.SOCK_DGRAM: "SOCK_DGRAM", unix.SOCK_RAW: "SOCK_RAW",
		unix.SOCK_SEQPACKET: "SOCK_SEQPACKET",
	}[a.Type]
	if !ok {
		kind = fmt.Sprintf("type %d", a.Type)
	}
	return fmt.Sprintf("socket(%s, %s, %d)", family, kind, a.Protocol)
}
