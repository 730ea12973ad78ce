package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/e2e/lab"
)

const cniAccount = "system:serviceaccount:kube-system:braid-cni"

// newAgentHost is a apiHost whose node has a Node object and the accounts of an agent, held to the
// node by conf/rbac/admission.yaml.
func newAgentHost(t *testing.T, namespace, name string) (h *apiHost, node *corev1.Node) {
	t.Helper()
	h = newAPIHost(t, namespace)
	h.applyConf("crd/ipblocks.yaml",
		"crd/ipam-claim.yaml", "rbac/agent.yaml", "rbac/cni.yaml", "rbac/admission.yaml")
	h.setBraid("nodeName", name)
	nodes := h.server.Client().CoreV1().Nodes()
	node, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := nodes.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{})
		if err != nil {
			t.Error(err)
		}
	})
	h.held(node)
	return h, node
}

// held waits until the API server has taken the policies up.
func (h *apiHost) held(node *corev1.Node) {
	h.t.Helper()
	client, err := h.server.ClientOf(h.agent(node))
	if err != nil {
		h.t.Fatal(err)
	}
	const patch = `{"metadata": {"labels": {"x": "y"}}}`
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		dry := metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}
		_, err := client.CoreV1().Nodes().
			Patch(h.t.Context(), node.Name, types.StrategicMergePatchType, []byte(patch), dry, "status")
		if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("the policies do not hold: %v", err)
		}
	}
}

// agent is a kubeconfig as the agent of a node has it.
func (h *apiHost) agent(node *corev1.Node) string {
	h.t.Helper()
	admin, err := h.server.Kubeconfig(lab.UserAdmin)
	if err != nil {
		h.t.Fatal(err)
	}
	token, err := h.tokenFor(admin, "braid-agent", node)
	if err != nil {
		h.t.Fatal(err)
	}
	path, err := h.server.TokenKubeconfig("agent-"+node.Name, token)
	if err != nil {
		h.t.Fatal(err)
	}
	return path
}

// credential has Braid use the credential that the agent of its node asks for, and returns its
// kubeconfig.
func (h *apiHost) credential(node *corev1.Node) string {
	h.t.Helper()
	token, err := h.tokenFor(h.agent(node), "braid-cni", node)
	if err != nil {
		h.t.Fatal(err)
	}
	path, err := h.server.TokenKubeconfig("cni-"+node.Name, token)
	if err != nil {
		h.t.Fatal(err)
	}
	h.use(path, cniAccount)
	return path
}

// tokenFor asks, with a kubeconfig, for a token of an account of kube-system that is bound to a
// Node.
func (h *apiHost) tokenFor(kubeconfig, account string, node *corev1.Node) (string, error) {
	h.t.Helper()
	client, err := h.server.ClientOf(kubeconfig)
	if err != nil {
		h.t.Fatal(err)
	}
	bound := &authenticationv1.BoundObjectReference{
		APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID,
	}
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound},
	}
	answer, err := client.CoreV1().ServiceAccounts("kube-system").
		CreateToken(h.t.Context(), account, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}

// may fails for each answer to "verb resource[/subresource][.group] [namespace/name]" that is not
// the one wanted.
func (h *apiHost) may(kubeconfig string, want map[string]bool) {
	h.t.Helper()
	client, err := h.server.ClientOf(kubeconfig)
	if err != nil {
		h.t.Fatal(err)
	}
	for question, allowed := range want {
		words := strings.Fields(question + " " + h.namespace + "/x")
		resource, group, _ := strings.Cut(words[1], ".")
		resource, subresource, _ := strings.Cut(resource, "/")
		namespace, name, _ := strings.Cut(words[2], "/")
		review := new(authorizationv1.SelfSubjectAccessReview)
		review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Verb: words[0], Group: group, Resource: resource, Subresource: subresource,
			Namespace: namespace, Name: name,
		}
		review, err := client.AuthorizationV1().SelfSubjectAccessReviews().
			Create(h.t.Context(), review, metav1.CreateOptions{})
		if err != nil {
			h.t.Fatal(err)
		}
		if review.Status.Allowed != allowed {
			h.t.Errorf("%s: allowed is %t, want %t", question, review.Status.Allowed, allowed)
		}
	}
}

