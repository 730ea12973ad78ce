package samples_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/e2e/lab"
)

var cluster = lab.NewShared(lab.NewAPI)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

const (
	pods   = "/api/v1/namespaces/default/pods/"
	nodes  = "/api/v1/nodes/"
	events = "/api/v1/namespaces/default/events"
	tokens = "/api/v1/namespaces/kube-system/serviceaccounts/braid-cni/token" //nolint:gosec // a path
	blocks = "/apis/ipam.braid-cni.io/v1alpha1/ipblocks"

	objects = `
{apiVersion: v1, kind: Node, metadata: {name: a}, status: {capacity: {cpu: "1"}}}
---
{apiVersion: v1, kind: Node, metadata: {name: b}}
---
{apiVersion: v1, kind: Pod, metadata: {name: pod-a, namespace: default, annotations: {theirs: x}}, spec: {nodeName: a, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: pod-b, namespace: default}, spec: {nodeName: b, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: agent-b, namespace: kube-system}, spec: {nodeName: b, serviceAccountName: braid-cni, containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: pending, namespace: default}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: ipam.braid-cni.io/v1alpha1, kind: IPBlock, metadata: {name: own-a}, spec: {space: s, cidr: 10.0.0.0/28, owner: {nodeName: a, nodeUID: u-a}}}
---
{apiVersion: ipam.braid-cni.io/v1alpha1, kind: IPBlock, metadata: {name: own-b}, spec: {space: s, cidr: 10.0.0.16/28, owner: {nodeName: b, nodeUID: u-b}}}
---
{apiVersion: ipam.braid-cni.io/v1alpha1, kind: IPBlock, metadata: {name: recalled-b}, spec: {space: s, cidr: 10.0.0.32/28,
  owner: {nodeName: b, nodeUID: u-b}, recall: {by: c, at: "2026-01-01T00:00:00Z"}}}
---
{apiVersion: ipam.braid-cni.io/v1alpha1, kind: IPBlock, metadata: {name: shared-a}, spec: {space: s, cidr: 10.0.0.48/28, allocations: [` + ofA + `]}}
---
{apiVersion: ipam.braid-cni.io/v1alpha1, kind: IPBlock, metadata: {name: shared}, spec: {space: s, cidr: 10.0.0.64/28, allocations: [` +
		ofA + `, ` + ofB + `, ` + claimed + `, ` + migrating + `]}}
`
	ofA = `{"address": "10.0.0.65", "network": "n", "containerID": "c1", "ifName": "net1", ` +
		`"podUID": "p1", "node": {"nodeName": "a", "nodeUID": "u-a"}}`
	ofB = `{"address": "10.0.0.66", "network": "n", "containerID": "c2", "ifName": "net1", ` +
		`"podUID": "p2", "node": {"nodeName": "b", "nodeUID": "u-b"}}`
	claim   = `"claim": {"namespace": "d", "name": "vm", "uid": "u"}`
	claimed = `{"address": "10.0.0.67", ` + claim + `}`
	second  = `"second": {"network": "n", "containerID": "c4", "ifName": "net1", "podUID": "p4", ` +
		`"node": {"nodeName": "a", "nodeUID": "u-a"}}`
	migrating = `{"address": "10.0.0.68", "network": "n", "containerID": "c3", "ifName": "net1", ` +
		`"podUID": "p3", "node": {"nodeName": "b", "nodeUID": "u-b"}, ` +
		claim + `, ` + second + `}`
	newOfA = `{"address": "10.0.0.70", "network": "n", "containerID": "c9", "ifName": "net1", ` +
		`"podUID": "p9", "node": {"nodeName": "a", "nodeUID": "u-a"}}`
)

// write is one request with the credential of node a.
type write struct {
	name string
	// agent is whether it is that of the agent, else of the CNI binary.
	agent              bool
	method, path, body string
}

func status(name, path, patch string) write {
	return write{name, false, http.MethodPatch, path + "/status", patch}
}

func ofAgent(name, path, patch string) write {
	return write{name, true, http.MethodPatch, path + "/status", patch}
}

// change replaces the allocations of a block.
func change(name, block string, allocations ...string) write {
	return write{
		name, false, http.MethodPut, blocks + "/" + block,
		`{"spec": {"allocations": [` + strings.Join(allocations, ", ") + `]}}`,
	}
}

func update(name, block, spec string) write {
	return write{name, false, http.MethodPut, blocks + "/" + block, spec}
}

