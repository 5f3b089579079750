package strict

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memConn is a net.Conn that reads from r and keeps what is written.
type memConn struct {
	net.Conn
	r   io.Reader
	out bytes.Buffer
}

func (m *memConn) Read(p []byte) (int, error)      { return m.r.Read(p) }
func (m *memConn) Write(p []byte) (int, error)     { return m.out.Write(p) }
func (m *memConn) Close() error                    { return nil }
func (m *memConn) SetReadDeadline(time.Time) error { return nil }

func pass(in string, oneByte bool, opt Options) (string, error) {
	var r io.Reader = strings.NewReader(in)
	if oneByte {
		r = iotest.OneByteReader(r)
	}
	out, err := io.ReadAll(New(&memConn{r: r}, opt))
	return string(out), err
}

const (
	host = "Host: a.example\r\n"
	get  = "GET / HTTP/1.1\r\n" + host
	post = "POST / HTTP/1.1\r\n" + host
)

// allowed are the positive controls: each is passed byte for byte.
var allowed = map[string]string{
	"plain":                 get + "\r\n",
	"keep-alive":            get + "\r\n" + get + "\r\n",
	"http/1.0":              "GET / HTTP/1.0\r\n" + host + "\r\n",
	"length":                post + "Content-Length: 5\r\n\r\nhello",
	"length zero":           post + "Content-Length: 0\r\n\r\n" + get + "\r\n",
	"length then next":      post + "Content-Length: 5\r\n\r\nhello" + get + "\r\n",
	"body like a request":   post + "Content-Length: 18\r\n\r\nGET /x HTTP/1.1\r\n\n",
	"chunked":               post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	"chunked, other case":   post + "transfer-encoding:\tChunKed \r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	"chunk extension":       post + "Transfer-Encoding: chunked\r\n\r\n5;a=\"b c\"\r\nhello\r\n0;z\r\n\r\n",
	"chunk size upper case": post + "Transfer-Encoding: chunked\r\n\r\n0000000A\r\n0123456789\r\n0\r\n\r\n",
	"trailer":               post + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n",
	"chunked then next":     post + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n" + get + "\r\n",
	"absolute":              "GET http://a.example/x?y HTTP/1.1\r\n" + host + "\r\n",
	"absolute, empty path":  "GET http://a.example HTTP/1.1\r\n" + host + "\r\n",
	"absolute, port 80":     "GET http://A.Example.:80/x HTTP/1.1\r\n" + host + "\r\n",
	"absolute, host has 80": "GET http://a.example/x HTTP/1.1\r\nHost: a.example:80\r\n\r\n",
	"absolute https 443":    "GET https://a.example/x HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
	"absolute, IPv6":        "GET http://[2001:DB8::1]:8080/ HTTP/1.1\r\nHost: [2001:db8:0::1]:8080\r\n\r\n",
	"connect":               "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
	"connect, bare host":    "CONNECT a.example:443 HTTP/1.1\r\n" + host + "\r\n",
	"connect 1.0, no host":  "CONNECT a.example:443 HTTP/1.0\r\n\r\n",
	"options asterisk":      "OPTIONS * HTTP/1.1\r\n" + host + "\r\n",
	"empty value":           get + "X-Empty:\r\n\r\n",
	"tab and obs-text":      get + "X-A: a\tb\xe9\r\n\r\n",
	"odd but legal path":    "GET //a/../%2f/{x}|y?q=\\%zz HTTP/1.1\r\n" + host + "\r\n",
	"new method":            "QUERY / HTTP/1.1\r\n" + host + "\r\n",
	"connection":            get + "Connection: keep-alive, TE\r\n\r\n",
	"host with port":        "GET / HTTP/1.1\r\nHost: a.example:8443\r\n\r\n",
}

func TestPassesPlainRequests(t *testing.T) {
	for name, in := range allowed {
		for _, one := range []bool{false, true} {
			if out, err := pass(in, one, Options{}); err != nil || out != in {
				t.Errorf("%s (one byte a read: %v): got %q, %v", name, one, out, err)
			}
		}
	}
}

