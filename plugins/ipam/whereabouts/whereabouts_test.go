package whereabouts_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/ipam/whereabouts"
)

func TestReadme(t *testing.T) {
	plugintest.Readme[whereabouts.Conf](t, plugin.NewIPAM(whereabouts.Plugin{}))
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestAddCheckDel(t *testing.T) {
	w := newWorld(t)
	p := w.pod("a")
	c := with(conf{
		"range": "10.0.0.17/24", "range_start": "10.0.0.7", "range_end": "10.0.0.8",
		"exclude": list{"10.0.0.7"}, "gateway": "10.0.0.254",
		"ipRanges": list{conf{"range": "fd00::5-fd00::5/64"}},
		"routes": list{
			conf{"dst": "172.31.0.0/16"}, conf{"dst": "172.30.0.0/16", "gw": "10.0.0.9", "mtu": 1400},
		},
		"addresses": list{
			conf{"address": "10.9.0.1/24", "gateway": "10.9.0.254"}, conf{"address": "fd09::1/64"},
		},
		"dns": conf{"nameservers": list{"10.0.0.53"}, "search": list{"a.example"}},
	})
	_, err := p.Add(c)
	must(t, err)
	var got any
	must(t, json.Unmarshal(p.Prev, &got))
	text, err := json.Marshal(got)
	must(t, err)
	same(t, "result", string(text),
		`{"cniVersion":"1.1.0","dns":{"nameservers":["10.0.0.53"],"search":["a.example"]},`+
			`"ips":[{"address":"10.0.0.8/24","gateway":"10.0.0.254"},{"address":"fd00::5/64"},`+
			`{"address":"10.9.0.1/24","gateway":"10.9.0.254"},{"address":"fd09::1/64"}],`+
			`"routes":[{"dst":"172.31.0.0/16"},{"dst":"172.30.0.0/16","gw":"10.0.0.9","mtu":1400}]}`)
	must(t, p.Check(c))
	for range 2 {
		must(t, p.Del(c))
		same(t, "state", w.state(), "")
		if err := p.Check(c); err == nil || !strings.Contains(err.Error(), "holds no address") {
			t.Errorf("CHECK after DEL: %v", err)
		}
	}
}

// An ADD that is repeated returns the same.
func TestAddAgain(t *testing.T) {
	w := newWorld(t)
	c := with(conf{"range": "10.0.0.0/24", "ipRanges": list{conf{"range": "fd00::/64"}}})
	p := w.pod("a")
	first := add(t, p, c)
	same(t, "again", add(t, p, c), first)
	must(t, p.Del(c))
	same(t, "state", w.state(), "")
}

func TestCheckFindsOtherAddress(t *testing.T) {
	w := newWorld(t)
	c := with(conf{"range": "10.0.0.0/29"})
	p, q := w.pod("a"), w.pod("b")
	add(t, p, c)
	add(t, q, c)
	p.Prev, q.Prev = q.Prev, p.Prev
	err := p.Check(c)
	if err == nil || !strings.Contains(err.Error(), "does not hold address 10.0.0.") {
		t.Errorf("address of another pod: %v", err)
	}
	p.Prev = []byte(`{"cniVersion":"1.1.0","ips":[{"address":"192.0.2.1/24"}]}`)
	must(t, p.Check(c)) // an address that is another plugin's
}

// The network's range is given away to the last address, none of them twice, and then there is an
// error that says what to do.
func TestFull(t *testing.T) {
	w := newWorld(t)
	c := with(conf{"range": "10.0.0.0/27", "gateway": "10.0.0.1"})
	got := map[netip.Addr]*plugintest.Pod{}
	for i := range 29 {
		p := w.pod(fmt.Sprint("p", i))
		a := addrs(t, p, c)[0]
		if got[a] != nil || !netip.MustParsePrefix("10.0.0.0/27").
			Contains(a) || slices.Contains([]string{"10.0.0.0", "10.0.0.1", "10.0.0.31"}, a.String()) {
			t.Fatalf("%d: %v", i, a)
		}
		got[a] = p
	}
	q := w.pod("q")
	before := w.state()
	_, err := q.Add(c)
	fails(t, err, 11, "network net", "no address is free", "10.0.0.0/27",
		"delete pods, or give the network a larger range")
	same(t, "state", w.state(), before)
	fails(t, w.node.Status(c), 50, "network net", "no address is free", "10.0.0.0/27")
	freed := netip.MustParseAddr("10.0.0.20")
	must(t, got[freed].Del(c))
	must(t, w.node.Status(c))
	same(t, "the address that is free", addrs(t, q, c)[0].String(), freed.String())
}

func TestAllOrNothing(t *testing.T) {
	w := newWorld(t)
	c := with(conf{"range": "10.0.0.0/24", "ipRanges": list{conf{"range": "fd00::1/128"}}})
	add(t, w.pod("a"), c)
	before := w.state()
	_, err := w.pod("b").Add(c)
	fails(t, err, 11, "no address is free", "fd00::1")
	same(t, "state", w.state(), before)
}

// Addresses are unique where they must be, and not where they must not.
func TestSpaces(t *testing.T) {
	for name, c := range map[string]struct {
		a, b conf
		both bool
	}{
		"same range": {conf{}, conf{}, false},
		"overlapping ranges": {
			conf{"range": "10.0.0.7-10.0.0.7/24"},
			conf{"range": "10.0.0.7-10.0.0.7/16"},
			false,
		},
		"same network_name": {conf{"network_name": "blue"}, conf{"network_name": "blue"}, false},
		"network_name":      {conf{"network_name": "blue"}, conf{"network_name": "red"}, true},
		"one network_name":  {conf{"network_name": "blue"}, conf{}, true},
		"may overlap": {
			conf{"range": "10.0.0.7-10.0.0.7/24", "enable_overlapping_ranges": false},
			conf{"range": "10.0.0.7-10.0.0.7/16", "enable_overlapping_ranges": false},
			true,
		},
		"may overlap, same": {
			conf{"enable_overlapping_ranges": false},
			conf{"enable_overlapping_ranges": false},
			false,
		},
		"same, written otherwise": {
			conf{"range": "10.0.0.3-10.0.0.3/24", "enable_overlapping_ranges": false},
			conf{
				"range": "10.0.0.99/24", "range_start": "10.0.0.3", "range_end": "10.0.0.3",
				"enable_overlapping_ranges": false,
			},
			false,
		},
		"expressly unique": {conf{"enable_overlapping_ranges": true}, conf{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			one := conf{"range": "10.0.0.7/32"}
			add(t, w.pod("a"), with(one.With(c.a)).With(conf{"name": "first"}))
			_, err := w.pod("b").Add(with(one.With(c.b)).With(conf{"name": "second"}))
			if c.both {
				must(t, err)
			} else {
				fails(t, err, 11, "network second")
			}
		})
	}
}

// DEL and GC need nothing of the configuration but the name, and not the namespace.
func TestDelNeedsTheNameOnly(t *testing.T) {
	good := with(conf{"range": "10.0.0.0/24"})
	for name, ipam := range map[string]conf{
		"no range": {}, "broken range": {
			"range": "x", "gateway": "y", "routes": list{conf{"dst": "z"}},
			"log_level": "loud", "log_file": "relative",
		},
		"broken flat file": {"configuration_path": "FLAT"},
		"no absolute path": {"configuration_path": "flat"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if ipam["configuration_path"] == "FLAT" {
				ipam["configuration_path"] = w.write("flat", "{")
			}
			p, q := w.pod("a"), w.pod("b")
			add(t, p, good)
			add(t, q, good)
			p.Prev, p.NetNS, p.Args = nil, "", "?"
			must(t, p.Del(with(ipam)))
			must(t, p.Del(with(ipam)))
			must(t, w.node.GC(with(ipam)))
			same(t, "state", w.state(), "")
		})
	}
}

