package config

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentcage/agentcage/internal/hostname"
)

// compareUnexported compares what a config says; its hash differs with every
// spelling of the same.
var compareUnexported = cmp.Options{
	cmp.Exporter(func(reflect.Type) bool { return true }),
	cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "Sum" }, cmp.Ignore()),
}

// TestDefault writes the defaults of the original and of this project out
// once more, by hand (rule 94).
func TestDefault(t *testing.T) {
	want := &Config{
		MaxRequestBody: 10485760,
		RateLimit:      RateLimit{RequestsPerSecond: 10, Burst: 50},
		Budget: Budget{
			Enabled: true, Window: 24 * time.Hour,
			Each: Limits{Bytes: Threshold{Flag: 1 << 30}, Requests: Threshold{Flag: 50000}, Hosts: Threshold{Flag: 50, Block: 200}},
		},
		Logging:   Logging{Level: "info"},
		WebSocket: WebSocket{OnBlock: "close"},
		Process:   Process{Home: "private"},
		Container: Container{
			User: "1000:1000", ReadOnly: true, DropCapabilities: []string{"ALL"}, NoNewPrivileges: true,
			SecurityLabelDisable: true, Restart: "on-failure", RestartSec: 10, TimeoutStartSec: 120, TimeoutStopSec: 30,
		},
		Firecracker: Firecracker{VCPUs: 2, MemMB: 2048, Binary: "firecracker"},
		Secrets:     Secrets{Enabled: true, BuiltinAllowToDomains: true, Action: "block"},
		Entropy: Entropy{
			Enabled: true, Threshold: 7, MinBodyBytes: 256, Action: "block",
			ExemptContentTypes: []string{"image/", "application/gzip", "application/zip"},
			CheckURLParams:     true, CheckURLPath: true, URLThreshold: 5.5, URLMinValueBytes: 64,
		},
		ContentType: ContentType{Enabled: true, EntropyCeiling: 6.5, DetectBase64: true, Base64MinLen: 256, Action: "block"},
	}
	if d := cmp.Diff(want, Default(), compareUnexported); d != "" {
		t.Errorf("defaults differ (-want +got):\n%s", d)
	}
	c, err := Parse("cage.yaml", []byte("name: demo\n"))
	if err != nil {
		t.Fatal(err)
	}
	want.Name, want.File = "demo", "cage.yaml"
	if d := cmp.Diff(want, c, compareUnexported); d != "" {
		t.Errorf("a file that says nothing differs from the defaults (-want +got):\n%s", d)
	}
}

// TestDefaultIsFresh holds that no caller can change the defaults of another.
func TestDefaultIsFresh(t *testing.T) {
	a := Default()
	a.Container.DropCapabilities[0] = "NONE"
	a.Entropy.ExemptContentTypes[0] = "text/"
	if b := Default(); b.Container.DropCapabilities[0] != "ALL" || b.Entropy.ExemptContentTypes[0] != "image/" {
		t.Error("two calls of Default share a list")
	}
}

// TestNothingMeansNothing is peer-holes B13: whatever is absent, empty or
// null allows nothing, beside a control that allows.
func TestNothingMeansNothing(t *testing.T) {
	for _, s := range []string{
		"", "domains:", "domains: {}", "domains: null", "domains: ~", "domains: {allow: }", "domains: {allow: []}",
		"domains: {block: }", "domains: {block: []}", "domains: {mode: blocklist}", "domains: {mode: blocklist, list: }",
		"domains: {mode: blocklist, list: []}", "domains: {mode: allowlist}", "domains: {mode: , list: }",
		"domains: {passthrough: }", "domains: {passthrough: []}", "domains: {list: []}",
	} {
		c, err := Parse("cage.yaml", []byte("name: demo\n"+s+"\n"))
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		if c.Domains.Reachable() || c.Domains.Mode == Blocklist || len(c.Domains.Entries) > 0 {
			t.Errorf("%q allows something: %+v", s, c.Domains)
		}
		if !warns(c, "nothing is reachable") {
			t.Errorf("%q: no warning that nothing is reachable", s)
		}
	}
	for _, s := range []string{"domains: {allow: [a.example]}", "domains: {block: [a.example]}", "domains: {passthrough: [a.example]}"} {
		c, err := Parse("cage.yaml", []byte("name: demo\n"+s+"\n"))
		if err != nil || !c.Domains.Reachable() || warns(c, "nothing") {
			t.Errorf("%q: %v, %+v", s, err, c)
		}
	}
	if (Domains{}).Reachable() || (Domains{Mode: "open", Entries: make([]Entry, 1)}).Reachable() {
		t.Error("a zero or an unknown mode reaches something")
	}
}

