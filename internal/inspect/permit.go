package inspect

import (
	"context"
	"runtime"
	"time"
)

// permits bound how many contents that decode to much are looked at at one time.
// A body of half a megabyte can decode to 96 MiB, so that what is kept of bodies
// bounds nothing, and a hundred of those at once would take ten gigabytes. More
// than there are processors would not be done sooner.
var permits = make(chan struct{}, max(4, runtime.GOMAXPROCS(0)))

// permitTime is how long a content waits for its turn.
const permitTime = time.Minute

// permit is what one content has of them. It never waits for a second one, so
// nobody waits for each other.
type permit struct {
	wanted bool // the content is being decided, and gives back what it takes
	taken  bool
}

// take waits for a permit. It is for decode.Limits.
func (p *permit) take(ctx context.Context) bool {
	if !p.wanted || p.taken {
		return true
	}
	t := time.NewTimer(permitTime)
	defer t.Stop()
	select {
	case permits <- struct{}{}:
		p.taken = true
	case <-ctx.Done():
	case <-t.C:
	}
	return p.taken
}

func (p *permit) giveBack() {
	if p.taken {
		<-permits
	}
	p.wanted, p.taken = false, false
}
