//go:build linux

package cagetest

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/cage"
	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

func replyIn(t *testing.T, line string) wire.Reply {
	t.Helper()
	var r wire.Reply
	must(t, json.Unmarshal([]byte(line), &r))
	return r
}

var fileChecks = []check{
	{"credentials-of-the-home-directory", "87 88 D-home", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, f := range []string{".ssh/id_ed25519", ".aws/credentials", ".netrc", ".config/gcloud/credentials.db", ".bash_history", "notes.txt"} {
			p := filepath.Join(s.home, f)
			if b, err := os.ReadFile(p); err != nil || string(b) != hostSecret {
				t.Fatalf("the control failed: %v", err)
			}
			if r := in.ask(wire.Ask{Do: "read", Path: p}); r.OK() {
				t.Errorf("%s can be read: %q", f, r.Data)
			}
		}
		for _, p := range in.works(wire.Ask{Do: "find", Path: s.home}).List {
			if r := in.ask(wire.Ask{Do: "read", Path: p}); strings.Contains(r.Text(), hostSecret) {
				t.Errorf("the host's secret is in %s", p)
			}
		}
	}},
	{"other-users-and-root", "88", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, dir := range []string{"/root", "/home", "/mnt", "/media", "/srv", "/boot", "/lost+found", "/var/lib/docker", "/var/log", "/var/spool/cron", "/var/mail", "/run/user"} {
			r := in.ask(wire.Ask{Do: "list", Path: dir})
			for _, name := range r.List {
				if filepath.Join(dir, name) == s.home || strings.HasPrefix(s.home, filepath.Join(dir, name)+"/") || strings.HasPrefix(in.dir, filepath.Join(dir, name)+"/") || strings.HasPrefix(s.probe, filepath.Join(dir, name)+"/") {
					continue
				}
				sub := in.ask(wire.Ask{Do: "find", Path: filepath.Join(dir, name)})
				for _, p := range sub.List {
					if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() && in.ask(wire.Ask{Do: "read", Path: p}).OK() && !toolPath(p) {
						t.Errorf("%s of the host can be read", p)
					}
				}
			}
		}
	}},
	{"etc-without-secrets", "88", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, p := range []string{"/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssl/private", "/etc/machine-id", "/etc/krb5.keytab", "/etc/NetworkManager", "/etc/wireguard", "/etc/apt/auth.conf"} {
			if r := in.ask(wire.Ask{Do: "read", Path: p}); r.OK() && len(r.Data) > 0 {
				t.Errorf("%s can be read", p)
			}
		}
		in.works(wire.Ask{Do: "read", Path: "/etc/passwd"})
	}},
	{"environment", "82 B4 76", func(t *testing.T, s *suite) {
		in := s.cage(t, withSpec(func(spec *cage.Spec) { spec.Env = []string{"GIVEN=one", "GIVEN=two", "HOME_PAGE=x"} }))
		env := map[string]string{}
		for _, kv := range in.works(wire.Ask{Do: "env"}).List {
			k, v, _ := strings.Cut(kv, "=")
			if _, twice := env[k]; twice {
				t.Errorf("%s is set twice", k)
			}
			env[k] = v
			if strings.Contains(kv, hostSecret) || strings.Contains(kv, "host-proxy.test") {
				t.Errorf("the host's variable came along: %s", kv)
			}
		}
		if env["GIVEN"] != "two" || env["HOME_PAGE"] != "x" {
			t.Errorf("the given variables are %q and %q", env["GIVEN"], env["HOME_PAGE"])
		}
		for _, k := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
			if !strings.HasPrefix(env[k], "http://127.0.0.1:") {
				t.Errorf("%s is %q", k, env[k])
			}
		}
		for _, k := range []string{"NO_PROXY", "no_proxy"} {
			if strings.Contains(env[k], "*") {
				t.Errorf("%s is %q", k, env[k])
			}
		}
		for _, k := range []string{"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE", "DENO_CERT"} {
			if env[k] == "" {
				t.Errorf("%s is not set", k)
				continue
			}
			if !strings.Contains(in.works(wire.Ask{Do: "read", Path: env[k]}).Text(), "BEGIN CERTIFICATE") {
				t.Errorf("%s names a file without certificates", k)
			}
		}
		if env["HOME"] == "" || env["PATH"] == "" {
			t.Errorf("HOME is %q, PATH is %q", env["HOME"], env["PATH"])
		}
		in.works(wire.Ask{Do: "write", Path: env["HOME"] + "/mine", Data: []byte("x")})
	}},
	{"certificate-authority", "73 74 122", func(t *testing.T, s *suite) {
		in := s.cage(t)
		block, _ := pem.Decode(in.gw.CACertificate())
		own, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		if own.PublicKeyAlgorithm != x509.ECDSA {
			t.Errorf("the authority's key is %v", own.PublicKeyAlgorithm)
		}
		found := false
		for _, p := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
			found = found || in.ask(wire.Ask{Do: "holds", Path: p, Data: in.gw.CACertificate()}).OK()
		}
		if !found {
			t.Error("no system bundle of the cage has the cage's authority")
		}
		// A second cage has another one.
		if other := s.cage(t); string(other.gw.CACertificate()) == string(in.gw.CACertificate()) {
			t.Error("two cages share an authority")
		}
	}},
	{"authority-key-is-not-inside", "73 E1", func(t *testing.T, s *suite) {
		in := s.cage(t)
		for _, dir := range []string{"/etc", "/run", "/tmp", "/var", in.dir, s.home, "/dev/shm"} {
			for _, p := range in.ask(wire.Ask{Do: "find", Path: dir}).List {
				if strings.HasPrefix(p, "/etc/ssl/certs/") || strings.HasPrefix(p, "/tmp/go-build") {
					continue
				}
				if r := in.ask(wire.Ask{Do: "read", Path: p}); strings.Contains(r.Text(), "PRIVATE KEY-----") && strings.Contains(r.Text(), "-----BEGIN") {
					t.Errorf("%s holds a private key", p)
				}
			}
		}
	}},
	{"descriptors", "76 E7", func(t *testing.T, s *suite) {
		// What the starter has open, marked to be inherited or not, is closed.
		leak, err := os.Open(filepath.Join(s.home, "notes.txt"))
		must(t, err)
		defer leak.Close()
		in := s.cage(t)
		for _, fd := range in.works(wire.Ask{Do: "fds"}).List {
			if n, _, _ := strings.Cut(fd, " "); n != "0" && n != "1" && n != "2" && !strings.Contains(fd, "/sys/kernel/mm") && !strings.Contains(fd, "/sys/fs/cgroup") {
				t.Errorf("the agent has descriptor %s", fd)
			}
		}
	}},
	{"mounts-show-nothing-of-the-host", "75 88", func(t *testing.T, s *suite) {
		in := s.cage(t)
		r := in.works(wire.Ask{Do: "read", Path: "/proc/self/mountinfo"})
		for line := range strings.Lines(r.Text()) {
			f := strings.Fields(line)
			if len(f) > 4 && (f[4] == "/.host" || f[4] == s.home+"/.ssh" || f[4] == "/root") && f[4] != s.home {
				t.Errorf("mounted: %s", line)
			}
		}
	}},
	{"working-directory", "89 E2", func(t *testing.T, s *suite) {
		in := s.cage(t)
		if r := in.works(wire.Ask{Do: "cwd"}); r.Text() != in.dir {
			t.Errorf("the agent works in %q, want %q", r.Text(), in.dir)
		}
		in.works(wire.Ask{Do: "write", Path: "result.txt", Data: []byte("done")})
		if b, err := os.ReadFile(filepath.Join(in.dir, "result.txt")); err != nil || string(b) != "done" {
			t.Errorf("on the host: %q %v", b, err)
		}
		fi, err := os.Stat(filepath.Join(in.dir, "result.txt"))
		must(t, err)
		if o := owner(fi); o != os.Getuid() {
			t.Errorf("the file belongs to %d", o)
		}
		if r := in.ask(wire.Ask{Do: "list", Path: filepath.Dir(in.dir)}); len(r.List) > 1 {
			t.Errorf("the parent directory shows %v", r.List)
		}
	}},
	{"renames-and-links-between-directories", "91 control", func(t *testing.T, s *suite) {
		// What git, npm and apt do all the time.
		in := s.cage(t)
		for _, top := range []string{in.dir, "/tmp/work", "/var/tmp/work", s.home + "/work"} {
			in.works(wire.Ask{Do: "mkdir", Path: top + "/a/deep"})
			in.works(wire.Ask{Do: "mkdir", Path: top + "/b"})
			in.works(wire.Ask{Do: "write", Path: top + "/a/file", Data: []byte("x")})
			in.works(wire.Ask{Do: "rename", Path: top + "/a/file", To: top + "/b/file"})
			in.works(wire.Ask{Do: "link", Path: top + "/b/file", To: top + "/a/other"})
			in.works(wire.Ask{Do: "rename", Path: top + "/a/deep", To: top + "/b/deep"})
			in.works(wire.Ask{Do: "symlink", Path: top + "/link", To: "b/file"})
			in.works(wire.Ask{Do: "read", Path: top + "/link"})
			in.works(wire.Ask{Do: "remove", Path: top + "/b"})
		}
	}},
	{"symlinks-out-of-the-tree", "E2 89", func(t *testing.T, s *suite) {
		secret := filepath.Join(s.home, ".ssh", "id_ed25519")
		dir := t.TempDir()
		must(t, os.Symlink(secret, filepath.Join(dir, "link")))
		must(t, os.Symlink(s.home, filepath.Join(dir, "home")))
		in := s.cage(t, withSpec(func(spec *cage.Spec) { spec.Dir = dir }))
		for _, p := range []string{"link", "home/.ssh/id_ed25519"} {
			if r := in.ask(wire.Ask{Do: "read", Path: p}); strings.Contains(r.Text(), hostSecret) {
				t.Errorf("%s can be read", p)
			}
			if b, err := os.ReadFile(filepath.Join(dir, p)); err != nil || string(b) != hostSecret {
				t.Errorf("the control failed: %v", err)
			}
		}
	}},
	{"further-paths", "89 91", func(t *testing.T, s *suite) {
		rw, ro := t.TempDir(), t.TempDir()
		must(t, os.WriteFile(ro+"/data", []byte("read me"), 0o600))
		in := s.cage(t, withSpec(func(spec *cage.Spec) {
			spec.ReadWrite, spec.ReadOnly = append(spec.ReadWrite, rw), append(spec.ReadOnly, ro)
		}))
		if r := in.works(wire.Ask{Do: "read", Path: ro + "/data"}); r.Text() != "read me" {
			t.Errorf("the file says %q", r.Data)
		}
		in.refused(wire.Ask{Do: "write", Path: ro + "/data", Data: []byte("x")})
		in.refused(wire.Ask{Do: "write", Path: ro + "/new", Data: []byte("x")})
		in.works(wire.Ask{Do: "write", Path: rw + "/new", Data: []byte("x")})
	}},
	{"read-only-within-read-write", "E1", func(t *testing.T, s *suite) {
		dir := t.TempDir()
		cfg := filepath.Join(dir, "conf", "cage.yaml")
		must(t, os.MkdirAll(filepath.Dir(cfg), 0o755))
		must(t, os.WriteFile(cfg, []byte("name: x\n"), 0o600))
		in := s.cage(t, withSpec(func(spec *cage.Spec) { spec.Dir, spec.ReadOnly = dir, append(spec.ReadOnly, cfg) }))
		in.refused(wire.Ask{Do: "write", Path: cfg, Data: []byte("x")})
		in.refused(wire.Ask{Do: "remove", Path: cfg})
		in.refused(wire.Ask{Do: "rename", Path: cfg, To: dir + "/other"})
		in.refused(wire.Ask{Do: "rename", Path: dir + "/conf", To: dir + "/other"})
		in.works(wire.Ask{Do: "read", Path: cfg})
		if b, err := os.ReadFile(cfg); err != nil || string(b) != "name: x\n" {
			t.Errorf("on the host: %q %v", b, err)
		}
	}},
	{"sensitive-paths-need-a-word", "88 87", func(t *testing.T, s *suite) {
		ssh := filepath.Join(s.home, ".ssh")
		for _, p := range []string{ssh, filepath.Join(ssh, "id_ed25519"), s.home, "/", "/etc/shadow", "/run", "/proc", s.world.unix.addr} {
			if _, err := os.Lstat(p); err != nil {
				continue
			}
			if _, err := s.start(t, withSpec(func(spec *cage.Spec) { spec.ReadOnly = append(spec.ReadOnly, p) })); err == nil {
				t.Errorf("%s was given to a cage", p)
			}
		}
		link := filepath.Join(t.TempDir(), "innocent")
		must(t, os.Symlink(ssh, link))
		if _, err := s.start(t, withSpec(func(spec *cage.Spec) { spec.ReadOnly = append(spec.ReadOnly, link) })); err == nil {
			t.Error("~/.ssh was given to a cage through a link")
		}
		if _, err := s.start(t, withSpec(func(spec *cage.Spec) { spec.Dir = s.home })); err == nil {
			t.Error("the home directory was given to a cage as the working directory")
		}
		// The positive control: the user said so.
		in := s.cage(t, withSpec(func(spec *cage.Spec) {
			spec.ReadOnly, spec.AllowSensitive = append(spec.ReadOnly, ssh), []string{ssh}
		}))
		if r := in.works(wire.Ask{Do: "read", Path: ssh + "/id_ed25519"}); r.Text() != hostSecret {
			t.Errorf("the key is %q", r.Data)
		}
	}},
	{"persistent-home", "106", func(t *testing.T, s *suite) {
		home := t.TempDir()
		for n := range 2 {
			in := s.cage(t, withSpec(func(spec *cage.Spec) { spec.PersistentHome = home }))
			var at string
			for _, kv := range in.works(wire.Ask{Do: "env"}).List {
				if v, ok := strings.CutPrefix(kv, "HOME="); ok {
					at = v
				}
			}
			r := in.ask(wire.Ask{Do: "read", Path: at + "/state"})
			if n == 1 && r.Text() != "kept" {
				t.Errorf("the second start has %q in its home", r.Data)
			}
			in.works(wire.Ask{Do: "write", Path: at + "/state", Data: []byte("kept")})
			must(t, in.p.Kill())
			_, _ = in.p.Wait()
		}
		// And without one, nothing is kept.
		in := s.cage(t)
		in.refused(wire.Ask{Do: "stat", Path: s.home + "/state"})
	}},
	{"private-directories-are-empty", "72 75", func(t *testing.T, s *suite) {
		mark := filepath.Join(os.TempDir(), "agentcage-suite-host-file")
		must(t, os.WriteFile(mark, []byte(hostSecret), 0o644))
		defer os.Remove(mark)
		in := s.cage(t)
		in.refused(wire.Ask{Do: "read", Path: mark})
		in.refused(wire.Ask{Do: "read", Path: "/dev/shm/" + filepath.Base(mark)})
		if l := in.works(wire.Ask{Do: "list", Path: "/dev/shm"}).List; len(l) > 0 {
			t.Errorf("/dev/shm has %v", l)
		}
		if l := in.works(wire.Ask{Do: "list", Path: "/run"}).List; slices.Contains(l, "systemd") || slices.Contains(l, "docker.sock") {
			t.Errorf("/run has %v", l)
		}
	}},
	{"missing-path-is-an-error", "89", func(t *testing.T, s *suite) {
		if in, err := s.start(t, withSpec(func(spec *cage.Spec) { spec.ReadOnly = append(spec.ReadOnly, "/nonexistent/path") })); err == nil {
			_ = in.p.Kill()
			t.Error("a path that does not exist was accepted")
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := s.newBackend(t).Start(ctx, cage.Spec{Name: "x", Command: []string{s.probe}, Dir: t.TempDir()}, func(cage.Listeners) error { return nil }); err == nil {
			t.Error("a start whose context had ended worked")
		}
	}},
}

// toolPath reports whether a path is of a tool chain that PATH names, which a
// cage may show.
func toolPath(p string) bool {
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		top := filepath.Dir(dir)
		if real, err := filepath.EvalSymlinks(dir); err == nil && strings.HasPrefix(p, filepath.Dir(real)+"/") && filepath.Dir(real) != "/" {
			return true
		}
		if top != "/" && strings.HasPrefix(p, top+"/") {
			return true
		}
	}
	return false
}
