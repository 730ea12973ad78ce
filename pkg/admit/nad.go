package admit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/capacity"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/lint"
	"github.com/braid-cni/braid/pkg/selection"
)

// nad judges a NAD that is made or changed. One whose networks do not change is not judged: it is
// about to be deleted, or somebody changes a label.
func (r *review) nad(ctx context.Context) {
	nad, before, err := r.decodeNADs()
	if err != nil {
		r.Denied = err
		return
	}
	if nad.DeletionTimestamp != nil || before != nil && sameNetwork(before, nad) {
		return
	}
	r.lint(ctx, nad)
	d, err := demandOf(nad)
	r.deny(err)
	asks, err := capacity.Asks(&nad.ObjectMeta)
	r.deny(err)
	r.warnResource(nad)
	r.warnSpace(ctx, nad)
	if before != nil {
		r.warnUse(ctx, before, "they keep the network as it was until they are made anew")
		r.warnSelector(before, d)
		r.warnSchedule(before, asks)
	}
}

// lint denies, or warns of, what lint finds in a NAD.
func (r *review) lint(ctx context.Context, nad *nadv1.NetworkAttachmentDefinition) {
	findings := lint.Check(ctx, lint.Input{
		Config: r.Config, NADs: []lint.NAD{{NetworkAttachmentDefinition: *nad}}, Source: r.source,
		Finder: r.Finder,
	})
	for _, f := range findings {
		if f.Kind != nadv1.Kind {
			continue // the nodes' configuration is not its author's
		}
		fe := &failure.Error{Reason: f.Reason, Field: f.Field, Err: errors.New(f.Message), Fix: f.Remedy}
		if f.Verdict == lint.Refused {
			r.deny(fe)
		} else {
			r.warn(fe)
		}
	}
}

// nadGone judges the deletion of a NAD.
func (r *review) nadGone(ctx context.Context) {
	if nad, err := r.decodeNAD(r.req.OldObject.Raw); err == nil {
		r.warnUse(ctx, nad, "they keep the network, and do not start again without it")
	}
}

// decodeNADs returns the NAD of a request, and what it was before; nil if it is new.
func (r *review) decodeNADs() (nad, before *nadv1.NetworkAttachmentDefinition, err error) {
	if nad, err = r.decodeNAD(r.req.Object.Raw); err != nil {
		return nil, nil, err
	}
	if len(r.req.OldObject.Raw) > 0 {
		before, err = r.decodeNAD(r.req.OldObject.Raw)
	}
	return nad, before, err
}

// decodeNAD decodes a NAD of the request's namespace, which the object itself need not name.
func (r *review) decodeNAD(raw []byte) (*nadv1.NetworkAttachmentDefinition, error) {
	nad := &nadv1.NetworkAttachmentDefinition{}
	if err := json.Unmarshal(raw, nad); err != nil {
		return nil, fmt.Errorf("decode the NAD: %w", err)
	}
	nad.Namespace = r.req.Namespace
	return nad, nil
}

// sameNetwork reports whether two states of a NAD are the same for pods.
func sameNetwork(a, b *nadv1.NetworkAttachmentDefinition) bool {
	return a.Spec.Config == b.Spec.Config && maps.Equal(a.Annotations, b.Annotations)
}

// warnResource warns of a resource that no device plugin can have.
func (r *review) warnResource(nad *nadv1.NetworkAttachmentDefinition) {
	if resource := nad.Annotations[nadv1.ResourceNameAnnotation]; resource != "" &&
		!extended(resource) {
		r.warn(&failure.Error{
			Reason: failure.DeviceUnavailable, Field: "metadata.annotations." + nadv1.ResourceNameAnnotation,
			Err: fmt.Errorf("%.80q is no name of an extended resource, so pods get no request of it",
				resource),
			Fix: "name it as the device plugin does, such as vendor.com/nic",
		})
	}
}

// warnSelector warns of a selector that others of the NAD's pods do not have.
func (r *review) warnSelector(before *nadv1.NetworkAttachmentDefinition, now demand) {
	if former, err := demandOf(before); err == nil && former.String() != now.String() {
		r.warn(&failure.Error{
			Reason: failure.NodeNotSelected, Field: now.field,
			Err: errors.New("pods that exist stay where they are, and pods that were made before and have " +
				"not started keep the former selector"),
			Fix: "delete those that are to move",
		})
	}
}

// warnSchedule warns of pods that request what nodes say no longer.
func (r *review) warnSchedule(before *nadv1.NetworkAttachmentDefinition, asks bool) {
	if asked, err := capacity.Asks(&before.ObjectMeta); err == nil && asked && !asks {
		r.warn(&failure.Error{
			Reason: failure.NADInvalid, Field: capacity.Field,
			Err: fmt.Errorf("pods that were made before and have not started request %s, which no node "+
				"will have", capacity.Resource(&before.ObjectMeta)),
			Fix: "delete those that stay Pending",
		})
	}
}

// listing bounds how long pods are listed for a warning.
const listing = 3 * time.Second

// mostNamed is how many objects a warning names.
const mostNamed = 3

// warnUse warns of pods that have the network. That they cannot be listed is no reason to deny
// anything.
func (r *review) warnUse(ctx context.Context, nad *nadv1.NetworkAttachmentDefinition, what string) {
	everywhere := !r.Config.NamespaceIsolation ||
		slices.Contains(r.Config.GlobalNamespaces, nad.Namespace)
	namespace := nad.Namespace
	if everywhere {
		namespace = ""
	}
	ctx, cancel := context.WithTimeout(ctx, listing)
	defer cancel()
	pods, err := r.source.Pods(ctx, namespace)
	if err != nil {
		return
	}
	var names []string
	for i := range pods {
		if uses(&pods[i], nad) {
			names = append(names, pods[i].Namespace+"/"+pods[i].Name)
		}
	}
	if len(names) == 0 {
		return
	}
	r.warn(&failure.Error{
		Reason: failure.NADInvalid,
		Err:    fmt.Errorf("%s use this NAD: %s", counted(names, "pod", "pods"), what), Fix: "",
	})
}

// counted is how many there are, and the names of some.
func counted(names []string, one, several string) string {
	slices.Sort(names)
	kind := several
	if len(names) == 1 {
		kind = one
	}
	some := strings.Join(names[:min(len(names), mostNamed)], ", ")
	if len(names) > mostNamed {
		some += ", ..."
	}
	return fmt.Sprintf("%d %s (%s)", len(names), kind, some)
}

// uses reports whether a pod asks for a NAD.
func uses(pod *metav1.ObjectMeta, nad *nadv1.NetworkAttachmentDefinition) bool {
	text := pod.Annotations[nadv1.NetworksAnnotation]
	if !strings.Contains(text, nad.Name) {
		return false
	}
	selections, err := selection.Parse(text, pod.Namespace)
	return err == nil && slices.ContainsFunc(selections, func(s selection.Selection) bool {
		return s.Namespace == nad.Namespace && s.Name == nad.Name
	})
}
