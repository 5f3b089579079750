//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/miekg/dns"

	"github.com/agentcage/agentcage/internal/cage/cagetest/wire"
)

// patience is long: what is refused must be refused at once, and what needs
// this long has failed.
const patience = 20 * time.Second

func httpRequest(a wire.Ask) wire.Reply {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	method := a.Method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, a.URL, bytes.NewReader(a.Data))
	if err != nil {
		return failed(err)
	}
	if a.Host != "" {
		req.Host = a.Host
	}
	tr := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: !a.H1, TLSClientConfig: &tls.Config{ServerName: a.SNI}}
	if a.H1 {
		tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	switch a.Via {
	case "proxy":
		tr.Proxy = http.ProxyFromEnvironment
	case "addr":
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", a.Addr)
		}
	}
	c := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Do(req)
	if err != nil {
		return failed(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, limit))
	r := data(body, err)
	r.Status, r.Proto = res.StatusCode, res.Proto
	return r
}

// rawExchange sends bytes as they are and returns everything that comes back.
func rawExchange(a wire.Ask) wire.Reply {
	c, err := net.DialTimeout(a.Network, a.Addr, patience)
	if err != nil {
		return failed(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if a.SNI != "" {
		t := tls.Client(c, &tls.Config{ServerName: a.SNI})
		if err := t.Handshake(); err != nil {
			return failed(err)
		}
		c = t
	}
	if _, err := c.Write(a.Data); err != nil {
		return failed(err)
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok && !a.Open {
		_ = w.CloseWrite() // the other side may be gone already
	}
	got, err := io.ReadAll(io.LimitReader(c, limit))
	return data(got, err)
}

func dial(a wire.Ask) wire.Reply {
	c, err := net.DialTimeout(a.Network, a.Addr, patience)
	if err != nil {
		return failed(err)
	}
	r := wire.Reply{Data: []byte(c.RemoteAddr().String())}
	if len(a.Data) > 0 {
		_, err = c.Write(a.Data)
		if err != nil {
			r = failed(err)
		}
	}
	c.Close()
	return r
}

// udp has worked when an answer comes. No answer within a moment is a failure
// too: the suite looks at what the other side received.
func udp(a wire.Ask) wire.Reply {
	c, err := net.Dial("udp", a.Addr)
	if err != nil {
		return failed(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second)) // fails only on a closed connection
	for range 2 {                                      // the second write hears of what the first met
		if _, err = c.Write(a.Data); err != nil {
			return failed(err)
		}
	}
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("no answer")
	}
	return data(buf[:n], err)
}

func query(a wire.Ask) wire.Reply {
	m := new(dns.Msg)
	t, ok := dns.StringToType[a.Type]
	if !ok {
		fail("unknown type " + a.Type)
	}
	m.SetQuestion(dns.Fqdn(a.Name), t)
	m.SetEdns0(1232, false)
	c := dns.Client{Net: a.Network, Timeout: patience}
	res, _, err := c.Exchange(m, a.Addr)
	if err != nil {
		return failed(err)
	}
	r := wire.Reply{Status: res.Rcode}
	for _, rr := range res.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			r.List = append(r.List, rr.A.String())
		case *dns.AAAA:
			r.List = append(r.List, rr.AAAA.String())
		default:
			r.List = append(r.List, rr.String())
		}
	}
	return r
}

func look(a wire.Ask) wire.Reply {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, a.Name)
	r := failed(err)
	r.List = addrs
	return r
}

// bind listens where it is told, and accepts nothing.
func bind(a wire.Ask) wire.Reply {
	l, err := net.Listen("tcp", a.Addr)
	if err != nil {
		return failed(err)
	}
	return failed(l.Close())
}

// websocket sends a handshake and a frame, and reads until the frame's answer
// is there.
func websocket(a wire.Ask) wire.Reply {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", a.Addr, &tls.Config{ServerName: a.SNI, NextProtos: []string{"http/1.1"}})
	if err != nil {
		return failed(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	head, frame, _ := bytes.Cut(a.Data, []byte("\r\n\r\n"))
	if _, err := c.Write(append(head, "\r\n\r\n"...)); err != nil {
		return failed(err)
	}
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return failed(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, err := io.ReadAll(io.LimitReader(res.Body, limit))
		reply := data(body, err)
		reply.Status = res.StatusCode
		return reply
	}
	if _, err := c.Write(frame); err != nil {
		return failed(err)
	}
	answer := make([]byte, len(frame)-4) // unmasked
	_, err = io.ReadFull(r, answer)
	return data(append([]byte(res.Proto+" "+res.Status+"\n"), answer...), err)
}
