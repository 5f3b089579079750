package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// The files of an authority in its directory.
const (
	CertFile = "ca.pem"
	KeyFile  = "ca-key.pem"
)

// maxFile bounds what is read: a certificate of ours is below 1 kB.
const maxFile = 64 << 10

// Load reads the authority that is kept in a directory, and makes one, and the
// directory, when neither of its files is there. Both files are made with mode
// 0600.
//
// It refuses a key that others can read or that belongs to somebody else, a
// key that does not fit the certificate, one file without the other, and a
// certificate that is no authority or is over: it never repairs, as the cage
// may hold the certificate already.
func Load(dir string) (*Authority, error) {
	a, err := load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		a, err = create(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use certificate authority in %s: %w", dir, err)
	}
	return a, nil
}

// load returns fs.ErrNotExist only when both files are missing.
func load(dir string) (*Authority, error) {
	keyPEM, keyErr := readFile(filepath.Join(dir, KeyFile), true)
	certPEM, certErr := readFile(filepath.Join(dir, CertFile), false)
	noKey, noCert := errors.Is(keyErr, fs.ErrNotExist), errors.Is(certErr, fs.ErrNotExist)
	switch {
	case noKey && noCert:
		return nil, fs.ErrNotExist
	case noKey:
		return nil, fmt.Errorf("%s is there without %s", CertFile, KeyFile)
	case noCert:
		return nil, fmt.Errorf("%s is there without %s", KeyFile, CertFile)
	case keyErr != nil:
		return nil, keyErr
	case certErr != nil:
		return nil, certErr
	}
	cert, key, err := parse(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	return newAuthority(cert, key)
}

// readFile opens once and checks what it opened. A symbolic link is refused,
// as it could point at a file whose mode says nothing about the link.
func readFile(path string, secret bool) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", filepath.Base(path))
	}
	refused := fs.FileMode(0o022)
	if secret {
		refused = 0o077
	}
	if info.Mode().Perm()&refused != 0 {
		return nil, fmt.Errorf("%s has mode %04o, want 0600", filepath.Base(path), info.Mode().Perm())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && secret && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to user %d", filepath.Base(path), st.Uid)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

func parse(certPEM, keyPEM []byte) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certDER, err := onlyBlock(certPEM, "CERTIFICATE", CertFile)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := onlyBlock(keyPEM, "PRIVATE KEY", KeyFile)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", CertFile, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		// The error could quote the file.
		return nil, nil, fmt.Errorf("%s holds no private key", KeyFile)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, nil, fmt.Errorf("%s is no ECDSA P-256 key", KeyFile)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, fmt.Errorf("%s does not belong to %s", KeyFile, CertFile)
	}
	if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, nil, fmt.Errorf("%s is no certificate authority", CertFile)
	}
	if now := time.Now(); now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
		return nil, nil, fmt.Errorf("%s is valid from %s to %s only", CertFile,
			cert.NotBefore.Format(time.DateOnly), cert.NotAfter.Format(time.DateOnly))
	}
	return cert, key, nil
}

func onlyBlock(data []byte, kind, file string) ([]byte, error) {
	b, rest := pem.Decode(data)
	if b == nil || b.Type != kind || len(rest) != 0 {
		return nil, fmt.Errorf("%s does not hold one %s in PEM", file, kind)
	}
	return b.Bytes, nil
}

func create(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	cert, key, err := newRoot(filepath.Base(dir), time.Now())
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	keyPath := filepath.Join(dir, KeyFile)
	if err := writeNew(keyPath, &pem.Block{Type: "PRIVATE KEY", Bytes: der}); err != nil {
		return nil, err
	}
	if err := writeNew(filepath.Join(dir, CertFile), &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
		os.Remove(keyPath)
		return nil, err
	}
	return newAuthority(cert, key)
}

// writeNew makes the file with its final mode, and never touches one that is
// there.
func writeNew(path string, b *pem.Block) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = pem.Encode(f, b)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}
