package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
)

// TestU7Nodes: what the agents say of the nodes' interfaces is shown, an old word counts for
// nothing, and what a node's agent writes does not reach the terminal raw.
func TestU7Nodes(t *testing.T) {
	server, kubeconfig, api := openCluster(t)
	report := func(name string, age time.Duration, interfaces ...nodev1.Interface) {
		t.Helper()
		addNode(t, server, name)
		at := metav1.NewTime(time.Now().Add(-age))
		c := nodev1.Condition{
			Type: nodev1.Ready, Status: metav1.ConditionTrue, Reason: "R", LastHeartbeatTime: at,
			LastTransitionTime: at,
		}
		err := api.ReportNode(t.Context(), name, c, nodev1.Report{Interfaces: interfaces})
		if err != nil {
			t.Fatal(err)
		}
	}
	data := nodev1.Interface{
		Network: "gke-network-1", Type: "static", Interface: "ens224", MAC: "00:50:56:82:a7:ab",
		Addresses: []string{"172.16.20.10/22", "fd00::10/64"}, State: "Ready",
	}
	report("nodes-a", 0, data)
	report("nodes-none", 0)
	nodes := func(want int, flags string) string {
		t.Helper()
		code, out, errs := call(t, "braidctl nodes --kubeconfig "+kubeconfig+flags)
		if code != want {
			t.Errorf("exit code %d, want %d: %s", code, want, errs)
		}
		fitForTerminal(t, "nodes", out+errs)
		return strings.Join(squeeze(out), "\n")
	}
	header := "NODE NETWORK NIC MAC ADDRESSES STATE MESSAGE\n"
	got, want := nodes(exitOK, ""), header+
		"nodes-a gke-network-1 ens224 00:50:56:82:a7:ab 172.16.20.10/22,fd00::10/64 Ready -"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	report("nodes-b", 0, nodev1.Interface{
		Network: "gke-network-2", Type: "dhcp", State: "Absent", Message: "no NIC has name ens256",
	},
		nodev1.Interface{
			Network: evil, Type: evil, Interface: evil, MAC: evil, Addresses: []string{evil}, State: evil,
			Message: evil,
		})
	report("nodes-c", time.Hour, data)
	report("nodes-d", 0, nodev1.Interface{State: nodev1.InterfacesInvalid, Message: "field a"})
	out := nodes(exitFound, "")
	for _, want := range []string{
		"nodes-b gke-network-2 - - - Absent no NIC has name ens256\n",
		"nodes-d - - - - Invalid field a",
		"nodes-c gke-network-1 ens224 00:50:56:82:a7:ab 172.16.20.10/22,fd00::10/64 Unknown the agent " +
			"was last heard of 60m ago",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	var items []nodeInterface
	err := json.Unmarshal([]byte(nodes(exitFound, " -o json")), &items)
	if err != nil || len(items) != 5 || items[0].Addresses[1] != "fd00::10/64" {
		t.Errorf("%+v, %v", items, err)
	}
}
