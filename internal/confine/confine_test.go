//go:build linux

package confine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The test binary re-executes itself with this variable: confinement is for good.
const roleVar = "CONFINE_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		runtime.LockOSThread()
		if err := roles[role](os.Getenv("CONFINE_TEST_DIR")); err != nil {
			fmt.Fprintln(os.Stderr, "role", role, "failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var roles map[string]func(dir string) error

func init() {
	roles = map[string]func(string) error{
		"cage": roleCage, "threads": roleThreads, "try": roleTry, "notify": roleNotify,
		"sibling": roleSibling, "list": roleList, "gateway": roleGateway, "incomplete": roleIncomplete, "program": roleProgram, "signal": roleSignal,
		"foreign": roleForeign, "nothing": func(string) error { return nil }, "verify-bare": roleVerifyBare,
	}
}

// play runs a role, with all capabilities in a user namespace of its own if caged.
func play(t *testing.T, role string, caged bool, extra ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	if err := os.Mkdir(filepath.Join(dir, "rw"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("s"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"="+role, "CONFINE_TEST_DIR="+dir)
	cmd.Env = append(cmd.Env, extra...)
	if caged {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	out, err := cmd.CombinedOutput()
	if caged && errors.Is(err, unix.EPERM) {
		t.Skip("needs user namespaces: this user may not make any here")
	}
	return string(out), err
}

func mustPlay(t *testing.T, role string, caged bool, extra ...string) string {
	t.Helper()
	out, err := play(t, role, caged, extra...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// testOptions list the places of an ordinary machine one by one, and not /.
func testOptions(dir string) Options {
	o := Options{ReadWrite: []string{filepath.Join(dir, "rw"), "/proc"}, Devices: []string{"/dev"}, OpenFiles: 512}
	exe, _ := os.Executable()
	for _, p := range []string{
		"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/opt", "/var/lib", "/sys",
		exe, os.Getenv("CONFINE_TEST_GOROOT"),
	} {
		if _, err := os.Stat(p); err == nil && p != "" {
			o.ReadOnly = append(o.ReadOnly, p)
		}
	}
	return o
}

func TestApplyAndVerify(t *testing.T) { mustPlay(t, "cage", true) }

func roleCage(dir string) error {
	o := testOptions(dir)
	if _, err := Apply(o); err != nil {
		return err
	}
	if err := Verify(o); err != nil {
		return err
	}
	// Positive control, and the refusal that stands beside it.
	if err := os.WriteFile(filepath.Join(dir, "rw", "f"), []byte("x"), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("writing beside the allowed directory: %v", err)
	}
	if _, err := os.ReadDir(dir); !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("reading beside the allowed directory: %v", err)
	}
	if err := os.WriteFile("/dev/null", []byte("x"), 0); err != nil {
		return err
	}
	return again("try", dir)
}

func again(role, dir string) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"="+role, "CONFINE_TEST_DIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// roleTry is the agent's command: uid 0 in the cage, after exec.
func roleTry(dir string) error {
	if err := Verify(testOptions(dir)); err != nil {
		return err
	}
	if err := unix.Mknod(filepath.Join(dir, "rw", "null"), unix.S_IFCHR|0o600, 0x103); err == nil {
		return errors.New("made a device")
	}
	if err := unix.Mkfifo(filepath.Join(dir, "rw", fmt.Sprint("fifo", os.Getpid())), 0o600); err != nil {
		return err
	}
	return tryMatrix()
}

// roleSibling is what a thread that is not the one of the command could start:
// its bounding set is full, and gives uid 0 nothing all the same.
func roleSibling(dir string) error {
	o := testOptions(dir)
	if err := verifyThread(o, "/proc/thread-self/status", "CapInh", "CapPrm", "CapEff", "CapAmb"); err != nil {
		return err
	}
	if err := errors.Join(verifyLandlock(o), verifySeccomp()); err != nil {
		return err
	}
	return tryMatrix()
}

// TestListRoot: the names in / may be listed, and nothing else there.
func TestListRoot(t *testing.T) { mustPlay(t, "list", true) }

func roleList(dir string) error {
	o := testOptions(dir)
	o.List = []string{"/"}
	if err := tryForbidden(o); err == nil {
		return errors.New("a process without Landlock passed for a confined one")
	}
	if _, err := Apply(o); err != nil {
		return err
	}
	if err := Verify(o); err != nil {
		return err
	}
	for _, d := range []string{"/", dir} {
		if _, err := os.ReadDir(d); err != nil {
			return err
		}
	}
	if _, err := os.ReadFile(filepath.Join(dir, "secret")); !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("reading a file that may only be listed: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "rw")); err != nil || len(left) != 0 {
		return fmt.Errorf("left behind: %v %v", left, err)
	}
	o.ReadWrite = nil
	if err := verifyLandlock(o); err == nil {
		return errors.New("verified although nothing was left to try")
	}
	return nil
}

// tryMatrix is the table of sockets: what programs need works, the rest does not.
func tryMatrix() error {
	nonblock := unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	table := []struct {
		family, typ, proto int
		want               error
	}{
		{unix.AF_INET, unix.SOCK_STREAM | nonblock, 0, nil},
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP, nil},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP, nil},
		{unix.AF_UNIX, unix.SOCK_SEQPACKET, 0, nil},
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, nil},
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT, unix.EPROTONOSUPPORT},
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC, unix.EPROTONOSUPPORT},
		{unix.AF_INET, unix.SOCK_STREAM, protocolMPTCP, unix.EPROTONOSUPPORT},
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, unix.EPERM},
		{unix.AF_INET, unix.SOCK_RAW | nonblock, unix.IPPROTO_RAW, unix.EPERM},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, unix.EPERM},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, unix.EPERM},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, unix.EPERM},
		{unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP, unix.EPERM},
		{unix.AF_PACKET, unix.SOCK_DGRAM, 0, unix.EPERM},
		{unix.AF_VSOCK, unix.SOCK_STREAM, 0, unix.EPERM},
		{unix.AF_BLUETOOTH, unix.SOCK_RAW, 0, unix.EAFNOSUPPORT},
		{unix.AF_KEY, unix.SOCK_RAW, 2, unix.EAFNOSUPPORT},
	}
	for _, r := range table {
		fd, err := unix.Socket(r.family, r.typ, r.proto)
		if err == nil {
			unix.Close(fd)
		}
		if !errors.Is(err, r.want) && (err != nil || r.want != nil) {
			return fmt.Errorf("socket(%d, %#x, %d) gave %v, not %v", r.family, r.typ, r.proto, err, r.want)
		}
	}
	return netlinkWrite()
}