func TestPassesOneEmptyLineBehindABody(t *testing.T) {
	first := post + "Content-Length: 2\r\n\r\nab"
	if out, err := pass(first+"\r\n"+get+"\r\n", false, Options{}); err != nil || out != first+get+"\r\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := pass(first+"\r\n\r\n"+get+"\r\n", false, Options{}); err == nil {
		t.Error("two empty lines passed")
	}
}

var te = "Transfer-Encoding: chunked\r\n"

// refusedHeads are smuggling shapes that must not reach a parser at all.
var refusedHeads = map[string]string{
	"CL and TE":                   post + "Content-Length: 5\r\n" + te + "\r\n",
	"TE and CL":                   post + te + "Content-Length: 5\r\n\r\n",
	"CL twice":                    post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
	"CL twice, equal":             post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
	"CL twice, other case":        post + "Content-Length: 5\r\ncontent-length: 5\r\n\r\n",
	"CL list":                     post + "Content-Length: 5, 5\r\n\r\n",
	"CL plus":                     post + "Content-Length: +5\r\n\r\n",
	"CL minus":                    post + "Content-Length: -5\r\n\r\n",
	"CL hex":                      post + "Content-Length: 0x5\r\n\r\n",
	"CL underscore digits":        post + "Content-Length: 1_0\r\n\r\n",
	"CL space inside":             post + "Content-Length: 1 0\r\n\r\n",
	"CL empty":                    post + "Content-Length:\r\n\r\n",
	"CL 19 digits":                post + "Content-Length: 0000000000000000005\r\n\r\n",
	"CL overflow":                 post + "Content-Length: 99999999999999999999\r\n\r\n",
	"CL form feed":                post + "Content-Length: \x0c5\r\n\r\n",
	"CL with underscore":          post + "Content_Length: 5\r\n\r\n",
	"TE with underscore":          post + "Transfer_Encoding: chunked\r\n\r\n",
	"TE twice":                    post + te + te + "\r\n",
	"TE xchunked":                 post + "Transfer-Encoding: xchunked\r\n\r\n",
	"TE identity":                 post + "Transfer-Encoding: identity\r\n\r\n",
	"TE gzip, chunked":            post + "Transfer-Encoding: gzip, chunked\r\n\r\n",
	"TE chunked, chunked":         post + "Transfer-Encoding: chunked, chunked\r\n\r\n",
	"TE quoted":                   post + "Transfer-Encoding: \"chunked\"\r\n\r\n",
	"TE parameter":                post + "Transfer-Encoding: chunked;q=1\r\n\r\n",
	"TE empty":                    post + "Transfer-Encoding:\r\n\r\n",
	"TE vertical tab":             post + "Transfer-Encoding: \x0bchunked\r\n\r\n",
	"TE space before colon":       post + "Transfer-Encoding : chunked\r\n\r\n",
	"TE tab before colon":         post + "Transfer-Encoding\t: chunked\r\n\r\n",
	"TE in 1.0":                   "POST / HTTP/1.0\r\n" + host + te + "\r\n",
	"TE folded":                   post + "Transfer-Encoding:\r\n chunked\r\n\r\n",
	"TE first field folded":       "POST / HTTP/1.1\r\n " + te + host + "\r\n",
	"Kelvin sign":                 post + "Transfer-Encoding: chun\u212aed\r\n\r\n",
	"bare LF in request line":     "GET / HTTP/1.1\n" + host + "\r\n",
	"bare LF in field":            "GET / HTTP/1.1\r\nHost: a.example\nX: y\r\n\r\n",
	"bare LF at the end":          get + "\n",
	"bare CR in field":            get + "X: a\rTransfer-Encoding: chunked\r\n\r\n",
	"bare CR in request line":     "GET /\r HTTP/1.1\r\n" + host + "\r\n",
	"CR CR LF":                    get + "X: a\r\r\n\r\n",
	"NUL in value":                get + "X: a\x00b\r\n\r\n",
	"DEL in value":                get + "X: a\x7f\r\n\r\n",
	"NUL in name":                 get + "X\x00: a\r\n\r\n",
	"obs-fold":                    get + "X: a\r\n b\r\n\r\n",
	"obs-fold with tab":           get + "X: a\r\n\tb\r\n\r\n",
	"empty name":                  get + ": a\r\n\r\n",
	"no colon":                    get + "Xa\r\n\r\n",
	"name with a space":           get + "X Y: a\r\n\r\n",
	"name not ASCII":              get + "X\xe9: a\r\n\r\n",
	"empty line first":            "\r\n" + get + "\r\n",
	"HTTP/0.9":                    "GET /\r\n",
	"HTTP/0.9, version":           "GET / HTTP/0.9\r\n" + host + "\r\n",
	"HTTP/1.2":                    "GET / HTTP/1.2\r\n" + host + "\r\n",
	"HTTP/2.0":                    "GET / HTTP/2.0\r\n" + host + "\r\n",
	"http/1.1":                    "GET / http/1.1\r\n" + host + "\r\n",
	"HTTP/01.1":                   "GET / HTTP/01.1\r\n" + host + "\r\n",
	"two spaces":                  "GET  / HTTP/1.1\r\n" + host + "\r\n",
	"space at the end":            "GET / HTTP/1.1 \r\n" + host + "\r\n",
	"tab":                         "GET\t/ HTTP/1.1\r\n" + host + "\r\n",
	"space first":                 " GET / HTTP/1.1\r\n" + host + "\r\n",
	"space in target":             "GET /a b HTTP/1.1\r\n" + host + "\r\n",
	"lower-case method":           "connect a.example:443 HTTP/1.1\r\n" + host + "\r\n",
	"method no token":             "G(T / HTTP/1.1\r\n" + host + "\r\n",
	"relative target":             "GET x HTTP/1.1\r\n" + host + "\r\n",
	"authority form with GET":     "GET a.example:80 HTTP/1.1\r\n" + host + "\r\n",
	"origin form with CONNECT":    "CONNECT / HTTP/1.1\r\n" + host + "\r\n",
	"absolute form with CONNECT":  "CONNECT https://a.example/ HTTP/1.1\r\n" + host + "\r\n",
	"CONNECT without port":        "CONNECT a.example HTTP/1.1\r\n" + host + "\r\n",
	"CONNECT elsewhere":           "CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n",
	"CONNECT other port":          "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:22\r\n\r\n",
	"CONNECT with body":           "CONNECT a.example:443 HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
	"CONNECT 1.1 without Host":    "CONNECT a.example:443 HTTP/1.1\r\n\r\n",
	"asterisk with GET":           "GET * HTTP/1.1\r\n" + host + "\r\n",
	"ftp":                         "GET ftp://a.example/ HTTP/1.1\r\n" + host + "\r\n",
	"file":                        "GET file:///etc/passwd HTTP/1.1\r\n" + host + "\r\n",
	"opaque":                      "GET http:a.example/ HTTP/1.1\r\n" + host + "\r\n",
	"Host differs":                "GET http://a.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
	"Host is a subdomain":         "GET http://a.example/ HTTP/1.1\r\nHost: x.a.example\r\n\r\n",
	"Host's port differs":         "GET http://a.example/ HTTP/1.1\r\nHost: a.example:8080\r\n\r\n",
	"target's port differs":       "GET http://a.example:8080/ HTTP/1.1\r\n" + host + "\r\n",
	"port of the other scheme":    "GET https://a.example/ HTTP/1.1\r\nHost: a.example:80\r\n\r\n",
	"user information":            "GET http://a.example@evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
	"backslash in authority":      "GET http://a.example\\@evil.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
	"backslash in path":           "GET /a\\..\\b HTTP/1.1\r\n" + host + "\r\n",
	"fragment":                    "GET /a#b HTTP/1.1\r\n" + host + "\r\n",
	"NUL in target":               "GET /a\x00b HTTP/1.1\r\n" + host + "\r\n",
	"not ASCII in target":         "GET /\xc3\xa9 HTTP/1.1\r\n" + host + "\r\n",
	"bad percent":                 "GET /%zz HTTP/1.1\r\n" + host + "\r\n",
	"no Host":                     "GET / HTTP/1.1\r\n\r\n",
	"no Host in 1.0":              "GET / HTTP/1.0\r\n\r\n",
	"no Host, absolute":           "GET http://a.example/ HTTP/1.1\r\n\r\n",
	"Host twice":                  get + "Host: b.example\r\n\r\n",
	"Host twice, equal":           get + "HOST: a.example\r\n\r\n",
	"Host empty":                  "GET / HTTP/1.1\r\nHost:\r\n\r\n",
	"Host list":                   "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n",
	"Host with path":              "GET / HTTP/1.1\r\nHost: a.example/x\r\n\r\n",
	"Host with user":              "GET / HTTP/1.1\r\nHost: x@a.example\r\n\r\n",
	"Host 127.1":                  "GET / HTTP/1.1\r\nHost: 127.1\r\n\r\n",
	"Host with two brackets":      "GET / HTTP/1.1\r\nHost: [[::1]]\r\n\r\n",
	"Host percent":                "GET / HTTP/1.1\r\nHost: a%2eexample\r\n\r\n",
	"Host not ASCII":              "GET / HTTP/1.1\r\nHost: b\u00fccher.example\r\n\r\n",
	"Host bad port":               "GET / HTTP/1.1\r\nHost: a.example:http\r\n\r\n",
	"h2c preface":                 "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"TLS":                         "\x16\x03\x01\x02\x00\x01\x00",
	"ssh":                         "SSH-2.0-OpenSSH_9.2\r\n",
	"binary":                      "\x00\x01\x02\x03",
	"Connection: content-length":  post + "Connection: close, Content-Length\r\nContent-Length: 5\r\n\r\n",
	"Connection: host":            get + "Connection: host\r\n\r\n",
	"Trailer: transfer-encoding":  post + te + "Trailer: X, Transfer-Encoding\r\n\r\n",
	"look-alike behind the field": post + "Content-Length: 5\r\nContent_Length: 6\r\n\r\n",
}

