package entropy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/payload/payloadtest"
)

const (
	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	hex    = "0123456789abcdef"
)

// found runs an inspector alone, and returns what it would do.
func found(t *testing.T, cfg config.Entropy, c *inspect.Content) inspect.Verdict {
	t.Helper()
	return inspect.NewChain().WithContent(New(cfg)).DecideContent(context.Background(), c)
}

func post(typ string, body []byte) *inspect.Content {
	return payloadtest.Request("POST", "https://api.example.com/v1/x", map[string]string{"Content-Type": typ}, body)
}

func get(target string, header map[string]string) *inspect.Content {
	return payloadtest.Request("GET", "https://api.example.com"+target, header, nil)
}

// TestReasons holds the words of each reason, with the number cut out.
func TestReasons(t *testing.T) {
	r := payloadtest.New(1)
	host := payloadtest.Request("GET", "https://"+r.Of("abcdefghijklmnopqrstuvwxyz234567", 60)+".example.com/", nil, nil)
	method := get("/", nil)
	method.Request.Method = strings.ToUpper(r.Of("abcdefghijklmnopqrstuvwxyz234567", 100))
	pieces := get("/?a="+r.Of(base62, 50)+"&b="+r.Of(base62, 50)+"&c="+r.Of(base62, 50)+"&d="+r.Of(base62, 50)+"&e="+r.Of(base62, 50), nil)
	for _, tt := range []struct {
		name    string
		content *inspect.Content
		want    string
	}{
		{"binary body", post("application/octet-stream", r.Bytes(5000)), "high entropy body: # (threshold 7.0)"},
		{"hex body", post("text/plain", []byte(r.Hex(600))), "high entropy body: # (threshold 3.5)"},
		{"base64 in a body", post("application/json", []byte(`{"d":"`+r.Base64(400)+`"}`)), "high entropy body: # (threshold 5.25)"},
		{"param", get("/?q="+r.Of(base62, 100), nil), "high entropy URL param 'q': # (threshold 5.5)"},
		{"param in hex", get("/?q="+r.Of(hex, 100), nil), "high entropy URL param 'q': # (threshold 3.67)"},
		{"param with a hostile name", get("/?%1b%5bm"+strings.Repeat("n", 100)+"="+r.Of(base62, 100), nil), "high entropy URL param '%1b%5bm" + strings.Repeat("n", 57) + "…': # (threshold 5.5)"},
		{"param name", get("/?"+r.Of(base62, 100), nil), "high entropy URL param name: # (threshold 5.5)"},
		{"params in pieces", pieces, "high entropy URL query: 250 characters in pieces"},
		{"segment", get("/x/"+r.Of(base62, 100)+"/y", nil), "high entropy URL path segment: # (threshold 5.5)"},
		{"header", get("/", map[string]string{"X-Note": r.Of(base62, 100)}), "high entropy header 'X-Note': # (threshold 5.5)"},
		{"cookie", get("/", map[string]string{"Cookie": "a=b; c=" + r.Of(base62, 1200)}), "high entropy cookie 'c': # (threshold 5.5)"},
		{"host", host, "high entropy host label: # (threshold 4.58)"},
		{"method", method, "high entropy method: # (threshold 4.58)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := found(t, config.Default().Entropy, tt.content)
			if v.Decision != inspect.Blocked || v.Findings[0].Severity != inspect.Error || v.Findings[0].Inspector != "entropy" {
				t.Fatalf("%+v", v)
			}
			before, number, _ := strings.Cut(tt.want, "#")
			got := v.Reason
			if number != "" {
				if len(got) < len(before)+4 || !strings.HasPrefix(got, before) || got[len(before)+4:] != number || got[len(before)+1] != '.' {
					t.Errorf("reason %q; want %q", got, tt.want)
				}
			} else if got != tt.want {
				t.Errorf("reason %q; want %q", got, tt.want)
			}
		})
	}
}

