package proxy

import (
	"net/http"
	"net/textproto"
	"strings"
)

// hopByHop are the fields that end at each hop beside those that Connection
// names (RFC 9110 section 7.6.1). Proxy-Authenticate and -Authorization are for
// us, and we ask for none.
var hopByHop = []string{
	"Connection",
	"Proxy-Connection",
	"Keep-Alive",
	"Te",
	"Transfer-Encoding",
	"Upgrade",
	"Http2-Settings",
	"Proxy-Authorization",
	"Proxy-Authenticate",
	"Proxy-Authentication-Info",
}

// endToEnd takes away what is for this hop only. "TE: trailers" stays, because
// gRPC servers insist on it and we do pass trailers on.
func endToEnd(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = textproto.TrimString(name); name != "" {
				dropNamed(h, name)
			}
		}
	}
	trailers := hasToken(h["Te"], "trailers")
	for _, name := range hopByHop {
		delete(h, name)
	}
	if trailers {
		h["Te"] = []string{"trailers"}
	}
}

// dropNamed removes a field that Connection names, save those that Connection
// must not name, as they are about the whole message.
func dropNamed(h http.Header, name string) {
	switch name = http.CanonicalHeaderKey(name); name {
	case "Content-Length", "Content-Type", "Content-Encoding", "Trailer", "Te":
	default:
		delete(h, name)
	}
}

// hasToken looks for a token in a list of comma-separated values, whatever the
// case.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(textproto.TrimString(part), token) {
				return true
			}
		}
	}
	return false
}
