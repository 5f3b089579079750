package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Podman keeps secrets with podman-secret(1), as CAGE.NAME.
type Podman struct{}

var _ Store = Podman{}

// Kind implements Store.
func (Podman) Kind() string { return "podman" }

func qualified(cage, name string) string { return cage + "." + name }

// Get implements Store. It needs Podman 4.7 or newer.
func (p Podman) Get(ctx context.Context, cage, name string) ([]byte, error) {
	if err := checkNames(cage, name); err != nil {
		return nil, err
	}
	return p.Named(ctx, qualified(cage, name))
}

// Named returns the value of a secret by the name that Podman has it under.
func (Podman) Named(ctx context.Context, name string) ([]byte, error) {
	out, err := helper(ctx, nil, "podman", "secret", "inspect", "--showsecret", "--", name)
	var exit *exitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("cannot read podman's secret %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	var list []struct{ SecretData string }
	if err := json.Unmarshal(out, &list); err != nil || len(list) != 1 || list[0].SecretData == "" {
		return nil, fmt.Errorf("cannot read podman's secret %s: its answer holds no value", name)
	}
	return []byte(list[0].SecretData), nil
}

// Set implements Store. Podman gives values back as JSON text, so one that is
// no UTF-8 cannot be kept there, which reading it back finds.
func (p Podman) Set(ctx context.Context, cage, name string, value []byte) error {
	if err := errors.Join(checkNames(cage, name), checkValue(value)); err != nil {
		return err
	}
	if _, err := helper(ctx, value, "podman", "secret", "create", "--replace", "--", qualified(cage, name), "-"); err != nil {
		return fmt.Errorf("cannot keep secret %s: %w", name, err)
	}
	return readBack(ctx, p, cage, name, value)
}

// Remove implements Store.
func (p Podman) Remove(ctx context.Context, cage, name string) error {
	if err := checkNames(cage, name); err != nil {
		return err
	}
	names, err := p.List(ctx, cage)
	if err != nil {
		return err
	}
	if !slices.Contains(names, name) {
		return notFound(cage, name)
	}
	if _, err := helper(ctx, nil, "podman", "secret", "rm", "--", qualified(cage, name)); err != nil {
		return fmt.Errorf("cannot remove secret %s: %w", name, err)
	}
	return nil
}

// List implements Store.
func (Podman) List(ctx context.Context, cage string) ([]string, error) {
	if err := checkNames(cage, "X"); err != nil {
		return nil, err
	}
	out, err := helper(ctx, nil, "podman", "secret", "ls", "--format", "{{.Name}}")
	if err != nil {
		return nil, fmt.Errorf("cannot list secrets: %w", err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), cage+"."); ok && ValidName(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

const credSuffix = ".cred"

// Creds keeps secrets as files that systemd-creds(1) encrypts to this machine:
// with the host's key and its TPM where there is one. Users other than root
// need systemd 256 or newer.
type Creds struct{ dir string }

var _ Store = Creds{}

// NewCreds returns the store in dir.
func NewCreds(dir string) Creds { return Creds{dir} }

// Kind implements Store.
func (Creds) Kind() string { return "systemd-creds" }

func (c Creds) path(cage, name string) string { return filepath.Join(c.dir, cage, name+credSuffix) }

// creds runs systemd-creds for this user.
func creds(ctx context.Context, input []byte, args ...string) ([]byte, error) {
	argv := []string{"systemd-creds"}
	if os.Geteuid() != 0 {
		argv = append(argv, "--user")
	}
	return helper(ctx, input, append(argv, args...)...)
}

// Get implements Store.
func (c Creds) Get(ctx context.Context, cage, name string) ([]byte, error) {
	if err := checkNames(cage, name); err != nil {
		return nil, err
	}
	sealed, err := readPrivate(c.path(cage, name), 4*MaxValue)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound(cage, name)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read secret %s: %w", name, err)
	}
	value, err := creds(ctx, sealed, "--newline=no", "--name="+qualified(cage, name), "decrypt", "-", "-")
	if err != nil {
		return nil, fmt.Errorf("cannot decrypt secret %s: %w", name, err)
	}
	return value, checkValue(value)
}

// Set implements Store.
func (c Creds) Set(ctx context.Context, cage, name string, value []byte) error {
	if err := errors.Join(checkNames(cage, name), checkValue(value)); err != nil {
		return err
	}
	sealed, err := creds(ctx, value, "--name="+qualified(cage, name), "encrypt", "-", "-")
	if err != nil {
		return fmt.Errorf("cannot encrypt secret %s: %w", name, err)
	}
	if err := writeFile(c.path(cage, name), sealed); err != nil {
		return fmt.Errorf("cannot keep secret %s: %w", name, err)
	}
	return readBack(ctx, c, cage, name, value)
}

// Remove implements Store.
func (c Creds) Remove(_ context.Context, cage, name string) error {
	if err := checkNames(cage, name); err != nil {
		return err
	}
	return removeFile(c.path(cage, name), cage, name)
}

// List implements Store.
func (c Creds) List(_ context.Context, cage string) ([]string, error) {
	if err := checkNames(cage, "X"); err != nil {
		return nil, err
	}
	return listFiles(filepath.Join(c.dir, cage), credSuffix)
}
