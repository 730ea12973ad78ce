package resolve

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/weaken"
)

// Judged is one thing that the policy does not allow.
type Judged struct {
	policy.Violation
	decided

	// NAD and IfName name the attachment. They are empty for the pod as a whole.
	NAD, IfName string
}

// decided is the decision for a namespace: the NAD's, or the pod's for what the pod asks.
type decided struct {
	policy.Decision

	Namespace string
	// Unsure is the reason why nobody knows whether the namespace has policy.TenantLabel, or nil.
	Unsure error
}

// Failure returns it as an error or, if it is not enforced, as a warning.
func (j *Judged) Failure() *failure.Error { return together([]Judged{*j}) }

// Judge returns what the policy does not allow a pod and its attachments, enforced or not. Plugins
// has been called for the attachments. If no rule names the namespace of a NAD, its labels are
// looked up, as the plugins' limits depend on them. The labels of the pod's namespace are looked up
// if it asks for what it must not have. If a rule is enforced for an attachment, Judge sets its
// limits, and renames its networks to names of its namespace.
func (r *Resolver) Judge(
	ctx context.Context, pod *podv1.Pod, attachments []plan.Attachment,
) ([]Judged, error) {
	if pod == nil {
		return nil, nil
	}
	rules := r.rules()
	decide := r.deciding(rules)
	found := judgePod(rules.Of(pod.Namespace).Rule, r.Node.MultusNamespace, attachments)
	for i := range found {
		decided, err := decide(ctx, pod.Namespace)
		if err != nil {
			return nil, failure.AtNAD(err, found[i].NAD)
		}
		found[i].decided = decided
	}
	for i := range attachments {
		a := &attachments[i]
		if a.Origin == nil {
			continue
		}
		judged, err := r.judge(ctx, decide, a)
		if err != nil {
			return nil, failure.AtNAD(err, a.Name)
		}
		found = append(found, judged...)
	}
	return found, nil
}

// judge is Judge for one attachment.
func (r *Resolver) judge(
	ctx context.Context, decide decider, a *plan.Attachment,
) (found []Judged, err error) {
	decided, err := decide(ctx, a.Origin.Namespace)
	if err != nil {
		return nil, err
	}
	if decided.Effect == policy.Enforce {
		limit(a, decided.Rule)
	}
	for _, v := range policy.Judge(decided.Rule, network(a)) {
		found = append(found, Judged{Violation: v, decided: decided, NAD: a.Name, IfName: a.IfName})
	}
	judged, err := r.named(ctx, decide, decided, a)
	return append(found, judged...), err
}

// named keeps the names of an attachment apart from those of other namespaces. It returns the names
// that belong to another one.
func (r *Resolver) named(
	ctx context.Context, decide decider, d decided, a *plan.Attachment,
) (found []Judged, err error) {
	if d.Effect == policy.Enforce {
		return nil, r.own(ctx, decide, a, d.Rule)
	}
	borrowed, err := r.borrowed(ctx, decide, a)
	d.Effect = policy.Enforce // for the sake of the other one
	for _, v := range borrowed {
		found = append(found, Judged{Violation: v, decided: d, NAD: a.Name, IfName: a.IfName})
	}
	return found, err
}

// network returns an attachment as a rule judges it.
func network(a *plan.Attachment) *policy.Network {
	return &policy.Network{
		Conf: a.Conf, IfName: a.IfName, Runs: a.Runs, OnDisk: a.Origin.OnDisk, IPs: a.IPs,
	}
}

// limit sets the limits of an attachment: what only its plugins can check of a rule.
func limit(a *plan.Attachment, rule *policy.Rule) {
	if a.Limits == nil {
		return
	}
	if rule.All {
		a.Limits = nil
		return
	}
	limits := *a.Limits
	limits.Bridges, limits.OwnBridges = rule.Bridges, rule.Bridges == nil
	if limits.OwnBridges {
		limits.Bridges = []string{}
	}
	limits.SpoofCheck = true
	limits.Prefixes, limits.Masters = rule.Prefixes, append([]string{}, rule.Masters...)
	limits.HostPorts, limits.LoopbackPorts = []attachment.Ports{}, rule.HostPorts.Loopback
	for _, ports := range rule.HostPorts.Ports {
		limits.HostPorts = append(limits.HostPorts,
			attachment.Ports{First: uint16(ports.From), Last: uint16(ports.To)})
	}
	a.Limits = &limits
}