func TestGC(t *testing.T) {
	w := newWorld(t)
	c := with(conf{"range": "10.0.0.0/24"})
	other := c.With(conf{"name": "other"})
	p, q, s := w.pod("a"), w.pod("b"), w.pod("c")
	add(t, p, c)
	add(t, q, c)
	add(t, s, other)
	must(t, w.node.GC(c, p))
	must(t, p.Check(c))
	must(t, s.Check(other))
	if err := q.Check(c); err == nil {
		t.Error("what is not valid still holds its address")
	}
	must(t, w.node.GC(c))
	must(t, w.node.GC(other))
	same(t, "state", w.state(), "")
}

func TestRequests(t *testing.T) {
	for name, c := range map[string]requested{
		"CNI_ARGS":    {"IP=10.0.0.7", nil, []string{"10.0.0.7"}},
		"with length": {"IP=10.0.0.7/16", nil, []string{"10.0.0.7"}},
		"args.cni": {
			"",
			conf{"args": conf{"cni": conf{"ips": list{"fd00::7", "10.0.0.7"}}}},
			[]string{"10.0.0.7", "fd00::7"},
		},
		"runtimeConfig": {
			"",
			conf{"runtimeConfig": conf{"ips": list{"fd00::7/64"}}},
			[]string{"", "fd00::7"},
		},
		"all": {"IP=10.0.0.7", conf{
			"args":          conf{"cni": conf{"ips": list{"fd00::7"}}},
			"runtimeConfig": conf{"ips": list{"10.0.0.7"}},
		}, []string{"10.0.0.7", "fd00::7"}},
		"IPv4-mapped": {"IP=::ffff:10.0.0.7", nil, []string{"10.0.0.7"}},
	} {
		t.Run(name, c.test)
	}
}

