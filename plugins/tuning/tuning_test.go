package tuning_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/tuning"
)

type conf = plugintest.Conf

// ours is the plugin on a node without an allowlist.
func ours() plugintest.Runner { return withAllowlist("/nonexistent/allowlist.conf") }

func withAllowlist(path string) plugintest.Runner {
	return plugintest.Plugins{"tuning": plugin.New(tuning.Plugin{Allowlist: path})}
}

const (
	oldMAC = "02:00:00:00:00:01"
	newMAC = "02:00:00:00:00:02"
)

// pod makes a pod with net1 and a configuration of tuning with the result of the plugin that made
// it.
func pod(t testing.TB, n *plugintest.Node, id string) (*plugintest.Pod, conf) {
	t.Helper()
	p := n.Pod(id)
	p.Veth("net1", nettest.New(t), "wire")
	mac, err := net.ParseMAC(oldMAC)
	if err == nil {
		err = p.Netlink().LinkSetHardwareAddr(p.Link("net1"), mac)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p, conf{"type": "tuning", "dataDir": dataDir(n), "prevResult": conf{
		"cniVersion": "1.1.0", "interfaces": []conf{
			{"name": "host0"}, {"name": "net1", "mac": oldMAC, "sandbox": p.NetNS},
		},
		"ips": []conf{{"address": "10.1.0.2/24", "interface": 1}},
	}}
}

func dataDir(n *plugintest.Node) string { return filepath.Join(n.Dir, "tuning") }

// the sysctls that the tests set.
var sysctls = []string{
	"net/ipv4/conf/net1/arp_ignore", "net/ipv4/conf/net1/arp_filter", "net/ipv4/conf/all/rp_filter",
	"net/ipv4/ip_local_port_range", "net/core/somaxconn",
}

// state is what tuning could change in a pod and on the node.
func state(t testing.TB, p *plugintest.Pod) string {
	t.Helper()
	var b strings.Builder
	if p.HasLink("net1") {
		a := p.Link("net1").Attrs()
		fmt.Fprintf(&b, "mac %s mtu %d queue %d promisc %v allmulti %v\n", a.HardwareAddr, a.MTU,
			a.TxQLen, a.RawFlags&unix.IFF_PROMISC != 0,
			a.RawFlags&unix.IFF_ALLMULTI != 0)
	}
	err := p.Run(func() error {
		for _, key := range sysctls {
			if value, err := os.ReadFile("/proc/sys/" + key); err == nil {
				fmt.Fprintf(&b, "%s %s", key, value)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String() + files(p.Node) + p.Snapshot()
}

// files lists the data directory.
func files(n *plugintest.Node) string {
	var b strings.Builder
	entries, _ := os.ReadDir(dataDir(n))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&b, "file %s %v\n", e.Name(), info.Mode())
	}
	return b.String()
}

// What ADD and DEL leave, and the result, are the reference's.
func TestMatchesReference(t *testing.T) {
	all := conf{"mac": newMAC, "mtu": 1400, "promisc": true, "allmulti": true, "txQLen": 77}
	for name, c := range map[string]struct {
		conf conf
		args string
	}{
		"nothing":        {},
		"all attributes": {conf: all},
		"mac":            {conf: conf{"mac": newMAC}},
		"mtu":            {conf: conf{"mtu": 1280}},
		"allmulti off":   {conf: conf{"allmulti": false}},
		"queue 0":        {conf: conf{"txQLen": 0}},
		"sysctl with dots": {conf: conf{
			"sysctl": conf{"net.ipv4.conf.IFNAME.arp_ignore": "1", "net.core.somaxconn": "99"},
		}},
		"sysctl with slash": {conf: conf{"sysctl": conf{"net/ipv4/conf/IFNAME/arp_filter": "1"}}},
		"sysctl of two":     {conf: conf{"sysctl": conf{"net.ipv4.ip_local_port_range": "2000\t3000"}}},
		"CNI_ARGS": {
			args: "IgnoreUnknown=1;MAC=" + newMAC,
			conf: conf{"mac": "02:00:00:00:00:09"},
		},
		"runtimeConfig": {
			args: "MAC=02:00:00:00:00:08",
			conf: conf{"runtimeConfig": conf{"mac": newMAC}},
		},
		"args.cni": {args: "MAC=02:00:00:00:00:08", conf: all.With(conf{
			"runtimeConfig": conf{"mac": "02:00:00:00:00:09"},
			"sysctl":        conf{"net.core.somaxconn": "99", "net.ipv4.conf.all.rp_filter": "2"},
			"args": conf{"cni": conf{
				"mac": newMAC, "promisc": false, "mtu": 1300, "allmulti": false, "txQLen": 5,
				"sysctl": conf{"net.core.somaxconn": "98"}, "ips": []string{"x"},
			}},
		})},
		"old version": {conf: all.With(conf{"cniVersion": "0.3.1", "prevResult": conf{
			"cniVersion": "0.3.1", "interfaces": []conf{{"name": "net1", "mac": oldMAC, "sandbox": "x"}},
		}})},
	} {
		t.Run(name, func(t *testing.T) {
			var twins [2][]string
			for i, runner := range []plugintest.Runner{ours(), plugintest.Reference{}} {
				p, conf := pod(t, plugintest.New(t, runner), "a")
				p.Args = c.args
				conf = conf.With(c.conf)
				result, err := p.Add(conf)
				if err != nil {
					t.Fatal(err)
				}
				for _, i := range result.Interfaces {
					i.Mtu = 0 // ours says it
				}
				printed, err := json.Marshal(result)
				if err != nil {
					t.Fatal(err)
				}
				twins[i] = append(strings.Split(state(t, p), "\n"),
					strings.ReplaceAll(string(printed), p.NetNS, "NETNS"))
				if conf["cniVersion"] == nil { // others have no CHECK
					if err := p.Check(conf); err != nil {
						t.Error(err)
					}
				}
				for range 2 {
					if err := p.Del(conf); err != nil {
						t.Error(err)
					}
				}
				twins[i] = append(append(twins[i], "after DEL"), strings.Split(state(t, p), "\n")...)
			}
			if diff := cmp.Diff(twins[1], twins[0]); diff != "" {
				t.Errorf("the reference - and ours +:\n%s", diff)
			}
		})
	}
}

func TestResultSaysWhatChanged(t *testing.T) {
	p, c := pod(t, plugintest.New(t, ours()), "a")
	result, err := p.Add(c.With(conf{"mac": strings.ToUpper(newMAC), "mtu": 1400}))
	if err != nil {
		t.Fatal(err)
	}
	if i := result.Interfaces[1]; i.Mac != newMAC || i.Mtu != 1400 || i.Sandbox != p.NetNS {
		t.Errorf("interface of the result: %v", i)
	}
	if i := result.Interfaces[0]; i.Mac != "" || i.Mtu != 0 {
		t.Errorf("the other interface of the result: %v", i)
	}
	if err := p.Check(c.With(conf{"mac": strings.ToUpper(newMAC), "mtu": 1400})); err != nil {
		t.Error(err)
	}
}

func TestFailureOfEachStepLeavesNothing(t *testing.T) {
	p, c := pod(t, plugintest.New(t, ours()), "a")
	c = c.With(conf{
		"mac": newMAC, "mtu": 1400, "promisc": true, "allmulti": true, "txQLen": 77,
		"sysctl": conf{
			"net.ipv4.conf.IFNAME.arp_ignore": "1", "net.core.somaxconn": "99", "net.ipv4.route.flush": "1",
		},
	})
	t.Log(p.FailEachStep(t, c, func() string { return state(t, p) }), "steps")
}

// What the kernel refuses fails the ADD after other changes, which are taken back: sysctls,
// attributes and the backup.
func TestRefusedByTheKernel(t *testing.T) {
	for name, c := range map[string]struct {
		conf conf
		says []string
	}{
		"mtu too small": {conf{"mac": newMAC, "promisc": true, "mtu": 5}, []string{"mtu 5"}},
		"multicast mac": {conf{"mac": "01:00:5e:00:00:01"}, []string{"mac", "01:00:5e:00:00:01"}},
		"sysctl's value": {conf{
			"sysctl": conf{"net.core.somaxconn": "99", "net.ipv4.ip_local_port_range": "9 8"},
		}, []string{"net/ipv4/ip_local_port_range", "9 8"}},
		"sysctl's name": {
			conf{"sysctl": conf{"net.core.somaxconn": "99", "net.ipv4.nonsense": "1"}},
			[]string{"net/ipv4/nonsense"},
		},
		"sysctl directory": {conf{"sysctl": conf{"net.ipv4": "1"}}, []string{"net/ipv4"}},
	} {
		p, good := pod(t, plugintest.New(t, ours()), "a")
		before := state(t, p)
		_, err := p.Add(good.With(conf{"sysctl": conf{"net.core.somaxconn": "99"}}).With(c.conf))
		for _, text := range c.says {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %q in it", name, err, text)
			}
		}
		if diff := cmp.Diff(before, state(t, p)); diff != "" {
			t.Errorf("%s left:\n%s", name, diff)
		}
	}
}

func TestBadInput(t *testing.T) {
	p, good := pod(t, plugintest.New(t, ours()), "a")
	refused(t, p, map[string]badInput{
		"mac": {
			good.With(conf{"mac": "x:y"}), "", types.ErrInvalidNetworkConfig,
			[]string{"mac", "x:y"},
		},
		"mac of eight bytes": {
			good.With(conf{"mac": "02:00:00:00:00:00:00:01"}), "",
			types.ErrInvalidNetworkConfig,
			[]string{"02:00:00:00:00:00:00:01"},
		},
		"CNI_ARGS mac": {
			good, "MAC=nonsense", types.ErrInvalidNetworkConfig,
			[]string{"CNI_ARGS MAC", "nonsense"},
		},
		"CNI_ARGS unknown": {
			good, "COLOUR=blue", types.ErrInvalidEnvironmentVariables,
			[]string{"COLOUR"},
		},
		"mtu negative": {
			good.With(conf{"mtu": -1}), "", types.ErrInvalidNetworkConfig,
			[]string{"mtu -1"},
		},
		"mtu that wraps": {
			good.With(conf{"mtu": 4294968796}), "", types.ErrInvalidNetworkConfig,
			[]string{"mtu 4294968796"},
		},
		"mtu a string": {
			good.With(conf{"mtu": "1400"}), "", types.ErrInvalidNetworkConfig,
			[]string{"mtu", "1400"},
		},
		"queue negative": {
			good.With(conf{"txQLen": -7}), "", types.ErrInvalidNetworkConfig,
			[]string{"txQLen -7"},
		},
		"no prevResult": {
			conf{"type": "tuning", "dataDir": good["dataDir"], "mtu": 1400},
			"",
			types.ErrInvalidNetworkConfig,
			[]string{"prevResult"},
		},
	})
	before := state(t, p)
	p.Args = ""
	_, err := p.Add(good.With(conf{"mtus": 1400}))
	if err == nil || !strings.Contains(err.Error(), "mtus") {
		t.Errorf("unknown key: %v", err)
	}
	for _, id := range []string{"", "../../etc/x", "a/b", ".hidden"} {
		p.ID = id
		if _, err := p.Add(good.With(conf{"mtu": 1400})); err == nil {
			t.Errorf("ADD takes the container ID %q", id)
		}
		if err := p.Del(good); err == nil {
			t.Errorf("DEL takes the container ID %q", id)
		}
	}
	p.ID, p.IfName = "a", "../net1"
	if _, err := p.Add(good.With(conf{"mtu": 1400})); err == nil {
		t.Error("ADD takes the interface ../net1")
	}
	p.IfName = "net9"
	_, err = p.Add(good.With(conf{"mtu": 1400}))
	if err == nil || !strings.Contains(err.Error(), "net9") {
		t.Errorf("absent interface: %v", err)
	}
	if diff := cmp.Diff(before, state(t, p)); diff != "" {
		t.Fatalf("left:\n%s", diff)
	}
}

// A key of sysctl is one below net, and its value a text.
func TestBadSysctl(t *testing.T) {
	p, good := pod(t, plugintest.New(t, ours()), "a")
	refused(t, p, map[string]badInput{
		"sysctl elsewhere": {
			good.With(conf{"sysctl": conf{"kernel.hostname": "x"}}), "",
			types.ErrInvalidNetworkConfig,
			[]string{"sysctl", "kernel.hostname"},
		},
		"sysctl leads out": {
			good.With(conf{"sysctl": conf{"net/../kernel/hostname": "x"}}), "",
			types.ErrInvalidNetworkConfig,
			[]string{"net/../kernel/hostname"},
		},
		"sysctl by a detour": {
			good.With(conf{"sysctl": conf{"net.ipv4.//.core.somaxconn": "1"}}), "",
			types.ErrInvalidNetworkConfig,
			[]string{"net.ipv4.//.core.somaxconn"},
		},
		"sysctl net": {
			good.With(conf{"sysctl": conf{"net": "x"}}), "",
			types.ErrInvalidNetworkConfig,
			[]string{"sysctl", `"net"`},
		},
		"sysctl empty": {
			good.With(conf{"sysctl": conf{"": "x"}}), "",
			types.ErrInvalidNetworkConfig,
			[]string{"sysctl"},
		},
		"sysctl a number": {
			good.With(conf{"sysctl": conf{"net.core.somaxconn": 5}}), "",
			types.ErrInvalidNetworkConfig,
			[]string{"sysctl", "net.core.somaxconn", "5"},
		},
		"args.cni.sysctl": {
			good.With(conf{"args": conf{"cni": conf{"sysctl": "x"}}}), "",
			types.ErrInvalidNetworkConfig,
			[]string{"args.cni.sysctl", "x"},
		},
		"args.cni.sysctl away": {good.With(conf{
			"args": conf{"cni": conf{"sysctl": conf{"vm.swappiness": "1"}}},
		}), "", types.ErrInvalidNetworkConfig, []string{"vm.swappiness"}},
	})
}

// badInput is a configuration that an ADD with these CNI_ARGS refuses.
type badInput struct {
	conf conf
	args string
	code uint
	says []string
}

// refused fails unless an ADD of the pod refuses each, and changes nothing.
func refused(t *testing.T, p *plugintest.Pod, inputs map[string]badInput) {
	t.Helper()
	before := state(t, p)
	for name, c := range inputs {
		p.Args = c.args
		_, err := p.Add(c.conf)
		if plugintest.Code(err) != c.code {
			t.Errorf("%s: code %d, want %d: %v", name, plugintest.Code(err), c.code, err)
		}
		for _, text := range c.says {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %q in it", name, err, text)
			}
		}
		if diff := cmp.Diff(before, state(t, p)); diff != "" {
			t.Fatalf("%s left:\n%s", name, diff)
		}
	}
}

// An interface's name may have dots; those of the key become slashes before the name takes its
// place, once.
func TestInterfaceWithDots(t *testing.T) {
	p, c := pod(t, plugintest.New(t, ours()), "a")
	p.IfName = "net1.net.long.x"
	p.Veth(p.IfName, nettest.New(t), "wire")
	_, err := p.Add(c.With(conf{"sysctl": conf{"net.ipv4.conf.IFNAME.arp_ignore": "2"}}))
	if err != nil {
		t.Fatal(err)
	}
	var value []byte
	err = p.Run(func() (err error) {
		value, err = os.ReadFile("/proc/sys/net/ipv4/conf/net1.net.long.x/arp_ignore")
		return err
	})
	if err != nil || string(value) != "2\n" {
		t.Errorf("%q, %v", value, err)
	}
	_, err = p.Add(c.With(conf{"sysctl": conf{"net.ipv4.conf.IFNAME.IFNAME": "2"}}))
	if err == nil || !strings.Contains(err.Error(), p.IfName+"/IFNAME") {
		t.Errorf("IFNAME twice: %v", err)
	}
}

// R21: the first separator of a key decides what dots and slashes are, as in sysctl.d(5).
func TestR21SeparatorsOfSysctls(t *testing.T) {
	n := plugintest.New(t, ours())
	p, c := pod(t, n, "a")
	p.IfName = "net1.5"
	p.Veth(p.IfName, nettest.New(t), "wire")
	for i, key := range []string{
		"net/ipv4/conf/net1.5/arp_announce", "net.ipv4.conf.net1/5.arp_announce",
		"net/ipv4/conf/IFNAME/arp_announce", "net.ipv4.conf.IFNAME.arp_announce",
	} {
		want := fmt.Sprint(i%2 + 1)
		sysctl := c.With(conf{"sysctl": conf{key: want}})
		if _, err := p.Add(sysctl); err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if got := read(t, p.Namespace, "net/ipv4/conf/net1.5/arp_announce"); got != want {
			t.Errorf("%s: arp_announce is %s, want %s", key, got, want)
		}
		if err := p.Check(sysctl); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// read is the value of a parameter in a namespace.
func read(t *testing.T, n *nettest.Namespace, key string) string {
	t.Helper()
	var value []byte
	err := n.Run(func() (err error) {
		value, err = os.ReadFile("/proc/sys/" + key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(value))
}

func TestAllowlist(t *testing.T) {
	for name, c := range map[string]struct {
		list, key string
		says      string // nothing if it is allowed
	}{
		"exact":         {"^net.core.somaxconn$\n", "net.core.somaxconn", ""},
		"anywhere":      {"# remark\n\n  somaxconn  \n", "net.core.somaxconn", ""},
		"the raw key":   {"^net/core/somaxconn$", "net.core.somaxconn", "net.core.somaxconn"},
		"before IFNAME": {"^net.ipv4.conf.IFNAME.[a-z_]*$", "net.ipv4.conf.IFNAME.arp_ignore", ""},
		"another": {
			"^net.core.somaxconn$", "net.ipv4.conf.IFNAME.arp_ignore",
			"net.ipv4.conf.IFNAME.arp_ignore",
		},
		"empty":         {"", "net.core.somaxconn", "net.core.somaxconn"},
		"no expression": {"net.core.(", "net.core.somaxconn", "net.core.("},
	} {
		list := filepath.Join(t.TempDir(), "allowlist.conf")
		if err := os.WriteFile(list, []byte(c.list), 0o600); err != nil {
			t.Fatal(err)
		}
		p, good := pod(t, plugintest.New(t, withAllowlist(list)), "a")
		before := state(t, p)
		_, err := p.Add(good.With(conf{"sysctl": conf{c.key: "1"}}))
		if c.says == "" && err != nil ||
			c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
		if changed := state(t, p) != before; changed != (c.says == "") {
			t.Errorf("%s: changed: %v", name, changed)
		}
		if _, err := p.Add(good.With(conf{"mtu": 1400})); err != nil {
			t.Errorf("%s: without a sysctl: %v", name, err)
		}
	}
	p, good := pod(t, plugintest.New(t, withAllowlist(t.TempDir())), "a")
	if _, err := p.Add(good.With(conf{"sysctl": conf{"net.core.somaxconn": "1"}})); err == nil {
		t.Error("an allowlist that cannot be read allows")
	}
}

// M19: a pod asks for a sysctl, the configuration has none.
func TestM19TuningArgsSysctlAlone(t *testing.T) {
	for name, c := range map[string]struct {
		runner plugintest.Runner
		fails  bool
	}{"ours": {ours(), false}, "the reference panics": {plugintest.Reference{}, true}} {
		t.Run(name, func(t *testing.T) {
			p, good := pod(t, plugintest.New(t, c.runner), "a")
			good = good.With(conf{
				"args": conf{"cni": conf{"sysctl": conf{"net.ipv4.conf.IFNAME.arp_ignore": "1"}}},
			})
			_, err := p.Add(good)
			if (err != nil) != c.fails {
				t.Errorf("ADD: %v", err)
			}
			if set := strings.Contains(state(t, p), "arp_ignore 1\n"); set == c.fails {
				t.Errorf("set: %v", set)
			}
		})
	}
}

// The backup goes also when the interface or the namespace went first; the reference leaves it.
func TestBackupGoesWithoutTheInterface(t *testing.T) {
	for name, c := range map[string]struct {
		runner plugintest.Runner
		leaks  bool
	}{"ours": {ours(), false}, "the reference": {plugintest.Reference{}, true}} {
		for gone, takeAway := range map[string]func(p *plugintest.Pod) error{
			"interface": func(p *plugintest.Pod) error {
				return p.Netlink().LinkDel(p.Link("net1"))
			},
			"namespace":         func(p *plugintest.Pod) error { p.Unmount(); return nil },
			"namespace unnamed": func(p *plugintest.Pod) error { p.NetNS = ""; return nil },
		} {
			t.Run(name+" without "+gone, func(t *testing.T) {
				n := plugintest.New(t, c.runner)
				p, good := pod(t, n, "a")
				good = good.With(conf{"mtu": 1400})
				if _, err := p.Add(good); err != nil {
					t.Fatal(err)
				}
				if err := takeAway(p); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if err := p.Del(good); err != nil && !c.leaks {
						t.Error(err)
					}
				}
				if left := files(n) != ""; left != c.leaks {
					t.Errorf("a backup is left: %v", left)
				}
			})
		}
	}
}

// A second ADD keeps the backup of the first, from before all changes; the reference's then holds
// what the first ADD made.
func TestSecondAddKeepsTheBackup(t *testing.T) {
	for name, c := range map[string]struct {
		runner plugintest.Runner
		mac    string
	}{"ours": {ours(), oldMAC}, "the reference": {plugintest.Reference{}, newMAC}} {
		n := plugintest.New(t, c.runner)
		p, good := pod(t, n, "a")
		good = good.With(conf{"mac": newMAC})
		for range 2 {
			if _, err := p.Add(good); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Del(good); err != nil {
			t.Fatal(err)
		}
		if got := p.Link("net1").Attrs().HardwareAddr.String(); got != c.mac {
			t.Errorf("%s: after DEL the MAC is %s, want %s", name, got, c.mac)
		}
	}
	// One that fails goes back to what the first made, and leaves its backup.
	p, good := pod(t, plugintest.New(t, ours()), "a")
	if _, err := p.Add(good.With(conf{"mac": "02:00:00:00:00:07"})); err != nil {
		t.Fatal(err)
	}
	before := state(t, p)
	if _, err := p.Add(good.With(conf{"mac": newMAC, "mtu": 3})); err == nil {
		t.Error("ADD with an MTU of 3 succeeds")
	}
	if diff := cmp.Diff(before, state(t, p)); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
}

// Each version reads the other's backups.
func TestBackupsInteroperate(t *testing.T) {
	for name, runners := range map[string][2]plugintest.Runner{
		"made by the reference": {plugintest.Reference{}, ours()},
		"made by ours":          {ours(), plugintest.Reference{}},
	} {
		n := plugintest.New(t, runners[0])
		p, good := pod(t, n, "a")
		before := state(t, p)
		good = good.With(conf{
			"mac": newMAC, "mtu": 1400, "promisc": true, "allmulti": true, "txQLen": 77,
		})
		if _, err := p.Add(good); err != nil {
			t.Fatal(err)
		}
		p.Node = n.With(runners[1])
		if err := p.Del(good); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, state(t, p)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// Something else in the place of the backup is neither followed nor taken for one.
func TestStrangeFiles(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	for name, place := range map[string]func(path string) error{
		"symbolic link":              func(path string) error { return os.Symlink(target, path) },
		"symbolic link that dangles": func(path string) error { return os.Symlink(target+"x", path) },
		"directory":                  func(path string) error { return os.Mkdir(path, 0o700) },
		"FIFO":                       func(path string) error { return unix.Mkfifo(path, 0o600) },
		"half a backup": func(path string) error {
			return os.WriteFile(path, []byte(`{"mac":`), 0o600)
		},
	} {
		if err := os.WriteFile(target, []byte(`{"mac":"02:00:00:00:00:66"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		n := plugintest.New(t, ours())
		p, good := pod(t, n, "a")
		good = good.With(conf{"mac": newMAC, "sysctl": conf{"net.core.somaxconn": "99"}})
		err := errors.Join(os.MkdirAll(dataDir(n), 0o700),
			place(filepath.Join(dataDir(n), "a_net1.json")))
		if err != nil {
			t.Fatal(err)
		}
		before := state(t, p)
		_, err = p.Add(good)
		if plugintest.Code(err) != types.ErrIOFailure || !strings.Contains(err.Error(), dataDir(n)) {
			t.Errorf("%s: ADD: %v", name, err)
		}
		if diff := cmp.Diff(before, state(t, p)); diff != "" {
			t.Errorf("%s: ADD left:\n%s", name, diff)
		}
		if err := p.Del(good); err == nil {
			t.Errorf("%s: DEL says that the interface is as it was", name)
		}
		if err := p.Del(good); err != nil {
			t.Errorf("%s: DEL again: %v", name, err)
		}
		if left := files(n); left != "" {
			t.Errorf("%s: left %s", name, left)
		}
		if p.Link("net1").Attrs().HardwareAddr.String() != oldMAC {
			t.Errorf("%s: DEL changed the MAC", name)
		}
		if data, err := os.ReadFile(target); err != nil || !strings.Contains(string(data), "66") {
			t.Errorf("%s: the target is now %q, %v", name, data, err)
		}
	}

	// A link where the temporary file will be.
	n := plugintest.New(t, ours())
	p, good := pod(t, n, "a")
	err := errors.Join(os.MkdirAll(dataDir(n), 0o700),
		os.Symlink(target, filepath.Join(dataDir(n), ".a_net1.json")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Add(good.With(conf{"mac": newMAC})); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(target); err != nil || !strings.Contains(string(data), "66") {
		t.Errorf("the target is now %q, %v", data, err)
	}
	if got, want := files(n), "file a_net1.json -rw-------\n"; got != want {
		t.Errorf("files %s", got)
	}
}

func TestDataDirThatIsAFile(t *testing.T) {
	n := plugintest.New(t, ours())
	p, good := pod(t, n, "a")
	if err := os.WriteFile(dataDir(n), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := state(t, p)
	_, err := p.Add(good.With(conf{"mtu": 1400}))
	if err == nil || !strings.Contains(err.Error(), dataDir(n)) {
		t.Errorf("ADD: %v", err)
	}
	if state(t, p) != before {
		t.Error("ADD changed something")
	}
}

// An attribute that the interface does not take back is an error once; the others are put back.
func TestDelGoesOn(t *testing.T) {
	n := plugintest.New(t, ours())
	p, good := pod(t, n, "a")
	good = good.With(conf{"mac": newMAC, "mtu": 1400, "txQLen": 77})
	if _, err := p.Add(good); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dataDir(n), "a_net1.json")
	err := os.WriteFile(path, []byte(`{"mac":"01:00:5e:00:00:01","mtu":1500,"txQLen":1000}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Del(good); err == nil || !strings.Contains(err.Error(), "mac 01:00:5e:00:00:01") {
		t.Errorf("DEL: %v", err)
	}
	if a := p.Link("net1").Attrs(); a.MTU != 1500 || a.TxQLen != 1000 {
		t.Errorf("MTU %d, queue %d", a.MTU, a.TxQLen)
	}
	if err := p.Del(good); err != nil || files(n) != "" {
		t.Errorf("DEL again: %v; %s", err, files(n))
	}
}

func TestCheckFindsChanges(t *testing.T) {
	for says, change := range map[string]func(p *plugintest.Pod) error{
		"mac": func(p *plugintest.Pod) error {
			mac, _ := net.ParseMAC(oldMAC)
			return p.Netlink().LinkSetHardwareAddr(p.Link("net1"), mac)
		},
		"mtu":     func(p *plugintest.Pod) error { return p.Netlink().LinkSetMTU(p.Link("net1"), 1500) },
		"promisc": func(p *plugintest.Pod) error { return p.Netlink().SetPromiscOff(p.Link("net1")) },
		"allmulti": func(p *plugintest.Pod) error {
			return p.Netlink().LinkSetAllmulticastOff(p.Link("net1"))
		},
		"txQLen": func(p *plugintest.Pod) error { return p.Netlink().LinkSetTxQLen(p.Link("net1"), 5) },
		"net1:":  func(p *plugintest.Pod) error { return p.Netlink().LinkDel(p.Link("net1")) },
		"somaxconn": func(p *plugintest.Pod) error {
			return p.Run(func() error {
				return os.WriteFile("/proc/sys/net/core/somaxconn", []byte("5"), 0)
			})
		},
	} {
		p, good := pod(t, plugintest.New(t, ours()), "a")
		good = good.With(conf{
			"mac": newMAC, "mtu": 1400, "promisc": true, "allmulti": true, "txQLen": 77,
			// the kernel has a tab
			"sysctl": conf{"net.core.somaxconn": "99", "net.ipv4.ip_local_port_range": "2000 3000"},
		})
		if _, err := p.Add(good); err != nil {
			t.Fatal(err)
		}
		if err := p.Check(good); err != nil {
			t.Fatal(err)
		}
		if err := change(p); err != nil {
			t.Fatal(err)
		}
		if err := p.Check(good); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("CHECK after a change of %s: %v", says, err)
		}
	}
	p, good := pod(t, plugintest.New(t, ours()), "a")
	delete(good, "prevResult")
	if err := p.Check(good); plugintest.Code(err) != types.ErrInvalidNetworkConfig {
		t.Errorf("CHECK without prevResult: %v", err)
	}
	// Who listens makes the interface promiscuous, too; nobody promised that it is not.
	p, good = pod(t, plugintest.New(t, ours()), "b")
	if _, err := p.Add(good); err != nil {
		t.Fatal(err)
	}
	if err := p.Netlink().SetPromiscOn(p.Link("net1")); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(good); err != nil {
		t.Error(err)
	}
}

// GC removes what its own network left. Networks share the directory.
func TestGC(t *testing.T) {
	n := plugintest.New(t, ours())
	var pods []*plugintest.Pod
	for _, id := range []string{"stays", "goes"} {
		for _, network := range []string{"net", "other"} {
			p, good := pod(t, n, id+"-"+network)
			if _, err := p.Add(good.With(conf{"mtu": 1400, "name": network})); err != nil {
				t.Fatal(err)
			}
			pods = append(pods, p)
		}
	}
	for name, content := range map[string]string{
		"reference_net1.json": `{"mtu":1500}`, "broken_net1.json": `{`, "notes.txt": "",
	} {
		if err := os.WriteFile(filepath.Join(dataDir(n), name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gc := conf{"type": "tuning", "dataDir": dataDir(n), "name": "net"}
	for range 2 {
		if err := n.GC(gc, pods[0]); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	for line := range strings.Lines(files(n)) {
		left = append(left, strings.Fields(line)[1])
	}
	slices.Sort(left)
	diff := cmp.Diff([]string{
		"broken_net1.json", "goes-other_net1.json", "notes.txt", "reference_net1.json",
		"stays-net_net1.json", "stays-other_net1.json",
	}, left)
	if diff != "" {
		t.Error(diff)
	}
	if err := n.GC(gc.With(conf{"dataDir": filepath.Join(n.Dir, "absent")})); err != nil {
		t.Errorf("GC without a directory: %v", err)
	}
	if err := n.Status(gc); err != nil {
		t.Error(err)
	}
}

func TestReadme(t *testing.T) { plugintest.Readme[tuning.Conf](t, plugin.New(tuning.Plugin{})) }

// DEL puts back what ADD has changed, whatever key has gone from the configuration since. Where
// another dataDir was, only a record of the configuration says.
func TestDelWithoutEachKey(t *testing.T) {
	n := plugintest.New(t, ours())
	p, c := pod(t, n, "a")
	c = c.With(conf{
		"sysctl": conf{"net.ipv4.conf.net1.arp_filter": "1"}, "mac": newMAC, "promisc": true, "mtu": 1400,
		"txQLen": 77, "allmulti": true,
		"args": conf{"cni": conf{"mtu": 1300}},
	})
	attributes := func() string { return strings.SplitN(state(t, p), "\n", 2)[0] + files(n) }
	before := attributes()
	plugintest.WithoutEachKey[tuning.Conf](t, "", []conf{c},
		func(t *testing.T, key string, add, del conf) {
			if _, err := p.Add(add); err != nil {
				t.Fatal(err)
			}
			if attributes() == before {
				t.Fatal("ADD changes nothing")
			}
			if key == "dataDir" {
				del = add
			}
			p.Prev = nil
			if err := p.Del(del); err != nil {
				t.Error(err)
			}
			if got := attributes(); got != before {
				t.Errorf("was %s and is %s", before, got)
			}
		})
}
