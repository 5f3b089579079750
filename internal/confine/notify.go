//go:build linux

package confine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attempt is a socket(2) that was refused.
type Attempt struct {
	PID      int // in the pid namespace of the one who made the listener's reader; 0 when not visible from there
	Family   int
	Type     int // without SOCK_NONBLOCK and SOCK_CLOEXEC
	Protocol int
}

// Structures of linux/seccomp.h.
type (
	seccompData struct {
		nr   int32
		arch uint32
		ip   uint64
		args [6]uint64
	}
	notification struct {
		id    uint64
		pid   uint32
		flags uint32
		data  seccompData
	}
	response struct {
		id    uint64
		val   int64
		err   int32
		flags uint32
	}
)

// probeProtocol marks the sockets that Verify asks for, so that they are not
// told as attempts of the agent. Only the first few are left out: Verify ends
// before the agent starts, and an agent cannot hide behind the mark.
const probeProtocol = 0x6361 // no such protocol

// ServeNotify answers every notification of f with EPERM and then reports it,
// until ctx ends or the last confined process has ended, which is no error.
// It closes f. It decides by the number of the call alone, reads no memory of
// the agent, and never lets a call continue, so nothing that the agent changes
// meanwhile matters. report is called from this goroutine; the agent is not
// kept waiting for it, but its next attempt is.
func ServeNotify(ctx context.Context, f *os.File, report func(Attempt)) error {
	defer f.Close()
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("cannot serve refused sockets: %w", err)
	}
	defer unix.Close(wake)
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // only a full counter refuses it, and it starts at 0
	})
	defer func() {
		if !stop() {
			<-woken // it must not write to a descriptor that is somebody else's by then
		}
	}()
	fd := int(f.Fd())
	for probes := len(socketProbes); ; {
		more, err := waitNotify(fd, wake)
		if err != nil || !more {
			return err
		}
		n, err := refuse(fd)
		if err != nil {
			return err
		}
		switch {
		case n == nil:
		case n.Protocol == probeProtocol && probes > 0:
			probes--
		default:
			report(*n)
		}
	}
}

// waitNotify returns false when there will be no more, or wake was written.
func waitNotify(fd, wake int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("cannot wait for refused sockets: %w", err)
		}
		return fds[0].Revents&unix.POLLIN != 0 && fds[1].Revents == 0, nil
	}
}

// refuse takes one notification and answers it. It returns nil when the one
// who asked is gone.
func refuse(fd int) (*Attempt, error) {
	var n notification // must be zero for the kernel
	err := notifyIoctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read a refused socket: %w", err)
	}
	answer := response{id: n.id, err: -int32(unix.EPERM)}
	err = notifyIoctl(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&answer))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("cannot answer a refused socket: %w", err)
	}
	return &Attempt{
		PID:      int(n.pid),
		Family:   int(int32(n.data.args[0])),
		Type:     int(int32(n.data.args[1])) &^ (unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC),
		Protocol: int(int32(n.data.args[2])),
	}, nil
}

func notifyIoctl(fd int, request uintptr, p unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(p))
	if errno != 0 {
		return errno
	}
	return nil
}
