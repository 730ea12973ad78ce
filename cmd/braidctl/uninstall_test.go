package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
)

// TestUninstall: the agents are told, by their DaemonSet as it is deployed, and each node is waited
// for.
func TestUninstall(t *testing.T) {
	server, kubeconfig, api := openCluster(t)
	client := server.Client()
	manifests, err := os.ReadFile("../../conf/deploy/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kept := strings.Replace(string(manifests), "- name: GOMEMLIMIT",
		"- {name: BRAID_KEEP_FILES, value: \"1\"} # of an uninstall before\n        - name: GOMEMLIMIT",
		1)
	if err := server.Apply(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	addNode(t, server, "leaving")
	report := func(reason, message string) {
		t.Helper()
		c := nodev1.Condition{
			Type: nodev1.Ready, Status: metav1.ConditionFalse, Reason: reason, Message: message,
			LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
		}
		if err := api.ReportNode(t.Context(), "leaving", c, nodev1.Report{}); err != nil {
			t.Fatal(err)
		}
	}
	report("Busy", "uninstall: the binaries are still needed by 1 sandbox")
	var out, errs bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{
			"braidctl", "uninstall", "--kubeconfig", kubeconfig, "--restore", "/etc/former.conf",
		}, &out, &errs)
	}()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		set, err := client.AppsV1().DaemonSets("kube-system").
			Get(t.Context(), agentDaemonSet, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		env := map[string]string{}
		for _, v := range set.Spec.Template.Spec.Containers[0].Env {
			env[v.Name] = v.Value
		}
		if env["BRAID_UNINSTALL"] == "1" && env["BRAID_RESTORE"] == "/etc/former.conf" {
			if _, kept := env["NODE_NAME"]; !kept || env["BRAID_KEEP_FILES"] != "" {
				t.Errorf("variables %v", env)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the agents are not told: %v", env)
		}
	}
	select {
	case c := <-code:
		t.Fatalf("it ends before the node has: %d, %s", c, errs.String())
	case <-time.After(2 * pollEvery):
	}
	report(nodev1.Uninstalled, "uninstall: Braid is not on this node any more")
	if c := <-code; c != exitOK {
		t.Errorf("exit code %d: %s", c, errs.String())
	}
	for _, want := range []string{
		"leaving: waiting: uninstall: the binaries", "leaving: uninstall: Braid is not on this node",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
