package portmap_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/pkg/sysctl"
	"github.com/braid-cni/braid/plugins/portmap"
)

type (
	conf = plugintest.Conf
	list = []any
)

// within bounds the wait for what comes for certain.
const within = 20 * time.Second

// world is a node that routes between a client, another host and the pods on its bridge.
//
//	client 192.0.2.2 --- 192.0.2.1, .9 node 198.51.100.1 --- 198.51.100.2 other
//	                         10.1.0.1 |
//	                                  pods 10.1.0.2, ...
//
// The IPv6 addresses are 2001:db8:1::, 2001:db8:2:: and fd00:1:: with the same ends.
type world struct {
	*plugintest.Node
	t             testing.TB
	client, other *nettest.Namespace
}

func newWorld(t testing.TB, runner plugintest.Runner) *world {
	t.Helper()
	w := &world{plugintest.New(t, runner), t, nettest.New(t), nettest.New(t)}
	for _, n := range []*nettest.Namespace{w.Host, w.client, w.other} {
		set(t, n, "net/ipv6/conf/default/accept_dad", "0")
	}
	set(t, w.Host, "net/ipv4/ip_forward", "1")
	set(t, w.Host, "net/ipv6/conf/all/forwarding", "1")
	w.Host.Veth("nic0", w.client, "eth0")
	w.Host.Veth("nic1", w.other, "eth0")
	w.Host.Bridge("br0")
	w.Host.Addr("nic0", "192.0.2.1/24", "192.0.2.9/24", "2001:db8:1::1/64", "2001:db8:1::9/64")
	w.Host.Addr("nic1", "198.51.100.1/24", "2001:db8:2::1/64")
	w.Host.Addr("br0", "10.1.0.1/24", "fd00:1::1/64")
	w.client.Addr("eth0", "192.0.2.2/24", "192.0.2.3/24", "2001:db8:1::2/64")
	w.other.Addr("eth0", "198.51.100.2/24", "2001:db8:2::2/64")
	for n, gateways := range map[*nettest.Namespace][]string{
		w.client: {"192.0.2.1", "2001:db8:1::1"}, w.other: {"198.51.100.1", "2001:db8:2::1"},
	} {
		for _, gw := range gateways {
			n.Route("default", gw, "eth0", 0)
		}
	}
	return w
}

func ours() plugintest.Plugins {
	return plugintest.Plugins{"portmap": plugin.New(portmap.Plugin{})}
}

