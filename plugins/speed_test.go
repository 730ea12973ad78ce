package plugins_test

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// BenchmarkSpeed is part of `make bench`: it prints what plugins cost in-process beside the
// reference's binaries, and beside the same netlink requests made by hand. BRAID_SPEED is the
// number of rounds.
func BenchmarkSpeed(b *testing.B) {
	rounds, err := strconv.Atoi(cmp.Or(os.Getenv("BRAID_SPEED"), "20"))
	if err != nil {
		b.Fatal(err)
	}
	s := &speed{t: b, rounds: rounds, times: map[string][]time.Duration{}}
	s.run()
	s.report()
}

type speed struct {
	t      testing.TB
	rounds int
	times  map[string][]time.Duration
}

// chainOf is what a case adds to a pod: attachments, each a chain.
type chainOf func(n *plugintest.Node) [][]plugintest.Conf

var cases = []struct {
	name  string
	chain chainOf
	// faster is the target of theirs/ours.
	faster float64
	// only is how many rounds the slow reference is given.
	only int
	// floor says that the same is made by hand too.
	floor bool
	// resident is the chain of a pod that is on the node all the time, as on most nodes.
	resident []plugintest.Conf
}{
	{"four macvlan + host-local", fourMacvlans, 5, 0, true, nil},
	{"macvlan + sbr + tuning", sbrChain, 5, 0, false, nil},
	{"portmap, two ports (reference: its default backend)", portmapChain, 20, 0, false, nil},
	{"bridge + ipMasq", func(*plugintest.Node) [][]plugintest.Conf {
		return [][]conf{masq("10.1.0.2/24")}
	}, 10, 0, false, masq("10.1.0.3/24")},
	{"macvlan, dual stack with gateways", dualStack, 50, 3, false, nil},
}

func static2(addresses ...any) conf { return conf{"type": "static", "addresses": addresses} }

func fourMacvlans(n *plugintest.Node) (all [][]plugintest.Conf) {
	for i := range 4 {
		all = append(all, []conf{{
			"type": "macvlan", "name": fmt.Sprintf("net%d", i), "master": "nic0",
			"ipam": conf{
				"type": "host-local", "dataDir": filepath.Join(n.Dir, "leases"),
				"subnet": fmt.Sprintf("10.%d.0.0/16", i),
			},
		}})
	}
	return all
}

