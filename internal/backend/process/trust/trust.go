// Package trust writes a certificate authority in the forms in which programs
// look for it: a PEM bundle, the name of a link in an OpenSSL certificate
// directory, and a Java key store.
package trust

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // both formats are defined with it; neither relies on it for security
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Bundle is the CA followed by the system's certificates, as PEM.
func Bundle(ca, system []byte) []byte {
	var b bytes.Buffer
	b.Grow(len(ca) + len(system) + 1)
	b.Write(ca)
	if len(ca) > 0 && ca[len(ca)-1] != '\n' {
		b.WriteByte('\n')
	}
	b.Write(system)
	return b.Bytes()
}

// HashName is the name under which OpenSSL 1.0 and newer look for the first
// certificate of a PEM text: the first four bytes, in little-endian order, of
// the SHA-1 of the subject in its canonical form, and ".0" (X509_NAME_hash_ex(3),
// openssl-rehash(1)).
func HashName(ca []byte) (string, error) {
	block, _ := pem.Decode(ca)
	if block == nil {
		return "", errors.New("cannot read the certificate: it is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	canon, err := canonicalName(cert.RawSubject)
	if err != nil {
		return "", err
	}
	sum := sha1.Sum(canon) //nolint:gosec // see above
	return fmt.Sprintf("%08x.0", binary.LittleEndian.Uint32(sum[:])), nil
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// canonicalName is the concatenation of the subject's relative names, every
// string as UTF-8 in lower case (ASCII letters only), without blanks at either
// end and with single ones inside.
func canonicalName(raw []byte) ([]byte, error) {
	var rdns []asn1.RawValue
	if _, err := asn1.Unmarshal(raw, &rdns); err != nil {
		return nil, err
	}
	var out []byte
	for _, rdn := range rdns {
		var attrs []attribute
		if _, err := asn1.UnmarshalWithParams(rdn.FullBytes, &attrs, "set"); err != nil {
			return nil, err
		}
		for i := range attrs {
			attrs[i].Value = canonicalValue(attrs[i].Value)
		}
		b, err := asn1.MarshalWithParams(attrs, "set")
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

func canonicalValue(v asn1.RawValue) asn1.RawValue {
	var text string
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String:
		text = string(v.Bytes)
	case asn1.TagBMPString:
		units := make([]uint16, len(v.Bytes)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(v.Bytes[2*i:])
		}
		text = string(utf16.Decode(units))
	default:
		return v
	}
	blank := func(r rune) bool { return r < 128 && strings.ContainsRune(" \t\n\v\f\r", r) }
	text = strings.Join(strings.FieldsFunc(text, blank), " ")
	lower := []byte(text)
	for i, c := range lower {
		if c >= 'A' && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	return asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: lower}
}

// The Java key store, version 2, as the JDK's sun.security.provider.JavaKeyStore
// reads it: big-endian numbers, strings with their length, and at the end a
// SHA-1 over the password, a constant phrase and everything before.
const (
	jksMagic    = 0xFEEDFEED
	jksVersion  = 2
	jksTrusted  = 2
	jksPhrase   = "Mighty Aphrodite"
	jksPassword = "changeit" // the JDK's default for trust stores, and no secret
	jksMaxCerts = 2000
)

// JKS is a Java trust store with the certificates of both PEM texts.
func JKS(ca, system []byte) ([]byte, error) {
	certs := append(ders(ca), ders(system)...)
	if len(certs) == 0 {
		return nil, errors.New("no certificate to trust")
	}
	certs = certs[:min(len(certs), jksMaxCerts)]
	size := 32
	for _, c := range certs {
		size += len(c) + 64
	}
	b := make([]byte, 0, size)
	b = binary.BigEndian.AppendUint32(b, jksMagic)
	b = binary.BigEndian.AppendUint32(b, jksVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(certs)))
	for i, der := range certs {
		b = binary.BigEndian.AppendUint32(b, jksTrusted)
		b = appendString(b, fmt.Sprintf("agentcage-%d", i))
		b = binary.BigEndian.AppendUint64(b, 0) // creation date
		b = appendString(b, "X.509")
		b = binary.BigEndian.AppendUint32(b, uint32(len(der)))
		b = append(b, der...)
	}
	return append(b, jksDigest(b)...), nil
}

func ders(text []byte) [][]byte {
	var out [][]byte
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out
		}
		if block.Type == "CERTIFICATE" || block.Type == "TRUSTED CERTIFICATE" {
			out = append(out, block.Bytes)
		}
	}
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func jksDigest(store []byte) []byte {
	h := sha1.New() //nolint:gosec // see above
	for _, u := range utf16.Encode([]rune(jksPassword)) {
		h.Write([]byte{byte(u >> 8), byte(u)})
	}
	h.Write([]byte(jksPhrase))
	h.Write(store)
	return h.Sum(nil)
}
