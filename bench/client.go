package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// client reaches the upstream by one contender. It writes HTTP/1.1 itself:
// with two cores for everything, what the load costs is taken from the proxy.
type client struct {
	proxy string // host:port, or empty for none
	lab   *lab
}

// conn is a TLS connection to the upstream, or to what stands in its place.
type conn struct {
	net.Conn
	r *bufio.Reader
}

// stall bounds every connection: a proxy that hangs fails its scenario
// instead of the run.
const stall = 30 * time.Second

func (c client) dial() (*conn, error) {
	addr := c.proxy
	if addr == "" {
		addr = net.JoinHostPort("127.0.0.1", c.lab.port)
	}
	raw, err := net.DialTimeout("tcp", addr, stall)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(stall))
	if c.proxy != "" {
		if err := connect(raw, c.lab.target()); err != nil {
			raw.Close()
			return nil, err
		}
	}
	secure := tls.Client(raw, &tls.Config{ServerName: serverName, RootCAs: c.lab.roots, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
	if err := secure.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return &conn{secure, bufio.NewReaderSize(secure, 64<<10)}, nil
}

func connect(raw net.Conn, target string) error {
	if _, err := fmt.Fprintf(raw, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
		return err
	}
	// The server says nothing before our hello, so the reader takes no byte
	// that is not part of this answer.
	res, err := http.ReadResponse(bufio.NewReaderSize(raw, 1024), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("cannot connect to %s: the proxy answered %s", target, res.Status)
	}
	return nil
}

// send writes one request whose bytes are ready and returns the answer.
func (c *conn) send(request []byte, method string) (*http.Response, error) {
	_ = c.SetDeadline(time.Now().Add(stall))
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 300))
		res.Body.Close()
		return nil, fmt.Errorf("the answer was %s: %s", res.Status, body)
	}
	return res, nil
}

func (c *conn) roundTrip(request []byte, method string) error {
	res, err := c.send(request, method)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

func (c client) get(path, extra string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n%s\r\n", path, c.lab.target(), extra)
}

func (c client) post(path string, body []byte) []byte {
	head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		path, c.lab.target(), len(body))
	return append(head, body...)
}

// tally is what one scenario did in one turn.
type tally struct {
	rate float64   // a second
	late []float64 // milliseconds, of each
}

// load runs step on n workers for d, after a warm-up of a fifth of it. make
// gives each worker its own step, and a function that ends it.
func load(n int, d time.Duration, prepare func() (step func() error, end func(), err error)) (tally, error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		all   tally
		first error
		ready sync.WaitGroup
		begin = make(chan time.Time)
	)
	ready.Add(n)
	for range n {
		wg.Go(func() {
			step, end, err := prepare()
			ready.Done()
			start := <-begin
			var late []float64
			if err == nil {
				defer end()
				late, err = repeat(step, start.Add(d/5), start.Add(d+d/5))
			}
			mu.Lock()
			defer mu.Unlock()
			all.late = append(all.late, late...)
			if first == nil {
				first = err
			}
		})
	}
	ready.Wait()
	now := time.Now()
	for range n {
		begin <- now
	}
	wg.Wait()
	all.rate = float64(len(all.late)) / d.Seconds()
	return all, first
}

// repeat runs step until the end and returns the milliseconds that each took
// of those which began after from.
func repeat(step func() error, from, until time.Time) ([]float64, error) {
	var late []float64
	for {
		begin := time.Now()
		if begin.After(until) {
			return late, nil
		}
		if err := step(); err != nil {
			return late, err
		}
		if begin.After(from) {
			late = append(late, float64(time.Since(begin).Microseconds())/1000)
		}
	}
}

// kept sends one request over and over on each of n kept connections.
func (c client) kept(n int, d time.Duration, request []byte, method string) (tally, error) {
	return load(n, d, func() (func() error, func(), error) {
		conn, err := c.dial()
		if err != nil {
			return nil, nil, err
		}
		return func() error { return conn.roundTrip(request, method) }, func() { conn.Close() }, nil
	})
}

