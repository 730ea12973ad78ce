package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containernetworking/cni/pkg/types"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/nettest"
)

// What users are promised (U1 to U22).

// Multicast goes from pod to pod over net1 and is not seen on eth0.
func TestU1MulticastOverNet1(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("data", h.macvlan(11, ""))
	sender, receiver := h.pod("sender", "data"), h.pod("receiver", "data")
	h.add(sender)
	h.add(receiver)
	group := &net.UDPAddr{IP: net.IPv4(239, 1, 2, 3), Port: 5007}
	net1, eth0 := join(t, receiver, "net1", group), join(t, receiver, "eth0", group)
	err := sender.Run(func() error {
		conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 11, 0, 2)}, group)
		if err != nil {
			return err
		}
		defer conn.Close()
		for range 3 {
			if _, err := conn.Write([]byte("hello")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	text, from := receive(t, net1, 20*time.Second)
	same(t, "on net1", text+" from "+from, "hello from 10.11.0.2")
	text, _ = receive(t, eth0, 200*time.Millisecond)
	same(t, "on eth0", text, "")
}

// join returns a socket that gets what is sent to the group on this interface, and on no other.
func join(t *testing.T, p *pod, ifname string, group *net.UDPAddr) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := p.Run(func() error {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		if conn, err = net.ListenMulticastUDP("udp4", ifi, group); err != nil {
			return err
		}
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var serr error
		err = raw.Control(func(fd uintptr) {
			serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0)
		})
		if err == nil {
			err = serr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func receive(t *testing.T, conn *net.UDPConn, wait time.Duration) (text, from string) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 100)
	n, addr, err := conn.ReadFromUDP(buffer)
	if err != nil {
		return "", ""
	}
	return string(buffer[:n]), addr.IP.String()
}

// U8, "NADs: versions, name, comments".
func TestU8NameAndVersionOfANADMayBeMissing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("gke-network-1", strings.Replace(h.macvlan(11, ""), `"cniVersion":"1.0.0",`, "", 1))
	p := h.pod("p", "gke-network-1")
	h.add(p)
	same(t, "leases", h.leases(), []string{"gke-network-1/10.11.0.2", "pods/10.1.0.2"})
}

func TestU8CommentIsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", "{\n\"cniVersion\":\"1.0.0\", # the version\n\"type\":\"macvlan\"}")
	p := h.pod("p", "a")
	h.fails("ADD", p, 7, "default/a", "JSON has no comments", "line 2")
	h.clean(p)
}

// U9, "annotation: both forms, namespaces, repetition".
func TestU9BothFormsNamespacesAndRepetition(t *testing.T) {
	t.Parallel()
	for form, annotation := range map[string]string{
		"short": "data,default/shared,data",
		"JSON":  `[{"name":"data"},{"name":"shared","namespace":"default"},{"name":"data"}]`,
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nad("web/data", h.macvlan(11, ""))
			h.nad("default/shared", h.macvlan(12, ""))
			p := h.pod("web/p", annotation)
			h.add(p)
			var got []string
			for _, s := range h.status(p)[1:] {
				got = append(got, s.Name+" "+s.Interface+" "+s.IPs[0])
			}
			same(t, "status", got, []string{
				"web/data net1 10.11.0.2", "default/shared net2 10.12.0.2", "web/data net3 10.11.0.3",
			})
		})
	}
}

// U13, "namespace isolation".
func TestU13NamespaceIsolation(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("team/secret", h.macvlan(11, ""))
	h.nad("default/shared", h.macvlan(12, ""))
	own := h.pod("team/own", "secret")
	other := h.pod("web/other", "default/shared")
	stranger := h.pod("web/stranger", "team/secret")
	h.add(own)
	h.add(other)
	h.fails("ADD", stranger, 7, "web/stranger", "team/secret", "namespace")
	h.has(stranger)
	same(t, "event", h.lastEvent(stranger).Reason, "NADForbidden")
	h.conf["globalNamespaces"] = "default,team"
	h.add(stranger)
	h.has(stranger, "eth0", "net1")
}

// onlyConnected says that net1 brought connected routes and nothing else, and that the default
// route is eth0's.
func onlyConnected(t *testing.T, h *host) {
	t.Helper()
	p := h.pod("p", "a")
	h.add(p)
	same(t, "routes", table(p, 4, "main"), []string{
		"10.1.0.0/16 dev eth0 proto kernel scope link src 10.1.0.2",
		"10.11.0.0/24 dev net1 proto kernel scope link src 10.11.0.2",
		"default via 10.1.0.1 dev eth0",
	})
	h.must("DEL", p)
	h.clean(p)
}

