package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/proxy/dial"
)

// TestTrailersBothWays is the middle of peer-holes D3: they are passed on, so
// they are declared and seen.
func TestTrailersBothWays(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", body, r.Trailer.Get("X-In"))
		w.Header().Set("X-Sum", "42")
		w.Header().Set(http.TrailerPrefix+"X-Late", "7")
	})
	for _, way := range ways {
		w := newWorld(t, only(good), h)
		req, _ := http.NewRequest("POST", way.scheme+"://"+good+"/", struct{ io.Reader }{strings.NewReader("body")})
		req.Trailer = http.Header{"X-In": {"in"}}
		res, body := do(t, way.make(w), req)
		if body != "body in" || res.Trailer.Get("X-Sum") != "42" || res.Trailer.Get("X-Late") != "7" {
			t.Errorf("%s: %q %v", way.name, body, res.Trailer)
		}
	}
}

func TestInterimAnswersArePassedOn(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		io.WriteString(w, "final")
	})
	for _, way := range ways {
		w := newWorld(t, only(good), h)
		var hints []string
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
				return nil
			},
		})
		req, _ := http.NewRequestWithContext(ctx, "GET", way.scheme+"://"+good+"/", nil)
		res, body := do(t, way.make(w), req)
		if body != "final" || res.Header.Get("Link") != "" || !slices.Equal(hints, []string{"103 </a.css>; rel=preload"}) {
			t.Errorf("%s: %q %v %v", way.name, body, hints, res.Header)
		}
	}
}

// TestExpectContinue holds that a refusing server never sees the body, and the
// client never sends it.
func TestExpectContinue(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			http.Error(w, "no", http.StatusExpectationFailed)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, r.Header.Get("Expect"))
	})
	for path, want := range map[string]string{"/yes": "100 Continue", "/no": "417 Expectation Failed"} {
		w := newWorld(t, only(good), h)
		c := w.dialTo(w.plain)
		c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", path, good)
		br := bufio.NewReader(c)
		line, _ := br.ReadString('\n')
		if strings.TrimSpace(line) != "HTTP/1.1 "+want {
			t.Errorf("%s: %q", path, line)
		}
		if path == "/no" {
			continue
		}
		br.ReadString('\n')
		io.WriteString(c, "12345")
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != "5 100-continue" && string(body) != "5100-continue" {
			t.Errorf("body %q", body)
		}
	}
}

// TestStreamsAreNotHeldBack: the server sends each part only after the client
// has seen the one before.
func TestStreamsAreNotHeldBack(t *testing.T) {
	for _, contentType := range []string{"text/event-stream", "application/json"} {
		for _, way := range ways {
			next := make(chan bool)
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", contentType)
				w.(http.Flusher).Flush()
				for range next {
					io.WriteString(w, "data: x\n\n")
					w.(http.Flusher).Flush()
				}
			})
			w := newWorld(t, only(good), h)
			req, _ := http.NewRequest("GET", way.scheme+"://"+good+"/", nil)
			res, err := way.make(w).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 9)
			for range 3 {
				next <- true
				if _, err := io.ReadFull(res.Body, buf); err != nil {
					t.Fatalf("%s: %v", way.name, err)
				}
			}
			close(next)
			res.Body.Close()
		}
	}
}

// TestGRPC speaks the protocol by hand: unary, both ways at once, and refused.
func TestGRPC(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			w.WriteHeader(400)
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.(http.Flusher).Flush()
		buf := make([]byte, 64)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
	})
	w := newWorld(t, only(good), h)
	rt := h2(w.viaProxy())
	pr, pw := io.Pipe()
	req, _ := http.NewRequest("POST", "https://"+good+"/pkg.Service/Method", pr)
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	res, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	for _, msg := range []string{"\x00\x00\x00\x00\x01a", "\x00\x00\x00\x00\x01b"} {
		io.WriteString(pw, msg)
		buf := make([]byte, len(msg))
		if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != msg {
			t.Fatalf("echo %q %v", buf, err)
		}
	}
	pw.Close()
	rest, err := io.ReadAll(res.Body)
	if err != nil || len(rest) > 0 || res.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("%q %v %v", rest, err, res.Trailer)
	}
	req, _ = http.NewRequest("POST", "https://"+evil+"/pkg.Service/Method", strings.NewReader("\x00\x00\x00\x00\x00"))
	req.Header.Set("Content-Type", "application/grpc+proto")
	res, body := do(t, rt, req)
	if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "7" || body != "" ||
		!strings.Contains(res.Header.Get("Grpc-Message"), "domain not in allowlist: "+evil) {
		t.Errorf("refused: %s %v %q", res.Status, res.Header, body)
	}
}