// jar makes n cookies with values of a size.
func jar(r *payloadtest.Rand, name string, n, size int) *inspect.Content {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%s%d=%s", name, i, r.Of(base62, size)))
	}
	return get("/", map[string]string{"Cookie": strings.Join(all, "; ")})
}

// TestBounds: what is shorter than the least that is measured passes, and one
// more does not.
func TestBounds(t *testing.T) {
	r := payloadtest.New(2)
	for _, tt := range []struct {
		name    string
		content *inspect.Content
		blocked bool
	}{
		{"body of 255 bytes", post("application/octet-stream", r.Bytes(255)), false},
		{"body of 256 bytes", post("application/octet-stream", r.Bytes(256)), true},
		{"param of 63", get("/?q="+r.Of(base62, 63), nil), false},
		{"param of 64", get("/?q="+r.Of(base62, 64), nil), true},
		{"hash of 64", get("/?q="+r.Of(hex, 64), nil), false},
		{"segment of 60", get("/"+r.Of(hex, 60), nil), false},
		{"segment of 66", get("/"+r.Of(hex, 66), nil), true},
		{"credential of 2 KiB", get("/", map[string]string{"Authorization": "Bearer " + r.Of(base62, 2048)}), false},
		{"credential of more", get("/", map[string]string{"Authorization": "Bearer " + r.Of(base62, 2100)}), true},
		{"cookie of 1 KiB", get("/", map[string]string{"Cookie": "s=" + r.Of(base62, 1024)}), false},
		{"cookie of more", get("/", map[string]string{"Cookie": "s=" + r.Of(base62, 1100)}), true},
		{"cookies of 2 KiB", jar(r, "a", 4, 512), false},
		{"cookies of more", jar(r, "a", 5, 512), true},
		{"cookies of sessions", jar(r, "session", 8, 1024), false},
		{"more of them", jar(r, "session", 9, 1024), true},
		{"a click", get("/?gclid="+r.Of(base62, 256), nil), false},
		{"a click of more", get("/?gclid="+r.Of(base62, 260), nil), true},
		{"state of an upload", get("/v2/a/blobs/uploads/1?_state="+r.Of(base62, 1024), nil), false},
		{"state of an upload of more", get("/v2/a/blobs/uploads/1?_state="+r.Of(base62, 1100), nil), true},
		{"state of no upload", get("/v2/a/blobs/1?_state="+r.Of(base62, 240), nil), true},
		{"no body", get("/", nil), false},
	} {
		if v := found(t, config.Default().Entropy, tt.content); (v.Decision == inspect.Blocked) != tt.blocked {
			t.Errorf("%s: %s %q", tt.name, v.Decision, v.Reason)
		}
	}
}

