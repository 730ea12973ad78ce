package plugintest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/pkg/nettest"
)

// OnMaster are the tests that the plugins share whose interface is made on a master. Kind is the
// plugin's type.
type OnMaster struct {
	Kind string
	Ours Plugins
}

// Dual is a result of an IPAM plugin with addresses and routes of both families.
const Dual = `{"cniVersion":"1.0.0",` +
	`"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"},` +
	`{"address":"fd00::2/64","gateway":"fd00::1"}],` +
	`"routes":[{"dst":"172.16.0.0/12"},{"dst":"fd01::/64"},` +
	`{"dst":"172.32.0.0/12","gw":"10.1.0.9"}],` +
	`"dns":{"nameservers":["10.1.0.53"]}}`

// v4 is one that the reference does not wait for.
const v4 = `{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"}]}`

// Node returns a node with the link nic0, to be a master, and what is on the other end of its wire.
func (s OnMaster) Node(
	tb testing.TB, runner Runner, result string,
) (n *Node, wire *nettest.Namespace) {
	tb.Helper()
	n, wire = New(tb, runner), nettest.New(tb)
	n.Host.Veth("nic0", wire, "wire")
	n.IPAM("fixed", result)
	return n, wire
}

// Conf returns a configuration of the plugin on nic0 with the IPAM plugin of Node.
func (s OnMaster) Conf() Conf {
	return Conf{"type": s.Kind, "master": "nic0", "ipam": Conf{"type": "fixed"}}
}

// state returns all that the plugin could change.
func state(p *Pod) string {
	return p.Snapshot() + "node\n" + p.Node.Host.Snapshot() + p.Node.Leases()
}

// runners are ours and the reference's, by what a message calls them.
func (s OnMaster) runners() map[string]Runner {
	return map[string]Runner{"ours": s.Ours, "the reference": Reference{}}
}

// Twins compares what ADD and DEL leave, and the result, with the reference's. Not compared are
// accept_dad and what args says of the MAC.
func (s OnMaster) Twins(t *testing.T, result, args string, more Conf) {
	t.Helper()
	var twins [2][]string
	for i, runner := range []Runner{s.Ours, Reference{}} {
		n, _ := s.Node(t, runner, result)
		p := n.Pod("a")
		p.Args = args
		p.Veth("up0", nettest.New(t), "wire") // a master in the pod
		if _, err := p.Add(s.Conf().With(more)); err != nil {
			t.Fatal(err)
		}
		twins[i] = append(strings.Split(state(p)+printed(t, p), "\n"), sysctls(t, p)...)
		// The reference's does not find routes of other tables.
		if more["cniVersion"] == nil && i == 0 {
			if err := p.Check(s.Conf().With(more)); err != nil {
				t.Error(err)
			}
		}
		for range 2 {
			if err := p.Del(s.Conf().With(more)); err != nil {
				t.Error(err)
			}
		}
		twins[i] = append(append(twins[i], "after DEL"), strings.Split(state(p), "\n")...)
	}
	if diff := cmp.Diff(twins[1], twins[0]); diff != "" {
		t.Errorf("the reference - and ours +:\n%s", diff)
	}
}

