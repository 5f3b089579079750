// Package store keeps secrets between runs: one secret has a cage's name and
// its own, and lies in one place only.
//
// Values go to helper programs by standard input and come from standard
// output; they are never in an argument, an environment or an error.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/agentcage/agentcage/internal/config"
)

// MaxValue is the longest value in bytes: a PEM file with its chain fits.
const MaxValue = 64 << 10

// helperTime is how long a helper program may take.
const helperTime = 30 * time.Second

// ErrNotFound says that there is no such secret.
var ErrNotFound = errors.New("no such secret")

// Store keeps the secrets of all cages of one user. Its methods are safe for
// concurrent use by any number of processes. The names of cages and secrets
// must have been checked with ValidName; others are refused.
type Store interface {
	// Kind is the store's name: "age", "podman" or "systemd-creds".
	Kind() string
	// Get returns a value, or an error that wraps ErrNotFound.
	Get(ctx context.Context, cage, name string) ([]byte, error)
	// Set keeps a value in place of an older one, and has read it back
	// when it returns without an error (rule 76).
	Set(ctx context.Context, cage, name string, value []byte) error
	// Remove removes a secret, or returns an error that wraps ErrNotFound.
	Remove(ctx context.Context, cage, name string) error
	// List returns the names of a cage's secrets, sorted.
	List(ctx context.Context, cage string) ([]string, error)
}

// ValidName reports whether a secret can have the name: that of an environment
// variable, as it becomes one in the cage.
func ValidName(s string) bool { return config.ValidEnv(s) && len(s) <= 128 }

func checkNames(cage, name string) error {
	if !config.ValidName(cage) {
		return fmt.Errorf("cannot use %q as the name of a cage", cage)
	}
	if !ValidName(name) {
		return fmt.Errorf("cannot use %q as the name of a secret: it must be a name of an environment variable", name)
	}
	return nil
}

func checkValue(value []byte) error {
	switch {
	case len(value) == 0:
		return errors.New("empty secret value")
	case len(value) > MaxValue:
		return fmt.Errorf("the value has %d bytes, and %d is the most", len(value), MaxValue)
	}
	return nil
}

// readBack compares what a store gives with what it was to keep.
func readBack(ctx context.Context, s Store, cage, name string, want []byte) error {
	got, err := s.Get(ctx, cage, name)
	if err != nil {
		return fmt.Errorf("cannot read the secret back: %w", err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("cannot keep the secret: %s gives back another value than it was given", s.Kind())
	}
	return nil
}

func notFound(cage, name string) error {
	return fmt.Errorf("cannot find secret %s of cage %s: %w", name, cage, ErrNotFound)
}

// helper runs a program without a shell, with input on its standard input.
// What the program prints on standard error may repeat the input, so an error
// only says that it failed.
func helper(ctx context.Context, input []byte, argv ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(input) // never the terminal
	cmd.WaitDelay = time.Second
	out := &capped{room: 4 * MaxValue, full: cancel}
	cmd.Stdout = out
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("cannot run %s: it took too long or said too much", argv[0])
	case errors.As(err, &exit):
		return nil, &exitError{argv[0], exit.ExitCode()}
	case err != nil:
		return nil, fmt.Errorf("cannot run %s: %w", argv[0], err)
	}
	return out.buf.Bytes(), nil
}

type exitError struct {
	program string
	code    int
}

func (e *exitError) Error() string { return fmt.Sprintf("%s failed with code %d", e.program, e.code) }

// capped is a buffer that ends whoever fills it.
type capped struct {
	buf  bytes.Buffer // not embedded: its ReadFrom knows no cap
	room int
	full func()
}

func (c *capped) Write(p []byte) (int, error) {
	if c.buf.Len()+len(p) > c.room {
		c.full()
		return 0, errors.New("too much output")
	}
	return c.buf.Write(p)
}