// twoRanges has one of each family.
func twoRanges() conf {
	return with(conf{
		"range": "10.0.0.0/24", "gateway": "10.0.0.1", "exclude": list{"10.0.0.128/25"},
		"ipRanges": list{conf{"range": "fd00::/64"}},
	})
}

// A request that cannot be met is refused, and nothing is left.
func TestWrongRequests(t *testing.T) {
	for name, c := range map[string]struct {
		args string
		more conf
		code uint
		says string
	}{
		"elsewhere": {"IP=10.0.1.7", nil, 7, `CNI_ARGS IP "10.0.1.7": is in none of the ranges`},
		"gateway": {
			"IP=10.0.0.1", nil, 7,
			`CNI_ARGS IP "10.0.0.1": is not given away: in 10.0.0.0/24`,
		},
		"excluded": {
			"",
			conf{"args": conf{"cni": conf{"ips": list{"fd00::7", "10.0.0.129"}}}},
			7,
			`args.cni.ips[1] "10.0.0.129": is not given away`,
		},
		"broadcast": {"IP=10.0.0.255", nil, 7, `CNI_ARGS IP "10.0.0.255"`},
		"two of one": {
			"",
			conf{"runtimeConfig": conf{"ips": list{"10.0.0.7/24", "10.0.0.8/24"}}},
			7, `runtimeConfig.ips[1] "10.0.0.8/24": is of the same range as 10.0.0.7`,
		},
		"no address":       {"IP=x", nil, 7, `CNI_ARGS IP "x"`},
		"list in CNI_ARGS": {"IP=10.0.0.7,x", nil, 7, `CNI_ARGS IP "x"`},
		"zone":             {"IP=fd00::7%eth0", nil, 7, `CNI_ARGS IP "fd00::7%eth0"`},
		"not a list":       {"", conf{"runtimeConfig": conf{"ips": "10.0.0.7"}}, 7, `runtimeConfig.ips`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.pod("a")
			if c.args != "" {
				p.Args += ";" + c.args
			}
			_, err := p.Add(twoRanges().With(c.more))
			fails(t, err, c.code, c.says)
			same(t, "left", w.anything(), []string(nil))
		})
	}
}

// requested is what a pod asks for, and the addresses that it gets.
type requested struct {
	args string
	more conf
	want []string
}

func (c requested) test(t *testing.T) {
	w := newWorld(t)
	p := w.pod("a")
	if c.args != "" {
		p.Args += ";" + c.args
	}
	got := addrs(t, p, twoRanges().With(c.more))
	for i, want := range c.want {
		if want != "" && got[i].String() != want {
			t.Errorf("got %v, want %v", got, c.want)
		}
	}
	must(t, p.Check(twoRanges()))
	q := w.pod("b")
	q.Args = p.Args
	_, err := q.Add(twoRanges().With(c.more))
	fails(t, err, 11, "the address is taken", "delete the pod that has it, or ask for another one",
		"default/a")
}

// A runtime that does not say IgnoreUnknown still may name the pod.
func TestArgsOfTheReference(t *testing.T) {
	w := newWorld(t)
	p := w.pod("a")
	p.Args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=y"
	add(t, p, with(conf{"range": "10.0.0.0/24"}))
	p.Args = "COLOUR=red"
	_, err := w.pod("b").Add(with(conf{"range": "10.0.0.0/24"}))
	must(t, err)
	_, err = p.Add(with(conf{"range": "10.0.0.0/24"}))
	fails(t, err, 4, "COLOUR")
}

