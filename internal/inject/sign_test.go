package inject

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/secret"
)

const (
	signer    = "agentcage:secret:AWS_SECRET_ACCESS_KEY:00112233445566778899aabbccddeeff"
	awsSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	awsID     = "AKIDEXAMPLE"
)

func signingInjector(t *testing.T, value string) *Injector {
	t.Helper()
	in, err := New(config.Injection{Rules: []config.InjectionRule{{
		Env: "AWS_SECRET_ACCESS_KEY", Placeholder: signer, InjectTo: []config.Target{{Host: hostname.MustParse("s3.test")}},
		Transform: config.Transform{Type: signing, Settings: map[string]config.Setting{"access_key_id": {Text: awsID}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if value != "" {
		v, err := secret.New([]byte(value))
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Set("AWS_SECRET_ACCESS_KEY", v); err != nil {
			t.Fatal(err)
		}
	}
	return in
}

func signedBy(id string) []string {
	return []string{"Authorization", "AWS4-HMAC-SHA256 Credential=" + id + "/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "X-Amz-Date", "20260101T000000Z"}
}

func presigned(id string) string {
	return "https://s3.test/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + strings.ReplaceAll(id, ":", "%3A") +
		"%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00"
}

// TestSignaturePolicy: by a placeholder in its place, and by nothing else, an
// agent gets a signature.
func TestSignaturePolicy(t *testing.T) {
	in := signingInjector(t, awsSecret)
	get := func(target string, pairs ...string) *inspect.Content {
		return content(request(t, "GET", target, pairs...), "")
	}
	for _, tt := range []struct {
		name string
		c    *inspect.Content
		ok   bool
	}{
		{"header", get("https://s3.test/b/k", signedBy(signer)...), true},
		{"query", get(presigned(signer)), true},
		{"unsigned", get("https://s3.test/b/k"), true},
		{"other host", get("https://other.test/b/k", signedBy(signer)...), false},
		{"query to another host", get(strings.Replace(presigned(signer), "s3.test", "other.test", 1)), false},
		{"key of the agent's", get("https://s3.test/b/k", signedBy("AKIAATTACKERSKEY1234")...), false},
		{"query with a key of the agent's", get(presigned("AKIAATTACKERSKEY1234")), false},
		{"as a token", get("https://s3.test/b/k?x=1", "X-Amz-Security-Token", "agents-own-token"), false},
	} {
		if v := decide(in, tt.c); v.Allowed() != tt.ok {
			t.Errorf("%s: %v, %q", tt.name, v.Decision, v.Reason)
		}
	}
	if v := decide(signingInjector(t, ""), get("https://s3.test/b/k", signedBy(signer)...)); v.Allowed() || !strings.Contains(v.Reason, "has no value") {
		t.Errorf("without a value: %+v", v)
	}
}

// sign does what the engine does with a request that was let pass.
func sign(t *testing.T, in *Injector, req *inspect.Request, body string) (*http.Request, *Signature, error) {
	t.Helper()
	h, err := in.Head(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	u := *h.URL
	r := &http.Request{Method: req.Method, URL: &u, Host: req.Host.String(), Header: h.Header.Clone(), ContentLength: int64(len(body))}
	s, err := in.Sign(t.Context(), req, r, []byte(body))
	return r, s, err
}

func TestSign(t *testing.T) {
	for name, value := range map[string]string{
		"key":     awsSecret,
		"object":  `{"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "` + awsSecret + `", "SessionToken": "session-token-value"}`,
		"no id":   `{"SecretAccessKey": "` + awsSecret + `"}`,
		"nothing": `{"SecretAccessKey": ""}`,
	} {
		in := signingInjector(t, value)
		r, s, err := sign(t, in, request(t, "PUT", "https://s3.test/b/k", signedBy(signer)...), "body")
		if name == "nothing" {
			if err == nil || strings.Contains(err.Error(), value) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || s == nil || s.Name != "AWS_SECRET_ACCESS_KEY" {
			t.Errorf("%s: %+v, %v", name, s, err)
			continue
		}
		auth := r.Header.Get("Authorization")
		if !strings.Contains(auth, "Credential=AKIDEXAMPLE/") || strings.Contains(auth, signer) || strings.HasSuffix(auth, "Signature=00") {
			t.Errorf("%s: %s", name, auth)
		}
		if token := r.Header.Get("X-Amz-Security-Token"); (token == "session-token-value") != (name == "object") {
			t.Errorf("%s: token %q", name, token)
		}
		if b, err := io.ReadAll(s.Body(strings.NewReader("body"))); err != nil || string(b) != "body" {
			t.Errorf("%s: body %q, %v", name, b, err)
		}
	}
	in := signingInjector(t, awsSecret)
	r, s, err := sign(t, in, request(t, "GET", presigned(signer)), "")
	if err != nil || s == nil || strings.Contains(r.URL.RawQuery, "agentcage") || !strings.Contains(r.URL.RawQuery, "X-Amz-Credential=AKIDEXAMPLE%2F") {
		t.Errorf("query %s, %v", r.URL.RawQuery, err)
	}
	for name, req := range map[string]*inspect.Request{
		"unsigned":   request(t, "GET", "https://s3.test/b/k"),
		"other key":  request(t, "GET", "https://s3.test/b/k", signedBy("AKIAOTHER")...),
		"other host": request(t, "GET", "https://other.test/b/k", signedBy(signer)...),
	} {
		if _, s, err := sign(t, in, req, ""); s != nil || err != nil {
			t.Errorf("%s was signed, %v", name, err)
		}
	}
	if _, _, err := sign(t, in, request(t, "GET", "https://s3.test/b/k", "Authorization", "AWS4-ECDSA-P256-SHA256 Credential="+signer+"/x"), ""); err == nil {
		t.Error("a signature that cannot be made again was passed on")
	}
}