// U15, "only connected routes".
func TestU15MacvlanAddsConnectedRoutesOnly(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	onlyConnected(t, h)
}

func TestU15IPVlanAddsConnectedRoutesOnly(t *testing.T) {
	t.Parallel()
	nettest.NeedsLink(t, "ipvlan")
	h := newHost(t)
	h.nad("a", ipvlanNAD(h.macvlan(11, "")))
	onlyConnected(t, h)
}

// ipvlanNAD is a configuration of macvlan made one of ipvlan.
func ipvlanNAD(macvlan string) string {
	return strings.Replace(macvlan, `"type":"macvlan","master":"nic0","mode":"bridge"`,
		`"type":"ipvlan","master":"nic0","mode":"l2"`, 1)
}

// staticIPAM is the guide's network with an address and a gateway: extra goes into the IPAM part.
func staticIPAM(kind, address, extra string) string {
	return fmt.Sprintf(`{"type":%q,"master":"nic0","ipam":{"type":"static",
		"addresses":[{"address":"%s/21","gateway":"21.0.111.254"}]%s}}`, kind, address, extra)
}

// sourceBased compares with the guide's `ip route` and `ip route list table 100`.
func sourceBased(t *testing.T, h *host, kind string) {
	t.Helper()
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+staticIPAM(kind, "21.0.111.1", "")+
		`,{"type":"sbr"}]}`)
	p := h.pod("p", "a")
	h.add(p)
	same(t, "ip route", table(p, 4, "main"), []string{
		"10.1.0.0/16 dev eth0 proto kernel scope link src 10.1.0.2",
		"default via 10.1.0.1 dev eth0",
	})
	same(t, "ip route list table 100", table(p, 4, "100"), []string{
		"21.0.104.0/21 dev net1 proto kernel scope link src 21.0.111.1",
		"default via 21.0.111.254 dev net1",
	})
	if !strings.Contains(p.Rules(), "from 21.0.111.1/32 table 100\n") {
		t.Errorf("no rule for the source address: %s", p.Rules())
	}
	// No CHECK: macvlan and ipvlan want to find the gateway that sbr moved out of their sight.
	h.must("DEL", p)
	h.clean(p)
	if strings.Contains(p.Rules(), "21.0.111.1") {
		t.Errorf("the rule is left: %s", p.Rules())
	}
}

// U16, "source based routing".
func TestU16SourceBasedRoutingWithIPVlan(t *testing.T) {
	t.Parallel()
	nettest.NeedsLink(t, "ipvlan")
	sourceBased(t, newHost(t), "ipvlan")
}

func TestU16SourceBasedRoutingWithMacvlan(t *testing.T) {
	t.Parallel()
	sourceBased(t, newHost(t), "macvlan")
}

// U17, "static routes; no default route unasked".
func TestU17StaticRoute(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a",
		strings.Replace(staticIPAM("macvlan", "21.0.111.1", `,"routes":[{"dst":"172.31.0.0/16"}]`), "{",
			`{"cniVersion":"1.0.0",`, 1))
	p := h.pod("p", "a")
	h.add(p)
	same(t, "ip route", table(p, 4, "main"), []string{
		"10.1.0.0/16 dev eth0 proto kernel scope link src 10.1.0.2",
		"172.31.0.0/16 via 21.0.111.254 dev net1",
		"21.0.104.0/21 dev net1 proto kernel scope link src 21.0.111.1",
		"default via 10.1.0.1 dev eth0",
	})
}

func TestU17DefaultRouteNeedsThePodsWish(t *testing.T) {
	t.Parallel()
	for _, dst := range []string{"0.0.0.0/0", "::/0"} {
		t.Run(strings.ReplaceAll(dst, "/", "_"), func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.setBraid("secondaryDefaultRoute", "refuse")
			h.nad("a", strings.Replace(staticIPAM("macvlan", "21.0.111.1", `,"routes":[{"dst":"`+dst+`"}]`),
				"{", `{"cniVersion":"1.0.0",`, 1))
			p := h.pod("p", "a")
			h.fails("ADD", p, 7, "default/p", "default/a", "default route", "default-route")
			h.clean(p)
			same(t, "event", h.lastEvent(p).Reason, "DefaultRouteRefused")
		})
	}
}

