package process

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/agentcage/agentcage/internal/cage"
)

// LayerLimits is the layer of limits on memory and CPU time by cgroup.
const LayerLimits cage.Layer = "limits"

// systemdTime is how long the user's systemd may take to make a scope.
const systemdTime = 5 * time.Second

// scope is a transient unit of the user's systemd with the cage in it. It
// vanishes with its last process.
type scope struct {
	conn *dbus.Conn
	name string
}

// newScope puts init, and so the whole cage, into a cgroup with the limits
// that were asked for. Without any it does nothing.
func newScope(spec cage.Spec, pid int) (*scope, error) {
	l := spec.Limits
	if l.MemoryBytes <= 0 && l.CPUs <= 0 {
		return nil, nil
	}
	s, err := startScope(l, pid)
	if err != nil && slices.Contains(spec.Without, LayerLimits) {
		return nil, nil
	}
	if err != nil {
		return nil, hinted(err, "limits need a systemd user session with cgroup v2 (see loginctl(1)); --without limits accepts a cage without them",
			"cannot limit the cage's memory or CPU time")
	}
	return s, nil
}

func startScope(l cage.Limits, pid int) (*scope, error) {
	ctx, cancel := context.WithTimeout(context.Background(), systemdTime)
	defer cancel()
	connect := dbus.NewUserConnectionContext
	if os.Geteuid() == 0 {
		connect = dbus.NewSystemConnectionContext
	}
	conn, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	s := &scope{conn: conn, name: fmt.Sprintf("agentcage-%d-%d.scope", pid, time.Now().UnixNano())}
	done := make(chan string, 1)
	if _, err = conn.StartTransientUnitContext(ctx, s.name, "fail", properties(l, pid), done); err == nil {
		select {
		case result := <-done:
			if result != "done" {
				err = fmt.Errorf("systemd says %s", result)
			}
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err == nil {
		err = s.verify(pid)
	}
	if err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

func properties(l cage.Limits, pid int) []dbus.Property {
	props := []dbus.Property{
		dbus.PropDescription("agentcage"),
		dbus.PropPids(uint32(pid)),
		{Name: "CollectMode", Value: godbus.MakeVariant("inactive-or-failed")},
	}
	if l.MemoryBytes > 0 {
		props = append(props,
			dbus.Property{Name: "MemoryMax", Value: godbus.MakeVariant(uint64(l.MemoryBytes))},
			dbus.Property{Name: "MemorySwapMax", Value: godbus.MakeVariant(uint64(0))})
	}
	if l.CPUs > 0 {
		usec := uint64(math.Max(1000, l.CPUs*1e6))
		props = append(props, dbus.Property{Name: "CPUQuotaPerSecUSec", Value: godbus.MakeVariant(usec)})
	}
	if l.Processes > 0 {
		props = append(props, dbus.Property{Name: "TasksMax", Value: godbus.MakeVariant(uint64(l.Processes))})
	}
	return props
}

// verify reads back where the process is: a unit that was made is not yet a
// limit that holds.
func (s *scope) verify(pid int) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok && strings.HasSuffix(path, "/"+s.name) {
			return nil
		}
	}
	return fmt.Errorf("the cage is not in %s", s.name)
}

func (s *scope) remove() {
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), systemdTime)
	defer cancel()
	_, _ = s.conn.StopUnitContext(ctx, s.name, "fail", nil) // usually gone by itself
	s.conn.Close()
}