func warns(c *Config, text string) bool {
	for _, w := range c.Warnings() {
		if strings.Contains(w.String(), text) {
			return true
		}
	}
	return false
}

// TestEveryNullIsRefusedOrHarmless gives every key of the table no value
// (peer-holes B13, "null booleans"): it is an error, or the config is that
// of a file without the key, or it is one of those that null switches off.
func TestEveryNullIsRefusedOrHarmless(t *testing.T) {
	off := map[string]bool{
		"container.user": true, "container.drop_capabilities": true, "container.timeout_start_sec": true,
		"container.timeout_stop_sec": true, "entropy.exempt_content_types": true, // stricter than the default
	}
	for _, k := range Keys() {
		if strings.Contains(k.Path, "[]") || k.Path == "name" {
			continue
		}
		base := Default()
		head := "name: demo\ncontainer:\n  image: x\n"
		text := head + nest(k.Path, "")
		if sub, ok := strings.CutPrefix(k.Path, "container."); ok {
			text = head + "  " + sub + ":\n"
			if sub == "image" {
				text = "name: demo\ncontainer:\n  image:\n"
			}
		}
		if k.Path == "container" {
			continue
		}
		c, err := Parse("cage.yaml", []byte(text))
		if err != nil {
			if !strings.Contains(err.Error(), k.Path+": it has no value") {
				t.Errorf("%s: null gives another error:\n%v", k.Path, err)
			}
			continue
		}
		base.Name, base.File, base.Container.Image = c.Name, c.File, c.Container.Image
		base.warnings, base.Domains.Mode = c.warnings, c.Domains.Mode
		if d := cmp.Diff(base, c, compareUnexported); d != "" != off[k.Path] {
			t.Errorf("%s: null changes the config:\n%s", k.Path, d)
		}
	}
}

func nest(path, value string) string {
	var b strings.Builder
	parts := strings.Split(path, ".")
	for i, p := range parts {
		b.WriteString(strings.Repeat("  ", i) + p + ":")
		if i == len(parts)-1 {
			b.WriteString(" " + value)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// TestKeysAreDocumented holds the table itself to its form.
func TestKeysAreDocumented(t *testing.T) {
	seen := make(map[string]bool)
	for _, k := range Keys() {
		if seen[k.Path] {
			t.Errorf("%s is there twice", k.Path)
		}
		seen[k.Path] = true
		if k.Type == "" || !strings.HasSuffix(k.Doc, ".") || strings.Contains(k.Doc, "\n") {
			t.Errorf("%s has no type, or no one-line doc: %q %q", k.Path, k.Type, k.Doc)
		}
	}
	for _, p := range []string{
		"domains.allow[].host", "rate_limit.wait", "process.unguarded", "secret_injection[].inject_to",
		"secret_injection.rules[].env", "secrets.extra_patterns[].pattern", "inspectors[].config", "logging.dns",
	} {
		if !seen[p] {
			t.Errorf("%s is not in the table", p)
		}
	}
}

// TestSettingEveryDefault sets each key to its documented default: the config
// must not change.
func TestSettingEveryDefault(t *testing.T) {
	for _, k := range Keys() {
		if k.Default == "" || strings.Contains(k.Path, "[]") || strings.HasPrefix(k.Path, "container.") {
			continue
		}
		c, err := Parse("cage.yaml", []byte("name: demo\n"+nest(k.Path, k.Default)))
		if err != nil {
			t.Errorf("%s: %v", k.Path, err)
			continue
		}
		want := Default()
		want.Name, want.File, want.warnings = "demo", "cage.yaml", c.warnings
		if d := cmp.Diff(want, c, compareUnexported); d != "" {
			t.Errorf("%s: its default changes the config:\n%s", k.Path, d)
		}
	}
}

// TestLoadRefuses is about files rather than what is in them.
func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, append([]byte("name: demo\n"), bytes.Repeat([]byte("# x\n"), maxFile/4)...), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): "none.yaml: cannot read: no such file",
		dir:                             "cannot read: it is not an ordinary file",
		"/dev/zero":                     "cannot read: it is not an ordinary file",
		big:                             "cannot read: it is larger than 1048576 bytes",
		"a\x00b":                        "cannot read: invalid argument",
	} {
		c, err := Load(file)
		var all Errors
		if c != nil || !errors.As(err, &all) || !strings.Contains(err.Error(), want) {
			t.Errorf("Load(%q) = %v, %v; want %q", file, c, err, want)
		}
	}
	if _, err := Load(filepath.Join(dir, "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file is no fs.ErrNotExist: %v", err)
	}
	if _, err := Parse("cage.yaml", bytes.Repeat([]byte("#"), maxFile+1)); err == nil {
		t.Error("Parse takes more than 1 MiB")
	}
}

