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

// Del removes all attachments of the sandbox. It succeeds when nothing is left, also if nothing was
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
	rec, err := sandbox.Load()
	switch {
	case (errors.Is(err, fs.ErrNotExist) || errors.Is(err, record.ErrLater)) && sandbox.Gone():
		return nil
	case errors.Is(err, fs.ErrNotExist):
		handed, herr := e.handOver(ctx, Del, req, sandbox)
		if herr != nil {
			return herr
		}
		if handed {
			return e.trace("record removed", sandbox.Remove)
		}
		rec, err = e.reconstruct(ctx, req, sandbox, err)
	case failure.ReasonOf(err) == failure.StateCorrupt:
		rec, err = e.reconstruct(ctx, req, sandbox, err)
	}
	if err != nil {
		return err
	}
	return e.teardown(ctx, req, sandbox, rec)
}

// teardown removes what the record names, newest first, past errors, and in the end the record. An
// attachment leaves the record with its removal, so that a retry does only what is left.
func (e *Engine) teardown(
	ctx context.Context, req *Request, sandbox *sandbox, rec *record.Record,
) error {
	netns, err := e.namespaceOf(req, rec)
	if err != nil {
		return err
	}
	req = sandbox.asAdded(within(req, netns), rec)
	if rec.Complete {
		rec.Complete = false
		if err := e.saveLess(ctx, sandbox, rec, "unfinished"); err != nil {
			return err
		}
	}
	e.removeLinks(ctx, req, sandbox, rec)
	var stack undo.Stack
	for i, a := range rec.Attachments {
		if a.State == record.Owed {
			continue
		}
		stack.Push(func(ctx context.Context) error {
			if i > 0 { // others come after it, which a plugin that hangs must not keep from their turn
				var cancel context.CancelFunc
				ctx, cancel = share(ctx)
				defer cancel()
			}
			return e.remove(ctx, req, sandbox, rec, a)
		})
	}
	if err := stack.Unwind(ctx); err != nil {
		return err
	}
	if len(rec.Attachments) > 0 { // they are owed
		return nil
	}
	return e.trace("record removed", sandbox.Remove)
}

// removeLinks removes the links of several attachments in one step, so that the kernel waits once
// for those who may still use them, and not once for each link. It only saves time: the plugins'
// own DEL, which follows, removes what is still there, and all else that belongs to the
// attachments. A plugin that is exec'd may look at a link on DEL, so there must be none in the
// chain of such a link.
func (e *Engine) removeLinks(
	ctx context.Context, req *Request, sandbox *sandbox, rec *record.Record,
) {
	if len(rec.Attachments) < 2 || req.NetNS == "" || sandbox.guest {
		return
	}
	for i := range rec.Attachments {
		if !rec.Attachments[i].Execd {
			continue
		}
		list, err := sandbox.list(&rec.Attachments[i].Attachment)
		if err != nil || (homes{sandbox.exec, e.path(req), rec.Attachments[i].InProcess}).mixed(list) {
			return
		}
	}
	err := e.trace("remove links", func() error { return e.Namespaces.DeleteLinks(ctx, req.NetNS) })
	if err != nil {
		e.Log.DebugContext(ctx, "links are removed one by one",
			"container", req.ContainerID, "error", err)
	}
}

// remove removes one attachment and takes it out of the record.
func (e *Engine) remove(
	ctx context.Context, req *Request, sandbox *sandbox, rec *record.Record, a record.Attachment,
) error {
	if a.State != record.Planned {
		if removed, err := e.detachOrOwe(ctx, req, sandbox, rec, &a); !removed {
			return err
		}
	}
	rec.Attachments = slices.DeleteFunc(slices.Clone(rec.Attachments), func(b record.Attachment) bool {
		return same(&a, &b)
	})
	return e.saveLess(ctx, sandbox, rec, "detached "+a.IfName)
}