// TestSettings: each setting with what it lets pass, and what it does not.
func TestSettings(t *testing.T) {
	r := payloadtest.New(3)
	noise, image := r.Bytes(5000), r.JPEG(80, 80)
	sound := append([]byte("RIFF\xac\x13\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x44\xac\x00\x00\x88\x58\x01\x00\x02\x00\x10\x00data\x88\x13\x00\x00"), noise...)
	host := hostname.MustParse("example.com")
	for _, tt := range []struct {
		name    string
		change  func(*config.Entropy)
		content *inspect.Content
		want    inspect.Decision
	}{
		{"defaults", func(*config.Entropy) {}, post("", noise), inspect.Blocked},
		{"threshold", func(e *config.Entropy) { e.Threshold = 8 }, post("", noise), inspect.Allowed},
		{"threshold for base64", func(e *config.Entropy) { e.Threshold = 8 }, post("", []byte(r.Of(base62, 5000))), inspect.Allowed},
		{"min_body_bytes", func(e *config.Entropy) { e.MinBodyBytes = 6000 }, post("", noise), inspect.Allowed},
		{"flag", func(e *config.Entropy) { e.Action = "flag" }, post("", noise), inspect.Flagged},
		{"image", func(*config.Entropy) {}, post("image/jpeg", image), inspect.Allowed},
		{"image that is not exempt", func(e *config.Entropy) { e.ExemptContentTypes = nil }, post("image/jpeg", image), inspect.Blocked},
		{"image by its bytes alone", func(*config.Entropy) {}, post("application/octet-stream", image), inspect.Allowed},
		{"image in name alone", func(*config.Entropy) {}, post("image/jpeg", noise), inspect.Blocked},
		{"IMAGE/ in the config", func(e *config.Entropy) { e.ExemptContentTypes = []string{"IMAGE/"} }, post("image/jpeg", image), inspect.Allowed},
		{"sound", func(*config.Entropy) {}, post("audio/wav", sound), inspect.Blocked},
		{"sound that is exempt", func(e *config.Entropy) { e.ExemptContentTypes = []string{"audio/"} }, post("audio/wav", sound), inspect.Allowed},
		{"exempt for the host", func(e *config.Entropy) {
			e.HostExemptContentTypes = map[hostname.Name][]string{host: {"audio/"}}
		}, post("audio/wav", sound), inspect.Allowed},
		{"exempt for the host, by name alone", func(e *config.Entropy) {
			e.HostExemptContentTypes = map[hostname.Name][]string{host: {"audio/"}}
		}, post("audio/wav", noise), inspect.Blocked},
		{"exempt for another host", func(e *config.Entropy) {
			e.HostExemptContentTypes = map[hostname.Name][]string{hostname.MustParse("ample.com"): {"audio/"}}
		}, post("audio/wav", sound), inspect.Blocked},
		{"check_url_params", func(e *config.Entropy) { e.CheckURLParams = false }, get("/?q="+r.Of(base62, 100), nil), inspect.Allowed},
		{"check_url_params and the path", func(e *config.Entropy) { e.CheckURLParams = false }, get("/"+r.Of(base62, 100), nil), inspect.Blocked},
		{"check_url_path", func(e *config.Entropy) { e.CheckURLPath = false }, get("/"+r.Of(base62, 100), nil), inspect.Allowed},
		{"check_url_path and params", func(e *config.Entropy) { e.CheckURLPath = false }, get("/?q="+r.Of(base62, 100), nil), inspect.Blocked},
		{"url_threshold", func(e *config.Entropy) { e.URLThreshold = 8 }, get("/?q="+r.Of(base62, 100), nil), inspect.Allowed},
		{"url_min_value_bytes", func(e *config.Entropy) { e.URLMinValueBytes = 200 }, get("/?q="+r.Of(base62, 100), nil), inspect.Allowed},
		{"host_url_param_allowlist", func(e *config.Entropy) {
			e.HostURLParamAllowlist = map[hostname.Name][]string{host: {"Q"}}
		}, get("/?q="+r.Of(base62, 300), nil), inspect.Allowed},
		{"another parameter", func(e *config.Entropy) {
			e.HostURLParamAllowlist = map[hostname.Name][]string{host: {"Q"}}
		}, get("/?r="+r.Of(base62, 300), nil), inspect.Blocked},
		{"a listed parameter that is too long", func(e *config.Entropy) {
			e.HostURLParamAllowlist = map[hostname.Name][]string{host: {"Q"}}
		}, get("/?q="+r.Of(base62, 5000), nil), inspect.Blocked},
		{"all of the URL", func(e *config.Entropy) {
			e.HostURLParamAllowlist = map[hostname.Name][]string{host: {"*"}}
		}, get("/"+r.Of(base62, 100)+"?q="+r.Of(base62, 5000), nil), inspect.Allowed},
	} {
		cfg := config.Default().Entropy
		tt.change(&cfg)
		if v := found(t, cfg, tt.content); v.Decision != tt.want {
			t.Errorf("%s: %s %q; want %s", tt.name, v.Decision, v.Reason, tt.want)
		}
	}
	cfg := config.Default().Entropy
	cfg.Action = "observe"
	if v := found(t, cfg, post("", noise)); v.Decision != inspect.Allowed || len(v.Findings) != 1 || v.Findings[0].Mode != inspect.Observed {
		t.Errorf("observe: %+v", v)
	}
}

