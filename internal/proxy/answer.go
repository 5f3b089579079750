package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/agentcage/agentcage/internal/audit"
)

// answer tells the client of a refusal, in the form that its program shows.
func (x *exchange) answer(status int, reason string) {
	h := x.w.Header()
	clear(h)
	if isGRPC(x.r.Header) {
		answerGRPC(x.w, status, reason)
		return
	}
	if status == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	body := audit.BlockBody(reason, x.req.Host.String(), x.id)
	contentType := "application/json"
	if isGit(x.r) {
		// Of an error git shows nothing but text/plain.
		contentType = "text/plain"
	}
	x.write(status, contentType, body)
}

// answerError tells the client that an allowed request came to nothing.
func (x *exchange) answerError(reason string) {
	clear(x.w.Header())
	if isGRPC(x.r.Header) {
		answerGRPC(x.w, http.StatusBadGateway, reason)
		return
	}
	x.write(http.StatusBadGateway, "application/json", audit.ErrorBody(reason, x.req.Host.String(), x.id))
}

func (x *exchange) write(status int, contentType string, body []byte) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.answered = true
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(body) // the client may be gone
	}
}

// The codes of gRPC (grpc.io/docs/guides/status-codes) that we answer with.
const (
	grpcResourceExhausted = "8"
	grpcPermissionDenied  = "7"
	grpcUnavailable       = "14"
)

// answerGRPC sends what the gRPC protocol calls Trailers-Only: the status is in
// the one header block, and there is no body.
func answerGRPC(w http.ResponseWriter, status int, reason string) {
	code := grpcPermissionDenied
	switch status {
	case http.StatusTooManyRequests:
		code = grpcResourceExhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		code = grpcUnavailable
	}
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", code)
	h.Set("Grpc-Message", grpcEscape("agentcage: "+reason))
	w.WriteHeader(http.StatusOK)
}

// grpcEscape percent-encodes as the gRPC protocol has it for Status-Message.
func grpcEscape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= ' ' && c < 0x7f && c != '%' {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

func isGRPC(h http.Header) bool {
	return len(h["Content-Type"]) > 0 && strings.HasPrefix(h["Content-Type"][0], "application/grpc")
}

// isGit recognises the requests of git's smart HTTP protocol.
func isGit(r *http.Request) bool {
	path := r.URL.Path
	return strings.HasSuffix(path, "/info/refs") && strings.HasPrefix(r.URL.RawQuery, "service=git-") ||
		strings.HasSuffix(path, "/git-upload-pack") || strings.HasSuffix(path, "/git-receive-pack")
}

// printable makes text of the agent's or a server's fit for a message: bounded,
// valid, and without control characters.
func printable(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