func set(t testing.TB, n *nettest.Namespace, key, value string) {
	t.Helper()
	ns, err := netns.Open(n.Path)
	if err == nil {
		defer ns.Close()
		err = sysctl.Set(ns, sysctl.Setting{Key: key, Value: value})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, n *nettest.Namespace, key string) string {
	t.Helper()
	ns, err := netns.Open(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	values, err := sysctl.Get(ns, key)
	if err != nil {
		t.Fatal(err)
	}
	return values[0]
}

// pod makes a pod with interfaces on the bridge, each with the end of its addresses: "net1" 2 has
// 10.1.0.2 and fd00:1::2. IfName is the first.
func (w *world) pod(id string, ends ...int) *plugintest.Pod {
	w.t.Helper()
	p := w.Pod(id)
	set(w.t, p.Namespace, "net/ipv6/conf/default/accept_dad", "0")
	for i, end := range ends {
		name := fmt.Sprintf("net%d", i+1)
		port := fmt.Sprintf("%s-%s", id, name)
		w.Host.Veth(port, p.Namespace, name)
		w.Host.Master(port, "br0")
		// As the bridge plugin's hairpinMode, for what goes back to where it came from.
		if err := w.Host.Netlink().LinkSetHairpin(w.Host.Link(port), true); err != nil {
			w.t.Fatal(err)
		}
		p.Addr(name, fmt.Sprintf("10.1.0.%d/24", end), fmt.Sprintf("fd00:1::%d/64", end))
		if i == 0 {
			p.Route("default", "10.1.0.1", name, 0)
			p.Route("default", "fd00:1::1", name, 0)
		}
	}
	return p
}

// chain is the configuration with the result of the plugin that made the pod's interface.
func chain(p *plugintest.Pod, end int, c conf, mappings ...conf) conf {
	c = conf{"type": "portmap", "prevResult": conf{
		"cniVersion": "1.1.0",
		"interfaces": list{conf{"name": "br0"}, conf{"name": p.IfName, "sandbox": p.NetNS}},
		"ips": list{
			conf{"address": "10.1.0.1/24", "interface": 0},
			conf{"address": fmt.Sprintf("10.1.0.%d/24", end), "interface": 1, "gateway": "10.1.0.1"},
			conf{"address": fmt.Sprintf("fd00:1::%d/64", end), "interface": 1, "gateway": "fd00:1::1"},
			conf{"address": "10.9.9.9/24", "interface": 1},
		},
		"dns": conf{"nameservers": list{"10.1.0.1"}},
	}}.With(c)
	if len(mappings) > 0 {
		c["runtimeConfig"] = conf{"portMappings": mappings}
	}
	return c
}

// port is a mapping.
func port(protocol string, host, container int) conf {
	return conf{"hostPort": host, "containerPort": container, "protocol": protocol}
}

func add(t testing.TB, p *plugintest.Pod, c conf) {
	t.Helper()
	if _, err := p.Add(c); err != nil {
		t.Fatalf("ADD of %s %s: %v", p.ID, p.IfName, err)
	}
}

// rules is the node's packet filter without handles.
func rules(t testing.TB, n *nettest.Namespace) string {
	t.Helper()
	return nftables(t, n, "list", "ruleset")
}

func nftables(t testing.TB, n *nettest.Namespace, args ...string) string {
	t.Helper()
	var out []byte
	err := n.Run(func() (err error) {
		out, err = exec.CommandContext(t.Context(), "nft", args...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	return string(out)
}

var comments = regexp.MustCompile(` comment "[^"]*"`)

// same compares the packet filter, but for comments, with what is wanted.
func same(t *testing.T, n *nettest.Namespace, want string) {
	t.Helper()
	clean := func(s string) string {
		var lines []string
		for line := range strings.Lines(comments.ReplaceAllString(s, "")) {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	if got := clean(rules(t, n)); got != clean(want) {
		t.Errorf("rules:\n%s\nwant:\n%s", got, clean(want))
	}
}

// serve answers everybody at a port of a namespace, TCP and UDP, with the name and the address that
// the question came from, until it is stopped or the test ends.
func serve(t testing.TB, n *nettest.Namespace, address, name string) (stop func()) {
	t.Helper()
	var stream net.Listener
	var packets net.PacketConn
	err := n.Run(func() (err error) {
		if stream, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", address); err == nil {
			packets, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", address)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stop = func() { _, _ = stream.Close(), packets.Close() }
	t.Cleanup(stop)
	answer := func(from net.Addr) []byte {
		return []byte(name + " saw " + netip.MustParseAddrPort(from.String()).Addr().Unmap().String())
	}
	go func() {
		for {
			c, err := stream.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(answer(c.RemoteAddr()))
			_ = c.Close()
		}
	}()
	go func() {
		buffer := make([]byte, 100)
		for {
			_, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(answer(from), from)
		}
	}()
	return stop
}

// ask connects from a namespace and returns the answer.
func ask(t testing.TB, n *nettest.Namespace, network, address string, local ...net.Addr) string {
	t.Helper()
	c := dial(t, n, network, address, local...)
	defer c.Close()
	answer, err := question(c)
	if err != nil {
		t.Errorf("%s %s: %v", network, address, err)
	}
	return answer
}

func dial(t testing.TB, n *nettest.Namespace, network, address string, local ...net.Addr) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	d := &net.Dialer{}
	if len(local) > 0 {
		d.LocalAddr = local[0]
	}
	var c net.Conn
	err := n.Run(func() (err error) {
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		t.Fatalf("%s %s: %v", network, address, err)
	}
	return c
}

// question sends a packet, over UDP again and again, and waits for the answer.
func question(c net.Conn) (string, error) {
	buffer := make([]byte, 100)
	_, datagrams := c.(*net.UDPConn)
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); {
		if _, err = c.Write([]byte("?")); err != nil && !datagrams {
			return "", err
		}
		wait := within
		if datagrams {
			wait = 200 * time.Millisecond
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		var length int
		if length, err = c.Read(buffer); err == nil {
			return string(buffer[:length]), nil
		}
	}
	return "", err
}

// expect asks and compares the answer.
func expect(t testing.TB, n *nettest.Namespace, network, address, want string) {
	t.Helper()
	if got := ask(t, n, network, address); got != want {
		t.Errorf("%s %s: answer %q, want %q", network, address, got, want)
	}
}

func object(t testing.TB, raw []byte) (value map[string]any) {
	t.Helper()
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// from is a local address to connect from.
func from(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

// state is all that mappings may leave on the node.
func (w *world) state() string {
	w.t.Helper()
	return w.Host.Snapshot() + rules(w.t, w.Host)
}

func (w *world) is(before string) {
	w.t.Helper()
	if after := w.state(); after != before {
		w.t.Errorf("the node is:\n%s\nwant:\n%s", after, before)
	}
}

// runners are ours and the reference.
func runners() map[string]plugintest.Runner {
	return map[string]plugintest.Runner{"ours": ours(), "reference": plugintest.Reference{}}
}

// failsOnly fails the test unless what is right for ours, and only for ours.
func failsOnly(t *testing.T, name string, right bool, what string) {
	t.Helper()
	if name == "ours" && !right {
		t.Errorf("wrong: %s", what)
	}
	if name != "ours" && right {
		t.Errorf("the reference does it right, so that the test shows nothing: %s", what)
	}
}

// either is ours or the reference.
type either struct{ reference bool }

func (e *either) Run(
	ctx context.Context, node *plugintest.Node, kind string, environ []string, stdin []byte,
) ([]byte, error) {
	if e.reference {
		return plugintest.Reference{}.Run(ctx, node, kind, environ, stdin)
	}
	return ours().Run(ctx, node, kind, environ, stdin)
}
