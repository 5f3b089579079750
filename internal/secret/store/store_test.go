package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
)

// stores are those that can run here, each empty.
func stores(t *testing.T) map[string]Store {
	dir := t.TempDir()
	all := map[string]Store{"age": NewAge(filepath.Join(dir, "secrets"), filepath.Join(dir, "config", "key.txt"), nil)}
	if c := NewCreds(filepath.Join(dir, "creds")); credsWork() {
		all["systemd-creds"] = c
	}
	return all
}

// credsWork tries, since whether systemd-creds serves this user depends on its
// version, on a key of the host's and on who asks.
func credsWork() bool {
	_, err := creds(context.Background(), []byte("x"), "--name=x", "encrypt", "-", "-")
	return err == nil
}

// TestStores is the contract of Store, for every kind.
func TestStores(t *testing.T) {
	values := map[string][]byte{
		"PLAIN": []byte("hunter2hunter2"), "NEWLINE": []byte("ends in one\n"), "PEM": bytes.Repeat([]byte("-----BEGIN-----\nabc\n"), 3000),
		"UTF8": []byte("pässwört \U0001f511"), "NUL": []byte("a\x00b\x00"), "BYTES": {0xff, 0xfe, 0, 1}, "JSON": []byte(`{"a": "b\nc"}`), "ONE": []byte("x"),
	}
	for kind, s := range stores(t) {
		t.Run(kind, func(t *testing.T) {
			ctx := context.Background()
			if s.Kind() != kind {
				t.Errorf("kind %s", s.Kind())
			}
			if names, err := s.List(ctx, "cage"); len(names) != 0 || err != nil {
				t.Errorf("empty: %v, %v", names, err)
			}
			if _, err := s.Get(ctx, "cage", "PLAIN"); !errors.Is(err, ErrNotFound) {
				t.Errorf("get of nothing: %v", err)
			}
			if err := s.Remove(ctx, "cage", "PLAIN"); !errors.Is(err, ErrNotFound) {
				t.Errorf("removal of nothing: %v", err)
			}
			for name, v := range values {
				if err := s.Set(ctx, "cage", name, v); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			for name, v := range values {
				if got, err := s.Get(ctx, "cage", name); err != nil || !bytes.Equal(got, v) {
					t.Errorf("%s: %.20q, %v", name, got, err)
				}
			}
			if names, err := s.List(ctx, "cage"); err != nil || len(names) != len(values) || !slices.IsSorted(names) {
				t.Errorf("names %v, %v", names, err)
			}
			if names, err := s.List(ctx, "cage-two"); len(names) != 0 || err != nil {
				t.Errorf("another cage has %v, %v", names, err)
			}
			if err := s.Set(ctx, "cage", "PLAIN", []byte("second value")); err != nil {
				t.Error(err)
			}
			if got, err := s.Get(ctx, "cage", "PLAIN"); err != nil || string(got) != "second value" {
				t.Errorf("replaced: %q, %v", got, err)
			}
			for name := range values {
				if err := s.Remove(ctx, "cage", name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := s.Get(ctx, "cage", "PLAIN"); !errors.Is(err, ErrNotFound) {
				t.Errorf("removed, and still there: %v", err)
			}
		})
	}
}

// TestNamesCannotBreakOut is rules 110 and 111: a name that becomes a path, an
// argument or a name elsewhere.
func TestNamesCannotBreakOut(t *testing.T) {
	ctx := context.Background()
	for kind, s := range stores(t) {
		for _, cage := range []string{"", "..", "a/b", "-a", "A", "a\n", "a.b", strings.Repeat("a", 64)} {
			if err := s.Set(ctx, cage, "KEY", []byte("value")); err == nil {
				t.Errorf("%s: cage %q", kind, cage)
			}
			if _, err := s.List(ctx, cage); err == nil {
				t.Errorf("%s: list of cage %q", kind, cage)
			}
		}
		for _, name := range []string{"", "..", "../KEY", "a/b", "-rf", "A B", "A\n", "A=B", "1A", "ü", strings.Repeat("A", 129)} {
			if err := s.Set(ctx, "cage", name, []byte("value")); err == nil {
				t.Errorf("%s: name %q", kind, name)
			}
			if _, err := s.Get(ctx, "cage", name); err == nil || errors.Is(err, ErrNotFound) {
				t.Errorf("%s: get of %q: %v", kind, name, err)
			}
			if err := s.Remove(ctx, "cage", name); err == nil || errors.Is(err, ErrNotFound) {
				t.Errorf("%s: removal of %q: %v", kind, name, err)
			}
		}
		for _, v := range [][]byte{nil, make([]byte, MaxValue+1)} {
			if err := s.Set(ctx, "cage", "KEY", v); err == nil {
				t.Errorf("%s: a value of %d bytes was kept", kind, len(v))
			}
		}
	}
}

// TestFilesArePrivate is rule 80, and what others can read is not used.
func TestFilesArePrivate(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	key := filepath.Join(dir, "config", "key.txt")
	open := func() *Age { return NewAge(filepath.Join(dir, "secrets"), key, nil) }
	if err := open().Set(ctx, "cage", "KEY", []byte("hunter2hunter2")); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "secrets", "cage", "KEY.age")
	for _, path := range []string{key, secret} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
		if data, err := os.ReadFile(path); err != nil || bytes.Contains(data, []byte("hunter2")) {
			t.Errorf("%s holds the value, %v", path, err)
		}
	}
	for _, path := range []string{key, secret} {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := open().Get(ctx, "cage", "KEY"); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%s with mode 0644 was used: %v", path, err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := open().Get(ctx, "cage", "KEY"); err != nil || string(v) != "hunter2hunter2" {
		t.Errorf("positive control: %q, %v", v, err)
	}
	real := secret + ".real"
	if err := errors.Join(os.Rename(secret, real), os.Symlink(real, secret)); err != nil {
		t.Fatal(err)
	}
	if _, err := open().Get(ctx, "cage", "KEY"); err == nil {
		t.Error("a symbolic link was followed")
	}
}

// TestDamagedFiles: a file that a full disk or a crash has cut is an error and
// no shorter secret.
func TestDamagedFiles(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s := NewAge(filepath.Join(dir, "secrets"), filepath.Join(dir, "key.txt"), nil)
	if err := s.Set(ctx, "cage", "KEY", []byte("hunter2hunter2")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "secrets", "cage", "KEY.age")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range whole {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if v, err := s.Get(ctx, "cage", "KEY"); err == nil {
			t.Fatalf("%d of %d bytes gave %q", cut, len(whole), v)
		}
	}
}

func TestKeyWithPassphrase(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	rec, err := age.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	rec.SetWorkFactor(10)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, rec)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(w, id)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "key.txt")
	if err := os.WriteFile(key, sealed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := 0
	phrase := func(p string) func() (string, error) {
		return func() (string, error) { asked++; return p, nil }
	}
	s := NewAge(filepath.Join(dir, "secrets"), key, phrase("correct horse"))
	if err := s.Set(ctx, "cage", "KEY", []byte("hunter2hunter2")); err != nil || asked != 1 {
		t.Fatalf("asked %d times, %v", asked, err)
	}
	for _, p := range []func() (string, error){nil, phrase("wrong"), func() (string, error) { return "", errors.New("no terminal") }} {
		if _, err := NewAge(filepath.Join(dir, "secrets"), key, p).Get(ctx, "cage", "KEY"); err == nil {
			t.Error("read without the passphrase")
		}
	}
}

