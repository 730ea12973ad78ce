package macvlan_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/pkg/plugin/vlan"
	"github.com/braid-cni/braid/plugins/macvlan"
)

type conf = plugintest.Conf

func suite() plugintest.OnMaster {
	return plugintest.OnMaster{
		Kind: "macvlan", Ours: plugintest.Plugins{
			"macvlan": plugin.New(macvlan.Plugin{}), "counting": plugin.NewIPAM(&counting{}),
		},
	}
}

func TestAddCheckDel(t *testing.T) {
	s := suite()
	n, _ := s.Node(t, s.Ours, plugintest.Dual)
	p, c := n.Pod("a"), s.Conf().With(conf{"mtu": 1400})
	before := p.Snapshot()
	result, err := p.Add(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.IPs) != 2 || result.Interfaces[0].Sandbox != p.NetNS {
		t.Errorf("result %s", p.Prev)
	}
	for _, want := range []string{
		"link net1 macvlan mtu 1400 up", "addr net1 10.1.0.2/24", "addr net1 fd00::2/64",
		"route4 table main 172.16.0.0/12 via 10.1.0.1 dev net1",
		"route6 table main fd01::/64 via fd00::1 dev net1",
	} {
		if !strings.Contains(p.Snapshot(), want) {
			t.Errorf("lacks %q:\n%s", want, p.Snapshot())
		}
	}
	if err := p.Check(c); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := p.Del(c); err != nil {
			t.Fatal(err)
		}
		if got := p.Snapshot(); got != before {
			t.Errorf("after DEL:\n%s", got)
		}
	}
}

func TestMatchesReference(t *testing.T) {
	const v4 = `{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"},` +
		`{"address":"10.2.0.2/16"}],` +
		`"routes":[{"dst":"0.0.0.0/0"},{"dst":"172.16.0.0/12","priority":7},{"dst":"172.32.0.0/12",` +
		`"table":200}],"dns":{"domain":"x"}}`
	for name, c := range map[string]struct {
		result, args string
		conf         conf
	}{
		"dual stack": {result: plugintest.Dual},
		"no IPAM":    {conf: conf{"ipam": conf{}}},
		"private":    {conf: conf{"mode": "private", "mtu": 1400}},
		"vepa":       {conf: conf{"mode": "vepa", "bcqueuelen": 500}},
		"passthru":   {conf: conf{"mode": "passthru"}},
		"dns": {conf: conf{
			"dns": conf{"nameservers": []string{"10.0.0.53"}, "search": []string{"a", "b"}},
		}},
		"mac":           {conf: conf{"mac": "02:00:00:00:00:05"}},
		"master in pod": {conf: conf{"master": "up0", "linkInContainer": true}},
		"cniVersion 0.2.0": {
			conf:   conf{"cniVersion": "0.2.0"},
			result: strings.Replace(v4, `,{"address":"10.2.0.2/16"}`, "", 1),
		},
		"cniVersion 0.3.1": {conf: conf{"cniVersion": "0.3.1"}},
		"cniVersion 0.4.0": {conf: conf{"cniVersion": "0.4.0"}},
		"cniVersion 1.0.0": {conf: conf{"cniVersion": "1.0.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.result == "" {
				c.result = v4
			}
			suite().Twins(t, c.result, c.args, c.conf)
		})
	}
}

// M15, "links left behind when IPAM fails".
func TestM15MacvlanIPAMFails(t *testing.T) {
	t.Parallel()
	suite().M15(t)
}

func TestM15MacvlanConfigureFails(t *testing.T) {
	t.Parallel()
	suite().M15Configure(t)
}

func TestFailureOfEachStep(t *testing.T) {
	t.Parallel()
	suite().EachStep(t)
}

func TestNames(t *testing.T) {
	t.Parallel()
	suite().Names(t)
}

func TestDel(t *testing.T) {
	t.Parallel()
	suite().Del(t)
}

func TestEnableDAD(t *testing.T) {
	t.Parallel()
	suite().DAD(t)
}

func TestGCAndStatus(t *testing.T) {
	t.Parallel()
	suite().PassesOn(t)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	suite().Check(t, map[string]conf{"bridge": {"mode": "vepa"}, "nonsense": {"mode": "nonsense"}})
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	suite().BadInput(t, map[string]conf{
		"mac,x:y":           {"mac": "x:y"},
		"runtimeConfig.mac": {"runtimeConfig": conf{"mac": "02:00:00:00:00:00:00:01"}},
		"bcqueuelen,-1":     {"bcqueuelen": -1},
	})
}

