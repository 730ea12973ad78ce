package attack_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/braid-cni/braid/e2e/lab"
)

// stolen is what root of node a has, which was broken into.
type stolen struct {
	*testing.T

	api *lab.API
	// agent and cni have the tokens of the node's agent and of its CNI binary.
	agent, cni kubernetes.Interface
}

const blocks = "/apis/ipam.braid-cni.io/v1alpha1/ipblocks/"

const belongings = `
{apiVersion: v1, kind: Node, metadata: {name: a}}
---
{apiVersion: v1, kind: Node, metadata: {name: b}}
---
{apiVersion: v1, kind: Pod, metadata: {name: pod-b, namespace: default}, spec: {nodeName: b, containers: [{name: c, image: i}]}}
---
{apiVersion: ipam.braid-cni.io/v1alpha1, kind: IPBlock, metadata: {name: own-b}, spec: {space: s, cidr: 10.0.0.16/28, owner: {nodeName: b, nodeUID: u-b}}}
---
{apiVersion: ipam.braid-cni.io/v1alpha1, kind: IPBlock, metadata: {name: shared}, spec: {space: s, cidr: 10.0.0.64/28, allocations: [
  {address: 10.0.0.66, network: net, containerID: c2, ifName: net1, podUID: p2, node: {nodeName: b, nodeUID: u-b}}]}}
`

// theft is an attack on the API server.
type theft struct {
	name    string
	reaches func(s *stolen) bool
}

func thefts() []theft {
	return []theft{
		{"M31 the network-status of another node's pod", func(s *stolen) bool {
			const path = "/api/v1/namespaces/default/pods/pod-b"
			s.patch(s.cni, path+"/status",
				`{"metadata":{"annotations":{"k8s.v1.cni.cncf.io/network-status":"[]"}}}`)
			return s.says(path, "network-status")
		}},
		{"M31 a label that has workloads come to its node", func(s *stolen) bool {
			s.patch(s.agent, "/api/v1/nodes/a/status", `{"metadata":{"labels":{"stolen":"yes"}}}`)
			return s.says("/api/v1/nodes/a", "stolen")
		}},
		{"M31 that another node is not ready", func(s *stolen) bool {
			s.patch(s.agent, "/api/v1/nodes/b/status",
				`{"status":{"conditions":[{"type":"BraidReady","status":"False"}]}}`)
			return s.says("/api/v1/nodes/b", "BraidReady")
		}},
		{"M31 a token of another node", func(s *stolen) bool {
			b, err := s.api.Client().CoreV1().Nodes().Get(s.Context(), "b", metav1.GetOptions{})
			if err != nil {
				s.Fatal(err)
			}
			_, err = bound(s, s.agent, "braid-cni", b.Name, b.UID)
			return err == nil
		}},
		{"M31 a block of another node", func(s *stolen) bool {
			s.put(s.cni, blocks+"own-b", `{"spec":{"owner":{"nodeName":"a","nodeUID":"u-a"}}}`)
			return s.says(blocks+"own-b", "u-a")
		}},
		{"M31 the address of another node's pod", func(s *stolen) bool {
			s.put(s.cni, blocks+"shared", `{"spec":{"allocations":[{"address":"10.0.0.66","network":"net","containerID":"stolen","ifName":"net1","podUID":"p9",
				"node":{"nodeName":"a","nodeUID":"u-a"}}]}}`)
			return s.says(blocks+"shared", "stolen")
		}},
	}
}

// patch writes to an object, as the API server lets the node do it.
func (s *stolen) patch(as kubernetes.Interface, path, patch string) {
	s.Helper()
	kind := types.MergePatchType
	if strings.Contains(path, "/nodes/") {
		kind = types.StrategicMergePatchType
	}
	err := as.CoreV1().RESTClient().Patch(kind).AbsPath(path).Body([]byte(patch)).Do(s.Context()).
		Error()
	s.Logf("%s: %v", path, err)
}

// put is patch where the node may only write whole objects, as it read them.
func (s *stolen) put(as kubernetes.Interface, path, patch string) {
	s.Helper()
	dry := s.api.Client().CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath(path).
		Param("dryRun", metav1.DryRunAll)
	whole, err := dry.Body([]byte(patch)).DoRaw(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	err = as.CoreV1().RESTClient().Put().AbsPath(path).SetHeader("Content-Type", "application/json").
		Body(whole).Do(s.Context()).Error()
	s.Logf("%s: %v", path, err)
}

// says reports whether an object has a text, whoever asks.
func (s *stolen) says(path, text string) bool {
	s.Helper()
	raw, err := s.api.Client().CoreV1().RESTClient().Get().AbsPath(path).DoRaw(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return strings.Contains(string(raw), text)
}

// bound asks for a token that is bound to a node.
func bound(
	s *stolen, as kubernetes.Interface, account, node string, uid types.UID,
) (string, error) {
	ask := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Node", Name: node, UID: uid,
		},
	}}
	answer, err := as.CoreV1().ServiceAccounts("kube-system").
		CreateToken(s.Context(), account, ask, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}

