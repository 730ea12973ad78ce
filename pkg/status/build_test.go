package status_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/status"
)

// result reads a CNI result as it comes from a plugin.
func result(t *testing.T, text string) types.Result {
	t.Helper()
	r, err := create.CreateFromBytes([]byte(text))
	if err != nil {
		t.Fatalf("result %s: %v", text, err)
	}
	return r
}

// one builds the entry of a single attachment.
func one(t *testing.T, a plan.Attachment, cni types.Result) nadv1.NetworkStatus {
	t.Helper()
	got := status.Build([]status.Result{{Attachment: a, CNI: cni}})
	if len(got) != 1 {
		t.Fatalf("%d entries for one attachment", len(got))
	}
	return got[0]
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %#v\nwant %#v", what, got, want)
	}
}

var net1 = plan.Attachment{Name: "default/a", Network: "a", IfName: "net1"}

const bridgeResult = `{"cniVersion": "1.1.0",
  "interfaces": [
    {"name": "cni0", "mac": "aa:aa:aa:aa:aa:aa"},
    {"name": "veth1", "mac": "bb:bb:bb:bb:bb:bb"},
    {"name": "net1", "mac": "cc:cc:cc:cc:cc:cc", "mtu": 1450, "sandbox": "/run/netns/x"},
    {"name": "net1b", "mac": "dd:dd:dd:dd:dd:dd", "sandbox": "/run/netns/x"}],
  "ips": [
    {"interface": 0, "address": "10.0.0.1/24"},
    {"interface": 2, "address": "10.0.0.5/24", "gateway": "10.0.0.1"},
    {"interface": 3, "address": "10.0.1.5/24"},
    {"interface": 2, "address": "fd00::5/64", "gateway": "fd00::1"},
    {"address": "192.0.2.9/24"}],
  "dns": {"nameservers": ["10.0.0.53"], "domain": "d.example", "search": ["s.example"], "options": ["ndots:5"]}}`

// S27, "status: the first interface with a sandbox".
func TestS27FirstInterfaceWithSandbox(t *testing.T) {
	got := one(t, net1, result(t, bridgeResult))
	want(t, "interface", got.Interface, "net1")
	want(t, "mac", got.Mac, "cc:cc:cc:cc:cc:cc")
}

// S28, "status: minimal entry without a result".
func TestS28MinimalEntryWithoutResult(t *testing.T) {
	want(t, "entry", one(t, net1, nil), nadv1.NetworkStatus{Name: "default/a"})
}

// S30, "status: exactly one default".
func TestS30DefaultExactlyOnce(t *testing.T) {
	eth0 := plan.Attachment{Name: "cluster", IfName: "eth0", Default: true}
	got := status.Build([]status.Result{{Attachment: eth0}, {Attachment: net1}, {Attachment: eth0}})
	want(t, "default of each", []bool{got[0].Default, got[1].Default, got[2].Default},
		[]bool{true, false, false})
}

// S31, "status: names carry the namespace".
func TestS31NameCarriesNamespace(t *testing.T) {
	want(t, "name", one(t, net1, result(t, bridgeResult)).Name, "default/a")
}

// S32, "status: ips of that interface".
func TestS32AddressesOfTheSandboxInterfaceOnly(t *testing.T) {
	want(t, "ips", one(t, net1, result(t, bridgeResult)).IPs, []string{"10.0.0.5", "fd00::5"})
	for name, text := range map[string]string{
		"no interfaces": `{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.5/24"}]}`,
		"none in the sandbox": `{"cniVersion": "1.0.0", "interfaces": [{"name": "cali1"}], ` +
			`"ips": [{"interface": 0, "address": "10.0.0.9/24"}, {"address": "10.0.0.5/24"}]}`,
		"negative index": `{"cniVersion": "0.4.0", "ips": [{"version": "4", "interface": -7, ` +
			`"address": "10.0.0.5/24"}]}`,
	} {
		got := one(t, net1, result(t, text))
		want(t, name+": ips", got.IPs, []string{"10.0.0.5"})
		want(t, name+": interface", got.Interface, "")
	}
}

