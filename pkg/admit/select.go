package admit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nodeselect"
	"github.com/braid-cni/braid/pkg/resolve"
)

// demand is what a NAD, or the pod itself, demands of nodes.
type demand struct {
	// nad is "namespace/name"; empty for the pod's own.
	nad, field string
	needs      labels.Requirements
}

// String names whose demand it is, and what.
func (d demand) String() string {
	who := "the pod's " + d.field
	if d.nad != "" {
		who = "NAD " + d.nad
	}
	return fmt.Sprintf("%s (%s)", who, nodeselect.Text(d.needs))
}

// demandOf is what a NAD demands. One that no node can meet is refused.
func demandOf(nad *nadv1.NetworkAttachmentDefinition) (demand, error) {
	d := demand{nad: nad.Namespace + "/" + nad.Name, field: nodeselect.Field}
	var err error
	if d.needs, err = nodeselect.Of(&nad.ObjectMeta); err != nil {
		return d, err
	}
	if key := contradiction(d.needs); key != "" {
		return d, &failure.Error{
			Reason: failure.NADInvalid, NAD: d.nad, Field: nodeselect.Field,
			Err: fmt.Errorf("no node can have all of it: %s", nodeselect.Text(about(d.needs, key))),
			Fix: "remove what contradicts the rest",
		}
	}
	return d, nil
}

// compatible refuses demands that exclude each other, by the names of those that do: of two NADs,
// or of a NAD and the pod.
func compatible(demands []demand, spec *corev1.PodSpec) error {
	all := slices.Clone(demands)
	if own := ownSelector(spec); len(own.needs) > 0 {
		all = append(all, own)
	}
	for i, one := range all {
		for _, other := range all[:i] {
			if key := contradiction(slices.Concat(other.needs, one.needs)); key != "" {
				return exclude(key, other, one)
			}
		}
	}
	var together labels.Requirements
	for _, d := range all {
		together = append(together, d.needs...)
	}
	if key := contradiction(together); key != "" {
		return exclude(key, all...)
	}
	return compatibleTerms(demands, together, ownTerms(spec))
}

// compatibleTerms refuses a pod whose node affinity has no term that leaves a node.
func compatibleTerms(demands []demand, together labels.Requirements, terms []demand) error {
	for i, term := range terms {
		key := contradiction(slices.Concat(together, term.needs))
		if key == "" {
			return nil
		}
		if i < len(terms)-1 {
			continue
		}
		culprit := slices.IndexFunc(demands, func(d demand) bool {
			return contradiction(slices.Concat(d.needs, term.needs)) != ""
		})
		if culprit < 0 {
			return exclude(key, append(slices.Clone(demands), term)...)
		}
		return exclude(key, demands[culprit], term)
	}
	return nil
}

// exclude is the error of demands that no node meets together, as what they say of a label shows.
func exclude(key string, demands ...demand) error {
	var who, nads []string
	own := false
	for _, d := range demands {
		if d.needs = about(d.needs, key); len(d.needs) == 0 {
			continue
		}
		who = append(who, d.String())
		own = own || d.nad == ""
		if d.nad != "" {
			nads = append(nads, d.nad)
		}
	}
	fix := "let the pod have one of the networks only, or change the nodeSelector of a NAD"
	if own {
		fix = "change what the pod selects, or take another network"
	}
	return &failure.Error{
		Reason: failure.NodeNotSelected, NAD: nads[0], Field: nodeselect.Field,
		Err: fmt.Errorf("no node can meet %s together", strings.Join(who, " and ")), Fix: fix,
	}
}

// about are the requirements of one label.
func about(needs labels.Requirements, key string) (some labels.Requirements) {
	for _, d := range needs {
		if d.Key() == key {
			some = append(some, d)
		}
	}
	return some
}

// ownSelector is the pod's nodeSelector.
func ownSelector(spec *corev1.PodSpec) demand {
	d := demand{field: "nodeSelector"}
	for _, key := range slices.Sorted(maps.Keys(spec.NodeSelector)) {
		if one, err := labels.NewRequirement(key, selection.Equals,
			[]string{spec.NodeSelector[key]}); err == nil {
			d.needs = append(d.needs, *one)
		}
	}
	return d
}

