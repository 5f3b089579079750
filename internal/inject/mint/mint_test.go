package mint

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func pkcs8(t *testing.T) string {
	der, err := x509.MarshalPKCS8PrivateKey(testKey())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// verified checks a JWT's signature and returns its header and claims.
func verified(t *testing.T, jwt string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(&testKey().PublicKey, crypto.SHA256, sum[:], sig); err != nil {
		t.Fatal(err)
	}
	for i, into := range []*map[string]any{&header, &claims} {
		text, _ := base64.RawURLEncoding.DecodeString(parts[i])
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

// endpoint is a token endpoint that records what it gets.
type endpoint struct {
	*httptest.Server
	answer   string
	status   int
	requests []*http.Request
	bodies   []string
}

func newEndpoint(t *testing.T, status int, answer string) *endpoint {
	e := &endpoint{answer: answer, status: status}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err == nil && len(r.PostForm) > 0 {
			e.bodies = append(e.bodies, r.PostForm.Encode())
		} else {
			b, _ := io.ReadAll(r.Body)
			e.bodies = append(e.bodies, string(b))
		}
		e.requests = append(e.requests, r)
		if e.status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(e.status)
		fmt.Fprint(w, e.answer)
	}))
	t.Cleanup(e.Close)
	return e
}

func account(t *testing.T, tokenURI string) []byte {
	b, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "robot@project.example", "private_key_id": "k1", "private_key": pkcs8(t), "token_uri": tokenURI,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoogleJWT(t *testing.T) {
	e := newEndpoint(t, 200, `{"access_token":"ya29.example","expires_in":3599,"token_type":"Bearer"}`)
	now := time.Now().Truncate(time.Second)
	g := GoogleJWT{Scopes: []string{"a", "b"}, Endpoint: e.URL, Subject: "user@project.example"}
	tok, err := g.Make(context.Background(), e.Client(), account(t, e.URL), now)
	if err != nil || string(tok.Value) != "ya29.example" || !tok.Expires.Equal(now.Add(3599*time.Second)) {
		t.Fatalf("token %q until %v, %v", tok.Value, tok.Expires, err)
	}
	form := e.requests[0].PostForm
	if form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		t.Errorf("form %v", form)
	}
	header, claims := verified(t, form.Get("assertion"))
	if header["alg"] != "RS256" || header["kid"] != "k1" || claims["iss"] != "robot@project.example" || claims["scope"] != "a b" ||
		claims["aud"] != e.URL || claims["sub"] != "user@project.example" || claims["exp"].(float64)-claims["iat"].(float64) != 3600 {
		t.Errorf("header %v, claims %v", header, claims)
	}
}

// TestEndpointIsPinned is rules 68: a key cannot name whom it is sent to.
func TestEndpointIsPinned(t *testing.T) {
	e := newEndpoint(t, 200, `{"access_token":"x","expires_in":10}`)
	for _, uri := range []string{"https://evil-oauth2.googleapis.com/token", e.URL + "/", "http://oauth2.googleapis.com/token"} {
		for _, g := range []GoogleJWT{{Endpoint: e.URL}, {}} {
			if _, err := g.Make(context.Background(), e.Client(), account(t, uri), time.Now()); err == nil {
				t.Errorf("%s: a token was made", uri)
			}
		}
	}
	if len(e.requests) != 0 {
		t.Errorf("%d requests were sent", len(e.requests))
	}
	if _, err := (GoogleJWT{Endpoint: e.URL}).Make(context.Background(), e.Client(), account(t, e.URL), time.Now()); err != nil || len(e.requests) != 1 {
		t.Errorf("positive control: %v", err)
	}
}

func TestGitHubApp(t *testing.T) {
	e := newEndpoint(t, 201, `{"token":"ghs_example","expires_at":"2030-01-02T03:04:05Z"}`)
	g := GitHubApp{App: "123", Installation: "45", Endpoint: e.URL + "/", Repositories: []string{"one"}, Permissions: map[string]string{"contents": "read"}}
	tok, err := g.Make(context.Background(), e.Client(), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(testKey())}), time.Now())
	if err != nil || string(tok.Value) != "ghs_example" || tok.Expires.Year() != 2030 {
		t.Fatalf("token %q until %v, %v", tok.Value, tok.Expires, err)
	}
	r := e.requests[0]
	_, claims := verified(t, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if r.URL.Path != "/app/installations/45/access_tokens" || claims["iss"] != "123" || e.bodies[0] != `{"repositories":["one"],"permissions":{"contents":"read"}}` {
		t.Errorf("%s, %v, %s", r.URL, claims, e.bodies[0])
	}
	if _, err := (GitHubApp{App: "1"}).Make(context.Background(), e.Client(), nil, time.Now()); err == nil {
		t.Error("no installation, and no error")
	}
}