func TestS32IndexOutOfRange(t *testing.T) {
	got := one(t, net1, result(t, `{"cniVersion": "1.0.0", "interfaces": [{"name": "net1", "sandbox": "/x"}],
		"ips": [{"interface": 9, "address": "10.0.0.5/24"}]}`))
	want(t, "ips", got.IPs, []string(nil))
}

// S33, "status: mac only with an interface".
func TestS33MacOnlyWithInterface(t *testing.T) {
	got := one(t, net1, result(t,
		`{"cniVersion": "1.0.0", "interfaces": [{"name": "cali1", "mac": "aa:aa:aa:aa:aa:aa"}]}`))
	want(t, "mac", got.Mac, "")
	want(t, "interface", got.Interface, "")
}

// S34, "status: dns".
func TestS34DNS(t *testing.T) {
	want(t, "dns", one(t, net1, result(t, bridgeResult)).DNS,
		nadv1.DNS{Nameservers: []string{"10.0.0.53"}, Domain: "d.example", Search: []string{"s.example"}})
}

// S35, "status: default-route if requested, mtu, gateway".
func TestS35DefaultRouteOnlyIfRequested(t *testing.T) {
	asked := net1
	asked.WantsDefaultRoute = true
	given := asked
	given.Gateways = []netip.Addr{netip.MustParseAddr("10.0.0.254"), netip.MustParseAddr("fd00::fe")}

	withRoutes := `{"cniVersion": "1.0.0", "interfaces": [{"name": "net1", "sandbox": "/x"}],
		"ips": [{"interface": 0, "address": "10.0.0.5/24", "gateway": "10.0.0.1"}, {"interface": 0, "address": "fd00::5/64", "gateway": "fd00::1"}],
		"routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.3"}, {"dst": "10.9.0.0/16", "gw": "10.0.0.4"}]}`
	for _, tc := range []struct {
		name   string
		a      plan.Attachment
		result string
		want   []string
	}{
		{"not asked", net1, withRoutes, nil},
		{"asked with gateways", given, withRoutes, []string{"10.0.0.254", "fd00::fe"}},
		{"asked, the routes' own", asked, withRoutes, []string{"10.0.0.3"}},
		{"asked, the addresses' own", asked, bridgeResult, []string{"10.0.0.1", "fd00::1"}},
	} {
		want(t, tc.name, one(t, tc.a, result(t, tc.result)).DefaultRoute, tc.want)
	}
}

func TestS35MtuAndGateway(t *testing.T) {
	got := one(t, net1, result(t, bridgeResult))
	want(t, "mtu", got.Mtu, 1450)
	want(t, "gateway without a default route", got.Gateway, []string(nil))

	got = one(t, net1, result(t, `{"cniVersion": "1.1.0", "interfaces": [{"name": "net1", "sandbox": "/x"}],
		"ips": [{"interface": 0, "address": "10.0.0.5/24", "gateway": "10.0.0.1"}, {"interface": 0, "address": "fd00::5/64", "gateway": "fd00::1"}],
		"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::2"}, {"dst": "0.0.0.0/0", "gw": "10.0.0.9", "table": 100},
			{"dst": "0.0.0.0/8", "gw": "10.0.0.8"}]}`))
	want(t, "gateway", got.Gateway, []string{"10.0.0.1", "fd00::2"})
}

// S36, "status: device-info".
func TestS36DeviceInfo(t *testing.T) {
	info := &nadv1.DeviceInfo{
		Type: "pci", Version: "1.1.0", PCI: &nadv1.PCIDevice{PCIAddress: "0000:01:02.3"},
	}
	got := status.Build([]status.Result{{Attachment: net1, DeviceInfo: info}})
	want(t, "device-info", got[0].DeviceInfo, info)
}

