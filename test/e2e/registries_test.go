//go:build linux

package e2e

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
)

// files serves a few files from memory.
type files map[string][]byte

func (f files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, ok := f[path.Clean(r.URL.Path)]
	if strings.HasSuffix(r.URL.Path, "/") {
		b, ok = f[r.URL.Path]
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	if len(b) > 0 && b[0] == '<' {
		w.Header().Set("Content-Type", "text/html")
	}
	_, _ = w.Write(b) // the client may be gone
}

func zipOf(t *testing.T, content map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, text := range content {
		f, err := w.Create(name)
		must(t, err)
		_, err = f.Write([]byte(text))
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func tarOf(t *testing.T, content map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, text := range content {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
		_, err := w.Write([]byte(text))
		must(t, err)
	}
	must(t, w.Close())
	must(t, z.Close())
	return b.Bytes()
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// refused runs the same with a host that is not allowed.
func refused(t *testing.T, b *bench, s *site, host string, command ...string) {
	t.Helper()
	b.write("cage.yaml", s.config(good))
	s.mu.Lock()
	s.got[host], s.hits[host] = nil, 0
	s.mu.Unlock()
	if r := b.caged(command...); r.code == 0 {
		t.Errorf("%q worked with a host that is not allowed: %s", command, clip(r.all()))
	}
	s.untouched(t, host)
}

// TestPip installs a wheel from a simple index (PEP 503, PEP 427).
func TestPip(t *testing.T) {
	need(t, "python3")
	if exec.Command("python3", "-m", "pip", "--version").Run() != nil {
		t.Skip("needs pip: not installed")
	}
	b, s := onSite(t, "pypi.test")
	wheel := zipOf(t, map[string]string{
		"cagedemo/__init__.py":            "VALUE = 'from the index'\n",
		"cagedemo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: cagedemo\nVersion: 1.0\n",
		"cagedemo-1.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"cagedemo-1.0.dist-info/RECORD":   "cagedemo/__init__.py,,\ncagedemo-1.0.dist-info/METADATA,,\ncagedemo-1.0.dist-info/WHEEL,,\ncagedemo-1.0.dist-info/RECORD,,\n",
	})
	const name = "cagedemo-1.0-py3-none-any.whl"
	s.mux["pypi.test"] = files{
		"/simple/cagedemo/": fmt.Appendf(nil, `<!DOCTYPE html><html><body><a href="/files/%s#sha256=%s">%s</a></body></html>`, name, hexSum(wheel), name),
		"/files/" + name:    wheel,
	}
	// The interpreter itself and not a shim, which would want to rewrite its
	// own directory after an installation.
	interpreter := b.exec("python3", "-c", "import sys; print(sys.executable, end='')").stdout
	install := []string{
		interpreter, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-q", "--retries", "0", "--root-user-action", "ignore", "--target", "out",
		"--index-url", s.url("https", "pypi.test", "/simple/"), "cagedemo",
	}
	b.caged(install...).ok(t, "")
	if got := b.read("out/cagedemo/__init__.py"); got != "VALUE = 'from the index'\n" {
		t.Errorf("installed %q", got)
	}
	must(t, os.RemoveAll(b.dir+"/out"))
	refused(t, b, s, "pypi.test", install...)
}

// TestNpm installs a package from a registry.
func TestNpm(t *testing.T) {
	need(t, "npm")
	b, s := onSite(t, "npm.test")
	ball := tarOf(t, map[string]string{
		"package/package.json": `{"name":"cagedemo","version":"1.0.0","main":"index.js"}`,
		"package/index.js":     "module.exports = 'from the registry'\n",
	})
	sum := sha512.Sum512(ball)
	doc, err := json.Marshal(map[string]any{
		"name": "cagedemo", "dist-tags": map[string]string{"latest": "1.0.0"},
		"versions": map[string]any{"1.0.0": map[string]any{
			"name": "cagedemo", "version": "1.0.0",
			"dist": map[string]string{"tarball": s.url("https", "npm.test", "/cagedemo/-/cagedemo-1.0.0.tgz"), "integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:])},
		}},
	})
	must(t, err)
	s.mux["npm.test"] = files{"/cagedemo": doc, "/cagedemo/-/cagedemo-1.0.0.tgz": ball}
	b.write("package.json", `{"name":"user","version":"1.0.0"}`)
	install := []string{"npm", "install", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=0", "--registry", s.url("https", "npm.test", "/"), "cagedemo"}
	b.caged(install...).ok(t, "")
	b.caged("node", "-e", "console.log(require('cagedemo'))").ok(t, "from the registry")
	must(t, os.RemoveAll(b.dir+"/node_modules"))
	must(t, os.Remove(b.dir+"/package-lock.json"))
	refused(t, b, s, "npm.test", install...)
}

// TestGoModules downloads a module from a proxy (the GOPROXY protocol).
func TestGoModules(t *testing.T) {
	need(t, "go")
	b, s := onSite(t, "goproxy.test")
	const mod = "module cage.test/demo\n\ngo 1.21\n"
	s.mux["goproxy.test"] = files{
		"/cage.test/demo/@v/list":        []byte("v1.0.0\n"),
		"/cage.test/demo/@v/v1.0.0.info": []byte(`{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}`),
		"/cage.test/demo/@v/v1.0.0.mod":  []byte(mod),
		"/cage.test/demo/@v/v1.0.0.zip": zipOf(t, map[string]string{
			"cage.test/demo@v1.0.0/go.mod":  mod,
			"cage.test/demo@v1.0.0/demo.go": "package demo\n\nconst Value = \"from the proxy\"\n",
		}),
	}
	b.write("go.mod", "module user\n\ngo 1.21\n")
	b.write("main.go", "package main\n\nimport \"cage.test/demo\"\n\nfunc main() { println(demo.Value) }\n")
	get := []string{"env", "GOPROXY=" + s.url("https", "goproxy.test", ""), "GONOSUMDB=*", "GOFLAGS=-mod=mod", "GOTOOLCHAIN=local", "GOMODCACHE=/tmp/mod", "CGO_ENABLED=0", "go", "get", "cage.test/demo@v1.0.0"}
	b.caged(get...).ok(t, "")
	if got := b.read("go.sum"); got == "" {
		t.Error("go.sum is empty")
	}
	refused(t, b, s, "goproxy.test", get...)
}

// TestCargo fetches a crate from a sparse registry.
func TestCargo(t *testing.T) {
	need(t, "cargo")
	if exec.Command("cargo", "--version").Run() != nil {
		t.Skip("needs cargo: it does not run here")
	}
	b, s := onSite(t, "crates.test")
	crate := tarOf(t, map[string]string{
		"cagedemo-1.0.0/Cargo.toml": "[package]\nname = \"cagedemo\"\nversion = \"1.0.0\"\nedition = \"2021\"\n",
		"cagedemo-1.0.0/src/lib.rs": "pub const VALUE: &str = \"from the registry\";\n",
	})
	s.mux["crates.test"] = files{
		"/config.json":                []byte(`{"dl":"` + s.url("https", "crates.test", "/dl") + `"}`),
		"/ca/ge/cagedemo":             fmt.Appendf(nil, `{"name":"cagedemo","vers":"1.0.0","deps":[],"cksum":"%s","features":{},"yanked":false}`+"\n", hexSum(crate)),
		"/dl/cagedemo/1.0.0/download": crate,
	}
	b.write("Cargo.toml", "[package]\nname = \"user\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ncagedemo = { version = \"1\", registry = \"demo\" }\n")
	b.write("src/main.rs", "fn main() { println!(\"{}\", cagedemo::VALUE) }\n")
	fetch := []string{"env", "CARGO_HOME=/tmp/cargo", "CARGO_NET_RETRY=0", "CARGO_REGISTRIES_DEMO_INDEX=sparse+" + s.url("https", "crates.test", "/"), "cargo", "fetch"}
	b.caged(fetch...).ok(t, "")
	if got := b.read("Cargo.lock"); got == "" {
		t.Error("Cargo.lock is empty")
	}
	must(t, os.Remove(b.dir+"/Cargo.lock"))
	refused(t, b, s, "crates.test", fetch...)
}

// TestApt updates from a flat repository over HTTPS.
func TestApt(t *testing.T) {
	need(t, "apt-get")
	b, s := onSite(t, "apt.test")
	packages := []byte("Package: cagedemo\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@test>\nFilename: ./cagedemo.deb\nSize: 1\nSHA256: " + hexSum(nil) + "\nDescription: test\n\n")
	s.mux["apt.test"] = files{"/Packages": packages}
	b.write("sources.list", "deb [trusted=yes] "+s.url("https", "apt.test", "/")+" ./\n")
	update := []string{"sh", "-c", "mkdir -p /tmp/apt/lists/partial /tmp/apt/cache/archives/partial && apt-get -o Dir::Etc::sourcelist=$PWD/sources.list -o Dir::Etc::sourceparts=/nonexistent " +
		"-o Dir::State=/tmp/apt -o Dir::State::lists=/tmp/apt/lists -o Dir::Cache=/tmp/apt/cache -o Debug::NoLocking=1 -o Acquire::Retries=0 -o APT::Update::Error-Mode=any update && " +
		"ls /tmp/apt/lists"}
	b.caged(update...).ok(t, "_Packages")
	refused(t, b, s, "apt.test", update...)
}
