package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/agentcage/agentcage/internal/inspect"
)

// errStopped is the end of a request of which a part was refused.
var errStopped = errors.New("a part of the request was refused")

// inspectResponse decides an answer before its head goes on. Its body is read
// first, unless it is one that comes in pieces: then each is decided before it
// goes on. The error is that of a server that did not send it, or a refusal,
// which is written down. The caller calls done when the answer has been sent.
func (x *exchange) inspectResponse(ctx context.Context, res *http.Response) (done func(), err error) {
	done = func() {}
	c := x.answerContent(inspect.KindResponse, res)
	c.Header = res.Header
	server := res.Body
	p := &pace{timeout: x.e.limits.BodyTimeout, late: func() { server.Close() }}
	switch {
	case res.ContentLength == 0 || x.r.Method == http.MethodHead || res.StatusCode == http.StatusSwitchingProtocols:
		return done, x.judge(ctx, c)
	case comesInPieces(res.Header):
		if err := x.judge(ctx, c); err != nil {
			return done, err
		}
		body := x.answerInPieces(ctx, res, p)
		res.Body = body
		return body.drop, nil
	}
	k := newKept(x.e.memory)
	if err := x.keepAnswer(ctx, k, res, p); err != nil {
		return k.drop, err
	}
	c.Encoding, c.Body = codings(res.Header), k.bytes()
	if err := x.judge(ctx, c); err != nil {
		return k.drop, err
	}
	res.Body = io.NopCloser(bytes.NewReader(k.bytes()))
	return k.drop, x.judgeTrailer(ctx, res)
}

// answerContent is a piece of the answer.
func (x *exchange) answerContent(kind inspect.Kind, res *http.Response) *inspect.Content {
	return &inspect.Content{
		Request: &x.req, Kind: kind, Direction: inspect.ToClient, Status: res.StatusCode, Type: res.Header.Get("Content-Type"),
	}
}

func (x *exchange) judgeTrailer(ctx context.Context, res *http.Response) error {
	if len(res.Trailer) == 0 {
		return nil
	}
	c := x.answerContent(inspect.KindTrailer, res)
	c.Header, c.Type = res.Trailer, ""
	return x.judge(ctx, c)
}

// comesInPieces finds answers that go on for as long as there is news.
func comesInPieces(h http.Header) bool {
	return isFramed(h) || isEvents(h)
}

func isEvents(h http.Header) bool {
	t, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return t == "text/event-stream" && len(codings(h)) == 0
}

func (x *exchange) keepAnswer(ctx context.Context, k *kept, res *http.Response, p *pace) error {
	most := x.e.limits.MaxKept
	large := inspect.Verdict{Reason: fmt.Sprintf("response too large to inspect: more than %d bytes", most)}
	if res.ContentLength > int64(most) {
		return x.stop(large)
	}
	p.start()
	whole, err := k.fill(ctx, res.Body, most, p)
	if err == nil && !whole {
		var more [1]byte
		_, err = io.ReadFull(res.Body, more[:])
		whole = err == io.EOF
		err = notEOF(err)
	}
	switch inTime := p.stop(); {
	case errors.Is(err, errNoMemory):
		return x.stop(inspect.Verdict{Reason: "response: " + err.Error(), Status: http.StatusServiceUnavailable})
	case err != nil && !inTime:
		return errors.New("the response came too slowly to be inspected")
	case err == nil && !whole:
		return x.stop(large)
	}
	return err
}

func (x *exchange) answerInPieces(ctx context.Context, res *http.Response, p *pace) *decided {
	j := judge{
		decide: func(kind inspect.Kind, body []byte, encoding []string, _ int) error {
			c := x.answerContent(kind, res)
			c.Body, c.Encoding = body, encoding
			return x.judge(ctx, c)
		},
		refuse: func(reason string) error { return x.stop(inspect.Verdict{Reason: "response: " + reason}) },
	}
	d := &decided{Closer: res.Body, ctx: ctx, judge: j, trailer: func() error { return x.judgeTrailer(ctx, res) }}
	if isFramed(res.Header) {
		d.pieces = newMessages(j, res.Body, x.e.memory, p, x.e.limits.MaxKept, res.Header, inspect.ToClient)
	} else {
		d.pieces = newEvents(j, res.Body, x.e.memory, p, x.e.limits.MaxKept)
	}
	return d
}