// TestLoadResolvesPaths holds that paths are those of the file's folder, not
// of the working directory.
func TestLoadResolvesPaths(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "cage.yaml")
	if err := os.WriteFile(file, []byte("name: demo\nprocess: {read_only: [data, \"~/x\"], env: {A: $HOME}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", "/home/user")
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Process.ReadOnly; got[0] != filepath.Join(dir, "data") || got[1] != "/home/user/x" {
		t.Errorf("paths are %q", got)
	}
	if c.Process.Env["A"] != "$HOME" {
		t.Errorf("the environment was read: %q", c.Process.Env["A"])
	}
	for _, home := range []string{"", "relative"} {
		t.Setenv("HOME", home)
		if _, err := Load(file); err == nil {
			t.Errorf("HOME=%q: ~ was resolved", home)
		}
	}
}

// TestLimits gives more than the file may hold, beside what it may.
func TestLimits(t *testing.T) {
	hosts := func(n int) string {
		return "name: demo\ndomains:\n  allow:\n" + strings.Repeat("    - a.example\n", n)
	}
	tests := []struct {
		name, text, want string
	}{
		{"entries", hosts(maxItems), ""},
		{"too many entries", hosts(maxItems + 1), "more than 10000 entries"},
		{"too many keys", "name: demo\nprocess:\n  env:\n" + numbered("    A%: x\n", maxItems+1), "more than 10000 keys"},
		{"too many values", "name: demo\ninspectors: [{name: entropy, config: {a: [" + strings.Repeat("["+strings.Repeat("a,", 9000)+"],", 6) + "]}}]\n", "more than 50000 values"},
		{"long text", "name: demo\nprocess: {env: {A: " + strings.Repeat("a", maxText+1) + "}}\n", "longer than 65536 bytes"},
		{"text", "name: demo\nprocess: {env: {A: " + strings.Repeat("a", maxText) + "}}\n", ""},
		{"long path", "name: demo\nprocess: {read_only: [/" + strings.Repeat("a", maxString) + "]}\n", "longer than 4096 bytes"},
		{"deep", "name: " + strings.Repeat("[", 20000), "cannot read"},
	}
	for _, tt := range tests {
		_, err := Parse("cage.yaml", []byte(tt.text))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got %.200v, want %q", tt.name, err, tt.want)
		}
		var all Errors
		if errors.As(err, &all) && len(all) > maxErrors {
			t.Errorf("%s: %d errors", tt.name, len(all))
		}
	}
}

func numbered(line string, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Replace(line, "%", strconv.Itoa(i), 1))
	}
	return b.String()
}

