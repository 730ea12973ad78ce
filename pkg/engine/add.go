package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/status"
)

// Add attaches the sandbox to all its networks and publishes their status. It returns the result of
// the default network.
func (e *Engine) Add(ctx context.Context, req *Request) (result types.Result, err error) {
	err = e.operate(ctx, Add, req, func(ctx context.Context, events *events) error {
		defer e.tend(ctx)
		result, err = e.add(ctx, req, events)
		return err
	})
	return result, err
}

// add refuses what it can before the first change. From the record's beginning on, what fails is
// taken back.
func (e *Engine) add(ctx context.Context, req *Request, events *events) (types.Result, error) {
	if err := errors.Join(e.ready(), e.notNode(req.NetNS)); err != nil {
		return nil, err
	}
	sandbox, err := e.lock(ctx, req.ContainerID)
	if err != nil {
		return nil, err
	}
	defer e.unlock(sandbox)
	if err := req.awaited(); err != nil {
		return nil, err
	}
	w := &work{Engine: e, req: req, sandbox: sandbox}
	if result, err := w.clearUnfinished(ctx); result != nil || err != nil {
		return result, err
	}
	pod, attachments, err := w.prepareAdd(ctx, events)
	if err != nil {
		return nil, err
	}
	if err := w.holdAddresses(ctx, pod.Meta(), attachments); err != nil {
		return nil, w.rollBack(ctx, err)
	}
	result, err := w.attachAll(ctx, pod.Meta(), events)
	if err != nil {
		e.protected(ctx, pod.Meta(), err)
		return nil, w.rollBack(ctx, err)
	}
	return result, nil
}

// awaited returns an error if nobody waits for the ADD any more.
func (r *Request) awaited() error {
	if r.Still == nil {
		return nil
	}
	return r.Still()
}

// prepareAdd finds out what the pod gets, refuses what it cannot have, and begins the record. On an
// error the sandbox is as it was.
func (w *work) prepareAdd(
	ctx context.Context, events *events,
) (*podv1.Pod, []plan.Attachment, error) {
	pod, err := w.pod(ctx, w.req)
	if err != nil {
		return nil, nil, err
	}
	events.about(pod.Meta())
	attachments, err := w.resolver().Attachments(ctx, sandboxOf(w.req), pod)
	if err != nil {
		return nil, nil, err
	}
	if err := w.namesFree(ctx, attachments); err != nil {
		return nil, nil, err
	}
	if err := w.permit(ctx, pod, attachments); err != nil {
		return nil, nil, err
	}
	return pod, attachments, w.begin(pod.Meta(), attachments)
}

// clearUnfinished removes what an earlier, killed ADD of the sandbox left. If that ADD was
// finished, it returns an error (CNI 1.1 "ADD": a second one without DEL is an error). If it may
// have been this very ADD, it returns its result.
func (w *work) clearUnfinished(ctx context.Context) (types.Result, error) {
	rec, err := w.sandbox.Load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil //nolint:nilnil // there is nothing
	case err != nil:
		return nil, err
	case rec.Complete && w.req.Again:
		return w.finished(ctx, w.req, rec)
	case rec.Complete:
		return nil, &failure.Error{
			Reason: failure.InterfaceConflict, Interface: w.req.IfName,
			Err: fmt.Errorf("container %s was attached already, at %s",
				w.req.ContainerID, rec.Created.Format(time.RFC3339)),
			Fix: "a DEL must come before another ADD of the same container",
		}
	}
	w.Log.WarnContext(ctx, "removing what an unfinished ADD left",
		"container", w.req.ContainerID, "begun", rec.Created)
	// It may have been in another namespace than this ADD.
	left := &work{w.Engine, ofSandbox(w.req, w.req.ContainerID), w.sandbox, rec}
	if err := left.teardown(ctx); err != nil {
		return nil, fmt.Errorf("remove what an unfinished ADD left: %w", err)
	}
	w.sandbox.exec.Force(w.Node.Exec)
	w.sandbox.owed = rec.Attachments
	return nil, nil //nolint:nilnil // there is nothing any more
}

// finished returns the recorded result of an ADD whose caller did not get it.
func (e *Engine) finished(
	ctx context.Context, req *Request, rec *record.Record,
) (types.Result, error) {
	id, err := e.identify(req.NetNS)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(rec.Attachments, func(a record.Attachment) bool { return a.Default })
	if at < 0 || id != rec.NetNSID {
		return nil, &failure.Error{
			Reason: failure.InterfaceConflict, Interface: req.IfName,
			Err: fmt.Errorf("container %s was attached already, in another network namespace",
				req.ContainerID),
			Fix: "a DEL must come before another ADD of the same container",
		}
	}
	e.Log.InfoContext(ctx, "the ADD was finished, and its result is repeated",
		"container", req.ContainerID, "begun", rec.Created)
	return decodeResult(rec.Attachments[at].Result)
}

