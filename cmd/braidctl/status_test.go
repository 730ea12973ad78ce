package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/kube"
)

// TestStatus: of each node is shown what its agent reported. An old report counts for nothing. The
// exit code is 0 if all is well.
func TestStatus(t *testing.T) {
	server, kubeconfig, api := openCluster(t)
	crd, err := os.ReadFile("../../conf/crd/ipblocks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Apply(t.Context(), string(crd)); err != nil {
		t.Fatal(err)
	}
	report := func(name string, status metav1.ConditionStatus, age time.Duration, message string,
		r nodev1.Report,
	) {
		t.Helper()
		addNode(t, server, name)
		if status == "" {
			return
		}
		at := metav1.NewTime(time.Now().Add(-age))
		c := nodev1.Condition{
			Type: nodev1.Ready, Status: status, Reason: "R", Message: message, LastHeartbeatTime: at,
			LastTransitionTime: at,
		}
		if err := api.ReportNode(t.Context(), name, c, r); err != nil {
			t.Fatal(err)
		}
	}
	status := func(want int) string {
		t.Helper()
		code, out, errs := call(t, "braidctl status --kubeconfig "+kubeconfig)
		if code != want {
			t.Errorf("exit code %d, want %d: %s", code, want, errs)
		}
		return strings.Join(squeeze(out), "\n")
	}
	well := nodev1.Report{
		Version: "v1", Config: "/etc/cni/net.d/00-braid.conflist",
		DefaultNetwork:    "/etc/cni/net.d/10-net.conflist",
		CredentialExpires: metav1.NewTime(time.Now().Add(10*time.Hour + time.Minute)),
	}
	report("status-a", metav1.ConditionTrue, 3*time.Minute, "well", well)
	out := status(exitOK)
	want := "status-a True 3m v1 10h /etc/cni/net.d/10-net.conflist " +
		"/etc/cni/net.d/00-braid.conflist 0 -"
	if !strings.Contains(out, want) {
		t.Errorf("%q is not in\n%s", want, out)
	}
	ill := well
	ill.Before, ill.Unattached, ill.Others = []string{"00-aaa.conf"}, []string{
		"ns/p",
	}, map[string]int{"multus-cni-network": 3}
	ill.Warnings = []string{"a first sentence", "a second one"}
	report("status-b", metav1.ConditionFalse, 0, "credential: no answer", ill)
	report("status-c", metav1.ConditionTrue, time.Hour, "well", well)
	report("status-d", "", 0, "", well)
	out = status(exitFound)
	for _, want := range []string{
		"status-b False", "credential: no answer", "taken in place of Braid's configuration: 00-aaa.conf",
		"pods without their networks: ns/p", "warning: a first sentence", "warning: a second one",
		"pods that multus-cni-network made, which has to stay until they are gone: 3",
		"status-c Unknown 60m", "last heard of 60m ago",
		"status-d Unknown - - - - - 0 no agent has reported",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

// TestM35Status: nor does what a node's agent, which may be anybody's by then, reports.
func TestM35Status(t *testing.T) {
	server, kubeconfig, api := openCluster(t)
	crd, err := os.ReadFile("../../conf/crd/ipblocks.yaml")
	if err == nil {
		err = server.Apply(t.Context(), string(crd))
	}
	if err != nil {
		t.Fatal(err)
	}
	addNode(t, server, "evil")
	c := nodev1.Condition{
		Type: nodev1.Ready, Status: metav1.ConditionStatus(corev1.ConditionFalse), Reason: "R",
		Message: evil, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
	}
	r := nodev1.Report{
		Version: evil, Config: evil, DefaultNetwork: evil, Before: []string{evil},
		Unattached: []string{evil},
	}
	if err := api.ReportNode(t.Context(), "evil", c, r); err != nil {
		t.Fatal(err)
	}
	for _, o := range []string{"table", "json"} {
		_, stdout, stderr := call(t, "braidctl status -o "+o+" --kubeconfig "+kubeconfig)
		if !strings.Contains(stdout, "owned") {
			t.Errorf("%s%s", stdout, stderr)
		}
		fitForTerminal(t, "status "+o, stdout+stderr)
	}
}

// openCluster returns the API server of all tests, an administrator's kubeconfig, and a client with
// that.
func openCluster(t *testing.T) (server *lab.API, kubeconfig string, api *kube.API) {
	t.Helper()
	server = cluster.Get(t)
	kubeconfig, err := server.Kubeconfig(lab.UserAdmin)
	if err != nil {
		t.Fatal(err)
	}
	if api, err = kube.NewAPI(kube.APIOptions{Kubeconfig: kubeconfig}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	return server, kubeconfig, api
}

// addNode makes a Node, which is deleted when the test ends.
func addNode(t *testing.T, server *lab.API, name string) {
	t.Helper()
	nodes := server.Client().CoreV1().Nodes()
	_, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}},
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
}
