package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/agentcage/agentcage/internal/cage"
)

// sensitiveHome lists what holds credentials, or lets whoever has it act as
// the user, below a home directory.
var sensitiveHome = []string{
	// Keys and tokens of tools.
	".ssh", ".aws", ".gnupg", ".azure", ".kube", ".docker", ".netrc", "_netrc",
	".config/gcloud", ".config/gh", ".config/hub", ".config/glab-cli", ".config/doctl", ".config/op", ".config/sops",
	".config/rclone", ".config/containers", ".config/flyctl", ".fly", ".config/netlify", ".config/configstore",
	".config/age", ".age", ".oci", ".bluemix", ".config/scw", ".config/hcloud", ".config/heroku", ".terraform.d",
	".terraformrc", ".vault-token", ".git-credentials", ".config/git/credentials", ".npmrc", ".yarnrc.yml", ".pypirc",
	".config/pip", ".pip", ".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials", ".m2/settings.xml",
	".m2/settings-security.xml", ".gradle/gradle.properties", ".composer/auth.json", ".config/composer/auth.json",
	".nuget/NuGet", ".boto", ".s3cfg", ".pgpass", ".my.cnf", ".mylogin.cnf", ".huggingface", ".cache/huggingface/token",
	".kaggle", ".password-store", ".local/share/keyrings", ".local/share/kwalletd", ".pki", ".snowsql", ".databrickscfg",
	// Agents with their tokens, and what they run on the host.
	".claude", ".claude.json", ".codex", ".gemini", ".config/github-copilot", ".cursor", ".local/share/opencode",
	// Browsers and mail: sessions.
	".mozilla", ".config/google-chrome", ".config/chromium", ".config/BraveSoftware", ".config/microsoft-edge",
	".config/vivaldi", ".thunderbird", ".var/app", "snap",
	// What the user's next shell or desktop session runs.
	".bashrc", ".bash_profile", ".bash_login", ".profile", ".zshrc", ".zshenv", ".zprofile", ".config/fish",
	".config/autostart", ".config/systemd", ".gitconfig", ".config/git", ".bash_history", ".zsh_history",
	".local/state/agentcage", ".local/share/agentcage", ".config/agentcage",
}

// sensitiveSystem lists the like of it in the system.
var sensitiveSystem = []string{
	"/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh", "/etc/ssl/private", "/etc/pki/tls/private",
	"/etc/krb5.keytab", "/etc/NetworkManager/system-connections", "/etc/wireguard", "/etc/kubernetes", "/etc/rancher",
	"/etc/docker", "/etc/apt/auth.conf", "/etc/apt/auth.conf.d", "/etc/environment", "/etc/cron.d", "/etc/systemd",
	"/run", "/var/run", "/var/run/docker.sock", "/run/docker.sock", "/run/user", "/run/podman", "/run/containerd",
	"/var/lib/docker", "/var/lib/containers", "/var/lib/kubelet", "/var/lib/sss", "/var/spool/cron",
	"/nix/var/nix/daemon-socket", "/proc", "/sys", "/dev", "/boot", "/root", "/var/log", "/tmp/.X11-unix",
}

// credentials are the paths of one host and user, each with its identity.
type credentials struct {
	home  string
	paths []string // resolved and as listed
	ids   map[fileID]string
}

type fileID struct{ dev, ino uint64 }

func idOf(st os.FileInfo) fileID {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{s.Dev, s.Ino}
}

// knownCredentials collects what exists of the lists.
func knownCredentials(home string) *credentials {
	c := &credentials{home: home, ids: map[fileID]string{}}
	for _, p := range sensitiveHome {
		c.add(filepath.Join(home, p))
	}
	for _, p := range sensitiveSystem {
		c.add(p)
	}
	homes, _ := os.ReadDir("/home")
	for _, h := range homes {
		c.add("/home/" + h.Name())
	}
	return c
}

func (c *credentials) add(p string) {
	st, err := os.Stat(p)
	if err != nil {
		if os.IsNotExist(err) {
			return
		}
		c.paths = append(c.paths, p) // there, but not for us: nor for the cage
		return
	}
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		real = p
	}
	// The user's own home is no secret as a whole; what is in it is listed.
	if within(c.home, real) {
		return
	}
	c.paths = append(c.paths, p)
	if real != p {
		c.paths = append(c.paths, real)
	}
	c.ids[idOf(st)] = p
}