func (s *stolen) apply(manifests string) {
	s.Helper()
	if err := s.api.Apply(s.Context(), manifests); err != nil {
		s.Fatal(err)
	}
}

// conf is a file of ../../conf.
func (s *stolen) conf(name string) string {
	s.Helper()
	text, err := os.ReadFile("../../conf/" + name)
	if err != nil {
		s.Fatal(err)
	}
	return string(text)
}

// client has a token of an account that is bound to node a.
func (s *stolen) client(account string) kubernetes.Interface {
	s.Helper()
	a, err := s.api.Client().CoreV1().Nodes().Get(s.Context(), "a", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	text, err := bound(s, s.api.Client(), account, a.Name, a.UID)
	if err != nil {
		s.Fatal(err)
	}
	path, err := s.api.TokenKubeconfig(account, text)
	if err != nil {
		s.Fatal(err)
	}
	client, err := s.api.ClientOf(path)
	if err != nil {
		s.Fatal(err)
	}
	return client
}

// renew puts everything back.
func (s *stolen) renew() {
	s.Helper()
	admin := s.api.Client().CoreV1().RESTClient()
	now := int64(0)
	for _, path := range []string{
		"/api/v1/nodes/a", "/api/v1/nodes/b", "/api/v1/namespaces/default/pods/pod-b", blocks + "own-b",
		blocks + "shared",
	} {
		err := admin.Delete().AbsPath(path).Body(&metav1.DeleteOptions{GracePeriodSeconds: &now}).
			Do(s.Context()).Error()
		if err != nil {
			s.Logf("delete %s: %v", path, err)
		}
	}
	s.apply(belongings)
	s.agent, s.cni = s.client("braid-agent"), s.client("braid-cni")
}

// holds waits until the API server has taken the policies up: each denies something.
func (s *stolen) holds() {
	s.Helper()
	for path, w := range map[string]struct {
		as          kubernetes.Interface
		verb, patch string
	}{
		"/api/v1/namespaces/default/pods/pod-b/status": {
			s.cni, http.MethodPatch,
			`{"metadata":{"labels":{"x":"y"}}}`,
		},
		"/api/v1/nodes/b/status": {
			s.agent, http.MethodPatch,
			`{"metadata":{"labels":{"x":"y"}}}`,
		},
		blocks + "own-b": {
			s.cni, http.MethodPut,
			`{"spec":{"owner":{"nodeName":"a","nodeUID":"u-a"}}}`,
		},
		"/api/v1/namespaces/kube-system/serviceaccounts/braid-cni/token": {
			s.agent, http.MethodPost,
			`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest",` +
				`"spec":{"expirationSeconds":3600}}`,
		},
	} {
		for end := time.Now().Add(20 * time.Second); s.api.Try(s.Context(), w.as, w.verb, path,
			w.patch) == nil; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				s.Fatalf("%s is not held", path)
			}
		}
	}
}

// TestNodeWithItsToken: what a node that was broken into writes with its tokens beyond what is its
// own, it can write without conf/rbac/admission.yaml, and not with it.
func TestNodeWithItsToken(t *testing.T) {
	s := &stolen{T: t, api: cluster.Get(t)}
	for _, file := range []string{"crd/ipblocks.yaml", "rbac/agent.yaml", "rbac/cni.yaml"} {
		s.apply(s.conf(file))
	}
	reached := map[string]bool{}
	s.renew()
	for _, a := range thefts() {
		reached[a.name] = a.reaches(s)
	}
	s.renew()
	s.apply(s.conf("rbac/admission.yaml"))
	s.holds()
	for _, a := range thefts() {
		t.Run(a.name, func(t *testing.T) {
			if !reached[a.name] {
				t.Error("without the policies it does not reach its aim either, so it shows nothing")
			}
			inner := *s
			inner.T = t
			if a.reaches(&inner) {
				t.Error("it reaches its aim")
			}
		})
	}
	if len(reached) != len(thefts()) {
		t.Error(fmt.Sprint("names are not of one attack each: ", reached))
	}
}
