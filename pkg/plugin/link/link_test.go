package link_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/link"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// pod is a pod with a link net1 that is down, and what is at its other end.
func pod(t *testing.T) (p *plugintest.Pod, peer *nettest.Namespace) {
	t.Helper()
	p, peer = plugintest.New(t, plugintest.Plugins{}).Pod("a"), nettest.New(t)
	p.Veth("net1", peer, "wire")
	p.Down("net1")
	return p, peer
}

// configure configures net1 as a result in JSON says of interface 0.
func configure(t *testing.T, p *plugintest.Pod, result string, detect bool) error {
	t.Helper()
	r, err := plugintest.Parse([]byte(result))
	if err != nil {
		t.Fatal(err)
	}
	return p.Within(nil, func(ctx context.Context, req *plugin.Request) error {
		_, pod, err := req.Pod()
		if err != nil {
			return err
		}
		found, err := pod.Link(ctx, "net1")
		if err != nil {
			return err
		}
		return link.Configure(ctx, req, found, r, 0, detect)
	})
}

// net1 are the lines of a snapshot about net1, without the kernel's own routes.
func net1(p *plugintest.Pod) (lines []string) {
	for line := range strings.Lines(p.Snapshot()) {
		if strings.Contains(line, " net1") && !strings.Contains(line, "proto kernel") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestConfigure(t *testing.T) {
	for name, c := range map[string]struct {
		result string
		want   []string
	}{
		"nothing": {`{"cniVersion":"1.0.0"}`, []string{"link net1 veth mtu 1500 up"}},
		"gateways": {
			// The first of a family that an address has is that of routes without one.
			`{"cniVersion":"1.1.0","ips":[{"interface":0,"address":"10.1.0.2/24"},{"interface":0,"address":"10.2.0.2/24","gateway":"10.2.0.1"},
				{"interface":0,"address":"fd00::2/64","gateway":"fd00::1"},{"interface":0,"address":"10.1.0.3/32","gateway":"10.2.0.9"},
				{"address":"10.9.0.2/24"}],
			"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"},{"dst":"172.16.0.0/12","gw":"10.1.0.9"},{"dst":"fd01::/64","gw":"fd00::9"}]}`,
			[]string{
				"link net1 veth mtu 1500 up", "addr net1 10.1.0.2/24", "addr net1 10.1.0.3/32",
				"addr net1 10.2.0.2/24", "addr net1 fd00::2/64",
				"route4 table main 172.16.0.0/12 via 10.1.0.9 dev net1",
				"route4 table main default via 10.2.0.1 dev net1",
				"route6 table main default via fd00::1 dev net1 metric 1024",
				"route6 table main fd01::/64 via fd00::9 dev net1 metric 1024",
			},
		},
		"no gateway": {
			`{"cniVersion":"1.1.0","ips":[{"interface":0,"address":"10.1.0.2/24"}],` +
				`"routes":[{"dst":"172.16.0.0/12"},{"dst":"172.32.0.0/12","scope":253}]}`,
			[]string{
				"link net1 veth mtu 1500 up", "addr net1 10.1.0.2/24",
				"route4 table main 172.16.0.0/12 dev net1",
				"route4 table main 172.32.0.0/12 dev net1 scope link",
			},
		},
		"attributes of routes": {
			`{"cniVersion":"1.1.0","ips":[{"interface":0,"address":"10.1.0.2/24","gateway":"10.1.0.1"}],
			"routes":[{"dst":"172.16.0.0/12","priority":7,"mtu":1400},{"dst":"172.32.0.0/12","table":300},{"dst":"172.48.1.2/12"}]}`,
			[]string{
				"link net1 veth mtu 1500 up", "addr net1 10.1.0.2/24",
				"route4 table 300 172.32.0.0/12 via 10.1.0.1 dev net1",
				"route4 table main 172.16.0.0/12 via 10.1.0.1 dev net1 metric 7 mtu 1400",
				"route4 table main 172.48.0.0/12 via 10.1.0.1 dev net1",
			},
		},
	} {
		p, _ := pod(t)
		if err := configure(t, p, c.result, false); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, net1(p)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestConfigureFails(t *testing.T) {
	for name, c := range map[string]struct {
		result string
		is     error
		says   string
	}{
		"address of another interface": {`{"cniVersion":"1.0.0","ips":[{"interface":1,` +
			`"address":"10.1.0.2/24"}]}`, nil, "10.1.0.2/24"},
		"address that is there": {
			`{"cniVersion":"1.0.0","ips":[{"interface":0,` +
				`"address":"10.1.0.2/24"},{"interface":0,"address":"10.1.0.2/24"}]}`, unix.EEXIST,
			"10.1.0.2/24",
		},
		"gateway out of reach": {
			`{"cniVersion":"1.0.0","ips":[{"interface":0,` +
				`"address":"10.1.0.2/24"}],"routes":[{"dst":"172.16.0.0/12","gw":"10.9.0.1"}]}`,
			unix.ENETUNREACH, "172.16.0.0/12 via 10.9.0.1",
		},
		"route that is there": {`{"cniVersion":"1.0.0","ips":[{"interface":0,` +
			`"address":"10.1.0.2/24","gateway":"10.1.0.1"}],"routes":[{"dst":"172.16.0.0/12"},` +
			`{"dst":"172.16.0.0/12"}]}`, unix.EEXIST, "172.16.0.0/12"},
	} {
		p, _ := pod(t)
		err := configure(t, p, c.result, false)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// IPv6 may be switched off in the pod; what has an IPv6 address has it switched on.
func TestConfigureSwitchesIPv6On(t *testing.T) {
	for _, result := range []string{
		`{"cniVersion":"1.0.0","ips":[{"interface":0,"address":"fd00::2/64"}]}`,
		`{"cniVersion":"1.0.0","ips":[{"interface":0,"address":"10.1.0.2/24"}]}`,
	} {
		p, _ := pod(t)
		set := func(key, value string) error {
			return p.Run(func() error {
				return os.WriteFile("/proc/sys/net/ipv6/conf/"+key+"/disable_ipv6", []byte(value), 0)
			})
		}
		if err := errors.Join(set("lo", "1"), set("net1", "1")); err != nil {
			t.Fatal(err)
		}
		if err := configure(t, p, result, false); err != nil {
			t.Fatal(err)
		}
		var value []byte
		err := p.Run(func() (err error) {
			value, err = os.ReadFile("/proc/sys/net/ipv6/conf/net1/disable_ipv6")
			return err
		})
		off := strings.TrimSpace(string(value)) == "1"
		if err != nil || off != !strings.Contains(result, "fd00") {
			t.Errorf("%s: IPv6 is off: %v, %v", result, off, err)
		}
	}
}

// On a link without carrier nothing can be checked or used yet; ADD does not wait for the other
// end.
func TestConfigureWithoutCarrier(t *testing.T) {
	p, peer := pod(t)
	peer.Down("wire")
	err := configure(t, p, `{"cniVersion":"1.0.0","ips":[{"interface":0,"address":"fd00::2/64",`+
		`"gateway":"fd00::1"}],"routes":[{"dst":"::/0"}]}`, false)
	if err != nil {
		t.Fatal(err)
	}
	diff := cmp.Diff([]string{
		"link net1 veth mtu 1500 up", "addr net1 fd00::2/64",
		"route6 table main default via fd00::1 dev net1 metric 1024",
	}, net1(p))
	if diff != "" {
		t.Error(diff)
	}
}

// A result of several interfaces: each address is looked for on its own.
func TestCheck(t *testing.T) {
	p, _ := pod(t)
	p.Up("net1")
	p.Addr("net1", "10.1.0.2/24", "fd00::2/64")
	p.Route("172.16.0.0/12", "10.1.0.1", "net1", 0)
	good := func() *types100.Result {
		return &types100.Result{
			CNIVersion: "1.1.0",
			Interfaces: []*types100.Interface{
				{Name: "net1"}, {
					Name: "net1", Sandbox: p.NetNS,
					Mac: strings.ToUpper(p.Link("net1").Attrs().HardwareAddr.String()),
				},
			},
			IPs: []*types100.IPConfig{
				{Interface: types100.Int(0), Address: ipNet("10.7.0.2/24")},
				{Interface: types100.Int(1), Address: ipNet("10.1.0.2/24")},
				{Address: ipNet("fd00::2/64")},
			},
			Routes: []*types.Route{
				{Dst: ipNet("172.16.0.0/12"), GW: net.IPv4(10, 1, 0, 1)},
				{Dst: ipNet("172.16.0.7/12")},
				{Dst: ipNet("172.16.0.0/12"), Table: types100.Int(254)},
			},
		}
	}
	for says, change := range map[string]func(r *types100.Result){
		"":                       func(*types100.Result) {},
		"10.1.0.2/25":            func(r *types100.Result) { r.IPs[1].Address = ipNet("10.1.0.2/25") },
		"fd00::3/64":             func(r *types100.Result) { r.IPs[2].Address = ipNet("fd00::3/64") },
		"the route to 172":       func(r *types100.Result) { r.Routes[0].GW = net.IPv4(10, 1, 0, 9) },
		"to 172.16.0.0/12":       func(r *types100.Result) { r.Routes[2].Table = types100.Int(7) },
		"MAC":                    func(r *types100.Result) { r.Interfaces[1].Mac = "02:00:00:00:00:01" },
		"no interface net1":      func(r *types100.Result) { r.Interfaces[1].Name = "net2" },
		"no interface net1 in a": func(r *types100.Result) { r.Interfaces[1].Sandbox = "" },
		"is in sandbox /x":       func(r *types100.Result) { r.Interfaces[1].Sandbox = "/x" },
	} {
		result := good()
		change(result)
		err := p.Within(plugintest.Conf{"prevResult": result},
			func(ctx context.Context, req *plugin.Request) error {
				found, err := link.Check(ctx, req, "veth")
				if err == nil && found.Name != "net1" {
					t.Errorf("link %v", found)
				}
				return err
			})
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", says, err)
		}
	}
	p.Down("net1")
	down := plugintest.Conf{"prevResult": good()}
	err := p.Within(down, func(ctx context.Context, req *plugin.Request) error {
		found, err := link.Check(ctx, req, "veth")
		if found == nil {
			t.Error("no link with ErrDown")
		}
		return err
	})
	if !errors.Is(err, link.ErrDown) {
		t.Errorf("down: %v", err)
	}
}

func ipNet(cidr string) net.IPNet {
	p := netip.MustParsePrefix(cidr)
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
