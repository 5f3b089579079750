// Package wasm asks inspectors that are compiled to WebAssembly. A module runs
// in this process, in a memory of its own, and reaches nothing: it can compute,
// answer, and write lines for the log.
//
// # What a module exports
//
//	memory
//	agentcage_alloc(size i32) i32               where a message of that size may be written
//	agentcage_configure(ptr, len i32) i64       gets a setup, answers with a hello
//	agentcage_inspect_request(ptr, len i32) i64 gets a message, answers with a result or 0
//	agentcage_inspect_response(ptr, len i32) i64
//
// One of the last two is enough. Answers are JSON in the module's memory, named
// by ptr<<32 | len. _initialize is called first when there is one.
//
// # What it may import
//
// agentcage.log(ptr, len i32) writes a line. The functions of
// wasi_snapshot_preview1, which the runtimes of Go and others cannot do without,
// are there and lead nowhere: no file, no argument, no variable, a clock that
// does not tell the time; but random numbers are random, since a table whose
// seed the agent knows can be made slow.
package wasm

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/agentcage/agentcage/internal/inspect"
	"github.com/agentcage/agentcage/internal/inspect/external"
)

// Defaults of Options.
const (
	DefaultTimeout   = time.Second
	DefaultInstances = 2
	DefaultMemory    = 128 << 20
	DefaultMaxBody   = 10 << 20
)

// MaxModule is the size up to which a file is taken for a module, in bytes.
const MaxModule = 32 << 20

// startTime is how long an instance may take until it is configured.
const startTime = 10 * time.Second

const (
	pageSize = 64 << 10
	mostLog  = 4096 // bytes that are kept of what is logged for one message
)

// Names of what a module exports and imports.
const (
	hostModule = "agentcage"
	fnLog      = "log"
	fnAlloc    = "agentcage_alloc"
	fnSetup    = "agentcage_configure"
	fnRequest  = "agentcage_inspect_request"
	fnResponse = "agentcage_inspect_response"
)

// Options describe one inspector.
type Options struct {
	external.Rule

	Module []byte
	Config map[string]any

	Timeout   time.Duration // of one answer, waiting for an instance included
	Instances int
	Memory    int64 // of each instance, in bytes; rounded down to pages of 64 KiB
	MaxBody   int64 // bytes; a longer body is not shown and blocks

	Log *slog.Logger // gets what the module logs; nil discards

	cache wazero.CompilationCache // for tests, which use few modules many times
}

func (o *Options) setDefaults() {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Instances <= 0 {
		o.Instances = DefaultInstances
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

// Inspector is a module that is asked. Its methods are safe for concurrent use.
type Inspector struct {
	o       Options
	runtime wazero.Runtime
	module  wazero.CompiledModule
	setup   []byte
	hello   external.Hello
	slots   chan *instance // nil is an instance that is to be made
	made    int            // how many are in slots or in use
	closed  chan struct{}
	once    sync.Once
}

var _ inspect.ContentInspector = (*Inspector)(nil)

// New compiles a module and configures its first instance.
func New(ctx context.Context, o Options) (*Inspector, error) {
	o.setDefaults()
	in := &Inspector{o: o, slots: make(chan *instance, o.Instances), closed: make(chan struct{})}
	if err := in.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot use inspector %s: %w", o.Name, err), in.Close())
	}
	return in, nil
}

func (in *Inspector) start(ctx context.Context) error {
	if len(in.o.Module) > MaxModule {
		return fmt.Errorf("its module is longer than %d bytes", MaxModule)
	}
	config := wazero.NewRuntimeConfig().WithCloseOnContextDone(true).WithDebugInfoEnabled(false).
		WithMemoryLimitPages(uint32(max(1, min(in.o.Memory/pageSize, 65536))))
	if in.o.cache != nil {
		config = config.WithCompilationCache(in.o.cache)
	}
	in.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	var err error
	compile := experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0))
	if in.module, err = in.runtime.CompileModule(compile, in.o.Module); err != nil {
		return fmt.Errorf("cannot compile it: %w", err)
	}
	if in.hello, err = check(in.module); err != nil {
		return err
	}
	if err := in.provide(ctx); err != nil {
		return err
	}
	in.setup, err = json.Marshal(map[string]any{"protocol": external.Protocol, "name": in.o.Name, "config": in.o.Config})
	if err != nil {
		return fmt.Errorf("its config cannot be passed on: %w", err)
	}
	first, err := in.newInstance(ctx)
	if err != nil {
		return err
	}
	in.made = in.o.Instances
	in.slots <- first
	for range in.o.Instances - 1 {
		in.slots <- nil
	}
	return nil
}

// signatures of what a module may export for us. Values are numbers of
// parameters of type i32, and the type of the result.
var signatures = map[string]struct {
	params int
	result api.ValueType
}{
	fnAlloc: {1, api.ValueTypeI32}, fnSetup: {2, api.ValueTypeI64}, fnRequest: {2, api.ValueTypeI64}, fnResponse: {2, api.ValueTypeI64},
}

