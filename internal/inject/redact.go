package inject

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Redactor replaces every known value by its placeholder, in whatever form it
// comes: see needles and escapes. A text without a value is returned as it is,
// byte for byte. The zero Redactor knows nothing. It is safe for concurrent
// use, and learns new values while streams run.
type Redactor struct {
	set atomic.Pointer[redactions]
}

// redactions is what is looked for, and how, at one time.
type redactions struct {
	m        *matcher
	names    []string // by id of needle
	lower    []string // values in lower case, by id
	shortest int      // of them
	levels   int
	escapes  escapes
}

// Active reports whether there is anything to look for. When there is not,
// nothing needs to be decoded.
func (r *Redactor) Active() bool { return r != nil && r.set.Load() != nil }

// String returns s without values: for the audit log, errors, and all that is
// kept or shown.
func (r *Redactor) String(s string) string {
	if !r.Active() || len(s) < minNeedle {
		return s
	}
	out, _ := r.set.Load().replaceString(s)
	return out
}

// Bytes returns b without values, and the names of those that were in it. When
// there were none it returns b itself.
func (r *Redactor) Bytes(b []byte) (out []byte, names []string) { return r.bytes(b, false) }

func (r *Redactor) bytes(b []byte, keepLength bool) (out []byte, names []string) {
	if !r.Active() || len(b) < minNeedle {
		return b, nil
	}
	return r.set.Load().replace(b, keepLength)
}

// replace returns b with what is put in, and the names of that.
func (set *redactions) replace(b []byte, keepLength bool) (out []byte, names []string) {
	s := redactionPool.Get().(*redaction)
	defer s.free()
	s.start(set, b, keepLength)
	if len(s.found) == 0 {
		return b, nil
	}
	out, s.out = append(s.out, b[s.sent:]...), nil
	return out, s.names()
}

// replaceString is replace that copies only what is changed.
func (set *redactions) replaceString(v string) (out string, names []string) {
	s := redactionPool.Get().(*redaction)
	defer s.free()
	s.scratch = append(s.scratch[:0], v...)
	s.start(set, s.scratch, false)
	if len(s.found) == 0 {
		return v, nil
	}
	return string(append(s.out, s.b[s.sent:]...)), s.names()
}

var redactionPool = sync.Pool{New: func() any { return new(redaction) }}

// maxScratch is the largest text whose buffer is kept for the next one.
const maxScratch = 64 << 10

// start redacts a whole text.
func (s *redaction) start(set *redactions, b []byte, keepLength bool) {
	s.set, s.keepLength = set, keepLength
	s.m, s.levels, s.view = set.m, set.levels, view{b: b, final: true, escapes: set.escapes}
	s.redact()
}

// free gives a redaction back without what it was about.
func (s *redaction) free() {
	work, scratch := s.work, s.scratch
	if cap(scratch) > maxScratch {
		scratch = nil
	}
	clear(scratch)
	*s = redaction{scratch: scratch[:0]}
	if cap(work) > len(s.room) {
		s.work = work
	}
	redactionPool.Put(s)
}

