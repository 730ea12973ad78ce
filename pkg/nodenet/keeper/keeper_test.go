package keeper_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nodenet"
	"github.com/braid-cni/braid/pkg/nodenet/ask"
	"github.com/braid-cni/braid/pkg/nodenet/keeper"
)

// machine is a node with the NIC ens224. The other end of the NIC is in the network lan.
type machine struct {
	t          *testing.T
	node, lan  *nettest.Namespace
	file, boot string

	stop func() // of the keeper that runs

	mu     sync.Mutex
	config []nodenet.Interface
	bad    error
	looks  int // how often the configuration was read
	states []nodenet.State
	wrong  error
	events []string
	log    bytes.Buffer
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	t.Parallel()
	m := &machine{
		t: t, node: nettest.New(t), lan: nettest.New(t),
		file: filepath.Join(t.TempDir(), "node-interfaces.json"), boot: "boot-1",
	}
	m.node.Veth("ens224", m.lan, "port")
	m.node.Down("ens224")
	return m
}

// start runs an agent's keeper until stop is called.
func (m *machine) start() (stop func()) {
	m.t.Helper()
	ns, err := netns.Open(m.node.Path)
	if err != nil {
		m.t.Fatal(err)
	}
	k := &keeper.Keeper{
		NS: ns, Node: "node-1", File: m.file, Boot: m.boot, Network: &ask.Network{NS: ns, Node: "node-1"},
		Configuration: func() ([]nodenet.Interface, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.looks++
			return m.config, m.bad
		},
		Report: func(states []nodenet.State, err error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.states, m.wrong = states, err
		},
		Tell: func(reason, message string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.events = append(m.events, reason+": "+message)
		},
		Log: slog.New(slog.NewTextHandler(&lockedWriter{m: m},
			&slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				m.t.Error(err)
			}
			ns.Close()
		})
	}
	m.t.Cleanup(stop)
	m.stop = stop
	return stop
}

type lockedWriter struct{ m *machine }

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	return w.m.log.Write(p)
}

func (m *machine) configure(text string) {
	m.t.Helper()
	config, err := nodenet.Parse([]byte(text))
	if err != nil {
		m.t.Fatal(err)
	}
	m.mu.Lock()
	m.config = config
	m.mu.Unlock()
	m.poke()
}

// poke has the keeper look, which it does by itself some seconds later.
func (m *machine) poke() {
	m.t.Helper()
	m.node.Add(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "poke"}})
	if err := m.node.Netlink().LinkDel(m.node.Link("poke")); err != nil {
		m.t.Fatal(err)
	}
}

// await waits until what holds.
func (m *machine) await(what string, holds func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.t.Fatalf("%s: not within a minute; states %+v, events %q, addresses %q\n%s",
				what, m.states, m.events, m.addrs("ens224"), m.log.String())
		}
	}
}

// addrs are the IPv4 addresses of a link of the node, and those of IPv6 that are not link-local.
func (m *machine) addrs(name string) (all []string) {
	link, err := m.node.Netlink().LinkByName(name)
	if err != nil {
		return nil
	}
	list, err := m.node.Netlink().AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil
	}
	for _, a := range list {
		if !a.IP.IsLinkLocalUnicast() {
			all = append(all, a.IPNet.String())
		}
	}
	slices.Sort(all)
	return all
}

func (m *machine) has(name string, want ...string) func() bool {
	return func() bool { return slices.Equal(m.addrs(name), want) }
}

// state waits for the state of the first network, "Ready ens224 [10.0.0.2/24] why".
func (m *machine) state(want string) {
	m.t.Helper()
	m.await("state "+want, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.states) == 0 {
			return false
		}
		s := m.states[0]
		return strings.HasPrefix(fmt.Sprintf("%s %s %v %v", s.Condition, s.NIC, s.Addresses, s.Err), want)
	})
}

func (m *machine) event(want string) {
	m.t.Helper()
	m.await("event "+want, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return slices.ContainsFunc(m.events, func(e string) bool { return strings.Contains(e, want) })
	})
}

// told fails the test if there were events of other reasons.
func (m *machine) told(reasons ...string) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		if reason, _, _ := strings.Cut(e, ":"); !slices.Contains(reasons, reason) {
			m.t.Errorf("event %q", e)
		}
	}
}

