package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/pkg/status"
)

// This file holds hot-plug: the networks of a running pod follow its annotation. What the pod has
// is in the record, and never in network-status, which others may write.
//
// The record stays Complete, so that the sandbox is an attached one for whoever looks. An
// attachment that is not Added, or is Leaving, is what an update was killed at: it is removed by
// the next update or DEL, whatever the annotation says by then. Unpublished outlives a kill, too,
// so a network-status that could not be written is written later, and no plugin runs again for it.

const reasonDetached = "RemovedInterface"

// Outdated returns the sandboxes of a pod whose networks are not those of its annotation, or not
// published. attached is that the pod has a sandbox that Braid recorded and whose ADD has come to
// its end; no other is returned.
func (e *Engine) Outdated(pod *podv1.Pod) (containerIDs []string, attached bool, err error) {
	records, err := e.Records.Read()
	for _, rec := range records {
		if rec.Pod.UID != string(pod.UID) || rec.Pod.UID == "" || !rec.Complete {
			continue
		}
		attached = true
		if outdated(rec, pod) {
			containerIDs = append(containerIDs, rec.ContainerID)
		}
	}
	return containerIDs, attached, err
}

// outdated reports whether the sandbox of a record has other networks than its pod asks for by now,
// or network-status does not show them. A sandbox whose ADD did not come to its end is not.
func outdated(rec *record.Record, pod *podv1.Pod) bool {
	if !rec.Complete {
		return false
	}
	have, rest := attached(rec)
	follows, err := plan.Follows(have, pod.Meta())
	return err != nil || !follows || rec.Unpublished || len(rest) > 0
}

// attached returns what the sandbox has, and what updates were killed at.
func attached(rec *record.Record) (have []plan.Attachment, rest []record.Attachment) {
	for _, a := range rec.Attachments {
		switch {
		case a.State == record.Added && !a.Leaving:
			have = append(have, a.Attachment)
		case a.State != record.Owed:
			rest = append(rest, a)
		}
	}
	return have, rest
}

// Update changes a running sandbox, req.ContainerID, so that it has the networks that its pod's
// annotation asks for by now, and publishes that. The annotation is judged as a whole, as on ADD:
// if that fails, nothing is changed. After that a failure is of its element alone: what was begun
// of it is removed, and the others go on. It is no error if there is no such sandbox, or if it is
// on its way up or down.
func (e *Engine) Update(ctx context.Context, req *Request, pod *podv1.Pod) error {
	named := *req
	named.Args = [][2]string{{"K8S_POD_NAMESPACE", pod.Namespace}, {"K8S_POD_NAME", pod.Name}}
	return e.operate(ctx, Update, &named, func(ctx context.Context, events *events) error {
		defer e.tend(ctx)
		events.about(pod.Meta())
		err := e.update(ctx, &named, pod, events)
		if failure.ReasonOf(err) == failure.PodNotFound { // its DEL is on its way
			return nil
		}
		return err
	})
}

// update does nothing for a sandbox that is not there, not up to be changed, or not outdated.
func (e *Engine) update(ctx context.Context, req *Request, pod *podv1.Pod, events *events) error {
	sandbox, err := e.lock(ctx, req.ContainerID)
	if err != nil {
		return err
	}
	defer e.unlock(sandbox)
	rec, err := sandbox.Load()
	switch {
	case notOurs(err):
		return nil
	case err != nil:
		return err
	case rec.Pod.UID != string(pod.UID) || !outdated(rec, pod):
		return nil
	}
	netns, err := e.namespaceOf(req, rec)
	if err != nil || netns == "" {
		return err
	}
	w := (&work{e, req, sandbox, rec}).asAdded(netns)
	return (&update{work: w, pod: pod, events: events, routing: &routing{work: w}}).run(ctx)
}

// update is one Update of a sandbox that is locked.
type update struct {
	*work

	pod     *podv1.Pod
	events  *events
	routing *routing
}

