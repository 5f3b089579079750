package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/elazarl/goproxy"
)

// The contenders' names, as they stand in the table and in the JSON.
const (
	direct    = "no proxy"
	baseline  = "goproxy"
	ours      = "agentcage"
	squid     = "squid"
	mitmproxy = "mitmproxy"
)

// contender is one way to the upstream.
type contender struct {
	name string
	slow bool // gets fewer turns and a small download
	// start runs the proxy; nil for the way without one. Every call gives a
	// fresh process.
	start func(ctx context.Context) (*child, error)
}

// contenders lists what can run here. The order is that of the turns.
func (l *lab) contenders(binary string, rsa, others bool) []contender {
	list := []contender{
		{name: direct},
		{name: baseline, start: func(ctx context.Context) (*child, error) {
			authority := "ecdsa"
			if rsa {
				authority = "builtin"
			}
			return self(ctx, "serve-goproxy", l.dir, authority)
		}},
	}
	if _, err := os.Stat(binary); err == nil {
		list = append(list, contender{name: ours, start: func(ctx context.Context) (*child, error) { return l.startOurs(ctx, binary, "") }})
	}
	if !others {
		return list
	}
	if _, err := exec.LookPath("squid"); err == nil {
		list = append(list, contender{name: squid, slow: true, start: l.startSquid})
	}
	if _, err := exec.LookPath("mitmdump"); err == nil {
		list = append(list, contender{name: mitmproxy, slow: true, start: l.startMitmproxy})
	}
	return list
}

// serveGoproxy is goproxy as its users run it: interception on, certificates
// cached, HTTP/2 as it comes. Its connections to the upstream are kept in the
// number that the load needs; its default of two would measure handshakes.
func serveGoproxy(dir, authority string) error {
	p := goproxy.NewProxyHttpServer()
	p.Logger = log.New(io.Discard, "", 0)
	p.CertStore = &certStore{certs: map[string]*tls.Certificate{}}
	action := &goproxy.ConnectAction{Action: goproxy.ConnectMitm, TLSConfig: goproxy.TLSConfigFromCA(&goproxy.GoproxyCa)}
	if authority == "ecdsa" {
		cert, err := loadPair(dir, "ca")
		if err != nil {
			return err
		}
		action.TLSConfig = goproxy.TLSConfigFromCA(&cert)
	} else if err := os.WriteFile(filepath.Join(dir, "goproxy-ca.pem"), goproxy.CA_CERT, 0o644); err != nil {
		return err
	}
	p.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		return action, host
	})
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	p.Tr = &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext:         dialUpstream,
		MaxIdleConnsPerHost: 256,
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	srv := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	return srv.Serve(listener)
}

// dialUpstream resolves the upstream's name, which no resolver knows.
func dialUpstream(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	if rest, ok := strings.CutPrefix(addr, serverName+":"); ok {
		addr = "127.0.0.1:" + rest
	}
	return d.DialContext(ctx, network, addr)
}

// certStore caches certificates for goproxy. It has no cap: the benchmark has
// one host.
type certStore struct {
	mu    sync.Mutex
	certs map[string]*tls.Certificate
}

func (s *certStore) Fetch(host string, gen func() (*tls.Certificate, error)) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.certs[host]; ok {
		return c, nil
	}
	c, err := gen()
	if err == nil {
		s.certs[host] = c
	}
	return c, err
}

// startOurs runs `agentcage proxy` with its whole chain on; only the rate
// limit and the budget are out of the way, as a benchmark is what they exist to
// refuse. The budget counts all the same. more is added to its config.
func (l *lab) startOurs(ctx context.Context, binary, more string) (*child, error) {
	config := fmt.Sprintf(`name: bench
domains:
  mode: allowlist
  list:
    - host: %[1]s
      ports: [%[2]s]
rate_limit:
  requests_per_second: 0
budget:
  bytes: {flag: false, block: 900TiB}
  requests: {flag: false, block: 1000000000}
upstream:
  ca_files: [%[3]s/ca.pem]
  hosts:
    %[1]s: 127.0.0.1
  allow_private: [%[1]s]
%[4]s`, serverName, l.port, l.dir, more)
	l.started++
	file := filepath.Join(l.dir, fmt.Sprintf("cage-%d.yaml", l.started))
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	caDir := filepath.Join(l.dir, "ours")
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, binary, "proxy", "-c", file, "--listen", addr, "--ca-dir", caDir,
		"--audit", filepath.Join(l.dir, fmt.Sprintf("audit-%d.jsonl", l.started)), "--ready-fd", "3")
	cmd.ExtraFiles = []*os.File{w}
	log, err := os.Create(filepath.Join(l.dir, fmt.Sprintf("ours-%d.log", l.started)))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	c, err := start(cmd, func(exited <-chan struct{}) (string, error) {
		w.Close()
		_, _ = io.ReadAll(io.LimitReader(r, 1)) // one byte, or the end, says ready or dead
		return listening(addr, exited)
	})
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%w\n%s", err, said)
	}
	return c, l.trust(filepath.Join(caDir, "ca.pem"))
}