// defaults fails the test if the node has a default route.
func (m *machine) defaults() {
	m.t.Helper()
	routes := m.node.Routes()
	if strings.Contains(routes, "default") || strings.Contains(routes, "0.0.0.0/0") {
		m.t.Errorf("there is a default route:\n%s", routes)
	}
}

const static = `[{"network": "data", "match": {"name": "ens224"}, "type": "static", "blocks": [
	{"netmask": "255.255.255.0", "gateway": "10.0.0.1", "ips": [{"ip": "10.0.0.2", "hostname": "node-1"}, {"ip": "10.0.0.3", "hostname": "node-2"}]},
	{"netmask": "64", "gateway": "fd00::1", "ips": [{"ip": "fd00::2", "hostname": "node-1"}]}]}]`

func byMAC(config, mac string) string {
	return strings.Replace(config, `"name": "ens224"`, `"mac": "`+mac+`"`, 1)
}

// TestU7StaticAddress: the NIC of the network is set up and has the node's address; over a restart
// of the agent, and as long as the network is in the configuration.
func TestU7StaticAddress(t *testing.T) {
	m := newMachine(t)
	m.node.Addr("ens224", "192.0.2.5/24") // somebody else's
	m.configure(static)
	stop := m.start()
	m.await("addresses", m.has("ens224", "10.0.0.2/24", "192.0.2.5/24", "fd00::2/64"))
	m.state("Ready ens224 [10.0.0.2/24 fd00::2/64]")
	m.defaults()
	stop()
	if !m.has("ens224", "10.0.0.2/24", "192.0.2.5/24", "fd00::2/64")() {
		t.Errorf("after the agent's end: %q", m.addrs("ens224"))
	}
	stop = m.start()
	m.state("Ready ens224 [10.0.0.2/24 fd00::2/64]")
	m.configure(strings.Replace(static, `"10.0.0.2"`, `"10.0.0.4"`, 1))
	m.await("another address", m.has("ens224", "10.0.0.4/24", "192.0.2.5/24", "fd00::2/64"))
	stop()
	m.configure("[]") // taken out while no agent runs
	m.start()
	m.await("taken back", m.has("ens224", "192.0.2.5/24"))
	m.await("forgotten", func() bool {
		_, err := os.Stat(m.file)
		return errors.Is(err, os.ErrNotExist)
	})
	m.told()
}

// TestU7ForeignAddressStays: an address that was there before is not the agent's to take away.
func TestU7ForeignAddressStays(t *testing.T) {
	m := newMachine(t)
	m.node.Up("ens224")
	m.node.Addr("ens224", "10.0.0.2/24")
	m.configure(static)
	m.start()
	m.state("Ready ens224 [10.0.0.2/24 fd00::2/64]")
	m.configure("[]")
	m.await("taken back", m.has("ens224", "10.0.0.2/24"))
}

// TestU7AddressRemovedByHand: it is put back, and the node has an event.
func TestU7AddressRemovedByHand(t *testing.T) {
	m := newMachine(t)
	m.configure(static)
	m.start()
	m.state("Ready")
	for range 2 {
		addr, err := netlink.ParseAddr("10.0.0.2/24")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.node.Netlink().AddrDel(m.node.Link("ens224"), addr); err != nil {
			t.Fatal(err)
		}
		m.event("NodeInterfaceRestored: network data: address 10.0.0.2/24 was taken from ens224 by " +
			"another program; it is put back")
		m.await("put back", m.has("ens224", "10.0.0.2/24", "fd00::2/64"))
		m.state("Ready")
	}
}

// TestU7AddressInUse: an address that another host answers for is not set, and is when that is
// gone.
func TestU7AddressInUse(t *testing.T) {
	m := newMachine(t)
	m.lan.Addr("port", "10.0.0.2/24")
	m.configure(static)
	m.start()
	m.event("NodeInterfaceFailed: network data: address 10.0.0.2 is in use by another host, " +
		"with MAC " + m.lan.Link("port").Attrs().HardwareAddr.String())
	if slices.Contains(m.addrs("ens224"), "10.0.0.2/24") {
		t.Error("the address is set")
	}
	addr, err := netlink.ParseAddr("10.0.0.2/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.lan.Netlink().AddrDel(m.lan.Link("port"), addr); err != nil {
		t.Fatal(err)
	}
	m.state("Ready ens224 [10.0.0.2/24 fd00::2/64]")
}

