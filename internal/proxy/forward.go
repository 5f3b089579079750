package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	// copySize holds four TLS records.
	copySize = 64 << 10
	// smallBody is how much of a request is read before it is sent on: a
	// body that is in memory goes out with the header in one packet, and
	// no connection to the server waits for a slow client.
	smallBody = 64 << 10
)

// smallCopy is the buffer for a body that is known to fit in it, as the answers
// of most APIs do.
const smallCopy = 4 << 10

var (
	copyBuffers  = sync.Pool{New: func() any { b := make([]byte, copySize); return &b }}
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallCopy); return &b }}
)

// forward sends an allowed request on, and its answer back.
func (x *exchange) forward(ctx context.Context) {
	out, err := x.outgoing(ctx)
	if err != nil {
		panic(http.ErrAbortHandler) // the client did not send what it promised
	}
	if x.r.ContentLength != 0 && x.r.ProtoMajor == 1 {
		// Without it the server reads all of the request before it sends
		// the first byte of the answer.
		_ = http.NewResponseController(x.w).EnableFullDuplex()
	}
	res, err := x.e.upstream.Load().roundTrip(out, x.r.ProtoMajor)
	x.interim.end()
	if err != nil {
		x.failed(ctx, err)
		return
	}
	defer res.Body.Close()
	if x.body != nil {
		x.body.sent()
	}
	server := res.Body
	if out.Body != nil && out.GetBody == nil {
		// While it waits for more of a body, the transport of HTTP/2 does
		// not look at the context.
		defer context.AfterFunc(ctx, func() { server.Close() })()
	}
	if res.StatusCode < 200 || res.StatusCode > 999 {
		// HTTP/2 puts no bound on it.
		x.failed(ctx, fmt.Errorf("unexpected status %d", res.StatusCode))
		return
	}
	x.sendBack(ctx, res)
}

// outgoing makes the request of the server's side from that of the client's.
func (x *exchange) outgoing(ctx context.Context) (*http.Request, error) {
	x.interim.x = x
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: x.interim.got})
	out := x.r.WithContext(ctx)
	out.URL = x.req.URL
	out.Host = x.target.authority
	out.RequestURI = ""
	out.Close = false
	out.TransferEncoding = nil
	err := x.setBody(out)
	x.secrets.apply(out)
	return out, err
}

// inMemory reports whether all of the request is read before it is sent on.
func (x *exchange) inMemory() bool {
	n := x.r.ContentLength
	return n == 0 || 0 < n && n <= smallBody && len(x.r.Header["Expect"]) == 0 && len(x.r.Trailer) == 0
}

func (x *exchange) setBody(out *http.Request) error {
	n := x.r.ContentLength
	switch {
	case n == 0:
		out.Body, out.Trailer = nil, nil // of which the values were not read
	case x.body != nil:
		return x.body.set(out)
	case x.inMemory():
		buf, err := x.readSmall(n)
		if err != nil {
			return err
		}
		setSmall(out, buf)
	default:
		out.Body = x.source()
	}
	return nil
}

func setSmall(out *http.Request, buf []byte) {
	out.Body = io.NopCloser(bytes.NewReader(buf))
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf)), nil }
}

// set makes the body of the request that is sent on from what was read of it.
func (b *reading) set(out *http.Request) (err error) {
	switch {
	case b.decided != nil:
		out.Body = b.decided
	case b.kept != nil:
		out.GetBody = b.kept.open
		out.Body, err = b.kept.open()
	default:
		setSmall(out, b.small)
	}
	return err
}

// readSmall gives a body as long as a header: it is one packet or a few.
func (x *exchange) readSmall(n int64) ([]byte, error) {
	rc := http.NewResponseController(x.w)
	_ = rc.SetReadDeadline(time.Now().Add(x.e.limits.HeaderTimeout))
	buf := make([]byte, n)
	if _, err := io.ReadFull(x.r.Body, buf); err != nil {
		return nil, err // the deadline stays: the server reads on when it closes the body
	}
	_ = rc.SetReadDeadline(time.Time{})
	return buf, nil
}

// limitedBody fails once more than max bytes came. The request upstream is
// aborted by it, so that a cut body never looks like a whole one.
type limitedBody struct {
	io.ReadCloser
	max, left int64
	over      atomic.Bool
}

var errTooLarge = fmt.Errorf("body too large")

func (b *limitedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		n, err = int(b.left), errTooLarge
		b.over.Store(true)
	}
	b.left -= int64(n)
	return n, err
}

// interim passes 1xx answers on. The transport calls got from a goroutine of
// its own, which can outlive RoundTrip.
type interim struct {
	mu   sync.Mutex
	x    *exchange
	over bool
}

