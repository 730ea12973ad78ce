package invoke

import (
	"context"
	"math"
)

// Unlimited is room for more attachments than there will ever be.
const Unlimited uint64 = math.MaxUint64

// Room returns for how many more attachments a plugin has what they need on this node. Of a plugin
// that is not built in it is not known, and so Unlimited. One that is built in is asked also where
// a binary of its type would run: what there is does not depend on who takes it.
func (e *Exec) Room(ctx context.Context, kind string, call *Call) (uint64, error) {
	if e.Builtin[kind] == nil {
		return Unlimited, nil
	}
	prepared, err := e.prepare(kind, call.Stdin)
	if err != nil {
		return 0, invalidConfig(kind, err)
	}
	if prepared.Room == nil {
		return Unlimited, nil
	}
	return prepared.Room(ctx, call)
}