func claiming(name string) conf {
	return conf{"args": conf{"cni": conf{"ipam-claim-reference": name}}}
}

// TestS46IPAMClaim: the addresses of a claim outlive the pod, and are nobody else's until the claim
// is deleted.
func TestS46IPAMClaim(t *testing.T) {
	w := newWorld(t)
	w.claim("vm", conf{"network": "net", "interface": "net1"})
	c := with(conf{"range": "10.0.0.0/29", "ipRanges": list{conf{"range": "fd00::/64"}}})
	p := w.pod("a")
	first := add(t, p, c.With(claiming("vm")))
	same(t, "status.ips", w.claimed("vm").IPs, first)
	same(t, "status.ownerPod", w.claimed("vm").OwnerPod, "a")
	q := w.pod("b") // a migration is from one to the other
	same(t, "next pod", add(t, q, c.With(claiming("vm"))), first)
	same(t, "status.ownerPod", w.claimed("vm").OwnerPod, "b")
	_, err := w.pod("thief").Add(c.With(claiming("vm")))
	fails(t, err, 11, "the address is taken")
	must(t, p.Check(c))
	must(t, p.Del(c.With(claiming("vm"))))
	must(t, q.Check(c))
	must(t, q.Del(c)) // whether DEL names the claim does not matter
	// Nobody else gets it.
	for i := range 5 {
		if got := add(t, w.pod(fmt.Sprint("other", i)), c); got[0] == first[0] || got[1] == first[1] {
			t.Errorf("%v is the claim's", got)
		}
	}
	_, err = w.pod("last").Add(c)
	fails(t, err, 11, "no address is free")
	same(t, "back again", add(t, w.pod("d"), c.With(claiming("vm"))), first)
}

func TestS46IPRequestsOfAClaim(t *testing.T) {
	w := newWorld(t)
	w.claim("vm", conf{"network": "net", "interface": "net1", "ipRequests": list{"10.0.0.7/24"}})
	c := with(conf{"range": "10.0.0.0/24"})
	for i := range 3 { // the node has the block of that address for itself
		p := w.pod(fmt.Sprint("other", i))
		p.Args += fmt.Sprint(";IP=10.0.0.", i+1)
		add(t, p, c)
	}
	same(t, "address", add(t, w.pod("a"), c.With(claiming("vm"))), []string{"10.0.0.7/24"})
	for i := range 3 {
		must(t, w.pod(fmt.Sprint("other", i)).Check(c))
	}
	same(t, "status.ips", w.claimed("vm").IPs, []string{"10.0.0.7/24"})
	w.claim("wrong", conf{"network": "net", "interface": "net1", "ipRequests": list{"10.0.1.7/24"}})
	_, err := w.pod("b").Add(c.With(claiming("wrong")))
	fails(t, err, 7, `IPAMClaim wrong spec.ipRequests[0] "10.0.1.7/24": is in none of the ranges`)
	// The range has changed since.
	must(t, w.pod("a").Del(c))
	_, err = w.pod("c").Add(with(conf{"range": "10.1.0.0/24"}).With(claiming("vm")))
	fails(t, err, 7, `IPAMClaim vm status.ips[0] "10.0.0.7/24": is in none of the ranges`)
}

// TestR6TwoSandboxesOfAClaim: while a virtual machine migrates, two sandboxes have its addresses;
// each frees its own hold, in any order, and when it is made again it has the same.
func TestR6TwoSandboxesOfAClaim(t *testing.T) {
	c := with(conf{"range": "10.0.0.0/29"}).With(claiming("vm"))
	for name, order := range map[string][]int{"source first": {0, 1}, "target first": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.claim("vm", conf{"network": "net", "interface": "net1"})
			pods := []*plugintest.Pod{w.pod("source"), w.pod("target")}
			first := add(t, pods[0], c)
			same(t, "target", add(t, pods[1], c), first)
			same(t, "target, repeated", add(t, pods[1], c), first)
			must(t, pods[order[0]].Del(c))
			must(t, pods[order[0]].Del(c))
			must(t, pods[order[1]].Check(c))
			other := w.pod("other")
			if got := add(t, other, with(conf{"range": "10.0.0.0/29"})); got[0] == first[0] {
				t.Errorf("%v is that of the claim", got)
			}
			same(t, "migrated back", add(t, pods[order[0]], c), first)
			must(t, w.node.GC(c, pods[order[0]], other))
			must(t, pods[order[0]].Check(c))
			if err := pods[order[1]].Check(c); err == nil {
				t.Error("what is not valid still holds the claim's address")
			}
		})
	}
}

