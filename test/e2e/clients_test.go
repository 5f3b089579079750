//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// client is a program that fetches a URL, with no option for certificates and
// none for a proxy.
type client struct {
	name    string
	program string
	command func(b *bench, url string) []string
	// refusal is what its user sees of a 403; empty is the whole reason.
	refusal string
}

const python = `import sys, urllib.request, urllib.error
try:
    sys.stdout.write(urllib.request.urlopen(sys.argv[1]).read().decode())
except urllib.error.HTTPError as e:
    sys.exit("%s %s" % (e, e.read().decode()))
`

const pythonRequests = `import sys, requests
r = requests.get(sys.argv[1])
if r.status_code != 200:
    sys.exit(r.text)
sys.stdout.write(r.text)
`

const nodeFetch = `fetch(process.argv[2]).then(async r => {
  const t = await r.text();
  if (r.status !== 200) { console.error(r.status, t); process.exit(1) }
  process.stdout.write(t);
}).catch(e => { console.error(e); process.exit(1) })
`

const nodeHTTPS = `require('https').get(process.argv[2], r => {
  let t = ''; r.on('data', d => t += d);
  r.on('end', () => { if (r.statusCode !== 200) { console.error(r.statusCode, t); process.exit(1) } process.stdout.write(t) });
}).on('error', e => { console.error(e); process.exit(1) })
`

const javaClient = `import java.net.URI;
import java.net.http.*;
public class Client {
  public static void main(String[] a) throws Exception {
    HttpResponse<String> r = HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(a[0])).build(), HttpResponse.BodyHandlers.ofString());
    if (r.statusCode() != 200) { System.err.println(r.statusCode() + " " + r.body()); System.exit(1); }
    System.out.print(r.body());
  }
}
`

func script(name, content, program string, args ...string) func(*bench, string) []string {
	return func(b *bench, url string) []string {
		b.write(name, content)
		return append(append([]string{program}, args...), name, url)
	}
}

func plain(args ...string) func(*bench, string) []string {
	return func(_ *bench, url string) []string { return append(append([]string{}, args...), url) }
}

var clients = []client{
	{"curl", "curl", plain("curl", "-sS", "--fail-with-body"), ""},
	{"curl-h1", "curl", plain("curl", "-sS", "--http1.1", "--fail-with-body"), ""},
	{"curl-h2", "curl", plain("curl", "-sS", "--http2", "--fail-with-body"), ""},
	{"curl-without-proxy", "curl", plain("curl", "-sS", "--noproxy", "*", "--fail-with-body"), ""},
	{"wget", "wget", plain("wget", "-qO-", "--content-on-error", "--no-config"), ""},
	{"python-urllib", "python3", script("u.py", python, "python3"), ""},
	{"python-requests", "python3", script("r.py", pythonRequests, "python3"), ""},
	{"node-fetch", "node", script("f.js", nodeFetch, "node"), ""},
	{"node-https", "node", script("h.js", nodeHTTPS, "node"), ""},
	{"java-httpclient", "javac", script("Client.java", javaClient, "java", "-Xshare:auto"), ""},
	{"go", "", func(b *bench, url string) []string {
		exe, _ := os.Executable()
		return []string{"env", clientEnv + "=" + url, exe}
	}, ""},
}

func (c client) need(t *testing.T) {
	t.Helper()
	if c.program != "" {
		need(t, c.program)
	}
	if c.name == "python-requests" && exec.Command("python3", "-c", "import requests").Run() != nil {
		t.Skip("needs Python requests: not installed")
	}
}

// run runs the client in a cage.
func (c client) run(b *bench, url string) result {
	b.t.Helper()
	args := []string{"run", "-c", "cage.yaml"}
	if c.name == "go" {
		exe, err := os.Executable()
		must(b.t, err)
		args = append(args, "--ro", exe)
	}
	return b.agentcage(append(append(args, "--"), c.command(b, url)...)...)
}