// check holds a module to what it must export and may import.
func check(m wazero.CompiledModule) (external.Hello, error) {
	var h external.Hello
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		if module != wasi_snapshot_preview1.ModuleName && (module != hostModule || name != fnLog) {
			return h, fmt.Errorf("it imports %s.%s, which there is not: only %s.%s and functions of %s are",
				module, name, hostModule, fnLog, wasi_snapshot_preview1.ModuleName)
		}
	}
	exports := m.ExportedFunctions()
	for name, want := range signatures {
		f, ok := exports[name]
		if !ok {
			continue
		}
		i32 := func(t api.ValueType) bool { return t == api.ValueTypeI32 }
		fits := len(f.ParamTypes()) == want.params && !slices.ContainsFunc(f.ParamTypes(), func(t api.ValueType) bool { return !i32(t) })
		if !fits || !slices.Equal(f.ResultTypes(), []api.ValueType{want.result}) {
			return h, fmt.Errorf("its function %s has other parameters or results", name)
		}
	}
	for _, name := range []string{fnAlloc, fnSetup} {
		if exports[name] == nil {
			return h, fmt.Errorf("it exports no function %s", name)
		}
	}
	if len(m.ExportedMemories()) == 0 {
		return h, errors.New("it exports no memory")
	}
	h.Request, h.Response = exports[fnRequest] != nil, exports[fnResponse] != nil
	if !h.Request && !h.Response {
		return h, external.ErrIdle
	}
	return h, nil
}

// provide makes what modules may import.
func (in *Inspector) provide(ctx context.Context) error {
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, in.runtime); err != nil {
		return err
	}
	_, err := in.runtime.NewHostModuleBuilder(hostModule).NewFunctionBuilder().WithFunc(logLine).Export(fnLog).Instantiate(ctx)
	return err
}

// Name returns the name that the config gives it.
func (in *Inspector) Name() string { return in.o.Name }

// Requests reports whether it looks at what goes to servers.
func (in *Inspector) Requests() bool { return in.hello.Request }

// Responses reports whether it looks at what comes back.
func (in *Inspector) Responses() bool { return in.hello.Response }

// InspectContent asks an instance. One that did not give a proper answer is
// given up.
func (in *Inspector) InspectContent(ctx context.Context, c *inspect.Content) inspect.Result {
	if !in.hello.Asks(c.Direction) {
		return inspect.Done()
	}
	fields, err := external.FieldsOf(ctx, c)
	if err != nil {
		return in.o.Failed(err.Error())
	}
	if int64(fields.BodySize) > in.o.MaxBody {
		return in.o.Failed("the body is longer than its max_body")
	}
	// Not the request's own: an instance whose caller went away would have to
	// be given up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), in.o.Timeout)
	defer cancel()
	answer, err := in.ask(ctx, fields)
	if err != nil {
		return in.o.Failed(err.Error())
	}
	return in.o.Answer(answer)
}

// ask waits for an instance and asks it. Its error is one for a reason. The
// message is written when there is one: a body of control characters is six times
// as long in it, and many may wait.
func (in *Inspector) ask(ctx context.Context, fields *external.Fields) (answer []byte, err error) {
	var i *instance
	select {
	case <-in.closed:
		return nil, errors.New("it has ended")
	case i = <-in.slots:
	case <-ctx.Done():
		return nil, errors.New("none of its instances was ready in time")
	}
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("it ended with a trap")
		}
		if err != nil {
			i.close()
			i = nil
		}
		in.slots <- i
	}()
	if i == nil {
		if i, err = in.newInstance(ctx); err != nil {
			in.o.Log.Warn("an inspector cannot be started again", "inspector", in.o.Name, "error", err)
			return nil, errors.New("it cannot be started again")
		}
	}
	message, err := external.Message{Deadline: in.o.Timeout.Milliseconds(), Call: fields.Direction, Context: fields}.Encode()
	if err != nil {
		return nil, errors.New("the message cannot be written")
	}
	f := i.request
	if fields.Direction == external.DirectionResponse {
		f = i.response
	}
	return i.call(ctx, f, message)
}

// Close gives up all instances. Those that are asked something finish first.
func (in *Inspector) Close() error {
	var err error
	in.once.Do(func() {
		close(in.closed)
		if in.runtime == nil {
			return
		}
		timer := time.NewTimer(in.o.Timeout)
		defer timer.Stop()
		for range in.made {
			select {
			case <-in.slots:
			case <-timer.C: // it is cut off
			}
		}
		err = in.runtime.Close(context.Background())
	})
	return err
}

// newInstance makes an instance and configures it.
func (in *Inspector) newInstance(ctx context.Context) (*instance, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	i := &instance{name: in.o.Name, log: in.o.Log}
	ctx = i.with(ctx)
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize").WithRandSource(rand.Reader)
	var err error
	if i.module, err = in.runtime.InstantiateModule(ctx, in.module, config); err != nil {
		return nil, fmt.Errorf("cannot start it: %w", reason(ctx, err))
	}
	i.alloc, i.request, i.response = i.module.ExportedFunction(fnAlloc), i.module.ExportedFunction(fnRequest), i.module.ExportedFunction(fnResponse)
	answer, err := i.call(ctx, i.module.ExportedFunction(fnSetup), in.setup)
	if err == nil {
		_, err = external.ParseHello(answer)
	}
	if err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}
