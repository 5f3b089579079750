package process

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/cage"
)

// fakeHome is a home directory with credentials in it.
func fakeHome(t *testing.T) string {
	t.Helper()
	home := filepath.Join(project(t), "home")
	write(t, filepath.Join(home, ".ssh/id_ed25519"), "key")
	write(t, filepath.Join(home, ".aws/credentials"), "key")
	write(t, filepath.Join(home, ".config/gcloud/x"), "key")
	write(t, filepath.Join(home, ".netrc"), "key")
	write(t, filepath.Join(home, "proj/main.go"), "x")
	write(t, filepath.Join(home, "bin/tool"), "#!/bin/sh\necho tool runs\n")
	os.Chmod(filepath.Join(home, "bin/tool"), 0o755)
	t.Setenv("HOME", home)
	return home
}

func TestSensitivePaths(t *testing.T) {
	home := fakeHome(t)
	proj := filepath.Join(home, "proj")
	link := filepath.Join(home, "proj/innocent")
	if err := os.Symlink("../.ssh", link); err != nil {
		t.Fatal(err)
	}
	dirLink := filepath.Join(home, "elsewhere")
	os.Symlink(home, dirLink)
	for _, tt := range []struct {
		name    string
		dir     string
		rw, ro  []string
		allow   []string
		refused string // what the error names; empty when the cage starts
	}{
		{"project", proj, nil, nil, nil, ""},
		{"home itself", home, nil, nil, nil, home},
		{"link to home", dirLink, nil, nil, nil, home},
		{"above home", filepath.Dir(home), nil, nil, nil, "home directory"},
		{"root", "/", nil, nil, nil, "/"},
		{"etc", "/etc", nil, nil, nil, "/etc"},
		{"key directory", filepath.Join(home, ".ssh"), nil, nil, nil, ".ssh"},
		{"below a key directory", proj, nil, []string{filepath.Join(home, ".ssh/id_ed25519")}, nil, ".ssh"},
		{"contains one", proj, nil, []string{filepath.Join(home, ".config")}, nil, ".config/gcloud"},
		{"a file", proj, nil, []string{filepath.Join(home, ".netrc")}, nil, ".netrc"},
		{"by a link", proj, []string{link}, nil, nil, ".ssh"},
		{"by dots", proj, []string{proj + "/../.aws"}, nil, nil, ".aws"},
		{"run", proj, nil, []string{"/run"}, nil, "/run"},
		{"shadow", proj, nil, []string{"/etc/shadow"}, nil, "/etc/shadow"},
		{"missing", proj, nil, []string{filepath.Join(home, "nothing")}, nil, "nothing"},
		{"allowed", proj, nil, []string{filepath.Join(home, ".netrc")}, []string{filepath.Join(home, ".netrc")}, ""},
		{"another is allowed", proj, nil, []string{filepath.Join(home, ".netrc")}, []string{filepath.Join(home, ".aws")}, ".netrc"},
		{"one of two is allowed", filepath.Dir(home), nil, nil, []string{filepath.Join(home, ".ssh")}, "home directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newPlan(cage.Spec{Command: []string{"true"}, Dir: tt.dir, ReadWrite: tt.rw, ReadOnly: tt.ro, AllowSensitive: tt.allow})
			if tt.refused == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("not refused")
			}
			if !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("%v does not name %s", err, tt.refused)
			}
			var h *Error
			if tt.name != "missing" && (!errors.As(err, &h) || !strings.Contains(h.Hint(), "--allow-sensitive") && tt.dir != "/") {
				t.Errorf("no way out: %v", err)
			}
		})
	}
}

func TestHomeInTheCage(t *testing.T) {
	home := fakeHome(t)
	t.Setenv("PATH", filepath.Join(home, "bin")+":"+filepath.Join(home, ".ssh")+":"+os.Getenv("PATH"))
	proj := filepath.Join(home, "proj")
	spec := shell(proj, `tool; cat main.go; cat "$HOME/.ssh/id_ed25519" "$HOME/.netrc"; echo x > "$HOME/.bashrc" && echo private; echo x > "$HOME/bin/tool" || echo read-only; case $PATH in *.ssh*) echo PATH-LEAK;; esac; ls -a "$HOME"`)
	o := run{spec: spec}.run(t)
	o.want(t, 0, "tool runs", "private", "read-only")
	for _, bad := range []string{"key\n", ".aws", "PATH-LEAK"} {
		if strings.Contains(o.out, bad) {
			t.Errorf("%q in output:\n%s", bad, o.out)
		}
	}
	if _, err := os.Stat(filepath.Join(home, ".bashrc")); err == nil {
		t.Error("the cage wrote to the real home")
	}
}