func sbrChain(n *plugintest.Node) [][]plugintest.Conf {
	return [][]conf{{
		{
			"type": "macvlan", "master": "nic0",
			"ipam": static2(conf{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}),
		},
		{"type": "sbr"},
		{
			"type": "tuning", "dataDir": filepath.Join(n.Dir, "tuning"),
			"sysctl": conf{"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400,
		},
	}}
}

func portmapChain(*plugintest.Node) [][]plugintest.Conf {
	return [][]conf{{
		{"type": "bridge", "isGateway": true, "ipam": static2(conf{"address": "10.1.0.2/24"})},
		{"type": "portmap", "runtimeConfig": conf{"portMappings": list{
			conf{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
			conf{"hostPort": 8443, "containerPort": 443, "protocol": "tcp"},
		}}},
	}}
}

func masq(address string) []plugintest.Conf {
	return []conf{
		{"type": "bridge", "isGateway": true, "ipMasq": true, "ipam": static2(conf{"address": address})},
	}
}

func dualStack(*plugintest.Node) [][]plugintest.Conf {
	return [][]conf{{{"type": "macvlan", "master": "nic0", "ipam": static2(
		conf{"address": "10.1.0.2/24", "gateway": "10.1.0.1"},
		conf{"address": "fd00::2/64", "gateway": "fd00::1"})}}}
}

func (s *speed) run() {
	for _, c := range cases {
		for _, runner := range []plugintest.Runner{ours(), plugintest.Reference{}} {
			who, rounds := "ours ", s.rounds
			if _, exec := runner.(plugintest.Reference); exec {
				who = "theirs "
				if c.only > 0 {
					rounds = min(rounds, c.only)
				}
			}
			n := s.node(runner)
			for _, plugin := range c.resident {
				if _, err := n.Pod("resident").Call("ADD", plugin); err != nil {
					s.t.Fatal(c.name, plugin, err)
				}
			}
			for i := range rounds {
				s.attach(c.name, who, n, c.chain(n), i)
				if c.floor && who == "ours " { // in turns: a machine is not equally fast all the time
					s.floor(n)
				}
			}
		}
	}
	for _, leases := range []int{0, 60000} {
		s.leases(leases)
	}
}

func (s *speed) node(runner plugintest.Runner) *plugintest.Node {
	n := plugintest.New(s.t, runner)
	n.Host.Veth("nic0", nettest.New(s.t), "wire")
	return n
}

// attach times the ADDs of a pod. The last plugin of a portmap chain alone counts: the bridge is a
// case of its own.
func (s *speed) attach(
	name, who string, n *plugintest.Node, attachments [][]plugintest.Conf, i int,
) {
	p := n.Pod(fmt.Sprintf("c%d", i))
	defer p.Unmount()
	node, done := n.Operation()
	defer done()
	var spent time.Duration
	var prevs []*plugintest.Pod
	for j, chain := range attachments {
		at := *p
		at.Node = node
		at.IfName = fmt.Sprintf("net%d", j)
		for k, c := range chain {
			if at.Prev != nil {
				c = c.With(conf{"prevResult": at.Prev})
			}
			start := time.Now()
			out, err := at.Call("ADD", c)
			if chain[len(chain)-1]["type"] != "portmap" || k == len(chain)-1 {
				spent += time.Since(start)
			}
			if err != nil {
				s.t.Fatal(name, c, err)
			}
			at.Prev = out
		}
		prevs = append(prevs, &at)
	}
	s.note(who+name, spent)
	for j, chain := range attachments {
		for _, c := range slices.Backward(chain) {
			if err := prevs[j].Del(c); err != nil {
				s.t.Fatal(name, c, err)
			}
		}
	}
}

func (s *speed) note(name string, d time.Duration) { s.times[name] = append(s.times[name], d) }

// floor makes by hand what the four macvlan networks need of the kernel: a link, its address, up.
func (s *speed) floor(n *plugintest.Node) {
	p := n.Pod("floor")
	defer p.Unmount()
	ns, err := netns.Open(p.Path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer ns.Close()
	master := n.Host.Link("nic0").Attrs().Index
	start := time.Now()
	for i := range 4 {
		a := netlink.NewLinkAttrs()
		a.Name, a.ParentIndex, a.Namespace = fmt.Sprintf("net%d", i), master, netlink.NsFd(ns.Fd())
		err := n.Host.Netlink().LinkAdd(&netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE})
		if err != nil {
			s.t.Fatal(err)
		}
		link, err := p.Netlink().LinkByName(a.Name)
		if err != nil {
			s.t.Fatal(err)
		}
		addr := &netlink.Addr{
			IPNet: &net.IPNet{IP: net.IPv4(10, byte(i), 0, 2), Mask: net.CIDRMask(16, 32)},
		}
		if err := p.Netlink().AddrAdd(link, addr); err != nil {
			s.t.Fatal(err)
		}
		if err := p.Netlink().LinkSetUp(link); err != nil {
			s.t.Fatal(err)
		}
	}
	s.note("floor", time.Since(start))
	for i := range 4 {
		if err := p.Netlink().LinkDel(p.Link(fmt.Sprintf("net%d", i))); err != nil {
			s.t.Fatal(err)
		}
	}
}

// leases times host-local by itself where so many addresses are taken.
func (s *speed) leases(taken int) {
	n := s.node(ours())
	c := conf{
		"type": "host-local", "name": "big",
		"ipam": conf{"type": "host-local", "dataDir": n.Dir, "subnet": "10.0.0.0/8"},
	}
	dir := filepath.Join(n.Dir, "big")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	addr := netip.MustParseAddr("10.0.0.2")
	for i := range taken {
		err := os.WriteFile(filepath.Join(dir, addr.String()),
			fmt.Appendf(nil, "other-%d\r\neth0", i), 0o600)
		if err != nil {
			s.t.Fatal(err)
		}
		addr = addr.Next()
	}
	if taken > 0 {
		err := os.WriteFile(filepath.Join(dir, "last_reserved_ip.0"), []byte(addr.Prev().String()), 0o600)
		if err != nil {
			s.t.Fatal(err)
		}
	}
	for i := range s.rounds*10 + 1 {
		p := &plugintest.Pod{Node: n, ID: fmt.Sprintf("c%d", i), IfName: "eth0"}
		start := time.Now()
		if _, err := p.Add(c); err != nil {
			s.t.Fatal(err)
		}
		if i > 0 { // the first one looks at what others left
			s.note(fmt.Sprintf("leases %d", taken), time.Since(start))
		}
		start = time.Now()
		if err := p.Del(c); err != nil {
			s.t.Fatal(err)
		}
		s.note(fmt.Sprintf("leases DEL %d", taken), time.Since(start))
	}
}

func (s *speed) median(name string) float64 {
	times := slices.Sorted(slices.Values(s.times[name]))
	if len(times) == 0 {
		return 0
	}
	return float64(times[len(times)/2]) / float64(time.Millisecond)
}

func (s *speed) report() {
	fmt.Printf("\nPlugins in-process beside the reference's binaries: ADD, %d rounds, medians in "+
		"ms.\n\n", s.rounds)
	fmt.Printf("%-52s %10s %10s %8s  %s\n", "", "in-process", "reference", "faster", "target")
	for _, c := range cases {
		ours, theirs := s.median("ours "+c.name), s.median("theirs "+c.name)
		fmt.Printf("%-52s %10.2f %10.2f %7.1fx  %3.0fx  %s\n",
			c.name, ours, theirs, theirs/ours, c.faster, verdict(theirs/ours >= c.faster))
	}
	floor, four := s.median("floor"), s.median("ours "+cases[0].name)
	fmt.Printf("\n%-52s %10.2f %28s\n", "the same four links by hand over netlink", floor, "")
	fmt.Printf("%-52s %9.1fx %19s  at most 3x  %s\n",
		"four macvlan + host-local, of that", four/floor, "", verdict(four/floor <= 3))
	few, many := s.median("leases 0"), s.median("leases 60000")
	fmt.Printf("%-52s %10.3f %10.3f %7.2fx  at most 1.5x  %s\n",
		"host-local ADD with 0 and with 60,000 leases", few, many, many/few, verdict(many/few <= 1.5))
	few, many = s.median("leases DEL 0"), s.median("leases DEL 60000")
	fmt.Printf("%-52s %10.3f %10.3f %7.2fx  at most 1.5x  %s\n",
		"host-local DEL with 0 and with 60,000 leases", few, many, many/few, verdict(many/few <= 1.5))
}

func verdict(reached bool) string {
	if reached {
		return "reached"
	}
	return "MISSED"
}
