package warm

import (
	"context"
	"sync"
)

// heldKey is the context's key of what is held back until a call has its answer.
type heldKey struct{}

// held is what a call leaves for the time after its answer.
type held struct {
	mu  sync.Mutex
	all []func()
}

// withHeld has afterCall leave things to h.
func withHeld(ctx context.Context, h *held) context.Context {
	return context.WithValue(ctx, heldKey{}, h)
}

// afterCall has a thing be done when the call of ctx has its answer, which then does not wait for
// it. If ctx is of no call it is done at once. It must not block.
func afterCall(ctx context.Context, do func()) {
	h, ok := ctx.Value(heldKey{}).(*held)
	if !ok {
		do()
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, do)
}

// release does it.
func (h *held) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, do := range h.all {
		do()
	}
	h.all = nil
}
