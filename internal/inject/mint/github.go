package mint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// GitHubEndpoint is GitHub's own API.
const GitHubEndpoint = "https://api.github.com"

// GitHubApp makes an installation token out of an app's private key, narrowed
// to some repositories and permissions (docs.github.com, "Generating an
// installation access token for a GitHub App").
type GitHubApp struct {
	App          string // app id or client id; required
	Installation string // required
	Endpoint     string // of the API; empty is GitHubEndpoint
	Repositories []string
	Permissions  map[string]string // as in "contents": "read"
}

// Make implements Maker.
func (g GitHubApp) Make(ctx context.Context, client *http.Client, source []byte, now time.Time) (Token, error) {
	if g.App == "" || g.Installation == "" {
		return Token{}, errors.New("app and installation are required")
	}
	key, err := parseKey(source)
	if err != nil {
		return Token{}, err
	}
	// GitHub takes ten minutes at most, and refuses a clock that is ahead.
	jwt, err := signJWT(key, "", map[string]any{"iss": g.App, "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(9 * time.Minute).Unix()})
	if err != nil {
		return Token{}, err
	}
	endpoint := g.Endpoint
	if endpoint == "" {
		endpoint = GitHubEndpoint
	}
	body, err := g.body()
	if err != nil {
		return Token{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost,
		strings.TrimSuffix(endpoint, "/")+"/app/installations/"+url.PathEscape(g.Installation)+"/access_tokens", bytes.NewReader(body))
	if err != nil {
		return Token{}, errors.New("the endpoint is malformed")
	}
	r.Header.Set("Authorization", "Bearer "+jwt)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	answer, err := call(client, r)
	if err != nil {
		return Token{}, err
	}
	var t struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires_at"`
	}
	if err := json.Unmarshal(answer, &t); err != nil || t.Token == "" {
		return Token{}, fmt.Errorf("the answer of %s holds no token", r.URL.Host)
	}
	return Token{Value: []byte(t.Token), Expires: t.Expires}, nil
}

func (g GitHubApp) body() ([]byte, error) {
	return json.Marshal(struct {
		Repositories []string          `json:"repositories,omitempty"`
		Permissions  map[string]string `json:"permissions,omitempty"`
	}{g.Repositories, g.Permissions})
}
