package samples_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/selection"
	"github.com/braid-cni/braid/pkg/strictjson"

	samples "github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/pkg/netconf"
)

// content is what one file, or a folder, holds.
type content struct {
	crds     []crd
	accounts []corev1.ServiceAccount
	roles    []rbacv1.ClusterRole
	bindings []rbacv1.ClusterRoleBinding
	deployed []appsv1.Deployment
	daemons  []appsv1.DaemonSet
	// of one namespace
	localRoles    []rbacv1.Role
	localBindings []rbacv1.RoleBinding

	mutating   []admissionv1.MutatingWebhookConfiguration
	validating []admissionv1.ValidatingWebhookConfiguration
	services   []corev1.Service
	secrets    []corev1.Secret
	budgets    []policyv1.PodDisruptionBudget

	policies       []admissionv1.ValidatingAdmissionPolicy
	policyBindings []admissionv1.ValidatingAdmissionPolicyBinding

	nads     []nadv1.NetworkAttachmentDefinition
	pods     []corev1.Pod
	configs  []*conf.Config
	clusters []clusterConfig
	blocks   []ipBlockFile
}

// loaders claim the files whose name says what they hold; all other YAML files hold Kubernetes
// objects.
var loaders = []struct {
	pattern string
	load    func(*content, []byte) error
}{
	{"README*.md", func(*content, []byte) error { return nil }},
	{"*.conflist", (*content).loadConflist},
	{"cilium-values.yaml", func(_ *content, data []byte) error { return loadCiliumValues(data) }},
	{"cluster.yaml", func(c *content, data []byte) error { return addStrict(&c.clusters, data) }},
	{"ip-block-*.yaml", func(c *content, data []byte) error { return addStrict(&c.blocks, data) }},
	// TestDashboard and TestAlerts say what these hold.
	{"dashboard.json", func(_ *content, data []byte) error {
		return json.Unmarshal(data, new(map[string]any))
	}},
	{"alerts.yaml", func(_ *content, data []byte) error {
		return yaml.Unmarshal(data, new(map[string]any))
	}},
	{"*.yaml", (*content).loadObjects},
}

// folder loads all files of a folder.
func folder(t *testing.T, dir string) *content {
	t.Helper()
	names, err := fs.Glob(samples.Files(), dir+"/*")
	if err != nil || len(names) == 0 {
		t.Fatalf("no files in %s (%v)", dir, err)
	}
	all := new(content)
	for _, name := range names {
		all.loadFile(t, name)
	}
	return all
}

// file loads one.
func file(t *testing.T, name string) *content {
	t.Helper()
	one := new(content)
	one.loadFile(t, name)
	return one
}

func (c *content) loadFile(t *testing.T, name string) {
	t.Helper()
	data, err := fs.ReadFile(samples.Files(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range loaders {
		if ok, err := path.Match(l.pattern, path.Base(name)); err != nil || !ok {
			continue
		}
		if err := l.load(c, data); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return
	}
	t.Fatalf("%s: no loader claims this file", name)
}

// loadConflist reads a file of /etc/cni/net.d as a runtime does, and the configuration of Braid in
// it as libcni hands it over.
func (c *content) loadConflist(data []byte) error {
	if err := strictjson.Check(data); err != nil {
		return err
	}
	list, err := libcni.NetworkConfFromBytes(data)
	if err != nil {
		return err
	}
	if len(list.Plugins) != 1 || list.Plugins[0].Network.Type != "braid" {
		return errors.New("the chain is not braid alone")
	}
	injected, err := libcni.InjectConf(list.Plugins[0],
		map[string]any{"name": list.Name, "cniVersion": list.CNIVersion})
	if err != nil {
		return err
	}
	cfg, err := conf.Load(injected.Bytes)
	if err != nil {
		return err
	}
	c.configs = append(c.configs, cfg)
	return nil
}

func loadCiliumValues(data []byte) error {
	var values struct {
		CNI struct {
			Exclusive *bool `json:"exclusive"`
		} `json:"cni"`
	}
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		return err
	}
	if values.CNI.Exclusive == nil || *values.CNI.Exclusive {
		return errors.New("cni.exclusive is not false")
	}
	return nil
}

func (c *content) loadObjects(data []byte) error {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.loadObject(doc); err != nil {
			return err
		}
	}
}

