package gateway

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/inject/injecttest"
	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/known"
	"github.com/agentcage/agentcage/internal/inspect/secrets"
	"github.com/agentcage/agentcage/internal/proxy/ws"
	"github.com/agentcage/agentcage/internal/secret"
)

// stage is a gateway between a server that plays any answer and a client that
// keeps every byte that it gets. Connections are used again, so that a fuzzer
// gets through many answers.
type stage struct {
	gw    *Gateway
	cfg   *config.Config
	sink  *audit.Writer
	audit *os.File // what the audit log is
	log   lockedBuffer

	contents []inspect.ContentInspector // of the config

	play  atomic.Pointer[part] // what the servers do next
	proxy string
	plain int // ports of the servers
	http2 int

	conn   net.Conn // to the gateway, for HTTP/1.1
	br     *bufio.Reader
	got    bytes.Buffer // every byte that came over conn
	client *http.Transport
}

const (
	fuzzHolder  = "agentcage:secret:FUZZ:00112233445566778899aabbccddeeff"
	otherHolder = "agentcage:secret:OTHER:ffeeddccbbaa99887766554433221100"
)

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) take() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := bytes.Clone(l.b.Bytes())
	l.b.Reset()
	return out
}

// patience is when an exchange hangs.
const patience = 5 * time.Second

// part is what a server answers and how the client asks.
type part struct {
	http2   bool
	request string              // the lines behind the request line, and the body
	method  string              // GET when empty
	target  string              // the path, with a query
	wire    func(string) []byte // the answer by HTTP/1.1, for a key of WebSocket
	last    bool                // the connection ends with it
	cuts    []int               // where the answer is cut, in bytes
	serve   http.HandlerFunc    // the answer by HTTP/2
}

func newStage(tb testing.TB) *stage {
	s := &stage{}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s.plain = plain.Addr().(*net.TCPAddr).Port
	var serving sync.WaitGroup
	serving.Go(func() { s.serve(plain, &serving) })
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		s.play.Load().serve(w, r)
	}))
	secure.EnableHTTP2 = true
	secure.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
	secure.StartTLS()
	s.http2 = secure.Listener.Addr().(*net.TCPAddr).Port
	dir := tb.TempDir()
	s.configure(tb, dir, secure.Certificate())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s.proxy = l.Addr().String()
	s.gw.ServeProxy(l)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.gw.CACertificate())
	s.client = &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: s.proxy}), TLSClientConfig: &tls.Config{RootCAs: roots},
		DisableCompression: true, Protocols: new(http.Protocols),
	}
	s.client.Protocols.SetHTTP2(true)
	tb.Cleanup(func() {
		s.drop()
		s.client.CloseIdleConnections()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.gw.Shutdown(ctx) // cut at once
		plain.Close()
		serving.Wait()
		secure.CloseClientConnections()
		secure.Close()
		s.sink.Close()
		s.audit.Close()
	})
	return s
}

func (s *stage) configure(tb testing.TB, dir string, cert *x509.Certificate) {
	tb.Helper()
	must := func(err error) {
		if err != nil {
			tb.Helper()
			tb.Fatal(err)
		}
	}
	ca := filepath.Join(dir, "ca.pem")
	must(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600))
	var err error
	s.cfg, err = config.Parse("cage.yaml", fmt.Appendf(nil, `name: fuzz
rate_limit: {requests_per_second: 1000000, burst: 1000000}
budget: {enabled: false}
logging: {allowed_requests: true}
domains:
  allow:
    - {host: example.com, ports: [%d, %d]}
secret_injection:
  - {env: FUZZ, placeholder: "%s", inject_to: [example.com]}
  - {env: OTHER, placeholder: "%s", inject_to: [example.com]}
upstream:
  ca_files: [%q]
  allow_private: [example.com]
  hosts: {example.com: 127.0.0.1}
`, s.plain, s.http2, fuzzHolder, otherHolder, ca))
	must(err)
	path := filepath.Join(dir, "audit.jsonl")
	s.sink, err = audit.Open(path, audit.Options{KeepAllowed: true, MaxBytes: 1 << 40, Redact: func(t string) string { return s.gw.Redact(t) }})
	must(err)
	s.audit, err = os.OpenFile(path, os.O_RDWR, 0)
	must(err)
	forms, err := secrets.New(s.cfg.Secrets)
	must(err)
	s.contents = contents(s.cfg, new(state), forms, nil)
	must(err)
	value, err := secret.New([]byte("a value before the first one"))
	must(err)
	s.gw, err = New(Options{
		Config: s.cfg, Audit: s.sink, Name: "fuzz", HostNetwork: true, Log: slog.New(slog.NewTextHandler(&s.log, nil)),
		Secret: func(config.InjectionRule) (secret.Value, error) { return value, nil },
	})
	must(err)
}

