package engine

import (
	"context"
	"time"
)

// Upkeep does for the node as a whole what is due now and then, whichever sandbox an operation is
// of: other nodes may wait for it.
type Upkeep interface {
	// Tend is quick where nothing is due.
	Tend(ctx context.Context) error
}

// tendWithin bounds what an operation does for the node beside its own business.
const tendWithin = time.Second

// tend does what is due after an operation's own work, whatever became of that. STATUS does not: it
// asks the API nothing. An error is none of the operation's, and what is left stays due.
func (e *Engine) tend(ctx context.Context) {
	if e.Upkeep == nil || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tendWithin)
	defer cancel()
	if err := e.Upkeep.Tend(ctx); err != nil {
		e.Log.WarnContext(ctx, "what the node owes the cluster is left to the next operation",
			"error", err)
	}
}
