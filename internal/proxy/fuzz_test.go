package proxy

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// FuzzBlockBody: whatever the agent made us say is one JSON object in ASCII.
func FuzzBlockBody(f *testing.F) {
	f.Add("domain not in allowlist: x", "x")
	f.Add("é\"\\\x00\u2028😀\xff", "")
	f.Fuzz(func(t *testing.T, reason, host string) {
		b := audit.BlockBody(reason, host, "1")
		var got refusal
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if want := strings.ToValidUTF8(reason, "\ufffd"); strings.ToValidUTF8(got.Reason, "\ufffd") != got.Reason || len([]rune(got.Reason)) < len([]rune(want)) {
			t.Fatalf("%q became %q", reason, got.Reason)
		}
		for _, c := range b {
			if c < ' ' || c > '~' {
				t.Fatalf("%q has the byte %x", b, c)
			}
		}
	})
}

// FuzzIdentify: a request that is let through is for the host of its
// connection, whatever its target and Host are, and its URL says so too.
func FuzzIdentify(f *testing.F) {
	f.Add("/", good)
	f.Add("https://"+good+"/a", good)
	f.Add("//evil/", "API.example.com.:443")
	f.Add("/a|b?x=#", "[::1]")
	f.Fuzz(func(t *testing.T, uri, host string) {
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			return
		}
		if u.Host != "" {
			host = u.Host // as net/http does
		}
		name := hostname.MustParse(good)
		cc := &clientConn{via: inspect.ViaTransparentTLS, tls: true, sni: name, port: 443, portFixed: true}
		r := &http.Request{Method: "GET", ProtoMajor: 1, RequestURI: uri, URL: u, Host: host, Header: http.Header{}}
		target, err := identify(cc, r)
		if err != nil {
			return
		}
		x := &exchange{r: r, target: target}
		x.prepare()
		if target.host != name || target.port != 443 || target.scheme != "https" || x.req.URL.Host != good+":443" {
			t.Fatalf("%q, Host %q is for %+v", uri, host, target)
		}
		if sent := x.req.URL.RequestURI(); sent != "*" && !strings.HasPrefix(sent, "/") || strings.ContainsAny(sent, " \t\r\n") {
			t.Fatalf("%q is sent as %q", uri, sent)
		} else if path, _, _ := strings.Cut(sent, "?"); sent != "*" {
			if matched, _ := inspect.DecodePath(path); matched != x.req.Path {
				t.Fatalf("%q is sent as %q and matched as %q", uri, sent, x.req.Path)
			}
		}
	})
}
