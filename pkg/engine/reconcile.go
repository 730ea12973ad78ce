package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/record"
)

// This file holds what is done for sandboxes beside the operations that a runtime asks for: it may
// have forgotten one and never send its DEL.

// Recorded returns the marks of all records.
func (e *Engine) Recorded() ([]record.Mark, error) { return e.Records.Marks() }

// RemoveForgotten removes a sandbox that its runtime, a program of that name, does not know, and
// reports whether it did. It does nothing if the record was written since it was marked, is of
// another program, or of no pod, or if an operation on the sandbox is at work.
func (e *Engine) RemoveForgotten(
	ctx context.Context, mark record.Mark, runtime string,
) (removed bool, err error) {
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	start, id := time.Now(), mark.ContainerID
	locked, err := e.Records.TryLock(id)
	if err != nil || locked == nil {
		return false, err
	}
	sandbox := e.open(locked)
	defer e.unlock(sandbox)
	rec, err := sandbox.loadMarked(mark)
	if err != nil || rec == nil || !isPodOf(rec, runtime) {
		return false, err
	}
	w := &work{e, ofSandbox(&Request{Call: &conf.Call{}}, id), sandbox, rec}
	err = w.teardownOther(ctx)
	if err == nil {
		err = e.forgetInRuntime(id)
	}
	e.operationDone(ctx, Reconcile, start, err, "pod", rec.Pod.String(), "container", id, "created",
		rec.Created)
	return err == nil, err
}

// loadMarked reads the record as it was when it was marked; nil if it was written since, or is
// gone.
func (s *sandbox) loadMarked(mark record.Mark) (*record.Record, error) {
	rec, err := s.Load()
	if notOurs(err) {
		return nil, nil //nolint:nilnil // nil is documented
	}
	if err != nil {
		return nil, err
	}
	if now, err := s.Mark(); err != nil || now != mark {
		return nil, err
	}
	return rec, nil
}

// isPodOf reports whether a record is of a pod that a runtime of that name attached, and has more
// than what its DEL left.
func isPodOf(rec *record.Record, runtime string) bool {
	return runtime != "" && rec.Runtime == runtime && rec.Pod.UID != "" &&
		len(rec.Attachments) > len(rec.Owed())
}

// Leftovers returns the sandboxes that have something left which none of their operations may come
// back to: an operation did not come to its end, or plugins refused to remove what is owed.
func (e *Engine) Leftovers() (ids []string, err error) {
	ids, err = e.Records.Unfinished()
	records, rerr := e.Records.Read()
	for _, rec := range records {
		if len(rec.Owed()) > 0 && !slices.Contains(ids, rec.ContainerID) {
			ids = append(ids, rec.ContainerID)
		}
	}
	return ids, errors.Join(err, rerr)
}

// Settle removes what it can of a sandbox that Leftovers named: all of it if its network namespace
// is gone, and what is owed in any case. It is no error if an operation on the sandbox is at work.
func (e *Engine) Settle(ctx context.Context, containerID string) error {
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	if err := record.ValidateContainerID(containerID); err != nil {
		return err
	}
	req := &Request{Call: &conf.Call{}}
	return errors.Join(e.resumeSandbox(ctx, req, containerID, false),
		e.settleOwed(ctx, req, containerID))
}

// settleOwed removes what it can of what the DEL of a sandbox left.
func (e *Engine) settleOwed(ctx context.Context, req *Request, id string) error {
	locked, err := e.Records.TryLock(id)
	if err != nil || locked == nil {
		return err
	}
	sandbox := e.open(locked)
	defer e.unlock(sandbox)
	rec, err := sandbox.Load()
	if notOurs(err) || err == nil && len(rec.Owed()) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	w := &work{e, ofSandbox(req, id), sandbox, rec}
	return w.ofPod(w.settle(ctx))
}