// printed returns the result of the ADD, with its keys in order, and without what is the pod's own.
func printed(t *testing.T, p *Pod) string {
	t.Helper()
	var result any
	if err := json.Unmarshal(p.Prev, &result); err != nil {
		t.Fatal(err)
	}
	sorted, err := json.MarshalIndent(result, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	mac := p.Link("net1").Attrs().HardwareAddr.String()
	return strings.NewReplacer(p.NetNS, "NETNS", mac, "ITS MAC").Replace(string(sorted))
}

// sysctls returns those that the plugins set.
func sysctls(t *testing.T, p *Pod) []string {
	t.Helper()
	var lines []string
	err := p.Run(func() error {
		for _, key := range []string{
			"ipv4/conf/net1/arp_notify", "ipv6/conf/net1/ndisc_notify", "ipv6/conf/net1/disable_ipv6",
			"ipv6/conf/net1/keep_addr_on_down",
			"ipv6/conf/lo/disable_ipv6",
		} {
			value, err := os.ReadFile("/proc/sys/net/" + key)
			if err != nil {
				return err
			}
			lines = append(lines, key+" "+string(value))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// M15 tests that an ADD whose IPAM plugin fails leaves no link, and can be repeated; the reference
// leaves it.
func (s OnMaster) M15(t *testing.T) {
	for name, runner := range s.runners() {
		t.Run(name, func(t *testing.T) {
			fixed := name == "ours"
			n, _ := s.Node(t, runner, v4)
			p := n.Pod("a")
			before := state(p)
			n.FailIPAM(true)
			if _, err := p.Add(s.Conf()); Code(err) != 50 {
				t.Errorf("ADD: %v, want the code of the IPAM plugin", err)
			}
			if same := state(p) == before; same != fixed {
				t.Errorf("nothing is left: %v\n%s", same, state(p))
			}
			n.FailIPAM(false)
			if _, err := p.Add(s.Conf()); (err == nil) != fixed {
				t.Errorf("ADD again: %v", err)
			}
		})
	}
}

// M15Configure tests that an ADD whose addresses the link does not take leaves neither link nor
// lease; the reference leaves the link.
func (s OnMaster) M15Configure(t *testing.T) {
	twice := strings.Replace(v4, `"ips":[`, `"ips":[{"address":"10.1.0.2/24"},`, 1)
	for name, runner := range s.runners() {
		t.Run(name, func(t *testing.T) {
			fixed := name == "ours"
			n, _ := s.Node(t, runner, twice)
			p := n.Pod("a")
			before := state(p)
			if _, err := p.Add(s.Conf()); err == nil || !strings.Contains(err.Error(), "10.1.0.2") {
				t.Errorf("ADD: %v", err)
			}
			if same := state(p) == before; same != fixed {
				t.Errorf("nothing is left: %v\n%s", same, state(p))
			}
			n.IPAM("fixed", v4)
			if _, err := p.Add(s.Conf()); (err == nil) != fixed {
				t.Errorf("ADD again: %v", err)
			}
		})
	}
}

// EachStep tests that an ADD that fails at whatever step leaves nothing.
func (s OnMaster) EachStep(t *testing.T) {
	n, _ := s.Node(t, s.Ours, Dual)
	p := n.Pod("a")
	steps := p.FailEachStep(t, s.Conf().With(Conf{"mtu": 1400}), func() string { return state(p) })
	t.Log(steps, "steps")
	if err := p.Check(s.Conf()); err != nil {
		t.Error(err)
	}
}

// Names tests that a name that the pod has is an error and stays whose it is, and that one that the
// node has is none: kernels before 6.15 refuse it.
func (s OnMaster) Names(t *testing.T) {
	n, _ := s.Node(t, s.Ours, v4)
	n.Host.Veth("net1", nettest.New(t), "other")
	p := n.Pod("a")
	empty := state(p)
	p.FailEachStep(t, s.Conf(), func() string { return state(p) })
	added := state(p)
	if !strings.Contains(added, "link net1 "+s.Kind) {
		t.Errorf("after ADD:\n%s", added)
	}
	if _, err := p.Add(s.Conf()); err == nil {
		t.Error("a second ADD succeeds")
	}
	same(t, "after a second ADD", added, state(p))
	if err := p.Del(s.Conf()); err != nil {
		t.Error(err)
	}
	same(t, "after DEL", empty, state(p))
	long := n.Pod("b")
	long.IfName = "net1.with.dots1"
	if _, err := long.Add(s.Conf()); err != nil {
		t.Error(err)
	}
}

// Del tests that DEL works without a namespace and without the master, and twice.
func (s OnMaster) Del(t *testing.T) {
	for name, takeAway := range map[string]func(p *Pod) error{
		"no namespace":   func(p *Pod) error { p.NetNS = ""; return nil },
		"namespace gone": func(p *Pod) error { p.Unmount(); return nil },
		"namespace's file left": func(p *Pod) error {
			p.NetNS = filepath.Join(p.Node.Dir, "ns")
			return os.WriteFile(p.NetNS, nil, 0o600)
		},
		"master gone": func(p *Pod) error {
			return p.Node.Host.Netlink().LinkDel(p.Node.Host.Link("nic0"))
		},
		"link gone":     func(p *Pod) error { return p.Netlink().LinkDel(p.Link("net1")) },
		"no prevResult": func(p *Pod) error { p.Prev = nil; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := s.Node(t, s.Ours, v4)
			p := n.Pod("a")
			if _, err := p.Add(s.Conf()); err != nil {
				t.Fatal(err)
			}
			if err := takeAway(p); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := p.Del(s.Conf()); err != nil {
					t.Error(err)
				}
			}
			if left := n.Leases(); left != "" {
				t.Errorf("DEL left the lease of %s", left)
			}
			if name == "no prevResult" && p.HasLink("net1") {
				t.Error("DEL left the link")
			}
		})
	}
	s.delWithoutIPAM(t)
}

// delWithoutIPAM tests that an IPAM plugin that fails does not keep the link.
func (s OnMaster) delWithoutIPAM(t *testing.T) {
	t.Helper()
	n, _ := s.Node(t, s.Ours, v4)
	p := n.Pod("a")
	if _, err := p.Add(s.Conf()); err != nil {
		t.Fatal(err)
	}
	n.FailIPAM(true)
	wantError(t, "DEL with an IPAM plugin that fails", p.Del(s.Conf()))
	if p.HasLink("net1") {
		t.Error("DEL left the link")
	}
}

// OnMasterWithoutEachKey tests that DEL removes what ADD has made, whatever key of the
// configuration C has gone since. more are further keys of the plugin, vlans is the directory of
// VLAN links. The addresses are the IPAM plugin's: without the key ipam nobody knows which that is.
func OnMasterWithoutEachKey[C any](t *testing.T, s OnMaster, vlans string, more Conf) {
	t.Helper()
	nettest.NeedsLink(t, "vlan", s.Kind)
	all := s.Conf().With(Conf{
		"mtu": 1400, "enabledad": true, "linkInContainer": false, "dns": Conf{"domain": "x"},
	}).With(more)
	confs := []Conf{
		all.With(Conf{"vlan": 500}),
		all.With(Conf{"vlan": 500, "linkInContainer": true, "master": "up0"}),
	}
	WithoutEachKey[C](t, "", confs, func(t *testing.T, key string, add, del Conf) {
		n, _ := s.Node(t, s.Ours, v4)
		p := n.Pod("a")
		p.Veth("up0", nettest.New(t), "wire")
		before := state(p)
		if _, err := p.Add(add); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(state(p), " vlan ") {
			t.Errorf("no VLAN:\n%s", state(p))
		}
		p.Prev = nil
		if err := p.Del(del); err != nil {
			t.Error(err)
		}
		after := state(p)
		if key == "ipam" {
			after = strings.Replace(after, n.Leases(), "", 1)
		}
		same(t, "after DEL", before, after)
		if held, err := os.ReadDir(vlans); err != nil || len(held) > 0 {
			t.Errorf("holders of VLAN links are left: %v %v", held, err)
		}
	})
}

// VLANEachStep tests that an ADD with a VLAN that fails at whatever step leaves nothing; vlans is
// the directory of VLAN links.
func (s OnMaster) VLANEachStep(t *testing.T, vlans string) {
	t.Helper()
	nettest.NeedsLink(t, "vlan", s.Kind)
	n, _ := s.Node(t, s.Ours, Dual)
	p := n.Pod("a")
	c := s.Conf().With(Conf{"vlan": 500})
	steps := p.FailEachStep(t, c, func() string { return state(p) + holders(t, vlans) })
	t.Log(steps, "steps")
	if err := p.Check(c); err != nil {
		t.Error(err)
	}
	wantError(t, "CHECK with another VLAN", p.Check(c.With(Conf{"vlan": 501})), "501")
	wantError(t, "CHECK without the VLAN", p.Check(s.Conf()), "nic0")
	added := state(p) + holders(t, vlans)
	if _, err := p.Add(c); err == nil {
		t.Error("a second ADD succeeds")
	}
	same(t, "after a second ADD", added, state(p)+holders(t, vlans))
	// Somebody removes the link, and all that is on it.
	if err := n.Host.Netlink().LinkDel(n.Host.Link("nic0.500")); err != nil {
		t.Fatal(err)
	}
	wantError(t, "CHECK without the link", p.Check(c))
	if err := p.Del(c); err != nil || holders(t, vlans) != "" {
		t.Errorf("DEL without the link: %v, left %s", err, holders(t, vlans))
	}
}

// VLANConcurrent tests that attachments that come and go at the same time have the link as long as
// one of them is there.
func (s OnMaster) VLANConcurrent(t *testing.T, vlans string) {
	t.Helper()
	nettest.NeedsLink(t, "vlan", s.Kind)
	n, _ := s.Node(t, s.Ours, v4)
	before := n.Host.Snapshot()
	c := Conf{"type": s.Kind, "master": "nic0", "vlan": 500}
	var wait sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		p := n.Pod(fmt.Sprint("pod", i))
		wait.Go(func() {
			for range 3 {
				_, err := p.Add(c)
				errs[i] = errors.Join(errs[i], err, p.Check(c), p.Del(c))
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	same(t, "after the last DEL", before, n.Host.Snapshot()+holders(t, vlans))
}

// holders lists the holders of VLAN links.
func holders(t *testing.T, vlans string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(vlans, "*"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(vlans, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(append(files, more...), "\n")
}

// BadInput tests that a configuration that cannot work is an error that says so, and leaves
// nothing. more are the plugin's own cases.
func (s OnMaster) BadInput(t *testing.T, more map[string]Conf) {
	n, _ := s.Node(t, s.Ours, v4)
	p := n.Pod("a")
	before := state(p)
	cases := map[string]Conf{ // by what the error says: words that are separated by commas
		"mode,nonsense":          {"mode": "nonsense"},
		"mode,7":                 {"mode": 7},
		"mtu -1":                 {"mtu": -1},
		"mtu 1501,1500,nic0":     {"mtu": 1501},
		"mtu,1400,string":        {"mtu": "1400"},
		"master,nic9":            {"master": "nic9"},
		"master,default":         {"master": ""},
		"master,nic0,in the pod": {"linkInContainer": true},
		"linkInContainer,yes":    {"linkInContainer": "yes"},
		"enabledad,1":            {"enabledad": 1},
		"ipam.type,5":            {"ipam": Conf{"type": 5}},
		"absent":                 {"ipam": Conf{"type": "absent"}},
		"mastr":                  {"mastr": "nic0"},
	}
	maps.Copy(cases, more)
	for says, c := range cases {
		_, err := p.Add(s.Conf().With(c))
		words := strings.Split(strings.TrimSuffix(says, ",in the pod"), ",")
		wantError(t, fmt.Sprint(c), err, words...)
		if says != "absent" && says != "mastr" && Code(err) != types.ErrInvalidNetworkConfig {
			t.Errorf("%v: code %d: %v", c, Code(err), err)
		}
		same(t, fmt.Sprintf("after an ADD with %v", c), before, state(p))
	}
	for name, result := range map[string]string{
		"no address": `{"cniVersion":"1.0.0"}`, "not a result": `x`,
	} {
		n.IPAM("fixed", result)
		_, err := p.Add(s.Conf())
		wantError(t, "IPAM plugin that gives "+name, err, "fixed")
		same(t, "IPAM plugin that gives "+name, before, state(p))
	}
}

// Check tests that CHECK finds what is not as ADD left it. more are the plugin's own cases:
// configurations that do not fit.
func (s OnMaster) Check(t *testing.T, more map[string]Conf) {
	n, _ := s.Node(t, s.Ours, Dual)
	n.Host.Veth("nic1", nettest.New(t), "wire")
	p := n.Pod("a")
	if _, err := p.Add(s.Conf()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Check(s.Conf()), p.Check(s.Conf().With(Conf{"master": ""}))); err != nil {
		t.Fatal(err)
	}
	cases := map[string]Conf{"nic9": {"master": "nic9"}, "nic1": {"master": "nic1"}}
	maps.Copy(cases, more)
	for says, c := range cases {
		wantError(t, fmt.Sprintf("CHECK with %v", c), p.Check(s.Conf().With(c)), says)
	}
	s.checkResult(t, n, p)
	s.checkLink(t, p)
}

// checkResult tests that CHECK compares with prevResult and asks the IPAM plugin.
func (s OnMaster) checkResult(t *testing.T, n *Node, p *Pod) {
	t.Helper()
	prev := p.Prev
	for says, change := range map[string][2]string{
		"net1":        {`"net1"`, `"net2"`},
		"10.1.0.3/24": {"10.1.0.2/24", "10.1.0.3/24"},
		"fd03::/64":   {"fd01::/64", "fd03::/64"},
		"sandbox /x":  {p.NetNS, "/x"},
		"has MAC":     {p.Link("net1").Attrs().HardwareAddr.String(), "02:00:00:00:00:99"},
	} {
		p.Prev = json.RawMessage(strings.Replace(string(prev), change[0], change[1], 1))
		wantError(t, "CHECK with "+change[1]+" for "+change[0], p.Check(s.Conf()), says)
	}
	p.Prev = nil
	if err := p.Check(s.Conf()); Code(err) != types.ErrInvalidNetworkConfig {
		t.Errorf("CHECK without prevResult: %v", err)
	}
	p.Prev = prev
	n.FailIPAM(true)
	if err := p.Check(s.Conf()); Code(err) != 50 {
		t.Errorf("CHECK hides what the IPAM plugin says: %v", err)
	}
	n.FailIPAM(false)
}

// checkLink tests that CHECK looks at the link. It ends without the plugin's.
func (s OnMaster) checkLink(t *testing.T, p *Pod) {
	t.Helper()
	p.Down("net1")
	wantError(t, "CHECK of a link that is down", p.Check(s.Conf()), "down")
	if err := p.Netlink().LinkDel(p.Link("net1")); err != nil {
		t.Fatal(err)
	}
	wantError(t, "CHECK without the link", p.Check(s.Conf()), "net1")
	p.Veth("net1", nettest.New(t), "other")
	wantError(t, "CHECK of a veth", p.Check(s.Conf()), "veth")
}

// PassesOn tests that the IPAM plugin gets the network's GC and STATUS, and that its answer counts.
func (s OnMaster) PassesOn(t *testing.T) {
	n, _ := s.Node(t, s.Ours, v4)
	if err := errors.Join(n.GC(s.Conf()), n.Status(s.Conf())); err != nil {
		t.Error(err)
	}
	if got := n.Calls(); got != "GC STATUS" {
		t.Errorf("the IPAM plugin got %q", got)
	}
	n.FailIPAM(true)
	for command, err := range map[string]error{"GC": n.GC(s.Conf()), "STATUS": n.Status(s.Conf())} {
		if Code(err) != 50 {
			t.Errorf("%s: %v", command, err)
		}
	}
	none := Conf{"type": s.Kind, "master": "nic0"}
	if err := errors.Join(n.GC(none), n.Status(none)); err != nil {
		t.Errorf("without an IPAM plugin: %v", err)
	}
}

// tentative returns the addresses of the interface that the kernel still checks for duplicates.
func tentative(t *testing.T, p *Pod) (lines []string) {
	t.Helper()
	list, err := p.Netlink().AddrList(p.Link("net1"), 10) // AF_INET6
	if err != nil {
		t.Fatal(err)
	}
	const flag = 0x40 // IFA_F_TENTATIVE
	for _, a := range list {
		if a.Flags&flag != 0 {
			lines = append(lines, a.String())
		}
	}
	return lines
}

// DAD is the key enabledad: with true ADD waits until duplicates are ruled out, and fails if there
// is one; without, addresses can be used at once.
func (s OnMaster) DAD(t *testing.T) {
	v6 := `{"cniVersion":"1.0.0","ips":[{"address":"fd00::2/64"}]}`
	for _, detect := range []bool{false, true} {
		n, _ := s.Node(t, s.Ours, v6)
		p := n.Pod("a")
		if _, err := p.Add(s.Conf().With(Conf{"enabledad": detect})); err != nil {
			t.Fatal(err)
		}
		if left := tentative(t, p); len(left) > 0 {
			t.Errorf("enabledad %v: not checked when ADD is done: %v", detect, left)
		}
		accept := sysctl(t, p, "net/ipv6/conf/net1/accept_dad")
		if accept != map[bool]string{false: "0", true: "1"}[detect] {
			t.Errorf("enabledad %v: accept_dad is %s", detect, accept)
		}
	}
	n, wire := s.Node(t, s.Ours, v6)
	wire.Addr("wire", "fd00::2/64")
	p := n.Pod("a")
	before := state(p)
	_, err := p.Add(s.Conf().With(Conf{"enabledad": true}))
	wantError(t, "ADD with an address that is in use", err, "fd00::2")
	same(t, "after an ADD that failed", before, state(p))
	if _, err := p.Add(s.Conf()); err != nil {
		t.Errorf("ADD that does not look for duplicates: %v", err)
	}
}

func sysctl(t *testing.T, p *Pod, key string) string {
	t.Helper()
	var value []byte
	err := p.Run(func() (err error) {
		value, err = os.ReadFile("/proc/sys/" + key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(value))
}

// wantError fails the test unless err is an error whose text has all the words.
func wantError(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want one with %q", what, words)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want %q in it", what, err, word)
		}
	}
}

// same fails the test where a state is not what it was.
func same(t *testing.T, what, before, now string) {
	t.Helper()
	if diff := cmp.Diff(before, now); diff != "" {
		t.Errorf("%s: it was - and is +:\n%s", what, diff)
	}
}
