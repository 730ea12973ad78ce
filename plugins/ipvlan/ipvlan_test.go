package ipvlan_test

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/pkg/plugin/vlan"
	"github.com/braid-cni/braid/plugins/ipvlan"
)

type conf = plugintest.Conf

func suite(t *testing.T) plugintest.OnMaster {
	t.Helper()
	nettest.NeedsLink(t, "ipvlan")
	return plugintest.OnMaster{
		Kind: "ipvlan", Ours: plugintest.Plugins{"ipvlan": plugin.New(ipvlan.Plugin{})},
	}
}

const v4 = `{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"}],` +
	`"routes":[{"dst":"0.0.0.0/0"}],"dns":{"domain":"x"}}`

func TestMatchesReference(t *testing.T) {
	s := suite(t)
	for name, c := range map[string]struct {
		result string
		conf   conf
	}{
		"dual stack":           {result: plugintest.Dual},
		"l3":                   {conf: conf{"mode": "l3", "mtu": 1400, "dns": conf{"nameservers": []string{"10.0.0.53"}}}},
		"l3s":                  {conf: conf{"mode": "l3s", "cniVersion": "0.3.1"}},
		"master in pod":        {conf: conf{"master": "up0", "linkInContainer": true}},
		"IPAM, and prevResult": {conf: conf{"master": "", "prevResult": prev("nic0")}},
		"no IPAM":              {conf: conf{"ipam": conf{}, "prevResult": prev("x", "y")}},
		"no IPAM, no master":   {conf: conf{"ipam": conf{}, "master": "", "prevResult": prev("nic0")}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.result == "" {
				c.result = v4
			}
			s.Twins(t, c.result, "", c.conf)
		})
	}
}

// prev is a result of a plugin before.
func prev(interfaces ...string) conf {
	list := []conf{}
	for _, name := range interfaces {
		list = append(list, conf{"name": name})
	}
	return conf{
		"cniVersion": "1.1.0", "interfaces": list,
		"ips":    []conf{{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 0}},
		"routes": []conf{{"dst": "172.16.0.0/12"}}, "dns": conf{"domain": "y"},
	}
}

// M15, "links left behind when IPAM fails".
func TestM15IPvlanIPAMFails(t *testing.T)      { suite(t).M15(t) }
func TestM15IPvlanConfigureFails(t *testing.T) { suite(t).M15Configure(t) }
func TestFailureOfEachStep(t *testing.T)       { suite(t).EachStep(t) }
func TestNames(t *testing.T)                   { suite(t).Names(t) }
func TestDel(t *testing.T)                     { suite(t).Del(t) }
func TestEnableDAD(t *testing.T)               { suite(t).DAD(t) }
func TestGCAndStatus(t *testing.T)             { suite(t).PassesOn(t) }

func TestCheck(t *testing.T) {
	suite(t).Check(t, map[string]conf{"l2": {"mode": "l3"}, "nonsense": {"mode": "nonsense"}})
}

func TestBadInput(t *testing.T) {
	suite(t).BadInput(t, map[string]conf{
		"master,prevResult":      {"master": "", "prevResult": prev("nic0", "nic1")},
		"master,not exactly one": {"master": "", "prevResult": prev()},
		"field master,nic9":      {"master": "", "prevResult": prev("nic9")},
		"ipam,no prevResult":     {"ipam": conf{}},
		"ipam,with addresses": {
			"ipam":       conf{},
			"prevResult": conf{"cniVersion": "1.1.0", "interfaces": []conf{{"name": "nic0"}}},
		},
	})
}

// Without IPAM and prevResult the reference looks for a plugin that is called "".
func TestNoIPAM(t *testing.T) {
	s := suite(t)
	for name, c := range map[string]struct {
		runner plugintest.Runner
		code   uint
		says   string
		left   bool
	}{
		"ours":          {s.Ours, types.ErrInvalidNetworkConfig, "field ipam", false},
		"the reference": {plugintest.Reference{}, types.ErrInternal, "no plugin name", true},
	} {
		n, _ := s.Node(t, c.runner, "")
		p := n.Pod("a")
		_, err := p.Add(s.Conf().With(conf{"ipam": conf{}}))
		if plugintest.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: code %d: %v", name, plugintest.Code(err), err)
		}
		if p.HasLink("net1") != c.left {
			t.Errorf("%s: link left: %v", name, !c.left)
		}
	}
}

// M20: DEL of an attachment whose master was that of the default route, when there is none any
// more.
func TestM20IPvlanDelWithoutMaster(t *testing.T) {
	s := suite(t)
	for name, c := range map[string]struct {
		runner plugintest.Runner
		fails  bool
	}{"ours": {s.Ours, false}, "the reference": {plugintest.Reference{}, true}} {
		n, _ := s.Node(t, c.runner, v4)
		n.Host.Addr("nic0", "192.168.0.2/24")
		n.Host.Route("default", "192.168.0.1", "nic0", 0)
		p := n.Pod("a")
		if _, err := p.Add(s.Conf().With(conf{"master": ""})); err != nil {
			t.Fatal(err)
		}
		if err := n.Host.Netlink().LinkDel(n.Host.Link("nic0")); err != nil {
			t.Fatal(err)
		}
		p.Prev = nil // as in CNI before 0.4.0, and after an ADD that failed
		if err := p.Del(s.Conf().With(conf{"master": ""})); (err != nil) != c.fails {
			t.Errorf("%s: DEL: %v", name, err)
		}
		if left := n.Leases() != ""; left != c.fails {
			t.Errorf("%s: lease left: %v", name, left)
		}
	}
}

// Addresses of prevResult are not this plugin's: it changes neither prevResult's owner nor, on DEL,
// any lease.
func TestAddressesOfPrevResult(t *testing.T) {
	s := suite(t)
	n, _ := s.Node(t, s.Ours, v4)
	p := n.Pod("a")
	c := s.Conf().With(conf{"ipam": conf{}, "prevResult": prev("nic0")})
	before := p.Snapshot()
	result, err := p.Add(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.IPs) != 1 || *result.IPs[0].Interface != 0 || result.Interfaces[0].Name != "net1" ||
		result.DNS.Domain != "" {
		t.Errorf("result %s", p.Prev)
	}
	for _, want := range []string{
		"addr net1 10.9.0.2/24", "route4 table main 172.16.0.0/12 via 10.9.0.1 dev net1",
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
			t.Error(err)
		}
	}
	if diff := cmp.Diff(before, p.Snapshot()); diff != "" {
		t.Errorf("after DEL:\n%s", diff)
	}
	if calls := n.Calls(); calls != "" {
		t.Errorf("the IPAM plugin got %q", calls)
	}
}

func TestReadme(t *testing.T) { plugintest.Readme[ipvlan.Conf](t, plugin.New(ipvlan.Plugin{})) }

// vlanSuite is suite with a directory of VLAN links.
func vlanSuite(t *testing.T) (s plugintest.OnMaster, vlans string) {
	t.Helper()
	s, vlans = suite(t), t.TempDir()
	s.Ours["ipvlan"] = plugin.New(ipvlan.Plugin{VLANs: vlan.Links{Dir: vlans}})
	return s, vlans
}

func TestDelWithoutEachKey(t *testing.T) {
	s, vlans := vlanSuite(t)
	plugintest.OnMasterWithoutEachKey[ipvlan.Conf](t, s, vlans, conf{"mode": "l3"})
}

// R7, "vlan on macvlan and ipvlan".
func TestR7FailureOfEachStepLeavesNothing(t *testing.T) {
	s, vlans := vlanSuite(t)
	s.VLANEachStep(t, vlans)
}
