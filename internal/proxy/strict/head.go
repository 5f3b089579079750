package strict

import (
	"bytes"
	"strings"

	"github.com/agentcage/agentcage/internal/hostname"
)

// form is the shape of a request target (RFC 9112 section 3.2).
type form uint8

const (
	originForm form = iota
	absoluteForm
	authorityForm
	asteriskForm
)

// maxLength is the number of digits of a Content-Length: what fits int64.
const maxLength = 18

// head is what is known of the request head in work.
type head struct {
	started   bool // the request line has been read
	blank     bool // an empty line came before it
	http10    bool
	form      form
	target    hostname.Name // of absolute and authority form
	port      uint16        // of the target, the scheme's default filled in
	https     bool
	hasHost   bool
	host      hostname.Name
	hostPort  uint16 // 0 when the field has none
	hasLength bool
	length    int64
	chunked   bool
}

func indexLF(b []byte) int { return bytes.IndexByte(b, '\n') }

// firstByte refuses what cannot begin a request without waiting for a line.
func firstByte(b byte) string {
	switch {
	case b == 0x16 || b == 0x80:
		return "it is TLS where HTTP is expected"
	case b == '\r' || b == '\n' || isToken(b):
		return ""
	}
	return "it does not begin with an HTTP method"
}

// requestLine checks "METHOD SP target SP HTTP/1.x" (RFC 9112 section 3) and
// returns the reason for a refusal, or "".
func (h *head) requestLine(line []byte) string {
	if string(line) == "PRI * HTTP/2.0" {
		return "it is HTTP/2 without TLS"
	}
	method, rest, ok := bytes.Cut(line, []byte(" "))
	target, version, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 {
		return "the request line has not three parts with one space between them"
	}
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10 = true
	default:
		return "the HTTP version is neither 1.0 nor 1.1"
	}
	if why := checkMethod(method); why != "" {
		return why
	}
	h.started = true
	return h.readTarget(method, target)
}

// checkMethod wants upper case: methods are case-sensitive (RFC 9110 section
// 9.1), and servers that fold them would read another method than we do.
func checkMethod(m []byte) string {
	if len(m) == 0 || len(m) > 32 {
		return "the method is empty or too long"
	}
	for _, b := range m {
		if !isToken(b) || 'a' <= b && b <= 'z' {
			return "the method is no token of upper-case letters"
		}
	}
	return ""
}

func (h *head) readTarget(method, target []byte) string {
	if why := checkTarget(target); why != "" {
		return why
	}
	connect := string(method) == "CONNECT"
	switch {
	case connect:
		h.form = authorityForm
		return h.authority(target)
	case string(target) == "*":
		h.form = asteriskForm
		if string(method) != "OPTIONS" {
			return "the target * belongs to OPTIONS only"
		}
		return ""
	case target[0] == '/':
		return checkPath(target)
	}
	return h.absolute(target)
}

// checkTarget refuses what RFC 3986 allows nowhere in a URI and what a request
// target has no use for.
func checkTarget(t []byte) string {
	if len(t) == 0 {
		return "the request target is empty"
	}
	for _, b := range t {
		if b <= ' ' || b >= 0x7f {
			return "the request target holds a byte that must be percent-encoded"
		}
		if b == '#' {
			return "the request target has a fragment"
		}
	}
	return ""
}

// checkPath refuses a backslash, which the WHATWG URL parser reads as a slash,
// and percent signs without two hexadecimal digits.
func checkPath(t []byte) string {
	path, _, _ := bytes.Cut(t, []byte("?"))
	for i, b := range path {
		if b == '\\' {
			return "the path has a backslash"
		}
		if b == '%' && (i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2])) {
			return "the path has a percent sign that encodes nothing"
		}
	}
	return ""
}

func (h *head) authority(target []byte) string {
	n, port, err := hostname.ParseAuthority(string(target))
	switch {
	case err != nil:
		return "the target of CONNECT is no host and port"
	case port == 0:
		return "the target of CONNECT has no port"
	}
	h.target, h.port = n, port
	return ""
}

