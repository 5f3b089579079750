package ca

import (
	"container/list"
	"crypto/tls"
	"sync"
	"time"

	"github.com/agentcage/agentcage/internal/hostname"
)

// lru keeps the certificates used last. The zero lru with a max is ready.
type lru struct {
	max int

	mu    sync.Mutex
	order list.List // of *leaf, the one used last in front
	byKey map[hostname.Name]*list.Element
}

type leaf struct {
	name  hostname.Name
	cert  *tls.Certificate
	until time.Time
}

// get returns nil when there is none or its time is over.
func (l *lru) get(name hostname.Name, now time.Time) *tls.Certificate {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.byKey[name]
	if e == nil {
		return nil
	}
	if lf := e.Value.(*leaf); now.Before(lf.until) {
		l.order.MoveToFront(e)
		return lf.cert
	}
	l.remove(e)
	return nil
}

func (l *lru) add(name hostname.Name, cert *tls.Certificate, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKey == nil {
		l.byKey = make(map[hostname.Name]*list.Element)
	}
	if e := l.byKey[name]; e != nil {
		l.remove(e)
	}
	l.byKey[name] = l.order.PushFront(&leaf{name, cert, until})
	for l.order.Len() > l.max {
		l.remove(l.order.Back())
	}
}

func (l *lru) remove(e *list.Element) {
	delete(l.byKey, e.Value.(*leaf).name)
	l.order.Remove(e)
}

func (l *lru) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.order.Len()
}