// TestErrorsKeepSecrets is rules 57 and 71: what may be a credential is in no
// message, whole or in part.
func TestErrorsKeepSecrets(t *testing.T) {
	for _, s := range []string{
		"upstream:\n  proxy: http://me:hunter2@proxy.corp:3128\n",
		"upstream:\n  proxy: https://hunter2@proxy.corp\n",
		"process:\n  env:\n    TOKEN: {a: hunter2}\n",
		"process:\n  env:\n    TOKEN: [hunter2]\n",
		"process:\n  env:\n    \"BAD-NAME\": hunter2\n",
		"container:\n  image: x\n  env: {\"1\": hunter2}\n",
	} {
		_, err := Parse("cage.yaml", []byte("name: demo\n"+s))
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestErrorsAreSafeToPrint holds that a hostile file cannot drive a terminal
// through its own error messages.
func TestErrorsAreSafeToPrint(t *testing.T) {
	for _, s := range []string{
		"name: \x1b]0;x\x07\n", "\x1b[2J: 1\n", "name: demo\n\"\\e[2J\": 1\n", "name: demo\nisolation: \"\\e[2J\"\n",
		"name: demo\ndomains: {allow: [\"a\u202eb\"]}\n", "name: demo\n\"a\\u202eb\": 1\n", "name: \xff\x1b[0m\n",
		"name: demo\ndomains: {allow: [\"\\x9b2J.example\"]}\n",
	} {
		_, err := Parse("cage\x1b.yaml", []byte(s))
		if err == nil {
			t.Errorf("%q is accepted", s)
			continue
		}
		for _, r := range err.Error() {
			if r != '\n' && isControl(r) {
				t.Errorf("%q: the message holds %U: %q", s, r, err.Error())
				break
			}
		}
	}
}

// TestCanonicalHosts is rule 13: what the config says is canonicalised like
// what requests say.
func TestCanonicalHosts(t *testing.T) {
	c, err := Parse("cage.yaml", []byte("name: demo\ndomains: {allow: [Example.COM., \"[2001:DB8::1]\", BÜCHER.example]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"example.com", "2001:db8::1", "xn--bcher-kva.example"} {
		if got := c.Domains.Entries[i]; got.Host != hostname.MustParse(want) || got.Position.Line != 2 {
			t.Errorf("entry %d is %+v, want %s", i, got, want)
		}
	}
}

func TestValidName(t *testing.T) {
	for _, s := range []string{"a", "0", "a-", "my-app-2", strings.Repeat("a", 63)} {
		if !ValidName(s) {
			t.Errorf("%q is refused", s)
		}
	}
	for _, s := range []string{"", "-a", "A", "a_b", "a.b", "a\n", "a\x00", "a ", "ä", "../x", strings.Repeat("a", 64)} {
		if ValidName(s) {
			t.Errorf("%q is accepted", s)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"allow", "block", "passthrough", "mode", "list"}
	for in, want := range map[string]string{
		"alow": "allow", "allwo": "allow", "Allow": "allow", "blocked": "block", "pass": "passthrough",
		"lists": "list", "zzz": "", "": "", strings.Repeat("x", 500): "",
	} {
		if got := nearest(in, names); got != want {
			t.Errorf("nearest(%.20q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzParse holds that nothing panics, that every error has a place, and that
// a config that was read is one that its own rules accept.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil && len(data) < 4096 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("cage.yaml", data)
		if err == nil {
			revalidate(t, c)
			return
		}
		var all Errors
		if c != nil || !errors.As(err, &all) || len(all) == 0 {
			t.Fatalf("error of type %T beside %v", err, c)
		}
		for _, e := range all {
			if len(data) <= maxFile && (e.Line < 1 || e.Column < 1) {
				t.Errorf("no place: %v", e)
			}
			if e.Why == "" || strings.Contains(e.Summary(), "\n") {
				t.Errorf("bad message: %q", e.Summary())
			}
		}
		for _, r := range err.Error() {
			if r != '\n' && isControl(r) {
				t.Fatalf("the message holds %U: %q", r, err.Error())
			}
		}
	})
}

func revalidate(t *testing.T, c *Config) {
	if !ValidName(c.Name) {
		t.Errorf("name %q", c.Name)
	}
	if c.Domains.Mode == Blocklist && len(c.Domains.Entries) == 0 {
		t.Error("an empty blocklist allows everything")
	}
	for _, e := range append(c.Domains.Entries, c.Domains.Passthrough...) {
		again, err := hostname.Parse(e.Host.String())
		if err != nil || again != e.Host || e.Position.Line < 1 {
			t.Errorf("entry %+v: %v", e, err)
		}
		for _, p := range e.Paths {
			if why, _ := checkGlob(p); why != "" {
				t.Errorf("path %q %s", p, why)
			}
		}
	}
	for _, s := range append(append([]string{c.Upstream.Proxy}, c.Upstream.CAFiles...), c.Process.ReadWrite...) {
		if strings.ContainsAny(s, "\x00\n\r\x1b") {
			t.Errorf("control characters in %q", s)
		}
	}
	if !(c.RateLimit.RequestsPerSecond >= 0) || c.RateLimit.Burst < 0 || c.RateLimit.Wait < 0 || c.MaxRequestBody < 0 || c.Process.MemoryBytes < 0 || !(c.Process.CPUs >= 0) {
		t.Errorf("a negative limit: %+v", c)
	}
	for _, w := range c.Warnings() {
		if strings.Contains(w.String(), "\n") {
			t.Errorf("a warning of two lines: %q", w)
		}
	}
}

// TestErrorsAreAllThere holds that one run tells everything, in the order of
// the file, and that callers can take it apart.
func TestErrorsAreAllThere(t *testing.T) {
	_, err := Parse("cage.yaml", []byte("isolation: x\nname: A\nlogging: {level: 1, zz: 2}\n"))
	var all Errors
	if !errors.As(err, &all) || len(all) != 4 {
		t.Fatalf("got %d errors:\n%v", len(all), err)
	}
	for i, want := range []string{"isolation", "name", "logging.level", "logging.zz"} {
		if all[i].Key != want || all[i].Hint == "" {
			t.Errorf("error %d is about %s, want %s: %v", i, all[i].Key, want, all[i])
		}
	}
	if n := strings.Count(all.Summary(), "; "); n != 3 || strings.Contains(all.Summary(), "\n") {
		t.Errorf("summary is %q", all.Summary())
	}
	if got := strings.Count(err.Error(), "hint: "); got != 4 {
		t.Errorf("%d hints in:\n%v", got, err)
	}
}
