package podman

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/quadlet"
)

var update = flag.Bool("update", false, "write the golden files")

func facts() Facts {
	return Facts{
		Gateway: "localhost/agentcage:0123456789abcdef01234567", Agent: "localhost/my-agent:latest",
		Net:    Net{netip.MustParsePrefix("10.89.7.0/24"), netip.MustParsePrefix("fd5c:5a7e:0:7::/64")},
		Config: "/home/u/.config/agentcage/deployments/demo/proxy-config.yaml", ResolvConf: "/home/u/.config/agentcage/deployments/demo/resolv.conf",
		Roots: "/etc/ssl/certs/ca-certificates.crt", Placeholders: map[string]string{"API_KEY": "{{API_KEY}}"},
	}
}

func representative() *config.Config {
	c := config.Default()
	c.Name = "demo"
	c.Injection.Rules = []config.InjectionRule{{Env: "API_KEY", Placeholder: "{{API_KEY}}"}}
	t := &c.Container
	t.Image = "localhost/my-agent:latest"
	t.Command = []string{"sh", "-c", `echo "hello $USER", 100%`}
	t.Volumes = []string{"/home/u/my project:/project:rw"}
	t.NamedVolumes = map[string]string{"demo-data": "/data", "demo-cache": "/cache:rw"}
	t.Tmpfs = []string{"/tmp:size=64m"}
	t.Env = map[string]string{"GREETING": `it's "50%" of $HOME`, "EMPTY": ""}
	t.Ports = []string{"3000:3000", "0.0.0.0:3001:3001"}
	t.PodmanSecrets = []string{"API_KEY", "DB_PASSWORD"}
	t.Memory, t.CPUs = "2g", "1.5"
	t.AddCapabilities = []string{"CHOWN"}
	return c
}

// TestGolden is the specification of a cage's units. They are read back, too.
func TestGolden(t *testing.T) {
	files, err := Units(representative(), facts())
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 6 {
		t.Errorf("%d units", len(files))
	}
	for _, f := range files {
		got, err := f.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", f.Name)
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s:\n%s", f.Name, diff)
		}
		if _, err := quadlet.Parse(f.Name, got); err != nil {
			t.Error(err)
		}
	}
}

