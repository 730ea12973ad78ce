package watch

import (
	"sync"
	"sync/atomic"
	"time"

	apiwatch "k8s.io/apimachinery/pkg/watch"
)

// seen is when the watch of an informer showed a sign of life: a change, or a bookmark, which the
// API server sends about once a minute.
type seen struct {
	heard atomic.Pointer[time.Time]
}

// recent reports whether that was less than MaxAge ago.
func (s *seen) recent() bool {
	heard := s.heard.Load()
	return heard != nil && time.Since(*heard) < MaxAge
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

// pass hands events on, and notes when the last one came. It ends with the watch or with Stop.
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