// startSquid runs squid with one worker and ssl-bump. It reads the name's
// address from a hosts file of ours, and runs as its own user when it has to.
func (l *lab) startSquid(ctx context.Context) (*child, error) {
	dir := filepath.Join(l.dir, "squid")
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	generate := "/usr/lib/squid/security_file_certgen"
	if out, err := exec.CommandContext(ctx, generate, "-c", "-s", dir+"/db", "-M", "4MB").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot make squid's store: %w: %s", err, out)
	}
	if err := os.WriteFile(dir+"/hosts", []byte("127.0.0.1 "+serverName+"\n"), 0o644); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`http_port %[1]s ssl-bump tls-cert=%[2]s/ca.pem tls-key=%[2]s/ca-key.pem generate-host-certificates=on dynamic_cert_mem_cache_size=4MB
sslcrtd_program %[3]s -s %[4]s/db -M 4MB
sslcrtd_children 2
acl step1 at_step SslBump1
ssl_bump peek step1
ssl_bump bump all
tls_outgoing_options cafile=%[2]s/ca.pem
hosts_file %[4]s/hosts
acl here src 127.0.0.1/32
http_access allow here
http_access deny all
http_upgrade_request_protocols WebSocket allow all
cache deny all
access_log none
cache_log %[4]s/cache.log
pid_filename none
coredump_dir %[4]s
shutdown_lifetime 1 seconds
workers 1
`, addr, l.dir, generate, dir)
	if err := os.WriteFile(dir+"/squid.conf", []byte(config), 0o644); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		if err := handOver(ctx, l.dir); err != nil {
			return nil, err
		}
	}
	cmd := exec.CommandContext(ctx, "squid", "--foreground", "-f", dir+"/squid.conf")
	return start(cmd, func(exited <-chan struct{}) (string, error) { return listening(addr, exited) })
}

// handOver makes the directory readable for squid's own user, to which it
// changes when root starts it.
func handOver(ctx context.Context, dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "chown", "-R", "proxy", filepath.Join(dir, "squid")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot give squid its directory: %w: %s", err, out)
	}
	return nil
}

func (l *lab) startMitmproxy(ctx context.Context) (*child, error) {
	dir := filepath.Join(l.dir, "mitmproxy")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var both []byte
	for _, name := range []string{"ca-key.pem", "ca.pem"} {
		b, err := os.ReadFile(filepath.Join(l.dir, name))
		if err != nil {
			return nil, err
		}
		both = append(both, b...)
	}
	if err := os.WriteFile(dir+"/mitmproxy-ca.pem", both, 0o600); err != nil {
		return nil, err
	}
	// The name is put into its place by an addon: it has no table of hosts.
	addon := fmt.Sprintf("def server_connect(data):\n    data.server.address = ('127.0.0.1', %s)\n", l.port)
	if err := os.WriteFile(dir+"/hosts.py", []byte(addon), 0o600); err != nil {
		return nil, err
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(addr)
	cmd := exec.CommandContext(ctx, "mitmdump", "-q", "--listen-host", host, "--listen-port", port,
		"--set", "confdir="+dir, "--set", "ssl_verify_upstream_trusted_ca="+l.dir+"/ca.pem",
		"--set", "connection_strategy=lazy", "--set", "flow_detail=0", "-s", dir+"/hosts.py")
	cmd.Stderr = os.Stderr
	return start(cmd, func(exited <-chan struct{}) (string, error) { return listening(addr, exited) })
}
