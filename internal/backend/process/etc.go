package process

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// etcShown is what programs need of /etc, and holds no secrets. Directories
// are shown whole.
var etcShown = []string{
	// Linker and loader.
	"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld-musl-x86_64.path", "ld-musl-aarch64.path",
	// Trust.
	"ca-certificates", "ca-certificates.conf", "crypto-policies", "pki/ca-trust", "pki/tls/certs", "pki/tls/cert.pem",
	"pki/tls/openssl.cnf", "pki/java", "pki/rpm-gpg", "ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "ssl/ca-bundle.pem",
	"gnutls", "selinux/config",
	// Time, language, names.
	"localtime", "timezone", "locale.alias", "locale.conf", "locale.gen", "default/locale", "host.conf", "gai.conf",
	"services", "protocols", "networks", "rpc", "ethertypes", "mime.types", "magic", "terminfo", "inputrc", "xdg",
	// The system itself.
	"alternatives", "os-release", "lsb-release", "debian_version", "redhat-release", "fedora-release", "alpine-release",
	"arch-release", "SuSE-release", "issue", "login.defs", "shells", "nanorc", "vim", "bindresvport.blacklist",
	"dpkg", "debconf.conf", "update-motd.d", "manpath.config", "groff", "fonts", "papersize", "skel", "nsswitch.d",
	// Shells.
	"profile", "profile.d", "bash.bashrc", "bash_completion.d", "bashrc", "zsh", "zshrc", "fish", "csh.cshrc", "environment.d",
	// Languages and their tools.
	"perl", "python", "python2", "python3", "php", "ruby", "lua", "R", "java", "maven", "ant.conf", "gconf", "emacs",
	"gitattributes", "wgetrc", "sensors3.conf", "ImageMagick-6", "ImageMagick-7", "gdb", "glvnd", "OpenCL",
	"texmf", "libreoffice", "ghostscript", "dconf", "ld.gold", "libpaper.d", "imlib2", "odbcinst.ini", "mke2fs.conf",
}

// etcGlobs are names with a version in them.
var etcGlobs = []string{"java-", "python3.", "php8", "openjdk", "jvm"}

const emptyFile, emptyJSON, emptyDir = "/etc/agentcage/empty", "/etc/agentcage/empty.json", "/etc/agentcage/empty.d"

// ignoreFile lists the placeholders of guarded files, so that git in the cage
// does not offer them for a commit.
const ignoreFile = "/etc/agentcage/gitignore"

// etc makes an /etc of what programs need and of generated files. Package
// manager settings that often hold tokens (npmrc, pip.conf) are not shown.
func (p *plan) etc() {
	p.do(op{Kind: opDir, Dest: "/etc"})
	p.launch.ReadOnly = append(p.launch.ReadOnly, "/etc")
	for _, name := range etcShown {
		p.show("/etc/" + name)
	}
	entries, _ := os.ReadDir("/etc")
	for _, e := range entries {
		for _, g := range etcGlobs {
			if strings.HasPrefix(e.Name(), g) {
				p.show("/etc/" + e.Name())
			}
		}
	}
	p.aptEtc()
	p.packageEtc()
	p.generated()
	p.do(
		op{Kind: opFile, Dest: emptyFile},
		op{Kind: opFile, Dest: emptyJSON, Data: []byte("{}\n")},
		op{Kind: opDir, Dest: emptyDir},
	)
}

// packageEtc shows the settings of package managers, unless there is
// something like a credential in them.
func (p *plan) packageEtc() {
	for _, f := range []string{"/etc/npmrc", "/etc/pip.conf", "/etc/gitconfig"} {
		b, err := os.ReadFile(f)
		if err == nil && !holdsCredential(string(b)) {
			p.show(f)
		}
	}
}