// A request for a MAC comes before the configuration's, that of runtimeConfig before that of
// CNI_ARGS; args.cni is not asked.
func TestMAC(t *testing.T) {
	const (
		configured = "02:00:00:00:00:01"
		env        = "02:00:00:00:00:02"
		runtime    = "02:00:00:00:00:03"
		args       = "02:00:00:00:00:04"
	)
	for i, runner := range []plugintest.Runner{suite().Ours, plugintest.Reference{}} {
		for name, c := range map[string]struct {
			args, want string
			conf       conf
		}{
			"configured": {want: configured, conf: conf{"args": conf{"cni": conf{"mac": args}}}},
			"CNI_ARGS":   {want: env, args: "IgnoreUnknown=1;MAC=" + env},
			"runtime": {
				want: runtime, args: "MAC=" + env,
				conf: conf{"runtimeConfig": conf{"mac": runtime}},
			},
		} {
			n, _ := suite().Node(t, runner, "")
			p := n.Pod("a")
			p.Args = c.args
			result, err := p.Add(conf{"type": "macvlan", "master": "nic0", "mac": configured}.With(c.conf))
			if err != nil {
				t.Fatal(err)
			}
			got := p.Link("net1").Attrs().HardwareAddr.String()
			if got != c.want || result.Interfaces[0].Mac != c.want {
				t.Errorf("%s, runner %d: MAC %s, result %s, want %s",
					name, i, got, result.Interfaces[0].Mac, c.want)
			}
		}
	}
}

func TestMasterOfTheDefaultRoute(t *testing.T) {
	s := suite()
	n, _ := s.Node(t, s.Ours, plugintest.Dual)
	n.Host.Addr("nic0", "192.168.0.2/24")
	n.Host.Route("default", "192.168.0.1", "nic0", 0)
	p := n.Pod("a")
	if _, err := p.Add(s.Conf().With(conf{"master": ""})); err != nil {
		t.Fatal(err)
	}
	got, want := p.Link("net1").Attrs().ParentIndex, n.Host.Link("nic0").Attrs().Index
	if got != want {
		t.Errorf("on the link with index %d, want %d", got, want)
	}
}

// counting is an IPAM plugin that assigns each attachment the next address.
type counting struct{ last uint16 }

type countingConf struct {
	Type string `json:"type"`
}

func (c *counting) Add(context.Context, *plugin.Request, *countingConf) (*types100.Result, error) {
	c.last++
	return &types100.Result{IPs: []*types100.IPConfig{{
		Address: net.IPNet{
			IP: net.IPv4(10, 1, byte(c.last>>8), byte(c.last)), Mask: net.CIDRMask(16, 32),
		}, Gateway: net.IPv4(10, 1, 255, 254),
	}}}, nil
}
func (*counting) Del(context.Context, *plugin.Request, *countingConf) error    { return nil }
func (*counting) Check(context.Context, *plugin.Request, *countingConf) error  { return nil }
func (*counting) GC(context.Context, *plugin.Request, *countingConf) error     { return nil }
func (*counting) Status(context.Context, *plugin.Request, *countingConf) error { return nil }

// BenchmarkAdd is the ADD of an interface with an address, the IPAM plugin in-process.
func BenchmarkAdd(b *testing.B) {
	s := suite()
	n, _ := s.Node(b, s.Ours, "")
	p := n.Pod("a")
	c := s.Conf().With(conf{"ipam": conf{"type": "counting"}})
	for i := 0; b.Loop(); i++ {
		p.IfName = fmt.Sprint("net", i)
		if _, err := p.Add(c); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := p.Del(c); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func TestReadme(t *testing.T) { plugintest.Readme[macvlan.Conf](t, plugin.New(macvlan.Plugin{})) }

// over is a context that has ended for what looks, and lets go on what waits.
type over struct{ context.Context }

func (over) Err() error { return context.Canceled }

// An address is not given back while it is on a link.
func TestDelKeepsTheAddressOfALinkThatStays(t *testing.T) {
	s := suite()
	n, _ := s.Node(t, s.Ours, plugintest.Dual)
	p := n.Pod("a")
	if _, err := p.Add(s.Conf()); err != nil {
		t.Fatal(err)
	}
	held := n.Leases()
	p.Ctx = over{t.Context()}
	if err := p.Del(s.Conf()); err == nil || !p.HasLink("net1") {
		t.Fatalf("the link is gone: %v", err)
	}
	if got := n.Leases(); got != held || held == "" {
		t.Errorf("leases %q, want %q", got, held)
	}
	p.Ctx = nil
	if err := p.Del(s.Conf()); err != nil || p.HasLink("net1") || n.Leases() != "" {
		t.Errorf("DEL again: %v, leases %q", err, n.Leases())
	}
}

// vlanSuite is suite with a directory of VLAN links.
func vlanSuite(t *testing.T) (s plugintest.OnMaster, vlans string) {
	t.Helper()
	s, vlans = suite(), t.TempDir()
	s.Ours["macvlan"] = plugin.New(macvlan.Plugin{VLANs: vlan.Links{Dir: vlans}})
	return s, vlans
}

func TestDelWithoutEachKey(t *testing.T) {
	s, vlans := vlanSuite(t)
	plugintest.OnMasterWithoutEachKey[macvlan.Conf](t, s, vlans,
		conf{"mode": "private", "mac": "02:00:00:00:00:07", "bcqueuelen": 10})
}

// R7, "vlan on macvlan and ipvlan".
func TestR7FailureOfEachStepLeavesNothing(t *testing.T) {
	s, vlans := vlanSuite(t)
	s.VLANEachStep(t, vlans)
}

func TestR7ConcurrentAttachments(t *testing.T) {
	s, vlans := vlanSuite(t)
	s.VLANConcurrent(t, vlans)
}
