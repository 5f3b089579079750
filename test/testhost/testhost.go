//go:build linux

// Package testhost boots a real host to test container mode on: systemd as
// process 1 and rootless Podman, in namespaces of their own on a machine that
// may have neither. Beside it lies an "internet" in which every address
// answers where a test listens, and which leads nowhere else.
//
// A host costs about a second, so that a test binary has one, which its tests
// share:
//
//	func TestMain(m *testing.M) { os.Exit(testhost.Main(m)) }
//
//	func TestX(t *testing.T) { h := testhost.Start(t) … }
package testhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// User is the ordinary user of a host, who may run services without being
// logged in (loginctl(1), enable-linger). Root is its administrator.
const (
	User = "agent"
	Root = "root"
)

// UID is the number of User.
const UID = 1000

// Shared is where the host sees Host.Share.
const Shared = "/share"

// Addresses of the host and of the next hop to its internet.
const (
	Addr4    = "172.16.99.2"
	Addr6    = "fd99::2"
	Gateway4 = "172.16.99.1"
	Gateway6 = "fd99::1"
)

// Limits of how long making a host may take. It is built once, out of what the
// network brings.
const (
	buildLimit = 8 * time.Minute
	bootLimit  = time.Minute
)

// Host is a booted host. Its methods are safe for concurrent use.
type Host struct {
	// Share is a directory of this machine that the host has at Shared.
	Share string

	script string
	outer  *exec.Cmd // systemd-nspawn, outside of the host
	done   chan struct{}
	ended  error
	log    bytes.Buffer // what it wrote, to be read after done

	base, lock *os.File // held for as long as the host runs
	notify     *net.UnixConn

	mu     sync.Mutex
	leader int // process 1 of the host, as this machine numbers it
}

var shared struct {
	sync.Mutex
	host *Host
	err  error
}

// Main runs the tests of a package and ends their host, if one was started.
func Main(m *testing.M) int {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.host != nil {
		if err := shared.host.close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// Start returns the host of this test binary, booted. It skips where no host
// can be made, and fails where one should have been.
func Start(tb testing.TB) *Host {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: a host of its own has namespaces, devices and a file system to mount")
	}
	for _, program := range []string{"mmdebstrap", "systemd-nspawn"} {
		if _, err := exec.LookPath(program); err != nil {
			tb.Skipf("needs %s: %v", program, err)
		}
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.host == nil && shared.err == nil {
		shared.host, shared.err = boot()
	}
	if shared.err != nil {
		tb.Fatalf("cannot boot a test host: %v", shared.err)
	}
	return shared.host
}

// boot makes a host and waits until its user's services can be started.
func boot() (h *Host, err error) {
	h = &Host{done: make(chan struct{})}
	if h.script, err = script(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if _, err := h.run("sweep"); err != nil {
		return nil, err
	}
	base, err := h.run("build")
	if err != nil {
		return nil, err
	}
	if h.base, err = locked(base+".lock", unix.LOCK_SH); err != nil {
		return nil, err
	}
	dir, err := h.claim(filepath.Join(filepath.Dir(base), "run"))
	if err != nil {
		return nil, err
	}
	h.Share = filepath.Join(dir, "share")
	if err := os.MkdirAll(h.Share, 0o755); err != nil { //nolint:gosec // the host's user reads it
		return nil, err
	}
	if err := h.launch(dir); err != nil {
		return nil, err
	}
	if err := h.ready(); err != nil {
		return nil, err
	}
	return h, h.connect()
}

// script finds tools/testhost.sh from wherever a test runs in the tree.
func script() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(dir, "tools", "testhost.sh")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("cannot find tools/testhost.sh: the test does not run in the tree")
		}
		dir = filepath.Dir(dir)
	}
}