// fresh makes a connection for every request.
func (c client) fresh(n int, d time.Duration) (tally, error) {
	request := c.get("/small", "Connection: close\r\n")
	step := func() error {
		conn, err := c.dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		return conn.roundTrip(request, http.MethodGet)
	}
	return load(n, d, func() (func() error, func(), error) { return step, func() {}, nil })
}

// http2 sends small GETs as n streams of HTTP/2. ok is false when the proxy
// does not speak it.
func (c client) http2(n int, d time.Duration) (t tally, ok bool, err error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	tr := &http.Transport{
		Protocols:       protocols,
		TLSClientConfig: &tls.Config{RootCAs: c.lab.roots, MinVersion: tls.VersionTLS12},
		DialContext:     dialUpstream,
	}
	if c.proxy != "" {
		tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: c.proxy})
	}
	defer tr.CloseIdleConnections()
	hc := &http.Client{Transport: tr, Timeout: stall}
	major := 0
	step := func() error {
		res, err := hc.Get("https://" + c.lab.target() + "/small")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("the answer was %s", res.Status)
		}
		_, err = io.Copy(io.Discard, res.Body)
		if major == 0 {
			major = res.ProtoMajor
		}
		return err
	}
	if err := step(); err != nil {
		return tally{}, true, err
	}
	if major != 2 {
		return tally{}, false, nil
	}
	t, err = load(n, d, func() (func() error, func(), error) { return step, func() {}, nil })
	return t, true, err
}

// download reads size bytes and returns MB/s.
func (c client) download(size int64) (float64, error) {
	conn, err := c.dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	begin := time.Now()
	res, err := conn.send(c.get(fmt.Sprintf("/bytes?n=%d", size), ""), http.MethodGet)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	got, err := drain(res.Body)
	if err == nil && got != size {
		err = fmt.Errorf("%d bytes came of %d", got, size)
	}
	return float64(got) / 1e6 / time.Since(begin).Seconds(), err
}

// events returns, for each of n server-sent events, the milliseconds from the
// server's clock when it wrote the event to ours when we had read it.
func (c client) events(n int) ([]float64, error) {
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	res, err := conn.send(c.get(fmt.Sprintf("/events?n=%d", n), "Accept: text/event-stream\r\n"), http.MethodGet)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var late []float64
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		var sent int64
		if _, err := fmt.Sscanf(lines.Text(), "data: %d", &sent); err == nil {
			late = append(late, float64(time.Now().UnixNano()-sent)/1e6)
		}
	}
	if lines.Err() == nil && len(late) != n {
		return late, fmt.Errorf("%d events came of %d", len(late), n)
	}
	return late, lines.Err()
}

// sockets opens n WebSockets, sends one message through each and leaves them
// open until close is called.
func (c client) sockets(n int) (closeAll func(), err error) {
	var (
		mu   sync.Mutex
		open []*conn
		wg   sync.WaitGroup
		work = make(chan struct{}, n)
	)
	for range n {
		work <- struct{}{}
	}
	close(work)
	for range 8 {
		wg.Go(func() {
			for range work {
				s, e := c.socket()
				mu.Lock()
				if e != nil {
					err = e
				} else {
					open = append(open, s)
				}
				failed := err != nil
				mu.Unlock()
				if failed {
					return
				}
			}
		})
	}
	wg.Wait()
	return func() {
		for _, s := range open {
			s.Close()
		}
	}, err
}

func (c client) socket() (*conn, error) {
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	res, err := conn.send(c.get("/socket", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+key+"\r\n"), http.MethodGet) //nolint:bodyclose // the body of a 101 is the connection
	if err == nil && (res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-WebSocket-Accept") != acceptKey(key)) {
		err = fmt.Errorf("the upgrade was answered with %s", res.Status)
	}
	if err == nil {
		_, err = conn.Write(maskedFrame(opText, []byte("hello")))
	}
	if err == nil {
		var got []byte
		if _, got, err = readFrame(conn.r); err == nil && string(got) != "hello" {
			err = fmt.Errorf("the echo was %q", got)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, nil
}

// percentile returns the value below which the share p (0 to 1) of v lies.
func percentile(v []float64, p float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[min(int(p*float64(len(v))), len(v)-1)]
}

func median(v []float64) float64 { return percentile(v, 0.5) }