// rules returns those of the node.
func (r *Resolver) rules() *policy.Policy {
	return r.Policy.Namespaces(r.Node.MultusNamespace)
}

// judgePod judges what a pod asks for. shared is the namespace from which every pod may choose its
// default network.
func judgePod(rule *policy.Rule, shared string, attachments []plan.Attachment) (found []Judged) {
	var pod policy.Pod
	var of []*plan.Attachment
	for i := range attachments {
		a := &attachments[i]
		if a.Origin == nil {
			continue
		}
		if !a.Default {
			pod.Networks++
		}
		s := a.Origin.Selection
		pod.Requests = append(pod.Requests, policy.Request{
			IfName: a.IfName, Shared: a.Default && s.Namespace == shared, PortMappings: s.PortMappings,
			CNIArgs: s.CNIArgs,
		})
		of = append(of, a)
	}
	for _, v := range policy.JudgePod(rule, &pod) {
		judged := Judged{Violation: v.Violation}
		if v.Request >= 0 {
			judged.NAD, judged.IfName = of[v.Request].Name, of[v.Request].IfName
		}
		found = append(found, judged)
	}
	return found
}

// decider returns the decision for a namespace.
type decider func(ctx context.Context, namespace string) (decided, error)

// deciding returns a decider that remembers its decisions. It looks up the label of a namespace
// that no rule names.
func (r *Resolver) deciding(rules *policy.Policy) decider {
	known := map[string]decided{}
	return func(ctx context.Context, namespace string) (decided, error) {
		if d, ok := known[namespace]; ok {
			return d, nil
		}
		d := decided{Decision: rules.Of(namespace), Namespace: namespace}
		if d.Effect == policy.Audit {
			tenant, err := r.tenant(ctx, namespace)
			switch {
			case apierrors.IsForbidden(err):
				d.Unsure = err
			case err != nil:
				return decided{}, err
			case tenant:
				d.Effect = policy.Enforce
			}
		}
		known[namespace] = d
		return d, nil
	}
}

// tenant reports whether a namespace has the tenant's label. A namespace that does not exist has
// none.
func (r *Resolver) tenant(ctx context.Context, name string) (bool, error) {
	namespace, err := r.Source.Namespace(ctx, name)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, SourceError("get namespace", err)
	}
	return metav1.HasLabel(*namespace, policy.TenantLabel), nil
}

// Permit returns one error for all that is enforced of what was judged, or nil. All that is not
// enforced becomes one warning of an attachment.
func Permit(judged []Judged, attachments []plan.Attachment) error {
	var refused, audited []Judged
	for _, j := range judged {
		if j.Effect == policy.Enforce && !weaken.Off(weaken.Policy) {
			refused = append(refused, j)
		} else {
			audited = append(audited, j)
		}
	}
	if len(refused) > 0 {
		return together(refused)
	}
	if len(audited) > 0 {
		last := len(attachments) - 1
		for i := range attachments {
			if attachments[i].IfName == audited[0].IfName {
				last = i
			}
		}
		attachments[last].Warnings = append(attachments[last].Warnings, together(audited))
	}
	return nil
}

// maxTold bounds how many violations one error lists.
const maxTold = 8

// together returns one error or warning for several violations. Its remedy is what the operator
// would have to write for the first one's namespace.
func together(judged []Judged) *failure.Error {
	first := judged[0]
	all := first.Error(first.Decision, first.NAD, first.Namespace)
	all.Interface = first.IfName
	same := []policy.Violation{first.Violation}
	var more []string
	for _, j := range judged[1:] {
		if j.Namespace == first.Namespace {
			same = append(same, j.Violation)
		}
		if len(more) == maxTold {
			more[maxTold-1] = fmt.Sprintf("and %d more", len(judged)-maxTold)
		} else if len(more) < maxTold {
			more = append(more, strings.TrimSpace(j.NAD+" "+j.Field)+": "+j.What)
		}
	}
	if len(more) > 0 {
		all.Err = fmt.Errorf("%w; %s", all.Err, strings.Join(more, "; "))
		all.Fix = "change it, or let the operator " + first.Remedy(first.Namespace, same...)
	}
	if first.Effect == policy.Audit {
		all.Reason = failure.PolicyAudited
		all.Err = fmt.Errorf("it is allowed only because the policy is not enforced here: %w", all.Err)
	}
	if first.Unsure != nil {
		all.Err = fmt.Errorf("%w; whether namespace %s is a tenant's is not known: %w",
			all.Err, first.Namespace, first.Unsure)
	}
	return all
}
