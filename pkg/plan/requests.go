package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/utils"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/selection"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Requests lists the networks of a pod in the order in which they are attached: the default
// network, the cluster-wide extra networks, the selections of the networks annotation. With pod
// nil, only the first two. It reads no definition, so that the caller can fetch all of them at
// once; what can be refused without one (syntax, namespace isolation) is refused here.
func Requests(node *conf.Node, policy *conf.Policy, pod *metav1.ObjectMeta) ([]Request, error) {
	if pod != nil && pod.Namespace == "" {
		return nil, &failure.Error{
			Reason: failure.InvalidEnvironment, Field: "K8S_POD_NAMESPACE",
			Err: errors.New("the pod has no namespace, so namespace isolation cannot be judged"),
		}
	}
	a := asker{node, policy, pod}
	def, err := a.defaultRequest()
	if err != nil {
		return nil, err
	}
	extra, err := a.clusterWideRequests()
	if err != nil {
		return nil, err
	}
	selected, err := a.selectedRequests()
	if err != nil {
		return nil, err
	}
	return slices.Concat([]Request{def}, extra, selected), nil
}

// asker is a pod on a node; pod is nil for none.
type asker struct {
	node   *conf.Node
	policy *conf.Policy
	pod    *metav1.ObjectMeta
}

// defaultRequest returns the default network: the pod's own choice, else clusterNetwork, else the
// first delegate.
func (a *asker) defaultRequest() (Request, error) {
	req, err := a.podDefaultRequest()
	switch {
	case err != nil:
		return Request{}, err
	case req != nil:
		return *req, nil
	case a.node.ClusterNetwork != "":
		r, err := a.clusterWideRequest("clusterNetwork", a.node.ClusterNetwork)
		r.Default = true
		return r, err
	case len(a.node.Delegates) > 0:
		r := a.inlineRequest(0)
		r.Default = true
		return r, nil
	}
	return Request{}, &failure.Error{
		Reason: failure.InvalidConfig, Field: "clusterNetwork",
		Err: errors.New("there is no default network"),
		Fix: `set "clusterNetwork" or "delegates" in Braid's configuration`,
	}
}

// podDefaultRequest returns the network of the pod's default-network annotation; nil without one. A
// bare name means multusNamespace, whose NADs every pod may choose: that is what the namespace is
// for.
func (a *asker) podDefaultRequest() (*Request, error) {
	if a.pod == nil {
		return nil, nil
	}
	text, ok := a.pod.Annotations[nadv1.DefaultNetworkAnnotation]
	if !ok {
		return nil, nil
	}
	found, err := a.selections(nadv1.DefaultNetworkAnnotation, a.node.MultusNamespace)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, &failure.Error{
			Reason: failure.InvalidAnnotation, Field: nadv1.DefaultNetworkAnnotation,
			Err: fmt.Errorf("%s names %d networks, a pod has one default network",
				strictjson.Quote(text), len(found)),
			Fix: "name exactly one, or remove the annotation",
		}
	}
	s := found[0]
	if s.Namespace != a.node.MultusNamespace {
		if err := checkIsolation(a.policy, a.pod.Namespace, s); err != nil {
			return nil, inAnnotation(err, nadv1.DefaultNetworkAnnotation)
		}
	}
	r := selectionRequest(s)
	r.Default = true
	return &r, nil
}

// clusterWideRequests returns the networks that every pod gets besides the default one. As in
// Multus, defaultNetworks belong to clusterNetwork and further delegates to the first one: with
// clusterNetwork the delegates are ignored, and the reverse.
func (a *asker) clusterWideRequests() ([]Request, error) {
	var out []Request
	if a.node.ClusterNetwork == "" {
		for i := 1; i < len(a.node.Delegates); i++ {
			out = append(out, a.inlineRequest(i))
		}
		return out, nil
	}
	if a.pod != nil && slices.Contains(a.node.SystemNamespaces, a.pod.Namespace) {
		return nil, nil
	}
	for i, name := range a.node.DefaultNetworks {
		r, err := a.clusterWideRequest(fmt.Sprintf("defaultNetworks[%d]", i), name)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// selectedRequests returns the networks that the pod's annotation asks for; a blank annotation asks
// for none.
func (a *asker) selectedRequests() ([]Request, error) {
	if a.pod == nil || strings.TrimSpace(a.pod.Annotations[nadv1.NetworksAnnotation]) == "" {
		return nil, nil
	}
	found, err := a.selections(nadv1.NetworksAnnotation, a.pod.Namespace)
	if err != nil {
		return nil, err
	}
	var out []Request
	for _, s := range found {
		if err := checkIsolation(a.policy, a.pod.Namespace, s); err != nil {
			return nil, inAnnotation(err, nadv1.NetworksAnnotation)
		}
		out = append(out, selectionRequest(s))
	}
	return out, nil
}

// selections reads an annotation of the pod. Its warnings are errors where the node's configuration
// refuses unknown keys.
func (a *asker) selections(annotation, namespace string) ([]selection.Selection, error) {
	found, err := selection.Parse(a.pod.Annotations[annotation], namespace)
	if err != nil {
		return nil, inAnnotation(err, annotation)
	}
	for _, s := range found {
		for i, w := range s.Warnings {
			s.Warnings[i] = inAnnotation(w, annotation)
			if a.policy.RefuseUnknownKeys {
				s.Warnings[i].Reason = failure.InvalidAnnotation
				return nil, s.Warnings[i]
			}
		}
	}
	return found, nil
}

// clusterWideRequest reads one value of clusterNetwork or defaultNetworks. What holds a slash is a
// path, as in Multus, and must be absolute: a relative one would depend on where the runtime
// happens to run. All else names a NAD in multusNamespace or, without one, a network in confDir.
func (a *asker) clusterWideRequest(field, value string) (Request, error) {
	if filepath.IsAbs(value) {
		return Request{Ref: value, File: value}, nil
	}
	if err := utils.ValidateNetworkName(value); err != nil {
		return Request{}, &failure.Error{
			Reason: failure.InvalidConfig, Field: field,
			Err: fmt.Errorf("%s is neither a network's name nor an absolute path", strictjson.Quote(value)),
			Fix: fmt.Sprintf("name a NAD of namespace %s, a network in %s, or a file or directory by its "+
				"absolute path",
				a.node.MultusNamespace, a.node.ConfDir),
		}
	}
	return Request{Ref: value, Namespace: a.node.MultusNamespace, Name: value, OnDisk: true}, nil
}

// inlineRequest returns the delegate at index i of Braid's own configuration.
func (a *asker) inlineRequest(i int) Request {
	ref := fmt.Sprintf("delegates[%d]", i)
	var named struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(a.node.Delegates[i], &named); err == nil && named.Name != "" {
		ref = fmt.Sprintf("%s (delegates[%d])", strictjson.Label(named.Name), i)
	}
	return Request{Ref: ref, Inline: a.node.Delegates[i]}
}

// selectionRequest is the request of an element of the annotation.
func selectionRequest(s selection.Selection) Request {
	return Request{
		Ref: s.Namespace + "/" + s.Name, Namespace: s.Namespace, Name: s.Name, Selection: &s,
	}
}
