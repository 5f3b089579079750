package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// target is who a request is for: what its connection and its head agree on.
type target struct {
	scheme string
	host   hostname.Name
	port   uint16
	// authority is the Host to send: the port is in it only when the
	// agent named one.
	authority string
}

// identify compares everything that names the destination. It returns what it
// knows of the target beside an error, for the audit record.
func identify(cc *clientConn, r *http.Request) (target, error) {
	t := target{scheme: "http", host: cc.name(), port: cc.port}
	if cc.tls {
		t.scheme = "https"
	}
	if cc.mismatch != "" {
		return t, errors.New(cc.mismatch)
	}
	if err := checkForm(cc, r, &t); err != nil {
		return t, err
	}
	host, port, err := hostname.ParseAuthority(r.Host)
	if err != nil {
		return t, err
	}
	if err := sameAsHostField(r, host, port); err != nil {
		return t, err
	}
	if err := sameAsConnection(cc, host, port); err != nil {
		return t, err
	}
	t.host, t.authority = host, host.Authority(port)
	switch {
	case port != 0:
		t.port = port
	case t.port == 0:
		t.port = defaultPort(t.scheme)
	}
	return t, nil
}

// checkForm holds that the request target has the form of its way in (RFC 9112
// section 3.2): net/http accepts any of them anywhere.
func checkForm(cc *clientConn, r *http.Request, t *target) error {
	absolute := r.URL.Host != "" || r.URL.Scheme != ""
	switch {
	case r.URL.User != nil:
		return errors.New("user information in the request target")
	case badTarget(r.RequestURI):
		return errors.New("malformed request target")
	case cc.via == inspect.ViaProxy:
		if r.URL.Host == "" || r.URL.Scheme != "http" && r.URL.Scheme != "https" {
			return errors.New("the proxy takes absolute http and https URLs, and CONNECT")
		}
		t.scheme = r.URL.Scheme
		t.host = hostname.Name{}
	case absolute && r.ProtoMajor != 1:
		return errors.New("malformed request target")
	case absolute && r.URL.Scheme != t.scheme:
		return fmt.Errorf("SNI/Host header mismatch: an %s URL on an %s connection", printable(r.URL.Scheme), t.scheme)
	case !absolute && r.RequestURI != "*" && !strings.HasPrefix(r.RequestURI, "/"):
		return errors.New("malformed request target")
	}
	return nil
}

// badTarget refuses what a server could read as the end of the request target
// or of the request line, and bytes that RFC 3986 has nowhere: some servers
// take 0xa0 for a space.
func badTarget(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '#' || c == '\\' {
			return true
		}
	}
	return s == ""
}

// sameAsHostField compares with a Host field beside :authority. net/http leaves
// one in the header for HTTP/2 only.
func sameAsHostField(r *http.Request, host hostname.Name, port uint16) error {
	for _, v := range r.Header["Host"] {
		h, p, err := hostname.ParseAuthority(v)
		if err != nil {
			return err
		}
		if h != host || p != port {
			return fmt.Errorf("SNI/Host header mismatch: :authority %s, Host %s", host.Authority(port), h.Authority(p))
		}
	}
	delete(r.Header, "Host")
	return nil
}

func sameAsConnection(cc *clientConn, host hostname.Name, port uint16) error {
	switch {
	case !cc.connect.IsZero() && host != cc.connect:
		return fmt.Errorf("SNI/Host header mismatch: CONNECT %s, Host %s", cc.connect, host)
	case !cc.sni.IsZero() && host != cc.sni:
		return fmt.Errorf("SNI/Host header mismatch: SNI %s, Host %s", cc.sni, host)
	case cc.portFixed && port != 0 && port != cc.port:
		return fmt.Errorf("SNI/Host header mismatch: connection to port %d, Host %s", cc.port, host.Authority(port))
	}
	return nil
}

func defaultPort(scheme string) uint16 {
	if scheme == "https" {
		return 443
	}
	return 80
}