// detachOrOwe has the plugins remove an attachment. It is not removed while it has to stay in the
// record; without an error, it is owed then.
func (e *Engine) detachOrOwe(
	ctx context.Context, req *Request, sandbox *sandbox, rec *record.Record, a *record.Attachment,
) (removed bool, err error) {
	start := time.Now()
	if err := e.wasAdded(req, sandbox, rec, a); err != nil {
		return false, err
	}
	err = e.detach(ctx, req, sandbox, a)
	e.chainDone(ctx, Del, sandbox, rec.Pod, &a.Attachment, start, err)
	if err == nil {
		return true, nil
	}
	if refused, ok := errors.AsType[*refusal](err); ok {
		return e.owe(ctx, req, sandbox, rec, a, refused)
	}
	// it is waited for from the beginning
	if a.Refusal != nil && a.State != record.Owed && !sandbox.guest {
		a.Refusal = nil
		err = errors.Join(err, e.note(sandbox, rec, a, "not refused "+a.IfName))
	}
	return false, adviceError(err, &a.Attachment, adviceDel)
}

// saveLess saves a record that says less than the one that is there, which therefore does as well
// where there is no room for another.
func (e *Engine) saveLess(
	ctx context.Context, sandbox *sandbox, rec *record.Record, what string,
) error {
	err := e.save(sandbox, rec, what)
	if record.IsFull(err) {
		e.Log.WarnContext(ctx, "record not updated", "container", rec.ContainerID, "error", err)
		return nil
	}
	return err
}

// wasAdded has the record say so of an attachment whose ADD succeeded and was killed then: libcni
// writes its entry of the cache at the very end.
func (e *Engine) wasAdded(
	req *Request, sandbox *sandbox, rec *record.Record, a *record.Attachment,
) error {
	if a.State != record.Attempted {
		return nil
	}
	if _, err := os.Lstat(e.cachePath(req, &a.Attachment)); err != nil {
		return nil //nolint:nilerr // there is none, as a rule
	}
	a.State = record.Added
	return e.note(sandbox, rec, a, "added "+a.IfName)
}

// detach runs the DEL of one chain. A delegate whose network namespace is gone gets an empty
// CNI_NETNS, as the specification has it; there are delegates that fail then, sbr among them, and
// never release what the chain holds. For those a namespace without links stands in for the one
// that is gone: everything that lived in it went with it.
func (e *Engine) detach(
	ctx context.Context, req *Request, sandbox *sandbox, a *record.Attachment,
) error {
	err := e.delChain(ctx, req, sandbox, a, req.NetNS)
	if err != nil && req.NetNS != "" {
		if id, ierr := e.Namespaces.Identity(req.NetNS); ierr == nil && id == "" { // it went meanwhile
			return e.detach(ctx, within(req, ""), sandbox, a)
		}
	}
	if err != nil && req.NetNS == "" && ctx.Err() == nil && !errors.Is(err, errForeign) {
		scratch, release, serr := e.Namespaces.Scratch()
		if serr != nil {
			e.Log.WarnContext(ctx, "no stand-in for a network namespace that is gone", "error", serr)
			return err
		}
		defer release()
		if e.delChain(ctx, req, sandbox, a, scratch) == nil {
			err = nil
		}
	}
	if err != nil || !a.DeviceInfo {
		return err
	}
	return e.trace("clean device info "+a.IfName, func() error {
		return status.CleanDeviceInfo(e.deviceInfoFile(req, &a.Attachment))
	})
}

func (e *Engine) delChain(
	ctx context.Context, req *Request, sandbox *sandbox, a *record.Attachment, netns string,
) error {
	chain, err := e.chain(req, sandbox, &a.Attachment, netns)
	switch {
	case err != nil && refuses(err):
		return &refusal{errs: []error{err}}
	case err != nil:
		return err
	case sandbox.guest && (homes{sandbox.exec, e.path(req), a.InProcess}).foreign(chain.list):
		return errForeign
	}
	if err := e.restoreCache(req, chain, a); err != nil {
		return err
	}
	return e.trace("DEL "+a.IfName, func() error { return delPast(ctx, chain, a) })
}