// netlinkWrite asks for lo to be taken down. The lists that programs read are the control.
func netlinkWrite() error {
	if _, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC); err != nil {
		return fmt.Errorf("listing interfaces: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("configuring an interface: %v", err)
	}
	return routeWrite()
}

func routeWrite() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	msg := make([]byte, 32) // nlmsghdr and ifinfomsg: set the flags of interface 1
	msg[0], msg[4], msg[6], msg[20], msg[28] = 32, unix.RTM_SETLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK, 1, 1
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	n, _, err := unix.Recvfrom(fd, msg, 0)
	if err != nil || n < 20 {
		return fmt.Errorf("no answer from netlink: %v", err)
	}
	if code := int32(msg[16]) | int32(msg[17])<<8 | int32(msg[18])<<16 | int32(msg[19])<<24; code != -int32(unix.EPERM) {
		return fmt.Errorf("writing over netlink gave %d", code)
	}
	return nil
}

// TestVerifyFindsNothing: the same process without Apply must not pass for a confined one.
func TestVerifyFindsNothing(t *testing.T) {
	out, err := play(t, "verify-bare", true)
	if err == nil {
		t.Fatalf("an unconfined process was verified\n%s", out)
	}
	if !strings.Contains(out, "cannot apply capabilities: thread") {
		t.Errorf("failed for another reason: %s", out)
	}
}

func roleVerifyBare(dir string) error {
	o := testOptions(dir)
	o.Without = []Layer{LayerRlimits}
	return Verify(o)
}

// TestThreads is the bug that others had: a goroutine moved to a thread that
// Landlock did not cover, and what it started ran free.
func TestThreads(t *testing.T) {
	if !perProcess() {
		t.Skip("needs CGO_ENABLED=0: with cgo the runtime cannot reach all threads")
	}
	mustPlay(t, "threads", true)
}