func (c *content) loadObject(doc []byte) error {
	var header metav1.TypeMeta
	if err := yaml.Unmarshal(doc, &header); err != nil {
		return err
	}
	switch id := header.APIVersion + " " + header.Kind; id {
	case "v1 Namespace":
		return yaml.UnmarshalStrict(doc, new(corev1.Namespace))
	case "v1 ServiceAccount":
		return addStrict(&c.accounts, doc)
	case "apps/v1 Deployment":
		return addStrict(&c.deployed, doc)
	case "apps/v1 DaemonSet":
		return addStrict(&c.daemons, doc)
	case "v1 ConfigMap":
		return c.loadConfigMap(doc)
	case "v1 Pod":
		return c.loadPod(doc)
	case "rbac.authorization.k8s.io/v1 ClusterRole":
		return addStrict(&c.roles, doc)
	case "rbac.authorization.k8s.io/v1 ClusterRoleBinding":
		return addStrict(&c.bindings, doc)
	case "rbac.authorization.k8s.io/v1 Role":
		return addStrict(&c.localRoles, doc)
	case "rbac.authorization.k8s.io/v1 RoleBinding":
		return addStrict(&c.localBindings, doc)
	case "admissionregistration.k8s.io/v1 MutatingWebhookConfiguration":
		return addStrict(&c.mutating, doc)
	case "admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration":
		return addStrict(&c.validating, doc)
	case "v1 Service":
		return addStrict(&c.services, doc)
	case "v1 Secret":
		return addStrict(&c.secrets, doc)
	case "policy/v1 PodDisruptionBudget":
		return addStrict(&c.budgets, doc)
	case "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy":
		return addStrict(&c.policies, doc)
	case "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding":
		return addStrict(&c.policyBindings, doc)
	case "apiextensions.k8s.io/v1 CustomResourceDefinition":
		return addStrict(&c.crds, doc)
	case nadv1.GroupName + "/" + nadv1.Version + " " + nadv1.Kind:
		return c.loadNAD(doc)
	default:
		return fmt.Errorf("no loader claims %q", id)
	}
}

// loadConfigMap reads the configuration in it as the agent does, with what the agent adds.
func (c *content) loadConfigMap(doc []byte) error {
	var object corev1.ConfigMap
	if err := yaml.UnmarshalStrict(doc, &object); err != nil {
		return err
	}
	keys, err := strictjson.Object([]byte(object.Data["config.json"]))
	if err != nil {
		return err
	}
	keys["name"], keys["clusterNetwork"] = strictjson.Marshal("braid"), strictjson.Marshal(
		"/etc/cni/net.d/10-pods.conflist")
	cfg, err := conf.Load(strictjson.Marshal(keys))
	if err != nil {
		return err
	}
	c.configs = append(c.configs, cfg)
	return nil
}

// loadPod also reads the annotation, and keeps to images that name no registry.
func (c *content) loadPod(doc []byte) error {
	if err := addStrict(&c.pods, doc); err != nil {
		return err
	}
	pod := &c.pods[len(c.pods)-1]
	pod.Namespace = namespaceOf(&pod.ObjectMeta)
	selected, err := selection.Parse(pod.Annotations[nadv1.NetworksAnnotation], pod.Namespace)
	if err != nil {
		return err
	}
	if len(selected) == 0 {
		return fmt.Errorf("pod %s asks for no network", pod.Name)
	}
	for _, container := range pod.Spec.Containers {
		if container.Image == "" || strings.ContainsAny(container.Image, "/.:") {
			return fmt.Errorf("pod %s: image %q is not a plain name", pod.Name, container.Image)
		}
	}
	return nil
}

func (c *content) loadNAD(doc []byte) error {
	if err := addStrict(&c.nads, doc); err != nil {
		return err
	}
	nad := &c.nads[len(c.nads)-1]
	nad.Namespace = namespaceOf(&nad.ObjectMeta)
	_, err := netconf.Parse([]byte(nad.Spec.Config))
	return err
}

// namespaceOf is where kubectl puts an object that names none.
func namespaceOf(meta *metav1.ObjectMeta) string {
	if meta.Namespace == "" {
		return metav1.NamespaceDefault
	}
	return meta.Namespace
}

// addStrict decodes one object; a field that its type does not have is an error.
func addStrict[T any](list *[]T, doc []byte) error {
	var value T
	if err := yaml.UnmarshalStrict(doc, &value); err != nil {
		return err
	}
	*list = append(*list, value)
	return nil
}

// nad finds one by its namespace and name.
func (c *content) nad(namespace, name string) *nadv1.NetworkAttachmentDefinition {
	for i := range c.nads {
		if c.nads[i].Namespace == namespace && c.nads[i].Name == name {
			return &c.nads[i]
		}
	}
	return nil
}
