package proxy

import (
	"context"
	"errors"
	"io"
	"sync"
)

// kept is content in memory. It grows with what arrives, not with what is
// announced, and its buffer is used again when the last who has it lets go.
type kept struct {
	share share
	buf   []byte
	n     int

	mu    sync.Mutex
	users int
}

// newKept returns one that its maker has to drop.
func newKept(m *memory) *kept { return &kept{share: share{of: m}, users: 1} }

func (k *kept) bytes() []byte { return k.buf[:k.n] }

// fill adds what comes from r until there are limit bytes or r ends, which is
// what whole says.
func (k *kept) fill(ctx context.Context, r io.Reader, limit int, p *pace) (whole bool, err error) {
	for k.n < limit {
		if k.n == len(k.buf) {
			if err := k.grow(ctx, p); err != nil {
				return false, err
			}
		}
		n, err := r.Read(k.buf[k.n:min(len(k.buf), limit)])
		k.n += n
		p.moved(n)
		if err != nil {
			return err == io.EOF, notEOF(err)
		}
	}
	return false, nil
}

func notEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// grow doubles the buffer.
func (k *kept) grow(ctx context.Context, p *pace) error {
	size := bufferSize(2 * len(k.buf))
	resume := p.pause()
	err := k.share.Grow(ctx, int64(size))
	resume()
	if err != nil {
		return err
	}
	bigger := getBuffer(size)
	copy(bigger, k.bytes())
	putBuffer(k.buf)
	k.buf = bigger
	return nil
}

// keepEnd forgets all but the last n bytes, and what a buffer for most bytes
// does not need. Nobody else may use the content.
func (k *kept) keepEnd(n, most int) {
	end := k.buf[k.n-n : k.n]
	size := bufferSize(most)
	if len(k.buf) <= size {
		k.n = copy(k.buf, end)
		return
	}
	smaller := getBuffer(size)
	k.n = copy(smaller, end)
	putBuffer(k.buf)
	k.buf = smaller
	k.share.shrink(int64(size))
}

// clear gives up all memory. Nobody else may use the content.
func (k *kept) clear() {
	putBuffer(k.buf)
	k.buf, k.n = nil, 0
	k.share.Release()
}

func (k *kept) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.users--; k.users == 0 {
		k.clear()
	}
}

// open gives the content to one more user, who has to close it.
func (k *kept) open() (io.ReadCloser, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.users == 0 {
		return nil, errClosedBody // an empty body would look whole
	}
	k.users++
	return &keptReader{k: k}, nil
}

// keptReader may be closed while it is read: a transport does that.
type keptReader struct {
	mu sync.Mutex
	k  *kept
	at int
}

var errClosedBody = errors.New("the body is closed")

func (r *keptReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.k == nil:
		return 0, errClosedBody
	case r.at == r.k.n:
		return 0, io.EOF
	}
	n := copy(p, r.k.bytes()[r.at:])
	r.at += n
	return n, nil
}

func (r *keptReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.k != nil {
		r.k.drop()
		r.k = nil
	}
	return nil
}
