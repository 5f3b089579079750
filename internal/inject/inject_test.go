package inject

import (
	"encoding/base64"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/secret"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func unb64(t *testing.T, s string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return string(b)
}

const (
	placeholderA = "agentcage:secret:A:00112233445566778899aabbccddeeff"
	placeholderB = "agentcage:secret:B:ffeeddccbbaa99887766554433221100"
)

func exact(host string) config.Target { return config.Target{Host: hostname.MustParse(host)} }

func rule1() config.InjectionRule {
	return config.InjectionRule{Env: "A", Placeholder: placeholderA, InjectTo: []config.Target{exact("api.test")}, Foreign: "block"}
}

func newInjector(t *testing.T, rules ...config.InjectionRule) *Injector {
	t.Helper()
	in, err := New(config.Injection{Rules: rules, RedactTo: []hostname.Name{hostname.MustParse("logs.test")}})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func set(t *testing.T, in *Injector, env, value string) {
	t.Helper()
	v, err := secret.New([]byte(value))
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Set(env, v); err != nil {
		t.Fatal(err)
	}
}