// The agent gets a token of the CNI binary's account, bound to its Node. With it a pod is attached
// that needs everything: its networks, blocks of addresses, a claim, its status, events. Neither
// account may do more than it needs.
func TestCredentialOfAgent(t *testing.T) {
	h, node := newAgentHost(t, "credential", nodeName)
	agent := h.agent(node)
	for _, account := range []string{"braid-agent", "braid-controller", "default"} {
		if _, err := h.tokenFor(agent, account, node); !apierrors.IsForbidden(err) {
			t.Errorf("a token of %s: %v, want it forbidden", account, err)
		}
	}
	cni := h.credential(node)

	h.nad("a", `{"cniVersion":"1.0.0","type":"macvlan","master":"`+nic+
		`","ipam":{"type":"whereabouts","range":"10.20.0.0/24"}}`)
	h.apply(`{apiVersion: k8s.cni.cncf.io/v1alpha1, kind: IPAMClaim, metadata: {name: vm, ` +
		`namespace: credential}, spec: {network: a, interface: net1}}`)
	p := h.pod("p", `[{"name":"a","ipam-claim-reference":"vm"}]`)
	h.must("ADD", p.pod, p.args())
	same(t, "network-status", h.names(p), "pods credential/a")
	raw, err := h.server.Client().CoreV1().RESTClient().Get().
		AbsPath("/apis/k8s.cni.cncf.io/v1alpha1/namespaces/credential/ipamclaims/vm").DoRaw(t.Context())
	if err != nil || !strings.Contains(string(raw), `"10.20.0.`) {
		t.Errorf("the claim has no address: %s, %v", raw, err)
	}
	h.must("CHECK", p.pod, p.args())
	h.must("DEL", p.pod, p.args())
	h.clean(p.pod)

	t.Run("cni", func(t *testing.T) { h.may(cni, cniMay()) })
	t.Run("agent", func(t *testing.T) { h.may(agent, agentMay()) })
}

// Two nodes, each with the credential of its own, use one range up: each claims a block, one shares
// what it does not use when the other asks, and all is given back. That needs every kind of write
// that conf/rbac/admission.yaml allows.
func TestM31NodesShareAddresses(t *testing.T) {
	first, node := newAgentHost(t, "shares", "share-1")
	first.credential(node)
	second, node := newAgentHost(t, "shares", "share-2")
	second.credential(node)
	first.nad("a", `{"cniVersion":"1.0.0","type":"macvlan","master":"`+nic+
		`","ipam":{"type":"whereabouts","range":"10.20.0.0/16","range_start":"10.20.0.0",`+
		`"range_end":"10.20.0.31","network_name":"shares"}}`)
	on := func(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }
	one := first.pod("one", `a`, on("share-1"))
	first.must("ADD", one.pod, one.args())
	pods := []*apiPod{}
	seen := map[string]bool{}
	for i := range 30 {
		p := second.pod(fmt.Sprint("many-", i), `a`, on("share-2"))
		_, failed := second.call("ADD", p.pod, p.args())
		if failed != nil { // all but those of the first node's block are given
			if !strings.Contains(failed.Msg, "was asked to share") {
				t.Fatal(failed)
			}
			first.must("CHECK", one.pod, one.args())
			second.must("ADD", p.pod, p.args())
		}
		address := regexp.MustCompile(`10\.20\.0\.\d+`).FindString(second.published(p))
		if address == "" || seen[address] {
			t.Fatalf("address %q, after %v", address, seen)
		}
		seen[address] = true
		pods = append(pods, p)
	}
	for _, p := range pods {
		second.must("DEL", p.pod, p.args())
	}
	first.must("DEL", one.pod, one.args())
	if log := first.log() + second.log(); strings.Contains(log, "ValidatingAdmissionPolicy") {
		t.Errorf("a policy stands in the way:\n%s", log)
	}
}

func cniMay() map[string]bool {
	return map[string]bool{
		"patch pods/status": true,
		"get network-attachment-definitions.k8s.cni.cncf.io": true,
		"create ipblocks.ipam.braid-cni.io":                  true,
		"get nodes":                                          true,
		"create events":                                      true,
		"patch ipamclaims/status.k8s.cni.cncf.io":            true,

		"get pods": false, "list pods": false, "patch pods": false, "update pods/status": false,
		"create pods": false, "delete pods": false,
		"create pods/eviction": false, "create pods/exec": false, "create pods/binding": false,
		"patch pods/ephemeralcontainers":                        false,
		"list network-attachment-definitions.k8s.cni.cncf.io":   false,
		"create network-attachment-definitions.k8s.cni.cncf.io": false,
		"get secrets": false, "list secrets": false, "get configmaps": false,
		"get serviceaccounts":                                false,
		"create serviceaccounts/token kube-system/braid-cni": false,
		"create serviceaccounts/token kube-system/default":   false,
		"patch nodes": false, "patch nodes/status": false, "update nodes": false, "watch nodes": false,
		"delete nodes":                     false,
		"watch ipblocks.ipam.braid-cni.io": false, "patch ipblocks.ipam.braid-cni.io": false,
		"deletecollection ipblocks.ipam.braid-cni.io": false,
		"update ipamclaims.k8s.cni.cncf.io":           false, "create ipamclaims.k8s.cni.cncf.io": false,
		"list ipamclaims.k8s.cni.cncf.io": false,
		"delete events":                   false, "list events": false,
		"get daemonsets.apps kube-system/braid-agent":     false,
		"impersonate users":                               false,
		"escalate clusterroles.rbac.authorization.k8s.io": false,
		"get resourceclaims.resource.k8s.io":              false,
	}
}