// run goes on past errors of single attachments. What earlier updates were killed at goes first, as
// it may have the names and addresses that are needed.
func (u *update) run(ctx context.Context) error {
	_, rest := attached(u.rec)
	var errs []error
	for _, a := range slices.Backward(rest) {
		errs = append(errs, u.remove(ctx, a))
	}
	changes, want, err := u.plan(ctx)
	if err != nil {
		return errors.Join(append(errs, err, u.publish(ctx))...)
	}
	for i := range changes.Remove {
		errs = append(errs, u.leave(ctx, &changes.Remove[i]))
	}
	u.giveWay(changes.Add)
	adds, err := u.permitted(ctx, &changes, want)
	errs = append(errs, err)
	for i := range adds {
		errs = append(errs, u.add(ctx, adds[i]))
	}
	return errors.Join(append(errs, u.routing.refuseRouters(ctx), u.publish(ctx))...)
}

// plan finds out what is to change, and what the pod is to have.
func (u *update) plan(
	ctx context.Context,
) (changes plan.Changes, want []plan.Attachment, err error) {
	have, _ := attached(u.rec)
	at := slices.IndexFunc(have, func(a plan.Attachment) bool { return a.Default })
	if at < 0 {
		return changes, nil, errors.New(
			"the record has no default network, so the sandbox is not changed")
	}
	sandbox := resolve.Sandbox{
		ContainerID: u.req.ContainerID, IfName: have[at].IfName, Args: have[at].Args, Call: u.req.Call,
	}
	if want, err = u.resolver().Attachments(ctx, sandbox, u.pod); err != nil {
		return changes, nil, err
	}
	changes, err = plan.Diff(have, want, false)
	return changes, want, err
}

// giveWay has new attachments, whose names were chosen by the plan, use others where what had them
// could not be removed.
func (u *update) giveWay(adds []plan.Attachment) {
	taken := map[string]bool{}
	for i := range u.rec.Attachments {
		taken[u.rec.Attachments[i].IfName] = u.rec.Attachments[i].State != record.Owed
	}
	for i := range adds {
		if adds[i].Wish == nil || adds[i].Wish.IfName != "" || !taken[adds[i].IfName] {
			continue
		}
		adds[i] = adds[i].Renamed(freeName(taken, adds))
	}
}

// freeName returns the first of net1, net2, ... that is not taken and that no new attachment has.
func freeName(taken map[string]bool, adds []plan.Attachment) string {
	for k := 1; ; k++ {
		name := fmt.Sprintf("net%d", k)
		if !taken[name] && !slices.ContainsFunc(adds, func(a plan.Attachment) bool {
			return a.IfName == name
		}) {
			return name
		}
	}
}

// leave removes an attachment that the annotation does not have any more.
func (u *update) leave(ctx context.Context, planned *plan.Attachment) error {
	at := slices.IndexFunc(u.rec.Attachments, func(a record.Attachment) bool {
		return a.State == record.Added && !a.Leaving && a.IfName == planned.IfName
	})
	if at < 0 {
		return nil
	}
	u.rec.Attachments = slices.Clone(u.rec.Attachments)
	u.rec.Attachments[at].Leaving, u.rec.Unpublished = true, true
	left := u.rec.Attachments[at]
	if err := u.save("leaving " + left.IfName); err != nil {
		return err
	}
	if err := u.remove(ctx, left); err != nil {
		return err
	}
	u.events.send("Normal", reasonDetached, fmt.Sprintf("Del %s from %s", left.IfName, left.Name))
	if !left.WantsDefaultRoute {
		return nil
	}
	return u.restoreDefaultRoute(ctx)
}

// remove removes one attachment. The others are not kept from their turn by one that hangs.
func (u *update) remove(ctx context.Context, a record.Attachment) error {
	ctx, cancel := share(ctx)
	defer cancel()
	w, err := u.aside(ctx, &a)
	if err != nil {
		return err
	}
	return w.remove(ctx, a)
}