func (i *interim) got(code int, header textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	// 100 is sent by the server itself when the body is read, which the
	// transport does when it got its 100 from upstream.
	switch r := i.x.r; {
	case code == http.StatusSwitchingProtocols:
		return errors.New("unexpected status 101")
	case i.over || code == http.StatusContinue, !r.ProtoAtLeast(1, 1):
		return nil // RFC 9110 section 15.2: HTTP/1.0 has no interim answers
	case i.x.reads.Responses:
		return nil // nobody would read it
	}
	h := i.x.w.Header()
	in := http.Header(header)
	endToEnd(in)
	i.x.redactHeader(in)
	setResponseFields(h, in)
	i.x.w.WriteHeader(code)
	clear(h)
	return nil
}

func (i *interim) end() {
	i.mu.Lock()
	i.over = true
	i.mu.Unlock()
}

// sendBack streams the answer. A body of known length is flushed when it is
// complete, any other one as it comes.
func (x *exchange) sendBack(ctx context.Context, res *http.Response) {
	endToEnd(res.Header)
	defer x.tellSecrets()
	if err := x.redact(res); err != nil {
		x.failed(ctx, err)
		return
	}
	if x.reads.Responses {
		done, err := x.inspectResponse(ctx, res)
		defer done()
		if err != nil {
			x.failed(ctx, err)
			return
		}
	}
	if x.stopped.Load() != nil {
		x.failed(ctx, errStopped)
		return
	}
	h := x.w.Header()
	setResponseFields(h, res.Header)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or the server guesses one
	}
	announced := len(res.Trailer)
	for k := range res.Trailer {
		if trailerPasses(k) {
			h.Add("Trailer", k)
		}
	}
	if announced > 0 && x.r.ProtoMajor == 1 {
		delete(h, "Content-Length") // a body with a length has no trailers
	}
	x.answered = true
	x.w.WriteHeader(res.StatusCode)
	if err := x.copyBody(res); err != nil {
		x.cutOff(ctx, err)
	}
	if x.stopped.Load() != nil {
		panic(http.ErrAbortHandler) // whatever the server says, not all of the request reached it
	}
	x.sendTrailers(res, announced)
}

func setResponseFields(dst, src http.Header) {
	for k, vv := range src {
		// Alt-Svc would lead the client to a way round us (RFC 7838).
		if k != "Alt-Svc" {
			dst[k] = vv
		}
	}
}

// readFailure is an error of the server's side, in distinction to the client's.
type readFailure struct{ error }

func (x *exchange) copyBody(res *http.Response) error {
	if res.ContentLength == 0 || x.r.Method == http.MethodHead {
		return nil
	}
	stream := res.ContentLength < 0 || isStream(res.Header)
	if stream {
		x.w.(http.Flusher).Flush()
	}
	buffers := &copyBuffers
	if 0 < res.ContentLength && res.ContentLength <= smallCopy {
		buffers = &smallBuffers
	}
	room := buffers.Get().(*[]byte)
	defer buffers.Put(room)
	buf := *room
	for {
		n, err := res.Body.Read(buf)
		if n > 0 {
			if _, werr := x.w.Write(buf[:n]); werr != nil {
				return werr
			}
			if stream && err == nil {
				x.w.(http.Flusher).Flush()
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return readFailure{err}
		}
	}
}

// isStream finds events that are sent with a length.
func isStream(h http.Header) bool {
	ct := h.Get("Content-Type")
	return strings.HasPrefix(ct, "text/event-stream") || strings.HasPrefix(ct, "application/grpc")
}

// cutOff ends an answer that cannot be completed in a way that the client sees.
func (x *exchange) cutOff(ctx context.Context, err error) {
	var failure readFailure
	if errors.As(err, &failure) {
		x.failed(ctx, failure.error)
	}
	panic(http.ErrAbortHandler)
}

func (x *exchange) sendTrailers(res *http.Response, announced int) {
	if len(res.Trailer) == 0 {
		return
	}
	// A body shorter than the server's buffer would go out with a length,
	// and then there is no room for trailers.
	x.w.(http.Flusher).Flush()
	x.redactHeader(res.Trailer)
	h := x.w.Header()
	prefix := http.TrailerPrefix
	if len(res.Trailer) == announced {
		prefix = ""
	}
	for k, vv := range res.Trailer {
		if trailerPasses(k) {
			h[prefix+k] = vv
		}
	}
}

// trailerPasses keeps back what would frame, or lead round us, from a client
// that takes a trailer for a header. net/http does not look at late ones.
func trailerPasses(name string) bool {
	return name != "Alt-Svc" && httpguts.ValidTrailerHeader(name) && !slices.Contains(hopByHop, name)
}