func TestRefusesHeads(t *testing.T) {
	if len(refusedHeads) < 60 {
		t.Fatal("the table has shrunk")
	}
	for name, in := range refusedHeads {
		for _, one := range []bool{false, true} {
			calls := 0
			reason := ""
			out, err := pass(in+"hello"+get+"\r\n", one, Options{OnReject: func(r, _ string) { calls++; reason = r }})
			var re *RejectError
			if !errors.As(err, &re) || out != poison {
				t.Errorf("%s (one byte a read: %v): passed %q, %v", name, one, out, err)
				continue
			}
			if calls != 1 || reason != re.Reason || strings.ContainsAny(reason, "\"\\") {
				t.Errorf("%s: OnReject %d times, %q", name, calls, reason)
			}
		}
	}
}

// A refusal of the second request leaves the first whole (A8).
func TestRefusesSecondRequest(t *testing.T) {
	for name, in := range refusedHeads {
		if name == "empty line first" {
			continue // allowed behind a body
		}
		first := post + "Content-Length: 2\r\n\r\nab"
		out, err := pass(first+in+"hello"+get+"\r\n", false, Options{})
		if err == nil || out != first+poison {
			t.Errorf("%s: passed %q, %v", name, out, err)
		}
	}
}

func TestRefusesBodies(t *testing.T) {
	head := post + te + "\r\n"
	for name, in := range map[string]string{
		"size empty":              "\r\nhello",
		"size no hex":             "5g\r\nhello\r\n0\r\n\r\n",
		"size 0x":                 "0x5\r\nhello\r\n0\r\n\r\n",
		"size plus":               "+5\r\nhello\r\n0\r\n\r\n",
		"size with space":         "5 \r\nhello\r\n0\r\n\r\n",
		"size behind space":       " 5\r\nhello\r\n0\r\n\r\n",
		"size 9 digits":           "000000005\r\nhello\r\n0\r\n\r\n",
		"size overflow":           "10000000000000005\r\nhello\r\n0\r\n\r\n",
		"size bare LF":            "5\nhello\r\n0\r\n\r\n",
		"size CR":                 "5\rx\r\nhello\r\n0\r\n\r\n",
		"extension too long":      "5;" + strings.Repeat("x", 300) + "\r\nhello\r\n0\r\n\r\n",
		"extension without end":   "5;" + strings.Repeat("x", 9000),
		"extension CR":            "5;a\rb\r\nhello\r\n0\r\n\r\n",
		"extension LF":            "5;a\nhello\r\n0\r\n\r\n",
		"extension NUL":           "5;a\x00\r\nhello\r\n0\r\n\r\n",
		"longer than size":        "4\r\nhello\r\n0\r\n\r\n",
		"data ends in LF":         "5\r\nhello\n0\r\n\r\n",
		"data ends in CR":         "5\r\nhello\rx0\r\n\r\n",
		"trailer content-length":  "0\r\nContent-Length: 5\r\n\r\n",
		"trailer TE":              "0\r\nTransfer-Encoding: chunked\r\n\r\n",
		"trailer host":            "0\r\nHost: evil.example\r\n\r\n",
		"trailer authorization":   "0\r\nauthorization: x\r\n\r\n",
		"trailer cookie":          "0\r\nCookie: x\r\n\r\n",
		"trailer look-alike":      "0\r\nContent_Length: 5\r\n\r\n",
		"trailer folded":          "0\r\nX: a\r\n b\r\n\r\n",
		"trailer bare LF":         "0\r\nX: a\n\r\n",
		"trailer NUL":             "0\r\nX: a\x00\r\n\r\n",
		"trailer space colon":     "0\r\nX : a\r\n\r\n",
		"trailers without end":    "0\r\n" + strings.Repeat("X: aaaaaaaaaaaaaaaaaaaaaaa\r\n", 1000),
		"request where a size is": "GET / HTTP/1.1\r\n\r\n",
	} {
		for _, one := range []bool{false, true} {
			out, err := pass(head+in+get+"\r\n", one, Options{})
			var re *RejectError
			if !errors.As(err, &re) || !strings.HasPrefix(out, head) || strings.Contains(out, get) {
				t.Errorf("%s (one byte a read: %v): passed %q, %v", name, one, out, err)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	opt := Options{MaxHeaderBytes: 1000, MaxRequestLine: 100}
	big := get + "X: " + strings.Repeat("a", 900) + "\r\n\r\n"
	if out, err := pass(big, false, opt); err != nil || out != big {
		t.Errorf("within the limit: %v", err)
	}
	for name, in := range map[string]string{
		"head":            get + "X: " + strings.Repeat("a", 1000) + "\r\n\r\n",
		"head, no end":    get + "X: " + strings.Repeat("a", 100000),
		"many fields":     get + strings.Repeat("X: a\r\n", 300) + "\r\n",
		"request line":    "GET /" + strings.Repeat("a", 100) + " HTTP/1.1\r\n" + host + "\r\n",
		"line, no end":    "GET /" + strings.Repeat("a", 100000),
		"method, no end":  strings.Repeat("A", 100000),
		"CR, no end":      strings.Repeat("\r", 100000),
		"exactly too big": get + "X: " + strings.Repeat("a", 1000-len(get)-3) + "\r\n\r\n",
	} {
		for _, one := range []bool{false, true} {
			out, err := pass(in, one, opt)
			var re *RejectError
			if !errors.As(err, &re) || re.Status != 431 || out != poison {
				t.Errorf("%s: %d bytes passed, %v", name, len(out), err)
			}
		}
	}
}

func TestBigHeadIsGivenUp(t *testing.T) {
	c := New(&memConn{r: strings.NewReader(get + "X: " + strings.Repeat("a", 30000) + "\r\n\r\n")}, Options{})
	if _, err := io.Copy(io.Discard, c); err != nil || len(c.buf) > firstBuf {
		t.Errorf("kept %d bytes, %v", len(c.buf), err)
	}
}

func TestBodyIsNotCopied(t *testing.T) {
	in := post + "Content-Length: 1000000\r\n\r\n"
	m := &memConn{r: io.MultiReader(strings.NewReader(in), bytes.NewReader(make([]byte, 1000000)))}
	c := New(m, Options{})
	p := make([]byte, 64<<10)
	if n, err := c.Read(p); err != nil || n != len(in) {
		t.Fatalf("head: %d, %v", n, err)
	}
	allocs := testing.AllocsPerRun(5, func() {
		if n, err := c.Read(p); err != nil || n != len(p) {
			t.Errorf("body: %d, %v", n, err)
		}
	})
	if allocs != 0 || c.w != 0 {
		t.Errorf("%v allocations, %d bytes buffered", allocs, c.w)
	}
}

func TestRelax(t *testing.T) {
	raw := "\x16\x03\x01 raw \n bytes"
	in := "CONNECT a.example:443 HTTP/1.1\r\n" + host + "\r\n"
	c := New(&memConn{r: strings.NewReader(in + raw)}, Options{OnReject: func(r, _ string) { t.Error("refused:", r) }})
	head := make([]byte, len(in))
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatal(err)
	}
	if c.Buffered() != len(raw) {
		t.Errorf("early bytes are not told: %d", c.Buffered())
	}
	c.Relax()
	if rest, err := io.ReadAll(c); err != nil || string(rest) != raw || c.Buffered() != 0 {
		t.Errorf("got %q, %v", rest, err)
	}
	// The control: without Relax the same bytes are refused.
	if out, err := pass(in+raw, false, Options{}); err == nil || out != in+poison {
		t.Errorf("not relaxed: %q, %v", out, err)
	}
}

func TestRefusedStaysRefused(t *testing.T) {
	c := New(&memConn{r: strings.NewReader("\x16\x03\x01")}, Options{})
	_, _ = io.ReadAll(c)
	c.Relax()
	if n, err := c.Read(make([]byte, 10)); n != 0 || err == nil || c.Err() == nil {
		t.Errorf("read %d, %v", n, err)
	}
}

// FuzzAgainstNetHTTP: whatever is passed, net/http reads as the same requests.
func FuzzAgainstNetHTTP(f *testing.F) {
	for _, in := range allowed {
		f.Add([]byte(in), []byte(get+"\r\n"))
	}
	for _, in := range refusedHeads {
		f.Add([]byte(in), []byte(get+"\r\n"))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a)+len(b) > 4000 {
			return
		}
		n := 0
		for _, in := range [][]byte{a, b} {
			out, err := pass(string(in), false, Options{})
			if err != nil || out != string(in) || countRequests(t, in) < 1 {
				return
			}
			n += countRequests(t, in)
		}
		both := append(append([]byte{}, a...), b...)
		whole, err := pass(string(both), true, Options{})
		if err != nil || whole != string(both) {
			return // the first was incomplete
		}
		// Request ends are where we saw them: parsed together there are as
		// many requests as apart, unless the first lacked its end.
		if got := countRequests(t, both); complete(a) && got != n {
			t.Errorf("%q and %q are %d requests together, %d apart", a, b, got, n)
		}
	})
}

