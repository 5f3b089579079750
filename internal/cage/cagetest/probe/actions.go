//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

var actions map[string]func(wire.Ask) wire.Reply

func init() {
	actions = map[string]func(wire.Ask) wire.Reply{
		"http":      httpRequest, // Via, URL, Method, Host, SNI, Addr, H1, Data
		"websocket": websocket,   // Addr, SNI, Data: handshake and one frame
		"raw":       rawExchange, // Network, Addr, SNI (TLS when not empty), Data; reads until the end
		"dial":      dial,        // Network, Addr
		"udp":       udp,         // Addr, Data; waits for an answer or an error
		"dns":       query,       // Network, Addr, Name, Type
		"look":      look,        // Name: as programs of the cage resolve

		"socket":   socket,   // Nums: family, type, protocol
		"vsock":    vsock,    // Nums: CID, port
		"setlink":  setLink,  // tries to take lo down
		"addroute": addRoute, // tries to add a route by netlink
		"dump":     dumpLinks,
		"bind":     bind, // Addr: listens there
		"syscall":  call, // Nums: number, arguments
		"int80":    i386, // Nums: i386 number, arguments
		"unshare":  unshare,
		"ptrace":   ptrace, // Nums: pid
		"kill":     kill,   // Nums: pid, signal
		"tiocsti":  tiocsti,
		"pidfd":    pidfd, // Nums: pid, descriptor

		"read":     func(a wire.Ask) wire.Reply { b, err := os.ReadFile(a.Path); return data(clip(b), err) },
		"write":    func(a wire.Ask) wire.Reply { return failed(os.WriteFile(a.Path, a.Data, 0o755)) },
		"mkdir":    func(a wire.Ask) wire.Reply { return failed(os.MkdirAll(a.Path, 0o755)) },
		"rename":   func(a wire.Ask) wire.Reply { return failed(os.Rename(a.Path, a.To)) },
		"link":     func(a wire.Ask) wire.Reply { return failed(os.Link(a.Path, a.To)) },
		"symlink":  func(a wire.Ask) wire.Reply { return failed(os.Symlink(a.To, a.Path)) },
		"remove":   func(a wire.Ask) wire.Reply { return failed(os.RemoveAll(a.Path)) },
		"chmod":    func(a wire.Ask) wire.Reply { return failed(os.Chmod(a.Path, os.FileMode(a.Nums[0]))) },
		"truncate": func(a wire.Ask) wire.Reply { return failed(os.Truncate(a.Path, 0)) },
		"stat":     func(a wire.Ask) wire.Reply { _, err := os.Lstat(a.Path); return failed(err) },
		"holds":    holds,  // Path, Data: the file has that text
		"vmread":   vmread, // Nums: pid
		"list":     list,   // Path
		"find":     find,   // Path: every path below
		"mount":    mount,  // Path, To: a bind mount
		"umount":   umount, // Path
		"mknod":    mknod,  // Path, Nums: major, minor
		"readlink": func(a wire.Ask) wire.Reply { s, err := os.Readlink(a.Path); return data([]byte(s), err) },
		"openrw":   openRW, // Path: opens for writing, writes nothing

		"env": func(wire.Ask) wire.Reply { return wire.Reply{List: os.Environ()} },
		"fds": fds,
		"ids": func(wire.Ask) wire.Reply {
			return wire.Reply{List: []string{fmt.Sprint(os.Getuid()), fmt.Sprint(os.Getgid()), fmt.Sprint(os.Geteuid())}}
		},
		"exec": run, // Argv
		"cwd":  func(wire.Ask) wire.Reply { d, err := os.Getwd(); return data([]byte(d), err) },
		"host": func(wire.Ask) wire.Reply { h, err := os.Hostname(); return data([]byte(h), err) },
		"pid":  func(wire.Ask) wire.Reply { return wire.Reply{Num: os.Getpid()} },
	}
}

// limit of what a reply carries.
const limit = 1 << 16

func clip(b []byte) []byte { return b[:min(len(b), limit)] }

func failed(err error) wire.Reply {
	if err == nil {
		return wire.Reply{}
	}
	r := wire.Reply{Err: err.Error()}
	var no syscall.Errno
	if errors.As(err, &no) {
		r.Errno = unix.ErrnoName(no)
	}
	return r
}

func data(b []byte, err error) wire.Reply {
	r := failed(err)
	r.Data = b
	return r
}

func errno(no syscall.Errno) wire.Reply {
	if no == 0 {
		return wire.Reply{}
	}
	return failed(no)
}

func arg(a wire.Ask, i int) uintptr {
	if i < len(a.Nums) {
		return uintptr(a.Nums[i])
	}
	return 0
}

func socket(a wire.Ask) wire.Reply {
	fd, err := unix.Socket(a.Nums[0], a.Nums[1], a.Nums[2])
	if err != nil {
		return failed(err)
	}
	defer unix.Close(fd)
	return wire.Reply{Num: fd}
}

func vsock(a wire.Ask) wire.Reply {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(fd)
	return failed(unix.Connect(fd, &unix.SockaddrVM{CID: uint32(a.Nums[0]), Port: uint32(a.Nums[1])}))
}

func setLink(wire.Ask) wire.Reply {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return failed(err)
	}
	ifr.SetUint16(0)
	return failed(unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr))
}

