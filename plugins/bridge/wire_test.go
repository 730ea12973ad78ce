package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/bridge"
)

type conf = plugintest.Conf

// within bounds the wait for what comes for certain.
const within = 20 * time.Second

// ours are the plugins that the tests run in-process.
func ours() plugintest.Plugins {
	return plugintest.Plugins{"bridge": plugin.New(bridge.Plugin{}), "fixed": plugin.NewIPAM(fixed{})}
}

func node(t testing.TB) *plugintest.Node {
	t.Helper()
	return plugintest.New(t, ours())
}

// fixed is an IPAM plugin that returns what its configuration says; a pod "+5" gets addresses that
// are higher by 5.
type fixed struct{}

type fixedConf struct {
	Type   string               `json:"type"`
	IPs    []*types100.IPConfig `json:"ips"`
	Routes []*types.Route       `json:"routes"`
	DNS    types.DNS            `json:"dns"`
	// Fail is the command that fails.
	Fail string `json:"fail"`
}

func (fixed) Add(_ context.Context, req *plugin.Request, c *fixedConf) (*types100.Result, error) {
	ips := make([]*types100.IPConfig, len(c.IPs))
	for i, ip := range c.IPs {
		copied := *ip
		copied.Address.IP = append(net.IP(nil), ip.Address.IP...)
		var more byte
		if _, err := fmt.Sscanf(req.ContainerID, "+%d", &more); err == nil {
			copied.Address.IP[len(copied.Address.IP)-1] += more
		}
		ips[i] = &copied
	}
	return &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion, IPs: ips, Routes: c.Routes, DNS: c.DNS,
	}, c.fail("ADD")
}

func (fixed) Del(_ context.Context, _ *plugin.Request, c *fixedConf) error { return c.fail("DEL") }

func (fixed) Check(_ context.Context, _ *plugin.Request, c *fixedConf) error {
	return c.fail("CHECK")
}
func (fixed) GC(_ context.Context, _ *plugin.Request, c *fixedConf) error { return c.fail("GC") }
func (fixed) Status(_ context.Context, _ *plugin.Request, c *fixedConf) error {
	return c.fail("STATUS")
}

var errFixed = types.NewError(types.ErrPluginNotAvailable, "as the test wants it", "")

func (c *fixedConf) fail(command string) error {
	if c.Fail == command {
		return errFixed
	}
	return nil
}

// ipam is the configuration of the plugin fixed with addresses, each as "10.1.0.2/24" or
// "10.1.0.2/24 via 10.1.0.1".
func ipam(addresses ...string) conf {
	var ips []conf
	for _, a := range addresses {
		address, gateway, ok := strings.Cut(a, " via ")
		ip := conf{"address": address}
		if ok {
			ip["gateway"] = gateway
		}
		ips = append(ips, ip)
	}
	return conf{"type": "fixed", "ips": ips}
}

// everything is a configuration for which all is made that an attachment can have.
func everything() conf {
	return conf{
		"type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true, "macspoofchk": true,
		"ipam": ipam("10.1.0.2/24", "fd00::2/64"),
	}
}

// rules is the node's packet filter, without what says nothing.
func rules(tb testing.TB, n *nettest.Namespace) string {
	tb.Helper()
	out, err := command(tb, n, "nft", "list", "ruleset")
	if err != nil {
		tb.Fatalf("nft: %v: %s", err, out)
	}
	return out
}

// awaitRoutes waits until the node has the routes of the gateway's addresses <prefix>1: the kernel
// makes them when it has checked that nobody else has the addresses.
func awaitRoutes(t *testing.T, n *nettest.Namespace, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
			routes := n.Routes()
			if strings.Contains(routes, " local "+p+"1/128 ") &&
				strings.Contains(routes, " anycast "+p+"/128 ") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("no routes of %s1:\n%s", p, routes)
			}
		}
	}
}

