package inspect

import (
	"hash/maphash"
	"slices"
	"sync/atomic"

	"github.com/agentcage/agentcage/internal/decode"
)

// Most of a head is the same in each request of a client: its name, what it
// accepts, the host. Such texts are remembered with what they decode to and
// with who found nothing in them, so that it is not looked for again.
const (
	// remembered is how many texts are. One takes the place of another, so
	// that nothing a client sends makes it more.
	remembered = 1 << 10
	// longestQuiet and longestName bound what one of them takes, in bytes.
	longestQuiet = 255
	longestName  = 64
	// mostKeys is how many find nothing in a text and have it remembered: more
	// than there are inspectors, since a reload brings new ones.
	mostKeys = 4
)

// Quiet is a text that came before and decodes to nothing. It is safe for
// concurrent use, and nil is one of which nothing is known.
type Quiet struct {
	place       Place
	name, value string
	single      decode.Single
	tree        *decode.Tree
	keys        atomic.Pointer[[]any]
}

// Is reports whether Add was called with a key.
func (q *Quiet) Is(key any) bool {
	if q == nil {
		return false
	}
	keys := q.keys.Load()
	return keys != nil && slices.Contains(*keys, key)
}

// Add remembers that there is nothing in the text. The key stands for
// everything beside the text, its place and its name that this depends on: what
// depends on the host or on other texts must not be remembered.
func (q *Quiet) Add(key any) {
	if q == nil {
		return
	}
	before := q.keys.Load()
	keys := []any{key}
	if before != nil {
		keys = append(keys, (*before)[:min(len(*before), mostKeys-1)]...)
	}
	q.keys.CompareAndSwap(before, &keys) // whoever was first: the other one comes again
}

var (
	quietSeed = maphash.MakeSeed()
	quiets    [remembered]atomic.Pointer[Quiet]
	// sightings are the hashes of texts that came once. What comes once only,
	// such as the number of a request, is not worth its memory.
	sightings [remembered]atomic.Uint64
)

// recall returns what is remembered of a text. again is the hash of one that
// came before and is not, and may now; 0 is none.
func recall(p Place, name, value string) (q *Quiet, again uint64) {
	if len(value) > longestQuiet || len(name) > longestName {
		return nil, 0
	}
	h := maphash.String(quietSeed, value) + uint64(p)<<56 + uint64(len(name))<<48
	q = quiets[h%remembered].Load()
	if q != nil && q.place == p && q.name == name && q.value == value {
		return q, 0
	}
	if sightings[h%remembered].Swap(h) == h {
		return nil, h
	}
	return nil, 0
}

// remember keeps a text that decodes to nothing.
func remember(h uint64, p Place, name, value string) *Quiet {
	q := &Quiet{place: p, name: name, value: value}
	q.tree = q.single.Tree([]byte(value))
	quiets[h%remembered].Store(q)
	return q
}