func (h *Host) run(verb string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	c := exec.CommandContext(ctx, h.script, verb)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", verb, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

// claim makes the name of a directory that is this run's, by its lock. The
// directory itself is made after it, so that none is ever nobody's.
func (h *Host) claim(in string) (string, error) {
	f, err := os.CreateTemp(in, "*.lock")
	if err != nil {
		return "", err
	}
	f.Close()
	if h.lock, err = locked(f.Name(), unix.LOCK_EX); err != nil {
		return "", err
	}
	return strings.TrimSuffix(f.Name(), ".lock"), nil
}

// locked opens a file and locks it (flock(2)). The lock goes with the process,
// however that ends, and tells the next run what is nobody's any more.
func locked(name string, how int) (*os.File, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), how); err != nil {
			f.Close()
			return nil, fmt.Errorf("cannot lock %s: %w", name, err)
		}
		// A sweep may have removed it in between.
		ours, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if now, err := os.Stat(name); err == nil && os.SameFile(ours, now) {
			return f, nil
		}
		f.Close()
	}
}

// launch starts systemd-nspawn in namespaces that end with this process.
func (h *Host) launch(dir string) error {
	name := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return err
	}
	h.notify = conn
	h.outer = exec.Command("unshare", "--mount", "--net", "--propagation", "private", "--", h.script, "boot", dir)
	h.outer.Env = append(os.Environ(), "NOTIFY_SOCKET="+name)
	h.outer.Stdout, h.outer.Stderr = &h.log, &h.log
	h.outer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	started := make(chan error)
	go func() {
		// The death signal comes when the thread ends that started it.
		runtime.LockOSThread()
		err := h.outer.Start()
		started <- err
		if err == nil {
			h.ended = h.outer.Wait()
			close(h.done)
			_ = h.notify.SetReadDeadline(time.Now()) // fails when it is closed, and nobody reads
		}
	}()
	return <-started
}

// ready waits for the host's process 1 to have started everything
// (sd_notify(3)), and then for the user's own service manager.
func (h *Host) ready() error {
	if err := h.notify.SetReadDeadline(time.Now().Add(bootLimit)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for up := false; !up; {
		n, err := h.notify.Read(buf)
		select {
		case <-h.done:
			return fmt.Errorf("it ended while it booted: %w\n%s", h.ended, h.log.Bytes())
		default:
		}
		if err != nil {
			return fmt.Errorf("it does not become ready: %w", err)
		}
		for line := range strings.Lines(string(buf[:n])) {
			line = strings.TrimSuffix(line, "\n")
			if pid, ok := strings.CutPrefix(line, "X_NSPAWN_LEADER_PID="); ok {
				if h.leader, err = strconv.Atoi(pid); err != nil {
					return fmt.Errorf("cannot read the number of its first process: %w", err)
				}
			}
			up = up || line == "READY=1"
		}
	}
	if r := h.Exec(Root, "systemctl", "start", fmt.Sprintf("user@%d.service", UID)); r.Code != 0 {
		return fmt.Errorf("its user has no service manager: %s", r.Stderr)
	}
	return nil
}

// connect makes the host's network and its internet: on the other end of its
// only cable every address is local.
func (h *Host) connect() error {
	inside := "ip addr add " + Addr4 + "/24 dev host0 && ip -6 addr add " + Addr6 + "/64 dev host0 nodad && ip link set host0 up && " +
		"ip route add default via " + Gateway4 + " && ip -6 route add default via " + Gateway6 + " dev host0 && " +
		"echo nameserver " + Gateway4 + " >/etc/resolv.conf"
	outside := "dev=$(ip -o link show type veth | sed 's/^[0-9]*: //; s/[@:].*//') && ip addr add " + Gateway4 + "/24 dev $dev && " +
		"ip -6 addr add " + Gateway6 + "/64 dev $dev nodad && ip link set $dev up && " +
		"ip route replace table local " + Addr4 + "/32 dev $dev && ip -6 route replace table local " + Addr6 + "/128 dev $dev && " +
		"ip route replace table local local default dev lo && ip -6 route replace table local local default dev lo && " +
		"echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind"
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(h.outer.Process.Pid), "--net", "--", "sh", "-c", outside).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot make its internet: %w\n%s", err, out)
	}
	if r := h.Exec(Root, "sh", "-c", inside); r.Code != 0 {
		return fmt.Errorf("cannot make its network: %s", r.Stderr)
	}
	return nil
}

// Leader is the number that process 1 of the host has on this machine.
func (h *Host) Leader() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leader
}

