package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/agentcage/agentcage/internal/inspect"
)

type (
	inspectRequest = inspect.Request
	inspectVerdict = inspect.Verdict
)

// h2Client writes HTTP/2 frames by hand, for what no client library sends.
type h2Client struct {
	t    testing.TB
	c    *tls.Conn
	fr   *http2.Framer
	next uint32
}

func newH2Client(t testing.TB, c *tls.Conn) *h2Client {
	t.Helper()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	h := &h2Client{t: t, c: c, fr: http2.NewFramer(c, c), next: 1}
	h.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.fr.WriteSettings()
	t.Cleanup(func() { c.Close() })
	return h
}

func (h *h2Client) send(fields [][2]string) uint32 {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range fields {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	id := h.next
	h.next += 2
	h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndStream: true, EndHeaders: true})
	return id
}

// request returns the status, or 0 when the stream or connection was reset.
func (h *h2Client) request(fields [][2]string) int {
	h.t.Helper()
	return h.status(h.send(fields))
}

func (h *h2Client) status(id uint32) int {
	h.t.Helper()
	for {
		f, err := h.fr.ReadFrame()
		if err != nil {
			return 0
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamID == id {
				n, _ := strconv.Atoi(f.PseudoValue("status"))
				return n
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return 0
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				h.fr.WriteSettingsAck()
			}
		}
	}
}

// answerHTTP2 serves one connection of HTTP/2 by hand.
func answerHTTP2(c net.Conn, cert *tls.Certificate, status string) {
	defer c.Close()
	tc := tls.Server(c, &tls.Config{GetConfigForClient: func(hi *tls.ClientHelloInfo) (*tls.Config, error) {
		proto := "none" // h2 would let HTTP/1.1 in as well
		if slices.Contains(hi.SupportedProtos, "h2") {
			proto = "h2"
		}
		return &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{proto}}, nil
	}})
	if _, err := io.ReadFull(tc, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(tc, tc)
	fr.WriteSettings()
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				fr.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			var b bytes.Buffer
			enc := hpack.NewEncoder(&b)
			enc.WriteField(hpack.HeaderField{Name: ":status", Value: status})
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: b.Bytes(), EndStream: status != "101", EndHeaders: true})
			if status == "101" {
				b.Reset()
				enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: b.Bytes(), EndStream: true, EndHeaders: true})
			}
		}
	}
}
