package gateway

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inject/injecttest"
	"github.com/agentcage/agentcage/internal/secret"
)

// vault is a gateway with secrets, a server that tells what it got, and an
// issuer of tokens, all under example.com.
type vault struct {
	t      *testing.T
	gw     *Gateway
	log    *log
	base   string
	ca     string
	client *http.Client

	mu     sync.Mutex
	values map[string]string // of rules
	kept   map[string]string // by KeepSecret
	got    []*http.Request
	issued int // tokens
	forms  []url.Values
}

const vaultHolder = "agentcage:secret:KEY:00112233445566778899aabbccddeeff"

// newVault has one rule, KEY, with a value and further lines of YAML.
func newVault(t *testing.T, value, rule string) *vault {
	t.Helper()
	v := &vault{t: t, log: &log{}, values: map[string]string{"KEY": value}, kept: map[string]string{}}
	up := httptest.NewTLSServer(http.HandlerFunc(v.serve))
	t.Cleanup(up.Close)
	v.base = fmt.Sprintf("https://example.com:%d", up.Listener.Addr().(*net.TCPAddr).Port)
	v.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(v.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: up.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	v.gw, err = New(Options{
		Config: v.config(rule), Audit: v.log, Name: "test", HostNetwork: true,
		Secret: func(r config.InjectionRule) (secret.Value, error) {
			v.mu.Lock()
			defer v.mu.Unlock()
			return secret.New([]byte(v.values[r.Env]))
		},
		KeepSecret: func(r config.InjectionRule, value secret.Value) error {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.kept[r.Env] = string(value.RevealBytes())
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v.gw.ServeProxy(l)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(v.gw.CACertificate())
	v.client = &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: l.Addr().String()}), TLSClientConfig: &tls.Config{RootCAs: roots},
	}}
	t.Cleanup(func() {
		v.client.CloseIdleConnections()
		_ = v.gw.Shutdown(t.Context())
	})
	return v
}

// config puts the further lines where BASE stands for the server.
func (v *vault) config(rule string) *config.Config {
	v.t.Helper()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(v.base, "https://"))
	text := fmt.Sprintf(`name: test
domains:
  allow:
    - {host: example.com, ports: [%[1]s]}
    - {host: other.example.com, ports: [%[1]s]}
upstream:
  ca_files: [%[2]q]
  allow_private: [example.com, other.example.com]
  hosts: {example.com: 127.0.0.1, other.example.com: 127.0.0.1}
`, port, v.ca)
	if rule != "none" {
		text += "secret_injection:\n  rules:\n    - env: KEY\n      placeholder: " + `"` + vaultHolder + `"` + "\n      inject_to: [example.com]\n" + strings.ReplaceAll(rule, "BASE", v.base)
	}
	c, err := config.Parse("cage.yaml", []byte(text))
	if err != nil {
		v.t.Fatal(err)
	}
	return c
}

// serve issues tokens, and tells of all else what it got.
func (v *vault) serve(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = r.ParseForm()
	if strings.HasPrefix(r.URL.Path, "/token") || strings.HasPrefix(r.URL.Path, "/app/") {
		v.issued++
		v.forms = append(v.forms, r.PostForm)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"access_token": v.token(v.issued), "token": v.token(v.issued), "expires_in": 3600, "expires_at": "2099-01-01T00:00:00Z",
			"refresh_token": fmt.Sprintf("refreshed-token-number-%d", v.issued),
		})
		return
	}
	v.got = append(v.got, r)
	_ = r.Header.Write(w)
	for _, form := range v.forms {
		fmt.Fprintln(w, form.Encode())
	}
}

func (*vault) token(n int) string { return fmt.Sprintf("minted-token-number-%d", n) }

// ask sends a request, and returns the status and all of the answer.
func (v *vault) ask(method, target, body string, pairs ...string) (int, string) {
	v.t.Helper()
	r, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Add(pairs[i], pairs[i+1])
	}
	res, err := v.client.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return res.StatusCode, string(all)
}

func (v *vault) last() *http.Request {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.got) == 0 {
		return &http.Request{Header: http.Header{}}
	}
	return v.got[len(v.got)-1]
}

// sends holds what a server receives for the placeholder, and that nothing of it
// comes back.
func (v *vault) sends(want string) {
	v.t.Helper()
	code, text := v.ask("GET", v.base+"/", "", "Authorization", "Bearer "+vaultHolder)
	if got := v.last().Header.Get("Authorization"); code != 200 || got != "Bearer "+want {
		v.t.Errorf("%d %s, the server received %q, want %q", code, text, got, want)
	}
	if injecttest.Holds([]byte(text), []byte(want)) || !strings.Contains(text, vaultHolder) {
		v.t.Errorf("the answer holds %q: %s", want, text)
	}
}

