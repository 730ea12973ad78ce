package kube

import (
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
)

// The start-up taint is removed, whatever its effect, and other taints and the report stay.
func TestAPIStartupTaint(t *testing.T) {
	server, api := reporter(t)
	nodes := server.Client().CoreV1().Nodes()
	taints := []corev1.Taint{
		{Key: nodev1.StartupTaint, Effect: corev1.TaintEffectNoSchedule},
		{Key: "other", Effect: corev1.TaintEffectNoSchedule},
		{Key: nodev1.StartupTaint, Effect: corev1.TaintEffectNoExecute},
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "tainted"}, Spec: corev1.NodeSpec{Taints: taints},
	}
	if _, err := nodes.Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	condition := nodev1.Condition{
		Type: nodev1.Ready, Status: metav1.ConditionTrue, LastHeartbeatTime: now, LastTransitionTime: now,
	}
	err := api.ReportNode(t.Context(), "tainted", condition, nodev1.Report{Version: "v"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := api.NodeReport(t.Context(), "tainted"); err != nil || !r.StartupTaint {
		t.Errorf("before: %+v, %v", r, err)
	}
	condition.Status = metav1.ConditionUnknown
	err = errors.Join(api.RemoveTaint(t.Context(), "tainted", nodev1.StartupTaint),
		api.SetNodeCondition(t.Context(), "tainted", condition))
	if err != nil {
		t.Fatal(err)
	}
	r, err := api.NodeReport(t.Context(), "tainted")
	if err != nil || r.StartupTaint || r.Report == nil || r.Report.Version != "v" ||
		r.Condition.Status != metav1.ConditionUnknown {
		t.Errorf("after: %+v, %v", r, err)
	}
	node, err = nodes.Get(t.Context(), "tainted", metav1.GetOptions{})
	if err != nil || !slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == "other"
	}) {
		t.Errorf("the node is %+v, %v", node, err)
	}
}
