package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"filippo.io/age"
)

const ageSuffix = ".age"

// Age keeps each secret in a file of its own, encrypted with age
// (age-encryption.org/v1) to a key in another file. With the key on the same
// disk that protects copies of the files, such as backups, and nothing against
// who can read both; a key that has a passphrase protects against that too.
type Age struct {
	dir  string // of the secrets
	key  string // file of the identity
	pass func() (string, error)

	mu       sync.Mutex
	identity age.Identity // nil until it is needed
}

var _ Store = (*Age)(nil)

// NewAge returns the store in dir with the key in the file called key, which
// is made when the first secret is set. passphrase is asked for at most once,
// and only when the key has one; nil has none to give.
func NewAge(dir, key string, passphrase func() (string, error)) *Age {
	return &Age{dir: dir, key: key, pass: passphrase}
}

// Kind implements Store.
func (a *Age) Kind() string { return "age" }

func (a *Age) path(cage, name string) string {
	return filepath.Join(a.dir, cage, name+ageSuffix)
}

// Get implements Store.
func (a *Age) Get(_ context.Context, cage, name string) ([]byte, error) {
	if err := checkNames(cage, name); err != nil {
		return nil, err
	}
	sealed, err := readPrivate(a.path(cage, name), 2*MaxValue)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound(cage, name)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read secret %s: %w", name, err)
	}
	id, err := a.open(false)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), id)
	if err != nil {
		return nil, fmt.Errorf("cannot decrypt secret %s: %w", name, err)
	}
	value, err := io.ReadAll(io.LimitReader(r, MaxValue+1))
	if err != nil {
		return nil, fmt.Errorf("cannot decrypt secret %s: %w", name, err)
	}
	return value, checkValue(value)
}

// Set implements Store.
func (a *Age) Set(ctx context.Context, cage, name string, value []byte) error {
	if err := errors.Join(checkNames(cage, name), checkValue(value)); err != nil {
		return err
	}
	id, err := a.open(true)
	if err != nil {
		return err
	}
	x, ok := id.(interface{ Recipient() *age.X25519Recipient })
	if !ok {
		return errors.New("cannot encrypt: the key is of a kind that has no recipient")
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, x.Recipient())
	if err != nil {
		return fmt.Errorf("cannot encrypt: %w", err)
	}
	if _, err := w.Write(value); err != nil {
		return fmt.Errorf("cannot encrypt: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("cannot encrypt: %w", err)
	}
	if err := writeFile(a.path(cage, name), sealed.Bytes()); err != nil {
		return fmt.Errorf("cannot keep secret %s: %w", name, err)
	}
	return readBack(ctx, a, cage, name, value)
}

// Remove implements Store.
func (a *Age) Remove(_ context.Context, cage, name string) error {
	if err := checkNames(cage, name); err != nil {
		return err
	}
	return removeFile(a.path(cage, name), cage, name)
}

// List implements Store.
func (a *Age) List(_ context.Context, cage string) ([]string, error) {
	if err := checkNames(cage, "X"); err != nil {
		return nil, err
	}
	return listFiles(filepath.Join(a.dir, cage), ageSuffix)
}

// open reads the key, or makes one.
func (a *Age) open(make bool) (age.Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.identity != nil {
		return a.identity, nil
	}
	text, err := readPrivate(a.key, 64<<10)
	if errors.Is(err, fs.ErrNotExist) && make {
		text, err = a.makeKey()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the key of the secrets %s: %w", a.key, err)
	}
	if bytes.HasPrefix(text, []byte("age-encryption.org/")) {
		if text, err = a.unlock(text); err != nil {
			return nil, fmt.Errorf("cannot open the key of the secrets %s: %w", a.key, err)
		}
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil || len(ids) != 1 {
		return nil, fmt.Errorf("cannot open the key of the secrets %s: it holds no age identity, or several", a.key)
	}
	a.identity = ids[0]
	return a.identity, nil
}

// makeKey writes a new key, unless another process was faster.
func (a *Age) makeKey() ([]byte, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(a.key), 0o700); err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(a.key), ".key-*") // 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name())
	if _, err = fmt.Fprintf(tmp, "# key of agentcage's secrets; without it they cannot be read\n%s\n", id); err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return nil, err
	}
	// A link fails where the name is taken, and shows a whole file or none.
	if err := os.Link(tmp.Name(), a.key); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return readPrivate(a.key, 64<<10)
}

// unlock decrypts a key that has a passphrase, as `age -p` makes it.
func (a *Age) unlock(sealed []byte) ([]byte, error) {
	if a.pass == nil {
		return nil, errors.New("it has a passphrase, and there is no terminal to ask for it")
	}
	phrase, err := a.pass()
	if err != nil {
		return nil, err
	}
	id, err := age.NewScryptIdentity(phrase)
	if err != nil {
		return nil, err
	}
	id.SetMaxWorkFactor(22)
	r, err := age.Decrypt(bytes.NewReader(sealed), id)
	if err != nil {
		return nil, errors.New("the passphrase is wrong")
	}
	return io.ReadAll(io.LimitReader(r, 64<<10))
}
