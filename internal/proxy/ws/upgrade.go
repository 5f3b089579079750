package ws

import (
	"crypto/sha1" // #nosec G505 -- RFC 6455 section 4.2.2 names it; it protects nothing
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Accept returns the Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455
// section 4.2.2).
func Accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // #nosec G401 -- as above
	return base64.StdEncoding.EncodeToString(sum[:])
}

// IsUpgrade reports whether a message wants another protocol, WebSocket or
// not. It must be asked before hop-by-hop fields are removed.
func IsUpgrade(h http.Header) bool {
	return len(h["Upgrade"]) > 0 || httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade")
}

// ValidUpgradeRequest returns why r is not the opening handshake of RFC 6455
// section 4.2.1 and nothing else. Its error texts are fixed.
func ValidUpgradeRequest(r *http.Request) error {
	switch {
	case r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor != 1:
		return errors.New("the upgrade is no GET of HTTP/1.1")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return errors.New("the upgrade has a body")
	case !upgradesToWebSocket(r.Header):
		return errors.New("the upgrade is not to websocket")
	case !only(r.Header, "Sec-Websocket-Version", func(v string) bool { return v == "13" }):
		return errors.New("the websocket version is not 13")
	case !only(r.Header, "Sec-Websocket-Key", validKey):
		return errors.New("the websocket key is not 16 bytes in base64")
	}
	return nil
}

// ValidUpgradeResponse returns why res does not accept the handshake with key
// without an extension (RFC 6455 section 4.1).
func ValidUpgradeResponse(res *http.Response, key string) error {
	switch {
	case res.StatusCode != http.StatusSwitchingProtocols:
		return errors.New("the answer is not 101")
	case !upgradesToWebSocket(res.Header):
		return errors.New("the server switched to another protocol")
	case !only(res.Header, "Sec-Websocket-Accept", func(v string) bool { return v == Accept(key) }):
		return errors.New("the server's proof is wrong")
	case len(res.Header["Sec-Websocket-Extensions"]) > 0:
		return errors.New("the server uses an extension that was not offered")
	}
	return nil
}

func upgradesToWebSocket(h http.Header) bool {
	return httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade") &&
		only(h, "Upgrade", func(v string) bool { return strings.EqualFold(v, "websocket") })
}

func validKey(v string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(v)
	return err == nil && len(b) == 16 && len(v) == 24
}

// only reports whether a field is there once and good.
func only(h http.Header, name string, good func(string) bool) bool {
	return len(h[name]) == 1 && good(strings.TrimSpace(h[name][0]))
}
