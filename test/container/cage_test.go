//go:build linux

package container

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agentcage/agentcage/internal/backend/podman"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/test/testhost"
)

// TestUnits starts a cage from its units, with a program in the gateway's place
// that takes every connection and says what for.
func TestUnits(t *testing.T) {
	h := testhost.Start(t)
	probe := program(t, h, "github.com/agentcage/agentcage/test/container/probe")
	img := loaded(t, h, probe)
	c := config.Default()
	c.Name = "demo"
	c.Injection.Rules = []config.InjectionRule{{Env: "API_KEY"}}
	c.Container.Command = []string{"wait"}
	c.Container.Env = map[string]string{"GREETING": `it's "50%" of $HOME \n`, "EMPTY": ""}
	c.Container.NamedVolumes = map[string]string{"demo-data": "/data"}
	c.Container.Ports = []string{"3000:80"}
	f := podman.Facts{
		Gateway: img.Ref, Agent: img.Ref,
		Net:    podman.Net{V4: netip.MustParsePrefix("10.89.7.0/24"), V6: netip.MustParsePrefix("fd5c:5a7e:0:7::/64")},
		Config: h.Put(t, "demo/config.yaml", nil, 0o644), ResolvConf: h.Put(t, "demo/resolv.conf", []byte("nameserver 10.89.7.10\n"), 0o644),
		Roots: "/etc/ssl/certs/ca-certificates.crt", Placeholders: map[string]string{"API_KEY": "{{API_KEY}}"},
	}
	install(t, h, c, f)
	h.Must(t, testhost.User, "sh", "-c", "printf s3cret | podman secret create demo.API_KEY -")
	// Twice over: a stop takes nothing along that the next start needs.
	for range 2 {
		began := time.Now()
		r := h.Exec(testhost.User, "systemctl", "--user", "start", "demo-cage.service")
		t.Logf("the cage starts in %v", time.Since(began).Round(time.Millisecond))
		if r.Code != 0 {
			t.Fatalf("%s\n%s", r.Stderr, h.Journal())
		}
		t.Run("network", func(t *testing.T) { network(t, h) })
		t.Run("agent", func(t *testing.T) { agent(t, h) })
		t.Run("gateway", func(t *testing.T) {
			if got := h.Must(t, testhost.User, "podman", "exec", "demo-proxy", "/agentcage", "cat", "/run/secrets/API_KEY"); got != "s3cret" {
				t.Errorf("the gateway's secret is %q", got)
			}
			if got := h.Must(t, testhost.User, probe, "dial", "tcp", "127.0.0.1:3000"); !strings.HasPrefix(got, "you asked for 10.8") {
				t.Errorf("the published port says %q", got)
			} else {
				t.Logf("the published port says %q", got) // by either network, as it comes
			}
			if got := h.Must(t, testhost.User, probe, "dial", "tcp", testhost.Addr4+":3000"); !strings.Contains(got, "connection refused") {
				t.Errorf("the published port answers others: %q", got)
			}
			status := h.Must(t, testhost.User, "podman", "exec", "demo-dns", "/agentcage", "cat", "/proc/1/status")
			if !strings.Contains(status, "CapEff:\t0000000000000000") || !strings.Contains(status, "Uid:\t65532") || !strings.Contains(status, "NoNewPrivs:\t1") {
				t.Errorf("the DNS server has privileges:\n%s", status)
			}
		})
		t.Run("healing", func(t *testing.T) { healing(t, h) })
		began = time.Now()
		h.Must(t, testhost.User, "systemctl", "--user", "stop", "demo-cage.service", "demo-proxy.service", "demo-dns.service")
		t.Logf("the cage stops in %v", time.Since(began).Round(time.Millisecond))
	}
}

// healing kills the gateway: it comes back where it was, and the agent, which
// was not restarted, reaches it (rules.md 141).
func healing(t *testing.T, h *testhost.Host) {
	const pid = "podman inspect --format '{{.State.Pid}}' "
	before := h.Must(t, testhost.User, "sh", "-c", pid+"demo-cage")
	h.Must(t, testhost.User, "sh", "-c", "kill -9 $("+pid+"demo-proxy)")
	// The event is the unit's next READY=1: starting it again waits for it.
	for began := time.Now(); ; {
		h.Must(t, testhost.User, "systemctl", "--user", "start", "demo-proxy.service")
		got := h.Exec(testhost.User, "podman", "exec", "demo-cage", "/agentcage", "dial", "tcp", "93.184.215.14:443")
		if strings.HasPrefix(got.Stdout, "you asked for 93.184.215.14:443,") {
			t.Logf("the gateway is back in %v", time.Since(began).Round(time.Millisecond))
			break
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the agent reaches %q %q", got.Stdout, got.Stderr)
		}
	}
	if after := h.Must(t, testhost.User, "sh", "-c", pid+"demo-cage"); after != before {
		t.Errorf("the agent was restarted: %s, %s", before, after)
	}
}

