// Package python asks inspectors that are written in Python, with the interface
// of the original. Each is run by several worker processes that have no way out
// (see package worker); what they and the gateway say to one another is one
// line of JSON at a time.
package python

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/external"
)

//go:embed shim
var shim embed.FS

// Defaults of Options.
const (
	DefaultTimeout = 5 * time.Second
	DefaultWorkers = 2
	DefaultMemory  = 512 << 20
	DefaultMaxBody = 10 << 20
)

// MaxSource is the size up to which a file is taken for an inspector, in bytes.
const MaxSource = 1 << 20

// startTime is how long an inspector may take until it is configured.
const startTime = 30 * time.Second

// A worker that died is started again after a pause that doubles up to the
// longest as long as none of them has given an answer.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
)

// Starter starts worker processes. The connection is the worker: it ends when
// that is closed. A worker reads a text with its program as one line of JSON.
type Starter interface {
	Start(memory int64) (net.Conn, error)
}

// Options describe one inspector.
type Options struct {
	external.Rule

	File   string // for messages
	Source []byte
	Config map[string]any // for configure()

	Timeout time.Duration // of one answer, waiting for a worker included
	Workers int
	Memory  int64 // of each worker: its address space, in bytes
	MaxBody int64 // bytes; a longer body is not shown and blocks

	Log *slog.Logger // gets what the inspector prints; nil discards
}