func create(name, spec string) write {
	return write{
		name, false, http.MethodPost, blocks,
		`{"apiVersion": "ipam.braid-cni.io/v1alpha1", "kind": "IPBlock", "metadata": {"name": "new"}, ` +
			`"spec": {"space": "s", "cidr": "10.0.1.0/28", ` + spec + `}}`,
	}
}

func remove(name, block string) write {
	return write{name, false, http.MethodDelete, blocks + "/" + block, ""}
}

func event(name, source, instance string) write {
	return write{name, false, http.MethodPost, events, fmt.Sprintf(`{"metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "pod-a"},
		"reason": "r", "message": "m", "type": "Normal", "source": {"component": "braid", "host": %q}, "reportingComponent": "braid", "reportingInstance": %q}`, source, instance)}
}

func token(name, bound string) write {
	return write{
		name, true, http.MethodPost, tokens,
		`{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {` + bound + `}}`,
	}
}

// honest is what agents and CNI binaries do.
func honest() []write {
	return []write{
		status("network-status of a pod of the node", pods+"pod-a",
			`{"metadata": {"annotations": {"k8s.v1.cni.cncf.io/network-status": "[]"}}}`),
		ofAgent("condition", nodes+"a",
			`{"status": {"conditions": [{"type": "BraidReady", "status": "True"}]}}`),
		ofAgent("annotation", nodes+"a", `{"metadata": {"annotations": {"braid-cni.io/report": "x"}}}`),
		ofAgent("interfaces", nodes+"a",
			`{"metadata": {"annotations": {"braid-cni.io/node-interfaces": "[]"}}}`),
		ofAgent("no interfaces", nodes+"a",
			`{"metadata": {"annotations": {"braid-cni.io/node-interfaces": null}}}`),
		ofAgent("resource", nodes+"a",
			`{"status": {"capacity": {"braid-cni.io/data": "5"}, "allocatable": {"braid-cni.io/data": `+
				`"5"}}}`),
		ofAgent("no resource", nodes+"a",
			`{"status": {"capacity": {"braid-cni.io/data": null}, "allocatable": {"braid-cni.io/data": `+
				`null}}}`),
		token("token of the node",
			`"boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "UID-A"}`),
		event("event", "a", "a"),
		create("block of the node", `"owner": {"nodeName": "a", "nodeUID": "u-a"}`),
		create("shared block for a pod of the node",
			`"allocations": [`+strings.ReplaceAll(newOfA, "10.0.0.70", "10.0.1.1")+`]`),
		update("sign the block", "own-a",
			`{"spec": {"owner": {"nodeName": "a", "nodeUID": "u-a", "bootID": "b2"}}}`),
		update("share the block", "own-a", `{"spec": {"owner": null, "allocations": [`+ofA+`]}}`),
		status("status of the block", blocks+"/own-a", `{"status": {"used": 3, "free": 13}}`),
		update("recall", "own-b", `{"spec": {"recall": {"by": "a", "at": "2026-01-01T00:00:00Z"}}}`),
		change("take a shared address", "shared", ofA, ofB, claimed, migrating, newOfA),
		change("free a shared address", "shared", ofB, claimed, migrating),
		change("leave after a migration", "shared", ofA, ofB, claimed,
			strings.Replace(migrating, ", "+second, "", 1)),
		change("use a claim", "shared", ofA, ofB,
			strings.NewReplacer(".70", ".67", "}}", "}, "+claim+"}").Replace(newOfA), migrating),
		remove("delete the block", "own-a"),
		remove("delete a shared block whose last address is the node's", "shared-a"),
	}
}

// hostile is what the credential of a node that was broken into may not do.
func hostile() []write {
	return slices.Concat(hostileToObjects(), hostileToBlocks(), hostileToAllocations())
}