func TestS27ResultsOfAllVersions(t *testing.T) {
	const v4 = `"interfaces": [{"name": "net1", "mac": "cc:cc:cc:cc:cc:cc", "sandbox": "/x"}], ` +
		`"ips": [{"version": "4", "interface": 0, "address": "10.0.0.5/24"}]}`
	const v1 = `"interfaces": [{"name": "net1", "mac": "cc:cc:cc:cc:cc:cc", "sandbox": "/x"}], ` +
		`"ips": [{"interface": 0, "address": "10.0.0.5/24"}]}`
	for _, tc := range []struct{ text, mac string }{
		{`{"cniVersion": "0.1.0", "ip4": {"ip": "10.0.0.5/24"}}`, ""},
		{`{"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.5/24"}}`, ""},
		{`{"cniVersion": "0.3.0", ` + v4, "cc:cc:cc:cc:cc:cc"},
		{`{"cniVersion": "0.3.1", ` + v4, "cc:cc:cc:cc:cc:cc"},
		{`{"cniVersion": "0.4.0", ` + v4, "cc:cc:cc:cc:cc:cc"},
		{`{"cniVersion": "1.0.0", ` + v1, "cc:cc:cc:cc:cc:cc"},
		{`{"cniVersion": "1.1.0", ` + v1, "cc:cc:cc:cc:cc:cc"},
	} {
		want(t, tc.text, one(t, net1, result(t, tc.text)),
			nadv1.NetworkStatus{
				Name: "default/a", Interface: "net1", IPs: []string{"10.0.0.5"}, Mac: tc.mac,
			})
	}
}

// A delegate's JSON may hold null where the library expects an element; the indexes of the others
// stay.
func TestS27NullElements(t *testing.T) {
	for _, version := range []string{"0.4.0", "1.1.0"} {
		got := one(t, net1, result(t, `{"cniVersion": "`+version+`", "interfaces": [null, {"name": "net1", "sandbox": "/x"}],
			"ips": [null, {"version": "4", "interface": 1, "address": "10.0.0.5/24"}], "routes": [null]}`))
		want(t, version, got, nadv1.NetworkStatus{
			Name: "default/a", Interface: "net1", IPs: []string{"10.0.0.5"},
		})
	}
}

// TestR35UnsaidInterface: addresses without the index of an interface are those of the only one in
// the pod, as with Calico.
func TestR35UnsaidInterface(t *testing.T) {
	got := one(t, net1, result(t, `{"cniVersion": "1.0.0", "interfaces": [{"name": "cali1"}, {"name": "net1", "sandbox": "/x"}],
		"ips": [{"address": "10.0.0.5/32"}, {"interface": 0, "address": "10.0.0.1/32"}, {"address": "fd00::5/128"}],
		"routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]}`))
	want(t, "ips", got.IPs, []string{"10.0.0.5", "fd00::5"})
	want(t, "gateway", got.Gateway, []string{"169.254.1.1"})
	got = one(t, net1, result(t, `{"cniVersion": "1.0.0", "interfaces": [{"name": "net1", "sandbox": "/x"}, {"name": "net1b", "sandbox": "/x"}],
		"ips": [{"address": "10.0.0.5/24"}, {"interface": 0, "address": "10.0.0.6/24"}]}`))
	want(t, "ips with two interfaces", got.IPs, []string{"10.0.0.6"})
}

// Of two interfaces in the pod, the entry is of the first, and has the gateway of that alone.
func TestR35GatewayWithinTheSubnets(t *testing.T) {
	const twoLinks = `{"cniVersion": "1.0.0", "interfaces": [{"name": "net1", "sandbox": "/x"}, {"name": "net1b", "sandbox": "/x"}],
		"ips": [{"interface": 0, "address": "10.0.0.5/24"}, {"interface": 0, "address": "fd00::5/64"}, {"interface": 1, "address": "10.0.1.5/24"}],
		"routes": [{"dst": "0.0.0.0/0", "gw": "%s"}, {"dst": "::/0", "gw": "fd00::1"}]}`
	for gw, gateways := range map[string][]string{
		"10.0.0.1": {"10.0.0.1", "fd00::1"}, "10.0.1.1": {"fd00::1"},
	} {
		want(t, "gateway", one(t, net1, result(t, strings.Replace(twoLinks, "%s", gw, 1))).Gateway,
			gateways)
	}
}