// TestClients: what is allowed works with no option for certificates, what is
// not gives a 403 whose text a program and a person understand (rules 120,
// 122, A10; peer-holes B4).
func TestClients(t *testing.T) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			c.need(t)
			b, s := onSite(t, good)
			r := c.run(b, s.url("https", good, "/allowed"))
			r.ok(t, `"URI":"/allowed"`)
			if got := s.received(good); len(got) != 1 || !got[0].TLS || !strings.HasPrefix(got[0].Host, good) {
				t.Errorf("the server received %+v", got)
			}
			r = c.run(b, s.url("https", evil, "/forbidden"))
			if r.code == 0 || !strings.Contains(r.all(), "domain not in allowlist: "+evil) {
				t.Errorf("the user sees %d %s", r.code, clip(r.all()))
			}
			s.untouched(t, evil)
			// The control: the same program reaches the forbidden server
			// when it is allowed.
			b.write("cage.yaml", s.config(evil))
			c.run(b, s.url("https", evil, "/control")).ok(t, `"URI":"/control"`)
		})
	}
}

// TestClientsPlainHTTP is the same without TLS.
func TestClientsPlainHTTP(t *testing.T) {
	for _, c := range clients {
		// Not for plain HTTP; or it asks to upgrade to h2c there, which is
		// refused: see TestUpgradeToH2CSaysWhy.
		if c.name == "node-https" || c.name == "java-httpclient" || c.name == "curl-h2" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			c.need(t)
			b, s := onSite(t, good)
			c.run(b, s.url("http", good, "/allowed")).ok(t, `"URI":"/allowed"`)
			if r := c.run(b, s.url("http", evil, "/forbidden")); r.code == 0 || !strings.Contains(r.all(), "domain not in allowlist: "+evil) {
				t.Errorf("the user sees %d %s", r.code, clip(r.all()))
			}
			s.untouched(t, evil)
		})
	}
}

// TestCurlTricks are the ways in which curl can say one name and mean another
// (rules 1, 2, 4, 5; A4, A5).
func TestCurlTricks(t *testing.T) {
	need(t, "curl")
	b, s := onSite(t, good)
	allowed, forbidden := s.url("https", good, "/"), s.url("https", evil, "/")
	authority := strings.TrimPrefix(strings.TrimSuffix(forbidden, "/"), "https://")
	goodAuthority := strings.TrimPrefix(strings.TrimSuffix(allowed, "/"), "https://")
	for name, args := range map[string][]string{
		"host-header":            {"-H", "Host: " + authority, allowed},
		"host-header-direct":     {"--noproxy", "*", "-H", "Host: " + authority, allowed},
		"host-header-plain":      {"-H", "Host: " + authority, strings.Replace(allowed, "https", "http", 1)},
		"host-header-plain-h1":   {"--noproxy", "*", "-H", "Host: " + authority, strings.Replace(allowed, "https", "http", 1)},
		"connect-to-good":        {"--connect-to", authority + ":" + goodAuthority, forbidden},
		"address-literal":        {"-k", strings.Replace(forbidden, evil, "127.0.0.1", 1)},
		"address-literal-direct": {"-k", "--noproxy", "*", strings.Replace(forbidden, evil, "127.0.0.1", 1)},
		"metadata":               {"http://169.254.169.254/latest/meta-data/"},
		"metadata-direct":        {"--noproxy", "*", "http://169.254.169.254/latest/meta-data/"},
		"trailing-dot":           {strings.Replace(forbidden, evil, evil+".", 1)},
		"upper-case":             {strings.Replace(forbidden, evil, "EVIL.test", 1)},
		"user-info":              {strings.Replace(forbidden, evil, good+"@"+evil, 1)},
		"suffix":                 {strings.Replace(forbidden, evil, "not"+good, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.caged(append([]string{"curl", "-sS", "-w", "\n%{http_code}", "-m", "30"}, args...)...)
			// 400 is for a request that contradicts itself.
			if !strings.HasSuffix(r.stdout, "403") && !strings.HasSuffix(r.stdout, "400") || !strings.Contains(r.stdout, `"blocked": true`) {
				t.Errorf("curl says %d %s %s", r.code, clip(r.stdout), clip(r.stderr))
			}
			s.untouched(t, evil)
			for _, got := range s.received(good) {
				t.Errorf("%s received %+v", good, got)
			}
		})
	}
	// --resolve to the attacker's address, and --connect-to as well: the
	// name decides, and the connection goes where the name is.
	for name, args := range map[string][]string{
		"resolve":    {"--noproxy", "*", "--resolve", goodAuthority + ":203.0.113.66", allowed},
		"connect-to": {"--noproxy", "*", "--connect-to", goodAuthority + ":203.0.113.66:" + authority[strings.IndexByte(authority, ':')+1:], allowed},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(s.received(good))
			b.caged(append([]string{"curl", "-sS", "-m", "30"}, args...)...).ok(t, `"Host":"`+goodAuthority)
			if len(s.received(good)) != before+1 {
				t.Errorf("%s received %+v", good, s.received(good))
			}
		})
	}
}

