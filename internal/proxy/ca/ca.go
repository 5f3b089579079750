// Package ca is the certificate authority of one cage. Programs in the cage
// trust it and nothing outside does; its key never enters the cage.
package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/agentcage/agentcage/internal/hostname"
)

const (
	// caLife is long because the authority of a kept cage is kept with it.
	caLife = 5 * 365 * 24 * time.Hour
	// slack is for clocks that are wrong: a microVM that was paused, a
	// laptop that slept.
	slack    = 24 * time.Hour
	leafLife = 48 * time.Hour
	// renew is how long before its end a leaf is no longer handed out.
	renew = leafLife / 2
	// maxCommonName is the upper bound of X.520 (RFC 5280 appendix A.1);
	// OpenSSL refuses longer ones.
	maxCommonName = 64
	// maxLeaves bounds the cache, about 2 kB each: names come from the
	// agent.
	maxLeaves = 1024
)

// Authority mints a certificate for any name, with one key shared by all of
// them. It is safe for concurrent use.
type Authority struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	leafKey *ecdsa.PrivateKey
	leafSKI []byte

	now    func() time.Time
	leaves lru
	mint   singleflight.Group
}

// New makes an authority in memory. The name is shown to whoever looks at the
// certificate and has no other meaning.
func New(name string) (*Authority, error) {
	cert, key, err := newRoot(name, time.Now())
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate authority: %w", err)
	}
	return newAuthority(cert, key)
}

func newAuthority(cert *x509.Certificate, key *ecdsa.PrivateKey) (*Authority, error) {
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	ski, err := keyID(&leafKey.PublicKey)
	if err != nil {
		return nil, err
	}
	a := &Authority{cert: cert, key: key, leafKey: leafKey, leafSKI: ski, now: time.Now}
	a.leaves.max = maxLeaves
	return a, nil
}

// PEM returns the certificate that programs in the cage are to trust.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Certificate returns a certificate for one host, valid now and for a day at
// least. Concurrent calls for one host share the work.
func (a *Authority) Certificate(name hostname.Name) (*tls.Certificate, error) {
	if name.IsZero() {
		return nil, errors.New("cannot make a certificate: no host")
	}
	if c := a.leaves.get(name, a.now()); c != nil {
		return c, nil
	}
	v, err, _ := a.mint.Do(name.String(), func() (any, error) {
		now := a.now()
		c, err := a.newLeaf(name, now)
		if err != nil {
			return nil, err
		}
		a.leaves.add(name, c, now.Add(leafLife-renew))
		return c, nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate for %s: %w", name, err)
	}
	return v.(*tls.Certificate), nil
}

func (a *Authority) newLeaf(name hostname.Name, now time.Time) (*tls.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-slack),
		NotAfter:              earlier(now.Add(leafLife), a.cert.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          a.leafSKI,
	}
	if len(name.String()) <= maxCommonName {
		t.Subject = pkix.Name{CommonName: name.String()}
	}
	if name.IsIP() {
		t.IPAddresses = []net.IP{name.Addr().AsSlice()}
	} else {
		t.DNSNames = []string{name.String()}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &a.leafKey.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.leafKey, Leaf: leaf}, nil
}

// newRoot makes a root that OpenSSL's X509_V_FLAG_X509_STRICT accepts, which
// Python sets by default since 3.13: key usage, critical basic constraints and
// both key identifiers are there.
func newRoot(name string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	ski, err := keyID(&key.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"agentcage"}, CommonName: commonName(name)},
		NotBefore:             now.Add(-slack),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          ski,
		AuthorityKeyId:        ski,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

// commonName keeps printable ASCII of a cage's name, within the bound.
func commonName(name string) string {
	out := []byte("agentcage CA")
	if name != "" {
		out = append(out, ' ')
	}
	for i := 0; i < len(name) && len(out) < maxCommonName; i++ {
		if c := name[i]; c >= ' ' && c < 0x7f {
			out = append(out, c)
		}
	}
	return string(out)
}

// keyID is method 1 of RFC 7093 section 2: the first 160 bits of SHA-256.
func keyID(pub *ecdsa.PublicKey) ([]byte, error) {
	raw, err := pub.Bytes()
	if err != nil {
		return nil, fmt.Errorf("cannot name a key: %w", err)
	}
	sum := sha256.Sum256(raw)
	return sum[:20], nil
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
