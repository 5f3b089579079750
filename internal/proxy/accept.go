package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy/strict"
)

// recordTypeHandshake is the first byte of a TLS connection (RFC 8446 5.1).
const recordTypeHandshake = 0x16

// sniff finds out what a connection speaks that did not say so. Nothing but
// TLS and HTTP goes on, and no server is contacted before a request passed.
func (e *Engine) sniff(cc *clientConn) {
	cc.SetDeadline(time.Now().Add(e.limits.HeaderTimeout))
	first, err := cc.peek()
	switch {
	case err != nil:
		cc.fail(audit.KindTunnel, "connection ended without a request: "+readError(err))
		cc.Close()
	case first[0] == recordTypeHandshake:
		e.startTLS(cc)
	case isToken(first[:1]):
		cc.SetDeadline(time.Time{})
		if cc.via == inspect.ViaConnect {
			cc.via = inspect.ViaConnectPlain
		}
		e.hand(cc, cc)
	default:
		cc.fail(audit.KindProtocol, "neither TLS nor HTTP")
		cc.Close()
	}
}

// hand gives HTTP/1.1 to the server. c is cc or the TLS connection on top.
func (e *Engine) hand(cc *clientConn, c net.Conn) {
	checked := strict.New(c, strict.Options{
		MaxHeaderBytes: e.limits.MaxHeaderBytes,
		HeadTimeout:    e.limits.HeaderTimeout,
		OnReject:       func(reason, id string) { cc.failAs(id, audit.KindProtocol, reason) },
	})
	e.handoff.pass(&serverConn{Conn: checked, checked: checked, cc: cc})
}

// errPass ends a handshake that is not ours to make.
var errPass = errors.New("passed through")

// startTLS ends the agent's TLS here, unless the host is to be passed through.
// crypto/tls reads the ClientHello in both cases, so that no second parser can
// see another server name in it.
func (e *Engine) startTLS(cc *clientConn) {
	if cc.via == inspect.ViaTransparent {
		cc.via = inspect.ViaTransparentTLS
	}
	cc.tls = true
	cc.recording = true
	tc := tls.Server(cc, e.tlsConfig)
	err := tc.Handshake()
	if cc.pass {
		e.passThrough(cc)
		return
	}
	if err != nil {
		cc.fail(audit.KindTunnel, handshakeError(err))
		cc.Close()
		return
	}
	cc.trusted.Store(true)
	cc.SetDeadline(time.Time{})
	if tc.ConnectionState().NegotiatedProtocol == "h2" {
		e.handoff.pass(tc)
		return
	}
	e.hand(cc, tc)
}

// onHello takes the server name and decides who goes on with the handshake.
func (e *Engine) onHello(h *tls.ClientHelloInfo) (*tls.Config, error) {
	cc := h.Conn.(*clientConn)
	cc.recording = false
	if h.ServerName != "" {
		name, err := hostname.Parse(h.ServerName)
		if err != nil {
			return nil, err
		}
		cc.sni = name
	}
	if !cc.sni.IsZero() && !cc.connect.IsZero() && cc.sni != cc.connect {
		cc.mismatch = fmt.Sprintf("SNI/Host header mismatch: CONNECT %s, SNI %s", cc.connect, cc.sni)
	}
	host := cc.sni
	if host.IsZero() {
		host = cc.connect
	}
	if cc.mismatch == "" && !host.IsZero() && (*e.policy.Load()).Passthrough(host, cc.port) {
		cc.pass, cc.muted = true, true
		return nil, errPass
	}
	cc.hello = nil
	return nil, nil
}

func (e *Engine) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return e.certs.Certificate(h.Conn.(*clientConn).name())
}

// handshakeError tells the one failure that its user can mend from the others.
func handshakeError(err error) string {
	text := err.Error()
	if strings.HasPrefix(text, "remote error: ") {
		for _, alert := range []string{"bad certificate", "unknown certificate", "unknown authority", "unsupported certificate"} {
			if strings.Contains(text, alert) {
				return "tls handshake failed: client does not trust the cage's CA"
			}
		}
	}
	var header tls.RecordHeaderError
	if errors.As(err, &header) {
		return "tls handshake failed: not a TLS record"
	}
	if isReadError(err) {
		return "tls handshake failed: " + readError(err)
	}
	return "tls handshake failed: " + printable(text)
}

func isReadError(err error) bool {
	var ne net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.As(err, &ne) && !strings.HasPrefix(err.Error(), "remote error")
}

// readError has no addresses in it: those are in the record's own fields.
func readError(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "client closed the connection"
	case errors.Is(err, net.ErrClosed):
		return "the gateway stops"
	}
	return "connection lost"
}

// acceptConnect answers CONNECT. It succeeds for every host on a port that is
// open for any: only inside of the tunnel can a refusal be told in a way that
// programs show, and no server is contacted before a request passed there.
func (x *exchange) acceptConnect() {
	if x.cc.via != inspect.ViaProxy || x.r.ProtoMajor != 1 {
		x.refuseHead(http.StatusForbidden, "CONNECT is for the explicit proxy only")
		return
	}
	host, port, err := hostname.ParseAuthority(x.r.RequestURI)
	if err == nil && port == 0 {
		err = errors.New("cannot read CONNECT target: the port is missing")
	}
	if err != nil {
		x.refuseHead(http.StatusForbidden, err.Error())
		return
	}
	x.req.Host, x.req.Port = host, port
	if p, ok := (*x.e.policy.Load()).(PortPolicy); ok && !p.OpenPort(port) {
		x.refuseHead(http.StatusForbidden, fmt.Sprintf("port not allowed for %s: %d", host, port))
		return
	}
	if x.r.ContentLength != 0 {
		x.refuseHead(http.StatusForbidden, "CONNECT with a body")
		return
	}
	x.tunnel(host, port)
}

// tunnel continues the connection as one to host. Bytes that came before the
// answer were sent to nobody in particular, so they are refused.
func (x *exchange) tunnel(host hostname.Name, port uint16) {
	c, rw, err := x.w.(http.Hijacker).Hijack()
	if err != nil {
		x.e.log.Error("cannot take over connection", "error", err)
		return
	}
	sc, outer := c.(*serverConn), x.cc
	sc.checked.Relax()
	if rw.Reader.Buffered() > 0 || sc.checked.Buffered() > 0 {
		outer.fail(audit.KindProtocol, "bytes before the answer to CONNECT")
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		outer.Close()
		return
	}
	inner := x.e.newConn(outer.Conn, inspect.ViaConnect)
	inner.connect, inner.port, inner.portFixed = host, port, true
	outer.handedOn()
	x.e.work.Go(func() {
		defer x.e.survive(inner)
		inner.SetDeadline(time.Now().Add(x.e.limits.HeaderTimeout))
		if _, err := io.WriteString(inner, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
			inner.Close()
			return
		}
		x.e.sniff(inner)
	})
}

// isToken reports whether s is a token, of which methods are made (RFC 9110
// section 5.6.2).
func isToken[T string | []byte](s T) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return len(s) > 0
}
