package block

import (
	"context"
	"sync"
	"time"
)

const (
	// aheadOf is how many addresses a node keeps ready for the Adds to come: a quarter of a block.
	aheadOf = Size / 4
	// aheadAgain is when blocks are tried again for a range in which none could be had.
	aheadAgain = time.Minute
	// aheadWithin bounds the time of one try.
	aheadWithin = 30 * time.Second
)

// Ahead reserves blocks in the background: the next one of a range when an Add has left less than a
// quarter of a block free. So an Add seldom waits for the API. A range that no Add on this node was
// of has no block. Its zero value is ready.
type Ahead struct {
	once sync.Once
	wake chan struct{}

	mu      sync.Mutex
	waiting map[string]reservation // by the key of the wish
	later   map[string]time.Time   // when a range is tried again
}

// reservation is what is to be reserved.
type reservation struct {
	manager *Manager
	wish    Wish
}

func (a *Ahead) init() { a.once.Do(func() { a.wake = make(chan struct{}, 1) }) }

// After is called when an Add has got addresses for the wishes. It does not wait. The manager is
// used by Run.
func (a *Ahead) After(m *Manager, wishes []Wish) {
	a.init()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range wishes {
		if w.Asked.IsValid() || m.now().Before(a.later[w.key()]) {
			continue
		}
		if a.waiting == nil {
			a.waiting = map[string]reservation{}
		}
		a.waiting[w.key()] = reservation{m, w}
	}
	select {
	case a.wake <- struct{}{}:
	default: // it is awake already
	}
}

// Run reserves until ctx is done.
func (a *Ahead) Run(ctx context.Context) {
	a.init()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		for key, r, ok := a.next(); ok && ctx.Err() == nil; key, r, ok = a.next() {
			if !r.reserve(ctx) {
				a.putOff(key, r.manager.now())
			}
		}
	}
}

// next takes one of the ranges that wait; ok is false if none does.
func (a *Ahead) next() (key string, r reservation, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, r = range a.waiting {
		delete(a.waiting, key)
		return key, r, true
	}
	return "", reservation{}, false
}

// putOff leaves a range alone for a while.
func (a *Ahead) putOff(key string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.later == nil {
		a.later = map[string]time.Time{}
	}
	for other, at := range a.later {
		if !now.Before(at) {
			delete(a.later, other)
		}
	}
	a.later[key] = now.Add(aheadAgain)
}

// reserve reports whether the addresses are there now. That they cannot be had is no error: the Add
// that needs one says why.
func (r *reservation) reserve(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, aheadWithin)
	defer cancel()
	there, err := r.manager.ReserveAhead(ctx, r.wish)
	if err != nil {
		r.manager.Log.DebugContext(ctx, "no block is reserved", "range", r.wish, "error", err)
	}
	return there
}

// ReserveAhead reserves the next block for a wish if the blocks of this node have less than a
// quarter of a block free for it. there: they have as much now. The API is asked nothing if they
// had.
func (m *Manager) ReserveAhead(ctx context.Context, w Wish) (there bool, err error) {
	wishes := make([]Wish, aheadOf)
	for i := range wishes {
		wishes[i] = w
	}
	has := func() (bool, error) {
		return inside(ctx, m, func(s *session) (bool, error) {
			_, missing, err := s.pickAll(wishes)
			return missing < 0, err
		})
	}
	if there, err = has(); there || err != nil {
		return there, err
	}
	if err := m.Reserve(ctx, wishes...); err != nil {
		return false, err
	}
	return has()
}
