//go:build linux

package container

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/quadlet"
	"github.com/agentcage/agentcage/test/testhost"
)

const generator = "/usr/libexec/podman/quadlet"

// hostile are values that mean something to one of the readers.
var hostile = []string{
	"plain", "two words", " a ", "a  b", "", `"`, `'`, `it's`, `say "hi"`, `\`, `a\b`, `a\\`, `\n`, `\x41`, `\u0041`, `\`, `a\ b`,
	"%", "%%", "%h", "100%", "%i%n", "$", "$$", "$HOME", "${HOME}", "a$HOME b", "$PATH", ";", "a;b", "; rm -rf", "&& true", "|", "`id`",
	"#", "#a", "-", "--", "--privileged", "-v/:/host", "@a", "+a", "!a", ":a", "*", "?", "~", "~/x", "{a,b}", "[Service]", "a=b", "=", ",", "a,b",
	"é", "日本語", "😀", "a\u00a0b", "\u200b", "<>", "(a)", "\\\\server\\share", strings.Repeat("x", 8000),
}

// TestValuesArrive runs units whose podman is a program that shows its
// arguments: what the generator and systemd made of a value.
func TestValuesArrive(t *testing.T) {
	h := testhost.Start(t)
	probe := program(t, h, "github.com/agentcage/agentcage/test/container/probe")
	flag := func(name string) func(string) []string { return func(v string) []string { return []string{name, v} } }
	pair := func(name string) func(string) []string {
		return func(v string) []string { return []string{name, variable(v) + "=" + v} }
	}
	// What each value becomes. A key that may be there once has a unit for
	// each, and so fewer of them.
	repeated := map[string]func(string) []string{
		"Environment": pair("--env"),
		"Label":       pair("--label"),
		"Exec":        flag("before"), "PodmanArgs": flag("before"),
		"Volume": flag("-v"), "Tmpfs": flag("--tmpfs"), "PublishPort": flag("--publish"), "Secret": flag("--secret"),
		"Network": flag("--network"), "DNS": flag("--dns"), "Ulimit": flag("--ulimit"), "AddHost": flag("--add-host"),
	}
	once := map[string]func(string) []string{
		"User": flag("--user"), "HostName": flag("--hostname"), "HealthCmd": flag("--health-cmd"), "WorkingDir": flag("--workdir"),
		"UserNS": flag("--userns"), "Entrypoint": flag("--entrypoint"), "StopSignal": flag("--stop-signal"),
	}
	want := map[string][][]string{}
	refused := map[string]int{}
	write := func(name, key string, values []string, as func(string) []string) {
		f := quadlet.New(name + ".container")
		c := f.Section("Container").Add("Image", "localhost/image:1")
		var args []string
		for _, v := range values {
			switch line := as(v); key {
			case "Exec", "PodmanArgs":
				if quadlet.Fits("Container", key, v) == nil {
					args, want[name] = append(args, line...), append(want[name], line)
				}
			case "Environment", "Label":
				if quadlet.Fits("Container", key, variable(v), v) == nil {
					c.Add(key, variable(v), v)
					want[name] = append(want[name], line)
				}
			default:
				if quadlet.Fits("Container", key, v) == nil {
					c.Add(key, v)
					want[name] = append(want[name], line)
				}
			}
		}
		refused[key] += len(values) - len(want[name])
		if args != nil {
			c.Add(key, args...)
		}
		f.Section("Quadlet").Add("DefaultDependencies", "false")
		data, err := f.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		h.Put(t, "units/"+name+".container", data, 0o644)
	}
	for key, as := range repeated {
		write(strings.ToLower(key), key, hostile, as)
	}
	for key, as := range once {
		for i, v := range hostile {
			if quadlet.Fits("Container", key, v) == nil {
				write(fmt.Sprintf("%s-%d", strings.ToLower(key), i), key, []string{v}, as)
			}
		}
	}
	for key, most := range map[string]int{"Exec": 2, "Environment": 0, "Label": 0, "PodmanArgs": 2} {
		if refused[key] > most {
			t.Errorf("%s refuses %d values", key, refused[key])
		}
	}
	start := h.Put(t, "start", []byte(`set -eu
mkdir -p ~/.config/systemd/user ~/out
QUADLET_UNIT_DIRS=/share/units `+generator+` -user ~/.config/systemd/user
cd ~/.config/systemd/user
for s in *.service; do
	sed -i -e '/^ExecStop/d; /^Type=/d; /^NotifyAccess=/d; /^Delegate=/d; /^KillMode=/d' -e 's#^ExecStart=/usr/bin/podman#ExecStart=`+probe+` show#' \
		-e "s#^\[Service\]#&\nType=oneshot\nStandardOutput=truncate:/home/agent/out/${s%.service}#" "$s"
done
systemctl --user daemon-reload
systemctl --user start -- *.service || true
`), 0o755)
	if r := h.Exec(testhost.User, "sh", start); r.Code != 0 || r.Stderr != "" {
		t.Errorf("code %d: %s", r.Code, r.Stderr)
	}
	for name, runs := range want {
		var got struct{ Args []string }
		out := h.Exec(testhost.User, "cat", "out/"+name).Stdout
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Errorf("%s: %v\n%s", name, err, h.Exec(testhost.User, "cat", ".config/systemd/user/"+name+".service").Stdout)
			continue
		}
		for _, run := range runs {
			if !contains(got.Args, run) {
				t.Errorf("%s: %q did not arrive: %.600q", name, run, got.Args)
			}
		}
	}
}

// TestKeysAreKnown asks the generator about every key of the table, and about
// one that nobody has.
func TestKeysAreKnown(t *testing.T) {
	h := testhost.Start(t)
	for _, ending := range []string{"container", "network", "volume"} {
		own := strings.ToUpper(ending[:1]) + ending[1:]
		for _, key := range append(quadlet.Known("." + ending)[own], "Unheard") {
			h.Put(t, "keys/"+strings.ToLower(ending+"-"+key)+"."+ending,
				[]byte("["+own+"]\n"+imageLine(ending)+key+"=1\n"), 0o644)
		}
	}
	stderr := h.Exec(testhost.User, "env", "QUADLET_UNIT_DIRS=/share/keys", generator, "-dryrun", "-user").Stderr
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, "unsupported key") && !strings.Contains(line, "Unheard") {
			t.Error(line)
		}
	}
	if strings.Count(stderr, "unsupported key 'Unheard'") != 3 {
		t.Errorf("the generator does not say what it does not know:\n%s", stderr)
	}
}

// imageLine is the line without which a container is refused for that alone.
func imageLine(ending string) string {
	if ending == "container" {
		return "Image=localhost/image:1\n"
	}
	return ""
}

// variable is a name for the value of a variable.
func variable(v string) string { return fmt.Sprintf("N%d", slices.Index(hostile, v)) }

// contains tells whether part is a run of all.
func contains(all, part []string) bool {
	for i := range all {
		if len(all)-i >= len(part) && slices.Equal(all[i:i+len(part)], part) {
			return true
		}
	}
	return false
}