func TestRefresh(t *testing.T) {
	tests := []struct {
		name, source, answer, form, rotated string
	}{
		{"plain", "refresh-one", `{"access_token":"a"}`, "client_id=id&grant_type=refresh_token&refresh_token=refresh-one&scope=s", ""},
		{"the same again", "refresh-one", `{"access_token":"a","refresh_token":"refresh-one"}`, "client_id=id&grant_type=refresh_token&refresh_token=refresh-one&scope=s", ""},
		{"rotated", "refresh-one", `{"access_token":"a","refresh_token":"refresh-two"}`, "client_id=id&grant_type=refresh_token&refresh_token=refresh-one&scope=s", "refresh-two"},
		{
			"json", `{"refresh_token":"r1","client_id":"c","client_secret":"s"}`, `{"access_token":"a","refresh_token":"r2"}`,
			"client_id=c&client_secret=s&grant_type=refresh_token&refresh_token=r1&scope=s", `{"refresh_token":"r2","client_id":"c","client_secret":"s"}`,
		},
	}
	for _, tt := range tests {
		e := newEndpoint(t, 200, tt.answer)
		tok, err := Refresh{Endpoint: e.URL, ClientID: "id", Scopes: []string{"s"}}.Make(context.Background(), e.Client(), []byte(tt.source), time.Now())
		if err != nil || string(tok.Value) != "a" || string(tok.Source) != tt.rotated || e.bodies[0] != tt.form {
			t.Errorf("%s: %q, rotated %q, form %s, %v", tt.name, tok.Value, tok.Source, e.bodies[0], err)
		}
	}
}

// TestFailuresTellNothing: an error page that repeats the credential must not
// reach a log, and neither must what was sent.
func TestFailuresTellNothing(t *testing.T) {
	const secret = "refresh-token-of-the-user"
	answers := []struct {
		name   string
		status int
		answer string
	}{
		{"refused", 400, `{"error":"invalid_grant","echo":"` + secret + `"}`},
		{"no token", 200, `{"echo":"` + secret + `"}`},
		{"no JSON", 200, secret},
		{"too long", 200, `{"access_token":"` + strings.Repeat(secret, 1<<13) + `"}`},
		{"redirect", http.StatusFound, secret},
	}
	for _, tt := range answers {
		e := newEndpoint(t, tt.status, tt.answer)
		m := New(Options{Maker: Refresh{Endpoint: e.URL}, Client: e.Client(), Source: func(context.Context) ([]byte, error) { return []byte(secret), nil }})
		_, err := m.Token(context.Background())
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if len(e.requests) != 1 {
			t.Errorf("%s: %d requests", tt.name, len(e.requests))
		}
	}
}

func TestBadKeys(t *testing.T) {
	for name, text := range map[string]string{
		"no PEM": "hunter22", "no key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("hunter22")})),
	} {
		if _, err := parseKey([]byte(text)); err == nil || strings.Contains(err.Error(), "hunter22") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// counting makes a token a call, each of a given life.
type counting struct {
	n    atomic.Int64
	life time.Duration
	err  error
	wait chan struct{}
}

func (c *counting) Make(context.Context, *http.Client, []byte, time.Time) (Token, error) {
	n := c.n.Add(1)
	if c.wait != nil {
		<-c.wait
	}
	return Token{Value: fmt.Appendf(nil, "token-%d", n), Expires: time.Now().Add(c.life)}, c.err
}

func source(context.Context) ([]byte, error) { return []byte("long-lived"), nil }

func TestTokenIsKeptUntilShortlyBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{life: time.Hour}
		m := New(Options{Maker: c, Source: source, Margin: 10 * time.Minute})
		get := func() string {
			tok, err := m.Token(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return string(tok.Value)
		}
		got := []string{get(), get()}
		time.Sleep(50*time.Minute - time.Second) //nolint:forbidigo // fake time
		got = append(got, get())
		time.Sleep(time.Second) //nolint:forbidigo // fake time
		got = append(got, get())
		m.Forget()
		got = append(got, get())
		if s := strings.Join(got, " "); s != "token-1 token-1 token-1 token-2 token-3" {
			t.Error(s)
		}
	})
}

func TestSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{life: time.Hour, wait: make(chan struct{})}
		m := New(Options{Maker: c, Source: source})
		gone, cancel := context.WithCancel(context.Background())
		results := make(chan error, 101)
		go func() { _, err := m.Token(gone); results <- err }()
		synctest.Wait()
		for range 100 {
			go func() { _, err := m.Token(context.Background()); results <- err }()
		}
		synctest.Wait()
		cancel()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("who left: %v", err)
		}
		close(c.wait)
		for range 100 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if n := c.n.Load(); n != 1 {
			t.Errorf("%d exchanges", n)
		}
	})
}

// TestRateIsCapped: an endpoint that fails is not asked without end, whatever
// the agent does.
func TestRateIsCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{err: errors.New("down")}
		m := New(Options{Maker: c, Source: source, PerHour: 3})
		for range 10 {
			if _, err := m.Token(context.Background()); err == nil {
				t.Fatal("no error")
			}
		}
		if n := c.n.Load(); n != 3 {
			t.Errorf("%d exchanges", n)
		}
		c.err, c.life = nil, time.Minute
		if _, err := m.Token(context.Background()); !errors.Is(err, ErrRate) {
			t.Errorf("over the rate: %v", err)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // fake time
		if _, err := m.Token(context.Background()); err != nil {
			t.Errorf("an hour later: %v", err)
		}
	})
}

func TestRotation(t *testing.T) {
	e := newEndpoint(t, 200, `{"access_token":"a","refresh_token":"second"}`)
	kept := ""
	o := Options{Maker: Refresh{Endpoint: e.URL}, Client: e.Client(), Source: func(context.Context) ([]byte, error) { return []byte("first"), nil }}
	if _, err := New(o).Token(context.Background()); err == nil {
		t.Error("a rotated token was lost without an error")
	}
	o.Rotated = func(b []byte) error { kept = string(b); return nil }
	if _, err := New(o).Token(context.Background()); err != nil || kept != "second" {
		t.Errorf("kept %q, %v", kept, err)
	}
	o.Rotated = func([]byte) error { return errors.New("disk full") }
	if _, err := New(o).Token(context.Background()); err == nil {
		t.Error("a token that could not be kept gave no error")
	}
}
