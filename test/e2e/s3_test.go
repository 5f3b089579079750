//go:build linux

package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// s3Server keeps objects for who signs with its credentials. It checks the
// signature of the head by the rules of version 4, written down here once
// more, so that the gateway's own code is not judged by itself; the bytes of
// a body against the hash that was signed; and every chunk that is signed.
type s3Server struct {
	id, key string

	mu      sync.Mutex
	objects map[string][]byte
	refused []string
	chunked int // bodies whose chunks were signed
}

func (s *s3Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<24))
	if err == nil {
		body, err = s.check(r, body)
	}
	if err != nil {
		s.refused = append(s.refused, err.Error())
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>")
		return
	}
	switch r.Method {
	case http.MethodPut:
		s.objects[r.URL.Path] = body
	case http.MethodGet:
		_, _ = w.Write(s.objects[r.URL.Path]) // the client may be gone
	}
}

func hmacOf(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// check returns the body without its framing.
func (s *s3Server) check(r *http.Request, body []byte) ([]byte, error) {
	const head = "AWS4-HMAC-SHA256 "
	auth := r.Header.Get("Authorization")
	fields := map[string]string{}
	for _, f := range strings.Split(strings.TrimPrefix(auth, head), ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(f), "=")
		fields[k] = v
	}
	id, scope, _ := strings.Cut(fields["Credential"], "/")
	if !strings.HasPrefix(auth, head) || id != s.id {
		return nil, fmt.Errorf("credential %q in %q", id, auth)
	}
	var canonical strings.Builder
	query := strings.Split(r.URL.RawQuery, "&")
	for i, q := range query {
		if q != "" && !strings.Contains(q, "=") {
			query[i] += "="
		}
	}
	slices.Sort(query)
	fmt.Fprintf(&canonical, "%s\n%s\n%s\n", r.Method, strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(r.URL.Path), "%2F", "/"), "+", "%20"), strings.Join(query, "&"))
	for _, name := range strings.Split(fields["SignedHeaders"], ";") {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(r.ContentLength)
		case "transfer-encoding":
			value = "chunked"
		}
		fmt.Fprintf(&canonical, "%s:%s\n", name, strings.Join(strings.Fields(value), " "))
	}
	hash := r.Header.Get("X-Amz-Content-Sha256")
	fmt.Fprintf(&canonical, "\n%s\n%s", fields["SignedHeaders"], hash)
	key := []byte("AWS4" + s.key)
	for _, part := range strings.Split(scope, "/") {
		key = hmacOf(key, part)
	}
	date := r.Header.Get("X-Amz-Date")
	want := hex.EncodeToString(hmacOf(key, "AWS4-HMAC-SHA256\n"+date+"\n"+scope+"\n"+sha256Hex([]byte(canonical.String()))))
	if want != fields["Signature"] {
		return nil, fmt.Errorf("signature %s is not %s of\n%s", fields["Signature"], want, canonical.String())
	}
	switch {
	case strings.HasPrefix(hash, "STREAMING-"):
		return s.unframe(body, hash, want, func(text string) string {
			return hex.EncodeToString(hmacOf(key, strings.ReplaceAll(strings.ReplaceAll(text, "DATE", date), "SCOPE", scope)))
		})
	case hash != "UNSIGNED-PAYLOAD" && hash != sha256Hex(body):
		return nil, fmt.Errorf("the body is not the one that was signed")
	}
	return body, nil
}

func (s *s3Server) unframe(body []byte, hash, previous string, sign func(string) string) (out []byte, err error) {
	signed := strings.HasPrefix(hash, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
	for {
		line, rest, ok := bytes.Cut(body, []byte("\r\n"))
		size, signature, _ := strings.Cut(string(line), ";chunk-signature=")
		var n int
		if _, err := fmt.Sscanf(size, "%x", &n); err != nil || !ok || n > len(rest) {
			return nil, fmt.Errorf("chunk %q", line)
		}
		if signed {
			want := sign("AWS4-HMAC-SHA256-PAYLOAD\nDATE\nSCOPE\n" + previous + "\n" + sha256Hex(nil) + "\n" + sha256Hex(rest[:n]))
			if signature != want {
				return nil, fmt.Errorf("chunk signature %s is not %s", signature, want)
			}
			previous = want
		}
		if n == 0 {
			if signed {
				s.chunked++
			}
			return out, nil
		}
		out = append(out, rest[:n]...)
		body = bytes.TrimPrefix(rest[n:], []byte("\r\n"))
	}
}