// TestR6ClaimOfAnotherNetwork: a claim is of the network that its spec names, by the name of the
// configuration.
func TestR6ClaimOfAnotherNetwork(t *testing.T) {
	w := newWorld(t)
	w.claim("vm", conf{"network": "tenantred", "interface": "net1"})
	c := with(conf{"range": "10.0.0.0/24"}).With(claiming("vm"))
	_, err := w.pod("a").Add(c)
	fails(t, err, 7, `args.cni.ipam-claim-reference "vm"`, `"tenantred"`, `this network is "net"`)
	same(t, "state", w.state(), "")
	add(t, w.pod("b"), c.With(conf{"name": "tenantred"}))
}

func TestS46ClaimThatIsNotThere(t *testing.T) {
	w := newWorld(t)
	c := with(conf{"range": "10.0.0.0/24"})
	_, err := w.pod("a").Add(c.With(claiming("none")))
	fails(t, err, 7, `args.cni.ipam-claim-reference "none": there is no such IPAMClaim in namespace `+
		`default`)
	_, err = w.pod("a").Add(c.With(claiming("../x")))
	fails(t, err, 7, `args.cni.ipam-claim-reference "../x"`)
	_, err = w.pod("a").Add(c.With(conf{"args": conf{"cni": conf{"ipam-claim-reference": 5}}}))
	fails(t, err, 7, "args.cni.ipam-claim-reference 5")
	p := w.pod("a")
	p.Args = ""
	_, err = p.Add(c.With(claiming("vm")))
	fails(t, err, 4, "K8S_POD_NAMESPACE", "vm")
	same(t, "left", w.anything(), []string(nil))
}

// An ADD that cannot publish the addresses of a claim frees them.
func TestClaimThatCannotBePublished(t *testing.T) {
	w := newWorld(t)
	w.claim("vm", conf{"network": "net", "interface": "net1"})
	w.objects = &broken{objects: w.manifests, publish: errors.New("disk is full")}
	c := with(conf{"range": "10.0.0.0/24"})
	_, err := w.pod("a").Add(c.With(claiming("vm")))
	fails(t, err, 999, "network net", "publish addresses: disk is full")
	same(t, "state", w.state(), "")
	w.objects = w.manifests
	add(t, w.pod("b"), c.With(claiming("vm")))
}

// Each step of an ADD may fail: nothing is left of it.
func TestFailEachStep(t *testing.T) {
	w := newWorld(t)
	c := with(conf{"range": "10.0.0.0/24", "ipRanges": list{conf{"range": "fd00::/64"}}})
	add(t, w.pod("a"), c)
	p := w.pod("b")
	boom := errors.New("boom")
	before := w.state()
	for step := 0; ; step++ {
		left := step
		w.step = func(string) error {
			if left--; left == -1 {
				return boom
			}
			return nil
		}
		_, err := p.Add(c)
		if left >= 0 {
			must(t, err)
			if step == 0 {
				t.Fatal("an ADD has no steps")
			}
			break
		}
		w.step = nil
		if !errors.Is(err, boom) {
			t.Fatalf("step %d: %v", step, err)
		}
		same(t, fmt.Sprint("state after step ", step), w.state(), before)
	}
	w.step = nil
	must(t, p.Del(c))
	// A range that the node has no block of yet.
	if steps := p.FailEachStep(t, with(conf{"range": "10.1.0.0/24"}), w.state); steps == 0 {
		t.Error("an ADD does not look at its context")
	}
}

