package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/pkg/status"
)

// Add attaches the sandbox to all its networks and publishes their status. It gives the result of
// the default network.
func (e *Engine) Add(ctx context.Context, req *Request) (result types.Result, err error) {
	err = e.operate(ctx, Add, req, func(ctx context.Context, events *events) error {
		defer e.tend(ctx)
		result, err = e.add(ctx, req, events)
		return err
	})
	return result, err
}

func (e *Engine) add(ctx context.Context, req *Request, events *events) (types.Result, error) {
	if err := errors.Join(e.ready(), e.notNode(req.NetNS)); err != nil {
		return nil, err
	}
	sandbox, err := e.lock(ctx, req.ContainerID)
	if err != nil {
		return nil, err
	}
	defer e.unlock(sandbox)
	if req.Still != nil {
		if err := req.Still(); err != nil {
			return nil, err
		}
	}
	if result, err := e.clearUnfinished(ctx, req, sandbox); result != nil || err != nil {
		return result, err
	}
	pod, err := e.pod(ctx, req)
	if err != nil {
		return nil, err
	}
	events.about(pod.Meta())
	attachments, err := e.resolver().Attachments(ctx, sandboxOf(req), pod)
	if err != nil {
		return nil, err
	}
	if err := e.namesFree(ctx, req, attachments); err != nil {
		return nil, err
	}
	for i := range attachments {
		if err := sandbox.findPlugins(ctx, &attachments[i], e.path(req)); err != nil {
			e.protected(ctx, pod.Meta(), err)
			return nil, err
		}
	}
	if err := e.permit(ctx, pod, attachments); err != nil {
		return nil, err
	}
	rec, err := e.begin(sandbox, req, pod.Meta(), attachments)
	if err != nil {
		return nil, err
	}
	if err := e.holdAddresses(ctx, sandbox, rec, pod.Meta(), attachments); err != nil {
		return nil, e.rollBack(ctx, req, sandbox, rec, err)
	}
	result, err := e.attachAll(ctx, req, sandbox, rec, pod.Meta(), events)
	if err != nil {
		e.protected(ctx, pod.Meta(), err)
		return nil, e.rollBack(ctx, req, sandbox, rec, err)
	}
	return result, nil
}

// ready holds pods back until the default network says that it is up.
func (e *Engine) ready() error {
	if e.Node.ReadinessIndicatorFile == "" {
		return nil
	}
	if _, err := os.Stat(e.Node.ReadinessIndicatorFile); err != nil {
		return &failure.Error{
			Reason: failure.NotReady, Field: "readinessindicatorfile",
			Err: fmt.Errorf("the default network is not ready: %w", err),
			Fix: "see whether the default network's own pod runs on this node",
		}
	}
	return nil
}

// clearUnfinished makes room for an ADD: what an earlier, killed ADD of the sandbox left is removed
// first. A sandbox whose ADD was finished is refused (CNI 1.1 "ADD": a second one without DEL is an
// error), unless it may have been this very ADD: then its result is returned.
func (e *Engine) clearUnfinished(
	ctx context.Context, req *Request, sandbox *sandbox,
) (types.Result, error) {
	rec, err := sandbox.Load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil //nolint:nilnil // there is nothing
	case err != nil:
		return nil, err
	case rec.Complete && req.Again:
		return e.finished(ctx, req, rec)
	case rec.Complete:
		return nil, &failure.Error{
			Reason: failure.InterfaceConflict, Interface: req.IfName,
			Err: fmt.Errorf("container %s was attached already, at %s",
				req.ContainerID, rec.Created.Format(time.RFC3339)),
			Fix: "a DEL must come before another ADD of the same container",
		}
	}
	e.Log.WarnContext(ctx, "removing what an unfinished ADD left",
		"container", req.ContainerID, "begun", rec.Created)
	// Where that was may be another namespace than that of this ADD.
	if err := e.teardown(ctx, ofSandbox(req, req.ContainerID), sandbox, rec); err != nil {
		return nil, fmt.Errorf("remove what an unfinished ADD left: %w", err)
	}
	sandbox.exec.Force(e.Node.Exec)
	sandbox.owed = rec.Attachments
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

// namesFree refuses interface names that exist already (CNI 1.1 "ADD"). It is looked up before the
// first change, so that the roll-back never removes a link that was not made here.
func (e *Engine) namesFree(ctx context.Context, req *Request, attachments []plan.Attachment) error {
	links, err := e.Namespaces.Links(ctx, req.NetNS)
	if err != nil {
		return &failure.Error{
			Reason: failure.InvalidEnvironment, Field: "CNI_NETNS", Err: fmt.Errorf("list links: %w", err),
		}
	}
	for _, a := range attachments {
		if _, taken := links[a.IfName]; taken {
			return &failure.Error{
				Reason: failure.InterfaceConflict, NAD: a.Name, Interface: a.IfName,
				Err: fmt.Errorf("the sandbox has a link of this name already"),
				Fix: "choose another interface name in the pod's annotation",
			}
		}
	}
	return nil
}