// TestU7Renamed: a NIC that is found by its MAC keeps its address under another name.
func TestU7Renamed(t *testing.T) {
	m := newMachine(t)
	m.configure(byMAC(static, m.node.Link("ens224").Attrs().HardwareAddr.String()))
	m.start()
	m.state("Ready ens224")
	m.node.Down("ens224")
	if err := m.node.Netlink().LinkSetName(m.node.Link("ens224"), "ens999"); err != nil {
		t.Fatal(err)
	}
	m.state("Ready ens999 [10.0.0.2/24 fd00::2/64]")
	m.told()
}

// TestU7RenamedAway: one that is found by its name loses what was set on it.
func TestU7RenamedAway(t *testing.T) {
	m := newMachine(t)
	m.configure(static)
	m.start()
	m.state("Ready ens224")
	m.node.Down("ens224")
	if err := m.node.Netlink().LinkSetName(m.node.Link("ens224"), "ens999"); err != nil {
		t.Fatal(err)
	}
	m.event("NodeInterfaceFailed: network data: no NIC has name ens224; give the machine the NIC, " +
		"or correct match in nodeInterfaces")
	m.await("taken back", m.has("ens999"))
}

// TestU7NICAbsent: the NIC is told to be absent, and used when it appears.
func TestU7NICAbsent(t *testing.T) {
	m := newMachine(t)
	m.configure(static)
	m.start()
	m.state("Ready")
	for range 2 {
		if err := m.node.Netlink().LinkDel(m.node.Link("ens224")); err != nil {
			t.Fatal(err)
		}
		m.state("Absent")
		m.event("no NIC has name ens224")
		m.node.Veth("ens224", m.lan, "port")
		m.state("Ready ens224 [10.0.0.2/24 fd00::2/64]")
	}
	m.told("NodeInterfaceFailed")
}

// TestU7LinkBounced: without carrier the addresses stay; a NIC that is set down is set up again.
func TestU7LinkBounced(t *testing.T) {
	m := newMachine(t)
	m.configure(static)
	m.start()
	m.state("Ready")
	m.lan.Down("port")
	m.state("NoCarrier ens224 [10.0.0.2/24")
	m.lan.Up("port")
	m.state("Ready ens224 [10.0.0.2/24 fd00::2/64]")
	m.node.Down("ens224")
	m.await("up", func() bool { return m.node.Link("ens224").Attrs().Flags&net.FlagUp != 0 })
	m.state("Ready ens224 [10.0.0.2/24 fd00::2/64]")
	m.told()
}

// TestU7BlockTooSmall: a node that no entry names has no address, and says so; a hostname twice is
// no configuration, and what was there before stays.
func TestU7BlockTooSmall(t *testing.T) {
	m := newMachine(t)
	m.configure(strings.ReplaceAll(static, "node-1", "node-3"))
	m.start()
	m.event("NodeInterfaceFailed: network data: no address of the blocks has the hostname node-1; " +
		"give the node an entry")
	m.configure(static)
	m.state("Ready")
	_, err := nodenet.Parse([]byte(strings.ReplaceAll(static, "node-2", "node-1")))
	m.mu.Lock()
	m.bad = err
	m.mu.Unlock()
	m.poke()
	m.event("NodeInterfacesInvalid: field nodeInterfaces[0].blocks[0].ips[1].hostname: node-1 is in " +
		"blocks[0].ips[0].hostname already")
	if !m.has("ens224", "10.0.0.2/24", "fd00::2/64")() {
		t.Errorf("addresses %q", m.addrs("ens224"))
	}
}

// TestU7KeptWhileConfigurationIsWrong: interfaces are kept by the last good configuration. Without
// one, as after a start, what was set before is left alone.
func TestU7KeptWhileConfigurationIsWrong(t *testing.T) {
	m := newMachine(t)
	m.configure(static)
	stop := m.start()
	m.state("Ready")
	_, err := nodenet.Parse([]byte(`[{"network": "data"}]`))
	m.mu.Lock()
	m.bad = err
	m.mu.Unlock()
	m.poke()
	m.event("NodeInterfacesInvalid: field nodeInterfaces[0].match")
	isUp := func() bool { return m.node.Link("ens224").Attrs().Flags&net.FlagUp != 0 }
	m.node.Down("ens224")
	m.await("the NIC is up again", isUp)
	m.await("with its addresses", m.has("ens224", "10.0.0.2/24", "fd00::2/64"))
	stop()
	m.events, m.states = nil, nil
	m.node.Down("ens224")
	m.start()
	m.event("NodeInterfacesInvalid")
	m.await("a report of the error alone", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.wrong != nil && m.states == nil
	})
	if isUp() || !slices.Contains(m.addrs("ens224"), "10.0.0.2/24") {
		t.Errorf("up is %v, and addresses are %q", isUp(), m.addrs("ens224"))
	}
	m.mu.Lock()
	m.bad = nil
	m.mu.Unlock()
	m.state("Ready")
}

