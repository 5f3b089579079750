package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// DefaultMaxBytes is the size at which an audit file becomes FILE.1.
const DefaultMaxBytes = 16 << 20

// checkEvery is how often a Writer looks whether its file was moved away.
const checkEvery = time.Second

// Options of a Writer.
type Options struct {
	// KeepAllowed keeps the records of allowed requests. Without it only
	// those are kept in which a secret was injected or redacted.
	KeepAllowed bool
	Redact      Redactor // nil changes nothing
	MaxBytes    int64    // 0 means DefaultMaxBytes
}

// Writer appends records to a file, one write(2) each. It is safe for
// concurrent use.
//
// The file is capped: when it is full it becomes FILE.1, replacing an older
// one, and a new file is begun. When that fails the record is still written
// and the error is returned, and at twice the cap nothing more is written.
type Writer struct {
	keepAllowed atomic.Bool
	failures    atomic.Uint64

	mu      sync.Mutex
	file    *os.File
	path    string // "" for standard error
	device  bool   // a character device, which is neither capped nor renamed
	size    int64
	max     int64
	torn    bool // the file does not end in a newline
	checked time.Time
	redact  Redactor
	buf     []byte
	lastErr error
}

var _ Sink = (*Writer)(nil)

// Open opens an audit file for appending, with mode 0640 and without following
// a symbolic link in its last element; "-" is standard error, which is never
// rotated. Only regular files and character devices are taken.
func Open(path string, o Options) (*Writer, error) {
	w := &Writer{max: o.MaxBytes, redact: o.Redact}
	if w.max <= 0 {
		w.max = DefaultMaxBytes
	}
	w.keepAllowed.Store(o.KeepAllowed)
	if path == "-" {
		w.file = os.Stderr
		return w, nil
	}
	w.path = path
	if err := w.reopen(os.O_CREATE); err != nil {
		return nil, err
	}
	return w, nil
}

// SetKeepAllowed changes what is kept, for a reload.
func (w *Writer) SetKeepAllowed(keep bool) { w.keepAllowed.Store(keep) }

// Path returns the path of the file, "-" for standard error.
func (w *Writer) Path() string {
	if w.path == "" {
		return "-"
	}
	return w.path
}

// Errors returns how many records met an error, and the latest error.
func (w *Writer) Errors() (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures.Load(), w.lastErr
}

// Put writes a record, if it is one that is kept.
func (w *Writer) Put(r Record) error {
	if !w.Keeps(&r) {
		return nil
	}
	r.complete()
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.put(&r)
	if err != nil {
		w.failures.Add(1)
		w.lastErr = err
	}
	return err
}

// Close closes the file. Put fails from then on.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.path == "" {
		return nil
	}
	return w.file.Close()
}

// Keeps implements Keeper. It holds what the original promised: an allowed request that had to do
// with a secret is always kept. So is one with findings that were not enforced,
// and what is no decision about a request.
func (w *Writer) Keeps(r *Record) bool {
	if decision(r.Decision) != "allowed" || w.keepAllowed.Load() {
		return true
	}
	switch r.Kind {
	case KindDNS, KindUpstream, KindReload, KindReloadFail, KindBudget:
		return true
	}
	return len(r.SecretsInjected) > 0 || len(r.SecretsRedacted) > 0 || len(r.Inspectors) > 0
}

func (w *Writer) put(r *Record) error {
	w.buf = w.buf[:0]
	if w.torn {
		w.buf = append(w.buf, '\n')
	}
	w.buf = r.Append(w.buf, w.redact)
	rotateErr := w.makeRoom(r.Time)
	if rotateErr != nil && w.size+int64(len(w.buf)) > 2*w.max {
		return fmt.Errorf("cannot write audit record: %s is full: %w", w.path, rotateErr)
	}
	n, err := w.file.Write(w.buf)
	w.size += int64(n)
	if n > 0 {
		w.torn = w.buf[n-1] != '\n'
	}
	if err != nil {
		return fmt.Errorf("cannot write audit record: %w", err)
	}
	return rotateErr
}

// makeRoom rotates when the next record does not fit, and begins a new file
// when somebody else moved ours away. The open file stays in use until a new
// one is there, so no record is lost between the two.
func (w *Writer) makeRoom(now time.Time) error {
	if w.path == "" || w.device {
		return nil
	}
	full := w.size+int64(len(w.buf)) > w.max && w.size > 0
	if !full && now.Sub(w.checked).Abs() < checkEvery {
		return nil
	}
	w.checked = now
	same, err := w.isOurs()
	if err != nil {
		return err
	}
	if !same {
		return w.reopen(os.O_CREATE)
	}
	if !full {
		return nil
	}
	if err := os.Rename(w.path, w.path+".1"); err != nil {
		return fmt.Errorf("cannot rotate audit file: %w", err)
	}
	return w.reopen(os.O_CREATE | os.O_EXCL)
}

// isOurs reports whether the path still names the file that is open.
func (w *Writer) isOurs() (bool, error) {
	named, err := os.Lstat(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot check audit file: %w", err)
	}
	open, err := w.file.Stat()
	if err != nil {
		return false, fmt.Errorf("cannot check audit file: %w", err)
	}
	return os.SameFile(named, open), nil
}

// reopen opens the path and, only when that worked, closes the file before.
func (w *Writer) reopen(flags int) error {
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_APPEND|syscall.O_NOFOLLOW|flags, 0o640)
	if err != nil {
		return fmt.Errorf("cannot open audit file: %w", err)
	}
	size, torn, device, err := examine(f)
	if err != nil {
		f.Close()
		return fmt.Errorf("cannot use audit file %s: %w", w.path, err)
	}
	if w.file != nil {
		w.file.Close()
	}
	if w.torn && len(w.buf) > 0 && w.buf[0] == '\n' && !torn {
		w.buf = w.buf[1:] // the newline was for the file before
	}
	w.file, w.size, w.torn, w.device = f, size, torn, device
	return nil
}

// examine takes access from others and finds out how the file ends.
func examine(f *os.File) (size int64, torn, device bool, err error) {
	st, err := f.Stat()
	switch {
	case err != nil:
		return 0, false, false, err
	case st.Mode()&fs.ModeCharDevice != 0:
		return 0, false, true, nil
	case !st.Mode().IsRegular():
		return 0, false, false, errors.New("it is no regular file")
	}
	if st.Mode().Perm()&^0o640 != 0 {
		if err := f.Chmod(st.Mode().Perm() & 0o640); err != nil {
			return 0, false, false, err
		}
	}
	if st.Size() == 0 {
		return 0, false, false, nil
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], st.Size()-1); err != nil && err != io.EOF {
		return 0, false, false, err
	}
	return st.Size(), last[0] != '\n', false, nil
}
