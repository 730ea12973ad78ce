package bridge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin/link"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

func TestAddCheckDel(t *testing.T) {
	n := node(t)
	c := conf{
		"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "mtu": 1400, "hairpinMode": true,
		"ipMasq": true, "macspoofchk": true,
		"ipam": ipam("10.1.0.2/24", "fd00::2/64"),
	}
	p := n.Pod("a")
	before := p.Snapshot()
	result := add(t, p, c)
	if len(result.IPs) != 2 || len(result.Interfaces) != 3 || *result.IPs[0].Interface != 2 ||
		*result.IPs[1].Interface != 2 {
		t.Fatalf("result %s", p.Prev)
	}
	br, port, pod := result.Interfaces[0], result.Interfaces[1], result.Interfaces[2]
	if br.Name != "br0" || br.Sandbox != "" || br.Mac != n.Host.Link("br0").Attrs().
		HardwareAddr.String() {
		t.Errorf("bridge %+v", br)
	}
	if len(port.Name) != 12 || !strings.HasPrefix(port.Name, "veth") ||
		port.Mac != n.Host.Link(port.Name).Attrs().HardwareAddr.String() {
		t.Errorf("port %+v", port)
	}
	if pod.Name != "net1" || pod.Sandbox != p.NetNS || pod.Mac != p.Link("net1").Attrs().
		HardwareAddr.String() {
		t.Errorf("pod's interface %+v", pod)
	}
	if operational := n.Host.Link(port.Name).Attrs().OperState; operational != netlink.OperUp {
		t.Errorf("the port is %v", operational)
	}
	if group := p.Link("net1").Attrs().Group; group != link.Group {
		t.Errorf("group %#x", group)
	}
	has(t, p.Namespace,
		"link net1 veth mtu 1400 up", "addr net1 10.1.0.2/24", "addr net1 fd00::2/64",
		"route4 table main default via 10.1.0.1 dev net1",
		"route6 table main default via fd00::1 dev net1 metric 1024",
	)
	has(t, n.Host,
		"link br0 bridge mtu 1400 up", "link "+port.Name+" veth mtu 1400 master br0 up promisc",
		"addr br0 10.1.0.1/24", "addr br0 fd00::1/64",
	)
	made := rules(t, n.Host)
	for _, want := range []string{
		"ip saddr 10.1.0.2 ip daddr != 10.1.0.0/24 masquerade",
		"ip6 saddr fd00::2 ip6 daddr != fd00::/64 masquerade",
		`iifname "` + port.Name + `" ether saddr != ` + pod.Mac + " drop",
	} {
		if !strings.Contains(made, want) {
			t.Errorf("lacks %q:\n%s", want, made)
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
		got := state(t, n)
		if strings.Contains(got, "veth") || strings.Contains(got, "table inet") ||
			strings.Contains(got, "table bridge") {
			t.Errorf("after DEL:\n%s", got)
		}
	}
}

// outcome is what an ADD prints and leaves, but for what is chosen at random.
type outcome struct{ Result, Pod, Node string }

func outcomeOf(t *testing.T, runner plugintest.Runner, c conf) outcome {
	t.Helper()
	n := plugintest.New(t, runner)
	p := n.Pod("a")
	out, err := p.Call("ADD", c)
	if err != nil {
		t.Fatal(err)
	}
	var short bytes.Buffer
	out = bytes.ReplaceAll(out, []byte(p.NetNS), []byte("NETNS"))
	if err := json.Compact(&short, out); err != nil {
		t.Fatal(err)
	}
	mac := regexp.MustCompile(`"mac":"[0-9a-f:]+"`)
	veth := regexp.MustCompile(`veth[0-9a-f]{8}`)
	// The kernel adds these in its own time.
	late := regexp.MustCompile(`route6 table local .*\n`)
	return outcome{
		Result: veth.ReplaceAllString(mac.ReplaceAllString(short.String(), `"mac":"MAC"`), "VETH"),
		Pod:    late.ReplaceAllString(p.Snapshot(), ""),
		Node:   late.ReplaceAllString(veth.ReplaceAllString(n.Host.Snapshot(), "VETH"), ""),
	}
}

// static is an IPAM plugin that assigns these addresses.
func static(more conf, addresses ...string) conf {
	return conf{"type": "static", "addresses": ipam(addresses...)["ips"]}.With(more)
}

var (
	dns      = conf{"dns": conf{"nameservers": []string{"10.1.0.53"}}}
	default4 = conf{"routes": []conf{{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}}}
	routes   = conf{
		"routes": []conf{{"dst": "172.16.0.0/12"}, {"dst": "172.20.0.0/16", "gw": "10.1.0.7"}},
	}
)

// sameResults are configurations for which ours and the reference print and leave the same.
var sameResults = map[string]conf{
	"without IPAM": dns,
	"disabled":     {"disableContainerInterface": true},
	"addresses":    {"ipam": static(nil, "10.1.0.2/24", "fd00::2/64")},
	"gateways of IPAM": {
		"ipam":      static(nil, "10.1.0.2/24 via 10.1.0.254", "fd00::2/64 via fd00::fe"),
		"isGateway": true,
	},
	"gateways added": {"ipam": static(nil, "10.1.0.2/24", "fd00::2/64"), "isGateway": true},
	"default gateways": {
		"ipam":             static(nil, "10.1.0.2/24", "fd00::2/64"),
		"isDefaultGateway": true,
	},
	"default route there": {"ipam": static(default4, "10.1.0.2/24"), "isDefaultGateway": true},
	"routes":              {"ipam": static(routes, "10.1.0.2/24 via 10.1.0.1")},
	"DNS of IPAM":         {"ipam": static(dns, "10.1.0.2/24")},
	"DNS of both":         {"ipam": static(dns, "10.1.0.2/24"), "dns": conf{"domain": "example.org"}},
	"MAC":                 {"args": conf{"cni": conf{"mac": "02:00:00:00:00:01"}}},
	"old version": {
		"cniVersion": "0.4.0", "ipam": static(nil, "10.1.0.2/24"),
		"isGateway": true,
	},
	"very old version": {
		"cniVersion": "0.2.0", "ipam": static(nil, "10.1.0.2/24"),
		"isGateway": true,
	},
}

func TestResultIsTheReferences(t *testing.T) {
	t.Parallel()
	for name, c := range sameResults {
		t.Run(name, func(t *testing.T) {
			c = conf{"type": "bridge", "bridge": "br0"}.With(c)
			theirs := outcomeOf(t, plugintest.Reference{}, c)
			if diff := cmp.Diff(theirs, outcomeOf(t, ours(), c)); diff != "" {
				t.Errorf("-theirs +ours:\n%s", diff)
			}
		})
	}
}

func TestMACIsTheLastAskedFor(t *testing.T) {
	n := node(t)
	c := conf{"type": "bridge", "bridge": "br0", "macspoofchk": true}
	for i, more := range []conf{
		{},
		{"args": conf{"cni": conf{"mac": "02:00:00:00:00:02"}}},
		{
			"args":          conf{"cni": conf{"mac": "02:00:00:00:00:02"}},
			"runtimeConfig": conf{"mac": "02:00:00:00:00:03"},
		},
	} {
		p := n.Pod(fmt.Sprint(i))
		p.Args = "IgnoreUnknown=1;MAC=02:00:00:00:00:01"
		result := add(t, p, c.With(more))
		want := fmt.Sprintf("02:00:00:00:00:0%d", i+1)
		got := p.Link("net1").Attrs().HardwareAddr.String()
		if got != want || result.Interfaces[2].Mac != want {
			t.Errorf("MAC %s, in the result %s, want %s", got, result.Interfaces[2].Mac, want)
		}
		if !strings.Contains(rules(t, n.Host), "ether saddr != "+want+" drop") {
			t.Error("the spoof check does not know the MAC")
		}
	}
}

func TestWithoutIPAM(t *testing.T) {
	for _, disabled := range []bool{false, true} {
		t.Run(fmt.Sprint("disabled ", disabled), func(t *testing.T) {
			n := node(t)
			c := conf{
				"type": "bridge", "disableContainerInterface": disabled, "isGateway": true, "ipMasq": true,
			}
			p := n.Pod("a")
			if result := add(t, p, c); len(result.Interfaces) != 3 || len(result.IPs) != 0 {
				t.Errorf("result %s", p.Prev)
			}
			up := "link net1 veth mtu 1500 up\n"
			if got := strings.Contains(p.Snapshot(), up); got == disabled {
				t.Errorf("disabled %t:\n%s", disabled, p.Snapshot())
			}
			if err := p.Check(c); err != nil {
				t.Error(err)
			}
			if err := p.Del(c); err != nil {
				t.Error(err)
			}
		})
	}
	// The reference asks an IPAM plugin "" on CHECK.
	t.Run("reference", func(t *testing.T) {
		p := plugintest.New(t, plugintest.Reference{}).Pod("a")
		c := conf{"type": "bridge"}
		add(t, p, c)
		if err := p.Check(c); err == nil {
			t.Error("the reference's CHECK works without IPAM by now")
		}
	})
}

func TestPortAndBridgeModes(t *testing.T) {
	n := node(t)
	for i, want := range []struct{ hairpin, isolated, promisc bool }{
		{}, {hairpin: true}, {isolated: true}, {hairpin: true, isolated: true}, {promisc: true},
	} {
		c := conf{
			"type": "bridge", "bridge": fmt.Sprintf("br%d", i),
			"hairpinMode": want.hairpin, "portIsolation": want.isolated, "promiscMode": want.promisc,
		}
		p := n.Pod("a")
		add(t, p, c)
		info, err := n.Host.Netlink().LinkGetProtinfo(hostLink(t, p))
		promisc := n.Host.Link(c["bridge"].(string)).Attrs().Promisc != 0
		if err != nil || info.Hairpin != want.hairpin || info.Isolated != want.isolated ||
			promisc != want.promisc {
			t.Errorf("%+v: port %+v, bridge promisc %t, %v", want, info, promisc, err)
		}
		if err := p.Check(c); err != nil {
			t.Error(err)
		}
	}
}

func TestVLANsOfThePort(t *testing.T) {
	t.Parallel()
	nettest.NeedsLink(t, "bridge-vlan")
	n := node(t)
	const tagged, untagged = "", " pvid untagged"
	for i, test := range []struct {
		conf conf
		want []string
	}{
		{conf{"vlan": 100}, []string{"100" + untagged}},
		{conf{"vlan": 1}, []string{"1" + untagged}},
		{conf{"vlan": 4094, "preserveDefaultVlan": true}, []string{"1 untagged", "4094" + untagged}},
		{conf{
			"vlanTrunk": []conf{{"minID": 5, "maxID": 7}, {"id": 9}, {"minID": 7, "maxID": 8, "id": 20}},
		}, []string{
			"1" + untagged, "5" + tagged, "6" + tagged, "7" + tagged, "8" + tagged, "9" + tagged,
			"20" + tagged,
		}},
		{
			conf{"vlan": 100, "vlanTrunk": []conf{{"id": 101}, {"id": 4094}}},
			[]string{"100" + untagged, "101" + tagged, "4094" + tagged},
		},
		{conf{"vlan": 100, "vlanTrunk": []conf{{"id": 100}}}, []string{"100" + tagged}},
		{conf{"vlanTrunk": []conf{}}, []string{"1" + untagged}},
	} {
		// The reference's port is the same.
		for _, runner := range []plugintest.Runner{ours(), plugintest.Reference{}} {
			n := plugintest.New(t, runner)
			c := conf{"type": "bridge", "bridge": fmt.Sprintf("br%d", i)}.With(test.conf)
			p := n.Pod("a")
			add(t, p, c)
			if got := portVLANs(t, n.Host, hostLink(t, p)); !slices.Equal(got, test.want) {
				t.Errorf("%s by %T: VLANs %q, want %q", text(t, test.conf), runner, got, test.want)
			}
			if _, ok := runner.(plugintest.Plugins); !ok {
				continue
			}
			if err := p.Check(c); err != nil {
				t.Errorf("%s: %v", text(t, test.conf), err)
			}
		}
	}
	// A trunk of everything.
	p := n.Pod("a")
	c := conf{"type": "bridge", "vlanTrunk": []conf{{"minID": 1, "maxID": 4094}}}
	add(t, p, c)
	if got := portVLANs(t, n.Host, hostLink(t, p)); len(got) != 4094 || got[0] != "1"+untagged {
		t.Errorf("%d VLANs, the first %q", len(got), got[0])
	}
	if err := p.Check(c); err != nil {
		t.Error(err)
	}
}

func portVLANs(t *testing.T, n *nettest.Namespace, port netlink.Link) []string {
	t.Helper()
	all, err := n.Netlink().BridgeVlanList()
	if err != nil {
		t.Fatal(err)
	}
	var vlans []string
	for _, v := range all[int32(port.Attrs().Index)] {
		s := fmt.Sprint(v.Vid)
		if v.PortVID() {
			s += " pvid"
		}
		if v.EngressUntag() {
			s += " untagged"
		}
		vlans = append(vlans, s)
	}
	return vlans
}

// A bridge that others have made is used as it is, up or not, and its MAC stays where pods have it
// as their gateway's.
func TestExistingBridge(t *testing.T) {
	n := node(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	n.Host.Add(&netlink.Bridge{LinkAttrs: attrs})
	c := conf{"type": "bridge", "bridge": "br0", "isGateway": true, "ipam": ipam("10.1.0.2/24")}
	mac := n.Host.Link("br0").Attrs().HardwareAddr.String()
	for i := range 8 {
		result := add(t, n.Pod(fmt.Sprintf("+%d", i)), c)
		got := n.Host.Link("br0").Attrs().HardwareAddr.String()
		if got != mac || result.Interfaces[0].Mac != mac {
			t.Fatalf("the bridge has MAC %s, in the result %s, after %d pods; it had %s",
				got, result.Interfaces[0].Mac, i+1, mac)
		}
	}
	has(t, n.Host, "link br0 bridge mtu 1500 up")
}

// The MAC of a gateway's bridge is its own before it has a port.
func TestGatewaysMACIsFixedFromTheStart(t *testing.T) {
	n := node(t)
	p := n.Pod("a")
	_, err := p.Add(conf{
		"type": "bridge", "bridge": "br0", "isGateway": true, "ipam": ipam().With(conf{"fail": "ADD"}),
	})
	if err == nil {
		t.Fatal("ADD does not fail")
	}
	mac := n.Host.Link("br0").Attrs().HardwareAddr.String()
	n.Host.Veth("nic0", nettest.New(t), "wire")
	err = n.Host.Netlink().LinkSetHardwareAddr(n.Host.Link("nic0"), []byte{0, 0, 0, 0, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	n.Host.Master("nic0", "br0")
	if got := n.Host.Link("br0").Attrs().HardwareAddr.String(); got != mac {
		t.Errorf("the bridge has MAC %s, it had %s", got, mac)
	}
}

// Many first pods of a node, all at a time.
func TestConcurrentFirstAdds(t *testing.T) {
	t.Parallel()
	n := node(t)
	c := everything()
	pods := make([]*plugintest.Pod, 16)
	results := make([]*types100.Result, len(pods))
	for i := range pods {
		pods[i] = n.Pod(fmt.Sprintf("+%d", i))
	}
	each := func(do func(i int) error) {
		t.Helper()
		var wait sync.WaitGroup
		errs := make([]error, len(pods))
		for i := range pods {
			wait.Go(func() { errs[i] = do(i) })
		}
		wait.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	each(func(i int) (err error) {
		results[i], err = pods[i].Add(c)
		return err
	})
	for _, r := range results {
		got, want := r.Interfaces[0].Mac, n.Host.Link("br0").Attrs().HardwareAddr.String()
		if got != want {
			t.Errorf("a result has the bridge with MAC %s; it has %s", got, want)
		}
	}
	each(func(i int) error { return pods[i].Check(c) })
	each(func(i int) error { return pods[i].Del(c) })
	got := state(t, n)
	if strings.Contains(got, "veth") ||
		strings.Contains(got, "table ") && strings.Contains(got, "attachments") {
		t.Errorf("left:\n%s", got)
	}
}

func TestConcurrentFirstAddsInAVLAN(t *testing.T) {
	nettest.NeedsLink(t, "bridge-vlan")
	n := node(t)
	c := conf{
		"type": "bridge", "bridge": "br0", "vlan": 100, "isGateway": true, "ipam": ipam("10.1.0.2/24"),
	}
	pods := make([]*plugintest.Pod, 8)
	for i := range pods {
		pods[i] = n.Pod(fmt.Sprintf("+%d", i))
	}
	var wait sync.WaitGroup
	errs := make([]error, len(pods))
	for i, p := range pods {
		wait.Go(func() { _, errs[i] = p.Add(c) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		if err := p.Check(c); err != nil {
			t.Error(err)
		}
	}
	has(t, n.Host, "addr br0.100 10.1.0.1/24")
	peer, err := n.Host.Netlink().LinkByIndex(n.Host.Link("br0.100").Attrs().ParentIndex)
	if err != nil {
		t.Fatal(err)
	}
	if got := portVLANs(t, n.Host, peer); !slices.Equal(got, []string{"100 pvid untagged"}) {
		t.Errorf("the gateway's port is in VLANs %q", got)
	}
}

func TestGatewayAddresses(t *testing.T) {
	t.Parallel()
	n := node(t)
	c := conf{"type": "bridge", "bridge": "br0", "isGateway": true}
	first := n.Pod("a")
	add(t, first, c.With(conf{"ipam": ipam("10.1.0.2/24", "fd00::2/64")}))
	for _, same := range []string{
		"10.1.0.3/24", "10.1.0.4/24 via 10.1.0.1", "fd00::3/64", "fd01::2/64",
	} {
		add(t, n.Pod(same), c.With(conf{"ipam": ipam(same)}))
	}
	has(t, n.Host, "addr br0 10.1.0.1/24", "addr br0 fd00::1/64", "addr br0 fd01::1/64")
	awaitRoutes(t, n.Host, "fd00::", "fd01::")
	for _, other := range []string{
		"10.2.0.2/24", "10.1.0.5/16", "10.1.0.6/24 via 10.1.0.254", "fd00::9/64 via fd00::8",
		"fd00::1:0:0:0:9/60",
	} {
		before := state(t, n)
		p := n.Pod(other)
		empty := p.Snapshot()
		_, err := p.Add(c.With(conf{"ipam": ipam(other)}))
		if err == nil || !strings.Contains(err.Error(), "br0") ||
			!strings.Contains(err.Error(), "forceAddress") {
			t.Errorf("%s: %v", other, err)
		}
		if state(t, n) != before || p.Snapshot() != empty {
			t.Errorf("%s: left:\n%s%s", other, state(t, n), p.Snapshot())
		}
	}
	forced := n.Pod("b")
	c = c.With(conf{"forceAddress": true, "ipam": ipam("10.2.0.2/24", "fd00::9/60 via fd00::8")})
	add(t, forced, c)
	has(t, n.Host, "addr br0 10.2.0.1/24", "addr br0 fd00::8/60", "addr br0 fd01::1/64")
	got := n.Host.Addrs()
	if strings.Contains(got, "10.1.0.1") || strings.Contains(got, "fd00::1/64") {
		t.Errorf("not replaced:\n%s", got)
	}
	if err := forced.Check(c); err != nil {
		t.Error(err)
	}
	both := n.Pod("c")
	c = c.With(conf{"ipam": ipam("10.3.0.2/24", "10.4.0.2/24", "fd03::2/64", "fd03::1:2/120")})
	add(t, both, c)
	has(t, n.Host, "addr br0 10.3.0.1/24", "addr br0 10.4.0.1/24", "addr br0 fd03::1/64",
		"addr br0 fd03::1:1/120")
	if err := both.Check(c); err != nil {
		t.Error(err)
	}
	err := first.Check(conf{
		"type": "bridge", "bridge": "br0", "isGateway": true, "ipam": ipam("10.1.0.2/24", "fd00::2/64"),
	})
	if err == nil {
		t.Error("CHECK does not see that the gateway's address is gone")
	}
}

// The node forwards packets of the families that have a gateway, and single interfaces keep what
// they were told.
func TestForwarding(t *testing.T) {
	n := node(t)
	forwards := func() string {
		return read(t, n.Host, "ipv4/ip_forward") + read(t, n.Host, "ipv6/conf/all/forwarding")
	}
	n.Host.Bridge("other")
	c := conf{"type": "bridge", "bridge": "br0"}
	for _, step := range []struct {
		id, want string
		conf     conf
	}{
		{"+1", "00", conf{"ipam": ipam("10.1.0.2/24", "fd00::2/64")}},
		{"+2", "10", conf{"isGateway": true, "ipam": ipam("10.1.0.2/24")}},
		{"+3", "11", conf{"isGateway": true, "ipam": ipam("fd00::2/64")}},
	} {
		add(t, n.Pod(step.id), c.With(step.conf))
		if got := forwards(); got != step.want {
			t.Errorf("ip_forward and forwarding are %s after %s, want %s",
				got, text(t, step.conf), step.want)
		}
	}
	write(t, n.Host, "ipv6/conf/other/forwarding", "0")
	write(t, n.Host, "ipv4/conf/other/forwarding", "0")
	add(t, n.Pod("+4"), c.With(conf{"isGateway": true, "ipam": ipam("10.1.0.2/24", "fd00::2/64")}))
	got := read(t, n.Host, "ipv6/conf/other/forwarding") + read(t, n.Host,
		"ipv4/conf/other/forwarding")
	if got != "00" {
		t.Errorf("an interface that does not forward was made to: %s", got)
	}
}

// A default route of IPAM without a gateway is the one that isDefaultGateway asks for; the
// reference adds it twice, and fails.
func TestDefaultRouteOfIPAM(t *testing.T) {
	routes := conf{"routes": []conf{{"dst": "0.0.0.0/0"}, {"dst": "::/0"}}}
	c := conf{"type": "bridge", "isDefaultGateway": true}
	p := node(t).Pod("a")
	result := add(t, p, c.With(conf{"ipam": ipam("10.1.0.2/24", "fd00::2/64").With(routes)}))
	if len(result.Routes) != 2 {
		t.Errorf("result %s", p.Prev)
	}
	has(t, p.Namespace, "route4 table main default via 10.1.0.1 dev net1",
		"route6 table main default via fd00::1 dev net1 metric 1024")

	p = plugintest.New(t, plugintest.Reference{}).Pod("a")
	_, err := p.Add(c.With(conf{
		"ipam": conf{"type": "static", "addresses": []conf{{"address": "10.1.0.2/24"}}}.With(routes),
	}))
	if err == nil {
		t.Error("the reference does not fail any more")
	}
}

func TestDuplicateAddressDetection(t *testing.T) {
	t.Parallel()
	n := node(t)
	c := conf{"type": "bridge", "enabledad": true, "ipam": ipam("fd00::2/64")}
	p := n.Pod("+0")
	add(t, p, c)
	addrs, err := p.Netlink().AddrList(p.Link("net1"), netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	const tentative = 0x40
	for _, a := range addrs {
		if a.Flags&tentative != 0 && !a.IP.IsLinkLocalUnicast() {
			t.Errorf("%s is not checked yet", a.IP)
		}
	}
	twin := n.Pod("+0")
	if _, err := twin.Add(c); err == nil || !strings.Contains(err.Error(), "fd00::2") {
		t.Errorf("a second owner of the address: %v", err)
	}
	if twin.HasLink("net1") {
		t.Error("net1 is left")
	}
}

func TestNotificationOfNeighbours(t *testing.T) {
	p := node(t).Pod("a")
	add(t, p, conf{"type": "bridge", "ipam": ipam("10.1.0.2/24", "fd00::2/64")})
	if got := read(t, p.Namespace, "ipv4/conf/net1/arp_notify"); got != "1" {
		t.Errorf("arp_notify is %s", got)
	}
	if got := read(t, p.Namespace, "ipv6/conf/net1/accept_dad"); got != "0" {
		t.Errorf("accept_dad is %s", got)
	}
}
