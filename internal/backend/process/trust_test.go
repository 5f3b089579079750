package process

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"
)

func testCA(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "agentcage  Test CA", Organization: []string{"Agentcage"}},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Programs in the cage trust its authority without a flag, wherever they look.
func TestTrust(t *testing.T) {
	ca := testCA(t)
	spec := shell(project(t), `
line=$(sed -n 2p "$NODE_EXTRA_CA_CERTS")
for f in "$SSL_CERT_FILE" "$REQUESTS_CA_BUNDLE" "$GIT_SSL_CAINFO" `+systemBundlePath()+`; do grep -qF "$line" "$f" && echo "has it" || echo "LACKS $f"; done
echo x > "$SSL_CERT_FILE" || echo "cannot change it"
ls "${SSL_CERT_DIR%%:*}"
unset SSL_CERT_FILE SSL_CERT_DIR
if command -v openssl >/dev/null; then openssl verify -CApath /etc/agentcage/certs "$NODE_EXTRA_CA_CERTS" || echo "LACKS hash"; fi`)
	spec.CA = ca
	o := run{spec: spec}.run(t)
	o.want(t, 0, "has it", "cannot change it", ".0\n")
	if strings.Contains(o.out, "LACKS") {
		t.Errorf("output:\n%s", o.out)
	}
}

func systemBundlePath() string {
	for _, b := range bundles {
		if _, err := os.Stat(b); err == nil {
			return b
		}
	}
	return bundlePath
}
