package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/record"
)

// Check asks every plugin of every attachment of the sandbox whether it is still as its ADD left
// it. All attachments are asked; the failures are joined.
func (e *Engine) Check(ctx context.Context, req *Request) error {
	return e.operate(ctx, Check, req, func(ctx context.Context, _ *events) error {
		defer e.tend(ctx)
		return e.check(ctx, req)
	})
}

// check has the sandbox checked by who made it: Braid, or what was there before Braid came.
func (e *Engine) check(ctx context.Context, req *Request) error {
	if err := e.notNode(req.NetNS); err != nil {
		return err
	}
	sandbox, err := e.lock(ctx, req.ContainerID)
	if err != nil {
		return err
	}
	defer e.unlock(sandbox)
	rec, err := sandbox.Load()
	w := &work{e, req, sandbox, rec}
	if errors.Is(err, fs.ErrNotExist) {
		if handed, err := w.handOver(ctx, Check); handed || err != nil {
			return err
		}
		return notAttached(req)
	}
	if err != nil {
		return err
	}
	if !rec.Complete {
		return notAttached(req)
	}
	return w.asAdded(req.NetNS).checkAttachments(ctx)
}

// notAttached is the error of a sandbox that no ADD came to its end for.
func notAttached(req *Request) error {
	return &failure.Error{
		Reason: failure.UnknownSandbox, Err: fmt.Errorf("container %s is not attached", req.ContainerID),
		Fix: "the sandbox must be made anew: delete the pod",
	}
}

// checkAttachments checks all attachments but those that a DEL left.
func (w *work) checkAttachments(ctx context.Context) error {
	var errs []error
	for i := range w.rec.Attachments {
		if w.rec.Attachments[i].State == record.Owed {
			continue
		}
		errs = append(errs, w.checkAttachment(ctx, &w.rec.Attachments[i]))
	}
	return errors.Join(errs...)
}

// checkAttachment runs the CHECK of an attachment's plugins. libcni hands them the result of the
// ADD, which the record restores in its cache.
func (w *work) checkAttachment(ctx context.Context, a *record.Attachment) (err error) {
	defer func(start time.Time) { w.chainDone(ctx, Check, &a.Attachment, start, err) }(time.Now())
	chain, err := w.prepare(&a.Attachment, w.req.NetNS)
	if err != nil {
		return chainError(err, &a.Attachment)
	}
	if err := w.restoreCache(chain, a); err != nil {
		return chainError(err, &a.Attachment)
	}
	err = chain.cni.CheckNetworkList(ctx, chain.known, chain.rt)
	// A chain before CNI 0.4.0 has no CHECK, so there is nothing that it could fail.
	if err != nil && !errors.Is(err, libcni.ErrorCheckNotSupp) {
		return adviceError(err, &a.Attachment, adviceCheck)
	}
	return nil
}