// command runs a program in a namespace.
func command(tb testing.TB, n *nettest.Namespace, name string, args ...string) (string, error) {
	tb.Helper()
	var out []byte
	err := n.Run(func() (err error) {
		out, err = exec.CommandContext(tb.Context(), name, args...).CombinedOutput()
		return err
	})
	return string(out), err
}

// state is all that an attachment may leave on a node.
func state(tb testing.TB, n *plugintest.Node) string {
	tb.Helper()
	return n.Host.Snapshot() + rules(tb, n.Host)
}

func add(tb testing.TB, p *plugintest.Pod, c conf) *types100.Result {
	tb.Helper()
	result, err := p.Add(c)
	if err != nil {
		tb.Fatalf("ADD of %s: %v", p.ID, err)
	}
	return result
}

func has(t *testing.T, n *nettest.Namespace, lines ...string) {
	t.Helper()
	got := n.Snapshot()
	for _, want := range lines {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
}

// listen makes a UDP socket in a namespace.
func listen(t *testing.T, n *nettest.Namespace, address string) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	err := n.Run(func() (err error) {
		c, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// talk sends packets from a socket to another until one arrives, and returns the address that it
// comes from.
func talk(t *testing.T, from, to net.PacketConn) string {
	t.Helper()
	target, text := to.LocalAddr(), from.LocalAddr().String()
	buffer := make([]byte, 100)
	for end := time.Now().Add(within); time.Now().Before(end); {
		// It may fail as long as a neighbour is not resolved.
		_, _ = from.WriteTo([]byte(text), target)
		_ = to.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		// Earlier packets of another may be there still.
		if n, source, err := to.ReadFrom(buffer); err == nil && string(buffer[:n]) == text {
			host, _, _ := net.SplitHostPort(source.String())
			return host
		}
	}
	t.Fatalf("nothing from %s reaches %s", from.LocalAddr(), target)
	return ""
}

// wire sends and receives frames on a link.
type wire struct {
	t   *testing.T
	fd  int
	at  string
	mac net.HardwareAddr
}

// etherType is one for experiments.
const etherType = 0x88b5

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func tap(t *testing.T, n *nettest.Namespace, link string) *wire {
	t.Helper()
	l := n.Link(link).Attrs()
	w := &wire{t: t, at: link, mac: l.HardwareAddr}
	err := n.Run(func() (err error) {
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swap(etherType)))
		if err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: swap(etherType), Ifindex: l.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(w.fd) })
	return w
}

func swap(n uint16) uint16 { return n<<8 | n>>8 }

// send sends a text.
func (w *wire) send(from, to net.HardwareAddr, text string) {
	w.t.Helper()
	frame := append(append(append([]byte(nil), to...), from...), etherType>>8, etherType&0xff)
	frame = append(frame, text...)
	if _, err := unix.Write(w.fd, append(frame, make([]byte, 60)...)); err != nil {
		w.t.Fatal(err)
	}
}

// next waits for the next text that arrives.
func (w *wire) next() string {
	w.t.Helper()
	limit := unix.NsecToTimeval(within.Nanoseconds())
	_ = unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	buffer := make([]byte, 2000)
	for {
		n, from, err := unix.Recvfrom(w.fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			w.t.Fatalf("nothing arrives at %s: %v", w.at, err)
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		text, _, _ := strings.Cut(string(buffer[14:n]), "\x00")
		return text
	}
}

// expect fails unless the next text that arrives is this one.
func (w *wire) expect(want string) {
	w.t.Helper()
	if got := w.next(); got != want {
		w.t.Errorf("at %s %q arrives, want %q", w.at, got, want)
	}
}

// hostLink is the node's end of the link of a pod's last ADD.
func hostLink(t *testing.T, p *plugintest.Pod) netlink.Link {
	t.Helper()
	result, err := plugintest.Parse(p.Prev)
	if err != nil {
		t.Fatal(err)
	}
	return p.Node.Host.Link(result.Interfaces[1].Name)
}

func text(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
