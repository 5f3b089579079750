package wasm

import (
	"bytes"
	"context"
	"errors"
	"log/slog"

	"github.com/tetratelabs/wazero/api"

	"github.com/agentcage/agentcage/internal/inspect/external"
)

// instance is a module with a memory. It is asked by one goroutine at a time.
type instance struct {
	module                   api.Module
	alloc, request, response api.Function

	name string
	log  *slog.Logger
	left int // bytes that may still be logged for this message
}

type instanceKey struct{}

// with lets the host function find the instance that calls it.
func (i *instance) with(ctx context.Context) context.Context {
	i.left = mostLog
	return context.WithValue(ctx, instanceKey{}, i)
}

// logLine is agentcage.log. What a module wants to say may be a part of the
// content, so that it is for whoever debugs the module and not for the audit
// log.
func logLine(ctx context.Context, m api.Module, ptr, size uint32) {
	i, ok := ctx.Value(instanceKey{}).(*instance)
	if !ok || i.left <= 0 {
		return
	}
	i.left-- // an empty line is not for nothing
	text, ok := m.Memory().Read(ptr, min(size, uint32(i.left)))
	if !ok {
		return
	}
	i.left -= len(text)
	i.log.Debug("an inspector logs", "inspector", i.name, "text", string(text))
}

// call passes a message to a function and reads its answer, which is nil for
// 0. After an error the instance is of no use.
func (i *instance) call(ctx context.Context, f api.Function, message []byte) ([]byte, error) {
	ctx = i.with(ctx)
	at, err := i.alloc.Call(ctx, uint64(len(message)))
	if err != nil {
		return nil, reason(ctx, err)
	}
	memory := i.module.Memory()
	if ptr := uint32(at[0]); ptr == 0 || !memory.Write(ptr, message) {
		return nil, errors.New("it has no room for the message")
	}
	packed, err := f.Call(ctx, at[0], uint64(len(message)))
	if err != nil {
		return nil, reason(ctx, err)
	}
	ptr, size := uint32(packed[0]>>32), uint32(packed[0])
	if packed[0] == 0 {
		return nil, nil
	}
	if size > external.MaxAnswer {
		return nil, errors.New("its answer is too long")
	}
	answer, ok := memory.Read(ptr, size)
	if !ok {
		return nil, errors.New("its answer makes no sense")
	}
	return bytes.Clone(answer), nil
}

// reason says in fixed words what happened: what a trap says may name functions
// of the module, and is of no use to whoever reads the audit log.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("timeout")
	}
	if err != nil {
		return errors.New("it ended with a trap")
	}
	return nil
}

func (i *instance) close() {
	if i != nil && i.module != nil {
		_ = i.module.Close(context.Background()) // its memory goes with it
	}
}
