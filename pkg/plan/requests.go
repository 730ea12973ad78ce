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

// Requests lists the networks of a pod in the order in which they are attached: the default network, the cluster-wide extra
// networks, the selections of the networks annotation. With pod nil, only the first two. It reads no definition, so that the
// caller can fetch all of them at once; what can be refused without one (syntax, namespace isolation) is refused here.
func Requests(cfg *conf.Config, pod *metav1.ObjectMeta) ([]Request, error) {
	if pod != nil && pod.Namespace == "" {
		return nil, &failure.Error{
			Reason: failure.InvalidEnvironment, Field: "K8S_POD_NAMESPACE",
			Err: errors.New("the pod has no namespace, so namespace isolation cannot be judged"),
		}
	}
	def, err := defaultRequest(cfg, pod)
	if err != nil {
		return nil, err
	}
	extra, err := clusterWideRequests(cfg, pod)
	if err != nil {
		return nil, err
	}
	selected, err := selectedRequests(cfg, pod)
	if err != nil {
		return nil, err
	}
	return slices.Concat([]Request{def}, extra, selected), nil
}

// defaultRequest is the default network: the pod's own choice, else clusterNetwork, else the first delegate.
func defaultRequest(cfg *conf.Config, pod *metav1.ObjectMeta) (Request, error) {
	req, err := podDefaultRequest(cfg, pod)
	switch {
	case err != nil:
		return Request{}, err
	case req != nil:
		return *req, nil
	case cfg.ClusterNetwork != "":
		r, err := clusterWideRequest(cfg, "clusterNetwork", cfg.ClusterNetwork)
		r.Default = true
		return r, err
	case len(cfg.Delegates) > 0:
		r := inlineRequest(cfg, 0)
		r.Default = true
		return r, nil
	}
	return Request{}, &failure.Error{
		Reason: failure.InvalidConfig, Field: "clusterNetwork", Err: errors.New("there is no default network"),
		Fix: `set "clusterNetwork" or "delegates" in Braid's configuration`,
	}
}

// podDefaultRequest is the network of the pod's default-network annotation; nil without one. A bare name means
// multusNamespace, whose NADs every pod may choose: that is what the namespace is for.
func podDefaultRequest(cfg *conf.Config, pod *metav1.ObjectMeta) (*Request, error) {
	if pod == nil {
		return nil, nil
	}
	text, ok := pod.Annotations[nadv1.DefaultNetworkAnnotation]
	if !ok {
		return nil, nil
	}
	found, err := selections(cfg, pod, nadv1.DefaultNetworkAnnotation, cfg.MultusNamespace)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, &failure.Error{
			Reason: failure.InvalidAnnotation, Field: nadv1.DefaultNetworkAnnotation,
			Err: fmt.Errorf("%s names %d networks, a pod has one default network", strictjson.Quote(text), len(found)),
			Fix: "name exactly one, or remove the annotation",
		}
	}
	s := found[0]
	if s.Namespace != cfg.MultusNamespace {
		if err := checkIsolation(cfg, pod.Namespace, s); err != nil {
			return nil, inAnnotation(err, nadv1.DefaultNetworkAnnotation)
		}
	}
	r := selectionRequest(s)
	r.Default = true
	return &r, nil
}

// clusterWideRequests are the networks that every pod gets besides the default one. As in Multus, defaultNetworks belong to
// clusterNetwork and further delegates to the first one: with clusterNetwork the delegates are ignored, and the reverse.
func clusterWideRequests(cfg *conf.Config, pod *metav1.ObjectMeta) ([]Request, error) {
	var out []Request
	if cfg.ClusterNetwork == "" {
		for i := 1; i < len(cfg.Delegates); i++ {
			out = append(out, inlineRequest(cfg, i))
		}
		return out, nil
	}
	if pod != nil && slices.Contains(cfg.SystemNamespaces, pod.Namespace) {
		return nil, nil
	}
	for i, name := range cfg.DefaultNetworks {
		r, err := clusterWideRequest(cfg, fmt.Sprintf("defaultNetworks[%d]", i), name)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// selectedRequests are the networks that the pod's annotation asks for; a blank annotation asks for none.
func selectedRequests(cfg *conf.Config, pod *metav1.ObjectMeta) ([]Request, error) {
	if pod == nil || strings.TrimSpace(pod.Annotations[nadv1.NetworksAnnotation]) == "" {
		return nil, nil
	}
	found, err := selections(cfg, pod, nadv1.NetworksAnnotation, pod.Namespace)
	if err != nil {
		return nil, err
	}
	var out []Request
	for _, s := range found {
		if err := checkIsolation(cfg, pod.Namespace, s); err != nil {
			return nil, inAnnotation(err, nadv1.NetworksAnnotation)
		}
		out = append(out, selectionRequest(s))
	}
	return out, nil
}

// selections reads an annotation of the pod. Its warnings are errors where the node's configuration
// refuses unknown keys.
func selections(cfg *conf.Config, pod *metav1.ObjectMeta, annotation, namespace string) ([]selection.Selection, error) {
	found, err := selection.Parse(pod.Annotations[annotation], namespace)
	if err != nil {
		return nil, inAnnotation(err, annotation)
	}
	for _, s := range found {
		for i, w := range s.Warnings {
			s.Warnings[i] = inAnnotation(w, annotation)
			if cfg.RefuseUnknownKeys {
				s.Warnings[i].Reason = failure.InvalidAnnotation
				return nil, s.Warnings[i]
			}
		}
	}
	return found, nil
}

// clusterWideRequest reads one value of clusterNetwork or defaultNetworks. What holds a slash is a path, as in Multus, and
// must be absolute: a relative one would depend on where the runtime happens to run. All else names a NAD in multusNamespace
// or, without one, a network in confDir.
func clusterWideRequest(cfg *conf.Config, field, value string) (Request, error) {
	if filepath.IsAbs(value) {
		return Request{Ref: value, File: value}, nil
	}
	if err := utils.ValidateNetworkName(value); err != nil {
		return Request{}, &failure.Error{
			Reason: failure.InvalidConfig, Field: field,
			Err: fmt.Errorf("%s is neither a network's name nor an absolute path", strictjson.Quote(value)),
			Fix: fmt.Sprintf("name a NAD of namespace %s, a network in %s, or a file or directory by its absolute path",
				cfg.MultusNamespace, cfg.ConfDir),
		}
	}
	return Request{Ref: value, Namespace: cfg.MultusNamespace, Name: value, OnDisk: true}, nil
}

// inlineRequest is the delegate at index i of Braid's own configuration.
func inlineRequest(cfg *conf.Config, i int) Request {
	ref := fmt.Sprintf("delegates[%d]", i)
	var named struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(cfg.Delegates[i], &named); err == nil && named.Name != "" {
		ref = fmt.Sprintf("%s (delegates[%d])", strictjson.Label(named.Name), i)
	}
	return Request{Ref: ref, Inline: cfg.Delegates[i]}
}

func selectionRequest(s selection.Selection) Request {
	return Request{Ref: s.Namespace + "/" + s.Name, Namespace: s.Namespace, Name: s.Name, Selection: &s}
}
