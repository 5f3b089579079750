//go:build linux

package cagetest

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

// Numbers of i386's system calls (arch/x86/entry/syscalls/syscall_32.tbl).
const (
	i386Getpid  = 20
	i386Unshare = 310
	i386Socket  = 359
)

// x32 is the bit that marks a system call of the x32 ABI.
const x32 = 0x40000000

var escapeChecks = []check{
	{"unix-socket-of-the-host", "B5", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.refused(wire.Ask{Do: "dial", Network: "unix", Addr: s.world.unix.addr, Data: []byte("leak")})
		s.world.unix.silent(t, "unix")
	}},
	{"abstract-unix-socket", "B5", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.refused(wire.Ask{Do: "dial", Network: "unix", Addr: s.world.abstract.addr, Data: []byte("leak")})
		s.world.abstract.silent(t, "unix")
	}},
	{"sockets-that-hosts-have", "B5 B10", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, p := range []string{
			"/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock", "/run/systemd/private", "/run/dbus/system_bus_socket",
			"/run/user/0/bus", "/run/user/1000/bus", "/run/containerd/containerd.sock", "/tmp/.X11-unix/X0", "/run/systemd/journal/socket", "/dev/log", "/var/run/nscd/socket",
		} {
			in.refused(wire.Ask{Do: "dial", Network: "unix", Addr: p})
		}
		for _, dir := range []string{"/run", "/var/run", "/tmp"} {
			for _, p := range in.works(wire.Ask{Do: "find", Path: dir}).List {
				if fi, err := os.Lstat(p); err == nil && fi.Mode()&os.ModeSocket != 0 {
					t.Errorf("the host's socket %s is visible", p)
				}
			}
		}
	}},
	{"foreign-architecture", "B6", func(t *testing.T, s *suite) {
		if runtime.GOARCH != "amd64" {
			t.Skip("needs amd64: other processors have no second gate")
		}
		in := s.cage(t)
		in.refused(wire.Ask{Do: "int80", Child: true, Nums: []int{i386Getpid}})
		in.refused(wire.Ask{Do: "int80", Child: true, Nums: []int{i386Socket, unix.AF_PACKET, unix.SOCK_RAW, 0}})
		in.refused(wire.Ask{Do: "int80", Child: true, Nums: []int{i386Unshare, unix.CLONE_NEWUSER}})
		in.refused(wire.Ask{Do: "syscall", Child: true, Nums: []int{x32 | unix.SYS_GETPID}})
		in.refused(wire.Ask{Do: "syscall", Child: true, Nums: []int{x32 | unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW, 0}})
		if r := in.works(wire.Ask{Do: "syscall", Child: true, Nums: []int{unix.SYS_GETPID}}); r.Num <= 0 {
			t.Errorf("the control failed: getpid is %d", r.Num)
		}
	}},
	{"io-uring", "B6", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.refused(wire.Ask{Do: "syscall", Child: true, Nums: []int{unix.SYS_IO_URING_SETUP, 8, 0}}, "EPERM", "ENOSYS")
		in.refused(wire.Ask{Do: "syscall", Child: true, Nums: []int{unix.SYS_IO_URING_ENTER, 0, 0}}, "EPERM", "ENOSYS")
		in.refused(wire.Ask{Do: "syscall", Child: true, Nums: []int{unix.SYS_IO_URING_REGISTER, 0, 0}}, "EPERM", "ENOSYS")
	}},
	{"dangerous-system-calls", "B6 B7", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for name, nums := range map[string][]int{
			"bpf": {unix.SYS_BPF, 0, 0, 0}, "perf_event_open": {unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0}, "userfaultfd": {unix.SYS_USERFAULTFD, 0},
			"keyctl": {unix.SYS_KEYCTL, 0, -3, 0}, "add_key": {unix.SYS_ADD_KEY, 0, 0, 0, 0, 0}, "request_key": {unix.SYS_REQUEST_KEY, 0, 0, 0, 0},
			"mount": {unix.SYS_MOUNT, 0, 0, 0, 0, 0}, "umount2": {unix.SYS_UMOUNT2, 0, 0}, "pivot_root": {unix.SYS_PIVOT_ROOT, 0, 0}, "chroot": {unix.SYS_CHROOT, 0},
			"setns": {unix.SYS_SETNS, 0, 0}, "open_tree": {unix.SYS_OPEN_TREE, -100, 0, 1}, "fsopen": {unix.SYS_FSOPEN, 0, 0}, "fsmount": {unix.SYS_FSMOUNT, 0, 0, 0},
			"move_mount": {unix.SYS_MOVE_MOUNT, 0, 0, 0, 0, 0}, "mount_setattr": {unix.SYS_MOUNT_SETATTR, 0, 0, 0, 0, 0},
			"kexec_load": {unix.SYS_KEXEC_LOAD, 0, 0, 0, 0}, "init_module": {unix.SYS_INIT_MODULE, 0, 0, 0}, "finit_module": {unix.SYS_FINIT_MODULE, 0, 0, 0},
			"delete_module": {unix.SYS_DELETE_MODULE, 0, 0}, "reboot": {unix.SYS_REBOOT, 0, 0, 0, 0}, "swapon": {unix.SYS_SWAPON, 0, 0}, "acct": {unix.SYS_ACCT, 0},
			"open_by_handle_at": {unix.SYS_OPEN_BY_HANDLE_AT, 0, 0, 0}, "sethostname": {unix.SYS_SETHOSTNAME, 0, 0}, "settimeofday": {unix.SYS_SETTIMEOFDAY, 0, 0}, "syslog": {unix.SYS_SYSLOG, 3, 0, 0},
			"quotactl": {unix.SYS_QUOTACTL, 0, 0, 0, 0}, "kcmp": {unix.SYS_KCMP, 1, 1, 0, 0, 0},
		} {
			r := in.ask(wire.Ask{Do: "syscall", Child: true, Nums: nums})
			if r.Errno != "EPERM" && r.Errno != "ENOSYS" && r.Errno != "SIGSYS" && r.Errno != "EACCES" {
				t.Errorf("%s: %q %d %s", name, r.Errno, r.Num, r.Err)
			}
		}
	}},
	{"namespaces-of-its-own", "36 B6 B11", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, flag := range []int{unix.CLONE_NEWUSER, unix.CLONE_NEWNET, unix.CLONE_NEWNS, unix.CLONE_NEWPID, unix.CLONE_NEWIPC, unix.CLONE_NEWUTS, unix.CLONE_NEWCGROUP, unix.CLONE_NEWTIME} {
			in.refused(wire.Ask{Do: "unshare", Child: true, Nums: []int{flag}})
		}
		// clone(2) and clone3(2) with the flag: the filter sees the first and
		// must not let the second past it.
		in.refused(wire.Ask{Do: "syscall", Child: true, Nums: []int{unix.SYS_CLONE, unix.CLONE_NEWUSER | int(unix.SIGCHLD), 0, 0, 0, 0}})
		in.refused(wire.Ask{Do: "syscall", Child: true, Nums: []int{unix.SYS_CLONE3, 0, 0}})
	}},
	{"pid-1-is-out-of-reach", "B10 B12 36", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.refused(wire.Ask{Do: "ptrace", Child: true, Nums: []int{1}})
		in.refused(wire.Ask{Do: "read", Path: "/proc/1/mem"})
		in.refused(wire.Ask{Do: "openrw", Path: "/proc/1/mem"})
		in.refused(wire.Ask{Do: "read", Path: "/proc/1/environ"})
		in.refused(wire.Ask{Do: "read", Path: "/proc/1/maps"})
		for _, fd := range in.ask(wire.Ask{Do: "list", Path: "/proc/1/fd"}).List {
			in.refused(wire.Ask{Do: "readlink", Path: "/proc/1/fd/" + fd})
			in.refused(wire.Ask{Do: "read", Path: "/proc/1/fd/" + fd})
		}
		in.refused(wire.Ask{Do: "vmread", Nums: []int{1}})
		in.refused(wire.Ask{Do: "list", Path: "/proc/1/root/"})
		in.refused(wire.Ask{Do: "list", Path: "/proc/1/cwd/"})
		in.refused(wire.Ask{Do: "readlink", Path: "/proc/1/ns/net"})
		for fd := range 8 {
			in.refused(wire.Ask{Do: "pidfd", Child: true, Nums: []int{1, fd}})
		}
		// The positive control: a process's own are readable.
		in.works(wire.Ask{Do: "read", Path: "/proc/self/environ"})
		in.works(wire.Ask{Do: "list", Path: "/proc/self/fd"})
	}},
	{"signals-to-pid-1", "B12", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, sig := range []int{int(unix.SIGTERM), int(unix.SIGKILL), int(unix.SIGINT), int(unix.SIGSTOP), int(unix.SIGABRT), int(unix.SIGQUIT), int(unix.SIGUSR1)} {
			in.ask(wire.Ask{Do: "kill", Nums: []int{1, sig}})
		}
		in.arrived(in.ask(wire.Ask{Do: "http", Via: "proxy", URL: s.world.url("https", goodHost, "/")}), goodHost)
	}},
	{"processes-of-the-host", "B12 B10", func(t *testing.T, s *suite) {
		in := s.cage(t)
		own := in.works(wire.Ask{Do: "pid"}).Num
		for _, name := range in.works(wire.Ask{Do: "list", Path: "/proc"}).List {
			if strings.Trim(name, "0123456789") != "" || name == "1" || name == itoa(own) {
				continue
			}
			t.Errorf("process %s is visible in the cage", name)
		}
		in.refused(wire.Ask{Do: "kill", Nums: []int{os.Getpid() + 1000000, 0}})
	}},
	{"parent-process-id-tells-nothing", "B10", func(t *testing.T, s *suite) {
		in := s.cage(t)
		status := in.works(wire.Ask{Do: "read", Path: "/proc/self/status"}).Text()
		if p := field(status, "PPid"); p != "1" && p != "0" {
			t.Errorf("the agent's parent is %q", p)
		}
	}},
	{"second-instance-inside", "B11 B12", func(t *testing.T, s *suite) {
		// A cage in the cage gets no more than the cage: it cannot be made.
		in := s.cage(t)
		in.refused(wire.Ask{Do: "unshare", Child: true, Nums: []int{unix.CLONE_NEWUSER | unix.CLONE_NEWNET}})
		in.refused(wire.Ask{Do: "http", Via: "addr", Addr: s.world.tcp.addr, URL: s.world.url("http", goodHost, "/")})
		s.world.tcp.silent(t, "tcp")
	}},
	{"terminal-injection", "B12", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.refused(wire.Ask{Do: "tiocsti"})
	}},
	{"host-root-by-magic-links", "B12", func(t *testing.T, s *suite) {
		secret := filepath.Join(s.home, ".ssh", "id_ed25519")
		in := s.cage(t)
		for _, p := range []string{"/proc/self/root" + secret, "/proc/1/root" + secret, "/proc/self/cwd/../../../../../.." + secret, "/proc/thread-self/root" + secret, "/.host" + secret, "/../.." + secret, "/proc/self/fd/0/../.." + secret} {
			if r := in.ask(wire.Ask{Do: "read", Path: p}); strings.Contains(r.Text(), hostSecret) {
				t.Errorf("%s can be read", p)
			}
		}
		if b, err := os.ReadFile(secret); err != nil || string(b) != hostSecret {
			t.Errorf("the control failed: %v", err)
		}
	}},
	{"directory-as-a-descriptor", "E2", func(t *testing.T, s *suite) {
		// A directory on a standard descriptor would lead out by "..".
		dir, err := os.Open(s.home)
		must(t, err)
		defer dir.Close()
		in, err := s.start(t, withSpec(func(spec *cage.Spec) { spec.Stdin = dir }), command("one", `{"Do":"list","Path":"/proc/self/fd/0/.ssh"}`))
		if err != nil {
			return
		}
		if line := in.line(); strings.Contains(line, "id_ed25519") {
			t.Errorf("the home directory can be listed: %s", line)
		}
	}},
}