// install writes a cage's units where the generator looks, and asks it first.
func install(t *testing.T, h *testhost.Host, c *config.Config, f podman.Facts) {
	t.Helper()
	files, err := podman.Units(c, f)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := file.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		h.Put(t, "cage/"+file.Name, data, 0o644)
	}
	r := h.Exec(testhost.User, "env", "QUADLET_UNIT_DIRS=/share/cage", generator, "-dryrun", "-user")
	if r.Code != 0 || strings.Contains(r.Stderr, "arning") || strings.Contains(r.Stderr, "rror") {
		t.Fatalf("the generator: code %d\n%s", r.Code, r.Stderr)
	}
	h.Must(t, testhost.User, "sh", "-c", "mkdir -p ~/.config/containers/systemd && cp /share/cage/* ~/.config/containers/systemd/ && systemctl --user daemon-reload")
	verify := h.Exec(testhost.User, "systemd-analyze", "--user", "verify", "/run/user/1000/systemd/generator/demo-cage.service")
	if verify.Code != 0 || strings.Contains(verify.Stderr, "demo-") {
		t.Errorf("systemd-analyze: code %d\n%s", verify.Code, verify.Stderr)
	}
}

// network holds that whatever the agent tries ends at the gateway.
func network(t *testing.T, h *testhost.Host) {
	const refused, nobody = "connection refused", "error:"
	tests := []struct{ network, addr, want string }{
		{"tcp", "10.89.7.11:8080", "you asked for 10.89.7.11:8080"},
		{"tcp", "93.184.215.14:443", "you asked for 93.184.215.14:443"},
		{"tcp", "93.184.215.14:80", "you asked for 93.184.215.14:80"},
		{"tcp", "[2606:2800::1]:443", "you asked for [2606:2800::1]:443"},
		{"tcp", "93.184.215.14:22", refused},
		{"tcp", "[2606:2800::1]:22", refused},
		{"udp", "8.8.8.8:53", refused},
		{"udp", "[2001:4860:4860::8888]:53", refused},
		{"tcp", "169.254.169.254:80", "you asked for 169.254.169.254:80"},
		{"tcp", testhost.Addr4 + ":22", refused},
		{"tcp", "10.89.7.1:22", refused},
		{"tcp", "10.89.7.10:22", refused},
		{"tcp", "10.89.8.2:80", "you asked for 10.89.8.2:80"},
		{"tcp", "10.88.0.1:22", refused},
		{"tcp", "10.89.7.77:80", nobody},
	}
	for _, tt := range tests {
		got := h.Exec(testhost.User, "podman", "exec", "demo-cage", "/agentcage", "dial", tt.network, tt.addr)
		if !strings.Contains(got.Stdout, tt.want) {
			t.Errorf("%s %s: %q %s, want %q", tt.network, tt.addr, got.Stdout, got.Stderr, tt.want)
		}
	}
	// The gateway itself has a way out, and the host's internet one listener.
	l := h.Listen(t, "tcp", "93.184.215.14:443")
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = conn.Read(make([]byte, 64))
			_, _ = conn.Write([]byte("the internet"))
			conn.Close()
		}
	}()
	if got := h.Must(t, testhost.User, "podman", "exec", "demo-proxy", "/agentcage", "dial", "tcp", "93.184.215.14:443"); got != "the internet\n" {
		t.Errorf("the gateway reaches %q", got)
	}
}

func agent(t *testing.T, h *testhost.Host) {
	var got struct{ Args, Env []string }
	args := []string{"two words", "", `"quoted" $HOME 100%`}
	out := h.Must(t, testhost.User, append([]string{"podman", "exec", "demo-cage", "/agentcage", "show"}, args...)...)
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Args, args) {
		t.Errorf("the arguments are %q", got.Args)
	}
	for _, want := range []string{`GREETING=it's "50%" of $HOME \n`, "EMPTY=", "API_KEY={{API_KEY}}", "https_proxy=http://10.89.7.11:8080"} {
		if !slices.Contains(got.Env, want) {
			t.Errorf("the environment lacks %q: %q", want, got.Env)
		}
	}
	status := h.Must(t, testhost.User, "podman", "exec", "demo-cage", "/agentcage", "cat", "/proc/1/status", "/etc/resolv.conf")
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t1000", "nameserver 10.89.7.10"} {
		if !strings.Contains(status, want) {
			t.Errorf("the agent has no %q:\n%s", want, status)
		}
	}
}
