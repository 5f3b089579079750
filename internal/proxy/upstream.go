package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/proxy/dial"
)

// maxHTTP2Only bounds how many hosts are remembered.
const maxHTTP2Only = 1024

// upstream is the servers' side. A request that came by HTTP/1.1 goes on by
// HTTP/1.1, as it would without us, and one that came by HTTP/2 goes on by
// HTTP/2 where the server offers it. Only a server that has nothing but HTTP/2
// gets that for everybody.
type upstream struct {
	one  *http.Transport // HTTP/1.1
	both *http.Transport // HTTP/2 where the server offers it

	mu        sync.Mutex
	http2Only map[string]struct{} // authorities
}

func (e *Engine) newUpstream(roots *x509.CertPool) *upstream {
	return &upstream{one: e.newTransport(roots, false), both: e.newTransport(roots, true)}
}

// roundTrip sends a request on. major is the version that it came by.
func (u *upstream) roundTrip(out *http.Request, major int) (*http.Response, error) {
	if major != 1 || u.isHTTP2Only(out.URL.Host) {
		return u.both.RoundTrip(out)
	}
	body := out.Body
	if body != nil && out.GetBody == nil {
		out.Body = io.NopCloser(body) // the first attempt would close it
	}
	res, err := u.one.RoundTrip(out)
	if err == nil || !wantsHTTP2(err) {
		return res, err
	}
	// The handshake failed: not a byte of the request was sent.
	u.rememberHTTP2Only(out.URL.Host)
	if out.GetBody != nil {
		if out.Body, err = out.GetBody(); err != nil {
			return nil, err
		}
	}
	return u.both.RoundTrip(out)
}

// wantsHTTP2 finds the TLS alert of a server that shares no protocol with us
// (RFC 7301 section 3.2).
func wantsHTTP2(err error) bool {
	return strings.Contains(err.Error(), "remote error: tls: no application protocol")
}

func (u *upstream) isHTTP2Only(authority string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.http2Only[authority]
	return ok
}

func (u *upstream) rememberHTTP2Only(authority string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.http2Only == nil || len(u.http2Only) >= maxHTTP2Only {
		u.http2Only = make(map[string]struct{})
	}
	u.http2Only[authority] = struct{}{}
}

func (u *upstream) closeIdle() {
	u.one.CloseIdleConnections()
	u.both.CloseIdleConnections()
}

func (e *Engine) newTransport(roots *x509.CertPool, http2 bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(http2)
	var next []string // the transport's own
	if !http2 {
		// Without a word about protocols a server with nothing but
		// HTTP/2 would not tell us so.
		next = []string{"http/1.1"}
	}
	return &http.Transport{
		// An upstream proxy belongs to the Dialer, and the environment
		// to nobody.
		Proxy:              nil,
		Protocols:          protocols,
		DialContext:        e.dialAuthority,
		DisableCompression: true,
		TLSClientConfig: &tls.Config{
			MinVersion:                  tls.VersionTLS12,
			RootCAs:                     roots,
			NextProtos:                  next,
			ClientSessionCache:          tls.NewLRUClientSessionCache(256),
			DynamicRecordSizingDisabled: true,
		},
		TLSHandshakeTimeout:    10 * time.Second,
		ExpectContinueTimeout:  2 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           512,
		MaxIdleConnsPerHost:    64,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         4 << 10,
		WriteBufferSize:        16 << 10,
	}
}

// dialAuthority takes the authority that the engine itself wrote into the URL,
// so that the name that was decided is the name that is dialled. The transport
// calls it in a goroutine of its own, where a panic would end the process.
func (e *Engine) dialAuthority(ctx context.Context, _, authority string) (c net.Conn, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.log.Error("dialer failed", "panic", p)
			c, err = nil, errors.New("the gateway failed")
		}
	}()
	host, port, err := hostname.ParseAuthority(authority)
	if err != nil {
		return nil, err
	}
	if port == 0 {
		return nil, &dial.RefusedError{Host: host, Reason: "no port"}
	}
	return e.dialer.Dial(ctx, host, port)
}
