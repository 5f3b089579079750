package mint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// GoogleEndpoint is where Google exchanges a service account's assertion
// (developers.google.com/identity/protocols/oauth2/service-account).
const GoogleEndpoint = "https://oauth2.googleapis.com/token"

// GoogleJWT makes an access token out of a service account's key in JSON, by
// the JWT bearer grant (RFC 7523).
type GoogleJWT struct {
	Scopes []string
	// Endpoint is where the assertion goes, and its audience; empty is
	// GoogleEndpoint. A key that names another one is refused.
	Endpoint string
	Subject  string // user to act for, with domain-wide delegation; may be empty
}

// serviceAccount are the fields of the key file that are used.
type serviceAccount struct {
	Type       string `json:"type"`
	Email      string `json:"client_email"`
	KeyID      string `json:"private_key_id"`
	PrivateKey string `json:"private_key"`
	TokenURI   string `json:"token_uri"`
}

// Make implements Maker.
func (g GoogleJWT) Make(ctx context.Context, client *http.Client, source []byte, now time.Time) (Token, error) {
	var account serviceAccount
	if err := json.Unmarshal(source, &account); err != nil || account.Email == "" || account.PrivateKey == "" {
		return Token{}, errors.New("the secret is no service account's key in JSON")
	}
	endpoint := g.Endpoint
	if endpoint == "" {
		endpoint = GoogleEndpoint
	}
	if account.TokenURI != "" && account.TokenURI != endpoint {
		return Token{}, fmt.Errorf("the key names a token endpoint other than %s", endpoint)
	}
	key, err := parseKey([]byte(account.PrivateKey))
	if err != nil {
		return Token{}, err
	}
	claims := map[string]any{
		"iss": account.Email, "scope": strings.Join(g.Scopes, " "), "aud": endpoint,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	if g.Subject != "" {
		claims["sub"] = g.Subject
	}
	assertion, err := signJWT(key, account.KeyID, claims)
	if err != nil {
		return Token{}, err
	}
	return exchangeForm(ctx, client, endpoint, url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion},
	}, now)
}

// Refresh makes an access token out of a refresh token (RFC 6749 section 6).
// The secret is the token itself, or a JSON object with refresh_token,
// client_id and client_secret.
type Refresh struct {
	Endpoint string // required
	ClientID string // where the secret does not say
	Scopes   []string
}

type refreshSecret struct {
	RefreshToken string `json:"refresh_token"`
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
}

// Make implements Maker.
func (f Refresh) Make(ctx context.Context, client *http.Client, source []byte, now time.Time) (Token, error) {
	s := refreshSecret{RefreshToken: string(source)}
	inJSON := len(source) > 0 && source[0] == '{'
	if inJSON {
		s = refreshSecret{}
		if err := json.Unmarshal(source, &s); err != nil || s.RefreshToken == "" {
			return Token{}, errors.New("the secret has no refresh_token")
		}
	}
	if f.Endpoint == "" {
		return Token{}, errors.New("there is no token endpoint")
	}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.RefreshToken}}
	set := func(name, value string) {
		if value != "" {
			form.Set(name, value)
		}
	}
	set("client_id", f.ClientID)
	set("client_id", s.ClientID)
	set("client_secret", s.ClientSecret)
	set("scope", strings.Join(f.Scopes, " "))
	t, err := exchangeForm(ctx, client, f.Endpoint, form, now)
	if err != nil || t.Source == nil {
		return t, err
	}
	if string(t.Source) == s.RefreshToken {
		t.Source = nil
		return t, nil
	}
	if inJSON {
		s.RefreshToken = string(t.Source)
		t.Source, err = json.Marshal(s)
	}
	return t, err
}

// exchangeForm posts a form to a token endpoint (RFC 6749 section 5.1).
func exchangeForm(ctx context.Context, client *http.Client, endpoint string, form url.Values, now time.Time) (Token, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return Token{}, errors.New("the token endpoint is malformed")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	body, err := call(client, r)
	if err != nil {
		return Token{}, err
	}
	var answer struct {
		AccessToken  string      `json:"access_token"`
		TokenType    string      `json:"token_type"`
		ExpiresIn    json.Number `json:"expires_in"`
		RefreshToken string      `json:"refresh_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
		return Token{}, fmt.Errorf("the answer of %s holds no access token", r.URL.Host)
	}
	t := Token{Value: []byte(answer.AccessToken)}
	if seconds, err := answer.ExpiresIn.Int64(); err == nil && seconds > 0 {
		t.Expires = now.Add(min(time.Duration(min(seconds, int64(longest/time.Second)))*time.Second, longest))
	}
	if answer.RefreshToken != "" {
		t.Source = []byte(answer.RefreshToken)
	}
	return t, nil
}
