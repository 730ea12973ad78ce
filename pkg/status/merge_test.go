package status_test

import (
	"encoding/json"
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/status"
)

func merge(t *testing.T, existing string, ours ...nadv1.NetworkStatus) string {
	t.Helper()
	text, err := status.Merge(existing, ours)
	if err != nil {
		t.Fatalf("Merge: %v", err)
	}
	if !json.Valid([]byte(text)) {
		t.Fatalf("Merge made no JSON: %s", text)
	}
	return text
}

// U22, "network-status, exact".
func TestU22ExactAnnotation(t *testing.T) {
	built := status.Build([]status.Result{
		{
			Attachment: plan.Attachment{Name: "cilium", Network: "cilium", Default: true, IfName: "eth0"},
			CNI: result(t, `{"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "mac": "36:0e:29:e7:42:ad", "sandbox": "/x"}],
				"ips": [{"interface": 0, "address": "192.168.1.88/32"}]}`),
		},
		{
			Attachment: plan.Attachment{
				Name: "default/gke-network-1", Network: "gke-network-1", IfName: "net1",
			},
			CNI: result(t, `{"cniVersion": "0.3.1", "interfaces": [{"name": "net1", "mac": "00:50:56:82:a7:ab", "sandbox": "/x"}],
				"ips": [{"version": "4", "interface": 0, "address": "21.0.111.1/21", "gateway": "21.0.111.254"}]}`),
		},
	})
	want(t, "annotation", merge(t, "", built...), `[{
    "name": "cilium",
    "interface": "eth0",
    "ips": ["192.168.1.88"],
    "mac": "36:0e:29:e7:42:ad",
    "default": true,
    "dns": {}
},{
    "name": "default/gke-network-1",
    "interface": "net1",
    "ips": ["21.0.111.1"],
    "mac": "00:50:56:82:a7:ab",
    "dns": {}
}]`)
}

