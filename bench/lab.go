package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// serverName is the upstream's name; it resolves nowhere, so that a proxy
// which ignores its table of hosts fails instead of going out.
const serverName = "upstream.bench.test"

// lab is the upstream with its certificates.
type lab struct {
	dir   string
	port  string // of the upstream
	roots *x509.CertPool
	up    *child

	started int // gateways of ours, each with files of its own
}

func newLab(ctx context.Context, dir string) (*lab, error) {
	l := &lab{dir: dir, roots: x509.NewCertPool()}
	if err := writeAuthority(dir); err != nil {
		return nil, err
	}
	if err := l.trust(filepath.Join(dir, "ca.pem")); err != nil {
		return nil, err
	}
	up, err := self(ctx, "serve-upstream", dir)
	if err != nil {
		return nil, fmt.Errorf("cannot start the upstream: %w", err)
	}
	_, l.port, err = net.SplitHostPort(up.addr)
	l.up = up
	return l, err
}

func (l *lab) close() { l.up.stop() }

// target is the upstream's authority as clients write it.
func (l *lab) target() string { return net.JoinHostPort(serverName, l.port) }

func (l *lab) trust(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !l.roots.AppendCertsFromPEM(b) {
		return fmt.Errorf("cannot use %s: no certificate in it", file)
	}
	return nil
}

// child is a process of the benchmark that listens on addr.
type child struct {
	cmd  *exec.Cmd
	addr string
	done chan struct{}
}

// start runs cmd in a process group of its own, so that its workers end with
// it. ready blocks until the child listens, and returns its address.
func start(cmd *exec.Cmd, ready func(exited <-chan struct{}) (string, error)) (*child, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(c.done)
	}()
	addr, err := ready(c.done)
	if err != nil {
		c.stop()
		return nil, err
	}
	c.addr = addr
	return c, nil
}

func (c *child) stop() {
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(2 * time.Second):
	}
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	<-c.done
}

// self starts this program again in another role. The child prints its
// address on a line when it listens.
func self(ctx context.Context, args ...string) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Stderr = os.Stderr
	pipe, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = w
	return start(cmd, func(<-chan struct{}) (string, error) {
		w.Close()
		line, err := bufio.NewReader(pipe).ReadString('\n')
		return strings.TrimSpace(line), err
	})
}

// listening waits until something accepts on addr.
func listening(addr string, exited <-chan struct{}) (string, error) {
	deadline := time.After(30 * time.Second)
	for {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			conn.Close()
			return addr, nil
		}
		select {
		case <-exited:
			return "", fmt.Errorf("it ended before it listened on %s", addr)
		case <-deadline:
			return "", fmt.Errorf("nothing listens on %s: %w", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// freePort asks the kernel for a port. Somebody else may take it before the
// child does; then the child fails to start, and says so.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// writeAuthority makes an ECDSA P-256 authority and a certificate for the
// upstream: ca.pem, ca-key.pem, server.pem, server-key.pem in dir.
func writeAuthority(dir string) error {
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "agentcage bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{serverName},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := writePair(dir, "ca", ca, ca, caKey, caKey); err != nil {
		return err
	}
	return writePair(dir, "server", leaf, ca, leafKey, caKey)
}

func writePair(dir, name string, cert, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := os.WriteFile(filepath.Join(dir, name+".pem"), certPEM, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+"-key.pem"), keyPEM, 0o600)
}

func loadPair(dir, name string) (tls.Certificate, error) {
	return tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem"))
}
