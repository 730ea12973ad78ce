package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/status"
	"github.com/braid-cni/braid/pkg/undo"
)

// Del removes all attachments of the sandbox. It succeeds when nothing is left, or nothing was
// there.
func (e *Engine) Del(ctx context.Context, req *Request) error {
	return e.operate(ctx, Del, req, func(ctx context.Context, _ *events) error {
		defer e.tend(ctx)
		defer e.resume(ctx, req, true)
		return e.del(ctx, req)
	})
}

func (e *Engine) del(ctx context.Context, req *Request) error {
	sandbox, err := e.lock(ctx, req.ContainerID)
	if err != nil {
		return err
	}
	defer e.unlock(sandbox)
	w := &work{Engine: e, req: req, sandbox: sandbox}
	w.rec, err = sandbox.Load()
	switch {
	case (errors.Is(err, fs.ErrNotExist) || errors.Is(err, record.ErrLater)) && sandbox.Gone():
		return nil
	case errors.Is(err, fs.ErrNotExist):
		handed, herr := w.handOver(ctx, Del)
		if herr != nil {
			return herr
		}
		if handed {
			return e.trace("record removed", sandbox.Remove)
		}
		err = w.reconstruct(ctx, err)
	case failure.ReasonOf(err) == failure.StateCorrupt:
		err = w.reconstruct(ctx, err)
	}
	if err != nil {
		return err
	}
	return w.teardown(ctx)
}

// teardown removes what the record names, newest first, and goes on past errors. An attachment
// leaves the record when it is removed, so that a retry does only the rest. The record itself goes
// last.
func (w *work) teardown(ctx context.Context) error {
	netns, err := w.namespaceOf(w.req, w.rec)
	if err != nil {
		return err
	}
	w = w.asAdded(netns)
	if w.rec.Complete {
		w.rec.Complete = false
		if err := w.saveLess(ctx, "unfinished"); err != nil {
			return err
		}
	}
	w.removeLinks(ctx)
	var stack undo.Stack
	for i, a := range w.rec.Attachments {
		if a.State == record.Owed {
			continue
		}
		stack.Push(func(ctx context.Context) error {
			if i > 0 { // others come after it, which a plugin that hangs must not keep from their turn
				var cancel context.CancelFunc
				ctx, cancel = share(ctx)
				defer cancel()
			}
			return w.remove(ctx, a)
		})
	}
	if err := stack.Unwind(ctx); err != nil {
		return err
	}
	if len(w.rec.Attachments) > 0 { // they are owed
		return nil
	}
	return w.trace("record removed", w.sandbox.Remove)
}

// removeLinks removes the links of several attachments in one step. It only saves time: the kernel
// waits once for those who may still use them, and not once for each link. The plugins' own DEL
// follows and removes the rest. A binary may look at its link on DEL, so no chain may have one.
func (w *work) removeLinks(ctx context.Context) {
	if len(w.rec.Attachments) < 2 || w.req.NetNS == "" || w.sandbox.guest {
		return
	}
	for i := range w.rec.Attachments {
		a := &w.rec.Attachments[i]
		if !a.Execd {
			continue
		}
		list, err := w.sandbox.parsed(&a.Attachment)
		if err != nil || w.homes(a).mixed(list) {
			return
		}
	}
	err := w.trace("remove links", func() error { return w.Namespaces.DeleteLinks(ctx, w.req.NetNS) })
	if err != nil {
		w.Log.DebugContext(ctx, "links are removed one by one",
			"container", w.req.ContainerID, "error", err)
	}
}

// remove removes one attachment and takes it out of the record.
func (w *work) remove(ctx context.Context, a record.Attachment) error {
	if a.State != record.Planned {
		if removed, err := w.detachOrOwe(ctx, &a); !removed {
			return err
		}
	}
	w.rec.Attachments = slices.DeleteFunc(slices.Clone(w.rec.Attachments),
		func(b record.Attachment) bool { return same(&a, &b) })
	return w.saveLess(ctx, "detached "+a.IfName)
}

// detachOrOwe has the plugins remove an attachment. If removed is false, the attachment has to stay
// in the record; if err is nil, too, it is owed.
func (w *work) detachOrOwe(
	ctx context.Context, a *record.Attachment,
) (removed bool, err error) {
	start := time.Now()
	if err := w.wasAdded(a); err != nil {
		return false, err
	}
	err = w.detach(ctx, a)
	w.chainDone(ctx, Del, &a.Attachment, start, err)
	if err == nil {
		return true, nil
	}
	if refused, ok := errors.AsType[*refusal](err); ok {
		return w.owe(ctx, a, refused)
	}
	// it is waited for from the beginning
	if a.Refusal != nil && a.State != record.Owed && !w.sandbox.guest {
		a.Refusal = nil
		err = errors.Join(err, w.note(a, "not refused "+a.IfName))
	}
	return false, adviceError(err, &a.Attachment, adviceDel)
}

// saveLess saves a record that has less than the one on disk. On a full disk it keeps that one: to
// remove what is gone already does no harm.
func (w *work) saveLess(ctx context.Context, what string) error {
	err := w.save(what)
	if record.IsFull(err) {
		w.Log.WarnContext(ctx, "record not updated", "container", w.rec.ContainerID, "error", err)
		return nil
	}
	return err
}

// wasAdded marks an attachment as added if its ADD succeeded and was killed right after: libcni
// writes the entry of its cache last.
func (w *work) wasAdded(a *record.Attachment) error {
	if a.State != record.Attempted {
		return nil
	}
	if _, err := os.Lstat(w.cachePath(&a.Attachment)); err != nil {
		return nil //nolint:nilerr // there is none, as a rule
	}
	a.State = record.Added
	return w.note(a, "added "+a.IfName)
}

// detach runs the DEL of one chain. If the network namespace is gone, CNI_NETNS is empty, as the
// specification demands. Some plugins fail then, sbr among them, and never release what the chain
// holds. For these an empty namespace takes the place of the one that is gone.
func (w *work) detach(ctx context.Context, a *record.Attachment) error {
	err := w.runDel(ctx, a, w.req.NetNS)
	if err != nil && w.req.NetNS != "" {
		if id, ierr := w.Namespaces.Identity(w.req.NetNS); ierr == nil && id == "" { // it went meanwhile
			return w.within("").detach(ctx, a)
		}
	}
	if err != nil && w.req.NetNS == "" && ctx.Err() == nil && !errors.Is(err, errForeign) {
		scratch, release, serr := w.Namespaces.Scratch()
		if serr != nil {
			w.Log.WarnContext(ctx, "no stand-in for a network namespace that is gone", "error", serr)
			return err
		}
		defer release()
		if w.runDel(ctx, a, scratch) == nil {
			err = nil
		}
	}
	if err != nil || !a.DeviceInfo {
		return err
	}
	return w.trace("clean device info "+a.IfName, func() error {
		return status.CleanDeviceInfo(w.deviceInfoFile(&a.Attachment))
	})
}

// runDel runs the DEL of an attachment's plugins, in the namespace netns.
func (w *work) runDel(ctx context.Context, a *record.Attachment, netns string) error {
	chain, err := w.prepare(&a.Attachment, netns)
	switch {
	case err != nil && refuses(err):
		return &refusal{errs: []error{err}}
	case err != nil:
		return err
	case w.sandbox.guest && w.homes(a).foreign(chain.list):
		return errForeign
	}
	if err := w.restoreCache(chain, a); err != nil {
		return err
	}
	return w.trace("DEL "+a.IfName, func() error { return delPast(ctx, chain, a) })
}
