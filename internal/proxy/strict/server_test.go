package strict

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// listener wraps what it accepts.
type listener struct {
	net.Listener
	opt Options
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return New(c, l.opt), nil
}

func serve(t *testing.T, opt Options, h http.HandlerFunc) (*net.TCPConn, *bufio.Reader) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(listener{l, opt}) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = s.Close(); <-done })
	return c.(*net.TCPConn), bufio.NewReader(c)
}

func echo(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %q %v", r.Method, r.URL.Path, b, err)
}

func answer(t *testing.T, br *bufio.Reader) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestServerAnswersJSON(t *testing.T) {
	for name, in := range refusedHeads {
		c, br := serve(t, Options{}, func(http.ResponseWriter, *http.Request) { t.Error("the handler ran for", name) })
		fmt.Fprint(c, in)
		res, body := answer(t, br)
		var v struct {
			Blocked bool
			Reason  string
			By      string
		}
		if err := json.Unmarshal([]byte(body), &v); err != nil || !v.Blocked || v.Reason == "" || v.By != "agentcage" ||
			res.StatusCode != 400 || !res.Close || !strings.HasPrefix(body, `{"blocked": true, "reason": "`) {
			t.Errorf("%s: %d %q, %v", name, res.StatusCode, body, err)
		}
		if _, err := br.ReadByte(); err != io.EOF {
			t.Errorf("%s: not closed: %v", name, err)
		}
	}
}

// Pipelined in one packet: the good one is answered in full, the bad one after it.
func TestServerAnswersInOrder(t *testing.T) {
	c, br := serve(t, Options{}, echo)
	fmt.Fprint(c, post+"Content-Length: 2\r\n\r\nab"+get+"\r\n"+"GET /evil HTTP/1.1\r\nHost: a.example\nX: y\r\n\r\n")
	for _, want := range []string{`POST / "ab" <nil>`, `GET / "" <nil>`} {
		if res, body := answer(t, br); res.StatusCode != 200 || body != want {
			t.Errorf("got %d %q, want %q", res.StatusCode, body, want)
		}
	}
	if res, body := answer(t, br); res.StatusCode != 400 || !strings.Contains(body, "bare line feed") {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
}

// The reading ahead of net/http meets the refused head while the response is
// on its way: the response stays whole, and its request is not cancelled.
func TestRefusalDoesNotCutAResponse(t *testing.T) {
	refused := make(chan string, 1)
	c, br := serve(t, Options{OnReject: func(r, _ string) { refused <- r }}, func(w http.ResponseWriter, r *http.Request) {
		<-refused
		if r.Context().Err() != nil {
			t.Error("the request was cancelled")
		}
		fmt.Fprint(w, serverAnswer) // even this passes as it is
	})
	fmt.Fprint(c, get+"\r\n")
	fmt.Fprint(c, "\x16\x03\x01")
	if res, body := answer(t, br); res.StatusCode != 200 || body != serverAnswer {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	if res, body := answer(t, br); res.StatusCode != 400 || !strings.Contains(body, "TLS") {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
}

func TestBodyRefusalReachesTheHandler(t *testing.T) {
	c, br := serve(t, Options{}, echo)
	fmt.Fprint(c, post+te+"\r\n2\r\nab\r\n0x1\r\nc\r\n0\r\n\r\n"+get+"\r\n")
	res, body := answer(t, br)
	if !strings.Contains(body, "refused HTTP/1 stream") || !strings.Contains(body, "hexadecimal") {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	if b, _ := io.ReadAll(br); strings.Contains(string(b), "200 OK") {
		t.Errorf("the connection went on: %q", b)
	}
}

// Rule: a slow head must not hold a connection for the idle time-out.
func TestHeadTimeout(t *testing.T) {
	c, br := serve(t, Options{HeadTimeout: 20 * time.Millisecond}, echo)
	fmt.Fprint(c, get) // the empty line never comes
	if _, err := br.ReadByte(); err != io.EOF {
		t.Errorf("not closed: %v", err)
	}
	// The control: a whole head is served, and a slow body has its time.
	c, br = serve(t, Options{HeadTimeout: time.Hour}, echo)
	fmt.Fprint(c, get)
	fmt.Fprint(c, "\r\n")
	if res, _ := answer(t, br); res.StatusCode != 200 {
		t.Errorf("got %d", res.StatusCode)
	}
}

func TestDeadlinePassesThrough(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	c := New(a, Options{HeadTimeout: time.Hour})
	if err := c.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("got %v", err)
	}
	// A time-out is not kept: net/http ends its early reads this way.
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = b.Write([]byte(get + "\r\n")) }()
	if n, err := c.Read(make([]byte, 100)); err != nil || n == 0 {
		t.Errorf("got %d, %v", n, err)
	}
	if c.NetConn() != a || c.Unwrap() != a {
		t.Error("the connection below is hidden")
	}
}

// Hijack after Relax, while net/http reads ahead: as for a 101.
func TestRelaxDuringBackgroundRead(t *testing.T) {
	c, br := serve(t, Options{OnReject: func(r, _ string) { t.Error("refused:", r) }}, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		conn.(*Conn).Relax()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		b := make([]byte, 4)
		if _, err := io.ReadFull(rw, b); err != nil {
			t.Error(err)
		}
		fmt.Fprintf(conn, "%x", b)
	})
	fmt.Fprint(c, get+"\r\n")
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	fmt.Fprint(c, "\x81\x00\n\x16")
	if b, err := io.ReadAll(br); err != nil || string(b) != "81000a16" {
		t.Errorf("got %q, %v", b, err)
	}
}