// TestHeadersEndToEnd is RFC 9110 section 7.6.1 and rules.md 145: what is for
// the hop ends here, nothing is invented, duplicates stay.
func TestHeadersEndToEnd(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		w.Header().Set("Alt-Svc", `h3=":443"`)
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set("Location", "http://"+evil+"/")
		w.Header()["Content-Type"] = nil
		w.WriteHeader(302)
		io.WriteString(w, "<html>")
	})
	w := newWorld(t, only(good), h)
	c := w.dialTo(w.plain)
	res, body := raw(t, c, "GET / HTTP/1.1\r\nHost: "+good+"\r\nConnection: keep-alive, X-Hop, Content-Type\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"+
		"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTE: gzip\r\nX-Two: a\r\nX-Two: b\r\nContent-Type: text/plain\r\n\r\n")
	in := w.requests()[0]
	want := http.Header{"X-Two": {"a", "b"}, "Content-Type": {"text/plain"}}
	for k, v := range in.Header {
		if !slices.Equal(v, want[k]) {
			t.Errorf("the server got %s: %q", k, v)
		}
	}
	if len(in.Header) != len(want) || in.Close {
		t.Errorf("the server got %v", in.Header)
	}
	if res.StatusCode != 302 || body != "<html>" || len(w.requests()) != 1 {
		t.Errorf("a redirect was followed, or spoiled: %s %q", res.Status, body)
	}
	for _, k := range []string{"Alt-Svc", "Keep-Alive", "Proxy-Authenticate", "Content-Type", "Via"} {
		if _, ok := res.Header[k]; ok {
			t.Errorf("the client got %s: %q", k, res.Header[k])
		}
	}
	if !slices.Equal(res.Header["Set-Cookie"], []string{"a=1", "b=2"}) {
		t.Errorf("cookies %q", res.Header["Set-Cookie"])
	}
}

