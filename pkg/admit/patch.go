package admit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"gomodules.xyz/jsonpatch/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/nodeselect"
)

// patch returns the changes of an object as a JSON patch; nil for none. The object is edited as it
// is: fields that this program does not know stay.
func (c *changes) patch(raw []byte) ([]byte, error) {
	var pod object
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&pod); err != nil {
		return nil, fmt.Errorf("decode the pod: %w", err)
	}
	before, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("encode the pod: %w", err)
	}
	spec := pod.child("spec")
	c.narrow(spec)
	c.request(spec)
	if c.podInfo {
		mountPodInfo(spec)
	}
	after, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("encode the pod: %w", err)
	}
	return patchOf(before, after)
}

// patchOf returns the JSON patch that makes one text of another; nil if they mean the same.
func patchOf(before, after []byte) ([]byte, error) {
	operations, err := jsonpatch.CreatePatch(before, after)
	if err != nil {
		return nil, fmt.Errorf("make a patch of the pod: %w", err)
	}
	if len(operations) == 0 {
		return nil, nil
	}
	patch, err := json.Marshal(operations)
	if err != nil {
		return nil, fmt.Errorf("encode the patch: %w", err)
	}
	return patch, nil
}

// object is a JSON object.
type object map[string]any

// child returns an object in it, which is made if there is none.
func (o object) child(key string) object {
	if m, ok := o[key].(map[string]any); ok {
		return m
	}
	m := map[string]any{}
	o[key] = m
	return m
}

// list returns the objects of a list.
func (o object) list(key string) (all []object) {
	elements, _ := o[key].([]any)
	for _, e := range elements {
		if m, ok := e.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
}

// add appends to a list, unless it has the same already.
func (o object) add(key string, element map[string]any) {
	elements, _ := o[key].([]any)
	if !slices.ContainsFunc(elements, func(e any) bool { return reflect.DeepEqual(e, any(element)) }) {
		o[key] = append(elements, element)
	}
}

// addAll is add for several elements.
func (o object) addAll(key string, elements []map[string]any) {
	for _, e := range elements {
		o.add(key, e)
	}
}

// narrow writes what NADs demand of nodes: equality into the nodeSelector, the rest into every term
// of the required node affinity. A term with nothing in it selects no node, and is left so.
func (c *changes) narrow(spec object) {
	rest := c.selectEqual(spec)
	if len(rest) == 0 {
		return
	}
	required := spec.child("affinity").child("nodeAffinity").
		child("requiredDuringSchedulingIgnoredDuringExecution")
	if _, has := required["nodeSelectorTerms"]; !has {
		term := object{}
		term.addAll("matchExpressions", rest)
		required["nodeSelectorTerms"] = []any{map[string]any(term)}
		return
	}
	for _, term := range required.list("nodeSelectorTerms") {
		if len(term.list("matchExpressions")) == 0 && len(term.list("matchFields")) == 0 {
			continue
		}
		term.addAll("matchExpressions", rest)
	}
}

// selectEqual writes the demands of equality into the nodeSelector, and returns all others.
func (c *changes) selectEqual(spec object) (rest []map[string]any) {
	for _, d := range c.demands {
		for i := range d.needs {
			if value, equal := nodeselect.Equals(&d.needs[i]); equal {
				spec.child("nodeSelector")[d.needs[i].Key()] = value
			} else {
				rest = append(rest, expression(&d.needs[i]))
			}
		}
	}
	return rest
}

// expression is a requirement as node affinity has it.
func expression(d *labels.Requirement) map[string]any {
	operator := d.Operator()
	switch operator {
	case selection.NotEquals:
		operator = selection.NotIn
	case selection.Equals, selection.DoubleEquals:
		operator = selection.In
	}
	e := map[string]any{"key": d.Key()}
	for affinity, same := range operators() {
		if same == operator {
			e["operator"] = string(affinity)
		}
	}
	values := d.ValuesUnsorted()
	slices.Sort(values)
	list := make([]any, len(values))
	for i, v := range values {
		list[i] = v
	}
	if len(list) > 0 {
		e["values"] = list
	}
	return e
}

// request adds what is missing of resources to the first container that requests none of them, else
// to the first. Requests and limits of an extended resource are the same.
func (c *changes) request(spec object) {
	containers := spec.list("containers")
	if len(containers) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(c.resources)) {
		into := 0
		if i := slices.IndexFunc(containers, func(c object) bool {
			return quantity(c, name) == 0
		}); i >= 0 {
			into = i
		}
		amount := strconv.FormatInt(quantity(containers[into], name)+c.resources[name], 10)
		resources := containers[into].child("resources")
		resources.child("requests")[name], resources.child("limits")[name] = amount, amount
	}
}

// quantity is how much of a resource a container asks for; 0 without touching it if it does not.
func quantity(container object, name string) (most int64) {
	resources, _ := container["resources"].(map[string]any)
	for _, key := range []string{"requests", "limits"} {
		amounts, _ := resources[key].(map[string]any)
		if q, err := resource.ParseQuantity(fmt.Sprint(amounts[name])); err == nil {
			most = max(most, q.Value())
		}
	}
	return most
}

// podInfoVolume is its name, that of the network resources injector.
const podInfoVolume = "podnetinfo"

// mountPodInfo mounts the pod's annotations and labels, and network-status in a file of its own, in
// all containers. What is there by the name, or at the path, is left.
func mountPodInfo(spec object) {
	field := func(file, path string) any {
		return map[string]any{
			"path": file, "fieldRef": map[string]any{"apiVersion": "v1", "fieldPath": path},
		}
	}
	if !slices.ContainsFunc(spec.list("volumes"), func(v object) bool {
		return v["name"] == podInfoVolume
	}) {
		spec.add("volumes", map[string]any{
			"name": podInfoVolume,
			"downwardAPI": map[string]any{"items": []any{
				field("annotations", "metadata.annotations"), field("labels", "metadata.labels"),
				field("network-status", "metadata.annotations['"+nadv1.StatusAnnotation+"']"),
			}},
		})
	}
	for _, kind := range []string{"initContainers", "containers"} {
		for _, container := range spec.list(kind) {
			if !slices.ContainsFunc(container.list("volumeMounts"), func(m object) bool {
				return m["mountPath"] == PodInfoPath
			}) {
				container.add("volumeMounts",
					map[string]any{"name": podInfoVolume, "mountPath": PodInfoPath, "readOnly": true})
			}
		}
	}
}