// holdsCredential errs on the safe side: user information in a URL, or a
// word that settings of package managers use for a secret.
func holdsCredential(s string) bool {
	s = strings.ToLower(s)
	for _, word := range []string{"_auth", "token", "password", "passwd", "secret", "_key", "username"} {
		if strings.Contains(s, word) {
			return true
		}
	}
	for line := range strings.Lines(s) {
		if _, rest, ok := strings.Cut(line, "://"); ok && strings.Contains(rest, "@") {
			return true
		}
	}
	return false
}

// aptEtc shows apt's settings without its credentials, and a setting of our
// own: apt cannot become its unprivileged user where setgroups is denied.
func (p *plan) aptEtc() {
	entries, err := os.ReadDir("/etc/apt")
	if err != nil {
		return
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, "auth.conf") || name == "apt.conf.d" {
			continue
		}
		p.show("/etc/apt/" + name)
	}
	confs, _ := os.ReadDir("/etc/apt/apt.conf.d")
	for _, e := range confs {
		f := "/etc/apt/apt.conf.d/" + e.Name()
		if b, err := os.ReadFile(f); err == nil && !holdsCredential(string(b)) && !strings.Contains(string(b), "Proxy") {
			p.show(f)
		}
	}
	p.do(op{
		Kind: opFile, Dest: "/etc/apt/apt.conf.d/zz-agentcage",
		Data: []byte("APT::Sandbox::User \"root\";\nAcquire::https::CaInfo \"" + bundlePath + "\";\n"),
	})
}

// generated writes the files that say who and where we are.
func (p *plan) generated() {
	u := p.user
	passwd := "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
	group := "root:x:0:\nnogroup:x:65534:\n"
	switch u.uid {
	case 0:
		passwd = fmt.Sprintf("root:x:0:%d:root:%s:%s\n", u.gid, u.home, u.shell) + "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
	case 65534:
		passwd = "root:x:0:0:root:/root:/bin/sh\n" + fmt.Sprintf("nobody:x:65534:%d:nobody:%s:%s\n", u.gid, u.home, u.shell)
	default:
		passwd += fmt.Sprintf("%s:x:%d:%d:%s:%s:%s\n", u.name, u.uid, u.gid, u.name, u.home, u.shell)
	}
	if u.gid != 0 && u.gid != 65534 {
		group += fmt.Sprintf("%s:x:%d:\n", u.name, u.gid)
	}
	host := p.launch.Host
	for name, text := range map[string]string{
		"passwd":        passwd,
		"group":         group,
		"hostname":      host + "\n",
		"hosts":         "127.0.0.1 localhost " + host + "\n::1 localhost ip6-localhost ip6-loopback\n",
		"resolv.conf":   "nameserver 127.0.0.1\noptions timeout:5 attempts:2\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n",
	} {
		p.do(op{Kind: opFile, Dest: "/etc/" + name, Data: []byte(text)})
	}
	p.do(op{Kind: opSymlink, Dest: "/etc/mtab", Target: "/proc/self/mounts"})
}

// account is the user who starts the cage and is in it.
type account struct {
	uid, gid          int
	name, home, shell string
}

// currentAccount takes the home directory from HOME, as shells do, when it
// belongs to the user.
func currentAccount() account {
	a := account{uid: os.Geteuid(), gid: os.Getegid(), name: "user", shell: "/bin/sh"}
	if u, err := user.LookupId(strconv.Itoa(a.uid)); err == nil {
		a.name, a.home = u.Username, u.HomeDir
	}
	if h := os.Getenv("HOME"); h != "" {
		a.home = h
	}
	if s := os.Getenv("SHELL"); s != "" && !strings.ContainsAny(s, ":\n") {
		a.shell = s
	}
	if real, err := resolve(a.home); err == nil {
		a.home = real
	}
	if a.home == "" || a.home == "/" || a.home[0] != '/' || strings.ContainsAny(a.home+a.name, ":\n") {
		a.name, a.home = "user", "/home/user"
	}
	return a
}
