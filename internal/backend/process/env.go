package process

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// envKept is what the cage inherits of the caller's environment: what says how
// to display and where tools are, never a value that may be a secret. Proxy
// variables are not among it: the cage sets its own.
var envKept = []string{
	"LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "TERM_PROGRAM", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE",
	"EDITOR", "VISUAL", "PAGER", "CI", "SOURCE_DATE_EPOCH", "DEBIAN_FRONTEND",
	"PYENV_ROOT", "PYENV_VERSION", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "CARGO_HOME", "NVM_DIR", "NVM_BIN", "VOLTA_HOME",
	"FNM_DIR", "FNM_MULTISHELL_PATH", "GOROOT", "GOTOOLCHAIN", "GOFLAGS", "GOENV_ROOT", "JAVA_HOME", "BUN_INSTALL",
	"DENO_INSTALL", "ASDF_DIR", "ASDF_DATA_DIR", "MISE_DATA_DIR", "SDKMAN_DIR", "RBENV_ROOT", "NODENV_ROOT", "PNPM_HOME",
	"CONDA_PREFIX", "VIRTUAL_ENV", "DOTNET_ROOT", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED",
}

// standardPath is what every PATH ends with.
var standardPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// environment is the command's: the minimal one, and on top of it what the
// user sets, the last value of a name.
func (p *plan) environment() []string {
	env := map[string]string{
		"HOME": p.user.home, "USER": p.user.name, "LOGNAME": p.user.name, "SHELL": p.user.shell,
		"PWD": p.dir.path, "PATH": p.path(), "TMPDIR": "/tmp", "HOSTNAME": p.launch.Host,
		"AGENTCAGE": nonEmpty(p.spec.Name, "cage"),
	}
	for _, name := range envKept {
		if v, ok := os.LookupEnv(name); ok {
			env[name] = v
		}
	}
	for _, kv := range os.Environ() {
		if name, v, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "LC_") {
			env[name] = v
		}
	}
	proxy := fmt.Sprintf("http://127.0.0.1:%d", ProxyPort)
	for _, name := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"} {
		env[name] = proxy
	}
	env["NO_PROXY"], env["no_proxy"] = "localhost,127.0.0.1,::1", "localhost,127.0.0.1,::1"
	env["NODE_USE_ENV_PROXY"] = "1" // Node's fetch reads HTTP_PROXY only then
	if len(p.spec.CA) > 0 {
		for name, v := range trustEnv() {
			env[name] = v
		}
	}
	for _, kv := range p.spec.Env {
		if name, v, ok := strings.Cut(kv, "="); ok && name != "" {
			env[name] = v
		}
	}
	out := make([]string, 0, len(env))
	for name, v := range env {
		out = append(out, name+"="+v)
	}
	slices.Sort(out)
	return out
}

func nonEmpty(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// path keeps what of the caller's PATH exists in the cage. A relative entry,
// or one in a directory that the agent can write to, is the agent's to fill,
// and it stays in the cage with it.
func (p *plan) path() string {
	var out []string
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		if filepath.IsAbs(dir) && p.visible(dir) && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	for _, dir := range standardPath {
		if !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return strings.Join(out, ":")
}

// visible tells whether the cage shows a directory of the host.
func (p *plan) visible(dir string) bool {
	real, err := resolve(dir)
	if err != nil {
		return false
	}
	for _, shown := range slices.Concat(p.launch.ReadOnly, []string{p.dir.path}) {
		if within(real, shown) || within(filepath.Clean(dir), shown) {
			return true
		}
	}
	return slices.ContainsFunc(slices.Concat(p.rw, p.ro), func(m mountPath) bool { return within(real, m.path) })
}