func (h *head) absolute(target []byte) string {
	scheme, rest, ok := bytes.Cut(target, []byte("://"))
	switch {
	case ok && bytes.EqualFold(scheme, []byte("http")):
		h.port = 80
	case ok && bytes.EqualFold(scheme, []byte("https")):
		h.port, h.https = 443, true
	default:
		return "the request target has none of the forms of RFC 9112"
	}
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if bytes.IndexByte(rest[:end], '@') >= 0 {
		return "the request target has user information"
	}
	n, port, err := hostname.ParseAuthority(string(rest[:end]))
	if err != nil {
		return "the request target has no valid host"
	}
	if port != 0 {
		h.port = port
	}
	h.form, h.target = absoluteForm, n
	return checkPath(rest[end:])
}

// field checks a header line (RFC 9112 section 5) and takes what decides where
// the request ends and whom it is for.
func (h *head) field(line []byte) string {
	name, value, why := splitField(line)
	if why != "" {
		return why
	}
	switch {
	case is(name, "host"):
		return h.setHost(value)
	case is(name, "content-length"):
		return h.setLength(value)
	case is(name, "transfer-encoding"):
		return h.setEncoding(value)
	case is(name, "trailer"):
		return eachToken(value, "a Trailer field announces a field that no trailer may have", forbiddenTrailer)
	case is(name, "connection"), is(name, "proxy-connection"):
		// What Connection names is removed on the way: never the framing.
		return eachToken(value, "a Connection field names a field that is no hop's", isFraming)
	case is(name, "expect") && !is(value, "100-continue"):
		// net/http would answer it by itself, and no record would be made.
		return "the expectation is unknown"
	case looksFraming(name):
		return "a field name is a look-alike of a framing field"
	}
	return ""
}

func splitField(line []byte) (name, value []byte, why string) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, "a field is folded over lines"
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 {
		return nil, nil, "a field has no name"
	}
	if last := name[len(name)-1]; last == ' ' || last == '\t' {
		return nil, nil, "a field has a space before the colon"
	}
	for _, b := range name {
		if !isToken(b) {
			return nil, nil, "a field name is no token"
		}
	}
	for _, b := range value {
		if b < ' ' && b != '\t' || b == 0x7f {
			return nil, nil, "a field value holds a control byte"
		}
	}
	return name, bytes.Trim(value, " \t"), ""
}

func (h *head) setHost(v []byte) string {
	if h.hasHost {
		return "there is more than one Host"
	}
	h.hasHost = true
	for _, b := range v {
		if b >= 0x80 {
			return "the Host is not ASCII"
		}
	}
	n, port, err := hostname.ParseAuthority(string(v))
	if err != nil {
		return "the Host is no valid host"
	}
	h.host, h.hostPort = n, port
	return ""
}

func (h *head) setLength(v []byte) string {
	if h.hasLength {
		return "there is more than one Content-Length"
	}
	if len(v) == 0 || len(v) > maxLength {
		return "the Content-Length is no plain number"
	}
	for _, b := range v {
		if b < '0' || b > '9' {
			return "the Content-Length is no plain number"
		}
		h.length = 10*h.length + int64(b-'0')
	}
	h.hasLength = true
	return ""
}

func (h *head) setEncoding(v []byte) string {
	switch {
	case h.chunked:
		return "there is more than one Transfer-Encoding"
	case h.http10:
		return "HTTP/1.0 has no Transfer-Encoding"
	case !is(v, "chunked"):
		return "the Transfer-Encoding is not just chunked"
	}
	h.chunked = true
	return ""
}

// finish checks what only the whole head tells.
func (h *head) finish() string {
	switch {
	case h.chunked && h.hasLength:
		return "there are both Content-Length and Transfer-Encoding"
	case h.form == authorityForm && (h.chunked || h.length > 0):
		return "a CONNECT has a body"
	case !h.hasHost && h.form == authorityForm && h.http10:
		// Python's http.client before 3.12 and socat send this; the target
		// names the host, and there is nothing to contradict it.
		return ""
	case !h.hasHost:
		return "there is no Host"
	}
	return h.sameHost()
}

