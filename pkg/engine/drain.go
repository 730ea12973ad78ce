package engine

import (
	"context"
	"errors"

	"github.com/braid-cni/braid/pkg/conf"
)

// Drain removes what is recorded of sandboxes whose network namespace is gone. Nobody else does
// when the runtime has another configuration by now, and sends no DEL for them. It goes on past
// errors, and returns the number of sandboxes that are left; one that has nothing but what is owed
// does not count.
func (e *Engine) Drain(ctx context.Context) (left int, err error) {
	ids, err := e.Records.List()
	if err != nil {
		return 0, err
	}
	errs := make([]error, 0, len(ids)+1)
	req := &Request{Call: &conf.Call{}}
	for _, id := range ids {
		errs = append(errs, e.resumeSandbox(ctx, req, id, false))
	}
	records, err := e.Records.Read()
	recorded := map[string]bool{}
	for _, rec := range records {
		recorded[rec.ContainerID] = true
		if len(rec.Attachments) > len(rec.Owed()) {
			left++
		}
	}
	for _, id := range ids {
		if err == nil && !recorded[id] {
			errs = append(errs, e.forgetInRuntime(id))
		}
	}
	return left, errors.Join(append(errs, err)...)
}
