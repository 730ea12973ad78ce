package lint

import (
	"context"
	"slices"
	"strings"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Violation is something that the policy does not allow an object.
type Violation struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Where     string `json:"where,omitempty"`
	// Network is the pod's network that it is about.
	Network string `json:"network,omitempty"`
	// Effect is "enforce" if it is refused, "audit" if it would be, were the policy enforced, and
	// "warn" if it is allowed, but probably not meant.
	Effect policy.Effect `json:"effect"`
	Field  string        `json:"field"`
	// What says what is not allowed.
	What string `json:"what"`
	// Rule is the rule that does not allow it, and Key the one of its keys.
	Rule string `json:"rule"`
	Key  string `json:"key"`
	// Allow is what an operator would have to write for all violations in the namespace to be none.
	Allow string `json:"allow"`
}

// String returns a line for a terminal, without Allow.
func (v Violation) String() string {
	verdict := map[policy.Effect]string{
		policy.Enforce: "refused", policy.Audit: "audited", Warn: "warning",
	}[v.Effect]
	parts := []string{verdict, strings.ToLower(v.Kind) + " " + v.Namespace + "/" + v.Name}
	if v.Where != "" {
		parts[1] += " (" + v.Where + ")"
	}
	if v.Network != "" {
		parts[1] += " network " + v.Network
	}
	for _, part := range []string{v.Field, v.What, v.Rule} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strictjson.Printable(strings.Join(parts, ": "))
}

// Report returns all that the policy does not allow the objects, whether it is enforced or not,
// NADs before pods. What is wrong with a NAD is not repeated for its pods. Objects that are refused
// for another reason have violations only as far as they could be judged. The error is that the
// labels of a namespace are not known.
func Report(ctx context.Context, in Input) ([]Violation, error) {
	c := newChecker(in)
	r := reporter{checker: c, of: map[string][]resolve.Judged{}}
	for i := range in.NADs {
		nad := &in.NADs[i]
		object := Violation{Kind: nadv1.Kind, Namespace: nad.Namespace, Name: nad.Name, Where: nad.Where}
		if err := r.object(ctx, object, Only(nad)); err != nil {
			return nil, err
		}
	}
	warned := r.overlaps()
	for i := range in.Pods {
		p := &in.Pods[i]
		err := r.object(ctx, Violation{
			Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, Where: p.Where,
		}, *p)
		if err != nil {
			return nil, err
		}
	}
	r.allow()
	for _, o := range warned {
		v := Violation{Kind: nadv1.Kind, Namespace: o.nad.Namespace, Name: o.nad.Name, Where: o.nad.Where}
		fe := o.failure()
		v.Effect, v.Field, v.What = Warn, "spec.config", fe.Err.Error()
		v.Key, v.Allow = "prefixes", fe.Fix
		r.found = append(r.found, v)
	}
	return r.found, nil
}

// Warn is the Effect of what the policy allows, and is probably not meant. Its Allow is what would
// have it apart.
const Warn policy.Effect = "warn"

// reporter collects violations.
type reporter struct {
	*checker

	found []Violation
	// owner are the namespaces whose rule it is of each that was found, and of what there is by such
	// a namespace.
	owner []string
	of    map[string][]resolve.Judged
}

// allow adds to each violation what would allow all of its namespace.
func (r *reporter) allow() {
	for i := range r.found {
		judged := r.of[r.owner[i]]
		all := make([]policy.Violation, len(judged))
		for j := range judged {
			all[j] = judged[j].Violation
		}
		r.found[i].Allow = judged[0].Remedy(judged[0].Namespace, all...)
	}
}

// object adds the violations of a pod that stands for an object.
func (r *reporter) object(ctx context.Context, object Violation, pod Pod) error {
	expected, judged, err := r.expect(ctx, pod.Pod, pod.File)
	switch failure.ReasonOf(err) {
	case failure.APIUnavailable, failure.TimedOut:
		return err
	}
	nad := r.nad(pod.File, object.Namespace+"/"+object.Name)
	if object.Kind == nadv1.Kind && nad != nil && len(expected) > 0 {
		r.apart = append(r.apart, apartOf(nad, &expected[len(expected)-1])...)
	}
	for i := range judged {
		j := &judged[i]
		v := object
		v.Effect, v.Field, v.What, v.Rule, v.Key = j.Effect, j.Field, j.What, j.Name, j.Key
		if object.Kind != nadv1.Kind {
			v.Network = j.NAD
		}
		if r.knows(v) {
			continue
		}
		r.found, r.owner = append(r.found, v), append(r.owner, j.Namespace)
		r.of[j.Namespace] = append(r.of[j.Namespace], *j)
	}
	return nil
}

// knows reports whether the violation of a pod's network was found at its NAD.
func (r *reporter) knows(v Violation) bool {
	return slices.ContainsFunc(r.found, func(f Violation) bool {
		return f.Kind == nadv1.Kind && f.Namespace+"/"+f.Name == v.Network && f.Field == v.Field &&
			f.What == v.What
	})
}