func roleThreads(dir string) error {
	const threads = 16
	var ready, wait sync.WaitGroup
	start := make(chan struct{})
	errs := make(chan error, threads)
	for range threads {
		ready.Add(1)
		wait.Add(1)
		go func() {
			defer wait.Done()
			runtime.LockOSThread() // its own thread, made before Apply
			ready.Done()
			<-start
			if _, err := os.ReadDir(dir); !errors.Is(err, unix.EACCES) {
				errs <- fmt.Errorf("a thread reads what it must not: %v", err)
				return
			}
			errs <- again("sibling", dir)
		}()
	}
	ready.Wait()
	o := testOptions(dir)
	if _, err := Apply(o); err != nil {
		return err
	}
	if err := Verify(o); err != nil {
		return err
	}
	close(start)
	wait.Wait()
	for range threads {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// TestNotify: attempts are refused and told, register arguments only; Verify's own are not told.
func TestNotify(t *testing.T) {
	out := mustPlay(t, "notify", true)
	var got []Attempt
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(got) == 0 {
		t.Fatal("nothing was told")
	}
	want := Attempt{Family: unix.AF_PACKET, Type: unix.SOCK_RAW, Protocol: 0x300}
	for i := range got {
		if got[i].PID == 0 {
			t.Error("no pid")
		}
		got[i].PID = 0
	}
	if got[0] != want {
		t.Errorf("told %+v, want %+v", got[0], want)
	}
}

func roleNotify(dir string) error {
	o := testOptions(dir)
	o.NotifySockets = true
	res, err := Apply(o)
	if err != nil {
		return err
	}
	if res.Notify == nil {
		return errors.New("no listener")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var told []Attempt
	ended := make(chan error)
	go func() { ended <- ServeNotify(ctx, res.Notify, func(a Attempt) { told = append(told, a) }) }()
	if err := Verify(o); err != nil {
		return err
	}
	if _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x300); err != unix.EPERM {
		return fmt.Errorf("packet socket: %v", err)
	}
	if err := tryMatrix(); err != nil {
		return err
	}
	cancel()
	if err := <-ended; err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(told)
}

func TestLayerErrors(t *testing.T) {
	out := mustPlay(t, "incomplete", false)
	if !strings.Contains(out, "--without ") {
		t.Errorf("no hint: %s", out)
	}
}

// roleIncomplete allows a path that is not there.
func roleIncomplete(dir string) error {
	_, err := Apply(Options{ReadOnly: []string{dir + "/absent"}, Without: []Layer{LayerCapabilities}})
	var le *LayerError
	if !errors.As(err, &le) || le.Layer != LayerLandlock || !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("got %v", err)
	}
	fmt.Println(le.Hint())
	return nil
}

// TestSignalScope: the command cannot signal pid 1, pid 1's other threads can signal it.
func TestSignalScope(t *testing.T) { mustPlay(t, "signal", true) }

func roleSignal(dir string) error {
	if unix.Gettid() != unix.Getpid() {
		return signalScope(dir)
	}
	done := make(chan error) // the main thread stays with the locked caller
	go func() {
		runtime.LockOSThread()
		done <- signalScope(dir)
	}()
	return <-done
}

func signalScope(dir string) error {
	o := testOptions(dir)
	if _, err := Apply(o); err != nil {
		return err
	}
	cmd := exec.Command("/bin/sh", "-c", "kill -0 $PPID 2>/dev/null && echo reached; echo ready; read x")
	in, _ := cmd.StdinPipe()
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	buf := make([]byte, 64)
	n, err := out.Read(buf)
	if err != nil {
		return err
	}
	errata, _, _ := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_ERRATA)
	if errata&errataSignals != 0 && bytes.Contains(buf[:n], []byte("reached")) {
		return errors.New("the command can signal the process that started it")
	}
	done := make(chan error)
	go func() { done <- cmd.Process.Signal(syscall.SIGTERM) }() // not on this thread, which is locked
	if err := <-done; err != nil {
		return fmt.Errorf("another thread cannot signal the command: %w", err)
	}
	if err := cmd.Wait(); err == nil {
		return errors.New("the command was not ended by the signal")
	}
	return nil
}

