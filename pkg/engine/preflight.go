package engine

import (
	"cmp"
	"context"
	"fmt"
	"os"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/resolve"
)

// This file holds what an ADD asks for before its first change, so that a refusal leaves nothing to
// take back.

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

// namesFree refuses interface names that exist already (CNI 1.1 "ADD"). It is looked up before the
// first change, so that the roll-back never removes a link that was not made here.
func (w *work) namesFree(ctx context.Context, attachments []plan.Attachment) error {
	links, err := w.Namespaces.Links(ctx, w.req.NetNS)
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

// findPlugins is asked before the first change: a chain that lacks a plugin could be neither
// finished nor taken back, and not every binary takes back what it was kept from.
func (s *sandbox) findPlugins(ctx context.Context, a *plan.Attachment, paths []string) error {
	list, err := s.lists.of(a.Conf)
	if err != nil {
		return chainError(err, a)
	}
	if err := resolve.PluginsOf(s.exec, list, a, paths); err != nil {
		return err
	}
	for _, p := range list.Plugins {
		if err := s.exec.Protect(ctx, p.Network.Type, p.Bytes, paths, a.Limits); err != nil {
			return chainError(err, a)
		}
	}
	return nil
}

// permit looks for the plugins and asks the policy, before the first change. What the policy does
// not enforce it warns of. A plugin that is forbidden is refused, and not missed.
func (w *work) permit(ctx context.Context, pod *podv1.Pod, attachments []plan.Attachment) error {
	var missing error
	for i := range attachments {
		err := w.sandbox.findPlugins(ctx, &attachments[i], w.path(w.req))
		if failure.ReasonOf(err) == failure.PluginNotFound {
			missing = cmp.Or(missing, err)
		} else if err != nil {
			w.protected(ctx, pod.Meta(), err)
			return err
		}
	}
	judged, err := w.resolver().Judge(ctx, pod, attachments)
	if err != nil {
		return err
	}
	w.judged(ctx, pod.Meta(), judged)
	return cmp.Or(resolve.Permit(judged, attachments), missing)
}
