//go:build linux

package testhost

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// childEnv makes this test binary a run of its own, which is killed.
const childEnv = "TESTHOST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	os.Exit(Main(m))
}

func child() int {
	h, err := boot()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Printf("%s %d\n", filepath.Dir(h.Share), h.Leader())
	select {} // until it is killed
}

// TestKilled holds that a run that is killed takes its host along, that the
// next sweep removes what it left, and that the hosts of others stay.
func TestKilled(t *testing.T) {
	h := Start(t)
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childEnv+"=1")
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	var leader int
	if _, err := fmt.Fscan(out, &dir, &leader); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/root"); err != nil {
		t.Errorf("the other host is not where it says: %v", err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if _, err := h.run("sweep"); err != nil {
		t.Error(err)
	}
	for _, left := range []string{dir, dir + ".lock", fmt.Sprintf("/proc/%d/root/share", leader)} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s is left behind", left)
		}
	}
	if out := h.Must(t, User, "ls", "/share"); out == "" && h.Leader() == 0 {
		t.Error("this host is gone, too")
	}
}

// TestHost holds what every other test of container mode stands on.
func TestHost(t *testing.T) {
	h := Start(t)
	t.Run("ready", func(t *testing.T) {
		if out := h.Must(t, Root, "systemctl", "is-system-running"); out != "running\n" {
			t.Errorf("the host is %s%s", out, h.Must(t, Root, "systemctl", "--failed", "--no-pager"))
		}
		if out := h.Must(t, User, "systemctl", "--user", "is-system-running"); out != "running\n" {
			t.Errorf("its user's services are %s", out)
		}
	})
	t.Run("rootless podman", func(t *testing.T) {
		out := h.Must(t, User, "podman", "info", "--format", "{{.Version.Version}} {{.Host.Security.Rootless}} {{.Store.GraphDriverName}} {{.Host.CgroupsVersion}}")
		if !strings.Contains(out, " true overlay v2") {
			t.Errorf("podman says %s", out)
		}
	})
	t.Run("exec", func(t *testing.T) {
		r := h.Exec(User, "sh", "-c", "id -un; pwd; echo no >&2; exit 7")
		if r != (Result{"agent\n/home/agent\n", "no\n", 7}) {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("share", func(t *testing.T) {
		at := h.Put(t, "a/file", []byte("hello"), 0o644)
		if out := h.Must(t, User, "cat", at); out != "hello" {
			t.Errorf("the host reads %q", out)
		}
	})
	t.Run("internet", func(t *testing.T) {
		for _, addr := range []string{"93.184.215.14:80", "[2606:2800::1]:80"} {
			l := h.Listen(t, "tcp", addr)
			go func() {
				if c, err := l.Accept(); err == nil {
					_, _ = c.Read(make([]byte, 4096))
					fmt.Fprint(c, "HTTP/1.0 200 OK\r\n\r\nfrom ", c.LocalAddr())
					c.Close()
				}
			}()
			if out := h.Must(t, User, "curl", "-sSg", "--max-time", "5", "http://"+addr); out != "from "+addr {
				t.Errorf("curl %s: %q", addr, out)
			}
		}
		if r := h.Exec(User, "curl", "-s", "--max-time", "5", "http://93.184.215.14:81"); r.Code != 7 {
			t.Errorf("a port without a listener: %+v", r)
		}
	})
	t.Run("reboot", func(t *testing.T) {
		h.Must(t, User, "touch", "kept")
		h.Reboot(t)
		h.Must(t, User, "rm", "kept")
	})
}
