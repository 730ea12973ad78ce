package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

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

// del has the sandbox removed by who made it. A sandbox without a record, lock or mark was removed
// before.
func (e *Engine) del(ctx context.Context, req *Request) error {
	sandbox, err := e.lock(ctx, req.ContainerID)
	if err != nil {
		return err
	}
	defer e.unlock(sandbox)
	w := &work{Engine: e, req: req, sandbox: sandbox}
	w.rec, err = sandbox.Load()
	if notOurs(err) && sandbox.Gone() {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		handed, err := w.handOver(ctx, Del)
		if err != nil {
			return err
		}
		if handed {
			return e.trace("record removed", sandbox.Remove)
		}
	}
	if err := w.repair(ctx, err); err != nil {
		return err
	}
	return w.teardown(ctx)
}

// notOurs reports whether the error of a Load says that this Braid has no record of the sandbox:
// there is none, or a later version wrote it.
func notOurs(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, record.ErrLater)
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
	if err := w.removeAttachments(ctx); err != nil {
		return err
	}
	if len(w.rec.Attachments) > 0 { // they are owed
		return nil
	}
	return w.trace("record removed", w.sandbox.Remove)
}

// removeAttachments removes what is not owed, newest first, and goes on past errors.
func (w *work) removeAttachments(ctx context.Context) error {
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
	return stack.Unwind(ctx)
}

// removeLinks removes the links of several attachments in one step. It only saves time: the kernel
// waits once for those who may still use them, and not once for each link. The plugins' own DEL
// follows and removes the rest. A binary may look at its link on DEL, so no chain may have one.
func (w *work) removeLinks(ctx context.Context) {
	if len(w.rec.Attachments) < 2 || w.req.NetNS == "" || w.sandbox.guest || w.binaryMayLook() {
		return
	}
	err := w.trace("remove links", func() error { return w.Namespaces.DeleteLinks(ctx, w.req.NetNS) })
	if err != nil {
		w.Log.DebugContext(ctx, "links are removed one by one",
			"container", w.req.ContainerID, "error", err)
	}
}

// binaryMayLook reports whether a chain of the sandbox may have a plugin that is a binary.
func (w *work) binaryMayLook() bool {
	return slices.ContainsFunc(w.rec.Attachments, func(a record.Attachment) bool {
		if !a.Execd {
			return false
		}
		list, err := w.lists.of(a.Conf)
		return err != nil || w.homes(&a).mixed(list)
	})
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
	switch {
	case err == nil:
	case w.req.NetNS == "":
		err = w.delInStandIn(ctx, a, err)
	case w.namespaceWent():
		return w.within("").detach(ctx, a)
	}
	if err != nil || !a.DeviceInfo {
		return err
	}
	return w.trace("clean device info "+a.IfName, func() error {
		return status.CleanDeviceInfo(w.deviceInfoFile(&a.Attachment))
	})
}

// namespaceWent reports whether the sandbox's network namespace is gone by now.
func (w *work) namespaceWent() bool {
	id, err := w.Namespaces.Identity(w.req.NetNS)
	return err == nil && id == ""
}

// delInStandIn runs a DEL that failed without a network namespace once more, in an empty one. It
// returns the first DEL's error, cause, unless the second succeeds.
func (w *work) delInStandIn(ctx context.Context, a *record.Attachment, cause error) error {
	if ctx.Err() != nil || errors.Is(cause, errForeign) {
		return cause
	}
	scratch, release, err := w.Namespaces.Scratch()
	if err != nil {
		w.Log.WarnContext(ctx, "no stand-in for a network namespace that is gone", "error", err)
		return cause
	}
	defer release()
	if w.runDel(ctx, a, scratch) != nil {
		return cause
	}
	return nil
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
