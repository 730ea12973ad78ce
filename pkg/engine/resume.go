package engine

import (
	"context"
	"errors"
	"io/fs"

	"github.com/braid-cni/braid/pkg/record"
)

// resume finishes what operations on other sandboxes began and nobody will come back to: a runtime whose ADD and whose DEL after
// it were both killed may forget the sandbox. A sandbox counts as given up when an operation on it did not come to its end,
// nobody is at work on it, and its network namespace is gone. DEL and GC do this after their own work; it never fails them, and what it cannot
// finish stays for the next.
func (e *Engine) resume(ctx context.Context, req *Request) {
	ids, err := e.Records.Unfinished()
	if err != nil {
		e.Log.WarnContext(ctx, "unfinished sandboxes not found out", "error", err)
	}
	for _, id := range ids {
		if id == req.ContainerID { // it had its turn
			continue
		}
		if err := e.resumeSandbox(ctx, req, id); err != nil {
			e.Log.WarnContext(ctx, "unfinished sandbox not cleaned up", "container", id, "error", err)
		}
	}
}

func (e *Engine) resumeSandbox(ctx context.Context, req *Request, id string) error {
	var locked *record.Sandbox
	err := e.trace("try lock "+id, func() (err error) {
		locked, err = e.Records.TryLock(id)
		return err
	})
	if err != nil || locked == nil {
		return err
	}
	rec, err := locked.Load()
	if err == nil && e.Namespaces.Alive(rec.NetNS) {
		locked.Release()
		return nil
	}
	sandbox := e.open(locked)
	defer e.unlock(sandbox)
	if errors.Is(err, fs.ErrNotExist) { // only the lock file was left; the unlock removes it
		return nil
	}
	if err != nil {
		return err
	}
	return e.teardownOther(ctx, req, sandbox, rec, id)
}