func agentMay() map[string]bool {
	return map[string]bool{
		"create serviceaccounts/token kube-system/braid-cni":   true,
		"get pods kube-system/braid-agent-x":                   true,
		"watch nodes":                                          true,
		"watch network-attachment-definitions.k8s.cni.cncf.io": true,
		"watch ipblocks.ipam.braid-cni.io":                     true,
		"patch nodes/status":                                   true, "create events": true,
		"update ipblocks.ipam.braid-cni.io":       true,
		"patch ipblocks/status.ipam.braid-cni.io": true,
		"watch pods": true,

		"create serviceaccounts/token kube-system/braid-agent":      false,
		"create serviceaccounts/token kube-system/braid-controller": false,
		"create serviceaccounts/token default/braid-cni":            false,
		"get serviceaccounts kube-system/braid-cni":                 false,
		"list serviceaccounts kube-system/":                         false,
		"get pods":                                                  false,
		"get daemonsets.apps kube-system/braid-agent":               false,
		"patch daemonsets.apps kube-system/braid-agent":             false,
		"delete daemonsets.apps kube-system/braid-agent":            false,
		"patch nodes": false, "update nodes": false, "update nodes/status": false, "create nodes": false,
		"delete nodes": false,
		"patch pods":   false, "patch pods/status": false, "create pods": false, "delete pods": false,
		"create pods/exec": false, "create pods/eviction": false,
		"get secrets": false, "list secrets": false, "get configmaps": false, "update configmaps": false,
		"create network-attachment-definitions.k8s.cni.cncf.io": false,
		"update network-attachment-definitions.k8s.cni.cncf.io": false,
		"patch ipamclaims/status.k8s.cni.cncf.io":               false,
		"get ipamclaims.k8s.cni.cncf.io":                        false,
		"deletecollection ipblocks.ipam.braid-cni.io":           false,
		"create leases.coordination.k8s.io":                     false,
		"impersonate users":                                     false,
		"escalate clusterroles.rbac.authorization.k8s.io":       false,
		"update customresourcedefinitions.apiextensions.k8s.io": false,
	}
}

// A patch of the status of a Node is enough for the agent's condition and annotations. Taints and
// the rest of the spec are out of its reach, also that way.
func TestAgentWritesNodeStatus(t *testing.T) {
	h, node := newAgentHost(t, "node-status", nodeName)
	client, err := h.server.ClientOf(h.agent(node))
	if err != nil {
		t.Fatal(err)
	}
	const patch = `{"metadata":{"annotations":{"braid-cni.io/version":"v1"}},"spec":{"unschedulable":true,"taints":[{"key":"x","effect":"NoExecute"}]},
		"status":{"conditions":[{"type":"BraidReady","status":"True","reason":"Installed","message":"all is there"}]}}`
	_, err = client.CoreV1().Nodes().
		Patch(t.Context(), node.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{},
			"status")
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.server.Client().CoreV1().Nodes().Get(t.Context(), node.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Annotations["braid-cni.io/version"] != "v1" || len(got.Status.Conditions) != 1 ||
		got.Status.Conditions[0].Type != "BraidReady" {
		t.Errorf("annotations %v, conditions %v", got.Annotations, got.Status.Conditions)
	}
	for _, taint := range got.Spec.Taints {
		if taint.Key == "x" {
			t.Error("the agent has tainted the node")
		}
	}
	if got.Spec.Unschedulable {
		t.Error("the agent has cordoned the node")
	}
	_, err = client.CoreV1().Nodes().
		Patch(t.Context(), node.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a patch of the Node: %v, want it forbidden", err)
	}
}