// use makes the values of the cage others, and forgets those before: what was
// found must not depend on what was tried before.
func (s *stage) use(value, other []byte) error {
	st := new(state)
	secrets, err := newSecrets(s.cfg, Options{Secret: func(r config.InjectionRule) (secret.Value, error) {
		if r.Env == "OTHER" {
			return secret.New(other)
		}
		return secret.New(value)
	}}, &st.values, nil)
	if err != nil {
		return err
	}
	p := *s.gw.policy
	p.secrets = secrets.get()
	// The others are kept: to make their patterns takes longer than all the rest.
	contents := slices.DeleteFunc(slices.Clone(s.contents), func(in inspect.ContentInspector) bool { return in.Name() == "known-values" })
	p.chain = p.chain.WithContent(append(contents, known.New(&st.values, nil), p.secrets.Policy())...)
	s.gw.mu.Lock()
	defer s.gw.mu.Unlock()
	s.gw.policy = &p
	s.gw.keep(secrets)
	s.gw.engine.Update(&p)
	s.gw.audit.values.Store(&st.values)
	return nil
}

// serve plays answers by HTTP/1.1, to the byte.
func (s *stage) serve(l net.Listener, serving *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		serving.Go(func() {
			defer c.Close()
			br := bufio.NewReader(c)
			for {
				r, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				p := s.play.Load()
				for _, piece := range cutAt(p.wire(r.Header.Get("Sec-Websocket-Key")), p.cuts) {
					if _, err := c.Write(piece); err != nil {
						return
					}
				}
				if p.last {
					return
				}
			}
		})
	}
}

func cutAt(b []byte, cuts []int) (out [][]byte) {
	for at := 0; len(b) > 0; {
		n := len(b)
		if len(cuts) > 0 {
			n, cuts = min(max(cuts[0]-at, 1), n), cuts[1:]
		}
		out, b, at = append(out, b[:n]), b[n:], at+n
	}
	return out
}

func (s *stage) drop() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// ask has one part played, and returns all that the client got: the bytes of
// the connection, and what a client makes of them.
func (s *stage) ask(p *part) (seen [][]byte, err error) {
	s.play.Store(p)
	if p.http2 {
		return s.ask2(p)
	}
	if s.conn == nil {
		if s.conn, err = net.Dial("tcp", s.proxy); err != nil {
			return nil, err
		}
		s.br = bufio.NewReader(io.TeeReader(s.conn, &s.got))
	}
	_ = s.conn.SetDeadline(time.Now().Add(patience))
	s.got.Reset()
	defer func() {
		seen = append(seen, bytes.Clone(s.got.Bytes()))
		if p.last || err != nil {
			s.drop()
		}
	}()
	method := cmp.Or(p.method, "GET")
	fmt.Fprintf(s.conn, "%s http://example.com:%d%s HTTP/1.1\r\nHost: example.com:%[2]d\r\n%[4]s", method, s.plain, cmp.Or(p.target, "/"), p.request)
	for {
		res, err := http.ReadResponse(s.br, &http.Request{Method: method})
		if err != nil {
			return seen, err
		}
		seen = append(seen, headerBytes(res.Header))
		switch {
		case res.StatusCode == http.StatusSwitchingProtocols:
			messages, err := readMessages(s.br)
			return append(seen, messages), cmp.Or(err, io.EOF) // the connection is done
		case res.StatusCode < 200:
			continue
		}
		body, err := io.ReadAll(res.Body)
		seen = append(seen, headerBytes(res.Trailer), body, undo(res.Header, body))
		if res.Close {
			err = cmp.Or(err, io.EOF)
		}
		return seen, err
	}
}

