package resolve

import (
	"context"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/policy"
)

// own renames an attachment's network, and its spaces of whereabouts, to names of its namespace,
// unless the rule keeps the names. Leases, results, links and rules are stored by these names. DEL,
// CHECK and GC have them from the record.
func (r *Resolver) own(
	ctx context.Context, decide decider, a *plan.Attachment, rule *policy.Rule,
) error {
	if a.Limits == nil {
		return nil
	}
	list, err := netconf.Parse(a.Conf)
	if err != nil {
		return err
	}
	limits := *a.Limits
	foreign, err := r.foreign(ctx, decide, list, limits.Namespace)
	if err != nil {
		return err
	}
	for _, f := range foreign {
		limits.Foreign = append(limits.Foreign, f.name)
	}
	if written := list.Name(); !rule.Keeps(written) {
		list.SetName(attachment.Own(limits.Namespace, written))
		if list.Name() != written {
			limits.Name = written
		}
	}
	list.RenameSpaces(func(written string) string {
		if rule.Keeps(written) {
			return written
		}
		return attachment.OwnSpace(limits.Namespace, written)
	})
	a.Conf, a.Network, a.Limits = list.Bytes(), list.Name(), &limits
	return nil
}

// Renamed returns attachments as they were made where the policy was enforced for all of them or
// for none, whichever they are not. Those that have one name only are left out.
func Renamed(attachments []plan.Attachment) (others []plan.Attachment, err error) {
	for _, a := range attachments {
		other := a.Limits.OtherName(a.Network)
		if other == "" || other == a.Network {
			continue
		}
		list, err := netconf.Parse(a.Conf)
		if err != nil {
			return nil, failure.AtNAD(err, a.Name)
		}
		list.SetName(other)
		a.Conf, a.Network = list.Bytes(), other
		others = append(others, a)
	}
	return others, nil
}

// borrowed returns the names of an attachment that belong to another namespace.
func (r *Resolver) borrowed(
	ctx context.Context, decide decider, a *plan.Attachment,
) (found []policy.Violation, err error) {
	if a.Limits == nil {
		return nil, nil
	}
	list, err := netconf.Parse(a.Conf)
	if err != nil {
		return nil, err
	}
	foreign, err := r.foreign(ctx, decide, list, a.Limits.Namespace)
	for _, f := range foreign {
		found = append(found, policy.Borrowed(f.field, f.name, attachment.Owner(f.name)))
	}
	return found, err
}

// written is a name of a network, or of a space, and the field that has it.
type written struct{ field, name string }

// foreign returns the names in a configuration that are another namespace's own, where the policy
// is enforced for that one.
func (r *Resolver) foreign(
	ctx context.Context, decide decider, list *netconf.List, namespace string,
) (found []written, err error) {
	names := []written{{"name", list.Name()}}
	list.RenameSpaces(func(space string) string {
		names = append(names, written{"ipam.network_name", space})
		return space
	})
	for _, n := range names {
		owner := attachment.Owner(n.name)
		if owner == "" || owner == namespace {
			continue
		}
		apart, err := apart(ctx, decide, owner)
		if err != nil {
			return nil, err
		}
		if apart {
			found = append(found, n)
		}
	}
	return found, nil
}

// apart reports whether names of a namespace are its own. Whether one is a tenant's may not be
// known: nothing is enforced by a label then.
func apart(ctx context.Context, decide decider, namespace string) (bool, error) {
	if len(validation.IsDNS1123Label(namespace)) > 0 {
		return false, nil
	}
	d, err := decide(ctx, namespace)
	return err == nil && d.Effect == policy.Enforce && !d.All, err
}

// Bounds returns the decisions for those namespaces of the attachments whose addresses are bounded.
func (r *Resolver) Bounds(attachments []plan.Attachment) map[string]policy.Decision {
	rules, bounds := r.rules(), map[string]policy.Decision{}
	for i := range attachments {
		a := &attachments[i]
		if a.Origin == nil || a.Limits == nil {
			continue
		}
		if d := rules.Of(a.Limits.Namespace); !d.All && d.Addresses < policy.Unlimited {
			bounds[a.Limits.Namespace] = d
		}
	}
	return bounds
}

// Crowded returns the attachments that exceed the bounds. have counts the addresses of each
// namespace's networks, those of the attachments included. An attachment without addresses exceeds
// none.
func (r *Resolver) Crowded(
	bounds map[string]policy.Decision, have map[string]int, attachments []plan.Attachment,
) (found []Judged) {
	for i := range attachments {
		a := &attachments[i]
		if a.Origin == nil || a.Limits == nil || policy.Addresses(network(a)) == 0 {
			continue
		}
		namespace := a.Limits.Namespace
		if d, ok := bounds[namespace]; ok && have[namespace] > d.Addresses {
			v := policy.Crowded(d.Rule, namespace, have[namespace])
			found = append(found, Judged{
				Violation: v, decided: decided{Decision: d, Namespace: namespace}, NAD: a.Name,
				IfName: a.IfName,
			})
			delete(bounds, namespace) // it is said once
		}
	}
	return found
}