// While the API is away, blocks that the node has keep giving; all else is "try again later".
func TestAPIAway(t *testing.T) {
	w := newWorld(t)
	c := with(conf{"range": "10.0.0.0/28"})
	add(t, w.pod("a"), c)
	away, err := kube.NewAPI(kube.APIOptions{Kubeconfig: w.write("kubeconfig", `{"apiVersion":"v1","kind":"Config","current-context":"c",
		"clusters":[{"name":"k","cluster":{"server":"http://127.0.0.1:1"}}],"users":[{"name":"u","user":{"token":"t0ken"}}],
		"contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}]}`), Timeout: 200 * time.Millisecond})
	must(t, err)
	w.objects = away
	p := w.pod("b")
	add(t, p, c)
	must(t, p.Check(c))
	must(t, w.node.Status(c))
	elsewhere := with(conf{"range": "10.1.0.0/24"})
	_, err = w.pod("c").Add(elsewhere)
	fails(t, err, 11, "network net", "127.0.0.1:1")
	must(t, w.node.Status(elsewhere)) // it asks nobody
	must(t, p.Del(c))
	fails(t, w.node.GC(c), 11, "127.0.0.1:1") // there may be addresses elsewhere
	same(t, "state", w.state(), "")
}

func TestLog(t *testing.T) {
	w := newWorld(t)
	c := with(conf{
		"range": "10.0.0.1/32", "node_slice_size": "/28", "leader_lease_duration": 1500,
		"datastore": "kubernetes", "etcd_host": "x",
	})
	add(t, w.pod("a"), c)
	got := w.log.String()
	if !strings.Contains(got, `keys="[leader_lease_duration node_slice_size datastore etcd_host]"`) ||
		strings.Contains(got, "duration=") {
		t.Errorf("log without a file of its own:\n%s", got)
	}
	w.log.Reset()
	own := with(conf{"range": "10.0.0.1/32", "log_file": "/var/log/whereabouts.log"})
	p := w.pod("b")
	_, err := p.Add(own)
	fails(t, err, 11)
	must(t, p.Del(own))
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	for i, want := range [][]string{
		{
			"level=ERROR", "msg=ADD", "network=net", "container=b", "interface=net1", "pod=default/b",
			"duration=", "no address is free",
		},
		{"msg=closed"},
		{"level=INFO", "msg=DEL", "network=net"},
		{"msg=closed"},
	} {
		for _, word := range want {
			if i >= len(lines) || !strings.Contains(lines[i], word) {
				t.Errorf("line %d lacks %s:\n%s", i, word, w.log.String())
			}
		}
	}
}

func TestOpenFails(t *testing.T) {
	w := newWorld(t)
	must(t, os.WriteFile(w.path("state"), nil, 0o600)) // no directory can be there
	p := w.pod("a")
	_, err := p.Add(with(conf{"range": "10.0.0.0/24"}))
	fails(t, err, 999, "network net", w.path("state"))
	if coded, ok := errors.AsType[*types.Error](err); ok {
		t.Errorf("what has no code of its own is given %v", coded)
	}
}

// DEL frees the addresses, whatever key has gone from the configuration since.
func TestDelWithoutEachKey(t *testing.T) {
	w := newWorld(t)
	flat := w.write("flat", `{"network_name":"flat"}`)
	c := with(conf{
		"range": "10.0.0.0/24", "range_start": "10.0.0.7", "range_end": "10.0.0.99",
		"exclude": list{"10.0.0.8"}, "ipRanges": list{conf{"range": "fd00::/64"}},
		"gateway": "10.0.0.1", "routes": list{conf{"dst": "10.9.0.0/16"}},
		"addresses": list{conf{"address": "192.0.2.9/24"}}, "dns": conf{"domain": "x"},
		"network_name": "own", "enable_overlapping_ranges": false, "log_file": "/var/log/whereabouts.log",
		"log_level":          "debug",
		"configuration_path": flat, "kubernetes": conf{"kubeconfig": "/x", "k8s_api_root": "y"},
		"leader_lease_duration": 1, "leader_renew_deadline": 2,
		"leader_retry_period": 3, "node_slice_size": "/28", "sleep_for_race": 4,
		"reconciler_cron_expression": "x", "datastore": "etcd",
		"etcd_host": "x", "etcd_username": "x", "etcd_password": "x", "etcd_key_file": "x",
		"etcd_cert_file": "x", "etcd_ca_cert_file": "x",
	})
	plugintest.WithoutEachKey[whereabouts.Conf](t, "ipam", []conf{c},
		func(t *testing.T, key string, with, without conf) {
			p := w.pod("a")
			_, err := p.Add(with)
			must(t, err)
			if w.state() == "" {
				t.Fatal("ADD took no address")
			}
			p.Prev = nil
			must(t, p.Del(without))
			same(t, "state without "+key, w.state(), "")
		})
}
