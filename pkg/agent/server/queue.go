package server

import (
	"context"
	"sync"
)

// queue lets a number of calls work at once. Urgent ones that wait come before others, and else who
// came first does.
type queue struct {
	observer Observer

	mu      sync.Mutex
	free    int
	working int
	waiting [2][]chan struct{} // urgent ones first
}

func newQueue(workers int, observer Observer) *queue {
	return &queue{free: workers, observer: observer}
}

// enter waits for the call's turn. leave ends it.
func (q *queue) enter(ctx context.Context, urgent bool) (leave func(), err error) {
	turn := make(chan struct{})
	q.mu.Lock()
	if q.free > 0 {
		q.free--
		q.working++
		close(turn)
	} else {
		line := q.line(urgent)
		*line = append(*line, turn)
	}
	q.observe()
	q.mu.Unlock()
	select {
	case <-turn:
		return q.leave, nil
	default:
	}
	select {
	case <-turn:
		return q.leave, nil
	case <-ctx.Done():
		q.giveUp(turn, urgent)
		return nil, context.Cause(ctx)
	}
}

func (q *queue) line(urgent bool) *[]chan struct{} {
	if urgent {
		return &q.waiting[0]
	}
	return &q.waiting[1]
}

// giveUp leaves the line; if it was the call's turn by now, the next one's.
func (q *queue) giveUp(turn chan struct{}, urgent bool) {
	q.mu.Lock()
	line := q.line(urgent)
	for i, other := range *line {
		if other == turn {
			*line = append((*line)[:i], (*line)[i+1:]...)
			q.observe()
			q.mu.Unlock()
			return
		}
	}
	q.mu.Unlock()
	q.leave()
}

func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.working--
	q.free++
	for i := range q.waiting {
		if len(q.waiting[i]) > 0 && q.free > 0 {
			q.free--
			q.working++
			close(q.waiting[i][0])
			q.waiting[i] = q.waiting[i][1:]
		}
	}
	q.observe()
}

func (q *queue) observe() {
	if q.observer != nil {
		q.observer.Queue(len(q.waiting[0])+len(q.waiting[1]), q.working)
	}
}