// TestSigned: the built-in parameters are those of their hosts, and a list of
// the user's replaces those of the host that it names, and of no other.
func TestSigned(t *testing.T) {
	r := payloadtest.New(4)
	own := map[hostname.Name][]string{hostname.MustParse("amazonaws.com"): {"mine"}}
	for _, tt := range []struct {
		url     string
		own     bool
		blocked bool
	}{
		{"https://x.s3.amazonaws.com/?X-Amz-Credential=" + r.Of(base62, 100), false, false},
		{"https://x.s3.amazonaws.com/?X-Amz-Other=" + r.Of(base62, 100), false, true},
		{"https://amazonaws.com.example/?X-Amz-Other=" + r.Of(base62, 100), false, true},
		{"https://d1.cloudfront.net/?Policy=" + r.Of(base62, 300), false, false},
		{"https://cloudfront.example/?Policy=" + r.Of(base62, 300), false, true},
		{"https://a.blob.core.windows.net/?sp=" + r.Of(base62, 100), false, false},
		{"https://x.s3.amazonaws.com/?mine=" + r.Of(base62, 100), true, false},
		{"https://d1.cloudfront.net/?Policy=" + r.Of(base62, 300), true, false},
	} {
		cfg := config.Default().Entropy
		if tt.own {
			cfg.HostURLParamAllowlist = own
		}
		v := found(t, cfg, payloadtest.Request("GET", tt.url, nil, nil))
		if (v.Decision == inspect.Blocked) != tt.blocked {
			t.Errorf("%.60s: %s %q", tt.url, v.Decision, v.Reason)
		}
	}
}

// TestKinds: what is judged of messages, windows and what comes from a server.
func TestKinds(t *testing.T) {
	noise := payloadtest.New(5).Bytes(5000)
	exempt := config.Default().Entropy
	exempt.HostExemptContentTypes = map[hostname.Name][]string{hostname.MustParse("api.example.com"): {"video/"}}
	for _, tt := range []struct {
		name    string
		kind    inspect.Kind
		way     inspect.Direction
		cfg     config.Entropy
		blocked bool
	}{
		{"WebSocket", inspect.KindWebSocket, inspect.ToServer, exempt, true},
		{"gRPC", inspect.KindMessage, inspect.ToServer, exempt, true},
		{"no direction", inspect.KindRequest, 0, exempt, true},
		{"from a server", inspect.KindWebSocket, inspect.ToClient, exempt, false},
		{"window", inspect.KindWindow, inspect.ToServer, config.Default().Entropy, true},
		{"window of a type that the host is exempt for", inspect.KindWindow, inspect.ToServer, exempt, false},
	} {
		c := post("video/mp4", noise)
		c.Kind, c.Direction = tt.kind, tt.way
		if v := found(t, tt.cfg, c); (v.Decision == inspect.Blocked) != tt.blocked {
			t.Errorf("%s: %s %q", tt.name, v.Decision, v.Reason)
		}
	}
	trailer := &inspect.Content{Request: get("/", nil).Request, Kind: inspect.KindTrailer, Direction: inspect.ToServer, Header: map[string][]string{"X-Sum": {payloadtest.New(6).Of(base62, 200)}}}
	if v := found(t, exempt, trailer); v.Decision != inspect.Blocked {
		t.Errorf("trailer: %s", v.Decision)
	}
}

// TestAll: everything is reported, not only the first.
func TestAll(t *testing.T) {
	r := payloadtest.New(7)
	c := payloadtest.Request("POST", "https://api.example.com/?a="+r.Of(base62, 100)+"&b="+r.Of(base62, 100), nil, r.Bytes(500))
	cfg := config.Default().Entropy
	cfg.Action = "flag"
	var reasons []string
	for _, f := range found(t, cfg, c).Findings {
		reasons = append(reasons, f.Reason[:22])
	}
	if want := []string{"high entropy URL param", "high entropy URL param", "high entropy body: 7.5"}; len(reasons) != 3 || !slices.Equal(reasons[:2], want[:2]) {
		t.Errorf("%q", reasons)
	}
}