// aside looks for the link of an attachment. If it has another name by now it is removed, and the
// work that is returned has no namespace: plugins would take what is in the link's place for it. A
// plugin that is exec'd may look for the link, so it is left to find it.
func (u *update) aside(ctx context.Context, a *record.Attachment) (*work, error) {
	if a.Index == 0 || a.Execd || a.State == record.Planned {
		return u.work, nil
	}
	links, err := u.Namespaces.Links(ctx, u.req.NetNS)
	if errors.Is(err, fs.ErrNotExist) {
		return u.within(""), nil
	}
	if err != nil {
		return nil, &failure.Error{
			Reason: failure.StateFailed, NAD: a.Name, Interface: a.IfName,
			Err: fmt.Errorf("list links: %w", err),
		}
	}
	index, taken := links[a.IfName]
	renamed := slices.Contains(slices.Collect(maps.Values(links)), a.Index)
	switch {
	case index == a.Index, !taken && !renamed:
		return u.work, nil
	case !renamed:
		return u.within(""), nil
	}
	if err := u.removeRenamed(ctx, a); err != nil {
		return nil, err
	}
	return u.within(""), nil
}

// removeRenamed removes the link of an attachment by its index.
func (u *update) removeRenamed(ctx context.Context, a *record.Attachment) error {
	err := u.trace("remove renamed "+a.IfName, func() error {
		return u.Namespaces.DeleteIndex(ctx, u.req.NetNS, a.Index)
	})
	if err != nil {
		return &failure.Error{
			Reason: failure.PluginFailed, NAD: a.Name, Interface: a.IfName,
			Err: fmt.Errorf("remove the link, which was renamed: %w", err),
		}
	}
	return nil
}

// restoreDefaultRoute moves the default route back to the default network after the attachment that
// had it is gone, unless another one asks for it.
func (u *update) restoreDefaultRoute(ctx context.Context) error {
	results, err := u.results()
	if err != nil || len(results) == 0 || slices.ContainsFunc(results, func(r status.Result) bool {
		return r.Attachment.WantsDefaultRoute
	}) {
		return err
	}
	gateways, err := gatewaysOf(results[0])
	if err != nil {
		return nil //nolint:nilerr // the default network has none to give
	}
	return u.trace("default route "+results[0].Attachment.IfName, func() error {
		return u.Interiors.MoveDefaultRoute(ctx, u.req.NetNS, results[0].Attachment.IfName, gateways)
	})
}

// permitted returns the attachments that may be made: their plugins are there, and the policy
// allows them. What the policy says of those that stay is no matter of an update.
func (u *update) permitted(
	ctx context.Context, changes *plan.Changes, want []plan.Attachment,
) (adds []plan.Attachment, err error) {
	found, missing, err := u.findable(ctx, changes.Add)
	errs := []error{err}
	all := staying(want, changes.Add)
	first := len(all)
	all = append(all, found...)
	judged, err := u.resolver().Judge(ctx, u.pod, all)
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	for i := first; i < len(all); i++ {
		own := slices.DeleteFunc(slices.Clone(judged), func(j resolve.Judged) bool {
			return j.NAD != "" && j.IfName != all[i].IfName
		})
		u.judged(ctx, u.pod.Meta(), own)
		if err := cmp.Or(resolve.Permit(own, all[i:i+1]), missing[all[i].IfName]); err != nil {
			errs = append(errs, err)
			continue
		}
		adds = append(adds, all[i])
	}
	return adds, errors.Join(errs...)
}

// findable returns the new attachments whose plugins can be judged. missing has an error for those
// that lack a plugin, by interface; what they may have is judged first.
func (u *update) findable(
	ctx context.Context, adds []plan.Attachment,
) (found []plan.Attachment, missing map[string]error, err error) {
	missing = map[string]error{}
	var errs []error
	for _, a := range adds {
		err := u.sandbox.findPlugins(ctx, &a, u.path(u.req))
		if failure.ReasonOf(err) == failure.PluginNotFound {
			missing[a.IfName] = err
		} else if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, a)
	}
	return found, missing, errors.Join(errs...)
}

