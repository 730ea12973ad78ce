package admit_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/braid-cni/braid/pkg/admit"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
)

// memory is a Cluster.
type memory struct {
	nads       map[string]*nadv1.NetworkAttachmentDefinition
	namespaces map[string]map[string]string
	nodes      map[string]map[string]string
	pods       []metav1.ObjectMeta
	// err, if set, is the answer to every question.
	err error
}

func (m *memory) NAD(
	_ context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	if nad := m.nads[namespace+"/"+name]; nad != nil || m.err != nil {
		return nad, m.err
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{
		Group: nadv1.GroupName, Resource: nadv1.Resource,
	}, name)
}

func (m *memory) NADs(context.Context) (all []nadv1.NetworkAttachmentDefinition, err error) {
	for _, nad := range m.nads {
		all = append(all, *nad)
	}
	return all, m.err
}

func (m *memory) Namespace(_ context.Context, name string) (*metav1.ObjectMeta, error) {
	return &metav1.ObjectMeta{Name: name, Labels: m.namespaces[name]}, m.err
}

func (m *memory) Node(_ context.Context, name string) (*metav1.ObjectMeta, error) {
	if labels, ok := m.nodes[name]; ok || m.err != nil {
		return &metav1.ObjectMeta{Name: name, Labels: labels}, m.err
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, name)
}

func (m *memory) Pods(_ context.Context, namespace string) (some []metav1.ObjectMeta, err error) {
	for _, p := range m.pods {
		if namespace == "" || p.Namespace == namespace {
			some = append(some, p)
		}
	}
	return some, m.err
}

// builtIn takes every plugin for a built-in one that has nothing to say.
type builtIn struct{}

func (builtIn) Find(string, []byte, []string) (invoke.Found, error) { return invoke.Found{}, nil }

// cluster has the NADs web/a, web/b, default/shared and other/theirs, and judges its objects.
type cluster struct {
	t *testing.T
	memory
	config *conf.Config
}

func newCluster(t *testing.T, keys string) *cluster {
	t.Helper()
	c := &cluster{t: t, memory: memory{nads: map[string]*nadv1.NetworkAttachmentDefinition{}}}
	c.configure(keys)
	for _, ref := range []string{"web/a", "web/b", "default/shared", "other/theirs"} {
		c.nad(ref)
	}
	return c
}

// configure sets the nodes' configuration to one with these keys.
func (c *cluster) configure(keys string) {
	c.t.Helper()
	var err error
	if c.config, err = conf.Load(
		[]byte(`{"cniVersion": "1.1.0", "name": "braid", ` +
			`"clusterNetwork": "/etc/cni/net.d/pods.conflist"` + keys + `}`)); err != nil {
		c.t.Fatal(err)
	}
}

// nad adds a NAD with annotations, keys and values in turn.
func (c *cluster) nad(ref string, annotations ...string) *nadv1.NetworkAttachmentDefinition {
	namespace, name, _ := strings.Cut(ref, "/")
	nad := &nadv1.NetworkAttachmentDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: "k8s.cni.cncf.io/v1", Kind: nadv1.Kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: map[string]string{}},
		Spec: nadv1.NetworkAttachmentDefinitionSpec{
			Config: `{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1"}`,
		},
	}
	for i := 0; i < len(annotations); i += 2 {
		nad.Annotations[annotations[i]] = annotations[i+1]
	}
	c.nads[ref] = nad
	return nad
}

// selecting adds a NAD with a nodeSelector.
func (c *cluster) selecting(ref, selector string) {
	c.nad(ref, nadv1.NodeSelectorAnnotation, selector)
}

func (c *cluster) review(
	kind string, operation admissionv1.Operation, object, old any,
) *admit.Verdict {
	c.t.Helper()
	raw := func(o any) runtime.RawExtension {
		if o == nil {
			return runtime.RawExtension{}
		}
		if text, ok := o.(string); ok {
			return runtime.RawExtension{Raw: []byte(text)}
		}
		text, err := json.Marshal(o)
		if err != nil {
			c.t.Fatal(err)
		}
		return runtime.RawExtension{Raw: text}
	}
	reviewer := &admit.Reviewer{Cluster: &c.memory, Nodes: func() (admit.Nodes, error) {
		return admit.Nodes{Config: c.config, Finder: builtIn{}}, nil
	}}
	req := &admissionv1.AdmissionRequest{
		UID: "u", Kind: metav1.GroupVersionKind{Kind: kind}, Namespace: "web", Name: "o",
		Operation: operation, Object: raw(object), OldObject: raw(old),
	}
	v := reviewer.Review(c.t.Context(), req)
	response := v.Response(req)
	if response.UID != "u" || response.Allowed != (v.Denied == nil && v.Unknown == nil) {
		c.t.Errorf("response %+v of %+v", response, v)
	}
	if v.Denied != nil && (response.Result.Code != 403 ||
		!strings.Contains(response.Result.Message, "web/o")) {
		c.t.Errorf("a denial is %+v", response.Result)
	}
	return v
}

// pod is a pod with networks.
func pod(networks string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Annotations: map[string]string{nadv1.NetworksAnnotation: networks},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}, {Name: "d"}}},
	}
}

// create has a pod judged; the one that is admitted is returned.
func (c *cluster) create(p *corev1.Pod) (*corev1.Pod, *admit.Verdict) {
	c.t.Helper()
	v := c.review("Pod", admissionv1.Create, p, nil)
	return c.patched(p, v), v
}

func (c *cluster) patched(p *corev1.Pod, v *admit.Verdict) *corev1.Pod {
	c.t.Helper()
	if v.Denied != nil || v.Unknown != nil {
		return nil
	}
	raw, err := json.Marshal(p)
	if err != nil {
		c.t.Fatal(err)
	}
	if len(v.Patch) > 0 {
		patch, err := jsonpatch.DecodePatch(v.Patch)
		if err != nil {
			c.t.Fatal(err)
		}
		if raw, err = patch.Apply(raw); err != nil {
			c.t.Fatalf("%v: %s", err, v.Patch)
		}
	}
	out := &corev1.Pod{}
	if err := json.Unmarshal(raw, out); err != nil {
		c.t.Fatal(err)
	}
	return out
}

// denied checks a denial: its class, that it has a remedy, and words in it.
func denied(t *testing.T, what string, v *admit.Verdict, reason failure.Reason, words ...string) {
	t.Helper()
	fe, ok := errors.AsType[*failure.Error](v.Denied)
	if !ok || fe.Reason != reason || fe.Fix == "" || fe.Field == "" && fe.NAD == "" {
		t.Errorf("%s: got %+v, want a denial of reason %s with field and remedy", what, v.Denied, reason)
		return
	}
	for _, word := range words {
		if !strings.Contains(v.Denied.Error(), word) {
			t.Errorf("%s: %q does not say %q", what, v.Denied, word)
		}
	}
}

// warned reports whether a warning has all words.
func warned(v *admit.Verdict, words ...string) bool {
	for _, w := range v.Warnings {
		all := true
		for _, word := range words {
			all = all && strings.Contains(w.Error(), word)
		}
		if all {
			return true
		}
	}
	return false
}