// noteIndexes writes the indexes of the attachments' links into the record. Hot-plug needs them:
// who works in the pod may rename the links.
func (w *work) noteIndexes(ctx context.Context, attachments []record.Attachment) error {
	if !w.Node.HotPlug {
		return nil
	}
	links, err := w.Namespaces.Links(ctx, w.req.NetNS)
	if err != nil {
		return &failure.Error{Reason: failure.StateFailed, Err: fmt.Errorf("list links: %w", err)}
	}
	for i := range attachments {
		if a := &attachments[i]; a.State == record.Added {
			a.Index = links[a.IfName]
		}
	}
	return nil
}

// begin makes the record of what will be done. The first attachment saves it. The networks are
// remembered before that.
func (w *work) begin(pod *metav1.ObjectMeta, attachments []plan.Attachment) error {
	id, err := w.identify(w.req.NetNS)
	if err != nil {
		return err
	}
	w.rec = &record.Record{
		NetNS: w.req.NetNS, NetNSID: id, Created: time.Now().UTC(), Runtime: w.req.Runtime,
		Places: w.placesOf(w.req),
	}
	if pod != nil {
		w.rec.Pod = record.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}
	}
	for _, a := range attachments {
		w.rec.Attachments = append(w.rec.Attachments,
			record.Attachment{Attachment: a, State: record.Planned})
	}
	w.rec.Attachments = append(w.rec.Attachments, w.sandbox.owed...)
	for _, a := range attachments {
		if err := w.remember(a); err != nil {
			return err
		}
	}
	return nil
}

// remember keeps the configuration of an attachment's network on the node.
func (w *work) remember(a plan.Attachment) error {
	return w.trace("remember network "+a.Name, func() error {
		return w.sandbox.Remember(a, w.rec.Places)
	})
}

// save writes the record.
func (w *work) save(what string) error {
	return w.trace("record "+what, func() error { return w.sandbox.Save(w.rec) })
}

// attachAll makes all attachments, moves the default route and publishes the status. At the end the
// record is complete.
func (w *work) attachAll(
	ctx context.Context, pod *metav1.ObjectMeta, events *events,
) (types.Result, error) {
	results, err := w.attachEach(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.moveDefaultRoutes(ctx, results); err != nil {
		return nil, err
	}
	if err := w.announce(ctx, pod, results, events); err != nil {
		return nil, err
	}
	w.rec.Complete = true
	if err := w.save("complete"); err != nil {
		return nil, err
	}
	return results[0].CNI, nil
}

// attachEach makes the attachments in their order and saves their results.
func (w *work) attachEach(ctx context.Context) ([]status.Result, error) {
	results := make([]status.Result, 0, len(w.rec.Attachments))
	routing := &routing{work: w}
	for i := range len(w.rec.Attachments) - len(w.sandbox.owed) {
		result, err := w.attach(ctx, routing, i)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	if err := routing.refuseRouters(ctx); err != nil {
		return nil, err
	}
	if err := w.noteIndexes(ctx, w.rec.Attachments); err != nil {
		return nil, err
	}
	return results, w.save("attached")
}

// announce publishes the status of a pod that has one, and sends the warnings of all attachments.
func (w *work) announce(
	ctx context.Context, pod *metav1.ObjectMeta, results []status.Result, events *events,
) error {
	entries := published(w.Node.AuxiliaryCNIChainName, results)
	told := tells(pod, len(entries))
	if told {
		if err := w.publish(ctx, pod, entries, events); err != nil {
			return err
		}
	}
	for i := range w.rec.Attachments {
		events.warn(&w.rec.Attachments[i].Attachment, told)
	}
	return nil
}

// moveDefaultRoutes moves the default route to the attachments that the pod chose (NPWG v1.3
// s.4.1.2.1.9). A failure does not undo it: the new routes go with the links that the roll-back
// removes, and the old ones with the sandbox, which the runtime throws away.
func (w *work) moveDefaultRoutes(ctx context.Context, results []status.Result) error {
	for _, r := range results {
		if !r.Attachment.WantsDefaultRoute {
			continue
		}
		gateways, err := gatewaysOf(r)
		if err != nil {
			return err
		}
		err = w.trace("default route "+r.Attachment.IfName, func() error {
			return w.Interiors.MoveDefaultRoute(ctx, w.req.NetNS, r.Attachment.IfName, gateways)
		})
		if err != nil {
			return failure.AtNAD(err, r.Attachment.Name)
		}
	}
	return nil
}

// publish writes the network-status annotation and an event for each attachment. It comes last: an
// attachment is not reported while another may fail.
func (e *Engine) publish(
	ctx context.Context, pod *metav1.ObjectMeta, results []status.Result, events *events,
) error {
	for _, r := range results {
		events.attached(r)
	}
	return e.writeStatus(ctx, pod, status.Build(results))
}

// rollBack takes back a failed ADD and returns its cause. What it cannot remove stays in the
// record, for the DEL that the runtime sends.
func (w *work) rollBack(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.Node.Timeouts.Rollback)
	defer cancel()
	if err := w.teardown(ctx); err != nil {
		w.Log.ErrorContext(ctx, "roll-back left something for DEL",
			"container", w.req.ContainerID, "error", err)
		return fmt.Errorf("%w (and the roll-back is not complete; DEL will go on with it)", cause)
	}
	return cause
}