// keeps holds that a value may not leave, in two forms and to no host, and does
// not come back.
func (v *vault) keeps(values ...string) {
	v.t.Helper()
	for _, value := range values {
		for _, host := range []string{v.base, strings.Replace(v.base, "example.com", "other.example.com", 1)} {
			for _, text := range []string{value, base64.StdEncoding.EncodeToString([]byte("x" + value))} {
				n := len(v.got)
				if code, answer := v.ask("POST", host+"/", "text "+text, "Content-Type", "text/plain"); code != 403 || len(v.got) != n {
					v.t.Errorf("%.40q may leave to %s: %d %s", text, host, code, answer)
				}
			}
		}
		if out := v.gw.Redact("echo " + value); injecttest.Holds([]byte(out), []byte(value)) {
			v.t.Errorf("%.40q comes back", value)
		}
	}
	if code, answer := v.ask("POST", v.base+"/", "text of no interest", "Content-Type", "text/plain"); code != 200 {
		v.t.Errorf("control: %d %s", code, answer)
	}
}

func rsaKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

// TestTransforms is rules.md 68: what leaves is what was made, which is a secret
// itself, and what it was made of never leaves.
func TestTransforms(t *testing.T) {
	key := rsaKey(t)
	t.Run("google-jwt-bearer", func(t *testing.T) {
		account, _ := json.Marshal(map[string]string{"type": "service_account", "client_email": "robot@project.example", "private_key_id": "k1", "private_key": key})
		v := newVault(t, string(account), "      transform: {type: google-jwt-bearer, scopes: [a], audience: \"BASE/token\"}\n")
		v.sends("minted-token-number-1")
		v.sends("minted-token-number-1") // it is kept until it expires
		if v.issued != 1 {
			t.Errorf("%d tokens were issued", v.issued)
		}
		v.keeps("minted-token-number-1", string(account), key)
	})
	t.Run("github-app", func(t *testing.T) {
		v := newVault(t, key, "      transform: {type: github-app, app: \"123\", installation: \"45\", endpoint: \"BASE\"}\n")
		v.sends("minted-token-number-1")
		v.keeps("minted-token-number-1", key)
	})
	t.Run("oauth2-refresh", func(t *testing.T) {
		v := newVault(t, `{"refresh_token": "the-first-refresh-token", "client_id": "me", "client_secret": "the-secret-of-a-client"}`, "      transform: {type: oauth2-refresh, endpoint: \"BASE/token\"}\n")
		v.sends("minted-token-number-1")
		if v.forms[0].Get("refresh_token") != "the-first-refresh-token" || v.forms[0].Get("client_secret") != "the-secret-of-a-client" {
			t.Errorf("the issuer got %v", v.forms)
		}
		if want := `{"refresh_token":"refreshed-token-number-1","client_id":"me","client_secret":"the-secret-of-a-client"}`; v.kept["KEY"] != want {
			t.Errorf("kept is %s, want %s", v.kept["KEY"], want)
		}
		v.keeps("minted-token-number-1", "the-first-refresh-token", "the-secret-of-a-client", "refreshed-token-number-1")
	})
	t.Run("basic", func(t *testing.T) {
		v := newVault(t, "the-password-of-a-user", "      transform: {type: basic, username: user}\n")
		code, text := v.ask("GET", v.base+"/", "", "Authorization", "Basic "+vaultHolder)
		if user, password, _ := v.last().BasicAuth(); code != 200 || user != "user" || password != "the-password-of-a-user" {
			t.Errorf("%d %s, the server received %q", code, text, v.last().Header)
		}
		v.keeps("the-password-of-a-user", base64.StdEncoding.EncodeToString([]byte("user:the-password-of-a-user")))
	})
	t.Run("aws-sigv4", func(t *testing.T) {
		v := newVault(t, `{"AccessKeyId": "AKIAREALEXAMPLE23456", "SecretAccessKey": "wJalrRealSecretKey/K7MDENG", "SessionToken": "a-session-token-1234"}`, "      transform: {type: aws-sigv4}\n")
		code, text := v.ask("GET", v.base+"/b/k", "", "X-Amz-Date", "20260101T000000Z", "Authorization",
			"AWS4-HMAC-SHA256 Credential="+vaultHolder+"/20260101/us-east-1/s3/aws4_request, SignedHeaders=accept-encoding;host;x-amz-date, Signature=00")
		got := v.last().Header
		if code != 200 || !strings.Contains(got.Get("Authorization"), "Credential=AKIAREALEXAMPLE23456/") || got.Get("X-Amz-Security-Token") != "a-session-token-1234" {
			t.Errorf("%d %s, the server received %q", code, text, got)
		}
		v.keeps("wJalrRealSecretKey/K7MDENG", "a-session-token-1234")
	})
}

