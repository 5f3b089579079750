package process

import (
	"os"
	"path/filepath"

	"github.com/agentcage/agentcage/internal/backend/process/trust"
)

// Places of the cage's own trust files.
const (
	bundlePath  = "/etc/agentcage/ca-bundle.pem"
	caPath      = "/etc/agentcage/ca.pem"
	hashDir     = "/etc/agentcage/certs"
	javaPath    = "/etc/agentcage/cacerts"
	systemCerts = "/etc/ssl/certs"
)

// bundles are the places where programs look for certificates, by
// distribution: Debian, Fedora, SUSE, Alpine, FreeBSD-like layouts.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem", "/etc/pki/tls/cert.pem",
	"/etc/ca-certificates/extracted/tls-ca-bundle.pem", "/usr/share/ca-certificates/ca-bundle.crt",
}

// trustEnv names the bundle to the programs that look nowhere else. The
// bundle holds the system's certificates too, for hosts whose TLS is passed
// through.
func trustEnv() map[string]string {
	env := map[string]string{
		"NODE_EXTRA_CA_CERTS": caPath,
		"SSL_CERT_DIR":        hashDir + ":" + systemCerts,
		"DENO_TLS_CA_STORE":   "system,mozilla",
	}
	for _, name := range []string{
		"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO", "PIP_CERT",
		"AWS_CA_BUNDLE", "DENO_CERT", "NIX_SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "HTTPLIB2_CA_CERTS",
		"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "BUNDLE_SSL_CA_CERT", "NPM_CONFIG_CAFILE", "YARN_HTTPS_CA_FILE_PATH",
		"COMPOSER_CAFILE", "ELIXIR_CACERTS", "HEX_CACERTS_PATH", "UV_SSL_CERT_FILE",
	} {
		env[name] = bundlePath
	}
	return env
}

// trust lists the steps that make programs in the cage trust its CA. It only
// reads the plan, and only what is set before build.
func (p *plan) trust() ([]op, error) {
	if len(p.spec.CA) == 0 {
		return nil, nil
	}
	system := systemBundle()
	bundle := trust.Bundle(p.spec.CA, system)
	name, err := trust.HashName(p.spec.CA)
	if err != nil {
		return nil, hinted(err, "", "cannot make the cage trust its certificate authority")
	}
	ops := []op{
		{Kind: opFile, Dest: bundlePath, Data: bundle},
		{Kind: opFile, Dest: caPath, Data: p.spec.CA},
		{Kind: opSymlink, Dest: hashDir + "/" + name, Target: caPath},
	}
	seen := map[string]bool{}
	for _, b := range bundles {
		if real, err := resolve(b); err == nil && !seen[real] {
			seen[real] = true
			ops = append(ops, op{Kind: opCover, Dest: real, Src: bundlePath, Optional: true})
		}
	}
	java, err := p.javaTrust(system)
	return append(ops, java...), err
}

func systemBundle() []byte {
	for _, b := range bundles {
		if data, err := os.ReadFile(b); err == nil {
			return data
		}
	}
	return nil
}

// javaTrust mounts one trust store over that of every JDK in the cage.
func (p *plan) javaTrust(system []byte) ([]op, error) {
	var stores []string
	seen := map[string]bool{}
	for _, home := range p.javaHomes() {
		for _, rel := range []string{"lib/security/cacerts", "jre/lib/security/cacerts"} {
			real, err := resolve(filepath.Join(home, rel))
			if err == nil && !seen[real] {
				seen[real] = true
				stores = append(stores, real)
			}
		}
	}
	if real, err := resolve("/etc/ssl/certs/java/cacerts"); err == nil && !seen[real] {
		stores = append(stores, real)
	}
	if len(stores) == 0 {
		return nil, nil
	}
	store, err := trust.JKS(p.spec.CA, system)
	if err != nil {
		return nil, hinted(err, "", "cannot make a Java trust store for the cage")
	}
	ops := []op{{Kind: opFile, Dest: javaPath, Data: store}}
	for _, s := range stores {
		ops = append(ops, op{Kind: opCover, Dest: s, Src: javaPath, Optional: true})
	}
	return ops, nil
}

// javaHomes lists the JDKs that the cage can see.
func (p *plan) javaHomes() []string {
	var homes []string
	for _, pattern := range []string{"/usr/lib/jvm/*", "/opt/*", p.user.home + "/.sdkman/candidates/java/*", p.user.home + "/.local/share/mise/installs/java/*"} {
		m, _ := filepath.Glob(pattern)
		homes = append(homes, m...)
	}
	if h := os.Getenv("JAVA_HOME"); filepath.IsAbs(h) {
		homes = append(homes, h)
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if real, err := resolve(filepath.Join(dir, "java")); err == nil {
			homes = append(homes, filepath.Dir(filepath.Dir(real)))
		}
	}
	return homes
}
