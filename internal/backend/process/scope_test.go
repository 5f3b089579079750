package process

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/agentcage/agentcage/internal/cage"
)

// TestVerifyLimits reads cgroups as they are when systemd has, and has not,
// the controllers: it reports success in both cases.
func TestVerifyLimits(t *testing.T) {
	good := map[string]string{"memory.max": "67108864\n", "memory.swap.max": "0\n", "cpu.max": "50000 100000\n", "pids.max": "50\n"}
	tests := []struct {
		name   string
		change map[string]string // an empty text removes the file
		ok     bool
	}{
		{"all hold", nil, true},
		{"less than asked for", map[string]string{"memory.max": "4096\n", "pids.max": "1\n", "cpu.max": "1000 100000\n"}, true},
		{"no swap in the kernel", map[string]string{"memory.swap.max": ""}, true},
		{"swap", map[string]string{"memory.swap.max": "max\n"}, false},
		{"no memory controller", map[string]string{"memory.max": "", "memory.swap.max": ""}, false},
		{"memory unlimited", map[string]string{"memory.max": "max\n"}, false},
		{"more memory", map[string]string{"memory.max": "67112960\n"}, false},
		{"no cpu controller", map[string]string{"cpu.max": ""}, false},
		{"cpu unlimited", map[string]string{"cpu.max": "max 100000\n"}, false},
		{"more cpu", map[string]string{"cpu.max": "60000 100000\n"}, false},
		{"cpu without a period", map[string]string{"cpu.max": "50000 0\n"}, false},
		{"no pids controller", map[string]string{"pids.max": ""}, false},
		{"processes unlimited", map[string]string{"pids.max": "max\n"}, false},
		{"more processes", map[string]string{"pids.max": "51\n"}, false},
		{"empty", map[string]string{"pids.max": "\n"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range good {
				if s, ok := tt.change[file]; ok {
					text = s
				}
				if text == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := verifyLimits(cage.Limits{MemoryBytes: 64 << 20, CPUs: 0.5, Processes: 50}, dir)
			if (err == nil) != tt.ok {
				t.Errorf("verifyLimits: %v, want ok %v", err, tt.ok)
			}
		})
	}
}

func TestUnifiedPath(t *testing.T) {
	for text, want := range map[string]string{
		"0::/user.slice/a.scope\n":                      "/user.slice/a.scope",
		"4:memory:/x\n1:name=systemd:/y\n0::/a.scope\n": "/a.scope",
		"4:memory:/x\n":                                 "",
		"":                                              "",
	} {
		if got := unifiedPath(text); got != want {
			t.Errorf("unifiedPath(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestNoBus wants an error with a hint, and no bus started, where there is no
// systemd; and a cage all the same when the user goes without limits.
func TestNoBus(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("needs a machine without systemd")
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	spec := cage.Spec{Limits: cage.Limits{MemoryBytes: 64 << 20}}
	var hint *Error
	if err := newScope(spec, os.Getpid()); !errors.As(err, &hint) || hint.Hint() == "" {
		t.Errorf("no systemd: %v, want an error with a hint", err)
	}
	spec.Without = []cage.Layer{LayerLimits}
	if err := newScope(spec, os.Getpid()); err != nil {
		t.Errorf("without limits: %v", err)
	}
	if err := newScope(cage.Spec{}, os.Getpid()); err != nil {
		t.Errorf("no limits asked for: %v", err)
	}
}