func TestU17DefaultRouteByThePodsWish(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", strings.Replace(staticIPAM("macvlan", "21.0.111.1", `,"routes":[{"dst":"0.0.0.0/0"}]`),
		"{", `{"cniVersion":"1.0.0",`, 1))
	p := h.pod("p", `[{"name":"a","default-route":["21.0.111.254"]}]`)
	h.add(p)
	same(t, "default routes", defaults(table(p, 4, "main")),
		[]string{"default via 21.0.111.254 dev net1"})
}

// U18, "four topologies".
func TestU18ManyPodsOnOneAttachment(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	var pods []*pod
	for i := range 5 {
		p := h.pod(fmt.Sprintf("p%d", i), "a")
		h.add(p)
		same(t, p.name, h.status(p)[1].IPs, []string{fmt.Sprintf("10.11.0.%d", 2+i)})
		pods = append(pods, p)
	}
	reach(t, pods[0], "10.11.0.6", pods[4])
	for _, p := range pods {
		h.must("DEL", p)
	}
	h.clean(pods...)
}

// reach says that a datagram from one pod gets to the address of another.
func reach(t *testing.T, from *pod, address string, to *pod) {
	t.Helper()
	reachFrom(t, from, "", address, to)
}

// reachFrom is reach with the address that the datagram has as its source; any if it is empty.
func reachFrom(t *testing.T, from *pod, source, address string, to *pod) {
	t.Helper()
	at := &net.UDPAddr{IP: net.ParseIP(address), Port: 5008}
	var server *net.UDPConn
	err := to.Run(func() (err error) {
		server, err = net.ListenUDP("udp4", at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	err = from.Run(func() error {
		client, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(source)}, at)
		if err != nil {
			return err
		}
		defer client.Close()
		_, err = client.Write([]byte("ping"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := receive(t, server, 20*time.Second); text != "ping" {
		t.Errorf("%s does not reach %s", from.name, address)
	}
}

func TestU18OnePodManyAttachments(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var networks, want []string
	for i := range 8 {
		h.nad(fmt.Sprintf("n%d", i), h.macvlan(11+i, ""))
		networks = append(networks, fmt.Sprintf("n%d", i))
		want = append(want, fmt.Sprintf("net%d", i+1))
	}
	p := h.pod("p", strings.Join(networks, ","))
	h.add(p)
	h.has(p, append([]string{"eth0"}, want...)...)
	for i, s := range h.status(p)[1:] {
		same(t, s.Name, s.IPs, []string{fmt.Sprintf("10.%d.0.2", 11+i)})
	}
	h.must("DEL", p)
	h.clean(p)
}

func TestU18SeveralAttachmentsOverOneNodeInterface(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	h.nad("b", h.macvlan(12, ""))
	p, q := h.pod("p", "a"), h.pod("q", "b,a")
	h.add(p)
	h.add(q)
	reach(t, p, "10.11.0.3", q)
	h.must("DEL", p)
	h.must("CHECK", q)
	h.must("DEL", q)
	h.clean(p, q)
}

func TestU18SameAttachmentTwice(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a,a")
	h.add(p)
	h.has(p, "eth0", "net1", "net2")
	same(t, "leases", h.leases(), []string{"a/10.11.0.2", "a/10.11.0.3", "pods/10.1.0.2"})
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

// mistake is a pod that asks for something that cannot be had, and what its event has to say.
type mistake struct {
	networks string // the pod's annotation
	config   string // of the NAD "a"; empty: there is none
	code     uint
	reason   string
	words    []string // of the event, besides the pod: NAD, plugin, what to do
}

func mistakes() map[string]mistake {
	return map[string]mistake{
		"no such NAD":   {"a", "", 7, "NADNotFound", []string{`"a"`, "create it"}},
		"no annotation": {"[{]", "{}", 7, "InvalidAnnotation", []string{nadv1.NetworksAnnotation}},
		"no JSON":       {"a", "{", 7, "NADInvalid", []string{"default/a", "JSON"}},
		"no type":       {"a", `{"cniVersion":"1.0.0"}`, 7, "NADInvalid", []string{"default/a", "type"}},
		"no plugin": {
			"a", `{"cniVersion":"1.0.0","type":"nosuch"}`, 7, "PluginNotFound",
			[]string{"default/a", "nosuch", "install"},
		},
		"no IPAM plugin": {"a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0",` +
			`"ipam":{"type":"nosuch"}}`, 7, "PluginNotFound", []string{"default/a", "nosuch", "install"}},
		"path as plugin": {
			"a", `{"cniVersion":"1.0.0","type":"../nosuch"}`, 7, "NADInvalid",
			[]string{"default/a", "type"},
		},
		"no master": {
			"a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nosuch0","ipam":{}}`, 7,
			"PluginFailed",
			[]string{"default/a", "plugin macvlan", "nosuch0", "no such interface"},
		},
		"wrong value": {
			"a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","mtu":"1500"}`, 7,
			"NADInvalid",
			[]string{"default/a", "plugin macvlan", "mtu", "int"},
		},
		"wrong in IPAM": {
			"a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0",` +
				`"ipam":{"type":"host-local","subnet":5}}`, 7, "NADInvalid",
			[]string{"default/a", "plugin host-local", "subnet"},
		},
		"no such mode": {
			"a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","mode":"nosuch"}`,
			7, "NADInvalid",
			[]string{"default/a", "plugin macvlan", "mode", "nosuch"},
		},
		"no subnet": {
			"a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0",` +
				`"ipam":{"type":"host-local","subnet":"nosuch"}}`, 7, "NADInvalid",
			[]string{"default/a", "subnet", "nosuch"},
		},
		"no range": {
			"a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0",` +
				`"ipam":{"type":"whereabouts","range":"nosuch"}}`, 7, "NADInvalid",
			[]string{"default/a", "plugin whereabouts", "range", "nosuch"},
		},
		"no capability": {
			`[{"name":"a","ips":["10.0.0.1/24"]}]`,
			`{"cniVersion":"1.0.0","type":"macvlan"}`, 7, "MissingCapability",
			[]string{"default/a", "ips", "capabilities", "macvlan"},
		},
		"another's NAD": {"other/a", "{}", 7, "NADForbidden", []string{"other/a", "globalNamespaces"}},
		"name twice": {
			"a@x,a@x", `{"cniVersion":"1.0.0","type":"macvlan"}`, 7, "InvalidAnnotation",
			[]string{"default/a", `"x"`, "an interface of its own"},
		},
		"no device": {
			"device", `{"cniVersion":"1.0.0","type":"macvlan"}`, 7, "DeviceUnavailable",
			[]string{"default/device", "kubelet"},
		},
		"bad MAC": {
			`[{"name":"a","mac":"02:00"}]`, `{"cniVersion":"1.0.0","type":"macvlan"}`, 7,
			"InvalidAnnotation",
			[]string{"mac", "02:00"},
		},
	}
}

// The pod does not start, nothing is left of it, and its event says why.
func TestU19Misconfiguration(t *testing.T) {
	t.Parallel()
	for name, m := range mistakes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if m.config != "" {
				h.nad("a", m.config)
			}
			h.nad("device", `{"cniVersion":"1.0.0","type":"host-device"}`, nadv1.ResourceNameAnnotation,
				"example.com/vf")
			p := h.pod("p", m.networks)
			h.fails("ADD", p, m.code, append(m.words, "default/p")...)
			h.clean(p)
			h.must("DEL", p) // the pod can be deleted
			h.clean(p)
			last := h.lastEvent(p)
			same(t, "event", last.Type+" "+last.Reason, "Warning "+m.reason)
			for _, word := range append(m.words, "default/p") {
				if !strings.Contains(last.Message, word) {
					t.Errorf("the event does not say %q: %s", word, last.Message)
				}
			}
		})
	}
}

func TestU19AttachmentsAreToldToo(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	h.nad("b", h.macvlan(12, ""))
	h.nad("kube-system/blue", h.macvlan(13, ""))
	for _, test := range []struct {
		pod  *pod
		want []string
	}{
		{h.pod("none", ""), nil},
		{h.pod("two", "a,b"), []string{
			"Add eth0 [10.1.0.3] from pods", "Add net1 [10.11.0.2] from default/a",
			"Add net2 [10.12.0.2] from default/b",
		}},
		{
			h.pod("default", "", nadv1.DefaultNetworkAnnotation, "blue"),
			[]string{"Add eth0 [10.13.0.2] from kube-system/blue"},
		},
	} {
		h.add(test.pod)
		got, want := map[podEvent]bool{}, map[podEvent]bool{}
		for _, e := range h.events(test.pod) {
			got[e] = true
		}
		for _, message := range test.want {
			want[podEvent{"Normal", "AddedInterface", message}] = true
		}
		same(t, "events of pod "+test.pod.name, got, want)
	}
}

// U20, "logs".
func TestU20OneLineForEachAttachment(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.conf["logLevel"] = "info"
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a,a")
	h.add(p)
	h.must("DEL", p)
	var got []string
	for line := range strings.Lines(h.log()) {
		m := regexp.MustCompile(`level=(\S+) msg=(\S+).* duration=\S+s`).FindStringSubmatch(line)
		if m == nil || !strings.Contains(line, "pod=default/p ") {
			t.Errorf("unexpected: %s", line)
			continue
		}
		at := regexp.MustCompile(`network=(\S+) interface=(\S+)`).FindStringSubmatch(line)
		if at != nil {
			m[2] += " " + at[1] + " " + at[2]
		}
		got = append(got, m[1]+" "+m[2])
	}
	same(t, "log", got, []string{
		"INFO attach pods eth0", "INFO attach default/a net1", "INFO attach default/a net2", "INFO ADD",
		"INFO detach default/a net2", "INFO detach default/a net1", "INFO detach pods eth0", "INFO DEL",
	})
}

func TestU20FailureNamesPodNetworkAndPlugin(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", failing("ADD", 11, "pool is empty"))
	h.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
	p := h.pod("p", "a")
	h.fails("ADD", p, 11)
	for _, want := range []string{
		"level=ERROR", "pod=default/p", "network=default/a", "interface=net1", "plugin=one", "code=11",
		"reason=PluginFailed", "pool is empty",
	} {
		if !strings.Contains(h.log(), want) {
			t.Errorf("no %q in %s", want, h.log())
		}
	}
}

// Configurations may hold secrets, so not even the debug level writes one.
func TestU20NoSecretsAndNoDump(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", failing("CHECK", 100, "not as it was"))
	h.nad("a", `{"cniVersion":"1.0.0","type":"one","password":"s3cret",`+
		`"args":{"cni":{"token":"s3cret"}}}`)
	p := h.pod("p", `[{"name":"a","cni-args":{"key":"s3cret"}}]`)
	h.conf["runtimeConfig"] = map[string]any{"dns": map[string]any{"searches": []string{"s3cret"}}}
	h.add(p)
	h.fails("CHECK", p, 100)
	h.must("DEL", p)
	if h.log() == "" || strings.Contains(h.log(), "s3cret") ||
		strings.Contains(h.log(), `cniVersion`) {
		t.Errorf("log: %s", h.log())
	}
}

func TestU20ModeAndRotation(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.conf["logOptions"] = map[string]any{"maxSize": 1, "maxBackups": 2, "compress": false}
	for range 4 {
		h.write("braid.log", strings.Repeat("x", 1<<20))
		h.fails("CHECK", h.pod("p", ""), 3)
	}
	info, err := os.Stat(h.path("braid.log"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "mode", info.Mode().String(), "-rw-------")
	if info.Size() > 1<<10 || !strings.Contains(h.log(), "CHECK failed") {
		t.Errorf("not rotated: %d bytes", info.Size())
	}
	backups, err := filepath.Glob(h.path("braid-*.log"))
	// The oldest go beside the work; at the end of a process one may be too many until the next.
	if err != nil || len(backups) < 2 || len(backups) > 3 {
		t.Errorf("backups: %q, %v", backups, err)
	}
}

// Without any key about logs there is a log, in its place; here below a /var/log of the process's
// own.
func TestU20LogsByDefault(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	delete(h.conf, "logFile")
	delete(h.conf, "logLevel")
	stdin, err := json.Marshal(h.conf)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c",
		`mount -t tmpfs tmpfs /var/log && { "$0"; cat /var/log/braid.log; }`, os.Args[0])
	cmd.Env = append(os.Environ(), asPlugin+"=1", "CNI_COMMAND=CHECK", "CNI_CONTAINERID=unknown",
		"CNI_NETNS="+h.node.Path,
		"CNI_IFNAME=eth0", "CNI_PATH="+pluginDir(t))
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `level=ERROR msg="CHECK failed"`) {
		t.Errorf("log: %s, %v", out, err)
	}
}

// `ip a` in the pod.
func TestU21InterfacesAndAddresses(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	h.nad("b", h.macvlan(12, ""))
	p := h.pod("p", "a,b")
	h.add(p)
	same(t, "links", p.Links(),
		"link eth0 veth mtu 1500 up\nlink lo device mtu 65536 up\nlink net1 macvlan mtu 1500 up\nlink "+
			"net2 macvlan mtu 1500 up\n")
	same(t, "addresses", p.Addrs(),
		"addr eth0 10.1.0.2/16\naddr lo 127.0.0.1/8\naddr lo ::1/128\naddr net1 10.11.0.2/24\naddr "+
			"net2 10.12.0.2/24\n")
}

// U22, "network-status, exact".
func TestU22ExactAnnotationOfAPod(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	// without a default route: its "gateway" would be there, which the guide does not show
	network := h.defaultNetwork()
	network["ipam"] = map[string]any{
		"type": "host-local", "dataDir": h.path("leases"), "subnet": "10.1.0.0/16",
	}
	h.conf["delegates"] = []any{network}
	h.nad("gke-network-1", h.macvlan(11, ""))
	p := h.pod("p", "gke-network-1")
	h.add(p)
	data, err := os.ReadFile(h.path("manifests", "default_p.network-status.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := `[{
    "name": "pods",
    "interface": "eth0",
    "ips": ["10.1.0.2"],
    "mac": "` + p.Link("eth0").Attrs().HardwareAddr.String() + `",
    "default": true,
    "dns": {}
},{
    "name": "default/gke-network-1",
    "interface": "net1",
    "ips": ["10.11.0.2"],
    "mac": "` + p.Link("net1").Attrs().HardwareAddr.String() + `",
    "dns": {}
}]`
	same(t, "annotation", strings.TrimSpace(string(data)), want)
}

// TestR10ValuesBeforeTheFirstChange: what a plugin refuses whatever the pod is refused before any
// plugin has run, the default network's among them.
func TestR10ValuesBeforeTheFirstChange(t *testing.T) {
	t.Parallel()
	for field, config := range map[string]string{
		"vlan 4095":                 `{"type":"bridge","vlan":4095}`,
		"mode \"l2\"":               `{"type":"macvlan","mode":"l2"}`,
		"mtu -1":                    `{"type":"macvlan","mtu":-1}`,
		"mac \"01:00:00:00:00:00\"": `{"type":"macvlan","mac":"01:00:00:00:00:00"}`,
		"vlan 4096":                 `{"type":"macvlan","vlan":4096}`,
		"mode \"bridge\"":           `{"type":"ipvlan","mode":"bridge"}`,
		"vlanTrunk[0].id 0":         `{"type":"bridge","vlanTrunk":[{"id":0}]}`,
		"ipam.subnet":               `{"type":"bridge","ipam":{"type":"host-local","subnet":"10.0.0.0/240"}}`,
		"ipam.rangeEnd": `{"type":"bridge","ipam":{"type":"host-local",` +
			`"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"}}`,
		"ipam.range": `{"type":"bridge","ipam":{"type":"whereabouts","range":"10.0.0.0-24"}}`,
		"ipam.ipRanges[0].range_start": `{"type":"bridge","ipam":{"type":"whereabouts",` +
			`"ipRanges":[{"range":"10.0.0.0/24","range_start":"10.0.1.1"}]}}`,
		"ipam.addresses[0].address": `{"type":"bridge","ipam":{"type":"static","addresses":[{"address":"10.0.0.1"}]}}`,
		"ipam.routes[0].dst":        `{"type":"bridge","ipam":{"type":"static","routes":[{"dst":"10.0.0"}]}}`,
		"table 0":                   `{"plugins":[{"type":"bridge"},{"type":"sbr","table":0}]}`,
		"sysctl \"kernel.panic\"":   `{"plugins":[{"type":"bridge"},{"type":"tuning","sysctl":{"kernel.panic":"1"}}]}`,
		"markMasqBit 32":            `{"plugins":[{"type":"bridge"},{"type":"portmap","markMasqBit":32}]}`,
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.conf["logLevel"] = "debug"
			h.nad("a", `{"cniVersion":"1.0.0",`+config[1:])
			p := h.pod("p", "a")
			h.fails("ADD", p, types.ErrInvalidNetworkConfig, "default/a", field)
			if strings.Contains(h.log(), "plugin ran") {
				t.Errorf("a plugin ran:\n%s", h.log())
			}
			h.must("DEL", p)
			h.clean(p)
		})
	}
}