// hostileToObjects is directed at pods, Nodes, tokens and events.
func hostileToObjects() []write {
	return []write{
		status("network-status of another node's pod", pods+"pod-b",
			`{"metadata": {"annotations": {"k8s.v1.cni.cncf.io/network-status": "[]"}}}`),
		status("network-status of a pod of no node", pods+"pending",
			`{"metadata": {"annotations": {"k8s.v1.cni.cncf.io/network-status": "[]"}}}`),
		status("label of a pod", pods+"pod-a", `{"metadata": {"labels": {"app": "db"}}}`),
		status("other annotation of a pod", pods+"pod-a", `{"metadata": {"annotations": {"x": "y"}}}`),
		status("annotation of others removed", pods+"pod-a",
			`{"metadata": {"annotations": {"theirs": null}}}`),
		status("annotation of others changed", pods+"pod-a",
			`{"metadata": {"annotations": {"theirs": "ours"}}}`),
		status("status of a pod", pods+"pod-a", `{"status": {"phase": "Failed"}}`),
		status("address of a pod", pods+"pod-a",
			`{"status": {"podIP": "10.9.9.9", "podIPs": [{"ip": "10.9.9.9"}]}}`),
		status("finalizer of a pod", pods+"pod-a", `{"metadata": {"finalizers": ["x.io/y"]}}`),
		ofAgent("condition of another node", nodes+"b",
			`{"status": {"conditions": [{"type": "BraidReady", "status": "True"}]}}`),
		ofAgent("other condition", nodes+"a",
			`{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}`),
		ofAgent("label of the node", nodes+"a", `{"metadata": {"labels": {"zone": "x"}}}`),
		ofAgent("other annotation of the node", nodes+"a", `{"metadata": {"annotations": {"x": "y"}}}`),
		ofAgent("other resource", nodes+"a", `{"status": {"capacity": {"cpu": "900"}}}`),
		ofAgent("resource of another node", nodes+"b",
			`{"status": {"capacity": {"braid-cni.io/data": "5"}, "allocatable": {"braid-cni.io/data": `+
				`"5"}}}`),
		ofAgent("other resource gone", nodes+"a", `{"status": {"capacity": {"cpu": null}}}`),
		ofAgent("new other resource", nodes+"a", `{"status": {"capacity": {"nvidia.com/gpu": "900"}}}`),
		ofAgent("address of the node", nodes+"a",
			`{"status": {"addresses": [{"type": "InternalIP", "address": "10.9.9.9"}]}}`),
		token("token of another node",
			`"boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": "b", "uid": "UID-B"}`),
		token("token of no node", `"expirationSeconds": 3600`),
		token("token of a pod", `"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", `+
			`"name": "agent-b"}`),
		event("event of another node", "b", "a"),
		event("event of another instance", "a", "b"),
		event("event of nobody", "", ""),
	}
}

// hostileToBlocks is directed at who has a block of addresses.
func hostileToBlocks() []write {
	return []write{
		create("block of another node", `"owner": {"nodeName": "b", "nodeUID": "u-b"}`),
		create("shared block for another node's pod",
			`"allocations": [`+strings.ReplaceAll(ofB, "10.0.0.66", "10.0.1.1")+`]`),
		create("block that another is to share",
			`"owner": {"nodeName": "a", "nodeUID": "u-a"}, "recall": {"by": "b", `+
				`"at": "2026-01-01T00:00:00Z"}`),
		update("take another's block", "own-b",
			`{"spec": {"owner": {"nodeName": "a", "nodeUID": "u-a"}}}`),
		update("share another's block", "own-b", `{"spec": {"owner": null, "allocations": [`+ofA+`]}}`),
		update("pass the block to another", "own-a",
			`{"spec": {"owner": {"nodeName": "b", "nodeUID": "u-b"}}}`),
		update("sign for another", "own-b",
			`{"spec": {"owner": {"nodeName": "b", "nodeUID": "u-b", "bootID": "x"}}}`),
		update("recall for another", "own-b",
			`{"spec": {"recall": {"by": "c", "at": "2026-01-01T00:00:00Z"}}}`),
		update("take a recall back", "recalled-b", `{"spec": {"recall": null}}`),
		update("take a recall over", "recalled-b",
			`{"spec": {"recall": {"by": "a", "at": "2026-01-01T00:00:00Z"}}}`),
		update("keep a block from being deleted", "shared-a", `{"metadata": {"finalizers": ["x.io/y"]}}`),
		update("take a shared block", "shared",
			`{"spec": {"owner": {"nodeName": "a", "nodeUID": "u-a"}, "allocations": null}}`),
		status("status of another's block", blocks+"/own-b", `{"status": {"used": 0, "free": 16}}`),
		remove("delete another's block", "own-b"),
		remove("delete a shared block in use", "shared"),
	}
}