func (s *stage) ask2(p *part) (seen [][]byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var early []byte
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		early = append(early, headerBytes(http.Header(h))...)
		return nil
	}})
	r, err := http.NewRequestWithContext(ctx, cmp.Or(p.method, "POST"), fmt.Sprintf("https://example.com:%d%s", s.http2, cmp.Or(p.target, "/")), strings.NewReader("x"))
	if err != nil {
		return nil, nil
	}
	res, err := s.client.RoundTrip(r)
	if err != nil {
		return [][]byte{early, []byte(err.Error())}, nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	return [][]byte{early, headerBytes(res.Header), body, undo(res.Header, body), headerBytes(res.Trailer)}, nil
}

func headerBytes(h http.Header) []byte {
	var b bytes.Buffer
	for name, values := range h {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	return b.Bytes()
}

// undo decodes what a client would, as far as it goes.
func undo(h http.Header, body []byte) []byte {
	for _, name := range slices.Backward(strings.Split(h.Get("Content-Encoding"), ",")) {
		body = injecttest.Decompress(strings.TrimSpace(name), body)
	}
	return body
}

// readMessages returns the payloads of frames until the server closes or the
// connection ends.
func readMessages(r io.Reader) (all []byte, err error) {
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:2]); err != nil {
			return all, ended(err)
		}
		n := int(head[1])
		if n == 126 {
			if _, err := io.ReadFull(r, head[2:]); err != nil {
				return all, ended(err)
			}
			n = int(binary.BigEndian.Uint16(head[2:]))
		} else if n > 126 {
			return all, errors.New("a long message")
		}
		payload := make([]byte, n)
		got, err := io.ReadFull(r, payload)
		if all = append(all, payload[:got]...); err != nil || head[0]&0xf == 8 {
			return all, ended(err)
		}
	}
}