// TestCurlProtocols: h2 to the agent and to the server, bodies both ways.
func TestCurlProtocols(t *testing.T) {
	need(t, "curl")
	b, s := onSite(t, good)
	for flag, proto := range map[string]string{"--http1.1": "1.1", "--http2": "2"} {
		b.caged("curl", "-sS", flag, "-o", "/dev/null", "-w", "%{http_version} %{response_code}", s.url("https", good, "/")).ok(t, proto+" 200")
	}
	b.write("body", strings.Repeat("0123456789", 100_000))
	for _, flags := range [][]string{{"--http2"}, {"--http1.1"}, {"--http1.1", "-H", "Transfer-Encoding: chunked"}, {"--http1.1", "-H", "Expect: 100-continue"}} {
		args := append([]string{"curl", "-sS", "-o", "/dev/null", "-w", "%{response_code}", "--data-binary", "@body"}, flags...)
		b.caged(append(args, s.url("https", good, "/post"))...).ok(t, "200")
	}
	for _, r := range s.received(good) {
		if r.URI == "/post" && len(r.Body) != 1_000_000 {
			t.Errorf("the server received %d bytes by %s", len(r.Body), r.Proto)
		}
	}
}

// TestUpgradeToH2CSaysWhy: upgrades other than to WebSocket are refused, with
// the reason (A9, A11).
func TestUpgradeToH2CSaysWhy(t *testing.T) {
	need(t, "curl")
	b, s := onSite(t, good)
	if r := b.caged("curl", "-sS", "--http2", s.url("http", good, "/")); !strings.Contains(r.stdout, "upgrade to h2c is refused") {
		t.Errorf("curl says %s", r.all())
	}
	if got := s.received(good); len(got) > 0 {
		t.Errorf("the server received %+v", got)
	}
}

// TestNodeWebSocket: a real WebSocket client through the gateway (rule 51).
func TestNodeWebSocket(t *testing.T) {
	need(t, "node")
	if exec.Command("node", "--experimental-websocket", "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)").Run() != nil {
		t.Skip("needs node-with-WebSocket: this version has no client")
	}
	b, s := onSite(t, good)
	s.mux[good] = webSocketEcho{}
	b.write("ws.js", `const w = new WebSocket(process.argv[2]);
w.onopen = () => w.send('hello over the wire');
w.onmessage = m => { console.log('got', m.data); w.close() };
w.onerror = e => { console.error('refused', e.message || e.type); process.exit(1) };
`)
	b.caged("node", "--experimental-websocket", "ws.js", s.url("wss", good, "/ws")).ok(t, "got hello over the wire")
	if r := b.caged("node", "--experimental-websocket", "ws.js", s.url("wss", evil, "/ws")); r.code == 0 {
		t.Errorf("the WebSocket to %s worked: %s", evil, r.all())
	}
	s.untouched(t, evil)
}