// staying returns the wanted attachments that are not new.
func staying(want, adds []plan.Attachment) (stay []plan.Attachment) {
	for _, w := range want {
		if !slices.ContainsFunc(adds, func(a plan.Attachment) bool { return a.Wish == w.Wish }) {
			w.IfName = "" // as the plan has it; the pod may have another
			stay = append(stay, w)
		}
	}
	return stay
}

// add makes one attachment. If it fails, what was begun of it is removed.
func (u *update) add(ctx context.Context, a plan.Attachment) error {
	ctx, cancel := share(ctx)
	defer cancel()
	if err := u.namesFree(ctx, []plan.Attachment{a}); err != nil {
		return err
	}
	if err := u.nameLeft(&a); err != nil {
		return err
	}
	if err := u.remember(a); err != nil {
		return err
	}
	u.rec.Attachments = append(slices.Clone(u.rec.Attachments),
		record.Attachment{Attachment: a, State: record.Planned})
	u.rec.Unpublished = true
	i := len(u.rec.Attachments) - 1
	if err := u.holdAddresses(ctx, u.pod.Meta(), []plan.Attachment{a}); err != nil {
		return u.undo(ctx, i, err)
	}
	made, err := u.make(ctx, i)
	if err != nil {
		return u.undo(ctx, i, err)
	}
	u.events.attached(made)
	u.events.warn(&u.rec.Attachments[i].Attachment, true)
	return nil
}

// nameLeft refuses the name of an interface that could not be removed.
func (u *update) nameLeft(a *plan.Attachment) error {
	for i := range u.rec.Attachments {
		if b := &u.rec.Attachments[i]; b.IfName == a.IfName && b.State != record.Owed {
			return &failure.Error{
				Reason: failure.InterfaceConflict, NAD: a.Name, Interface: a.IfName,
				Err: fmt.Errorf("network %s, which had it, is not removed yet", b.Name),
				Fix: "the agent will try again; see why its plugins fail",
			}
		}
	}
	return nil
}

// make attaches the i-th attachment of the record, with all that belongs to it but network-status.
func (u *update) make(ctx context.Context, i int) (status.Result, error) {
	made, err := u.attach(ctx, u.routing, i)
	if err != nil {
		return made, err
	}
	if err := u.moveDefaultRoutes(ctx, []status.Result{made}); err != nil {
		return made, err
	}
	if err := u.noteIndexes(ctx, u.rec.Attachments[i:]); err != nil {
		return made, err
	}
	return made, u.save("attached " + made.Attachment.IfName)
}

// undo takes back an attachment that failed. What it cannot remove stays in the record, for the
// next update or DEL.
func (u *update) undo(ctx context.Context, i int, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), u.Node.Timeouts.Rollback)
	defer cancel()
	failed := &u.rec.Attachments[i]
	failed.Leaving = true
	err := u.save("leaving " + failed.IfName)
	if err == nil {
		err = u.work.remove(ctx, *failed)
	}
	if err != nil {
		u.Log.ErrorContext(ctx, "what a hot-plug began is left for the next",
			"container", u.req.ContainerID, "error", err)
	}
	return cause
}

// publish writes the network-status of what the sandbox has, if the present one differs.
func (u *update) publish(ctx context.Context) error {
	if !u.rec.Unpublished {
		return nil
	}
	results, err := u.results()
	if err != nil {
		return err
	}
	entries := published(u.Node.AuxiliaryCNIChainName, results)
	if err := u.writeStatus(ctx, u.pod.Meta(), status.Build(entries)); err != nil {
		return err
	}
	u.rec.Unpublished = false
	return u.save("published")
}

// results returns those of all attachments that the sandbox has, by the record.
func (u *update) results() (results []status.Result, err error) {
	for i := range u.rec.Attachments {
		a := &u.rec.Attachments[i]
		if a.State != record.Added || a.Leaving {
			continue
		}
		result := status.Result{Attachment: a.Attachment}
		if hasResult(a) {
			if result.CNI, err = decodeResult(a.Result); err != nil {
				return nil, failure.AtNAD(err, a.Name)
			}
		}
		if result.DeviceInfo, err = u.deviceInfo(&a.Attachment); err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}