// Root is the host's root directory, as this machine sees it.
func (h *Host) Root() string { return fmt.Sprintf("/proc/%d/root", h.Leader()) }

// Result is what became of a command.
type Result struct {
	Stdout, Stderr string
	Code           int // -1 when it ended by a signal, or could not be started
}

// Command prepares a command on the host, in its user's home directory and
// with an environment as after a login.
func (h *Host) Command(ctx context.Context, user string, argv ...string) *exec.Cmd {
	args := []string{"-t", strconv.Itoa(h.Leader()), "--all", "--"}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "USER=" + user, "LOGNAME=" + user}
	if user == Root {
		args = append(args, "env", "-i", "-C", "/root", "HOME=/root")
	} else {
		id, run := strconv.Itoa(UID), fmt.Sprintf("/run/user/%d", UID)
		args = append(args, "setpriv", "--reuid", id, "--regid", id, "--init-groups", "env", "-i", "-C", "/home/"+user, "HOME=/home/"+user)
		env = append(env, "XDG_RUNTIME_DIR="+run, "DBUS_SESSION_BUS_ADDRESS=unix:path="+run+"/bus")
	}
	return exec.CommandContext(ctx, "nsenter", append(append(args, env...), argv...)...)
}

// Exec runs a command on the host and waits for it.
func (h *Host) Exec(user string, argv ...string) Result {
	var stdout, stderr bytes.Buffer
	c := h.Command(context.Background(), user, argv...)
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	if c.ProcessState == nil {
		return Result{Stderr: err.Error(), Code: -1}
	}
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: c.ProcessState.ExitCode()}
}

// Must is Exec for a command that has to succeed. It returns what that wrote.
func (h *Host) Must(tb testing.TB, user string, argv ...string) string {
	tb.Helper()
	r := h.Exec(user, argv...)
	if r.Code != 0 {
		tb.Fatalf("%s as %s: code %d\n%s%s", strings.Join(argv, " "), user, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Put writes a file below Share, readable by the host's user, and returns its
// path on the host.
func (h *Host) Put(tb testing.TB, name string, data []byte, mode os.FileMode) string {
	tb.Helper()
	path := filepath.Join(h.Share, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the host's user reads it
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(Shared, name)
}

// Internet calls f in the network that lies outside of the host, in which
// every address is local: what f listens on stays there.
func (h *Host) Internet(f func() error) error {
	result := make(chan error)
	go func() {
		// The thread is not unlocked: it ends with this goroutine, and no
		// other ever runs in that network.
		runtime.LockOSThread()
		result <- h.enter(f)
	}()
	return <-result
}

func (h *Host) enter(f func() error) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", h.outer.Process.Pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot enter the network: %w", err)
	}
	return f()
}

// Listen opens a listener of the host's internet, on any address.
func (h *Host) Listen(tb testing.TB, network, addr string) net.Listener {
	tb.Helper()
	var l net.Listener
	err := h.Internet(func() (err error) {
		l, err = net.Listen(network, addr)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

// Journal is what the host logged, for the message of a test that failed.
func (h *Host) Journal() string {
	return h.Exec(Root, "journalctl", "--no-pager", "-o", "short-monotonic", "-n", "200").Stdout
}

// Reboot shuts the host down in order, as its administrator would, and waits
// until it is up again.
func (h *Host) Reboot(tb testing.TB) {
	tb.Helper()
	h.Must(tb, Root, "systemctl", "reboot")
	if err := h.ready(); err != nil {
		tb.Fatal(err)
	}
	if err := h.connect(); err != nil {
		tb.Fatal(err)
	}
}

// close ends the host. There is nothing on it that anybody would save, so that
// it is not shut down in order: the sweep ends every process and removes every
// file of a run whose lock is free.
func (h *Host) close() error {
	for _, f := range []*os.File{h.lock, h.base} {
		if f != nil {
			f.Close()
		}
	}
	_, err := h.run("sweep")
	if h.outer != nil && h.outer.Process != nil {
		<-h.done
	}
	if h.notify != nil {
		h.notify.Close()
	}
	return err
}