func TestPersistentHome(t *testing.T) {
	dir := project(t)
	home := filepath.Join(t.TempDir(), "kept")
	os.Mkdir(home, 0o700)
	for _, script := range []string{`echo kept > "$HOME/state"`, `cat "$HOME/state"`} {
		spec := shell(dir, script)
		spec.PersistentHome = home
		o := run{spec: spec}.run(t)
		o.want(t, 0)
		if strings.HasPrefix(script, "cat") {
			o.want(t, 0, "kept")
		}
	}
}

// What was checked is what is mounted: a path that is replaced in between, by
// a link or by another directory, ends the start (E2).
func TestReplacedBetweenCheckAndMount(t *testing.T) {
	needNamespaces(t)
	for _, tt := range []struct {
		name    string
		replace func(dir, secret string) error
	}{
		{"by a link", func(dir, secret string) error { return os.Symlink(secret, dir) }},
		{"by a directory", func(dir, secret string) error { return os.Mkdir(dir, 0o755) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base := project(t)
			dir, shared, secret := filepath.Join(base, "dir"), filepath.Join(base, "shared"), filepath.Join(base, "secret")
			for _, d := range []string{dir, shared, secret} {
				os.Mkdir(d, 0o755)
			}
			afterPlan = func() {
				os.Rename(shared, shared+".old")
				if err := tt.replace(shared, secret); err != nil {
					t.Error(err)
				}
			}
			defer func() { afterPlan = nil }()
			spec := shell(dir, "ls")
			spec.ReadWrite = []string{shared}
			p, err := Backend{}.Start(t.Context(), spec, func(l cage.Listeners) error { closeListeners(l); return nil })
			if err == nil {
				p.Kill()
				p.Wait()
				t.Fatal("the cage was started")
			}
			if !strings.Contains(err.Error(), shared) {
				t.Errorf("%v does not name %s", err, shared)
			}
		})
	}
}

func TestNamespaceHint(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		err         error
		want        string
	}{
		{"kernel/apparmor_restrict_unprivileged_userns", "1", unix.EACCES, "AppArmor"},
		{"kernel/unprivileged_userns_clone", "0", unix.EPERM, "unprivileged_userns_clone=1"},
		{"user/max_user_namespaces", "0", unix.ENOSPC, "max_user_namespaces"},
		{"", "", unix.ENOSPC, "limit on namespaces"},
		{"", "", unix.EINVAL, "CONFIG_USER_NS"},
		{"", "", unix.EPERM, "container"},
	} {
		hint := namespaceHint(tt.err, func(name string) string {
			if name == tt.name {
				return tt.value
			}
			return ""
		})
		if !strings.Contains(hint, tt.want) {
			t.Errorf("%s=%s: %q lacks %q", tt.name, tt.value, hint, tt.want)
		}
	}
}

func TestHoldsCredential(t *testing.T) {
	for text, want := range map[string]bool{
		"registry=https://registry.example.com/\n":         false,
		"//registry.example.com/:_authToken=abc\n":         true,
		"index-url = https://user:pw@example.com/simple\n": true,
		"[global]\ntimeout = 60\n":                         false,
		"[http]\n\tsslCAInfo = /x\n":                       false,
		"[credential]\n\thelper = store\n\tusername = x\n": true,
	} {
		if got := holdsCredential(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// A flood of refusals is a bounded number of records, and none is lost count of.
func TestRefusalsAreCoalesced(t *testing.T) {
	r := newRefusals()
	const flood = 10000
	for i := range flood {
		r.add(audit.KindTCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 22), "")
		r.add(audit.KindTCP, netip.MustParseAddrPort("10.9.9.9:23"), "")
	}
	if len(r.pending) > refusalKeys+4 {
		t.Errorf("%d kept", len(r.pending))
	}
	total := 0
	for range 100 {
		for drained := false; !drained; {
			select {
			case ref := <-r.out:
				total += ref.Count
			default:
				drained = true
			}
		}
		r.flush()
	}
	if total != 2*flood {
		t.Errorf("counted %d of %d", total, 2*flood)
	}
	r.close()
	r.close()
	r.add(audit.KindTCP, netip.AddrPort{}, "after the end")
}

func FuzzParseRefusal(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 8, 8, 8, 8, 127, 0, 0, 1, 0, 22, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x14})
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 8, 58, 64}, make([]byte, 60)...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, dest, _, ok := parseRefusal(b)
		if ok && !slices.Contains([]string{audit.KindTCP, audit.KindUDP, audit.KindICMP}, kind) {
			t.Errorf("kind %q for %v", kind, dest)
		}
	})
}
