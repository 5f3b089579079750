package contenttype

import (
	"context"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/payload/payloadtest"
)

func found(cfg config.ContentType, c *inspect.Content) inspect.Verdict {
	return inspect.NewChain().WithContent(New(cfg)).DecideContent(context.Background(), c)
}

func post(typ string, body []byte) *inspect.Content {
	return payloadtest.Request("POST", "https://api.example.com/v1/x", map[string]string{"Content-Type": typ}, body)
}

// TestFindings pairs what is refused with what is like it and passes.
func TestFindings(t *testing.T) {
	r := payloadtest.New(1)
	noise, prose := r.Bytes(5000), []byte(r.Prose(900))
	png, jpeg, pdf := r.PNG(60, 60), r.JPEG(60, 60), r.PDF()
	elf := append([]byte("\x7fELF\x02\x01\x01\x00"), make([]byte, 600)...)
	json := func(s string) []byte { return []byte(`{"d":"` + s + `","text":"` + r.Prose(40) + `"}`) }
	wrapped := func(s string) string {
		var b strings.Builder
		for ; len(s) > 76; s = s[76:] {
			b.WriteString(s[:76] + "\n")
		}
		return b.String() + s
	}
	for _, tt := range []struct {
		name   string
		typ    string
		body   []byte
		reason string // its beginning; empty passes
	}{
		{"text", "text/plain", prose, ""},
		{"random as text", "text/plain", noise, "content-type mismatch: text/plain declared but body entropy is 7.9"},
		{"in capitals", "TEXT/Plain; charset=utf-8", noise, "content-type mismatch: text/plain declared but body entropy is 7.9"},
		{"with a broken parameter", "application/json; x", noise, "content-type mismatch: application/json declared but body entropy is 7.9"},
		{"json by its suffix", "application/vnd.api+json", noise, "content-type mismatch: application/vnd.api+json declared but body entropy is 7.9"},
		{"without a type", "", noise, "content-type mismatch: no type declared but body entropy is 7.9"},
		{"an image without a type", "", png, ""},
		{"bytes", "application/octet-stream", noise, ""}, // entropy judges it
		{"hostile type", "text/\x1b[31m" + strings.Repeat("x", 80), noise, "content-type mismatch: text/?[31m" + strings.Repeat("x", 54) + "… declared but"},
		{"a program as JSON", "application/json", elf, "content-type mismatch: application/json declared but body is application/x-elf"},
		{"an image as JSON", "application/json", png, "content-type mismatch: application/json declared but body is image/png"},
		{"an archive as form", "application/x-www-form-urlencoded", payloadtest.Zip(map[string][]byte{"a": prose}), "content-type mismatch: application/x-www-form-urlencoded declared but body is application/zip"},
		{"png", "image/png", png, ""},
		{"jpeg as png", "image/png", jpeg, ""},
		{"jpeg as image/jpg", "IMAGE/JPG", jpeg, ""},
		{"random as png", "image/png", noise, "content-type mismatch: image/png declared but body is something else"},
		{"text as png", "image/png", prose, "content-type mismatch: image/png declared but body is something else"},
		{"half a png", "image/png", png[:len(png)/2], "content-type mismatch: image/png declared but body is something else"},
		{"pdf as png", "image/png", pdf, "content-type mismatch: image/png declared but body is application/pdf"},
		{"pdf", "application/pdf", pdf, ""},
		{"svg", "image/svg+xml", []byte("<svg>" + r.Prose(100) + "</svg>"), ""},
		{"gzip", "application/x-gzip", payloadtest.Gzip(prose), ""},
		{"text as gzip", "application/gzip", prose, "content-type mismatch: application/gzip declared but body is something else"},

		{"base64 in JSON", "application/json", json(r.Base64(300)), "large base64 blob (4"},
		{"base64url", "application/json", json(r.Of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", 256)), "large base64 blob (256 chars) in application/json body"},
		{"one less", "application/json", json(r.Of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", 255)), ""},
		{"hex", "application/json", json(r.Hex(600)), "large hex blob (600 chars) in application/json body"},
		{"base32", "text/plain", []byte(r.Of("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 600)), "large base32 blob (600 chars) in text/plain body"},
		{"decimal", "text/plain", []byte(r.Of("0123456789", 600)), "large decimal blob (600 chars) in text/plain body"},
		{"in lines", "text/plain", []byte("see\n" + wrapped(r.Base64(300)) + "\nthat\n"), "large base64 blob (400 chars) in text/plain body"},
		{"without a type", "", json(r.Base64(300)), "large base64 blob (400 chars) in no type body"},
		{"words without punctuation", "text/plain", []byte(strings.Repeat("plain words and nothing else ", 40)), ""},
		{"an image in JSON", "application/json", json(payloadB64(png)), ""},
		{"a document in JSON", "application/json", json(payloadB64(pdf)), ""},
		{"text in base64", "application/json", json(payloadB64(prose)), ""},
		{"random behind an image", "application/json", json(payloadB64(append(png, noise...))), "large base64 blob ("},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := found(config.Default().ContentType, post(tt.typ, tt.body))
			switch {
			case tt.reason == "" && v.Decision != inspect.Allowed:
				t.Errorf("%s: %s", v.Decision, v.Reason)
			case tt.reason != "" && (v.Decision != inspect.Blocked || !strings.HasPrefix(v.Reason, tt.reason)):
				t.Errorf("%s %q; want %q", v.Decision, v.Reason, tt.reason)
			}
			severity := inspect.Error
			if strings.HasPrefix(tt.reason, "large") {
				severity = inspect.Warning
			}
			if tt.reason != "" && len(v.Findings) > 0 && v.Findings[0].Severity != severity {
				t.Errorf("severity %s", v.Findings[0].Severity)
			}
		})
	}
}

func payloadB64(data []byte) string {
	return strings.Trim(string(payloadtest.Marshal(data)), `"`)
}

func TestSettings(t *testing.T) {
	r := payloadtest.New(2)
	blob := post("application/json", []byte(`{"d":"`+r.Base64(300)+`"}`))
	noise := post("text/plain", r.Bytes(5000))
	for _, tt := range []struct {
		name    string
		change  func(*config.ContentType)
		content *inspect.Content
		want    inspect.Decision
	}{
		{"flag", func(c *config.ContentType) { c.Action = "flag" }, blob, inspect.Flagged},
		{"observe", func(c *config.ContentType) { c.Action = "observe" }, blob, inspect.Allowed},
		{"detect_base64", func(c *config.ContentType) { c.DetectBase64 = false }, blob, inspect.Allowed},
		{"base64_min_len", func(c *config.ContentType) { c.Base64MinLen = 500 }, blob, inspect.Allowed},
		{"entropy_ceiling", func(c *config.ContentType) { c.EntropyCeiling = 8 }, noise, inspect.Allowed},
		{"entropy_ceiling of text", func(c *config.ContentType) { c.EntropyCeiling = 3 }, post("text/plain", []byte(r.Prose(200))), inspect.Blocked},
	} {
		cfg := config.Default().ContentType
		tt.change(&cfg)
		if v := found(cfg, tt.content); v.Decision != tt.want {
			t.Errorf("%s: %s %q; want %s", tt.name, v.Decision, v.Reason, tt.want)
		}
	}
}

// TestKinds: messages have no type and are judged all the same; what comes
// from a server is not.
func TestKinds(t *testing.T) {
	noise := payloadtest.New(3).Bytes(3000)
	c := post("", noise)
	c.Kind = inspect.KindWebSocket
	if v := found(config.Default().ContentType, c); v.Decision != inspect.Blocked {
		t.Errorf("WebSocket: %s", v.Decision)
	}
	c = post("", noise)
	c.Direction = inspect.ToClient
	if v := found(config.Default().ContentType, c); v.Decision != inspect.Allowed {
		t.Errorf("from a server: %s", v.Decision)
	}
}