// TestPrograms runs real programs under everything.
func TestPrograms(t *testing.T) {
	for _, p := range [][]string{
		{"/bin/bash", "-c", "echo $(seq 3 | wc -l) | grep -q 3; sleep 0 & wait; cat /dev/null > /dev/null; exec 3<>/dev/zero"},
		{"node", "-e", "require('fs').readdir('/usr',()=>new (require('worker_threads').Worker)('process.exit(0)',{eval:true}))"},
		{"python3", "-c", "import subprocess,threading,socket,multiprocessing as m; t=threading.Thread(target=print);t.start();t.join();subprocess.run(['true'],check=True);socket.socketpair();p=m.Process(target=print);p.start();p.join();assert p.exitcode==0"},
		{"git", "init", "-q", "DIR/rw/repo"},
		{"java", "-version"},
		{"gcc", "-xc", "-o", "DIR/rw/a.out", "-include", "stdio.h", "-shared", "DIR/rw/empty.c"},
		{"apt-cache", "policy", "bash"},
		{"go", "version"},
		{"gdb", "-batch", "-nx", "-ex", "run", "/bin/true"},
		{"strace", "-o", "/dev/null", "/bin/true"},
	} {
		t.Run(filepath.Base(p[0]), func(t *testing.T) {
			path, err := exec.LookPath(p[0])
			if err != nil {
				t.Skipf("needs %s: it is what runs in the cage", p[0])
			}
			if path, err = filepath.EvalSymlinks(path); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(path, "shims") {
				if path = "/usr/bin/" + p[0]; exec.Command(path, "--version").Run() != nil {
					t.Skipf("needs %s: only a wrapper of it is installed", p[0])
				}
			}
			args, _ := json.Marshal(append([]string{path}, p[1:]...))
			mustPlay(t, "program", true, "CONFINE_TEST_ARGS="+string(args), "CONFINE_TEST_GOROOT="+filepath.Dir(filepath.Dir(path)))
		})
	}
}

func roleProgram(dir string) error {
	var args []string
	if err := json.Unmarshal([]byte(os.Getenv("CONFINE_TEST_ARGS")), &args); err != nil {
		return err
	}
	// go would leave a process behind that writes its counters.
	telemetry := filepath.Join(dir, "rw", ".config", "go", "telemetry")
	if err := errors.Join(os.MkdirAll(telemetry, 0o700), os.WriteFile(filepath.Join(telemetry, "mode"), []byte("off"), 0o600)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "rw", "empty.c"), nil, 0o600); err != nil {
		return err
	}
	if _, err := Apply(testOptions(dir)); err != nil {
		return err
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "DIR", dir)
	}
	home := filepath.Join(dir, "rw")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = home
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + home, "TMPDIR=" + home}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func TestGateway(t *testing.T) {
	if abi, err := landlockABI(); err != nil || abi < 8 && !perProcess() {
		t.Skip("needs CGO_ENABLED=0: before version 8 of Landlock only a Go program without C confines all of its threads")
	}
	mustPlay(t, "gateway", false)
}

func roleGateway(dir string) error {
	placeholders := filepath.Join(dir, "rw")
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte("a"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(placeholders+"/f", nil, 0o600); err != nil {
		return err
	}
	look, err := peeker()
	if err != nil {
		return err
	}
	if err := look("open"); err != nil {
		return err
	}
	if err := Gateway(GatewayOptions{Read: []string{config}, Write: []string{placeholders}}); err != nil {
		return err
	}
	want := "refused"
	if os.Geteuid() == 0 {
		want = "open" // root may look at everything
	}
	if err := look(want); err != nil {
		return err
	}
	var core syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core.Max != 0 {
		return fmt.Errorf("core dumps of %d bytes: %v", core.Max, err)
	}
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || n != 0 {
		return fmt.Errorf("dumpable %d: %v", n, err)
	}
	done := make(chan error)
	for range 8 { // goroutines, wherever they run
		go func() { done <- gatewayLives(dir, config) }()
	}
	for range 8 {
		if err := <-done; err != nil {
			return err
		}
	}
	return os.Remove(placeholders + "/f")
}

// peeker starts a process of the same user that tries to read our memory as
// often as it is asked to.
func peeker() (look func(want string) error, err error) {
	c := exec.Command("sh", "-c", `while read x; do if (exec 3</proc/$PPID/mem) 2>/dev/null; then echo open; else echo refused; fi; done`)
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	return func(want string) error {
		if _, err := io.WriteString(in, "look\n"); err != nil {
			return err
		}
		got, err := lines.ReadString('\n')
		if err == nil && got != want+"\n" {
			err = fmt.Errorf("the gateway's memory is %s", got)
		}
		return err
	}, c.Start()
}

func gatewayLives(dir, config string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, p := range []string{config, "/etc/hosts", "/dev/null"} {
		if _, err := os.ReadFile(p); err != nil {
			return err
		}
	}
	if _, err := os.ReadDir(dir); !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("reads beside its files: %v", err)
	}
	if err := os.WriteFile(config, nil, 0); !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("writes its config: %v", err)
	}
	if err := exec.Command("/bin/true").Run(); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("starts programs: %v", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	return unix.Sendmsg(pair[0], []byte{1}, unix.UnixRights(0), nil, 0)
}

