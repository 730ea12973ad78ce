package samples_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/plan"

	samples "github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/policy"
)

// TestSamplesLoad loads every file of the folder, and expects of each that it is embedded and says
// what it shows: at its top or, in JSON, which has no comments, in README.md.
func TestSamplesLoad(t *testing.T) {
	readme, err := fs.ReadFile(samples.Files(), "README.md")
	if err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && name == "helm" {
			return fs.SkipDir // the chart has tests of its own
		}
		if err != nil || d.IsDir() || path.Dir(name) == "." && path.Ext(name) == ".go" {
			return err
		}
		t.Run(name, func(t *testing.T) {
			file(t, name)
			data, err := fs.ReadFile(samples.Files(), name)
			if err != nil {
				t.Fatal(err)
			}
			switch path.Ext(name) {
			case ".yaml":
				if !bytes.HasPrefix(data, []byte("# ")) {
					t.Error("it does not begin with a comment that says what it shows")
				}
			case ".conflist":
				if !bytes.Contains(readme, []byte("`"+name+"`")) {
					t.Error("README.md does not say what it shows")
				}
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLoadersRefuse shows that the loaders are strict: what they accept says something.
func TestLoadersRefuse(t *testing.T) {
	nad := "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: n}\n"
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: " +
		"{k8s.v1.cni.cncf.io/networks: %s}}\nspec: {containers: [{image: %s}]}\n"
	for name, doc := range map[string]string{
		"kind":      "apiVersion: v1\nkind: Endpoints\n",
		"field":     nad + "spec: {configs: ''}\n",
		"key twice": nad + "kind: NetworkAttachmentDefinition\n",
		"comment in JSON": nad +
			"spec:\n  config: |-\n    {\"cniVersion\": \"1.1.0\", # no\n    \"type\": \"bridge\"}\n",
		"no annotation":    fmt.Sprintf(pod, "''", "nginx"),
		"bad annotation":   fmt.Sprintf(pod, "a//b", "nginx"),
		"image's registry": fmt.Sprintf(pod, "a", "example.com/nginx"),
	} {
		if err := new(content).loadObjects([]byte(doc)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestReadmeNamesFiles: what README.md names is there, and it names each file of what is deployed.
func TestReadmeNamesFiles(t *testing.T) {
	readme, err := fs.ReadFile(samples.Files(), "README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(
		"[` ](?:conf/)?((?:cni|crd|deploy|rbac|samples|gke)/[\\w.-]+\\w)").FindAllSubmatch(readme, -1) {
		if _, err := fs.Stat(samples.Files(), string(m[1])); err != nil {
			t.Error(err)
		}
	}
	for _, dir := range []string{"crd", "deploy", "rbac"} {
		names, err := fs.Glob(samples.Files(), dir+"/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !bytes.Contains(readme, []byte("`"+name+"`")) {
				t.Errorf("README.md does not say what %s is", name)
			}
		}
	}
}

// TestSamplesPlan plans each pod with the networks of its folder: they are there, they have the
// capabilities that the pod needs, they may be used from its namespace, they want no default route
// that the pod does not.
func TestSamplesPlan(t *testing.T) {
	for dir, conflist := range map[string]string{
		"samples": "cni/00-braid.conflist", "gke": "gke/00-braid.conflist",
	} {
		cfg, all := file(t, conflist).configs[0], folder(t, dir)
		for _, pod := range all.pods {
			t.Run(dir+"/"+pod.Name, func(t *testing.T) { planPod(t, cfg, &pod, all) })
		}
	}
}

func planPod(t *testing.T, cfg *conf.Config, pod *corev1.Pod, all *content) {
	requests, err := plan.Requests(&cfg.Node, &cfg.Policy, &pod.ObjectMeta)
	if err != nil {
		t.Fatal(err)
	}
	definitions := []plan.Definition{
		{Conf: []byte(`{"cniVersion": "1.0.0", "name": "eth", "type": "bridge"}`)},
	}
	for _, r := range requests[1:] {
		nad := all.nad(r.Namespace, r.Name)
		if nad == nil {
			t.Fatalf("there is no NAD %s/%s", r.Namespace, r.Name)
		}
		definitions = append(definitions, plan.Definition{NAD: nad})
	}
	attachments, err := plan.Make(plan.Input{
		Node: &cfg.Node, Policy: &cfg.Policy, Call: &cfg.Call, Pod: &pod.ObjectMeta,
		ContainerID: "0123456789ab", IfName: "eth0",
		Requests: requests, Definitions: definitions, Devices: devicesOf(pod),
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(attachments) < 2 {
		t.Errorf("the pod has %d networks", len(attachments))
	}
}

// devicesOf allocates as a kubelet would.
func devicesOf(pod *corev1.Pod) map[string][]string {
	devices := map[string][]string{}
	for _, container := range pod.Spec.Containers {
		for name := range container.Resources.Limits {
			devices[string(name)] = []string{"0000:01:00.1"}
		}
	}
	return devices
}

// TestS2CRD: NPWG v1.3 s.3.1 and s.3.2, and texts for `kubectl explain`. The rest is what users of
// Multus type.
func TestS2CRD(t *testing.T) {
	found := file(t, "crd/network-attachment-definition.yaml").crds[0]
	spec := found.Spec
	if got, want := found.Metadata.Name, nadv1.Resource+"."+nadv1.GroupName; got != want {
		t.Errorf("name %q, want %q", got, want)
	}
	if spec.Group != nadv1.GroupName || spec.Scope != "Namespaced" || spec.Names.Kind != nadv1.Kind ||
		spec.Names.Plural != nadv1.Resource {
		t.Errorf("group, scope or names differ: %+v", spec)
	}
	if got, want := spec.Names.Singular, "network-attachment-definition"; got != want {
		t.Errorf("singular %q, want %q", got, want)
	}
	if diff := cmp.Diff([]string{"nad", "net-attach-def"}, spec.Names.ShortNames); diff != "" {
		t.Errorf("short names (-want +got):\n%s", diff)
	}
	if len(spec.Versions) != 1 || spec.Versions[0].Name != nadv1.Version || !spec.Versions[0].Served ||
		!spec.Versions[0].Storage {
		t.Fatalf("versions: %+v", spec.Versions)
	}
	root := spec.Versions[0].Schema.OpenAPIV3Schema
	config := root.Properties["spec"].Properties["config"]
	if config == nil || config.Type != "string" {
		t.Error("spec.config is no string")
	}
	if len(root.Required)+len(root.Properties["spec"].Required) != 0 {
		t.Error("an object without spec has a meaning (S4) and must be accepted")
	}
}

func TestCRDsExplain(t *testing.T) {
	for _, found := range folder(t, "crd").crds {
		for _, v := range found.Spec.Versions {
			explained(t, found.Spec.Names.Kind, &v.Schema.OpenAPIV3Schema)
		}
	}
}

// explained wants a text for every field but metadata, which the API server describes itself.
func explained(t *testing.T, name string, s *schema) {
	t.Helper()
	if s.Description == "" {
		t.Errorf("%s has no description", name)
	}
	for field, sub := range s.Properties {
		if field != "metadata" {
			explained(t, name+"."+field, sub)
		}
	}
}

// TestIPBlockCRD: the names and rules that pkg/ipam/block counts on, and columns that read well.
func TestIPBlockCRD(t *testing.T) {
	found := file(t, "crd/ipblocks.yaml").crds[0]
	spec := found.Spec
	if found.Metadata.Name != v1alpha1.Resource+"."+v1alpha1.GroupName ||
		spec.Group != v1alpha1.GroupName || spec.Scope != "Cluster" ||
		spec.Names.Kind != v1alpha1.Kind || spec.Names.Plural != v1alpha1.Resource ||
		!slices.Equal(spec.Names.ShortNames, []string{"ipb"}) {
		t.Errorf("name, group, scope or names differ: %+v", spec)
	}
	if len(spec.Versions) != 1 || spec.Versions[0].Name != v1alpha1.Version ||
		!spec.Versions[0].Served || !spec.Versions[0].Storage {
		t.Fatalf("versions: %+v", spec.Versions)
	}
	version := spec.Versions[0]
	if version.Subresources.Status == nil {
		t.Error("whoever changes a spec can change the status")
	}
	var columns, selectable []string
	for _, c := range version.AdditionalPrinterColumns {
		columns = append(columns, c.Name)
	}
	for _, f := range version.SelectableFields {
		selectable = append(selectable, f.JSONPath)
	}
	diff := cmp.Diff([]string{"Space", "CIDR", "Node", "Used", "Free", "Recalled-By", "Age"}, columns)
	if diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	diff = cmp.Diff([]string{".spec.space", ".spec.owner.nodeName", ".spec.recall.by"}, selectable)
	if diff != "" {
		t.Errorf("selectable fields (-want +got):\n%s", diff)
	}
	block := version.Schema.OpenAPIV3Schema.Properties["spec"]
	for _, field := range []string{"space", "cidr"} {
		rules := block.Properties[field].Validations
		if len(rules) != 1 || rules[0].Rule != "self == oldSelf" {
			t.Errorf("%s can be changed: %+v", field, rules)
		}
	}
	if diff := cmp.Diff([]string{"cidr", "space"}, block.Required); diff != "" {
		t.Errorf("required (-want +got):\n%s", diff)
	}
	if allocations := block.Properties["allocations"]; allocations.MaxItems == nil ||
		*allocations.MaxItems != 16 ||
		!slices.Equal(allocations.ListMapKeys, []string{"address"}) {
		t.Errorf("a block can have too many allocations, or an address twice: %+v", allocations)
	}
}

func rule(group string, resources, verbs string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		APIGroups: []string{group}, Resources: strings.Fields(resources), Verbs: strings.Fields(verbs),
	}
}

// TestNodeRole: the least that a node needs, rule by rule, bound to its ServiceAccount.
func TestNodeRole(t *testing.T) {
	all := file(t, "rbac/node.yaml")
	want := []rbacv1.PolicyRule{
		rule("", "pods/status", "patch"),
		rule(nadv1.GroupName, nadv1.Resource, "get"),
		rule("", "namespaces", "get"),
		rule("", "events", "create"),
		rule(v1alpha1.GroupName, v1alpha1.Resource, "get list create update delete"),
		rule(v1alpha1.GroupName, v1alpha1.Resource+"/status", "patch"),
		rule("", "nodes", "get list"),
		rule(claimv1.GroupName, claimv1.Resource, "get"),
		rule(claimv1.GroupName, claimv1.Resource+"/status", "patch"),
	}
	if diff := cmp.Diff(want, all.roles[0].Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	bound(t, all.accounts[0], all.bindings[0].Subjects, all.bindings[0].RoleRef, "ClusterRole",
		all.roles[0].Name)
}

// TestNodeOptionalRoles: what only some clusters need is in roles of their own, bound to the same
// account.
func TestNodeOptionalRoles(t *testing.T) {
	account := file(t, "rbac/node.yaml").accounts[0]
	for name, want := range map[string][]rbacv1.PolicyRule{
		"rbac/node-pods.yaml": {rule("", "pods", "get")},
		"rbac/node-devices.yaml": {
			rule(resourcev1.GroupName, "resourceclaims", "get"),
			rule(resourcev1.GroupName, "resourceslices", "list"),
		},
	} {
		all := file(t, name)
		if diff := cmp.Diff(want, all.roles[0].Rules); diff != "" {
			t.Errorf("%s: rules (-want +got):\n%s", name, diff)
		}
		bound(t, account, all.bindings[0].Subjects, all.bindings[0].RoleRef, "ClusterRole",
			all.roles[0].Name)
	}
}

// TestAgentRoles: the least that the agent needs. It gets tokens for the CNI binary's account, and
// writes the status of Nodes, but no Node.
func TestAgentRoles(t *testing.T) {
	all := file(t, "rbac/agent.yaml")
	account, read := all.accounts[0], "get list watch"
	for i, want := range [][]rbacv1.PolicyRule{
		{
			rule("", "nodes", read),
			rule("", "nodes/status", "patch"),
			rule("", "events", "create"),
			rule(nadv1.GroupName, nadv1.Resource, read),
			rule("", "namespaces", "list watch"),
			rule(v1alpha1.GroupName, v1alpha1.Resource, read+" create update delete"),
			rule(v1alpha1.GroupName, v1alpha1.Resource+"/status", "patch"),
		},
		{rule("", "pods", "list watch")},
	} {
		if diff := cmp.Diff(want, all.roles[i].Rules); diff != "" {
			t.Errorf("rules of %s (-want +got):\n%s", all.roles[i].Name, diff)
		}
		bound(t, account, all.bindings[i].Subjects, all.bindings[i].RoleRef, "ClusterRole",
			all.roles[i].Name)
	}
	tokens := rule("", "serviceaccounts/token", "create")
	tokens.ResourceNames = []string{file(t, "rbac/cni.yaml").accounts[0].Name}
	local, localBinding := all.localRoles[0], all.localBindings[0]
	diff := cmp.Diff([]rbacv1.PolicyRule{tokens, rule("", "pods", "get")}, local.Rules)
	if diff != "" {
		t.Errorf("rules in its namespace (-want +got):\n%s", diff)
	}
	bound(t, account, localBinding.Subjects, localBinding.RoleRef, "Role", local.Name)
	if local.Namespace != account.Namespace || localBinding.Namespace != account.Namespace {
		t.Errorf("the Role is in %q and %q, the account in %q",
			local.Namespace, localBinding.Namespace, account.Namespace)
	}
}

// TestCNIRoles: the CNI binary needs the same rights whoever gave it its credential, and no pod may
// run as its account by accident.
func TestCNIRoles(t *testing.T) {
	account := file(t, "rbac/cni.yaml").accounts[0]
	if mount := account.AutomountServiceAccountToken; mount == nil || *mount {
		t.Error("a pod of this account gets its token")
	}
	for name, same := range map[string]string{
		"cni": "node", "cni-pods": "node-pods", "cni-devices": "node-devices",
	} {
		all := file(t, "rbac/"+name+".yaml")
		diff := cmp.Diff(file(t, "rbac/"+same+".yaml").roles[0].Rules, all.roles[0].Rules)
		if diff != "" {
			t.Errorf("rules of %s, but for the agent's account (-%s +%s):\n%s", name, same, name, diff)
		}
		bound(t, account, all.bindings[0].Subjects, all.bindings[0].RoleRef, "ClusterRole",
			all.roles[0].Name)
	}
}

// bound wants a role to be the account's, and nobody else's.
func bound(
	t *testing.T, account corev1.ServiceAccount, got []rbacv1.Subject, ref rbacv1.RoleRef, kind,
	name string,
) {
	t.Helper()
	if want := (rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}); ref != want {
		t.Errorf("the binding is to %+v, want %+v", ref, want)
	}
	subjects := []rbacv1.Subject{
		{Kind: "ServiceAccount", Namespace: account.Namespace, Name: account.Name},
	}
	if diff := cmp.Diff(subjects, got); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
}

// TestControllerRole: the least that braid-controller needs: of Leases it has one.
func TestControllerRole(t *testing.T) {
	all := file(t, "rbac/controller.yaml")
	want := []rbacv1.PolicyRule{
		rule(v1alpha1.GroupName, v1alpha1.Resource, "list create update delete"),
		rule("", "nodes", "get list patch"),
		rule("", "nodes/status", "patch"),
		rule("", "pods", "list"),
		rule(claimv1.GroupName, claimv1.Resource, "list"),
		rule("whereabouts.cni.cncf.io", "ippools overlappingrangeipreservations", "list"),
	}
	if diff := cmp.Diff(want, all.roles[0].Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	account, local, localBinding := all.accounts[0], all.localRoles[0], all.localBindings[0]
	bound(t, account, all.bindings[0].Subjects, all.bindings[0].RoleRef, "ClusterRole",
		all.roles[0].Name)
	held := rule("coordination.k8s.io", "leases", "get update")
	held.ResourceNames = []string{"braid-controller"}
	diff := cmp.Diff([]rbacv1.PolicyRule{rule("coordination.k8s.io", "leases", "create"), held},
		local.Rules)
	if diff != "" {
		t.Errorf("rules on Leases (-want +got):\n%s", diff)
	}
	bound(t, account, localBinding.Subjects, localBinding.RoleRef, "Role", local.Name)
	for _, namespace := range []string{local.Namespace, localBinding.Namespace} {
		if namespace != account.Namespace {
			t.Errorf("the Lease is in %q, the account in %q", namespace, account.Namespace)
		}
	}
}

// TestControllerAdmissionRole: of Secrets it has its certificate's, of webhook configurations its
// own, and it writes no pod and no NAD.
func TestControllerAdmissionRole(t *testing.T) {
	all, account := file(t, "rbac/controller-admission.yaml"), file(t, "rbac/controller.yaml").
		accounts[0]
	webhooks := rule("admissionregistration.k8s.io",
		"mutatingwebhookconfigurations validatingwebhookconfigurations", "get patch")
	webhooks.ResourceNames = []string{"braid-controller"}
	want := []rbacv1.PolicyRule{
		rule(nadv1.GroupName, nadv1.Resource, "get list watch"), rule("", "namespaces", "get list watch"),
		webhooks,
	}
	if diff := cmp.Diff(want, all.roles[0].Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	bound(t, account, all.bindings[0].Subjects, all.bindings[0].RoleRef, "ClusterRole",
		all.roles[0].Name)
	secret := rule("", "secrets", "get update")
	secret.ResourceNames = []string{"braid-controller-tls"}
	if diff := cmp.Diff([]rbacv1.PolicyRule{secret}, all.localRoles[0].Rules); diff != "" {
		t.Errorf("rules on Secrets (-want +got):\n%s", diff)
	}
	bound(t, account, all.localBindings[0].Subjects, all.localBindings[0].RoleRef, "Role",
		all.localRoles[0].Name)
}

// TestWebhooks: what may hold up pods is for pods with networks and for NADs alone, and never for
// the namespace that the controller is in; the rest is let pass without the controller. They lead
// to the Service of the controller's pods.
func TestWebhooks(t *testing.T) {
	all, d := file(t, "deploy/webhook.yaml"), file(t, "deploy/controller.yaml").deployed[0]
	type hook struct {
		name     string
		policy   *admissionv1.FailurePolicyType
		client   admissionv1.WebhookClientConfig
		selector *metav1.LabelSelector
	}
	var hooks []hook
	for _, w := range all.mutating[0].Webhooks {
		hooks = append(hooks, hook{w.Name, w.FailurePolicy, w.ClientConfig, w.NamespaceSelector})
		if len(w.MatchConditions) != 3 {
			t.Errorf("%s is for more pods than it should be: %+v", w.Name, w.MatchConditions)
		}
	}
	for _, w := range all.validating[0].Webhooks {
		hooks = append(hooks, hook{w.Name, w.FailurePolicy, w.ClientConfig, w.NamespaceSelector})
	}
	fail := map[string]bool{"pods.admission.braid-cni.io": true, "nads.admission.braid-cni.io": true}
	for _, h := range hooks {
		if (*h.policy == admissionv1.Fail) != fail[h.name] {
			t.Errorf("%s: failure policy %s", h.name, *h.policy)
		}
		if diff := cmp.Diff(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: "kubernetes.io/metadata.name", Operator: metav1.LabelSelectorOpNotIn,
			Values: []string{d.Namespace},
		}}}, h.selector); diff != "" {
			t.Errorf("%s: namespaces (-want +got):\n%s", h.name, diff)
		}
		s := all.services[0]
		to := h.client.Service
		if to.Name != s.Name || to.Namespace != s.Namespace || *to.Port != s.Spec.Ports[0].Port ||
			len(h.client.CABundle) > 0 {
			t.Errorf("%s leads to %+v", h.name, to)
		}
	}
	if diff := cmp.Diff(d.Spec.Template.Labels, all.services[0].Spec.Selector); diff != "" {
		t.Errorf("the Service is not the controller's (-labels +selector):\n%s", diff)
	}
	port := all.services[0].Spec.Ports[0].TargetPort.StrVal
	if d.Spec.Template.Spec.Containers[0].Ports[0].Name != port {
		t.Errorf("the Service's port is %s", port)
	}
	if len(all.secrets) != 1 || len(all.secrets[0].Data)+len(all.secrets[0].StringData) > 0 {
		t.Errorf("the Secret would be overwritten by an apply: %+v", all.secrets)
	}
	if diff := cmp.Diff(d.Spec.Template.Labels, all.budgets[0].Spec.Selector.MatchLabels); diff != "" {
		t.Errorf("the budget is not the controller's (-labels +selector):\n%s", diff)
	}
}

// image is the placeholder of the one image: whoever deploys puts a reference in its place.
const image = "braid:devel"

// TestAgentDaemonSet: it runs on every node, as the account that has the roles, and nothing that a
// scheduler, a security module or a shortage of memory decides keeps it from there.
func TestAgentDaemonSet(t *testing.T) {
	all, account := file(t, "deploy/agent.yaml"), file(t, "rbac/agent.yaml").accounts[0]
	d := all.daemons[0]
	template := d.Spec.Template
	pod := template.Spec
	if pod.ServiceAccountName != account.Name || d.Namespace != account.Namespace {
		t.Errorf("it runs as %s/%s, want %s/%s",
			d.Namespace, pod.ServiceAccountName, account.Namespace, account.Name)
	}
	diff := cmp.Diff(d.Spec.Selector.MatchLabels, template.Labels)
	if diff != "" || len(template.Labels) == 0 {
		t.Errorf("it does not select its pods (-selector +labels):\n%s", diff)
	}
	if !pod.HostNetwork || !pod.HostPID || pod.PriorityClassName != "system-node-critical" ||
		pod.DNSPolicy != corev1.DNSDefault {
		t.Errorf("host's network %t, processes %t, priority %q, DNS %q",
			pod.HostNetwork, pod.HostPID, pod.PriorityClassName, pod.DNSPolicy)
	}
	diff = cmp.Diff([]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, pod.Tolerations)
	if diff != "" {
		t.Errorf("tolerations (-want +got):\n%s", diff)
	}
	c := pod.Containers[0]
	s := c.SecurityContext
	if !*s.Privileged || s.SELinuxOptions.Type != "spc_t" ||
		s.AppArmorProfile.Type != corev1.AppArmorProfileTypeUnconfined || c.Image != image {
		t.Errorf("security context %+v, image %s", s, c.Image)
	}
	if c.Resources.Limits != nil || c.Resources.Requests.Memory().IsZero() || len(c.Ports) > 0 ||
		*d.Spec.UpdateStrategy.RollingUpdate.MaxSurge != intstr.FromInt32(0) {
		t.Errorf("resources %+v, ports %v, update %+v",
			c.Resources, c.Ports, d.Spec.UpdateStrategy.RollingUpdate)
	}
	env := map[string]string{}
	for _, e := range c.Env {
		if env[e.Name] = e.Value; e.ValueFrom != nil {
			env[e.Name] = e.ValueFrom.FieldRef.FieldPath
		}
	}
	if diff := cmp.Diff(map[string]string{
		"NODE_NAME": "spec.nodeName", "POD_NAMESPACE": "metadata.namespace", "POD_NAME": "metadata.name",
		"POD_UID": "metadata.uid", "GOMEMLIMIT": "128MiB",
	}, env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	want := "--service-account=" + account.Namespace + "/" + file(t, "rbac/cni.yaml").accounts[0].Name
	if !slices.Contains(c.Args, want) {
		t.Errorf("arguments %q, want %s among them", c.Args, want)
	}
	if len(all.configs) != 1 {
		t.Error("there is no configuration")
	}
}

// TestControllerDeployment: it runs as the account that has the role, selects its own pods, and
// needs no rights on its node.
func TestControllerDeployment(t *testing.T) {
	d, account := file(t, "deploy/controller.yaml").deployed[0], file(t, "rbac/controller.yaml").
		accounts[0]
	pod := d.Spec.Template
	if pod.Spec.ServiceAccountName != account.Name || d.Namespace != account.Namespace {
		t.Errorf("it runs as %s/%s, want %s/%s",
			d.Namespace, pod.Spec.ServiceAccountName, account.Namespace, account.Name)
	}
	if diff := cmp.Diff(d.Spec.Selector.MatchLabels, pod.Labels); diff != "" || len(pod.Labels) == 0 {
		t.Errorf("it does not select its pods (-selector +labels):\n%s", diff)
	}
	for _, c := range pod.Spec.Containers {
		s := c.SecurityContext
		if c.Image != image || pod.Spec.HostNetwork || !*pod.Spec.SecurityContext.RunAsNonRoot ||
			*s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem ||
			!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("container %s may do too much, or its image names a registry: %+v", c.Name, c)
		}
	}
}

// TestU12ClusterRoles: one to view, one to administer NADs, nothing else in them, and neither
// becomes part of another role.
func TestU12ClusterRoles(t *testing.T) {
	view := []string{"get", "list", "watch"}
	want := map[string][]string{
		"braid-nad-viewer": view,
		"braid-nad-admin": append(slices.Clone(view), "create", "update", "patch", "delete",
			"deletecollection"),
	}
	for _, role := range file(t, "rbac/nad.yaml").roles {
		rules := []rbacv1.PolicyRule{
			{
				APIGroups: []string{nadv1.GroupName}, Resources: []string{nadv1.Resource},
				Verbs: want[role.Name],
			},
		}
		if diff := cmp.Diff(rules, role.Rules); diff != "" {
			t.Errorf("%s (-want +got):\n%s", role.Name, diff)
		}
		if len(role.Labels) != 0 || role.AggregationRule != nil {
			t.Errorf("%s is aggregated: %v %v", role.Name, role.Labels, role.AggregationRule)
		}
		delete(want, role.Name)
	}
	if len(want) != 0 {
		t.Errorf("missing: %v", want)
	}
}

// TestU3ThreeSteps: enable on the cluster; declare node interfaces and networks; annotate pods.
// Each file leads to the next.
func TestU3ThreeSteps(t *testing.T) {
	cluster := file(t, "gke/cluster.yaml").clusters[0]
	if !cluster.MultipleNetworkInterfaces || !cluster.EnableDataplaneV2 {
		t.Error("step 1: not enabled")
	}
	networks := folder(t, "gke")
	for _, i := range cluster.Network.AdditionalNodeInterfaces {
		if networks.nad("default", i.NetworkName) == nil {
			t.Errorf("step 2: no NAD for the node interface %s", i.NetworkName)
		}
		if i.Type == "static" && len(file(t, path.Join("gke", i.IPBlockFilePath)).blocks) != 1 {
			t.Errorf("step 2: %s holds no addresses", i.IPBlockFilePath)
		}
	}
	pods := file(t, "gke/pods.yaml").pods
	if len(pods) == 0 ||
		pods[0].Annotations[nadv1.NetworksAnnotation] !=
			cluster.Network.AdditionalNodeInterfaces[0].NetworkName {
		t.Error("step 3: the first pod does not ask for the network")
	}
}

// TestU14ProfileTypes: the examples of the profile use its nine plugins, each at least once, and no
// other. Every network also stays out of the way of the cluster's own (U5).
func TestU14ProfileTypes(t *testing.T) {
	all, used := folder(t, "gke"), map[string]bool{}
	for _, nad := range all.nads {
		list, err := netconf.Parse([]byte(nad.Spec.Config))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range append(list.Types(), list.IPAMTypes()...) {
			used[name] = true
		}
		for _, own := range []string{
			all.clusters[0].Network.PodCIDR, all.clusters[0].Network.ServiceCIDR,
		} {
			checkApart(t, &nad, netip.MustParsePrefix(own))
		}
	}
	var got []string
	for name := range used {
		got = append(got, name)
	}
	slices.Sort(got)
	want := strings.Fields("bridge host-local ipvlan macvlan portmap sbr static tuning whereabouts")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("types (-want +got):\n%s", diff)
	}
}

// TestU14ProfilePolicy: the profile allows its nine plugins and no other, at every depth and in
// every namespace, the operator's among them, and forbids nothing else.
func TestU14ProfilePolicy(t *testing.T) {
	cfg, err := conf.LoadFile("gke/00-braid.conflist")
	if err != nil {
		t.Fatal(err)
	}
	rules := cfg.Namespaces(cfg.MultusNamespace)
	want := strings.Fields("bridge host-local ipvlan macvlan portmap sbr static tuning whereabouts")
	for _, namespace := range []string{"default", "kube-system", "any"} {
		d := rules.Of(namespace)
		diff := cmp.Diff(want, d.Types)
		if diff != "" || d.Effect != policy.Enforce || d.All || len(d.Exec) > 0 {
			t.Errorf("namespace %s: %s, exec %q, types (-want +got):\n%s", namespace, d.Effect, d.Exec, diff)
		}
	}
	d := rules.Of("default")
	for _, nad := range folder(t, "gke").nads {
		if found := judged(t, d.Rule, nad.Spec.Config); len(found) > 0 {
			t.Errorf("%s: %s", nad.Name, found[0].What)
		}
	}
	for config, field := range map[string]string{
		`{"type":"host-device","device":"ens192"}`:                               "plugins[0].type",
		`{"plugins":[{"type":"bridge"},{"type":"bandwidth"}]}`:                   "plugins[1].type",
		`{"type":"bridge","ipam":{"type":"dhcp"}}`:                               "plugins[0].ipam.type",
		`{"type":"bridge","delegates":[{"type":"macvlan","ipam":{"type":"x"}}]}`: "plugins[0].delegates[0].type",
	} {
		if found := judged(t, d.Rule, config); len(found) == 0 || found[0].Field != field {
			t.Errorf("%s: %+v", config, found)
		}
	}
}

// judged are the violations of a network whose plugins run in-process, if they are built in.
func judged(t *testing.T, rule *policy.Rule, config string) []policy.Violation {
	t.Helper()
	list, err := netconf.Parse([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	n := &policy.Network{Conf: list.Bytes(), IfName: "net1"}
	for i := range list.Len() {
		n.Runs = append(n.Runs, policy.Run{Index: i})
	}
	return policy.Judge(rule, n)
}

func checkApart(t *testing.T, nad *nadv1.NetworkAttachmentDefinition, own netip.Prefix) {
	t.Helper()
	for _, text := range regexp.MustCompile(`[0-9.]+/[0-9]+`).FindAllString(nad.Spec.Config, -1) {
		if netip.MustParsePrefix(text).Overlaps(own) {
			t.Errorf("%s: %s overlaps with %s", nad.Name, text, own)
		}
	}
}

// TestSampleTopologies: one sample for each of the four (U18), told by what its pods ask for.
func TestSampleTopologies(t *testing.T) {
	networks := func(name string, pod int) string {
		return file(t, name).pods[pod].Annotations[nadv1.NetworksAnnotation]
	}
	for name, want := range map[string][]string{
		"samples/08-many-pods.yaml":           {"shared", "shared"},
		"samples/09-many-networks.yaml":       {"default/over-eth1, over-eth2"},
		"samples/10-same-node-interface.yaml": {"eth1-blue, eth1-green"},
		"samples/11-same-network-twice.yaml":  {"twice, twice"},
	} {
		for i := range want {
			if got := networks(name, i); got != want[i] {
				t.Errorf("%s: pod %d asks for %q, want %q", name, i, got, want[i])
			}
		}
	}
}

// TestCNIConfigurations: what each conflist is there to show, in the configuration that Braid makes
// of it.
func TestCNIConfigurations(t *testing.T) {
	type shape struct {
		CNIVersion, ClusterNetwork, Manifests, LogFile string
		Delegates                                      int
	}
	const braidLog = "/var/log/braid.log"
	for name, want := range map[string]shape{
		"cni/00-braid.conflist": {
			"1.1.0", "/etc/cni/net.d/10-flannel.conflist", "",
			braidLog, 0,
		},
		"cni/00-braid-cilium.conflist": {
			"1.1.0", "/etc/cni/net.d/05-cilium.conflist", "",
			braidLog, 0,
		},
		"cni/00-braid-delegates.conflist": {"1.1.0", "", "", braidLog, 1},
		"cni/00-braid-manifests.conflist": {"1.1.0", "", "/etc/braid/manifests", braidLog, 1},
		"cni/00-braid-0.4.0.conflist":     {"0.4.0", "k8s-pod-network", "", "/var/log/multus.log", 0},
		"gke/00-braid.conflist": {
			"1.1.0", "/etc/cni/net.d/05-cilium.conflist", "",
			"/var/log/multus.log", 0,
		},
	} {
		cfg := file(t, name).configs[0]
		got := shape{cfg.CNIVersion, cfg.ClusterNetwork, cfg.Manifests, cfg.LogFile, len(cfg.Delegates)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if (cfg.Kubeconfig == "") != (want.Manifests != "") {
			t.Errorf("%s: kubeconfig %q", name, cfg.Kubeconfig)
		}
	}
}