// TestKeyIsMadeOnce: commands that run at the same time for the first time use
// the same key.
func TestKeyIsMadeOnce(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	open := func() *Age { return NewAge(filepath.Join(dir, "secrets"), filepath.Join(dir, "key.txt"), nil) }
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := open().Set(ctx, "cage", fmt.Sprintf("KEY%d", i), []byte("hunter2hunter2")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 8 {
		if _, err := open().Get(ctx, "cage", fmt.Sprintf("KEY%d", i)); err != nil {
			t.Error(err)
		}
	}
}

// TestPodman runs the real one.
func TestPodman(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("needs podman: its secrets are tested with the program itself")
	}
	ctx, s, cage := context.Background(), Podman{}, fmt.Sprintf("test-%d", os.Getpid())
	if err := s.Set(ctx, cage, "KEY", []byte("hunter2\nhunter2\n")); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get(ctx, cage, "KEY"); err != nil || string(v) != "hunter2\nhunter2\n" {
		t.Errorf("%q, %v", v, err)
	}
	if names, err := s.List(ctx, cage); err != nil || !slices.Equal(names, []string{"KEY"}) {
		t.Errorf("%v, %v", names, err)
	}
	if err := s.Remove(ctx, cage, "KEY"); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(ctx, cage, "KEY"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after its removal: %v", err)
	}
}

// TestHelperErrorsTellNothing: a program that prints what it was given.
func TestHelperErrorsTellNothing(t *testing.T) {
	_, err := helper(context.Background(), []byte("hunter2"), "sh", "-c", "cat >&2; exit 3")
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "code 3") {
		t.Error(err)
	}
	if _, err := helper(context.Background(), nil, "sh", "-c", "yes"); err == nil {
		t.Error("endless output was taken")
	}
	if _, err := helper(context.Background(), nil, "/does/not/exist"); err == nil {
		t.Error("a program that is not there ran")
	}
	if out, err := helper(context.Background(), []byte("hunter2"), "cat"); err != nil || string(out) != "hunter2" {
		t.Errorf("positive control: %q, %v", out, err)
	}
}