// netlink sends one rtnetlink request and returns the kernel's answer.
func netlink(kind, flags uint16, body []byte) wire.Reply {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(fd)
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, 1)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, body...)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return failed(err)
	}
	buf := make([]byte, 32<<10)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return failed(err)
	}
	if n >= 20 && binary.NativeEndian.Uint16(buf[4:]) == unix.NLMSG_ERROR {
		if no := int32(binary.NativeEndian.Uint32(buf[16:])); no != 0 {
			return errno(syscall.Errno(-no))
		}
	}
	return wire.Reply{Num: n}
}

func addRoute(wire.Ask) wire.Reply {
	// A route of type unicast to everything, by lo.
	body := []byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	body = binary.NativeEndian.AppendUint16(body, 8)
	body = binary.NativeEndian.AppendUint16(body, unix.RTA_OIF)
	body = binary.NativeEndian.AppendUint32(body, 1)
	return netlink(unix.RTM_NEWROUTE, unix.NLM_F_ACK|unix.NLM_F_CREATE, body)
}

func dumpLinks(wire.Ask) wire.Reply {
	return netlink(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, 16))
}

func call(a wire.Ask) wire.Reply {
	runtime.LockOSThread()
	n, _, no := unix.Syscall6(arg(a, 0), arg(a, 1), arg(a, 2), arg(a, 3), arg(a, 4), arg(a, 5), arg(a, 6))
	r := errno(no)
	r.Num = int(n)
	return r
}

func i386(a wire.Ask) wire.Reply {
	if !haveInt80 {
		return wire.Reply{Err: "no such gate on this architecture", Errno: "ENOSYS"}
	}
	n := int80(uint32(arg(a, 0)), uint32(arg(a, 1)), uint32(arg(a, 2)), uint32(arg(a, 3)))
	if n < 0 {
		return errno(syscall.Errno(-n))
	}
	return wire.Reply{Num: int(n)}
}

func unshare(a wire.Ask) wire.Reply {
	runtime.LockOSThread()
	return failed(unix.Unshare(a.Nums[0]))
}

func ptrace(a wire.Ask) wire.Reply {
	runtime.LockOSThread()
	_, _, no := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, arg(a, 0), 0, 0, 0, 0)
	return errno(no)
}

func kill(a wire.Ask) wire.Reply { return failed(unix.Kill(a.Nums[0], syscall.Signal(a.Nums[1]))) }

func tiocsti(wire.Ask) wire.Reply {
	c := byte('x')
	_, _, no := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&c)))
	return errno(no)
}

// pidfd tries to take a descriptor out of another process (pidfd_getfd(2)).
func pidfd(a wire.Ask) wire.Reply {
	fd, err := unix.PidfdOpen(a.Nums[0], 0)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(fd)
	got, err := unix.PidfdGetfd(fd, a.Nums[1], 0)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(got)
	return wire.Reply{Num: got}
}

func list(a wire.Ask) wire.Reply {
	entries, err := os.ReadDir(a.Path)
	r := failed(err)
	for _, e := range entries {
		r.List = append(r.List, e.Name())
	}
	return r
}

func find(a wire.Ask) wire.Reply {
	var r wire.Reply
	err := filepath.WalkDir(a.Path, func(p string, _ os.DirEntry, err error) error {
		if err == nil && len(r.List) < 2000 {
			r.List = append(r.List, p)
		}
		return nil
	})
	f := failed(err)
	f.List = r.List
	return f
}

func mount(a wire.Ask) wire.Reply {
	return failed(unix.Mount(a.Path, a.To, "", unix.MS_BIND, ""))
}

func umount(a wire.Ask) wire.Reply { return failed(unix.Unmount(a.Path, unix.MNT_DETACH)) }

func mknod(a wire.Ask) wire.Reply {
	dev := unix.Mkdev(uint32(a.Nums[0]), uint32(a.Nums[1]))
	return failed(unix.Mknod(a.Path, unix.S_IFBLK|0o600, int(dev)))
}

func openRW(a wire.Ask) wire.Reply {
	f, err := os.OpenFile(a.Path, os.O_WRONLY, 0)
	if err != nil {
		return failed(err)
	}
	return failed(f.Close())
}

// fds lists the descriptors of a fresh child, since our own are the Go
// runtime's in part.
func fds(wire.Ask) wire.Reply {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return failed(err)
	}
	names, err := d.Readdirnames(-1)
	own := fmt.Sprint(d.Fd())
	d.Close()
	r := failed(err)
	for _, n := range names {
		target, err := os.Readlink("/proc/self/fd/" + n)
		if n == own || err != nil || strings.HasPrefix(target, "anon_inode:[eventpoll]") || strings.HasPrefix(target, "anon_inode:[eventfd]") {
			continue
		}
		r.List = append(r.List, n+" "+target)
	}
	return r
}

func run(a wire.Ask) wire.Reply {
	c := exec.Command(a.Argv[0], a.Argv[1:]...)
	out, err := c.CombinedOutput()
	r := data(clip(out), err)
	if c.ProcessState != nil {
		r.Num = c.ProcessState.ExitCode()
	}
	return r
}

func holds(a wire.Ask) wire.Reply {
	b, err := os.ReadFile(a.Path)
	if err == nil && !bytes.Contains(b, bytes.TrimSpace(a.Data)) {
		err = errors.New("the text is not in the file")
	}
	return failed(err)
}

// vmread reads the memory of another process (process_vm_readv(2)).
func vmread(a wire.Ask) wire.Reply {
	var word [8]byte
	local := []unix.Iovec{{Base: &word[0], Len: 8}}
	_, err := unix.ProcessVMReadv(a.Nums[0], local, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&word)), Len: 8}}, 0)
	return failed(err)
}