// sameHost wants one answer to "who is it for": a target with a host must be
// the Host's. RFC 9112 section 3.2.2 would have the proxy ignore Host, and
// whoever does not would be led elsewhere.
func (h *head) sameHost() string {
	port := h.hostPort
	switch h.form {
	case originForm, asteriskForm:
		return ""
	case authorityForm:
		if port == 0 { // CONNECT has no scheme, hence no default port
			port = h.port
		}
	case absoluteForm:
		if port == 0 {
			port = 80
			if h.https {
				port = 443
			}
		}
	}
	if h.host != h.target || port != h.port {
		return "the Host is not the host of the request target"
	}
	return ""
}

// chunkSize reads "1*8HEXDIG [;extension]" (RFC 9112 section 7.1.1).
func chunkSize(line []byte) (int64, string) {
	digits, ext, hasExt := bytes.Cut(line, []byte(";"))
	if len(digits) == 0 || len(digits) > maxChunkDigits {
		return 0, "a chunk size is empty or too long"
	}
	var n int64
	for _, b := range digits {
		if !isHex(b) {
			return 0, "a chunk size is no hexadecimal number"
		}
		n = n<<4 | unhex(b)
	}
	if hasExt && len(ext) > maxChunkExt {
		return 0, "a chunk extension is too long"
	}
	for _, b := range ext {
		if b < ' ' && b != '\t' || b >= 0x7f {
			return 0, "a chunk extension holds a control byte"
		}
	}
	return n, ""
}

func trailerField(line []byte) string {
	name, _, why := splitField(line)
	if why == "" && forbiddenTrailer(name) {
		why = "a trailer has a field that no trailer may have"
	}
	return why
}

// noTrailer is RFC 9110 section 6.5.1: what frames, routes, authenticates or
// modifies a request must be in its head, where the inspectors saw it.
var noTrailer = []string{
	"authorization", "proxy-authorization", "proxy-authenticate", "cookie",
	"connection", "proxy-connection", "keep-alive", "upgrade", "te", "trailer",
	"content-encoding", "content-type", "content-range", "expect", "range",
	"max-forwards", "cache-control", "if-match", "if-none-match",
	"if-modified-since", "if-unmodified-since", "if-range", "x-api-key", "origin",
	"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
	// By these some servers take another method or path.
	"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url",
}

// RefusedField reports whether a field of a head is refused whatever its value
// is. Of HTTP/2 there is no stream to check, but a server may get its fields
// as HTTP/1.
func RefusedField(name string) bool { return looksFraming([]byte(name)) }

// RefusedTrailer reports whether a field may be in no trailer of a request.
func RefusedTrailer(name string) bool { return forbiddenTrailer([]byte(name)) }

func forbiddenTrailer(name []byte) bool {
	// CGI-style servers read an underscore as a hyphen.
	name = bytes.ReplaceAll(name, []byte("_"), []byte("-"))
	for _, s := range noTrailer {
		if is(name, s) {
			return true
		}
	}
	return isFraming(name)
}

func isFraming(name []byte) bool {
	return is(name, "content-length") || is(name, "transfer-encoding") || is(name, "host")
}

// looksFraming finds Content_Length and its like, which CGI-style servers read
// as the field with hyphens.
func looksFraming(name []byte) bool {
	if bytes.IndexByte(name, '_') < 0 {
		return false
	}
	return isFraming(bytes.ReplaceAll(name, []byte("_"), []byte("-")))
}

// eachToken returns why when one element of a list field is bad.
func eachToken(list []byte, why string, bad func([]byte) bool) string {
	for len(list) > 0 {
		var one []byte
		one, list, _ = bytes.Cut(list, []byte(","))
		if bad(bytes.Trim(one, " \t")) {
			return why
		}
	}
	return ""
}

// is compares ASCII without case; s is lower case. It does not use the folding
// of Unicode, in which the Kelvin sign is a k.
func is(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

func isToken(b byte) bool { // RFC 9110 section 5.6.2
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		return true
	}
	return b != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
}

func isHex(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' || 'A' <= b && b <= 'F'
}

func unhex(b byte) int64 {
	switch {
	case b <= '9':
		return int64(b - '0')
	case b <= 'F':
		return int64(b-'A') + 10
	}
	return int64(b-'a') + 10
}
