package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func authority(t *testing.T, subject pkix.Name) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// The name is what openssl itself computes.
func TestHashName(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl: its own name for the file is compared")
	}
	for _, subject := range []pkix.Name{
		{CommonName: "agentcage"},
		{CommonName: "Agent  CAGE  ", Organization: []string{" Some Org"}, Country: []string{"DE"}},
		{CommonName: "käfig Ä", OrganizationalUnit: []string{"a", "b"}},
	} {
		ca := authority(t, subject)
		file := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(file, ca, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(openssl, "x509", "-in", file, "-noout", "-subject_hash").Output()
		if err != nil {
			t.Fatal(err)
		}
		got, err := HashName(ca)
		if want := strings.TrimSpace(string(out)) + ".0"; got != want || err != nil {
			t.Errorf("%v: got %s, %v, want %s", subject, got, err, want)
		}
	}
}

func TestHashNameOfNoCertificate(t *testing.T) {
	for _, text := range []string{"", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if name, err := HashName([]byte(text)); err == nil {
			t.Errorf("%q gives %s", text, name)
		}
	}
}

func TestBundle(t *testing.T) {
	got := string(Bundle([]byte("ca"), []byte("system\n")))
	if got != "ca\nsystem\n" {
		t.Errorf("got %q", got)
	}
}

// The store has every certificate, and the JDK reads it where there is one.
func TestJKS(t *testing.T) {
	ca, other := authority(t, pkix.Name{CommonName: "one"}), authority(t, pkix.Name{CommonName: "two"})
	store, err := JKS(ca, other)
	if err != nil {
		t.Fatal(err)
	}
	if binary.BigEndian.Uint32(store) != jksMagic || binary.BigEndian.Uint32(store[8:]) != 2 {
		t.Errorf("header % x", store[:12])
	}
	body, sum := store[:len(store)-20], store[len(store)-20:]
	if !bytes.Equal(sum, jksDigest(body)) {
		t.Error("the digest does not fit")
	}
	if _, err := JKS(nil, nil); err == nil {
		t.Error("an empty store was made")
	}
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("needs keytool: it reads the store")
	}
	file := filepath.Join(t.TempDir(), "cacerts")
	if err := os.WriteFile(file, store, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(keytool, "-list", "-keystore", file, "-storepass", jksPassword).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "2 entries") || strings.Count(string(out), "trustedCertEntry") != 2 {
		t.Errorf("keytool: %v\n%s", err, out)
	}
}