func TestU22NestedAndStrangeText(t *testing.T) {
	entry := nadv1.NetworkStatus{
		Name: `a"{},[:\`, IPs: []string{"10.0.0.1", "fd00::1"},
		DNS: nadv1.DNS{Nameservers: []string{"10.0.0.53"}, Domain: "x"},
		DeviceInfo: &nadv1.DeviceInfo{
			Type: "pci", Version: "1.1.0", PCI: &nadv1.PCIDevice{PCIAddress: "0000:01:02.3"},
		},
	}
	text := merge(t, "", entry)
	want(t, "annotation", text, `[{
    "name": "a\"{},[:\\",
    "ips": ["10.0.0.1", "fd00::1"],
    "dns": {
        "nameservers": ["10.0.0.53"],
        "domain": "x"
    },
    "device-info": {
        "type": "pci",
        "version": "1.1.0",
        "pci": {
            "pci-address": "0000:01:02.3"
        }
    }
}]`)
	var back []nadv1.NetworkStatus
	if err := json.Unmarshal([]byte(text), &back); err != nil {
		t.Fatal(err)
	}
	want(t, "read back", back, []nadv1.NetworkStatus{entry})
}

// S26, "network-status is a JSON list".
func TestS26AnnotationIsAJSONList(t *testing.T) {
	want(t, "key", nadv1.StatusAnnotation, "k8s.v1.cni.cncf.io/network-status")
	want(t, "nothing attached", merge(t, ""), "[]")
}

// S29, "status: what others wrote stays".
func TestS29MergeKeepsOthers(t *testing.T) {
	other := `{"name":"x/dynamic",  "interface": "dyn0", "org.foo.count": 12345678901234567890, ` +
		`"ips": ["1.2.3.4"]}`
	existing := `[{"name": "old", "interface": "eth0"}, ` + other + `, {"name": "default/a", "interface": "gone0"},
		{"name": "was-default", "interface": "old0", "default": true}]`
	ours := []nadv1.NetworkStatus{
		{Name: "cluster", Interface: "eth0", Default: true}, {Name: "default/a", Interface: "net1"},
	}

	text := merge(t, existing, ours...)
	if !strings.HasSuffix(text, ","+other+"]") {
		t.Errorf("the other's entry is not kept as it was written:\n%s", text)
	}
	var got []nadv1.NetworkStatus
	err := json.Unmarshal([]byte(strings.ReplaceAll(text, "12345678901234567890", "1")), &got)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range got {
		names = append(names, e.Name+"@"+e.Interface)
	}
	want(t, "entries", names, []string{"cluster@eth0", "default/a@net1", "x/dynamic@dyn0"})
	want(t, "merging again", merge(t, text, ours...), text)
}

func TestS29EntriesOfUnknownShapeAreNotOurs(t *testing.T) {
	other := `{"name": 7, "interface": ["net1"], "default": "true"}`
	text := merge(t, "["+other+"]",
		nadv1.NetworkStatus{Name: "default/a", Interface: "net1", Default: true})
	if !strings.HasSuffix(text, ","+other+"]") {
		t.Errorf("lost: %s", text)
	}
}

func TestS29MalformedIsReplacedAndReported(t *testing.T) {
	ours := nadv1.NetworkStatus{Name: "default/a", Interface: "net1"}
	for _, existing := range []string{
		`{`, `{}`, `"x"`, `[1]`, `[null]`, `[{"name":"x"}] trailing`, "[" + strings.Repeat("[", 20000),
	} {
		text, err := status.Merge(existing, []nadv1.NetworkStatus{ours})
		if failure.ReasonOf(err) != failure.InvalidAnnotation {
			t.Errorf("%.20s: error %v", existing, err)
		}
		want(t, existing[:1], text, merge(t, "", ours))
	}
}

// S37, "status: keys without a period are reserved".
func TestS37KeysWithoutPeriodAreTheSpecifications(t *testing.T) {
	allowed := map[string]bool{
		"name": true, "interface": true, "ips": true, "mac": true, "default": true, "dns": true,
		"default-route": true,
		// the last two: client library of the ecosystem
		"device-info": true, "mtu": true, "gateway": true,
	}
	text := merge(t, "", nadv1.NetworkStatus{
		Name: "n", Interface: "i", IPs: []string{"1.2.3.4"}, Mac: "m", Mtu: 1, Default: true,
		DefaultRoute: []string{"1.2.3.1"},
		Gateway:      []string{"1.2.3.1"}, DeviceInfo: &nadv1.DeviceInfo{Type: "pci"},
	})
	var entries []map[string]any
	if err := json.Unmarshal([]byte(text), &entries); err != nil {
		t.Fatal(err)
	}
	for key := range entries[0] {
		if !allowed[key] {
			t.Errorf("key %s is reserved", key)
		}
	}
}

// TestR15EarlierSandbox: what Braid wrote for another sandbox is not this one's, whatever became of
// the networks meanwhile.
func TestR15EarlierSandbox(t *testing.T) {
	earlier := []nadv1.NetworkStatus{
		{Name: "cluster", Interface: "eth0", IPs: []string{"10.1.0.2"}, Default: true},
		{Name: "default/a", Interface: "net1", Mac: "m"},
		{Name: "default/gone", Interface: "net2", IPs: []string{"10.2.0.2", "fd00::2"}},
		{Name: "default/named", Interface: "data"},
		{Name: "default/bare"},
	}
	const other = `{"name":"x/dynamic","interface":"dyn0","ips":["1.2.3.4"],"dns":{}}`
	text := merge(t, "["+other+"]", earlier...)
	ours := []nadv1.NetworkStatus{
		{Name: "cluster", Interface: "eth0", IPs: []string{"10.1.0.3"}, Default: true},
	}
	want(t, "annotation", merge(t, text, ours...),
		strings.TrimSuffix(merge(t, "", ours...), "]")+","+other+"]")

	compact, err := json.Marshal(earlier[:3]) // written again by something else
	if err != nil {
		t.Fatal(err)
	}
	want(t, "annotation written otherwise", merge(t, string(compact), ours...), merge(t, "", ours...))
}
