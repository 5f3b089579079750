package python

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agentcage/agentcage/internal/inspect/external"
)

// process is a worker. It is asked by one goroutine at a time.
type process struct {
	conn     net.Conn
	in       *bufio.Reader
	hello    external.Hello
	last     uint64 // id of the last message
	answered atomic.Bool

	once sync.Once
	dead chan struct{}
}

// answer is what it says to that.
type answer struct {
	ID     uint64          `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  string          `json:"error"` // the class of an exception
	Trace  string          `json:"trace"`
	Log    string          `json:"log"`  // what it printed
	Last   bool            `json:"last"` // it ends after this one
}

func (in *Inspector) startWorker(ctx context.Context) (*process, error) {
	conn, err := in.start.Start(in.o.Memory)
	if err != nil {
		return nil, err
	}
	w := &process{conn: conn, in: bufio.NewReaderSize(conn, external.MaxAnswer), dead: make(chan struct{})}
	stop := context.AfterFunc(ctx, w.close)
	defer stop()
	if err := w.begin(in.opening); err != nil {
		w.close()
		return nil, err
	}
	if w.hello.Log != "" {
		in.o.Log.Debug("an inspector printed", "inspector", in.o.Name, "text", w.hello.Log)
	}
	if ctx.Err() != nil {
		w.close()
		return nil, ctx.Err()
	}
	return w, nil
}

// begin waits for the hello. A worker that could not be started closes the
// connection, so that to write may fail: what it said is read all the same.
func (w *process) begin(opening []byte) error {
	if err := w.conn.SetDeadline(time.Now().Add(startTime)); err != nil {
		return err
	}
	_, failed := w.conn.Write(opening)
	line, err := w.readLine()
	if err != nil {
		return errors.Join(fmt.Errorf("cannot start it: %w", err), failed)
	}
	if w.hello, err = external.ParseHello(line); err != nil {
		return err
	}
	if !w.hello.Request && !w.hello.Response {
		return external.ErrIdle
	}
	return failed
}

// ask passes one message on and reads the answer to it. After an error the
// worker is of no use.
func (w *process) ask(f *external.Fields, deadline time.Time) (answer, error) {
	w.last++
	line, err := external.Message{ID: w.last, Deadline: time.Until(deadline).Milliseconds(), Call: f.Direction, Context: f}.Encode()
	if err != nil {
		return answer{}, errors.New("the message cannot be written")
	}
	if err := w.conn.SetDeadline(deadline); err != nil {
		return answer{}, errors.New("it died")
	}
	if _, err := w.conn.Write(line); err != nil {
		return answer{}, reason(err)
	}
	if line, err = w.readLine(); err != nil {
		return answer{}, err
	}
	return parseAnswer(line, w.last, w.in.Buffered())
}

// readLine reads one line of bounded length. Its error is one for a reason.
func (w *process) readLine() ([]byte, error) {
	line, err := w.in.ReadSlice('\n')
	if err == nil {
		return line, nil
	}
	return nil, reason(err)
}

// reason says in fixed words what happened to a worker.
func reason(err error) error {
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return errors.New("its answer is too long")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("timeout")
	case errors.Is(err, io.EOF):
		return errors.New("it died")
	default:
		return errors.New("it died") // a broken pipe or a reset, which depend on chance
	}
}

// parseAnswer reads the answer to one message. more is what stands behind it
// already.
func parseAnswer(line []byte, id uint64, more int) (answer, error) {
	var a answer
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	switch {
	case d.Decode(&a) != nil, len(bytes.TrimSpace(line[d.InputOffset():])) > 0, a.ID != id, more > 0:
		return answer{}, errors.New("its answer makes no sense")
	case a.Error != "" && len(a.Result) > 0 && string(a.Result) != "null":
		return answer{}, errors.New("its answer makes no sense")
	}
	return a, nil
}

// close ends the process.
func (w *process) close() {
	w.once.Do(func() {
		w.conn.Close()
		close(w.dead)
	})
}