// TestU7NoDefaultRoute: a router's advertisement sets none.
func TestU7NoDefaultRoute(t *testing.T) {
	m := newMachine(t)
	m.configure(static)
	m.start()
	m.state("Ready")
	var value []byte
	if err := m.node.Run(func() (err error) {
		value, err = os.ReadFile("/proc/sys/net/ipv6/conf/ens224/accept_ra_defrtr")
		return err
	}); err != nil || string(value) != "0\n" {
		t.Errorf("accept_ra_defrtr is %q, %v", value, err)
	}
	m.defaults()
}

// TestU7Reboot: what was set before a boot is set anew, and nobody is accused of having taken it
// away.
func TestU7Reboot(t *testing.T) {
	m := newMachine(t)
	m.configure(static)
	stop := m.start()
	m.state("Ready")
	stop()
	if err := m.node.Netlink().LinkDel(m.node.Link("ens224")); err != nil {
		t.Fatal(err)
	}
	m.node.Veth("ens224", m.lan, "port")
	m.boot, m.states = "boot-2", nil
	m.start()
	m.state("Ready ens224 [10.0.0.2/24 fd00::2/64]")
	m.told()
}

// dhcp is a server in the network of the NIC.
type dhcp struct {
	mu sync.Mutex
	// asked are the messages, in order.
	asked []dhcpv4.MessageType
	// unicast counts those that were sent to the server alone.
	unicast int
	offer   net.IP
	life    time.Duration
	silent  bool
}

func (d *dhcp) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

func (d *dhcp) serve(t *testing.T, lan *nettest.Namespace) {
	t.Helper()
	lan.Addr("port", "10.7.0.1/24")
	var s *server4.Server
	if err := lan.Run(func() (err error) {
		s, err = server4.NewServer("port", &net.UDPAddr{Port: 67}, d.answer)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); s.Serve() }()
	t.Cleanup(func() { s.Close(); <-ended })
}

func (d *dhcp) answer(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, m.MessageType())
	if d.silent {
		return
	}
	kind := dhcpv4.MessageTypeOffer
	if m.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
		asked := m.RequestedIPAddress()
		if asked == nil {
			asked = m.ClientIPAddr
		}
		if !asked.Equal(d.offer) {
			kind = dhcpv4.MessageTypeNak
		}
		if udp, ok := peer.(*net.UDPAddr); ok && !udp.IP.IsUnspecified() {
			d.unicast++
		}
	}
	reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind),
		dhcpv4.WithYourIP(d.offer), dhcpv4.WithServerIP(net.IP{10, 7, 0, 1}),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{10, 7, 0, 1})),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithRouter(net.IP{10, 7, 0, 1}), dhcpv4.WithLeaseTime(uint32(d.life/time.Second)))
	if err != nil {
		return
	}
	to := &net.UDPAddr{IP: net.IPv4bcast, Port: 68}
	if udp, ok := peer.(*net.UDPAddr); ok && !udp.IP.IsUnspecified() {
		to = udp
	}
	conn.WriteTo(reply.ToBytes(), to)
}

const lent = `[{"network": "data", "match": {"name": "ens224"}, "type": "dhcp"}]`

// TestU7DHCP: the address is that of a server, renewed before it ends; no default route comes with
// it.
func TestU7DHCP(t *testing.T) {
	m := newMachine(t)
	server := &dhcp{offer: net.IP{10, 7, 0, 50}, life: 10 * time.Second}
	server.serve(t, m.lan)
	m.configure(lent)
	stop := m.start()
	m.state("Ready ens224 [10.7.0.50/24]")
	m.defaults()
	m.await("renewed at the server", func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		return server.unicast > 0
	})
	m.state("Ready ens224 [10.7.0.50/24]")
	stop()
	kept, err := os.ReadFile(m.file)
	if err != nil || !strings.Contains(string(kept), `"10.7.0.50/24"`) {
		t.Errorf("remembered: %s, %v", kept, err)
	}
	// Another agent asks for the same address, and the server may refuse it.
	m.start()
	m.state("Ready ens224 [10.7.0.50/24]")
	server.set(func() { server.offer = net.IP{10, 7, 0, 60} })
	m.await("the new address alone", m.has("ens224", "10.7.0.60/24"))
	m.state("Ready ens224 [10.7.0.60/24]")
	m.configure("[]")
	m.await("taken back", m.has("ens224"))
	m.told("NodeInterfaceFailed")
}