// Header replaces values in the values of a header or trailer, in place, and
// returns the names of those that were in it. A field whose name holds a value,
// in whatever case it came to us, is removed.
func (r *Redactor) Header(h http.Header) (names []string) {
	if !r.Active() {
		return nil
	}
	set := r.set.Load()
	for name, values := range h {
		if in := set.inName(name); len(in) > 0 {
			names = append(names, in...)
			delete(h, name)
			continue
		}
		for i, v := range values {
			if out, in := set.replaceString(v); len(in) > 0 {
				values = slices.Clone(values) // who else has the list is not known
				values[i] = out
				h[name] = values
				names = append(names, in...)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// inName returns the names of the secrets in the name of a field, of which
// nobody keeps the case.
func (set *redactions) inName(name string) (names []string) {
	_, names = set.replaceString(name)
	if len(name) < set.shortest {
		return names
	}
	name = strings.ToLower(name)
	for i, v := range set.lower {
		if strings.Contains(name, v) {
			names = append(names, set.names[i])
		}
	}
	return names
}

// redaction is one stream that is being redacted.
type redaction struct {
	search
	of    *Redactor // that it learns from; may be nil
	set   *redactions
	sent  int    // what is before it in the text is in out
	out   []byte // only when something was replaced
	found map[string]bool

	keepLength bool   // put in as many bytes as were taken out
	scratch    []byte // room for a text
}

func newRedaction(set *redactions) *redaction {
	return &redaction{set: set, search: search{m: set.m, levels: set.levels, view: view{escapes: set.escapes}}}
}

// redact goes as far as the text can be decided.
func (s *redaction) redact() {
	for {
		found, ok := s.find()
		if !ok {
			return
		}
		if found.end <= s.sent {
			continue // inside of one that was replaced
		}
		if found.start > s.sent {
			s.out = append(s.out, s.b[s.sent:found.start]...)
		}
		n := &s.m.needles[found.needle]
		s.out = append(s.out, s.replacement(n, found.end-max(found.start, s.sent))...)
		s.sent = found.end
		if s.found == nil {
			s.found = make(map[string]bool)
		}
		s.found[s.set.names[n.id]] = true
	}
}

// replacement is what takes the place of a match of size bytes.
func (s *redaction) replacement(n *needle, size int) []byte {
	if !s.keepLength {
		return n.with
	}
	out := make([]byte, size)
	for i := copy(out, n.with); i < size; i++ {
		out[i] = [numForms]byte{plainForm: '*', hexForm: '0', b64Form: 'A'}[n.form]
	}
	return out
}

func (s *redaction) names() []string {
	out := make([]string, 0, len(s.found))
	for name := range s.found {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// decided is the place up to which the text can be passed on.
func (s *redaction) decided() int {
	return min(max(s.next, s.sent), len(s.b))
}

// learn takes up what the Redactor has learned, when nothing hangs on what it
// knew before.
func (s *redaction) learn() {
	if s.of == nil || s.open {
		return
	}
	if set := s.of.set.Load(); set != s.set && set != nil {
		s.set, s.m = set, set.m
	}
}

// Stream is a reader that replaces values or placeholders in another one. It
// holds back only what may be the beginning of one, and passes on all that can
// be decided as it comes. It is not safe for concurrent use.
type Stream struct {
	src  io.Reader
	s    *redaction
	room []byte // the buffer that s.b lies in
	out  []byte // to be read
	err  error
}

// How much is read at once, in bytes: little, until there was more. Most streams
// that are open are events that come one by one.
const (
	firstSize  = 4 << 10
	streamSize = 64 << 10
)

// Reader returns a Stream that redacts src. An Active Redactor is needed.
func (r *Redactor) Reader(src io.Reader) *Stream {
	s := newRedaction(r.set.Load())
	s.of = r
	return &Stream{src: src, s: s}
}

// Names returns the names of the secrets that were replaced until now.
func (t *Stream) Names() []string { return t.s.names() }

// Read implements io.Reader.
func (t *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(t.out) == 0 {
		if t.err != nil {
			return 0, t.err
		}
		t.fill()
	}
	n := copy(p, t.out)
	t.out = t.out[n:]
	return n, nil
}

// fill reads once, and decides what it can.
func (t *Stream) fill() {
	s := t.s
	held := t.compact()
	n, err := t.read(held)
	s.b = t.room[:held+n]
	// What was read before an error is the last; a part of a value that was
	// cut off is no value.
	s.final = err != nil
	t.err = err
	s.redact()
	upTo := s.decided()
	if s.final {
		upTo = len(s.b)
	}
	if len(s.out) > 0 {
		s.out = append(s.out, s.b[s.sent:upTo]...)
		t.out = s.out
	} else {
		t.out = s.b[min(s.sent, upTo):upTo]
	}
	s.sent = max(s.sent, upTo)
	if t.err == nil && len(s.b)-s.next > maxHeld {
		t.err = errHeld
	}
	s.learn()
}

func (t *Stream) read(held int) (n int, err error) {
	for range 100 {
		if n, err = t.src.Read(t.room[held:]); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// compact moves what is held to the front of the buffer, makes room behind it,
// and returns how much it is.
func (t *Stream) compact() (held int) {
	s := t.s
	s.out = s.out[:0]
	keep := min(s.next, s.sent, len(s.b))
	held = len(s.b) - keep
	room := t.room
	size := firstSize
	if cap(room) > 0 && len(s.b) == cap(room) {
		size = streamSize // the last read filled it
	}
	if need := held + size; cap(room) < need {
		room = make([]byte, max(need, 2*held))
	}
	room = room[:cap(room)]
	if keep > 0 || cap(t.room) != cap(room) {
		copy(room, s.b[keep:])
	}
	t.room = room
	s.drop(keep)
	s.b = room[:held]
	s.sent -= keep
	return held
}

// errUndecodable is a response that cannot be looked at.
type errUndecodable struct{ why string }

func (e errUndecodable) Error() string { return "cannot redact the response: " + e.why }

// Undecodable reports an error that says that a response cannot be looked at,
// and must not be passed on.
func Undecodable(err error) bool {
	var e errUndecodable
	return errors.As(err, &e)
}
