package engine

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/resolve"
)

// reconstruct stands in for a record that is missing or cannot be read. Missing means, as a rule,
// that there is nothing to do; but after a reboot the record is gone with its tmpfs while an IPAM
// plugin that keeps its leases on disk still holds the sandbox's addresses. So the attachments are
// taken from libcni's cache of results and planned anew for the rest. With an unreadable record
// that must succeed: what cannot be found out cannot be reported as removed.
func (w *work) reconstruct(ctx context.Context, cause error) error {
	rec, err := w.presumed(w.req)
	if err != nil {
		return err
	}
	w.rec = rec
	cached, err := w.cachedAttachments(ctx, w.req)
	if err != nil {
		return err
	}
	planned, err := w.makeUpFor(ctx, cause, cached)
	if err != nil {
		return err
	}
	if err := w.removeLost(cached.lost); err != nil {
		return err
	}
	corrupt := failure.ReasonOf(cause) == failure.StateCorrupt
	rec.Attachments = slices.Concat(cached.attachments,
		w.attempted(ctx, planned, cached.attachments, corrupt))
	level := slog.LevelDebug // as a rule the ADD was refused before there was anything to record
	if corrupt {
		level = slog.LevelWarn
	}
	w.Log.Log(ctx, level, "DEL without a usable record", "container", w.req.ContainerID,
		"attachments", len(rec.Attachments), "cause", cause)
	return nil
}

// repair puts what can be found out in the place of a record that is missing or corrupt. err is the
// error of its Load; all other errors it returns.
func (w *work) repair(ctx context.Context, err error) error {
	if errors.Is(err, fs.ErrNotExist) || failure.ReasonOf(err) == failure.StateCorrupt {
		return w.reconstruct(ctx, err)
	}
	return err
}

// makeUpFor returns what the ADD may have attached beside what is cached. It returns an error if
// too little is known to take the place of the record, whose error is cause. Where the API server
// is away, a sandbox that nothing was ever done to needs none.
func (w *work) makeUpFor(
	ctx context.Context, cause error, cached *cachedSandbox,
) ([]plan.Attachment, error) {
	corrupt := failure.ReasonOf(cause) == failure.StateCorrupt
	planned, exact, err := w.replan(ctx, w.req)
	retriable := failure.ReasonOf(err) == failure.APIUnavailable
	switch {
	case retriable && !corrupt && cached.empty() && w.untouched(ctx, w.req):
		return nil, nil
	case retriable, corrupt && !exact && !cached.whole():
		return nil, errors.Join(err, cause)
	}
	others, err := resolve.Renamed(planned) // which of the two names the ADD had is not known
	return slices.Concat(planned, others), err
}

// removeLost removes entries of libcni's cache by which nothing can be found out.
func (w *work) removeLost(paths []string) error {
	for _, path := range paths {
		err := w.trace("remove lost cache", func() error { return cacheFailed(os.RemoveAll(path)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// attempted returns the planned attachments that are not in the cache, as those of an ADD that may
// have been killed. It leaves out a network whose plugins are not there, unless the record was
// corrupt.
func (w *work) attempted(
	ctx context.Context, planned []plan.Attachment, cached []record.Attachment, corrupt bool,
) (list []record.Attachment) {
	for _, a := range planned {
		if slices.ContainsFunc(cached, func(c record.Attachment) bool { return c.IfName == a.IfName }) {
			continue
		}
		if err := w.sandbox.findPlugins(ctx, &a, w.path(w.req)); err != nil && !corrupt {
			// Its ADD was refused for the same reason; a pod with a misspelt plugin must be
			// deletable.
			w.Log.WarnContext(ctx, "DEL without a record leaves out a network that cannot have been "+
				"attached", "error", err)
			continue
		}
		list = append(list, record.Attachment{Attachment: a, State: record.Attempted})
	}
	return list
}

// untouched reports whether the sandbox's namespace is there and has nothing but its loopback link,
// or is none of a sandbox: its ADD was refused before the first change.
func (e *Engine) untouched(ctx context.Context, req *Request) bool {
	if e.Namespaces.IsNode(req.NetNS) {
		return true
	}
	if id, err := e.Namespaces.Identity(req.NetNS); id == "" || err != nil {
		return false
	}
	links, err := e.Namespaces.Links(ctx, req.NetNS)
	_, loopback := links["lo"]
	return err == nil && len(links) == 1 && loopback
}

// replan plans for the pod as it is now, if the runtime's request says which: a GC's does not.
// Where the pod is gone, or another has taken its name, only the default network's configuration,
// which is on this node, still tells something; the plan is not exact then, nor is it where a
// network is gone.
func (e *Engine) replan(
	ctx context.Context, req *Request,
) (attachments []plan.Attachment, exact bool, err error) {
	if req.IfName == "" {
		return nil, false, nil
	}
	pod, err := e.pod(ctx, req)
	if err != nil && failure.ReasonOf(err) != failure.PodNotFound {
		return nil, false, err
	}
	if err == nil {
		attachments, exact, err := e.resolver().Past(ctx, sandboxOf(req), pod, e.formerly)
		if err == nil || failure.ReasonOf(err) == failure.APIUnavailable {
			return attachments, exact, err
		}
	}
	attachments, err = e.resolver().Attachments(ctx, sandboxOf(req), nil)
	return attachments, false, err
}

// formerly returns a network as the node remembers it.
func (e *Engine) formerly(r plan.Request) (definition plan.Definition, known bool) {
	networks, _ := e.Records.Networks() //nolint:errcheck // unreadable ones are left out
	for _, n := range networks {
		if r.IsNAD() && n.Name == r.Namespace+"/"+r.Name {
			nad := &nadv1.NetworkAttachmentDefinition{}
			nad.Namespace, nad.Name, nad.Spec.Config = r.Namespace, r.Name, string(n.Conf)
			return plan.Definition{NAD: nad}, true
		}
	}
	return plan.Definition{}, false
}
