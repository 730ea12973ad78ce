package ipam_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/ipam"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// refused fails the test unless an error has the code of a wrong configuration and says that.
func refused(t *testing.T, err error, says string) {
	t.Helper()
	if plugintest.Code(err) != types.ErrInvalidNetworkConfig || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %s", err, says)
	}
}

func TestWrongAddresses(t *testing.T) {
	for says, a := range map[string]ipam.Address{
		`addresses[0].address "": is no address with a prefix length`:         {},
		`addresses[0].address "10.1.0.2": is no address with a prefix length`: {Address: "10.1.0.2"},
		`addresses[0].address "::ffff:10.1.0.2/120": is no address`: {
			Address: "::ffff:10.1.0.2/120",
		},
		`addresses[0].gateway "10.1.0": is no IP address`: {
			Address: "10.1.0.2/24", Gateway: "10.1.0",
		},
		`addresses[0].gateway "fe80::1%eth0": is no IP address`: {
			Address: "fd00::2/64", Gateway: "fe80::1%eth0",
		},
		`addresses[0].gateway "fd00::1": is of another family than address 10.1.0.2/24`: {
			Address: "10.1.0.2/24", Gateway: "fd00::1",
		},
	} {
		_, _, err := a.Parse("addresses[0]")
		refused(t, err, says)
	}
	prefix, gateway, err := ipam.Address{Address: "10.1.0.2/24"}.Parse("addresses[0]")
	if err != nil || prefix.String() != "10.1.0.2/24" || gateway.IsValid() {
		t.Errorf("without a gateway: %v, %v, %v", prefix, gateway, err)
	}
}

func TestWrongRoutes(t *testing.T) {
	for says, r := range map[string]ipam.Route{
		`ipam.routes[1].dst "10.0.0": is no address with a prefix length`: {Dst: "10.0.0"},
		`ipam.routes[1].gw "x": is no IP address`:                         {Dst: "10.0.0.0/8", GW: "x"},
		`ipam.routes[1].gw "10.0.0.1": is of another family than dst fd00::/8`: {
			Dst: "fd00::/8", GW: "10.0.0.1",
		},
	} {
		_, err := ipam.Routes([]ipam.Route{{Dst: "0.0.0.0/0"}, r})
		refused(t, err, says)
	}
	routes, err := ipam.Routes([]ipam.Route{{Dst: "0.0.0.0/0"}, {Dst: "fd00::/8", GW: "fd01::1"}})
	if err != nil || len(routes) != 2 || routes[0].GW != nil || routes[1].GW.String() != "fd01::1" {
		t.Errorf("routes %v, %v", routes, err)
	}
}

// Of what a pod asks for, the error names where it was written, and the element.
func TestAskedBy(t *testing.T) {
	for says, c := range map[string]struct{ ip, args, runtime string }{
		`CNI_ARGS IP "x": is no IP address`:               {ip: "10.0.0.1, x"},
		`args.cni.ips[1] "10.0.0.1/x": is no IP address`:  {args: `{"ips":["10.0.0.1","10.0.0.1/x"]}`},
		`runtimeConfig.ips[0] "": is no IP address`:       {runtime: `{"ips":[""]}`},
		`runtimeConfig.ips "10.0.0.1": is a JSON string`:  {runtime: `{"ips":"10.0.0.1"}`},
		`runtimeConfig.ips[0] "fe80::1%a": is no IP addr`: {runtime: `{"ips":["fe80::1%a"]}`},
	} {
		_, err := ipam.AskedBy(&plugin.Request{
			CNIArgs: json.RawMessage(c.args), Runtime: json.RawMessage(c.runtime),
		}, c.ip)
		refused(t, err, says)
	}
	asked, err := ipam.AskedBy(&plugin.Request{
		CNIArgs: []byte(`{"ips":["10.0.0.2/8"]}`), Runtime: []byte(`{"ips":["::ffff:10.0.0.3/120"]}`),
	}, " 10.0.0.1 ,, fd00::1/64")
	var got []string
	for _, a := range asked {
		got = append(got, a.Addr.String())
	}
	if want := "10.0.0.1 fd00::1 10.0.0.2 10.0.0.3"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("asked for %v, %v; want %s", got, err, want)
	}
}

func TestCheckFamilies(t *testing.T) {
	addrs := func(list string) (addrs []netip.Addr) {
		for a := range strings.SplitSeq(list, " ") {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		return addrs
	}
	for _, c := range []struct {
		version, addrs string
		ok             bool
	}{
		{"0.2.0", "10.0.0.1 fd00::1", true},
		{"0.2.0", "10.0.0.1 10.0.0.2", false},
		{"0.2.0", "fd00::1 fd00::2", false},
		{"0.3.0", "10.0.0.1 10.0.0.2", true},
		{"1.1.0", "fd00::1 fd00::2", true},
		{"no version", "fd00::1 fd00::2", false},
	} {
		err := ipam.CheckFamilies(&plugin.Request{Version: c.version}, addrs(c.addrs))
		if (err == nil) != c.ok {
			t.Errorf("%s with %s: %v", c.version, c.addrs, err)
		}
		if !c.ok {
			refused(t, err, "cniVersion "+`"`+c.version+`": has one address of each family`)
		}
	}
}
