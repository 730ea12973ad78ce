package kube

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
)

// agentRights are what reporting takes.
const agentRights = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: reporter, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reporter}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get, list, patch]}
- {apiGroups: [""], resources: [nodes/status], verbs: [patch]}
- {apiGroups: [""], resources: [events], verbs: [create]}
- {apiGroups: [""], resources: [pods], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reporter}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reporter}
subjects: [{kind: ServiceAccount, name: reporter, namespace: kube-system}]
`

// reporter is an API with the rights to report, and no others.
func reporter(t *testing.T) (*lab.API, *API) {
	t.Helper()
	server := cluster.Get(t)
	if err := server.Apply(t.Context(), agentRights); err != nil {
		t.Fatal(err)
	}
	config, err := server.Kubeconfig("system:serviceaccount:kube-system:reporter")
	if err != nil {
		t.Fatal(err)
	}
	api := newAPI(t, APIOptions{Kubeconfig: config, Version: "test"})
	return server, api
}

// An agent's report and condition are read as they were written, and nothing else of the node is
// changed.
func TestAPIReportNode(t *testing.T) {
	server, api := reporter(t)
	nodes := server.Client().CoreV1().Nodes()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "reported", Annotations: map[string]string{"other": "kept"}},
	}
	node, err := nodes.Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status.Conditions = []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue},
	}
	if _, err := nodes.UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := api.NodeReport(t.Context(), "reported")
	if err != nil || r.Condition != nil || r.Report != nil {
		t.Errorf("before the first report: %+v, %v", r, err)
	}
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	for _, status := range []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse} {
		want := NodeReport{
			Node: "reported",
			Condition: &nodev1.Condition{
				Type: nodev1.Ready, Status: status, Reason: "R", Message: "m", LastHeartbeatTime: now,
				LastTransitionTime: now,
			},
			Report: &nodev1.Report{
				Version: "v", Config: "/c", Before: []string{"00-a"}, CredentialExpires: now,
				Unattached: []string{"ns/p"},
			},
		}
		if status == metav1.ConditionTrue {
			want.Report.Interfaces = []nodev1.Interface{
				{
					Network: "data", Type: "static", Interface: "ens224", MAC: "02:00:00:00:00:01",
					Addresses: []string{"10.0.0.2/24"}, State: "Ready",
				},
			}
		}
		if err := api.ReportNode(t.Context(), "reported", *want.Condition, *want.Report); err != nil {
			t.Fatal(err)
		}
		got, err := api.NodeReport(t.Context(), "reported")
		if err != nil {
			t.Fatal(err)
		}
		equal := cmpopts.EquateApproxTime(0)
		if diff := cmp.Diff(want, got, equal); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		all, err := api.NodeReports(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		listed := NodeReport{}
		for _, r := range all {
			if r.Node == "reported" {
				listed = r
			}
		}
		if diff := cmp.Diff(want, listed, equal); diff != "" {
			t.Errorf("in the list, -want +got:\n%s", diff)
		}
	}
	node, err = nodes.Get(t.Context(), "reported", metav1.GetOptions{})
	if _, there := node.Annotations[nodev1.InterfacesAnnotation]; there {
		t.Error("the annotation of interfaces stays when there are none")
	}
	if err != nil || node.Annotations["other"] != "kept" || len(node.Status.Conditions) != 2 ||
		!slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}) {
		t.Errorf("the node is %+v, %v", node, err)
	}
}

// An event on a node is where `kubectl describe node` looks for it.
func TestAPINodeEvent(t *testing.T) {
	server, api := reporter(t)
	node := &metav1.ObjectMeta{Name: "eventful", UID: "u"}
	for range 2 {
		if err := api.NodeEvent(t.Context(), node, "Warning", "R", "m"); err != nil {
			t.Fatal(err)
		}
	}
	events, err := server.Client().CoreV1().Events("default").
		List(t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.kind=Node,involvedObject.name=eventful",
		})
	if err != nil || len(events.Items) != 1 || events.Items[0].Message != "m" ||
		events.Items[0].InvolvedObject.UID != "u" {
		t.Errorf("events %+v, %v", events, err)
	}
}
