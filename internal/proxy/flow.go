package proxy

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/agentcage/agentcage/internal/inspect"
)

// flow is something that a decision allowed or is about to allow, with the head
// that it was decided by: a request, a WebSocket or a tunnel.
type flow struct {
	req    inspect.Request
	id     string
	kind   string // of audit records
	cancel context.CancelCauseFunc
	unread atomic.Uint32 // what of it goes on without being read

	injected, redacted []string // names of secrets, for audit records

	prev, next *flow // of flows.list
}

// endedError is the cause of a flow that was ended by us.
type endedError struct{ reason string }

func (e *endedError) Error() string { return e.reason }

// flows are those that run now. A flow is added before it is decided, so that
// a policy that comes in between sees it.
type flows struct {
	mu    sync.Mutex
	first *flow
	n     int
	empty chan struct{} // closed when n becomes 0; nil when nobody waits
}

func (fs *flows) add(f *flow) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.next = fs.first
	if f.next != nil {
		f.next.prev = f
	}
	fs.first = f
	fs.n++
}

func (fs *flows) remove(f *flow) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		fs.first = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	}
	f.prev, f.next = nil, nil
	fs.n--
	if fs.n == 0 && fs.empty != nil {
		close(fs.empty)
		fs.empty = nil
	}
}

func (fs *flows) snapshot() []*flow {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	out := make([]*flow, 0, fs.n)
	for f := fs.first; f != nil; f = f.next {
		out = append(out, f)
	}
	return out
}

func (fs *flows) cancelAll(cause error) {
	for _, f := range fs.snapshot() {
		f.cancel(cause)
	}
}

// wait returns when nothing runs, or with the error of ctx.
func (fs *flows) wait(ctx context.Context) error {
	fs.mu.Lock()
	if fs.n == 0 {
		fs.mu.Unlock()
		return nil
	}
	if fs.empty == nil {
		fs.empty = make(chan struct{})
	}
	empty := fs.empty
	fs.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