func complete(in []byte) bool {
	c := New(&memConn{r: bytes.NewReader(in)}, Options{})
	_, err := io.Copy(io.Discard, c)
	return err == nil && c.state == inHead && c.w == c.ok
}

// countRequests parses what was passed and compares with our own reading.
func countRequests(t *testing.T, in []byte) int {
	br := bufio.NewReader(bytes.NewReader(in))
	n := 0
	for {
		r, err := http.ReadRequest(br)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("net/http cannot read what was passed: %v\n%q", err, in)
			}
			return n
		}
		line, _, _ := bytes.Cut(in, []byte("\r\n"))
		if n == 0 && string(line) != r.Method+" "+r.RequestURI+" "+r.Proto {
			t.Errorf("request line %q read as %s %s %s", line, r.Method, r.RequestURI, r.Proto)
		}
		if n == 0 {
			sameFields(t, in, r)
		}
		size, err := io.Copy(io.Discard, r.Body)
		if complete(in) && (err != nil || r.ContentLength >= 0 && size != r.ContentLength) {
			t.Errorf("net/http reads a body of %d, not %d: %v\n%q", size, r.ContentLength, err, in)
		}
		n++
	}
}

// sameFields compares the fields by count. Host, the framing and Cache-Control
// are left out: net/http takes them out of the header, or adds to them.
func sameFields(t *testing.T, in []byte, r *http.Request) {
	head, _, _ := strings.Cut(string(in), "\r\n\r\n")
	left := func(name string) bool {
		switch strings.ToLower(name) {
		case "host", "transfer-encoding", "trailer", "cache-control":
			return false
		}
		return true
	}
	want, got := 0, 0
	for _, line := range strings.Split(head, "\r\n")[1:] {
		name, _, _ := strings.Cut(line, ":")
		if left(name) {
			want++
		}
	}
	for name, values := range r.Header {
		if left(name) {
			got += len(values)
		}
	}
	if got != want {
		t.Errorf("net/http reads %d fields of %d\n%q", got, want, in)
	}
}