// TestForeign: another architecture's call numbers end the process.
func TestForeign(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs amd64: the call numbers are those of i386")
	}
	mustPlay(t, "foreign", true)
}

func roleForeign(dir string) error {
	if _, err := Apply(testOptions(dir)); err != nil {
		return err
	}
	const x32 = 0x40000000
	_, _, errno := unix.RawSyscall(x32|unix.SYS_GETPID, 0, 0, 0)
	if errno != unix.ENOSYS {
		return fmt.Errorf("an x32 call gave %v", errno)
	}
	return nil
}

// TestFilter interprets the program, so that every entry is tried on every machine.
func TestFilter(t *testing.T) {
	for _, p := range []program{{}, {gateway: true}, {single: true}} {
		vm, err := newMachine(p)
		if err != nil {
			t.Fatal(err)
		}
		refused := uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EPERM)
		process := uint32(unix.SECCOMP_RET_ALLOW)
		if p.single {
			process = refused
		}
		for _, nr := range list(p) {
			if got := vm.run(t, auditArch, nr); got != refused {
				t.Errorf("call %d gives %#x", nr, got)
			}
		}
		for _, c := range []struct {
			name string
			nr   uint32
			args []uint64
			want uint32
		}{
			{"read", unix.SYS_READ, nil, unix.SECCOMP_RET_ALLOW},
			{"thread", unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_THREAD}, unix.SECCOMP_RET_ALLOW},
			{"process", unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, process},
			{"exit signal bits", unix.SYS_CLONE, []uint64{unix.CLONE_NEWTIME}, process},
			{"network namespace", unix.SYS_CLONE, []uint64{unix.CLONE_NEWNET}, refused},
			{"persona", unix.SYS_PERSONALITY, []uint64{0x0400000}, refused},
			{"high half", unix.SYS_IOCTL, []uint64{0, 1<<32 | unix.TIOCSTI}, refused},
			{"set-uid", unix.SYS_FCHMODAT, []uint64{0, 0, 0o4755}, refused},
			{"set-uid by the new call", unix.SYS_FCHMODAT2, []uint64{0, 0, 0o4755}, refused},
			{"set-uid on a descriptor", unix.SYS_FCHMOD, []uint64{0, 1<<32 | 0o4711}, refused},
			{"set-gid, as shared directories have", unix.SYS_FCHMODAT, []uint64{0, 0, 0o2775}, unix.SECCOMP_RET_ALLOW},
			{"mode", unix.SYS_FCHMOD, []uint64{0, 0o755}, unix.SECCOMP_RET_ALLOW},
			{"window size", unix.SYS_IOCTL, []uint64{0, unix.TIOCGWINSZ}, unix.SECCOMP_RET_ALLOW},
			{"future", newestSyscall + 1, nil, unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		} {
			if got := vm.run(t, auditArch, c.nr, c.args...); got != c.want {
				t.Errorf("%s gives %#x, not %#x", c.name, got, c.want)
			}
		}
		if got := vm.run(t, unix.AUDIT_ARCH_I386, 1); got != unix.SECCOMP_RET_KILL_PROCESS {
			t.Errorf("i386 gives %#x", got)
		}
	}
}

type machine struct{ vm *bpf.VM }

// newMachine: x/net's VM is for packets and loads big-endian words.
func newMachine(p program) (*machine, error) {
	vm, err := bpf.NewVM(filter(p))
	return &machine{vm}, err
}

func (m *machine) run(t *testing.T, arch, nr uint32, args ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	put := func(at int, v uint32) {
		data[at], data[at+1], data[at+2], data[at+3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
	}
	put(offsetNumber, nr)
	put(offsetArch, arch)
	for i, a := range args {
		put(offsetArgs+8*i, uint32(a))
		put(offsetArgs+8*i+4, uint32(a>>32))
	}
	n, err := m.vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}
