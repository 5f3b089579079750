//go:build linux

package e2e

import (
	"net"
	"os"
	"strings"
	"testing"
)

// TestWebPorts is the same on the real ports, which only root may listen on:
// what is said in a config without any port.
func TestWebPorts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: ports 80 and 443 of loopback")
	}
	need(t, "curl")
	const addr = "127.0.0.80"
	for port, scheme := range map[string]string{"443": "https", "80": "http"} {
		t.Run(scheme, func(t *testing.T) {
			if l, err := net.Listen("tcp", addr+":"+port); err != nil {
				t.Fatalf("another program listens on %s:%s: %v", addr, port, err)
			} else {
				l.Close()
			}
			b, s := newBench(t), newSiteAt(t, addr+":"+port)
			cfg := strings.ReplaceAll(s.config(good), "127.0.0.1\n", addr+"\n")
			b.write("cage.yaml", strings.ReplaceAll(cfg, "      ports: ["+port+"]\n", ""))
			for _, c := range clients {
				if c.name != "curl" && c.name != "curl-without-proxy" && c.name != "go" {
					continue
				}
				c.run(b, scheme+"://"+good+"/").ok(t, `"URI":"/"`)
				if r := c.run(b, scheme+"://"+evil+"/"); r.code == 0 || !strings.Contains(r.all(), "domain not in allowlist: "+evil) {
					t.Errorf("%s: the user sees %d %s", c.name, r.code, clip(r.all()))
				}
			}
			s.untouched(t, evil)
		})
	}
}