// hostileToAllocations is directed at the addresses of a shared block.
func hostileToAllocations() []write {
	return []write{
		change("strike out another node's pod", "shared", ofA, claimed, migrating),
		change("strike out a claim", "shared", ofA, ofB, migrating),
		change("strike out the first of two", "shared", ofA, ofB, claimed, `{"address": "10.0.0.68", `+
			strings.TrimPrefix(second, `"second": {`)[:len(second)-len(`"second": {`)-1]+`, `+claim+`}`),
		change("move another node's pod to another address", "shared", ofA,
			strings.Replace(ofB, ".66", ".69", 1), claimed, migrating),
		change("replace another node's pod", "shared", ofA, strings.Replace(newOfA, ".70", ".66", 1),
			claimed, migrating),
		change("rename another node's container", "shared", ofA, strings.Replace(ofB, "c2", "cx", 1),
			claimed, migrating),
		change("add another node's pod", "shared", ofA, ofB, claimed, migrating,
			strings.NewReplacer(".66", ".71", "c2", "c8").Replace(ofB)),
		change("make another node's pod the second", "shared", ofA, ofB, claimed, migrating,
			strings.Replace(newOfA, "}}",
				`}, "second": {"network": "n", "containerID": "c8", "ifName": "net1", `+
					`"node": {"nodeName": "b", "nodeUID": "u-b"}}}`, 1)),
	}
}

// nodeAccounts are the accounts of node a, each with a client.
type nodeAccounts struct {
	t          *testing.T
	api        *lab.API
	agent, cni tryer
	uids       map[string]string
}

func newNodeAccounts(t *testing.T) *nodeAccounts {
	t.Helper()
	a := &nodeAccounts{t: t, api: cluster.Get(t), uids: map[string]string{}}
	for _, name := range []string{"crd/ipblocks.yaml", "rbac/agent.yaml", "rbac/cni.yaml"} {
		a.apply(name)
	}
	if err := a.api.Apply(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		node, err := a.api.Client().CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		a.uids["UID-"+strings.ToUpper(name)] = string(node.UID)
	}
	bound := &authenticationv1.BoundObjectReference{
		APIVersion: "v1", Kind: "Node", Name: "a", UID: types.UID(a.uids["UID-A"]),
	}
	a.agent, a.cni = a.client("braid-agent", bound), a.client("braid-cni", bound)
	return a
}

func (a *nodeAccounts) apply(file string) {
	a.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := a.api.Apply(a.t.Context(), string(text)); err != nil {
		a.t.Fatalf("%s: %v", file, err)
	}
}

// tryer is lab.API.Try with the credential of an account.
type tryer func(ctx context.Context, method, path, body string) error

// client has a token of an account of kube-system.
func (a *nodeAccounts) client(account string, bound *authenticationv1.BoundObjectReference) tryer {
	a.t.Helper()
	ask := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound},
	}
	answer, err := a.api.Client().CoreV1().ServiceAccounts("kube-system").
		CreateToken(a.t.Context(), account, ask, metav1.CreateOptions{})
	if err != nil {
		a.t.Fatal(err)
	}
	path, err := a.api.TokenKubeconfig(account, answer.Status.Token)
	if err != nil {
		a.t.Fatal(err)
	}
	client, err := a.api.ClientOf(path)
	if err != nil {
		a.t.Fatal(err)
	}
	return func(ctx context.Context, method, path, body string) error {
		return a.api.Try(ctx, client, method, path, body)
	}
}

// try asks for a write without having it done.
func (a *nodeAccounts) try(ctx context.Context, w write) error {
	try := a.cni
	if w.agent {
		try = a.agent
	}
	return try(ctx, w.method, w.path,
		strings.NewReplacer("UID-A", a.uids["UID-A"], "UID-B", a.uids["UID-B"]).Replace(w.body))
}

const patience = 10 * time.Second

// TestM31NodeCredential: what the credential of one node can do to another's pods, Node, tokens and
// addresses by RBAC alone, the policies deny; and what agents and CNI binaries do, they do not.
func TestM31NodeCredential(t *testing.T) {
	a := newNodeAccounts(t)
	for _, w := range append(honest(), hostile()...) {
		if err := a.try(t.Context(), w); err != nil {
			t.Errorf("without the policies, %s: %v", w.name, err)
		}
	}
	a.apply("rbac/admission.yaml")
	for _, w := range hostile() {
		var err error
		// the server takes policies up in its own time
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if err = a.try(t.Context(), w); err != nil {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'braid-node-") ||
			strings.Contains(err.Error(), "expression '") {
			t.Errorf("%s: %v, want it denied by a policy, with a reason", w.name, err)
		}
	}
	for _, w := range honest() {
		if err := a.try(t.Context(), w); err != nil {
			t.Errorf("%s: %v", w.name, err)
		}
	}
	t.Run("unbound", func(t *testing.T) {
		unbound := *a
		unbound.agent, unbound.cni = a.client("braid-agent", nil), a.client("braid-cni", nil)
		for _, w := range honest() {
			if err := unbound.try(t.Context(), w); err == nil {
				t.Errorf("with a token of no node, %s is done", w.name)
			}
		}
	})
}
