//go:build linux

package cagetest

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

func itoa(n int) string { return strconv.Itoa(n) }

// field returns a line's value in a file such as /proc/PID/status.
func field(status, name string) string {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// powerless checks a /proc/PID/status.
func powerless(t *testing.T, who, status string) {
	t.Helper()
	if status == "" {
		t.Errorf("%s has an empty status", who)
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if v := field(status, set); v != "0000000000000000" {
			t.Errorf("%s has %s %q", who, set, v)
		}
	}
	if v := field(status, "NoNewPrivs"); v != "1" {
		t.Errorf("%s has NoNewPrivs %q", who, v)
	}
	if v := field(status, "Seccomp"); v != "2" {
		t.Errorf("%s has Seccomp %q", who, v)
	}
}

var privilegeChecks = []check{
	{"no-capability", "36 143 E6 B11", func(t *testing.T, s *suite) {
		in := s.cage(t)
		powerless(t, "the agent", in.works(wire.Ask{Do: "read", Path: "/proc/self/status"}).Text())
		if b, err := os.ReadFile("/proc/self/status"); err != nil || (os.Getuid() == 0 && field(string(b), "CapEff") == "0000000000000000") {
			t.Errorf("the control failed: %v: the host's own status shows no capability either", err)
		}
	}},
	{"no-capability-after-exec", "143 E6", func(t *testing.T, s *suite) {
		in := s.cage(t)
		r := in.works(wire.Ask{Do: "exec", Argv: []string{s.probe, "one", `{"Do":"read","Path":"/proc/self/status"}`}})
		powerless(t, "a child of the agent", replyIn(t, r.Text()).Text())
	}},
	{"every-thread", "E6", func(t *testing.T, s *suite) {
		in := s.cage(t)
		tasks := in.works(wire.Ask{Do: "list", Path: "/proc/self/task"}).List
		if len(tasks) < 2 {
			t.Fatalf("the probe has threads %v: nothing to look at", tasks)
		}
		for _, tid := range tasks {
			r := in.ask(wire.Ask{Do: "read", Path: "/proc/self/task/" + tid + "/status"})
			if r.OK() {
				powerless(t, "thread "+tid, r.Text())
			}
		}
	}},
	{"pid-1-is-powerless-too", "E6 36", func(t *testing.T, s *suite) {
		if withCgo {
			t.Skip("needs CGO_ENABLED=0: with cgo some threads of pid 1 cannot be confined")
		}
		in := s.cage(t)
		r := in.works(wire.Ask{Do: "read", Path: "/proc/1/status"})
		if v := field(r.Text(), "CapEff"); v != "0000000000000000" {
			t.Errorf("pid 1 of the cage has CapEff %q", v)
		}
	}},
	{"user-id", "E6 123", func(t *testing.T, s *suite) {
		in := s.cage(t)
		ids := in.works(wire.Ask{Do: "ids"}).List
		if ids[0] != itoa(os.Getuid()) || ids[1] != itoa(os.Getgid()) || ids[2] != itoa(os.Geteuid()) {
			t.Errorf("the agent is %v", ids)
		}
		in.refused(wire.Ask{Do: "write", Path: "/proc/self/uid_map", Data: []byte("0 0 4294967295")})
		in.refused(wire.Ask{Do: "write", Path: "/proc/self/setgroups", Data: []byte("allow")})
	}},
	{"setuid-programs-give-nothing", "E6", func(t *testing.T, s *suite) {
		// no_new_privs and nosuid mounts: a setuid bit has no effect.
		in := s.cage(t)
		mounts := in.works(wire.Ask{Do: "read", Path: "/proc/self/mountinfo"}).Text()
		if mounts == "" {
			t.Fatal("the cage has no mounts to look at")
		}
		for line := range strings.Lines(mounts) {
			fields := strings.Fields(line)
			if len(fields) > 5 && !strings.Contains(fields[5], "nosuid") {
				t.Errorf("%s is mounted %s", fields[4], fields[5])
			}
		}
	}},
	{"devices", "E6 36", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.refused(wire.Ask{Do: "mknod", Path: in.dir + "/disk", Nums: []int{8, 0}})
		in.refused(wire.Ask{Do: "mknod", Path: "/tmp/disk", Nums: []int{254, 0}})
		for _, d := range []string{"/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/port", "/dev/vsock", "/dev/vhost-net", "/dev/loop-control", "/dev/console", "/dev/tty1"} {
			in.refused(wire.Ask{Do: "read", Path: d})
			in.refused(wire.Ask{Do: "openrw", Path: d})
		}
		for _, d := range []string{"/dev/null", "/dev/zero"} {
			in.works(wire.Ask{Do: "openrw", Path: d})
		}
	}},
	{"mounts-cannot-be-changed", "36 B12", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.refused(wire.Ask{Do: "mount", Path: "/", To: "/tmp"})
		in.refused(wire.Ask{Do: "umount", Path: "/etc/resolv.conf"})
		in.refused(wire.Ask{Do: "umount", Path: "/proc"})
		in.refused(wire.Ask{Do: "umount", Path: in.dir})
	}},
	{"kernel-settings", "36", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, p := range []string{
			"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/ping_group_range",
			"/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/proc/self/oom_score_adj.x", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs", "/proc/sys/kernel/ns_last_pid",
		} {
			in.refused(wire.Ask{Do: "openrw", Path: p})
		}
		for _, p := range []string{"/proc/kcore", "/proc/kmsg", "/proc/kallsyms", "/proc/keys", "/proc/timer_list"} {
			if r := in.ask(wire.Ask{Do: "read", Path: p}); len(r.Data) > 0 {
				t.Errorf("%s can be read: %q", p, clip(r.Text()))
			}
		}
	}},
	{"limits", "114 E5", func(t *testing.T, s *suite) {
		in := s.cage(t)
		limits := in.works(wire.Ask{Do: "read", Path: "/proc/self/limits"}).Text()
		for _, name := range []string{"Max processes", "Max open files"} {
			for line := range strings.Lines(limits) {
				if strings.HasPrefix(line, name) && strings.Contains(line, "unlimited") {
					t.Errorf("no limit: %s", line)
				}
			}
		}
		for line := range strings.Lines(limits) {
			if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && f[4] != "0" {
				t.Errorf("core dumps are written: %s", line)
			}
		}
	}},
	{"host-name", "B10", func(t *testing.T, s *suite) {
		in := s.cage(t)
		h := in.works(wire.Ask{Do: "host"}).Text()
		if own, _ := os.Hostname(); h == "" || h == own {
			t.Errorf("the cage's host name is %q", h)
		}
	}},
	{"read-only-system", "36 91", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, dir := range []string{"/", "/usr", "/usr/bin", "/etc", "/bin", "/lib", "/opt", "/sbin", "/usr/local/bin", "/sys", "/var/lib/dpkg"} {
			if _, err := os.Stat(dir); err != nil {
				continue
			}
			in.refused(wire.Ask{Do: "write", Path: dir + "/planted", Data: []byte("x")})
		}
		in.works(wire.Ask{Do: "write", Path: "/tmp/mine-of-the-cage", Data: []byte("x")})
		in.works(wire.Ask{Do: "write", Path: in.dir + "/mine", Data: []byte("x")})
		if _, err := os.Stat("/tmp/mine-of-the-cage"); err == nil {
			t.Error("the cage's /tmp is the host's")
		}
		if _, err := os.Stat(in.dir + "/mine"); err != nil {
			t.Errorf("the working directory is not the host's: %v", err)
		}
	}},
	{"probe-inside-is-the-one-given", "149", func(t *testing.T, s *suite) {
		in := s.cage(t)
		in.refused(wire.Ask{Do: "write", Path: s.probe, Data: []byte("x")})
		in.refused(wire.Ask{Do: "remove", Path: s.probe})
		if fi, err := os.Stat(s.probe); err != nil || fi.Size() < 1000 {
			t.Errorf("the probe was changed: %v", err)
		}
	}},
}
