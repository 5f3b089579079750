// Package mint makes short-lived credentials out of long-lived ones, so that
// what lasts never travels: an access token from a service account's key, an
// installation token from an app's key, an access token from a refresh token.
//
// Whom a credential is sent to is pinned by the config, and never read from
// the credential or from an answer. Redirects are not followed.
package mint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// makeTime is how long an exchange may take.
	makeTime = 30 * time.Second
	// maxAnswer bounds the answer of a token endpoint, in bytes.
	maxAnswer = 64 << 10
	// longest is how long a token is kept whatever its endpoint says.
	longest = 24 * time.Hour
	// shortest is the life of a token whose endpoint names none.
	shortest = 5 * time.Minute
)

// Token is a credential with an end.
type Token struct {
	Value   []byte
	Expires time.Time
	// Source is what to keep in place of the long-lived credential, when
	// the endpoint has changed that; nil otherwise (RFC 6749 section 6).
	Source []byte
}

// Maker exchanges one kind of credential. Errors hold nothing of what was
// sent or received.
type Maker interface {
	Make(ctx context.Context, client *http.Client, source []byte, now time.Time) (Token, error)
}

// Options of a Minter. Maker and Source are required.
type Options struct {
	Maker Maker
	// Source gives the long-lived credential, each time anew, so that a
	// changed one is used at once.
	Source func(context.Context) ([]byte, error)
	// Rotated keeps a changed long-lived credential. Nil refuses tokens
	// that would change it, because the old one may be void.
	Rotated func([]byte) error
	// Client reaches the endpoint. Nil makes one that nobody should use
	// outside of tests, as it knows nothing of the gateway's dialer.
	Client *http.Client
	// PerHour bounds exchanges, failed ones too; 0 is 60.
	PerHour int
	// Margin is how long before its end a token is replaced; 0 is 5 min.
	Margin time.Duration
}

// Minter keeps one token fresh. It is safe for concurrent use.
type Minter struct {
	o      Options
	flight singleflight.Group

	mu    sync.Mutex
	token Token
	renew time.Time   // when another one is to be made
	made  []time.Time // within the last hour
}

// ErrRate says that the bound on exchanges is reached.
var ErrRate = errors.New("cannot get a token: too many within the hour")

// New returns a minter that has no token yet.
func New(o Options) *Minter {
	if o.PerHour <= 0 {
		o.PerHour = 60
	}
	if o.Margin <= 0 {
		o.Margin = 5 * time.Minute
	}
	c := http.Client{}
	if o.Client != nil {
		c = *o.Client
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.Client = &c
	return &Minter{o: o}
}

// Token returns a token that lasts for a while, making one when there is none.
// Callers that come at the same time share one exchange.
func (m *Minter) Token(ctx context.Context) (Token, error) {
	if t, ok := m.current(); ok {
		return t, nil
	}
	result := m.flight.DoChan("", func() (any, error) {
		if t, ok := m.current(); ok {
			return t, nil
		}
		// The exchange is everybody's: one caller who leaves does not end it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), makeTime)
		defer cancel()
		return m.exchange(ctx)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return Token{}, r.Err
		}
		return r.Val.(Token), nil
	case <-ctx.Done():
		return Token{}, ctx.Err()
	}
}

// current returns the kept token when it does not end soon.
func (m *Minter) current() (Token, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.token, len(m.token.Value) > 0 && time.Now().Before(m.renew)
}

func (m *Minter) exchange(ctx context.Context) (Token, error) {
	if !m.permit() {
		return Token{}, ErrRate
	}
	source, err := m.o.Source(ctx)
	if err != nil {
		return Token{}, err
	}
	now := time.Now()
	t, err := m.o.Maker.Make(ctx, m.o.Client, source, now)
	if err != nil {
		return Token{}, fmt.Errorf("cannot get a token: %w", err)
	}
	if t.Source != nil {
		if err := m.keep(t.Source); err != nil {
			return Token{}, err
		}
	}
	return m.accept(t, now), nil
}

// permit counts an exchange, when there may be one more.
func (m *Minter) permit() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for len(m.made) > 0 && now.Sub(m.made[0]) >= time.Hour {
		m.made = m.made[1:]
	}
	if len(m.made) >= m.o.PerHour {
		return false
	}
	m.made = append(m.made, now)
	return true
}

func (m *Minter) keep(source []byte) error {
	if m.o.Rotated == nil {
		return errors.New("cannot get a token: the endpoint replaced the refresh token, and nothing can keep the new one")
	}
	if err := m.o.Rotated(source); err != nil {
		return fmt.Errorf("cannot keep the new refresh token: %w", err)
	}
	return nil
}

// accept keeps a token until shortly before its end; one whose whole life is
// shorter than twice the margin for half of that life.
func (m *Minter) accept(t Token, now time.Time) Token {
	if t.Expires.IsZero() {
		t.Expires = now.Add(shortest)
	}
	if last := now.Add(longest); t.Expires.After(last) {
		t.Expires = last
	}
	t.Source = nil
	m.mu.Lock()
	defer m.mu.Unlock()
	m.token = t
	m.renew = t.Expires.Add(-min(m.o.Margin, t.Expires.Sub(now)/2))
	return t
}

// Forget makes the next call get a new token, as when the server refused the
// old one or its source changed.
func (m *Minter) Forget() {
	m.mu.Lock()
	m.token = Token{}
	m.mu.Unlock()
}

// call sends a request to a token endpoint and returns its answer.
func call(client *http.Client, r *http.Request) ([]byte, error) {
	r.Header.Set("Accept", "application/json")
	res, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("cannot reach %s: %w", r.URL.Host, unwrapURL(err))
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the answer of %s", r.URL.Host)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer of %s is too long", r.URL.Host)
	case res.StatusCode < 200 || res.StatusCode > 299:
		// An error page may repeat what was sent.
		return nil, fmt.Errorf("%s answered with status %d", r.URL.Host, res.StatusCode)
	}
	return body, nil
}

// unwrapURL takes the URL out of an error of http.Client.
func unwrapURL(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}