// ownTerms are the terms of the pod's required node affinity. One has to be met. What is
// no requirement is left out: the API server refuses it.
func ownTerms(spec *corev1.PodSpec) (terms []demand) {
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil ||
		spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	for i, term := range spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		d := demand{field: fmt.Sprintf("affinity.nodeAffinity, term %d", i)}
		for _, e := range term.MatchExpressions {
			if one, err := labels.NewRequirement(e.Key, operators()[e.Operator], e.Values); err == nil {
				d.needs = append(d.needs, *one)
			}
		}
		terms = append(terms, d)
	}
	return terms
}

// operators are those of labels by those of node affinity.
func operators() map[corev1.NodeSelectorOperator]selection.Operator {
	return map[corev1.NodeSelectorOperator]selection.Operator{
		corev1.NodeSelectorOpIn: selection.In, corev1.NodeSelectorOpNotIn: selection.NotIn,
		corev1.NodeSelectorOpExists:       selection.Exists,
		corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
		corev1.NodeSelectorOpGt:           selection.GreaterThan,
		corev1.NodeSelectorOpLt:           selection.LessThan,
	}
}

// bound compares the NADs with the node that a pod is bound to from the start: no scheduler will.
func (r *review) bound(ctx context.Context, name string, demands []demand) error {
	node, err := r.source.Node(ctx, name)
	switch {
	case apierrors.IsNotFound(err):
		r.warn(&failure.Error{
			Reason: failure.NodeNotSelected, Field: "spec.nodeName",
			Err: fmt.Errorf("there is no node %q", name),
			Fix: "correct it, or leave it out and let the scheduler choose",
		})
		return nil
	case err != nil:
		return resolve.SourceError("get node", err)
	}
	for _, d := range demands {
		nad := r.source.known(d.nad)
		if err := nodeselect.Selected(&nad.ObjectMeta, node); err != nil {
			return err
		}
	}
	return nil
}

// values are those that a label may have.
type values struct {
	one              map[string]bool // nil for any
	not              map[string]bool
	exists, absent   bool
	above, below     int64
	isAbove, isBelow bool
}

// contradiction returns the first label, in the order of names, whose requirements no node can meet
// together; empty if there is none.
func contradiction(needs labels.Requirements) string {
	all := map[string]*values{}
	for i := range needs {
		key := needs[i].Key()
		if all[key] == nil {
			all[key] = &values{not: map[string]bool{}}
		}
		all[key].narrow(&needs[i])
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if !all[key].possible() {
			return key
		}
	}
	return ""
}

// narrow adds a requirement.
func (v *values) narrow(d *labels.Requirement) {
	given := d.ValuesUnsorted()
	switch d.Operator() {
	case selection.In, selection.Equals, selection.DoubleEquals:
		v.exists = true
		one := map[string]bool{}
		for _, value := range given {
			one[value] = v.one == nil || v.one[value]
		}
		maps.DeleteFunc(one, func(_ string, ok bool) bool { return !ok })
		v.one = one
	case selection.NotIn, selection.NotEquals:
		for _, value := range given {
			v.not[value] = true
		}
	case selection.Exists:
		v.exists = true
	case selection.DoesNotExist:
		v.absent = true
	case selection.GreaterThan, selection.LessThan:
		v.exists = true
		v.bound(d.Operator(), given)
	}
}

// bound adds a requirement of Gt or Lt. What is no number is refused elsewhere.
func (v *values) bound(operator selection.Operator, given []string) {
	n, err := strconv.ParseInt(strings.Join(given, ""), 10, 64)
	switch {
	case err != nil:
	case operator == selection.GreaterThan && (!v.isAbove || n > v.above):
		v.above, v.isAbove = n, true
	case operator == selection.LessThan && (!v.isBelow || n < v.below):
		v.below, v.isBelow = n, true
	}
}

// possible reports whether a node can meet all of it.
func (v *values) possible() bool {
	if v.absent {
		return !v.exists
	}
	if v.one != nil {
		return slices.ContainsFunc(slices.Collect(maps.Keys(v.one)), func(value string) bool {
			return !v.not[value] && v.within(value)
		})
	}
	// Between two bounds there has to be a number; those that are excluded are not counted.
	return !v.isAbove || !v.isBelow || v.above < v.below && v.below-v.above > 1
}

// within reports whether a value is between the bounds, if there are any.
func (v *values) within(value string) bool {
	if !v.isAbove && !v.isBelow {
		return true
	}
	n, err := strconv.ParseInt(value, 10, 64)
	return err == nil && (!v.isAbove || n > v.above) && (!v.isBelow || n < v.below)
}
