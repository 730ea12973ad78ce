package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nodenet"
)

// TestU7Interfaces: the agent assigns the node's NIC its address, says so in the Node, raises an
// event of what is wrong, and takes the address back when Braid is taken off the node.
func TestU7Interfaces(t *testing.T) {
	node, lan := nettest.New(t), nettest.New(t)
	node.Veth("ens224", lan, "port")
	a := newAgentNode(t, "node-i")
	a.netns = node.Path
	mac := node.Link("ens224").Attrs().HardwareAddr.String() // beside that of another node
	configure := func(hostname string) {
		t.Helper()
		must(t, os.WriteFile(a.path("image/node-interfaces.json"), []byte(`[{"network": "data", "match": {"mac": ["00:50:56:00:00:01", "`+mac+`"]}, "type": "static", "blocks": [
			{"netmask": "255.255.255.0", "gateway": "10.0.0.1", "ips": [{"ip": "10.0.0.2", "hostname": "`+hostname+`"}]}]}]`), 0o600))
	}
	must(t, os.WriteFile(a.path("image/node-interfaces.json"), []byte(`[{"network": "data"}]`), 0o600))
	stop := a.start()
	const wrong = "field nodeInterfaces[0].match: "
	a.await("the configuration to be told as invalid", func() bool {
		report := a.report()
		return report.Report != nil && len(report.Report.Interfaces) == 1 &&
			report.Report.Interfaces[0].State == "Invalid" &&
			strings.HasPrefix(report.Report.Interfaces[0].Message, wrong) &&
			strings.Contains(report.Condition.Message, "node interfaces: "+wrong)
	})
	configure("node-x")
	a.await("event", func() bool {
		return slices.ContainsFunc(a.events(), func(e corev1.Event) bool {
			return e.Reason == "NodeInterfaceFailed" && strings.Contains(e.Message,
				"no address of the blocks has the hostname node-i; give the node an entry")
		})
	})
	a.await("message of a NIC without address", func() bool {
		return strings.Contains(a.report().Condition.Message,
			"node interfaces: data Failed ens224: no address")
	})
	configure("node-i")
	want := nodev1.Interface{
		Network: "data", Type: "static", Interface: "ens224", MAC: node.Link("ens224").Attrs().
				HardwareAddr.String(), Addresses: []string{"10.0.0.2/24"}, State: "Ready",
	}
	a.await("annotation", func() bool {
		report := a.report().Report
		return report != nil && len(report.Interfaces) == 1 && cmp.Equal(report.Interfaces[0], want)
	})
	a.await("message", func() bool {
		c := a.report().Condition
		return c.Status == metav1.ConditionTrue &&
			strings.Contains(c.Message, "node interfaces: data Ready ens224 10.0.0.2/24")
	})
	object, err := a.server.Client().CoreV1().Nodes().Get(t.Context(), a.name, metav1.GetOptions{})
	must(t, err)
	var published []nodev1.Interface
	must(t, json.Unmarshal([]byte(object.Annotations["braid-cni.io/node-interfaces"]), &published))
	if diff := cmp.Diff([]nodev1.Interface{want}, published); diff != "" {
		t.Errorf("annotation (-want +got):\n%s", diff)
	}
	must(t, stop())
	if !strings.Contains(node.Snapshot(), "10.0.0.2/24") {
		t.Error("the address went with the agent")
	}
	a.uninstall = true
	stop = a.start()
	a.await("the address to be taken back", func() bool {
		return !strings.Contains(node.Snapshot(), "10.0.0.2/24")
	})
	must(t, stop())
}

// TestU7ConfigurationOfInterfaces: a file that is absent is no interfaces; a directory that is, or
// a file that is wrong, is an error.
func TestU7ConfigurationOfInterfaces(t *testing.T) {
	dir := t.TempDir()
	a := &daemon{o: &options{config: dir + "/config.json"}}
	read := a.interfaces()
	want := func(what string, interfaces int, says string) {
		t.Helper()
		got, err := read()
		if len(got) != interfaces || (err == nil) != (says == "") ||
			err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v; want %d, %q", what, got, err, interfaces, says)
		}
	}
	want("no file", 0, "")
	path := dir + "/" + interfacesFile
	must(t, os.WriteFile(path, []byte(`[{"network": "a", "match": {"index": 1}, "type": "dhcp"}]`),
		0o600))
	want("one", 1, "")
	want("the same", 1, "")
	must(t, os.WriteFile(path, []byte(`[{"network": "a", "match": {"index": 1}}]`), 0o600))
	want("wrong", 0, "field "+nodenet.Field+"[0].type")
	must(t, os.Remove(path))
	want("removed", 0, "")
	a.o.config = dir + "/gone/config.json"
	read = a.interfaces()
	want("no directory", 0, "see that the ConfigMap is mounted")
	a.o.config = ""
	read = a.interfaces()
	want("no configuration", 0, "")
}
