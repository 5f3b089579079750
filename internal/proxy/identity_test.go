package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
)

// TestNamesMustAgree is rules.md 1 to 6, 13 and 14, peer-holes A1 to A5: what
// names the destination agrees, or nothing is sent anywhere.
func TestNamesMustAgree(t *testing.T) {
	everything := only(good, evil, "192.0.2.7")
	const mismatch = "SNI/Host header mismatch"
	tests := []struct {
		name    string
		way     string // "proxy", "plain", "tls", "exact"
		connect string
		sni     string
		head    string
		want    int
		reason  string
	}{
		{"tunnel agrees", "proxy", good + ":443", good, "GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 200, ""},
		{"case, dot and port", "proxy", "API.example.COM.:443", good, "GET / HTTP/1.1\r\nHost: api.Example.com:443\r\n\r\n", 200, ""},
		{"other SNI", "proxy", good + ":443", evil, "GET / HTTP/1.1\r\nHost: " + evil + "\r\n\r\n", 403, mismatch},
		{"other SNI, Host as CONNECT", "proxy", good + ":443", evil, "GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 403, mismatch},
		{"other Host in tunnel", "proxy", good + ":443", good, "GET / HTTP/1.1\r\nHost: " + evil + "\r\n\r\n", 403, mismatch},
		{"subdomain", "proxy", good + ":443", good, "GET / HTTP/1.1\r\nHost: x." + good + "\r\n\r\n", 403, mismatch},
		{"parent", "proxy", good + ":443", good, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", 403, mismatch},
		{"other port", "proxy", good + ":443", good, "GET / HTTP/1.1\r\nHost: " + good + ":8443\r\n\r\n", 403, mismatch},
		{"no SNI in tunnel", "proxy", good + ":443", "", "GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 200, ""},
		{"no SNI, other Host", "proxy", good + ":443", "", "GET / HTTP/1.1\r\nHost: " + evil + "\r\n\r\n", 403, mismatch},
		{"tunnel by address", "proxy", "192.0.2.7:443", "", "GET / HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n", 200, ""},
		{"tunnel to address, Host a name", "proxy", "192.0.2.7:443", "", "GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 403, mismatch},
		{"tunnel to address, SNI a name", "proxy", "192.0.2.7:443", good, "GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 403, mismatch},
		{"plain tunnel", "proxy", good + ":80", "-", "GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 200, ""},
		{"plain tunnel, other Host", "proxy", good + ":80", "-", "GET / HTTP/1.1\r\nHost: " + evil + "\r\n\r\n", 403, mismatch},
		{"absolute URL in tunnel", "proxy", good + ":443", good, "GET https://" + good + "/ HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 200, ""},
		{"absolute URL of another", "proxy", good + ":443", good, "GET https://" + evil + "/ HTTP/1.1\r\nHost: " + evil + "\r\n\r\n", 403, mismatch},
		{"plain URL in TLS", "proxy", good + ":443", good, "GET http://" + good + "/ HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 403, mismatch},
		{"CONNECT in tunnel", "proxy", good + ":443", good, "CONNECT " + evil + ":443 HTTP/1.1\r\nHost: " + evil + ":443\r\n\r\n", 403, "CONNECT is for the explicit proxy"},

		{"transparent TLS", "tls", "", good, "GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 200, ""},
		{"transparent TLS, other Host", "tls", "", good, "GET / HTTP/1.1\r\nHost: " + evil + "\r\n\r\n", 403, mismatch},
		{"transparent TLS, no SNI", "tls", "", "", "GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 200, ""},
		{"transparent TLS, bad Host", "tls", "", "", "GET / HTTP/1.1\r\nHost: 0x7f.1\r\n\r\n", 400, ""},
		{"transparent HTTP", "plain", "", "-", "GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 200, ""},
		{"transparent HTTP, wrong port", "exact", "", "-", "GET / HTTP/1.1\r\nHost: " + good + ":81\r\n\r\n", 403, mismatch},
		{"transparent TLS, wrong port", "exact", "", good, "GET / HTTP/1.1\r\nHost: " + good + ":444\r\n\r\n", 403, mismatch},
		{"CONNECT to a transparent listener", "plain", "", "-", "CONNECT " + good + ":443 HTTP/1.1\r\nHost: " + good + ":443\r\n\r\n", 403, "CONNECT is for the explicit proxy"},

		{"absolute-form", "proxy", "", "-", "GET http://" + good + "/ HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 200, ""},
		{"absolute-form, https", "proxy", "", "-", "GET https://" + good + "/ HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 200, ""},
		{"absolute-form, other Host", "proxy", "", "-", "GET http://" + good + "/ HTTP/1.1\r\nHost: " + evil + "\r\n\r\n", 400, ""},
		{"origin-form to the proxy", "proxy", "", "-", "GET / HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 403, "absolute http and https URLs"},
		{"other scheme", "proxy", "", "-", "GET ftp://" + good + "/ HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 400, ""},
		{"CONNECT without port", "proxy", "", "-", "CONNECT " + good + " HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 0, ""},
		{"CONNECT to a bad host", "proxy", "", "-", "CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: 0x7f.1:443\r\n\r\n", 0, ""},
		{"TRACE", "plain", "", "-", "TRACE / HTTP/1.1\r\nHost: " + good + "\r\n\r\n", 403, "method TRACE"},
		{"upgrade to h2c", "plain", "", "-", "GET / HTTP/1.1\r\nHost: " + good + "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", 403, "upgrade to h2c"},
		{"upgrade to TLS", "plain", "", "-", "GET / HTTP/1.1\r\nHost: " + good + "\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n", 403, "upgrade to TLS/1.2"},
		{"upgrade to two", "plain", "", "-", "GET / HTTP/1.1\r\nHost: " + good + "\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", 403, "upgrade to websocket, h2c"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, everything, echo)
			l := map[string]net.Listener{"proxy": w.proxy, "plain": w.plain, "tls": w.tls, "exact": w.exact}[tt.way]
			c := w.dialTo(l)
			if tt.connect != "" {
				c.Close()
				var err error
				if c, err = w.connect(tt.connect); err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			if tt.sni != "-" {
				tc := w.tlsIn(c, tt.sni)
				defer tc.Close()
				c = tc
			}
			res, body := raw(t, c, tt.head)
			if tt.want == 0 && res.StatusCode/100 != 4 || tt.want != 0 && res.StatusCode != tt.want {
				t.Fatalf("%s %q", res.Status, body)
			}
			if tt.want == 200 {
				if len(w.requests()) != 1 || w.requests()[0].Host == "" {
					t.Errorf("the server received %d requests", len(w.requests()))
				}
				return
			}
			w.audit.await(t, "the block", reasonHas(tt.reason))
			if n := w.dialer.count(); n != 0 {
				t.Errorf("a server was dialled: %v", w.dialer.dialed)
			}
			if tt.reason != "" && !strings.Contains(refusalOf(t, body).Reason, tt.reason) {
				t.Errorf("reason: %s", body)
			}
		})
	}
}

// TestHostFieldBesideAuthority is rules.md 2 for HTTP/2, where both can be sent.
func TestHostFieldBesideAuthority(t *testing.T) {
	for host, want := range map[string]int{good: 200, evil: 403} {
		w := newWorld(t, only(good, evil), echo)
		c := newH2Client(t, w.tlsIn(w.dialTo(w.tls), good, "h2"))
		if got := c.request([][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", good}, {":path", "/"}, {"host", host}}); got != want {
			t.Errorf("host %s: status %d, want %d", host, got, want)
		}
		if want == 403 && w.dialer.count() != 0 {
			t.Error("a server was dialled")
		}
	}
}

// TestMalformedHTTP2Targets are requests that HTTP/1 upstream would read as
// something else.
func TestMalformedHTTP2Targets(t *testing.T) {
	for path, want := range map[string]int{
		"/ok":                   200,
		"/ HTTP/1.1":            403,
		"/?a HTTP/1.1\tX":       0,
		"/?q= x":                403,
		"http://" + evil + "/":  403,
		"https://" + evil + "/": 403,
		"/a#b":                  403,
		"/a\\b":                 403,
		"*x":                    0,
	} {
		w := newWorld(t, only(good, evil), echo)
		c := newH2Client(t, w.tlsIn(w.dialTo(w.tls), good, "h2"))
		got := c.request([][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", good}, {":path", path}})
		if want == 0 && got == 200 || want != 0 && got != want {
			t.Errorf("%q: status %d, want %d", path, got, want)
		}
		if want != 200 && w.dialer.count() != 0 {
			t.Errorf("%q: a server was dialled", path)
		}
	}
}

// TestNothingButHTTP is rules.md 26 and peer-holes A11 and D6: no bytes of
// another protocol reach any server, and the audit says what came.
func TestNothingButHTTP(t *testing.T) {
	tests := []struct{ name, send, reason string }{
		{"binary", "\x00\x01\x02\x03", "neither TLS nor HTTP"},
		{"ssh", "SSH-2.0-OpenSSH_9.9\r\n", ""},
		{"smtp", "EHLO me\r\n", ""},
		{"h2c preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""},
		{"broken TLS", "\x16\x03\x01\x00\x05hello", "tls handshake failed"},
		{"silence", "", "connection ended without a request"},
		{"smuggling", "POST / HTTP/1.1\r\nHost: " + good + "\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""},
	}
	for _, tt := range tests {
		for _, tunnel := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s tunnel=%v", tt.name, tunnel), func(t *testing.T) {
				w := newWorld(t, only(good), echo)
				c := w.dialTo(w.plain)
				if tunnel {
					c.Close()
					var err error
					if c, err = w.connect(good + ":443"); err != nil {
						t.Fatal(err)
					}
					defer c.Close()
				}
				io.WriteString(c, tt.send)
				if tt.send == "" {
					c.Close()
				}
				w.audit.await(t, "the refusal", reasonHas(tt.reason))
				c.SetDeadline(time.Now().Add(20 * time.Second))
				io.Copy(io.Discard, c)
				if w.dialer.count() != 0 || len(w.requests()) != 0 {
					t.Error("a server was dialled")
				}
			})
		}
	}
}

// TestUntrustedCA is what a program without the cage's CA leaves behind.
func TestUntrustedCA(t *testing.T) {
	w := newWorld(t, only(good), echo)
	other := newWorld(t, only(good), echo)
	tc := other.tlsIn(w.dialTo(w.tls), good)
	if err := tc.Handshake(); err == nil {
		t.Fatal("the handshake succeeded")
	}
	r := w.audit.await(t, "the handshake", reasonHas("client does not trust the cage's CA"))
	if r.Kind != audit.KindTunnel || r.Host != good || r.Port != 443 {
		t.Errorf("%+v", r)
	}
}

// TestEarlyBytes is fact 6 of the engine: bytes before the answer to CONNECT.
func TestEarlyBytes(t *testing.T) {
	w := newWorld(t, only(good), echo)
	c := w.dialTo(w.proxy)
	res, _ := raw(t, c, "CONNECT "+good+":80 HTTP/1.1\r\nHost: "+good+":80\r\n\r\nGET / HTTP/1.1\r\nHost: "+good+"\r\n\r\n")
	if res.StatusCode != 400 {
		t.Errorf("%s", res.Status)
	}
	w.audit.await(t, "the refusal", reasonHas("bytes before the answer to CONNECT"))
	if w.dialer.count() != 0 {
		t.Error("a server was dialled")
	}
	// Positive control: the same bytes after the answer.
	c, err := w.connect(good + ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if res, body := raw(t, c, "GET / HTTP/1.1\r\nHost: "+good+"\r\n\r\n"); res.StatusCode != 200 {
		t.Errorf("%s %s", res.Status, body)
	}
}

// TestPipelinedRequestsAreEachDecided is peer-holes A8.
func TestPipelinedRequestsAreEachDecided(t *testing.T) {
	p := only(good)
	decide := p.decide
	p.decide = func(r *inspectRequest) inspectVerdict {
		if r.Path == "/secret" {
			return inspectVerdict{Reason: "path"}
		}
		return decide(r)
	}
	w := newWorld(t, p, echo)
	c := w.dialTo(w.plain)
	io.WriteString(c, "GET /a HTTP/1.1\r\nHost: "+good+"\r\n\r\nGET /secret HTTP/1.1\r\nHost: "+good+"\r\n\r\nGET /c HTTP/1.1\r\nHost: "+good+"\r\nConnection: close\r\n\r\n")
	c.SetDeadline(time.Now().Add(20 * time.Second))
	all, _ := io.ReadAll(c)
	if strings.Count(string(all), "HTTP/1.1 200 OK") != 2 || strings.Count(string(all), "HTTP/1.1 403") != 1 {
		t.Errorf("%s", all)
	}
	for _, r := range w.requests() {
		if r.URL.Path == "/secret" {
			t.Error("the refused request was forwarded")
		}
	}
	if len(w.requests()) != 2 {
		t.Errorf("%d requests arrived", len(w.requests()))
	}
}

// TestSamePathIsMatchedAndSent is peer-holes A7.
func TestSamePathIsMatchedAndSent(t *testing.T) {
	var matched string
	p := policyFunc{decide: func(r *inspectRequest) inspectVerdict { matched = r.Path; return allowed() }}
	w := newWorld(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) }))
	for sent, path := range map[string]string{
		"/a/b":               "/a/b",
		"/a%20b":             "/a b",
		"/caf%C3%A9?x=%2F&y": "/café",
		"/%7Euser":           "/~user",
		"/a|b":               "/a|b",
		"/a%2Fb":             "",
		"/a/../b":            "",
		"/a/%2e%2e/b":        "",
		"/a%252Fb":           "",
		"/a?":                "/a",
		"/a;p=1":             "",
	} {
		matched = "unset"
		res, body := raw(t, w.dialTo(w.plain), "GET "+sent+" HTTP/1.1\r\nHost: "+good+"\r\nConnection: close\r\n\r\n")
		if res.StatusCode != 200 || body != sent {
			t.Errorf("%s: server got %s %q", sent, res.Status, body)
		}
		if matched != path {
			t.Errorf("%s: policy got %q, want %q", sent, matched, path)
		}
	}
}

// closedPorts is a policy that knows which ports are open.
type closedPorts struct{ Policy }

func (closedPorts) OpenPort(port uint16) bool { return port == 443 }

// TestConnectToAClosedPort is rules.md 6: a tunnel to a port that is open for
// no host is refused at once, before a program waits for a greeting in it.
func TestConnectToAClosedPort(t *testing.T) {
	w := newWorld(t, closedPorts{only(good)}, echo)
	if c, err := w.connect(good + ":443"); err != nil {
		t.Errorf("the open port is refused: %v", err)
	} else {
		c.Close()
	}
	if c, err := w.connect(good + ":22"); err == nil {
		c.Close()
		t.Error("the closed port is connected")
	}
	w.audit.await(t, "the refusal", reasonHas("port not allowed for "+good+": 22"))
	if n := w.dialer.count(); n > 0 {
		t.Errorf("%d connections to servers", n)
	}
}
