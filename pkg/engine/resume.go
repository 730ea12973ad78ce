package engine

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/braid-cni/braid/pkg/record"
)

// resumeBudget is how long a DEL works for sandboxes that are not its own.
const resumeBudget = time.Second

// resume finishes what operations on other sandboxes began and nobody will come back to: a runtime
// whose ADD and whose DEL after it were both killed may forget the sandbox. A sandbox counts as
// given up when an operation on it did not come to its end, nobody is at work on it, and its
// network namespace is gone. DEL and GC do this after their own work; it never fails them, and what
// it cannot finish stays for the next.
//
// Within a pod's DEL, as a guest, it takes a second in all, leaves a sandbox alone for a while
// after each try, longer each time, and runs no plugin that is not built in: another pod's plugin
// may hang, and this pod is not to wait for it. GC takes its time.
func (e *Engine) resume(ctx context.Context, req *Request, guest bool) {
	ids, err := e.Records.Unfinished()
	if err != nil {
		e.Log.WarnContext(ctx, "unfinished sandboxes not found out", "error", err)
	}
	if guest {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, resumeBudget)
		defer cancel()
	}
	for _, id := range ids {
		if id == req.ContainerID { // it had its turn
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if err := e.resumeSandbox(ctx, req, id, guest); err != nil {
			e.Log.WarnContext(ctx, "unfinished sandbox not cleaned up", "container", id, "error", err)
		}
	}
}

// resumeSandbox removes a sandbox that is given up. It does nothing if it is not, or if an
// operation is at work on it.
func (e *Engine) resumeSandbox(ctx context.Context, req *Request, id string, guest bool) error {
	if guest && !e.Records.Due(id) {
		return nil
	}
	var locked *record.Sandbox
	err := e.trace("try lock "+id, func() (err error) {
		locked, err = e.Records.TryLock(id)
		return err
	})
	if err != nil || locked == nil {
		return err
	}
	rec, err := locked.Load()
	if keep, kerr := e.keeps(req, rec, err); keep {
		locked.Release()
		return kerr
	}
	sandbox := e.open(locked)
	defer e.unlock(sandbox)
	if errors.Is(err, fs.ErrNotExist) { // only the lock file was left; the unlock removes it
		return nil
	}
	if err == nil && guest {
		err = sandbox.beGuest()
	}
	if err != nil {
		return err
	}
	return (&work{e, ofSandbox(req, id), sandbox, rec}).teardownOther(ctx)
}

// keeps reports whether a sandbox, of whose Load rec and err are, is left to others: its network
// namespace is there, or that cannot be found out; or a later Braid wrote the record, whose marks
// are for that one.
func (e *Engine) keeps(req *Request, rec *record.Record, err error) (bool, error) {
	if err != nil {
		return errors.Is(err, record.ErrLater), nil
	}
	netns, err := e.namespaceOf(ofSandbox(req, rec.ContainerID), rec)
	return netns != "" || err != nil, err
}

// beGuest has the sandbox worked on within another pod's operation.
func (s *sandbox) beGuest() error {
	s.guest = true
	return s.PutOff()
}

// errForeign is the error of an attachment that is not removed within another pod's operation.
var errForeign = errors.New("left for GC, as a plugin of its chain is not built in")
