package process

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/cage"
)

// LayerLimits is the layer of limits by cgroup: on memory, on CPU time and,
// for root, on processes.
const LayerLimits cage.Layer = "limits"

// systemdTime is how long systemd may take to make a scope.
const systemdTime = 5 * time.Second

// newScope puts init, and so the whole cage, into a cgroup with the limits
// that were asked for: a transient scope of the user's systemd, or of the
// system's for root. The scope vanishes with its last process, so nobody has
// to remove it, whoever dies first.
//
// RLIMIT_NPROC bounds the processes of everybody but root (fork in the
// kernel's kernel/fork.c exempts INIT_USER), and a namespace's own pid_max
// those of root, so only root on an older kernel needs a scope for them.
func newScope(spec cage.Spec, pid int) error {
	l, root := spec.Limits, os.Geteuid() == 0
	asked := l.MemoryBytes > 0 || l.CPUs > 0 || l.Processes > 0 && root && !ownPidMax()
	if !asked && !root {
		return nil
	}
	l.Processes = orDefault(l.Processes, defaultProcesses)
	err := startScope(l, pid, root)
	if err == nil || !asked || slices.Contains(spec.Without, LayerLimits) {
		return nil
	}
	return hinted(err, "limits need systemd as this user's or root's service manager, and its cgroup v2 controllers (see `systemctl --user status` and loginctl(1)); --without limits accepts a cage without them",
		"cannot limit the cage's memory, CPU time or processes")
}

func startScope(l cage.Limits, pid int, root bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), systemdTime)
	defer cancel()
	conn, err := connectSystemd(ctx, root)
	if err != nil {
		return err
	}
	defer conn.Close()
	name := fmt.Sprintf("agentcage-%d-%d.scope", pid, time.Now().UnixNano())
	done := make(chan string, 1)
	if _, err := conn.StartTransientUnitContext(ctx, name, "fail", properties(l, pid), done); err != nil {
		return err
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("systemd's answer is %q", result)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return verifyScope(l, pid, name)
}

// ownPidMax reports whether a pid namespace has a kernel.pid_max of its own, as
// since Linux 6.14. On an older kernel it is the host's, which uid 0 could
// change from inside a user namespace.
func ownPidMax() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 6 || major == 6 && minor >= 14)
}

// connectSystemd connects to the service manager by its bus, or directly where
// no bus runs. The library's own way would start a bus (dbus-launch) when there
// is none, which has no systemd behind it and stays behind.
func connectSystemd(ctx context.Context, root bool) (*dbus.Conn, error) {
	if root {
		conn, err := dbus.NewSystemConnectionContext(ctx)
		if err != nil {
			if c, err := dbus.NewSystemdConnectionContext(ctx); err == nil {
				return c, nil
			}
		}
		return conn, err
	}
	bus := func() (*godbus.Conn, error) {
		c, err := authenticated(godbus.SessionBusPrivateNoAutoStartup(godbus.WithContext(ctx)))
		if err != nil {
			return nil, err
		}
		if err := c.Hello(); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
	conn, err := dbus.NewConnection(bus)
	if err == nil {
		return conn, nil
	}
	private := "unix:path=" + godbus.EscapeBusAddressValue(fmt.Sprintf("/run/user/%d/systemd/private", os.Geteuid()))
	direct := func() (*godbus.Conn, error) { return authenticated(godbus.Dial(private, godbus.WithContext(ctx))) }
	if c, err := dbus.NewConnection(direct); err == nil {
		return c, nil
	}
	return nil, err
}

func authenticated(c *godbus.Conn, err error) (*godbus.Conn, error) {
	if err != nil {
		return nil, err
	}
	if err := c.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// properties are those of systemd.resource-control(5), by their names on the bus.
func properties(l cage.Limits, pid int) []dbus.Property {
	props := []dbus.Property{
		dbus.PropDescription("agentcage"),
		dbus.PropPids(uint32(pid)),
		{Name: "CollectMode", Value: godbus.MakeVariant("inactive-or-failed")},
		{Name: "TasksMax", Value: godbus.MakeVariant(uint64(l.Processes))},
	}
	if l.MemoryBytes > 0 {
		props = append(props,
			dbus.Property{Name: "MemoryMax", Value: godbus.MakeVariant(uint64(l.MemoryBytes))},
			dbus.Property{Name: "MemorySwapMax", Value: godbus.MakeVariant(uint64(0))})
	}
	if l.CPUs > 0 {
		props = append(props, dbus.Property{Name: "CPUQuotaPerSecUSec", Value: godbus.MakeVariant(uint64(math.Ceil(l.CPUs * 1e6)))})
	}
	return props
}

// cgroupRoot is where systemd mounts cgroup v2.
const cgroupRoot = "/sys/fs/cgroup"

// verifyScope reads back from the kernel where the process is and what holds
// there. systemd makes a scope, and reports success, also where it was not
// given the controller that a limit needs; the limit then does nothing.
func verifyScope(l cage.Limits, pid int, name string) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err
	}
	path := unifiedPath(string(b))
	if filepath.Base(path) != name {
		return fmt.Errorf("the cage is not in %s", name)
	}
	return verifyLimits(l, filepath.Join(cgroupRoot, path))
}

// unifiedPath is the path in cgroup v2 of what /proc/PID/cgroup says (cgroups(7)).
func unifiedPath(text string) string {
	for line := range strings.Lines(text) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path
		}
	}
	return ""
}

func verifyLimits(l cage.Limits, dir string) error {
	if l.MemoryBytes > 0 {
		if err := verifyMax(dir, "memory.max", float64(l.MemoryBytes)); err != nil {
			return err
		}
		// A kernel without swap has no such file.
		if err := verifyMax(dir, "memory.swap.max", 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if l.CPUs > 0 {
		// systemd rounds the quota of a period.
		if err := verifyMax(dir, "cpu.max", l.CPUs*1.01); err != nil {
			return err
		}
	}
	return verifyMax(dir, "pids.max", float64(l.Processes))
}

// verifyMax fails unless the file holds a number, or a quota and its period,
// that is no more than limit.
func verifyMax(dir, file string, limit float64) error {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("systemd was not given the cgroup controller for %s: %w", file, os.ErrNotExist)
	}
	if err != nil {
		return err
	}
	got, ok := parseMax(string(b))
	if !ok || got > limit {
		return fmt.Errorf("%s of the cage's cgroup is %q", file, strings.TrimSpace(string(b)))
	}
	return nil
}

func parseMax(s string) (float64, bool) {
	f := strings.Fields(s)
	if len(f) != 1 && len(f) != 2 {
		return 0, false
	}
	n, err := strconv.ParseUint(f[0], 10, 64) // "max" is no number
	if err != nil {
		return 0, false
	}
	if len(f) == 1 {
		return float64(n), true
	}
	period, err := strconv.ParseUint(f[1], 10, 64)
	return float64(n) / float64(period), err == nil && period > 0
}