// TestTransformFails: a placeholder stays where it is when there is no token.
func TestTransformFails(t *testing.T) {
	v := newVault(t, "the-first-refresh-token", "      transform: {type: oauth2-refresh, endpoint: \"https://example.com:1/token\"}\n")
	code, text := v.ask("GET", v.base+"/", "", "Authorization", "Bearer "+vaultHolder)
	if code != 403 || !strings.Contains(text, "secret KEY has no value") || len(v.got) > 0 || strings.Contains(text, "the-first") {
		t.Errorf("%d %s, the server received %v", code, text, v.got)
	}
}

// TestSetSecret is rules.md 70 and peer-holes C7: the next request has the new
// value, and the old ones are redacted and blocked as before, through reloads
// and without any rule.
func TestSetSecret(t *testing.T) {
	const first, second, third = "the-first-of-values", "another-value-altogether", "number-three/of+values"
	v := newVault(t, first, "")
	v.sends(first)
	set := func(value string) {
		t.Helper()
		one, err := secret.New([]byte(value))
		if err == nil {
			err = v.gw.SetSecret("KEY", one)
		}
		if err != nil {
			t.Fatal(err)
		}
		v.mu.Lock()
		v.values["KEY"] = value
		v.mu.Unlock()
	}
	set(second)
	v.sends(second)
	v.keeps(first, second)
	if err := v.gw.UnsetSecret("KEY"); err != nil {
		t.Fatal(err)
	}
	n := len(v.got)
	if code, text := v.ask("GET", v.base+"/", "", "Authorization", "Bearer "+vaultHolder); code != 403 || len(v.got) != n || !strings.Contains(text, "it was removed") {
		t.Errorf("after the removal: %d %s", code, text)
	}
	v.keeps(first, second)
	set(third)
	if err := v.gw.Reload(v.config("      inject_query: true\n")); err != nil {
		t.Fatal(err)
	}
	v.sends(third)
	v.keeps(first, second, third)
	if err := v.gw.SetSecret("OTHER", secret.Value{}); err == nil {
		t.Error("a secret without a rule was set")
	}
	if err := v.gw.Reload(v.config("none")); err != nil {
		t.Fatal(err)
	}
	v.keeps(first, second, third)
	if _, text := v.ask("GET", v.base+"/", "", "X-Any", "1"); !strings.Contains(text, "X-Any: 1") {
		t.Errorf("control: %s", text)
	}
	if err := v.gw.Reload(v.config("")); err != nil {
		t.Fatal(err)
	}
	v.sends(third)
	v.keeps(first, second, third)
}

// TestRedactTo: to a host of redact_to a value leaves as its placeholder.
func TestRedactTo(t *testing.T) {
	const value = "the-value-of-a-secret"
	v := newVault(t, value, "  redact_to: [other.example.com]\n")
	other := strings.Replace(v.base, "example.com", "other.example.com", 1)
	code, text := v.ask("POST", other+"/?q="+value, "body of "+value, "X-Any", value, "Content-Type", "text/plain")
	if got := v.last(); code != 200 || got.Header.Get("X-Any") != vaultHolder || got.URL.Query().Get("q") != vaultHolder || got.ContentLength != int64(len("body of "+vaultHolder)) {
		t.Errorf("%d %s, the server received %v", code, text, got)
	}
	if code, _ := v.ask("GET", v.base+"/?q="+value, ""); code != 403 {
		t.Errorf("control: %d", code)
	}
}

// TestLogIsRedacted is rules.md 71 for the gateway's own log.
func TestLogIsRedacted(t *testing.T) {
	const value = "the-value-of-a-secret"
	v := newVault(t, value, "")
	var b bytes.Buffer
	for _, clean := range []bool{false, true} {
		b.Reset()
		var h slog.Handler = slog.NewTextHandler(&b, nil)
		if clean {
			h = redacting{h, v.gw.Redact}
		}
		slog.New(h).With("with", value).WithGroup("g").Error("message "+value, "error", fmt.Errorf("an error with %s", value), "n", 5)
		if strings.Contains(b.String(), value) == clean || !strings.Contains(b.String(), "g.n=5") {
			t.Errorf("clean %v: %s", clean, b.String())
		}
	}
}