// TestU7DHCPServerAway: an address outlives a server that is away until its time ends, and comes
// back with the server. A carrier that came back has the address confirmed.
func TestU7DHCPServerAway(t *testing.T) {
	m := newMachine(t)
	m.configure(lent)
	m.start()
	m.event("NodeInterfaceFailed: network data: no DHCP server answers")
	server := &dhcp{offer: net.IP{10, 7, 0, 50}, life: time.Hour}
	server.serve(t, m.lan)
	m.state("Ready ens224 [10.7.0.50/24]")
	server.set(func() { server.asked = nil })
	m.lan.Down("port")
	m.state("NoCarrier ens224 [10.7.0.50/24]")
	m.lan.Up("port")
	m.await("confirmed", func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		return slices.Equal(server.asked, []dhcpv4.MessageType{dhcpv4.MessageTypeRequest})
	})
	m.state("Ready ens224 [10.7.0.50/24]")
	// Its time ends while the server is silent.
	server.set(func() { server.silent = true })
	m.age()
	m.await("ended", m.has("ens224"))
	server.set(func() { server.silent = false })
	m.state("Ready ens224 [10.7.0.50/24]")
}

// age has another agent begin with a lease whose time has come.
func (m *machine) age() {
	m.t.Helper()
	m.stop()
	raw, err := os.ReadFile(m.file)
	if err != nil {
		m.t.Fatal(err)
	}
	var saved struct {
		Boot     string         `json:"boot"`
		Networks nodenet.Memory `json:"networks"`
	}
	if err := json.Unmarshal(raw, &saved); err != nil {
		m.t.Fatal(err)
	}
	past := time.Now().Add(-time.Second)
	lease := saved.Networks["data"].Lease
	lease.Renew, lease.Rebind, lease.Ends = past, past, past
	if raw, err = json.Marshal(saved); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.file, raw, 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.start()
}

// TestU7DHCPAddressInUse: an address that another host has is declined.
func TestU7DHCPAddressInUse(t *testing.T) {
	m := newMachine(t)
	server := &dhcp{offer: net.IP{10, 7, 0, 1}, life: time.Hour} // its own
	server.serve(t, m.lan)
	m.configure(lent)
	m.start()
	m.await("declined", func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		return slices.Contains(server.asked, dhcpv4.MessageTypeDecline)
	})
	if !m.has("ens224")() {
		t.Errorf("addresses %q", m.addrs("ens224"))
	}
	server.set(func() { server.offer = net.IP{10, 7, 0, 51} })
	m.state("Ready ens224 [10.7.0.51/24]")
}

// TestU7Probe: nobody answers for a free address.
func TestU7Probe(t *testing.T) {
	m := newMachine(t)
	m.node.Up("ens224")
	m.lan.Addr("port", "10.0.0.9/24")
	ns, err := netns.Open(m.node.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	n := &ask.Network{NS: ns}
	if err := n.Probe(t.Context(), "ens224", netip.MustParseAddr("10.0.0.8")); err != nil {
		t.Error(err)
	}
	var inUse *ask.InUseError
	err = n.Probe(t.Context(), "ens224", netip.MustParseAddr("10.0.0.9"))
	if !errors.As(err, &inUse) {
		t.Errorf("%v, want that it is in use", err)
	}
}

// TestIdle: a node without interfaces of its own does not look whenever a pod's link comes or goes.
func TestIdle(t *testing.T) {
	m := newMachine(t)
	looks := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.looks
	}
	m.start()
	m.await("the first look", func() bool { return looks() > 0 })
	for range 10 {
		m.poke()
		time.Sleep(60 * time.Millisecond)
	}
	if n := looks(); n > 2 { // the clock may have been one's reason
		t.Errorf("it looked %d times", n)
	}
}