func TestAnswersWithoutBody(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"x"`)
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.WriteHeader(304)
		default:
			http.ServeContent(w, r, "f.txt", time.Time{}, strings.NewReader("0123456789"))
		}
	})
	for _, way := range ways {
		w := newWorld(t, only(good), h)
		rt := way.make(w)
		base := way.scheme + "://" + good
		for path, want := range map[string]int{"/204": 204, "/304": 304} {
			res, body := get(t, rt, base+path)
			if res.StatusCode != want || body != "" || res.Header.Get("Etag") == "" {
				t.Errorf("%s %s: %s %q", way.name, path, res.Status, body)
			}
		}
		req, _ := http.NewRequest("HEAD", base+"/f", nil)
		res, body := do(t, rt, req)
		if res.ContentLength != 10 || body != "" {
			t.Errorf("%s HEAD: %d %q", way.name, res.ContentLength, body)
		}
		req, _ = http.NewRequest("GET", base+"/f", nil)
		req.Header.Set("Range", "bytes=2-4")
		res, body = do(t, rt, req)
		if res.StatusCode != 206 || body != "234" || res.Header.Get("Content-Range") != "bytes 2-4/10" {
			t.Errorf("%s range: %s %q", way.name, res.Status, body)
		}
		req, _ = http.NewRequest("HEAD", way.scheme+"://"+evil+"/", nil)
		if res, body = do(t, rt, req); res.StatusCode != 403 || body != "" {
			t.Errorf("%s refused HEAD: %s %q", way.name, res.Status, body)
		}
	}
}

// TestBodies sends bodies on both sides of every border between the ways that
// they are handled, with and without a length, and looks for every byte.
func TestBodies(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
			w.Write(b)
		}
	})
	for _, way := range ways {
		w := newWorld(t, only(good), h)
		rt := way.make(w)
		for _, n := range []int{0, 1, smallBody, smallBody + 1, 1 << 20} {
			for _, known := range []bool{true, false} {
				payload := bytes.Repeat([]byte("x"), n)
				var body io.Reader = bytes.NewReader(payload)
				if !known {
					body = struct{ io.Reader }{body}
				}
				req, _ := http.NewRequest("POST", way.scheme+"://"+good+"/", body)
				res, got := do(t, rt, req)
				if res.StatusCode != 200 || got != string(payload) {
					t.Errorf("%s %d known=%v: %s, %d bytes", way.name, n, known, res.Status, len(got))
				}
				if known && res.Header.Get("X-Length") != fmt.Sprint(n) {
					t.Errorf("%s: length %s", way.name, res.Header.Get("X-Length"))
				}
			}
		}
	}
}

// TestBodyLimit holds that a body over the limit never arrives as a whole one.
func TestBodyLimit(t *testing.T) {
	const limit = 100_000
	p := policyFunc{decide: func(r *inspectRequest) inspectVerdict {
		return inspectVerdict{Decision: inspect.Allowed, BodyLimit: limit}
	}}
	whole := make(chan int, 64)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			whole <- len(b)
		}
	})
	for _, way := range ways {
		for _, known := range []bool{true, false} {
			for _, n := range []int{limit, limit + 1, 4 * limit} {
				w := newWorld(t, p, h)
				var body io.Reader = bytes.NewReader(make([]byte, n))
				if !known {
					body = struct{ io.Reader }{body}
				}
				req, _ := http.NewRequest("POST", way.scheme+"://"+good+"/", body)
				req.Header.Set("Expect", "100-continue") // or the client may miss the answer while it sends
				rt := way.make(w)
				rt.ExpectContinueTimeout = 10 * time.Second
				res, err := rt.RoundTrip(req)
				if n <= limit {
					if err != nil || res.StatusCode != 200 || <-whole != n {
						t.Fatalf("%s %d: %v %v", way.name, n, res, err)
					}
					res.Body.Close()
					continue
				}
				r := w.audit.await(t, "the limit", reasonHas("body too large: "))
				if want := map[bool]string{true: "", false: "allowed"}[known]; r.Revises != want {
					t.Errorf("%s %d known=%v: the record revises %q", way.name, n, known, r.Revises)
				}
				if err == nil {
					b, _ := io.ReadAll(res.Body)
					res.Body.Close()
					if res.StatusCode != 403 || !strings.Contains(string(b), fmt.Sprintf("body too large: %d > %d", map[bool]int{true: n, false: limit + 1}[known], limit)) {
						t.Errorf("%s %d known=%v: %s %s", way.name, n, known, res.Status, b)
					}
				} else if known {
					t.Errorf("%s %d: %v", way.name, n, err)
				}
			}
		}
	}
	select {
	case n := <-whole:
		t.Errorf("a server took %d bytes for a whole body", n)
	default:
	}
}

// TestUpstreamFailures is rules.md 124 and 11: a clear answer, and a refusal of
// the dialler is a refusal.
func TestUpstreamFailures(t *testing.T) {
	w := newWorld(t, only(good), echo)
	w.dialer.err = errors.New("connection refused")
	res, body := get(t, w.viaProxy(), "http://"+good+"/")
	got := refusalOf(t, body)
	if res.StatusCode != 502 || got.Error != "upstream_error" || got.By != "agentcage" {
		t.Errorf("%s %s", res.Status, body)
	}
	w.audit.await(t, "the failure", func(r audit.Record) bool { return r.Kind == audit.KindUpstream && r.ID == got.ID })

	w.dialer.err = &dial.RefusedError{Host: hostname.MustParse(good), Reason: "private address"}
	for _, way := range ways {
		res, body = get(t, way.make(w), way.scheme+"://"+good+"/")
		got = refusalOf(t, body)
		if res.StatusCode != 403 || !got.Blocked || !strings.Contains(got.Reason, "private address") {
			t.Errorf("%s: %s %s", way.name, res.Status, body)
		}
		w.audit.await(t, "the refusal", func(r audit.Record) bool { return r.ID == got.ID && r.Decision == "blocked" })
	}
}

// TestServerIsVerified: a server that cannot prove its name gets nothing.
func TestServerIsVerified(t *testing.T) {
	w := newWorld(t, only(good), echo, func(o *Options) { o.RootCAs = pool(newCA(t)) })
	for _, way := range ways {
		if way.scheme != "https" {
			continue
		}
		res, body := get(t, way.make(w), "https://"+good+"/")
		if res.StatusCode != 502 || !strings.Contains(body, "certificate") {
			t.Errorf("%s: %s %s", way.name, res.Status, body)
		}
	}
	if len(w.requests()) != 0 {
		t.Error("an unverified server got a request")
	}
}

// TestCutAnswer: half an answer must not look like a whole one.
func TestCutAnswer(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", "1000")
		}
		io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	for _, way := range ways {
		w := newWorld(t, only(good), h)
		for _, path := range []string{"/known", "/unknown"} {
			req, _ := http.NewRequest("GET", way.scheme+"://"+good+path, nil)
			res, err := way.make(w).RoundTrip(req)
			if err != nil {
				continue
			}
			if b, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("%s %s: got %q as a whole body", way.name, path, b)
			}
			res.Body.Close()
		}
		w.audit.await(t, "the failure", func(r audit.Record) bool { return r.Kind == audit.KindUpstream })
	}
}

// TestAuditFails: what cannot be written down is not done.
func TestAuditFails(t *testing.T) {
	for _, way := range ways {
		w := newWorld(t, only(good), echo)
		w.audit.err = errors.New("disk full")
		res, body := get(t, way.make(w), way.scheme+"://"+good+"/")
		if res.StatusCode != 503 || !refusalOf(t, body).Blocked || w.dialer.count() != 0 {
			t.Errorf("%s: %s %s", way.name, res.Status, body)
		}
	}
}

// TestZeroVerdictAndPanicBlock is the rule that nothing set denies.
func TestZeroVerdictAndPanicBlock(t *testing.T) {
	for _, decide := range []func(*inspectRequest) inspectVerdict{
		func(*inspectRequest) inspectVerdict { return inspectVerdict{} },
		func(*inspectRequest) inspectVerdict { panic("a bug") },
	} {
		for _, way := range ways {
			w := newWorld(t, policyFunc{decide: decide}, echo)
			res, body := get(t, way.make(w), way.scheme+"://"+good+"/")
			if res.StatusCode != 403 || !refusalOf(t, body).Blocked || w.dialer.count() != 0 {
				t.Errorf("%s: %s %s", way.name, res.Status, body)
			}
		}
	}
}

func TestRateLimitAnswer(t *testing.T) {
	p := policyFunc{decide: func(*inspectRequest) inspectVerdict {
		return inspectVerdict{Reason: "rate limit exceeded", Status: 429, Findings: []inspect.Finding{{Inspector: "ratelimit", Reason: "rate limit exceeded", Severity: inspect.Warning}}}
	}}
	w := newWorld(t, p, echo)
	res, body := get(t, w.viaProxy(), "https://"+good+"/")
	if res.StatusCode != 429 || res.Header.Get("Retry-After") != "1" || refusalOf(t, body).Reason != "rate limit exceeded" {
		t.Errorf("%s %v %s", res.Status, res.Header, body)
	}
	r := w.audit.all()[0]
	if len(r.Inspectors) != 1 || r.Inspectors[0].Name != "ratelimit" || r.Inspectors[0].Action != "blocked" || r.URL != "https://"+good+"/" {
		t.Errorf("%+v", r)
	}
}

// TestUpstreamVersion: the server gets the version that the client speaks, and
// one that has only HTTP/2 gets that.
func TestUpstreamVersion(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %s", r.ProtoMajor, b)
	})
	w := newWorld(t, only(good, "new.example.com"), h)
	c, err := w.server.Certificate(hostname.MustParse("new.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ErrorLog: quiet, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP2(true)
	l := listen(t)
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*c}, GetConfigForClient: func(hi *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hi.SupportedProtos, "h2") {
			return nil, nil
		}
		// As other servers do; Go lets such clients in and hangs up later.
		return &tls.Config{Certificates: []tls.Certificate{*c}, NextProtos: []string{"none"}}, nil
	}}
	go srv.ServeTLS(l, "", "")
	t.Cleanup(func() { srv.Close() })
	w.dialer.addrs["new.example.com:443"] = l.Addr().String()
	for _, way := range ways {
		if way.scheme != "https" {
			continue
		}
		for range 2 {
			for host, want := range map[string]int{good: way.proto, "new.example.com": 2} {
				for _, body := range []io.Reader{nil, strings.NewReader("small"), struct{ io.Reader }{strings.NewReader("stream")}} {
					req, _ := http.NewRequest("POST", "https://"+host+"/", body)
					if res, got := do(t, way.make(w), req); !strings.HasPrefix(got, fmt.Sprint(want, " ")) || body != nil && len(got) < 3 {
						t.Errorf("%s to %s: %s %q", way.name, host, res.Status, got)
					}
				}
			}
		}
	}
}

// TestUpstreamHTTP1 holds that a client of either version reaches a server that
// has no HTTP/2.
func TestUpstreamHTTP1(t *testing.T) {
	w := newWorld(t, only("old.example.com"), echo)
	l := listen(t)
	c, err := w.server.Certificate(hostname.MustParse("old.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: echo, ErrorLog: quiet, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	go srv.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*c}}))
	t.Cleanup(func() { srv.Close() })
	w.dialer.addrs["old.example.com:443"] = l.Addr().String()
	for _, way := range ways {
		if way.scheme == "https" {
			if res, body := get(t, way.make(w), "https://old.example.com/x"); res.StatusCode != 200 || body != "GET old.example.com /x" {
				t.Errorf("%s: %s %s", way.name, res.Status, body)
			}
		}
	}
}

var _ net.Conn = (*clientConn)(nil)
