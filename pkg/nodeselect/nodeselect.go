// Package nodeselect reads which nodes the pods of a NetworkAttachmentDefinition (NAD) may run on:
// its annotation k8s.v1.cni.cncf.io/nodeSelector, a label selector as kubectl takes it.
//
// Contract: pure: no I/O, equal input, equal output. The node's ADD and admission share it, so
// that both take a selector for the same. Errors are *failure.Error with the field of the NAD.
package nodeselect

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Field is the place of a selector in its NAD.
const Field = "metadata.annotations." + nadv1.NodeSelectorAnnotation

// MaxRequirements bounds a selector: each is compared with those of the pod's other networks.
const MaxRequirements = 256

// Of returns what a NAD demands of nodes, sorted by key; nothing if it has no selector.
func Of(nad *metav1.ObjectMeta) (labels.Requirements, error) {
	text := nad.Annotations[nadv1.NodeSelectorAnnotation]
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	wrong := func(err error, fix string) error {
		name := nad.Namespace + "/" + nad.Name
		return &failure.Error{Reason: failure.NADInvalid, NAD: name, Field: Field, Err: err, Fix: fix}
	}
	demands, err := labels.ParseToRequirements(text)
	if err != nil {
		return nil, wrong(fmt.Errorf("%s is no label selector: %w", strictjson.Quote(text), err),
			`write it as for kubectl's --selector, such as "pool=data-plane,zone in (a, b)"`)
	}
	if len(demands) > MaxRequirements {
		return nil, wrong(fmt.Errorf("it has %d requirements", len(demands)),
			fmt.Sprintf("keep it to %d", MaxRequirements))
	}
	return demands, nil
}

// Unmet returns those of the requirements that a node's labels do not meet.
func Unmet(demands labels.Requirements, node map[string]string) (unmet labels.Requirements) {
	for _, d := range demands {
		if !d.Matches(labels.Set(node)) {
			unmet = append(unmet, d)
		}
	}
	return unmet
}

// Selected refuses a node whose labels a NAD does not select.
func Selected(nad, node *metav1.ObjectMeta) error {
	demands, err := Of(nad)
	if err != nil {
		return err
	}
	unmet := Unmet(demands, node.Labels)
	if len(unmet) == 0 {
		return nil
	}
	return &failure.Error{
		Reason: failure.NodeNotSelected, NAD: nad.Namespace + "/" + nad.Name, Field: Field,
		Err: fmt.Errorf("the NAD is for nodes with %s, and node %s has %s",
			Text(unmet), node.Name, has(unmet, node.Labels)),
		Fix: fmt.Sprintf("%s, or run the pod on a node that is selected", label(unmet, node.Name)),
	}
}

// Text is requirements as one writes them.
func Text(demands labels.Requirements) string {
	const most = 8 // for messages
	var parts []string
	for _, d := range demands {
		if len(parts) == most {
			parts = append(parts, fmt.Sprintf("%d more", len(demands)-most))
			break
		}
		parts = append(parts, d.String())
	}
	return strictjson.Printable(strings.Join(parts, ","))
}

// has returns what a node has of the labels that requirements are about.
func has(unmet labels.Requirements, node map[string]string) string {
	var parts []string
	for _, d := range unmet[:min(len(unmet), 8)] {
		part := "no label " + d.Key()
		if value, ok := node[d.Key()]; ok {
			part = d.Key() + "=" + value
		}
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ", ")
}

// label says how to have a node selected.
func label(unmet labels.Requirements, node string) string {
	command := "kubectl label nodes " + node + " --overwrite"
	for _, d := range unmet {
		value, one := Equals(&d)
		if !one || len(unmet) > 8 {
			return "give the node labels that the selector asks for"
		}
		command += fmt.Sprintf(" %s=%s", d.Key(), value)
	}
	return "label the node (`" + command + "`)"
}

// Equals reports whether a requirement is that a label has one certain value, and returns it.
func Equals(d *labels.Requirement) (value string, ok bool) {
	switch d.Operator() {
	case selection.Equals, selection.DoubleEquals, selection.In:
		if values := d.ValuesUnsorted(); len(values) == 1 {
			return values[0], true
		}
	}
	return "", false
}