// TestHostile is a config made to break out of a unit, an argument list or the
// cage. Each is refused, and what is beside it in the table's first line is not.
func TestHostile(t *testing.T) {
	tests := []struct {
		name string
		make func(*config.Config, *Facts)
		want string // in the message; empty is taken
	}{
		{"control: specials that arrive", func(c *config.Config, _ *Facts) {
			c.Container.Env["A"] = `"; rm -rf / #%n$(id)\`
			c.Container.Command = []string{"--privileged", "; x", "[Service]"}
			c.Container.Volumes = []string{"/home/u/50% $HOME 'x':/w"}
		}, ""},
		{"name with a newline", func(c *config.Config, _ *Facts) { c.Name = "demo\n" }, "no name for a cage"},
		{"name with a path", func(c *config.Config, _ *Facts) { c.Name = "../demo" }, "no name for a cage"},
		{"no name", func(c *config.Config, _ *Facts) { c.Name = "" }, "no name for a cage"},
		{"image with a newline", func(_ *config.Config, f *Facts) { f.Agent = "x\nPodmanArgs=--privileged" }, "control character"},
		{"no image", func(_ *config.Config, f *Facts) { f.Agent = "" }, "it is empty"},
		{"variable with a newline", func(c *config.Config, _ *Facts) { c.Container.Env["A"] = "x\nUser=0" }, "control character"},
		{"name of a variable", func(c *config.Config, _ *Facts) { c.Container.Env["A\nUser"] = "0" }, "control character"},
		{"name of a variable with quotes", func(c *config.Config, _ *Facts) { c.Container.Env[`A" "B`] = "0" }, "is no name"},
		{"argument with a newline", func(c *config.Config, _ *Facts) { c.Container.Command = []string{"sh", "-c", "a\nb"} }, "control character"},
		{"empty argument", func(c *config.Config, _ *Facts) { c.Container.Command = []string{"sh", ""} }, "empty argument"},
		{"lone semicolon", func(c *config.Config, _ *Facts) { c.Container.Command = []string{"find", ";"} }, "semicolon"},
		{"user with a newline", func(c *config.Config, _ *Facts) { c.Container.User = "1000\nReadOnly=false" }, "control character"},
		{"relative volume", func(c *config.Config, _ *Facts) { c.Container.Volumes = []string{"data:/w"} }, "no absolute path"},
		{"volume of a unit", func(c *config.Config, _ *Facts) { c.Container.Volumes = []string{"demo-ca.volume:/w"} }, "no absolute path"},
		{"volume that climbs", func(c *config.Config, _ *Facts) { c.Container.Volumes = []string{"/home/u/../v:/w"} }, "no absolute path"},
		{"specifier", func(c *config.Config, _ *Facts) { c.Container.Volumes = []string{"%h/.ssh:/w"} }, "no absolute path"},
		{"volume over the certificate", func(c *config.Config, _ *Facts) { c.Container.Volumes = []string{"/home/u/x:/certs"} }, "is reserved"},
		{"volume over resolv.conf", func(c *config.Config, _ *Facts) { c.Container.Volumes = []string{"/home/u/x:/etc/resolv.conf"} }, "is reserved"},
		{"tmpfs over the certificate", func(c *config.Config, _ *Facts) { c.Container.Tmpfs = []string{"/certs"} }, "is reserved"},
		{"volume over everything", func(c *config.Config, _ *Facts) { c.Container.Volumes = []string{"/home/u/x:/"} }, "is reserved"},
		{"volume without a target", func(c *config.Config, _ *Facts) { c.Container.Volumes = []string{"/home/u/x"} }, "not mounted"},
		{"our volume with the key", func(c *config.Config, _ *Facts) {
			c.Container.NamedVolumes = map[string]string{"agentcage-ca-demo": "/w"}
		}, "reserved"},
		{"our volume's unit", func(c *config.Config, _ *Facts) { c.Container.NamedVolumes = map[string]string{"demo-ca.volume": "/w"} }, "reserved"},
		{"capability", func(c *config.Config, _ *Facts) { c.Container.AddCapabilities = []string{"cap_net_admin"} }, "get past the gateway"},
		{"all capabilities", func(c *config.Config, _ *Facts) { c.Container.AddCapabilities = []string{"ALL"} }, "get past the gateway"},
		{"capability with a newline", func(c *config.Config, _ *Facts) { c.Container.AddCapabilities = []string{"CHOWN\nUser=0"} }, "control character"},
		{"port with a newline", func(c *config.Config, _ *Facts) { c.Container.Ports = []string{"1:1\nUser=0"} }, "control character"},
		{"secret with a newline", func(c *config.Config, _ *Facts) { c.Container.PodmanSecrets = []string{"A\nUser=0"} }, "no name of a variable"},
		{"secret with options", func(c *config.Config, _ *Facts) { c.Container.PodmanSecrets = []string{"A,type=mount,target=/x"} }, "no name of a variable"},
		{"injected secret with options", func(c *config.Config, _ *Facts) { c.Injection.Rules[0].Env = "A,mode=0444" }, "no name of a variable"},
		{"memory with a newline", func(c *config.Config, _ *Facts) { c.Container.Memory = "1g\nUser=0" }, "control character"},
		{"path with a newline", func(_ *config.Config, f *Facts) { f.Config = "/home/u\n/x" }, "control character"},
		{"no network", func(_ *config.Config, f *Facts) { f.Net = Net{} }, "a /24 and a /64"},
		{"wide network", func(_ *config.Config, f *Facts) { f.Net.V4 = netip.MustParsePrefix("10.0.0.0/8") }, "a /24 and a /64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, f := representative(), facts()
			tt.make(c, &f)
			files, err := Units(c, f)
			switch {
			case tt.want == "" && err != nil:
				t.Fatal(err)
			case tt.want == "":
				for _, file := range files {
					data, _ := file.Bytes()
					if bytes.Count(data, []byte("[Service]\n")) > 1 {
						t.Errorf("%s has a section too many:\n%s", file.Name, data)
					}
				}
			case err == nil || !strings.Contains(err.Error(), tt.want):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestSecretsStayOut holds that a secret that is injected never gets to the agent.
func TestSecretsStayOut(t *testing.T) {
	files, err := Units(representative(), facts())
	if err != nil {
		t.Fatal(err)
	}
	cage, proxy := files[5], files[4]
	inCage, err := cage.Get("Container", "Secret")
	if err != nil || len(inCage) != 1 || !strings.HasPrefix(inCage[0][0], "demo.DB_PASSWORD,") {
		t.Errorf("the agent gets %v, %v", inCage, err)
	}
	inProxy, err := proxy.Get("Container", "Secret")
	if err != nil || len(inProxy) != 1 || !strings.HasPrefix(inProxy[0][0], "demo.API_KEY,type=mount,") {
		t.Errorf("the gateway gets %v, %v", inProxy, err)
	}
}
