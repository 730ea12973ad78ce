package watch

import (
	"sync"
	"sync/atomic"
	"time"

	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// seen is what an informer has seen of one kind.
type seen struct {
	store    cache.Store
	informer cache.Controller
	// heard is when the watch showed a sign of life: a change, or a bookmark, which the API server
	// sends about once a minute.
	heard atomic.Pointer[time.Time]
}

func (s *seen) watch(o cache.InformerOptions) {
	o.Handler = cache.ResourceEventHandlerFuncs{}
	s.store, s.informer = cache.NewInformerWithOptions(o)
}

// fresh reports whether the memory has all that there was MaxAge ago.
func (s *seen) fresh() bool {
	heard := s.heard.Load()
	return heard != nil && time.Since(*heard) < MaxAge && s.informer.HasSynced()
}

// find returns an object in memory; nil for none.
func (s *seen) find(key string) *remembered {
	if !s.fresh() {
		return nil
	}
	o, _, err := s.store.GetByKey(key)
	if err != nil {
		return nil
	}
	r, _ := o.(*remembered)
	return r
}

// hear notes the signs of life of a watch.
func (s *seen) hear(w apiwatch.Interface, err error) (apiwatch.Interface, error) {
	if err != nil {
		return nil, err
	}
	s.heard.Store(new(time.Now()))
	h := &hearing{Interface: w, out: make(chan apiwatch.Event), stopped: make(chan struct{})}
	go h.pass(s)
	return h, nil
}

// hearing is a watch that is listened to. It ends when it is stopped, whoever still reads.
type hearing struct {
	apiwatch.Interface

	out     chan apiwatch.Event
	stopped chan struct{}
	once    sync.Once
}

// ResultChan implements apiwatch.Interface.
func (h *hearing) ResultChan() <-chan apiwatch.Event { return h.out }

// Stop implements apiwatch.Interface.
func (h *hearing) Stop() {
	h.once.Do(func() { close(h.stopped) })
	h.Interface.Stop()
}

func (h *hearing) pass(s *seen) {
	defer close(h.out)
	for event := range h.Interface.ResultChan() {
		if event.Type != apiwatch.Error {
			s.heard.Store(new(time.Now()))
		}
		select {
		case h.out <- event:
		case <-h.stopped:
			return
		}
	}
}