// noteIndexes notes the indexes of the attachments' links in the record, where hot-plug may need
// them: whoever works in the pod may give the links other names.
func (e *Engine) noteIndexes(
	ctx context.Context, req *Request, attachments []record.Attachment,
) error {
	if !e.Node.HotPlug {
		return nil
	}
	links, err := e.Namespaces.Links(ctx, req.NetNS)
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

// permit asks the policy, before the first change. What it does not enforce it warns of.
func (e *Engine) permit(ctx context.Context, pod *podv1.Pod, attachments []plan.Attachment) error {
	judged, err := e.resolver().Judge(ctx, pod, attachments)
	if err != nil {
		return err
	}
	e.judged(ctx, pod.Meta(), judged)
	return resolve.Permit(judged, attachments)
}

// begin gives the record of what will be done, which the first attachment saves. The networks are
// remembered before.
func (e *Engine) begin(
	sandbox *sandbox, req *Request, pod *metav1.ObjectMeta, attachments []plan.Attachment,
) (*record.Record, error) {
	id, err := e.identify(req.NetNS)
	if err != nil {
		return nil, err
	}
	rec := &record.Record{
		NetNS: req.NetNS, NetNSID: id, Created: time.Now().UTC(), Runtime: req.Runtime,
		Places: e.placesOf(req),
	}
	if pod != nil {
		rec.Pod = record.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}
	}
	for _, a := range attachments {
		rec.Attachments = append(rec.Attachments, record.Attachment{Attachment: a, State: record.Planned})
	}
	rec.Attachments = append(rec.Attachments, sandbox.owed...)
	for _, a := range attachments {
		err := e.trace("remember network "+a.Name, func() error {
			return sandbox.Remember(a, rec.Places)
		})
		if err != nil {
			return nil, err
		}
	}
	return rec, nil
}

func (e *Engine) save(sandbox *sandbox, rec *record.Record, what string) error {
	return e.trace("record "+what, func() error { return sandbox.Save(rec) })
}

// attachAll makes all attachments, moves the default route and publishes the status. At the end the
// record is complete.
func (e *Engine) attachAll(
	ctx context.Context, req *Request, sandbox *sandbox, rec *record.Record, pod *metav1.ObjectMeta,
	events *events,
) (types.Result, error) {
	results := make([]status.Result, 0, len(rec.Attachments))
	routing := &routing{engine: e, req: req, sandbox: sandbox}
	for i := range len(rec.Attachments) - len(sandbox.owed) {
		result, err := e.attach(ctx, routing, rec, i)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	if err := routing.refuseRouters(ctx); err != nil {
		return nil, err
	}
	if err := e.noteIndexes(ctx, req, rec.Attachments); err != nil {
		return nil, err
	}
	if err := e.save(sandbox, rec, "attached"); err != nil {
		return nil, err
	}
	if err := e.moveDefaultRoutes(ctx, req, results); err != nil {
		return nil, err
	}
	entries := published(e.Node.AuxiliaryCNIChainName, results)
	told := tells(pod, len(entries))
	if told {
		if err := e.publish(ctx, pod, entries, events); err != nil {
			return nil, err
		}
	}
	for i := range rec.Attachments {
		events.warn(&rec.Attachments[i].Attachment, told)
	}
	rec.Complete = true
	if err := e.save(sandbox, rec, "complete"); err != nil {
		return nil, err
	}
	return results[0].CNI, nil
}

// moveDefaultRoutes gives the default route to the attachments that the pod chose (NPWG v1.3
// s.4.1.2.1.9). It is not undone on failure: the routes go with the links that the roll-back
// removes, and those that were replaced belong to the sandbox, which the runtime throws away.
func (e *Engine) moveDefaultRoutes(
	ctx context.Context, req *Request, results []status.Result,
) error {
	for _, r := range results {
		if !r.Attachment.WantsDefaultRoute {
			continue
		}
		gateways, err := gatewaysOf(r)
		if err != nil {
			return err
		}
		err = e.trace("default route "+r.Attachment.IfName, func() error {
			return e.Interiors.MoveDefaultRoute(ctx, req.NetNS, r.Attachment.IfName, gateways)
		})
		if err != nil {
			return failure.AtNAD(err, r.Attachment.Name)
		}
	}
	return nil
}

// publish writes the network-status annotation, and meanwhile an event for each attachment: only
// now will none of them be taken back because another fails.
func (e *Engine) publish(
	ctx context.Context, pod *metav1.ObjectMeta, results []status.Result, events *events,
) error {
	for _, r := range results {
		events.attached(r)
	}
	return e.writeStatus(ctx, pod, status.Build(results))
}

// rollBack takes back a failed ADD. What it cannot remove stays in the record, for the DEL that the
// runtime sends.
func (e *Engine) rollBack(
	ctx context.Context, req *Request, sandbox *sandbox, rec *record.Record, cause error,
) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.Node.Timeouts.Rollback)
	defer cancel()
	if err := e.teardown(ctx, req, sandbox, rec); err != nil {
		e.Log.ErrorContext(ctx, "roll-back left something for DEL",
			"container", req.ContainerID, "error", err)
		return fmt.Errorf("%w (and the roll-back is not complete; DEL will go on with it)", cause)
	}
	return cause
}
