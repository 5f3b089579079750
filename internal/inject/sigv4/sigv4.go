// Package sigv4 signs requests to AWS again: a request that was signed with
// placeholder credentials leaves with a signature made with the real ones.
//
// It implements AWS Signature Version 4 (AWS General Reference, "Create a
// signed AWS API request"): the header and the query form, and for S3 the
// signed chunks of "aws-chunked" bodies, with and without a trailer. What the
// agent signed is not verified: it says which headers are covered, which
// region and service are meant and when, and nothing else.
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	algorithm = "AWS4-HMAC-SHA256"
	stamp     = "20060102T150405Z"

	hashField  = "X-Amz-Content-Sha256"
	dateField  = "X-Amz-Date"
	tokenField = "X-Amz-Security-Token"

	unsigned        = "UNSIGNED-PAYLOAD"
	streamSigned    = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamTrailer   = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	streamUnsigned  = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	emptyPayload    = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	maxExpires      = 7 * 24 * time.Hour // of a signed URL
	expiresParam    = "X-Amz-Expires"
	algorithmParam  = "X-Amz-Algorithm"
	credentialParam = "X-Amz-Credential"
	signedParam     = "X-Amz-SignedHeaders"
	signatureParam  = "X-Amz-Signature"
)

// Credentials are those of AWS. Token is empty for long-lived ones.
type Credentials struct {
	ID     string
	Secret []byte
	Token  []byte
}

// Claim is what a signed request says of its signature.
type Claim struct {
	ID      string // access key id: a placeholder
	Region  string
	Service string
	Headers []string // lower case, sorted
	Query   bool     // the signature is in the query
	date    string   // of the scope, as in 20060102
	hash    string   // of X-Amz-Content-Sha256
}

func (c *Claim) scope() string {
	return c.date + "/" + c.Region + "/" + c.Service + "/aws4_request"
}

// Read returns the claim of a signed request, and nil when it is not signed
// with version 4. What looks like a signature and is none that can be made
// again, version 4A among them, is an error.
func Read(r *http.Request) (*Claim, error) {
	auth := r.Header["Authorization"]
	inHeader := len(auth) > 0 && strings.HasPrefix(auth[0], "AWS4")
	inQuery := strings.Contains(r.URL.RawQuery, algorithmParam+"=")
	switch {
	case inHeader && inQuery:
		return nil, errors.New("cannot sign again: the request is signed in its header and in its query")
	case inHeader && len(auth) > 1:
		return nil, errors.New("cannot sign again: there are several Authorization lines")
	case inHeader:
		return readHeader(r, auth[0])
	case inQuery:
		return readQuery(r)
	}
	return nil, nil
}

func readHeader(r *http.Request, auth string) (*Claim, error) {
	rest, ok := strings.CutPrefix(auth, algorithm+" ")
	if !ok {
		return nil, errors.New("cannot sign again: only AWS4-HMAC-SHA256 is known")
	}
	fields := make(map[string]string)
	for pair := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if _, twice := fields[k]; twice {
			return nil, errors.New("cannot sign again: the Authorization header names a part twice")
		}
		fields[k] = v
	}
	c := &Claim{hash: r.Header.Get(hashField)}
	return c, c.fill(fields["Credential"], fields["SignedHeaders"])
}

func readQuery(r *http.Request) (*Claim, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errors.New("cannot sign again: the query is malformed")
	}
	for _, name := range []string{algorithmParam, credentialParam, signedParam, dateField} {
		if len(q[name]) != 1 {
			return nil, fmt.Errorf("cannot sign again: the query has %d %s", len(q[name]), name)
		}
	}
	if q.Get(algorithmParam) != algorithm {
		return nil, errors.New("cannot sign again: only AWS4-HMAC-SHA256 is known")
	}
	c := &Claim{Query: true, hash: q.Get(hashField)}
	if c.hash == "" {
		c.hash = r.Header.Get(hashField)
	}
	return c, c.fill(q.Get(credentialParam), q.Get(signedParam))
}

func (c *Claim) fill(credential, signed string) error {
	parts := strings.Split(credential, "/")
	if len(parts) < 5 || parts[len(parts)-1] != "aws4_request" {
		return errors.New("cannot sign again: the credential's scope is malformed")
	}
	n := len(parts)
	c.ID = strings.Join(parts[:n-4], "/")
	c.date, c.Region, c.Service = parts[n-4], parts[n-3], parts[n-2]
	for _, s := range []string{c.date, c.Region, c.Service} {
		if !isWord(s) {
			return errors.New("cannot sign again: the credential's scope is malformed")
		}
	}
	c.Headers = strings.Split(signed, ";")
	slices.Sort(c.Headers)
	c.Headers = slices.Compact(c.Headers)
	if !slices.Contains(c.Headers, "host") {
		return errors.New("cannot sign again: the host is not signed")
	}
	return nil
}

