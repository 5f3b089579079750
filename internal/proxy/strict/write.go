package strict

import (
	"fmt"
	"net/http"
	"time"

	"github.com/agentcage/agentcage/internal/audit"
)

// serverAnswer is what net/http writes, with one Write, for a request line that
// it cannot read. A test holds it to the net/http of the tool chain.
const serverAnswer = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"Connection: close\r\n\r\n400 Bad Request"

// Write implements net.Conn. It writes the answer of a refusal in place of
// net/http's own; everything else passes untouched. The reader takes the end
// of a refused head only after its last response is written, so the answer is
// never in the middle of one.
func (c *Conn) Write(p []byte) (int, error) {
	if !c.answer.Load() || string(p) != serverAnswer {
		return c.Conn.Write(p)
	}
	c.answer.Store(false)
	if _, err := c.Conn.Write(answerFor(c.reject.Load())); err != nil {
		return 0, err
	}
	return len(p), nil
}

func answerFor(e *RejectError) []byte {
	body := audit.BlockBody(e.Reason, "", e.ID)
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n%s",
		e.Status, http.StatusText(e.Status), len(body), body)
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn. While a head is incomplete the end of
// its time comes first, if it is the earlier.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.Conn.SetReadDeadline(c.effective())
}

func (c *Conn) effective() time.Time {
	if c.headEnd.IsZero() || !c.deadline.IsZero() && c.deadline.Before(c.headEnd) {
		return c.deadline
	}
	return c.headEnd
}

// limitHead starts the head's time when part of one has come, and ends it when
// it is whole. Most heads come in one piece and cost no timer.
func (c *Conn) limitHead(partial bool) {
	if c.opt.HeadTimeout <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	partial = partial && !c.relaxed.Load()
	if partial == !c.headEnd.IsZero() {
		return
	}
	c.headEnd = time.Time{}
	if partial {
		c.headEnd = time.Now().Add(c.opt.HeadTimeout)
	}
	// A failure shows in the next Read.
	_ = c.Conn.SetReadDeadline(c.effective())
}