func (o *Options) setDefaults() {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Workers <= 0 {
		o.Workers = DefaultWorkers
	}
	if o.Memory <= 0 {
		o.Memory = DefaultMemory
	}
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.Config == nil {
		o.Config = map[string]any{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Inspector is an inspector in Python. Its methods are safe for concurrent use.
type Inspector struct {
	o       Options
	start   Starter
	opening []byte // what every worker is told first
	hello   external.Hello

	ready  chan *process
	closed chan struct{}
	once   sync.Once
	slots  sync.WaitGroup
}

var _ inspect.ContentInspector = (*Inspector)(nil)

// New starts all workers of an inspector, and returns when they are configured.
func New(ctx context.Context, start Starter, o Options) (*Inspector, error) {
	o.setDefaults()
	if len(o.Source) > MaxSource {
		return nil, fmt.Errorf("cannot use inspector %s: %s is longer than %d bytes", o.Name, o.File, MaxSource)
	}
	in := &Inspector{o: o, start: start, ready: make(chan *process, o.Workers), closed: make(chan struct{})}
	if err := in.prepare(); err != nil {
		return nil, fmt.Errorf("cannot use inspector %s: %w", o.Name, err)
	}
	type started struct {
		w   *process
		err error
	}
	all := make(chan started, o.Workers)
	for range o.Workers {
		go func() {
			w, err := in.startWorker(ctx)
			all <- started{w, err}
		}()
	}
	var failed error
	for range o.Workers {
		s := <-all
		if s.err != nil {
			failed = s.err
			continue
		}
		in.hello = s.w.hello
		in.keep(s.w)
	}
	if failed != nil {
		return nil, errors.Join(fmt.Errorf("cannot use inspector %s: %w", o.Name, failed), in.Close())
	}
	return in, nil
}

// prepare writes what a worker is told first: its program, and what for.
func (in *Inspector) prepare() error {
	program, err := shim.ReadFile("shim/worker.py")
	if err != nil {
		return err
	}
	base, err := shim.ReadFile("shim/base.py")
	if err != nil {
		return err
	}
	setup := map[string]any{
		"protocol": external.Protocol, "name": in.o.Name, "file": filepath.Base(in.o.File),
		"base": string(base), "source": string(in.o.Source), "config": in.o.Config,
	}
	first, err := json.Marshal(string(program))
	if err != nil {
		return err
	}
	second, err := json.Marshal(setup)
	if err != nil {
		return fmt.Errorf("its config cannot be passed on: %w", err)
	}
	in.opening = append(append(append(first, '\n'), second...), '\n')
	return nil
}

// keep puts a worker to use, and starts another one whenever it has died.
func (in *Inspector) keep(w *process) {
	in.ready <- w
	in.slots.Go(func() {
		pause := firstPause
		for {
			select {
			case <-w.dead:
			case <-in.closed:
				return // Close takes the ready ones, and who uses one closes it
			}
			if w.answered.Load() {
				pause = firstPause
			}
			if w = in.restart(&pause); w == nil {
				return
			}
			in.ready <- w
		}
	})
}

// restart returns nil when the inspector was closed meanwhile.
func (in *Inspector) restart(pause *time.Duration) *process {
	for {
		timer := time.NewTimer(*pause)
		select {
		case <-timer.C:
		case <-in.closed:
			timer.Stop()
			return nil
		}
		*pause = min(2**pause, longestPause)
		ctx, cancel := context.WithCancel(context.Background())
		stop := make(chan struct{})
		go func() {
			defer cancel()
			select {
			case <-in.closed:
			case <-stop:
			}
		}()
		w, err := in.startWorker(ctx)
		close(stop)
		if err == nil {
			return w
		}
		in.o.Log.Warn("an inspector cannot be started again", "inspector", in.o.Name, "error", err)
	}
}

// Name returns the name that the config gives it.
func (in *Inspector) Name() string { return in.o.Name }

// Requests and Responses report what it asked to be shown.
func (in *Inspector) Requests() bool { return in.hello.Request }

// Responses reports whether it looks at what comes back.
func (in *Inspector) Responses() bool { return in.hello.Response }

// InspectContent asks a worker. A worker that did not give a proper answer is
// ended.
func (in *Inspector) InspectContent(ctx context.Context, c *inspect.Content) inspect.Result {
	if !in.hello.Asks(c.Direction) {
		return inspect.Done()
	}
	deadline := time.Now().Add(in.o.Timeout)
	fields, err := external.FieldsOf(ctx, c)
	if err != nil {
		return in.o.Failed(err.Error())
	}
	if int64(fields.BodySize) > in.o.MaxBody {
		return in.o.Failed("the body is longer than its max_body")
	}
	w, err := in.take(ctx, deadline)
	if err != nil {
		return in.o.Failed(err.Error())
	}
	answer, err := w.ask(fields, deadline)
	if err != nil {
		w.close()
		return in.o.Failed(err.Error())
	}
	in.note(answer)
	if answer.Error != "" {
		if answer.Last {
			w.close()
		} else {
			in.give(w)
		}
		return in.o.Failed("it raised an exception")
	}
	f, found, err := external.ParseResult(answer.Result)
	if err != nil {
		w.close()
		return in.o.Failed(err.Error())
	}
	in.give(w)
	if !found {
		return inspect.Done()
	}
	return in.o.Finding(f)
}

// take waits for a worker that has nothing to do.
func (in *Inspector) take(ctx context.Context, deadline time.Time) (*process, error) {
	select {
	case <-in.closed:
		return nil, errors.New("it has ended")
	case w := <-in.ready:
		return w, nil
	default:
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case w := <-in.ready:
		return w, nil
	case <-in.closed:
		return nil, errors.New("it has ended")
	case <-ctx.Done():
		return nil, errors.New("the request was cancelled")
	case <-timer.C:
		return nil, errors.New("none of its workers was ready in time")
	}
}

// give puts a worker back, or ends it when nobody will use it any more.
func (in *Inspector) give(w *process) {
	w.answered.Store(true)
	in.ready <- w // has room for all that there are
	select {
	case <-in.closed:
		in.drain()
	default:
	}
}

// note keeps what an inspector printed. It may be a part of the content, so
// that it is for whoever debugs the inspector and not for the audit log.
func (in *Inspector) note(a answer) {
	if a.Error != "" {
		in.o.Log.Warn("an inspector raised an exception", "inspector", in.o.Name, "exception", clip(a.Error))
		in.o.Log.Debug("traceback", "inspector", in.o.Name, "text", a.Trace)
	}
	if a.Log != "" {
		in.o.Log.Debug("an inspector printed", "inspector", in.o.Name, "text", a.Log)
	}
}

func clip(s string) string { return s[:min(len(s), 100)] }

// Close ends all workers. Those that are asked something finish first.
func (in *Inspector) Close() error {
	in.once.Do(func() { close(in.closed) })
	in.drain()
	in.slots.Wait()
	in.drain() // what a slot has put there before it saw the end
	return nil
}

func (in *Inspector) drain() {
	for {
		select {
		case w := <-in.ready:
			w.close()
		default:
			return
		}
	}
}