// isWord is true for what regions, services and dates are made of.
func isWord(s string) bool {
	for _, r := range s {
		if r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return s != ""
}

// Signer signs one request.
type Signer struct {
	claim *Claim
	creds Credentials
	date  string
	key   []byte
	seed  string // signature of the head, where the chunks' chain begins
}

// Sign replaces the signature of r, whose claim is c, and whose header and URL
// are changed in place. The header must be the one that is sent, complete but
// for the signature. body is the whole body when it is known, nil otherwise;
// its hash is computed where one is needed, so that a body in which something
// was replaced is signed as it leaves. now is the time of the signature.
//
// For a body of signed chunks it returns a Signer whose Chunks must wrap the
// body; otherwise the Signer needs no further call.
func Sign(r *http.Request, c *Claim, creds Credentials, body []byte, now time.Time) (*Signer, error) {
	s := &Signer{claim: c, creds: creds, date: now.UTC().Format(stamp)}
	hash, err := s.payload(r, body)
	if err != nil {
		return nil, err
	}
	c.Headers = slices.DeleteFunc(slices.Clone(c.Headers), func(name string) bool {
		return name != "host" && name != "content-length" && len(r.Header[http.CanonicalHeaderKey(name)]) == 0
	})
	if c.Query {
		if err := s.prepareQuery(r); err != nil {
			return nil, err
		}
	} else {
		s.prepareHeader(r)
	}
	c.date = s.date[:8]
	s.key = s.derive()
	canonical, signed := s.canonical(r, hash)
	sum := sha256.Sum256([]byte(canonical))
	s.seed = s.sign(algorithm, hex.EncodeToString(sum[:]))
	if c.Query {
		r.URL.RawQuery += "&" + signatureParam + "=" + s.seed
	} else {
		r.Header["Authorization"] = []string{algorithm + " Credential=" + creds.ID + "/" + c.scope() +
			", SignedHeaders=" + signed + ", Signature=" + s.seed}
	}
	return s, nil
}

// payload gives the hash of the body that the signature covers.
func (s *Signer) payload(r *http.Request, body []byte) (string, error) {
	switch h := s.claim.hash; {
	case h == unsigned, h == streamSigned, h == streamTrailer, h == streamUnsigned:
		return h, nil
	case strings.HasPrefix(h, "STREAMING-"):
		return "", errors.New("cannot sign again: the way in which the body is signed is not known")
	case s.claim.Query && h == "" && isS3(s.claim.Service):
		return unsigned, nil
	case body != nil:
		sum := sha256.Sum256(body)
		text := hex.EncodeToString(sum[:])
		if _, ok := r.Header[hashField]; ok {
			r.Header[hashField] = []string{text}
		}
		return text, nil
	case r.ContentLength == 0:
		return emptyPayload, nil
	case len(h) == sha256.Size*2:
		return h, nil
	}
	return "", errors.New("cannot sign again: the body is too long to be hashed")
}

// isS3 tells the services whose paths are signed as they are sent; all others
// encode the path once more.
func isS3(service string) bool {
	return service == "s3" || strings.HasPrefix(service, "s3-") || service == "s3express"
}

func (s *Signer) prepareHeader(r *http.Request) {
	h := r.Header
	delete(h, "Date") // it is the fall-back of X-Amz-Date, and would be the agent's
	s.claim.Headers = slices.DeleteFunc(s.claim.Headers, func(n string) bool { return n == "date" || n == "authorization" })
	h[dateField] = []string{s.date}
	s.cover("x-amz-date")
	if len(s.creds.Token) > 0 {
		h[tokenField] = []string{string(s.creds.Token)}
		s.cover("x-amz-security-token")
		return
	}
	delete(h, tokenField)
	s.claim.Headers = slices.DeleteFunc(s.claim.Headers, func(n string) bool { return n == "x-amz-security-token" })
}

func (s *Signer) cover(name string) {
	if i, ok := slices.BinarySearch(s.claim.Headers, name); !ok {
		s.claim.Headers = slices.Insert(s.claim.Headers, i, name)
	}
}

// prepareQuery makes the parameters of a signed URL anew. The agent's time
// is kept, since it may have handed the URL to a program that uses it later,
// but not beyond what AWS itself takes.
func (s *Signer) prepareQuery(r *http.Request) error {
	var kept []string
	expires := ""
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		switch plain, _ := url.QueryUnescape(name); plain {
		case algorithmParam, credentialParam, signedParam, signatureParam, tokenField:
		case dateField:
		case expiresParam:
			expires = value
		default:
			kept = append(kept, pair)
		}
	}
	if expires == "" {
		expires = "300"
	}
	if d, err := time.ParseDuration(expires + "s"); err != nil || d <= 0 || d > maxExpires {
		return errors.New("cannot sign again: X-Amz-Expires is malformed")
	}
	s.claim.date = s.date[:8]
	kept = append(kept,
		algorithmParam+"="+algorithm,
		credentialParam+"="+encode(s.creds.ID+"/"+s.claim.scope(), true),
		dateField+"="+s.date,
		expiresParam+"="+expires,
		signedParam+"="+encode(strings.Join(s.claim.Headers, ";"), true))
	if len(s.creds.Token) > 0 {
		kept = append(kept, tokenField+"="+encode(string(s.creds.Token), true))
	}
	r.URL.RawQuery = strings.Join(kept, "&")
	return nil
}

