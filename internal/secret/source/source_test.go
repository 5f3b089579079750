package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/secret/store"
)

func TestParse(t *testing.T) {
	tests := []struct {
		in   string
		kind Kind
		args []string
	}{
		{"", Store, nil},
		{"store", Store, nil},
		{"env:API_KEY", Env, []string{"API_KEY"}},
		{"file:/run/key", File, []string{"/run/key"}},
		{"podman:app.KEY", Podman, []string{"app.KEY"}},
		{"systemd-creds:key", SystemdCreds, []string{"key"}},
		{"cmd: op read 'op://vault/a b' --x=\"1 2\" \\$HOME", Command, []string{"op", "read", "op://vault/a b", "--x=1 2", "$HOME"}},
		{"cmd:a '' b", Command, []string{"a", "", "b"}},
		{"sh:pass show key | head -1", Shell, []string{"pass show key | head -1"}},
	}
	for _, tt := range tests {
		got, err := Parse(tt.in)
		if err != nil || got.Kind != tt.kind || !slices.Equal(got.Args, tt.args) {
			t.Errorf("%q: %+v, %v", tt.in, got, err)
		}
	}
	for _, bad := range []string{
		"API_KEY", "env:", "env: ", "env:a b", "env:1A", "file:key", "file:", "podman:-x", "podman:a/b", "systemd-creds:../x", "systemd-creds:.x",
		"cmd:", "cmd:'a", "cmd:a\\", "cmd:''", "exec:x", "ENV:X", "sh:a\x00b",
	} {
		if s, err := Parse(bad); err == nil {
			t.Errorf("%q: %+v", bad, s)
		}
	}
}

func get(t *testing.T, source string) (string, error) {
	t.Helper()
	s, err := Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.Get(context.Background(), nil, "cage", "KEY")
	return string(v), err
}

func TestGet(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("AGENTCAGE_TEST_KEY", "from the environment\n")
	t.Setenv("AGENTCAGE_TEST_EMPTY", "")
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	write("cred", "a credential")
	good := map[string]string{
		"env:AGENTCAGE_TEST_KEY":                      "from the environment\n",
		"file:" + write("one", "value\n"):             "value",
		"file:" + write("dos", "value\r\n"):           "value",
		"file:" + write("two", "value\n\n"):           "value\n",
		"file:" + write("none", "value"):              "value",
		"systemd-creds:cred":                          "a credential",
		"cmd:printf '%s\n' 'a  b' $HOME":              "a  b\n$HOME",
		"sh:printf '%s' \"$AGENTCAGE_TEST_KEY\"":      "from the environment",
		"sh:echo noise >&2; cat; echo key; exec 1>&-": "key",
	}
	for source, want := range good {
		if got, err := get(t, source); err != nil || got != want {
			t.Errorf("%s: %q, %v", source, got, err)
		}
	}
	bad := []string{
		"env:AGENTCAGE_TEST_NOT_SET", "env:AGENTCAGE_TEST_EMPTY", "file:" + dir, "file:/dev/zero", "file:" + filepath.Join(dir, "nosuch"),
		"file:" + write("empty", ""), "file:" + write("newline", "\n"), "file:" + write("long", strings.Repeat("x", store.MaxValue+1)),
		"systemd-creds:nosuch", "cmd:/does/not/exist", "sh:yes", "sh:exit 0", "store",
	}
	for _, source := range bad {
		if got, err := get(t, source); err == nil {
			t.Errorf("%s: %.40q", source, got)
		}
	}
}

// TestFailuresTellNothing: what a command prints may be the secret.
func TestFailuresTellNothing(t *testing.T) {
	v, err := get(t, "sh:echo hunter2; echo hunter3 >&2; exit 3")
	if err == nil || v != "" || strings.Contains(strings.ReplaceAll(err.Error(), "echo hunter", ""), "hunter") || !strings.Contains(err.Error(), "code 3") {
		t.Errorf("%q, %v", v, err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s, _ := Parse("cmd:cat /dev/zero")
	if _, err := s.Get(ctx, nil, "cage", "KEY"); err == nil {
		t.Error("no error")
	}
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	st := store.NewAge(filepath.Join(dir, "s"), filepath.Join(dir, "k"), nil)
	s := Source{}
	if _, err := s.Get(context.Background(), st, "cage", "KEY"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if err := st.Set(context.Background(), "cage", "KEY", []byte("value\n")); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get(context.Background(), st, "cage", "KEY"); err != nil || string(v) != "value\n" {
		t.Errorf("%q, %v", v, err)
	}
}