// ended makes no error of a connection's end, but of a client that waits.
func ended(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// sinks returns what was written anywhere on this side, and empties it.
func (s *stage) sinks() (records, log []byte, err error) {
	info, err := s.audit.Stat()
	if err != nil {
		return nil, nil, err
	}
	records = make([]byte, info.Size())
	if _, err := s.audit.ReadAt(records, 0); err != nil && err != io.EOF {
		return nil, nil, err
	}
	return records, s.log.take(), s.audit.Truncate(0)
}

// transport is one way for a text to reach the client, or to leave it.
type transport struct {
	name string
	make func(x *hidden) *part
}

// hidden is a text with a value in it, and what decides how it travels.
type hidden struct {
	text   []byte
	coding string // from injecttest.CodingNames
	wrong  bool   // another coding is declared
	short  bool   // the body ends before its time
	rng    *rand.Rand
}

func (x *hidden) body() (body []byte, header string) {
	body, name := injecttest.Compress(x.coding, x.text), strings.ReplaceAll(x.coding, " raw", "")
	if x.wrong {
		name = []string{"gzip", "br", "zstd", "deflate", "identity", "compress", "GZIP", "aws-chunked", ""}[x.rng.IntN(9)]
	}
	if name != "" {
		header = "Content-Encoding: " + name + "\r\n"
	}
	return body, header
}

func (x *hidden) chunks(body []byte) []byte {
	var b bytes.Buffer
	for len(body) > 0 {
		n := 1 + x.rng.IntN(min(len(body), 40))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.Bytes()
}

// cut ends what is sent early, when it is to be.
func (x *hidden) cut(p *part, wire []byte) *part {
	if x.short && len(wire) > 0 {
		wire, p.last = wire[:len(wire)-x.rng.IntN(min(len(wire), 20))], true
	}
	p.wire = func(string) []byte { return wire }
	if p.request == "" {
		p.request = "\r\n"
	}
	for at := 0; len(p.cuts) < 12; {
		at += 1 + x.rng.IntN(1+len(wire)/4)
		p.cuts = append(p.cuts, at)
	}
	return p
}

func (x *hidden) answer(status, head, body string) *part {
	return x.cut(&part{}, fmt.Appendf(nil, "HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s", status, head, len(body), body))
}

func (x *hidden) field() string { return "X-Echo: " + string(x.text) + "\r\n" }

func (x *hidden) status() string {
	return []string{"200 OK", "201 Created", "400 Bad Request", "401 Unauthorized", "403 Forbidden", "429 Too Many", "500 Bad", "502 Bad"}[x.rng.IntN(8)]
}

func (x *hidden) frames(op byte, texts ...[]byte) (out []byte) {
	for i, text := range texts {
		b0 := byte(0)
		if i == 0 {
			b0 = op
		}
		if i == len(texts)-1 {
			b0 |= 0x80
		}
		if len(text) > 125 {
			out = append(out, b0, 126, byte(len(text)>>8), byte(len(text)))
		} else {
			out = append(out, b0, byte(len(text)))
		}
		out = append(out, text...)
	}
	return out
}

func (x *hidden) pieces() (out [][]byte) {
	for rest := x.text; len(rest) > 0 && len(out) < 8; {
		n := 1 + x.rng.IntN(len(rest))
		if len(out) == 7 {
			n = len(rest)
		}
		out, rest = append(out, rest[:n]), rest[n:]
	}
	return out
}

const upgradeRequest = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

func (x *hidden) upgrade(fields string, frames []byte) *part {
	p := x.cut(&part{}, frames)
	p.request, p.last = upgradeRequest, true
	p.wire = func(key string) []byte {
		head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + ws.Accept(key) + "\r\n" + fields + "\r\n"
		return append(append([]byte(head), frames...), 0x88, 2, 3, 232)
	}
	return p
}

func (x *hidden) handler(f func(w http.ResponseWriter, body []byte)) *part {
	body, encoding := x.body()
	cuts := x.cut(&part{}, body).cuts
	return &part{http2: true, serve: func(w http.ResponseWriter, _ *http.Request) {
		if _, value, ok := strings.Cut(strings.TrimSpace(encoding), ": "); ok {
			w.Header().Set("Content-Encoding", value)
		}
		f(w, nil)
		for _, piece := range cutAt(body, cuts) {
			_, _ = w.Write(piece)
			w.(http.Flusher).Flush()
		}
	}}
}

// setTrailer leaves out what net/http leaves out too, and then never ends the
// stream.
func setTrailer(w http.ResponseWriter, name string, text []byte) {
	if httpguts.ValidHeaderFieldValue(string(text)) {
		w.Header().Set(http.TrailerPrefix+name, string(text))
	}
}

func grpcMessage(text []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...)
}

var transports = []transport{
	{"length", func(x *hidden) *part {
		body, encoding := x.body()
		return x.answer("200 OK", encoding, string(body))
	}},
	{"chunked", func(x *hidden) *part {
		body, encoding := x.body()
		return x.cut(&part{}, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\n%sTransfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n", encoding, x.chunks(body)))
	}},
	{"until the end", func(x *hidden) *part {
		body, encoding := x.body()
		return x.cut(&part{last: true}, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nConnection: close\r\n%s\r\n%s", encoding, body))
	}},
	{"events", func(x *hidden) *part {
		body, encoding := x.body()
		if encoding == "" {
			body = fmt.Appendf(nil, "event: x\ndata: %s\n\ndata: more\n\n", body)
		}
		return x.cut(&part{}, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%sTransfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n", encoding, x.chunks(body)))
	}},
	{"error page", func(x *hidden) *part {
		body, encoding := x.body()
		return x.answer(x.status(), encoding, string(body))
	}},
	{"header", func(x *hidden) *part { return x.answer(x.status(), x.field(), "") }},
	{"name of a header", func(x *hidden) *part { return x.answer("200 OK", string(x.text)+": 1\r\n", "x") }},
	{"redirect", func(x *hidden) *part {
		return x.answer("302 Found", "Location: https://example.com/?k="+string(x.text)+"\r\nSet-Cookie: k="+string(x.text)+"; Path=/\r\n", "")
	}},
	{"reason", func(x *hidden) *part { return x.answer("404 "+string(x.text), "", "x") }},
	{"status", func(x *hidden) *part { return x.answer(string(x.text), "", "x") }},
	{"chunk extension", func(x *hidden) *part {
		return x.cut(&part{}, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;%s\r\nx\r\n0\r\n\r\n", x.text))
	}},
	{"framing", func(x *hidden) *part {
		return x.cut(&part{last: true}, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\n%s: %s\r\n\r\nx", []string{"Content-Length", "Transfer-Encoding", "Content-Encoding"}[x.rng.IntN(3)], x.text))
	}},
	{"interim", func(x *hidden) *part {
		return x.cut(&part{}, fmt.Appendf(nil, "HTTP/1.1 103 Early Hints\r\nLink: <%s>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", x.text))
	}},
	{"trailer", func(x *hidden) *part {
		announced := ""
		if x.rng.IntN(2) == 0 {
			announced = "Trailer: X-Echo\r\n"
		}
		return x.cut(&part{}, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\n%sTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n%s\r\n", announced, x.field()))
	}},
	{"name of a trailer", func(x *hidden) *part {
		return x.cut(&part{}, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nTrailer: %s\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n%[1]s: 1\r\n\r\n", x.text))
	}},
	{"no body", func(x *hidden) *part {
		if x.rng.IntN(2) == 0 {
			p := x.answer("200 OK", x.field(), "")
			p.method = "HEAD"
			return p
		}
		return x.cut(&part{}, fmt.Appendf(nil, "HTTP/1.1 304 Not Modified\r\nETag: \"%s\"\r\n\r\n", x.text))
	}},
	{"header of a WebSocket", func(x *hidden) *part { return x.upgrade(x.field(), nil) }},
	{"text of a WebSocket", func(x *hidden) *part { return x.upgrade("", x.frames(1, x.pieces()...)) }},
	{"binary of a WebSocket", func(x *hidden) *part { return x.upgrade("", x.frames(2, x.pieces()...)) }},
	{"close of a WebSocket", func(x *hidden) *part {
		text := x.text[:min(len(x.text), 123)]
		return x.upgrade("", append(x.frames(9, text), x.frames(8, append([]byte{3, 232}, text...))...))
	}},
	{"h2", func(x *hidden) *part { return x.handler(func(http.ResponseWriter, []byte) {}) }},
	{"h2 header", func(x *hidden) *part {
		return x.handler(func(w http.ResponseWriter, _ []byte) {
			w.Header().Set("Link", string(x.text))
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("X-Echo", string(x.text))
		})
	}},
	{"h2 trailer", func(x *hidden) *part {
		return x.handler(func(w http.ResponseWriter, _ []byte) { setTrailer(w, "X-Echo", x.text) })
	}},
	{"grpc", func(x *hidden) *part {
		message := append(grpcMessage([]byte("one")), grpcMessage(x.text)...)
		cuts := x.cut(&part{}, message).cuts
		return &part{http2: true, serve: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			for _, piece := range cutAt(message, cuts) {
				_, _ = w.Write(piece)
				w.(http.Flusher).Flush()
			}
			setTrailer(w, "Grpc-Message", x.text)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "7")
		}}
	}},
	{"sent in a body", func(x *hidden) *part {
		p := x.answer("200 OK", "", string(x.text))
		p.method, p.request = "POST", fmt.Sprintf("Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(x.text), x.text)
		return p
	}},
	{"sent in a header", func(x *hidden) *part {
		p := x.answer("200 OK", "", string(x.text))
		p.request, p.last = "X-Any: "+strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(string(x.text))+"\r\n\r\n", true
		return p
	}},
	{"sent in a query", func(x *hidden) *part {
		p := x.answer("200 OK", "", string(x.text))
		p.target, p.last = "/"+url.PathEscape(string(x.text))+"?q="+url.QueryEscape(string(x.text)), true
		return p
	}},
	{"sent in a placeholder's place", func(x *hidden) *part {
		p := x.answer("200 OK", x.field(), string(x.text))
		p.request = "Authorization: Bearer " + fuzzHolder + "\r\n\r\n"
		return p
	}},
}

// clean fails when a text holds a value.
func clean(t *testing.T, what string, text []byte, values ...[]byte) {
	t.Helper()
	for _, v := range values {
		if injecttest.Holds(text, v) {
			t.Fatalf("%s holds %q: %q", what, v, text)
		}
	}
}

// FuzzSecrets hides a value in an answer, in any form and by any way, and holds
// that neither the client nor anything that is kept on this side ever has it.
func FuzzSecrets(f *testing.F) {
	stdlog.SetOutput(io.Discard) // the transport's own, which the command line discards as well
	s := newStage(f)
	kinds := injecttest.Encodings()
	for i := range transports {
		for j := range 3 {
			n := i*3 + j
			f.Add([]byte("sk-live/4eC39Hq+LyjWDarjtT1"), uint8(n*7), uint8(i), uint8(n), uint8(n%3), []byte("before \""), []byte("\" after"), uint64(n))
		}
	}
	for i, value := range []string{`p@ss/w+rd=&<"\%41>'`, "correct horse battery", "pässwörd-日本-😀", "\x00\xff\x80\x01binary\r\n\x00", "abababababab", `\\u0041%25&amp;\n`} {
		f.Add([]byte(value), uint8(i), uint8(i*5), uint8(0), uint8(0), []byte("<"), []byte(">"), uint64(i))
	}
	f.Fuzz(func(t *testing.T, value []byte, enc, way, coding, how uint8, before, after []byte, seed uint64) {
		if len(value) < secret.MinLength || len(value) > 64 || len(before) > 64 || len(after) > 64 {
			return
		}
		text := injecttest.Mixed(string(value), seed)
		if int(enc) < len(kinds) {
			text = kinds[enc].Of(string(value))
		}
		other := value
		if len(value) > 12 && seed%3 == 0 {
			other = value[1 : len(value)-1-int(seed%5)/2] // one inside of the other
		}
		x := &hidden{
			text: slices.Concat(before, []byte(text), after), coding: injecttest.CodingNames[int(coding)%len(injecttest.CodingNames)],
			wrong: how%8 == 1, short: how%8 == 2, rng: rand.New(rand.NewPCG(seed, uint64(how))),
		}
		way = uint8(int(way) % len(transports))
		if s.knows(value, other, before, after) {
			return
		}
		if err := s.use(value, other); err != nil {
			t.Fatal(err)
		}
		seen, err := s.ask(transports[way].make(x))
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s hangs", transports[way].name)
		}
		for _, got := range seen {
			clean(t, "by "+transports[way].name+" the client", got, value, other)
		}
		records, log, err := s.sinks()
		if err != nil {
			t.Fatal(err)
		}
		clean(t, "the audit log", records, value, other)
		clean(t, "the log", log, value, other)
	})
}

// knows reports whether a value stands in what is no secret: what the gateway
// writes anyway, or a placeholder with what is round it.
func (s *stage) knows(value, other, before, after []byte) bool {
	around := fmt.Appendf(nil, "%[1]s%[2]s%[3]s %[1]s%[4]s%[3]s", before, fuzzHolder, after, otherHolder)
	for _, p := range [][]byte{around, before, after, []byte(ordinary)} {
		if injecttest.Holds(p, value) || injecttest.Holds(p, other) {
			return true
		}
	}
	return false
}

// ordinary is what answers and records are made of.
const ordinary = `HTTP/1.1 200 OK Content-Length: Content-Type: application/json Transfer-Encoding: chunked "direction": "outbound", "method": "GET", "host": "example.com", ` +
	`"decision": "blocked", "reason": "injection", "critical", "known-values", "secrets_redacted"`

// TestStage is the control of FuzzSecrets: what is no secret reaches the client
// by every way, and what is one is told in the audit log.
func TestStage(t *testing.T) {
	stdlog.SetOutput(io.Discard)
	defer stdlog.SetOutput(os.Stderr)
	s := newStage(t)
	never := map[string]string{ // where a text does not get through, and why
		"reason": "the reason phrase is ours", "status": "it is no status", "chunk extension": "it ends at each hop",
		"framing": "it is malformed", "close of a WebSocket": "control frames end here",
	}
	const value = "sk-live-4eC39HqLyjWDarjtT1"
	for _, secretly := range []bool{false, true} {
		for _, way := range transports {
			text := value
			if !secretly {
				text = "nothing-at-all-8bNq2Zw7Ux"
			}
			if err := s.use([]byte(value), []byte("some-other-value")); err != nil {
				t.Fatal(err)
			}
			x := &hidden{text: []byte(text), rng: rand.New(rand.NewPCG(1, 2))}
			seen, err := s.ask(way.make(x))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s hangs: %q", way.name, seen)
			}
			all := string(bytes.Join(seen, nil))
			records, _, _ := s.sinks()
			if _, no := never[way.name]; no {
				continue
			}
			if through := strings.Contains(strings.ToLower(all), strings.ToLower(text)); through == secretly {
				t.Errorf("%s: secret %v, through %v (%v): %q", way.name, secretly, through, err, all)
			}
			if said := bytes.Contains(records, []byte("FUZZ")); said != secretly && way.name != "sent in a placeholder's place" {
				t.Errorf("%s: secret %v, in the log %v: %s", way.name, secretly, said, records)
			}
		}
	}
}