func (s *Signer) derive() []byte {
	key := append([]byte("AWS4"), s.creds.Secret...)
	for _, part := range []string{s.claim.date, s.claim.Region, s.claim.Service, "aws4_request"} {
		key = mac(key, part)
	}
	return key
}

func mac(key []byte, data string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(data))
	return m.Sum(nil)
}

func (s *Signer) sign(what string, lines ...string) string {
	text := what + "\n" + s.date + "\n" + s.claim.scope() + "\n" + strings.Join(lines, "\n")
	return hex.EncodeToString(mac(s.key, text))
}

// canonical returns the canonical request and the list of signed headers.
func (s *Signer) canonical(r *http.Request, hash string) (request, signed string) {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + canonicalPath(sentPath(r.URL), isS3(s.claim.Service)) + "\n" + canonicalQuery(r.URL.RawQuery) + "\n")
	for _, name := range s.claim.Headers {
		b.WriteString(name + ":" + headerValue(r, name) + "\n")
	}
	signed = strings.Join(s.claim.Headers, ";")
	b.WriteString("\n" + signed + "\n" + hash)
	return b.String(), signed
}

func headerValue(r *http.Request, name string) string {
	switch name {
	case "host":
		if r.Host != "" {
			return r.Host
		}
		return r.URL.Host
	case "content-length":
		if r.ContentLength >= 0 {
			return fmt.Sprint(r.ContentLength)
		}
	}
	var values []string
	for _, v := range r.Header[http.CanonicalHeaderKey(name)] {
		values = append(values, strings.Join(strings.Fields(v), " "))
	}
	return strings.Join(values, ",")
}

// sentPath is the path as net/http writes it.
func sentPath(u *url.URL) string {
	if u.Opaque != "" && strings.HasPrefix(u.Opaque, "/") && !strings.HasPrefix(u.Opaque, "//") {
		return u.Opaque
	}
	return u.EscapedPath()
}

func canonicalPath(path string, s3 bool) string {
	if path == "" {
		return "/"
	}
	if s3 {
		if plain, err := url.PathUnescape(path); err == nil {
			return encode(plain, false)
		}
		return path
	}
	return encode(cleaned(path), false)
}

// cleaned removes dot segments and empty ones (RFC 3986 section 6.2.2.3) and
// keeps a slash at the end.
func cleaned(path string) string {
	var out []string
	for seg := range strings.SplitSeq(path, "/") {
		switch seg {
		case "", ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, seg)
		}
	}
	clean := "/" + strings.Join(out, "/")
	if len(out) > 0 && strings.HasSuffix(path, "/") {
		clean += "/"
	}
	return clean
}

func canonicalQuery(raw string) string {
	if raw == "" {
		return ""
	}
	var pairs [][2]string
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		pairs = append(pairs, [2]string{recode(k), recode(v)})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	parts := make([]string, len(pairs))
	for i, p := range pairs {
		parts[i] = p[0] + "=" + p[1]
	}
	return strings.Join(parts, "&")
}

// recode gives the canonical encoding of what is encoded in any way. A plus
// is a space to AWS as to every form.
func recode(s string) string {
	plain, err := url.QueryUnescape(s)
	if err != nil {
		plain = s
	}
	return encode(plain, true)
}

// encode is UriEncode of the documentation: everything but the unreserved
// characters of RFC 3986, in upper-case hex, and slashes only in queries.
func encode(s string, slash bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '~', c == '/' && !slash:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}