// within tells whether p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// conflicts returns what a mount of p, which is resolved, would give away: p
// is sensitive, lies below something that is, or contains it. Another name of
// the same directory, as by a bind mount, is found by identity.
func (c *credentials) conflicts(p string) []string {
	var found []string
	if p == "/" || within(c.home, p) {
		found = append(found, p)
	}
	for _, s := range c.paths {
		if within(p, s) || within(s, p) {
			found = append(found, s)
		}
	}
	for dir := p; len(found) == 0 && dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil {
			if s, ok := c.ids[idOf(st)]; ok {
				found = append(found, s)
			}
		}
	}
	return found
}

// mountPath is a path that the user gives to the cage, checked: resolved, with
// the identity of what was checked.
type mountPath struct {
	path string
	id   fileID
	dir  bool
}

// vet resolves a path and refuses one that gives credentials away.
func (c *credentials) vet(p, what string, allowed []string) (mountPath, error) {
	real, err := resolve(p)
	if err != nil {
		return mountPath{}, hinted(err, "", "cannot give the cage %s %s", what, p)
	}
	st, err := os.Lstat(real)
	if err != nil {
		return mountPath{}, hinted(err, "", "cannot give the cage %s %s", what, p)
	}
	if m := st.Mode(); !m.IsDir() && !m.IsRegular() {
		if m&os.ModeSocket == 0 || !permitted(real, real, allowed) {
			return mountPath{}, hinted(nil, "give the cage files and directories; a socket needs --allow-sensitive "+real,
				"cannot give the cage %s %s: it is a %s", what, p, kindOf(m))
		}
	}
	for _, s := range c.conflicts(real) {
		if !permitted(real, s, allowed) {
			return mountPath{}, c.refusal(p, real, s, what)
		}
	}
	return mountPath{real, idOf(st), st.IsDir()}, nil
}

func kindOf(m os.FileMode) string {
	switch {
	case m&os.ModeSocket != 0:
		return "socket"
	case m&os.ModeNamedPipe != 0:
		return "named pipe"
	default:
		return "device"
	}
}

func (c *credentials) refusal(p, real, s, what string) error {
	name := p
	if real != p {
		name += " (" + real + ")"
	}
	hint := "if that is meant, add --allow-sensitive " + s
	why := "it holds " + s
	switch {
	case s == "/":
		why = "it is the whole host"
		hint = "start the cage in a project's own directory"
	case s == real && within(c.home, real):
		why = "it holds the home directory with all its credentials"
		hint = "start the cage in a project's own directory; if all of it is meant, add --allow-sensitive " + real
	case within(real, s):
		why = "it may hold credentials (" + s + ")"
	}
	return hinted(nil, hint, "cannot give the cage %s %s: %s", what, name, why)
}

// permitted tells whether the user named the path itself, or the very thing
// that makes it sensitive.
func permitted(real, s string, allowed []string) bool {
	for _, a := range allowed {
		r, err := resolve(a)
		if err != nil {
			continue
		}
		if r == real || r == s || within(real, r) || within(s, r) {
			return true
		}
	}
	return false
}

func resolve(p string) (string, error) {
	if !filepath.IsAbs(p) {
		return "", fmt.Errorf("%s is not absolute", p)
	}
	return filepath.EvalSymlinks(p)
}

// vetAll vets what the user adds to the working directory.
func vetAll(c *credentials, spec cage.Spec) (rw, ro []mountPath, err error) {
	for _, p := range spec.ReadWrite {
		m, err := c.vet(p, "read-write", spec.AllowSensitive)
		if err != nil {
			return nil, nil, err
		}
		rw = append(rw, m)
	}
	for _, p := range spec.ReadOnly {
		m, err := c.vet(p, "read-only", spec.AllowSensitive)
		if err != nil {
			return nil, nil, err
		}
		ro = append(ro, m)
	}
	return rw, ro, nil
}
