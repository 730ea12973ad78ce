package nl_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
)

func at(t *testing.T, n *nettest.Namespace) *netns.NS {
	t.Helper()
	ns, err := netns.Open(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	return ns
}

func TestBridge(t *testing.T) {
	n := nettest.New(t)
	h := open(t, n)
	if _, err := h.Bridge(t.Context(), "br0"); !errors.Is(err, nl.ErrNoLink) {
		t.Errorf("no bridge: %v", err)
	}
	if _, err := h.Bridge(t.Context(), "lo"); err == nil || errors.Is(err, nl.ErrNoLink) {
		t.Errorf("loopback: %v", err)
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	err := h.AddBridge(t.Context(), nl.NewLink{Name: "br0", MTU: 1400, MAC: mac}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.AddBridge(t.Context(), nl.NewLink{Name: "br0"}, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: %v", err)
	}
	b, err := h.Bridge(t.Context(), "br0")
	if err != nil || b.MTU != 1400 || b.MAC.String() != mac.String() || b.VLANFiltering || b.Up {
		t.Errorf("%+v, %v", b, err)
	}
	nettest.NeedsLink(t, "bridge-vlan")
	if err := h.AddBridge(t.Context(), nl.NewLink{Name: "br1"}, true); err != nil {
		t.Fatal(err)
	}
	if b, err := h.Bridge(t.Context(), "br1"); err != nil || !b.VLANFiltering || b.DefaultPVID != 1 {
		t.Errorf("%+v, %v", b, err)
	}
}

// Both ends are in their places, with their names, from the start.
func TestAddPortVeth(t *testing.T) {
	n, pod := nettest.New(t), nettest.New(t)
	n.Bridge("br0")
	h := open(t, n)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	port, peer := nl.NewLink{Name: "port", MTU: 1400}, nl.NewLink{
		Name: "net1", In: at(t, pod), MTU: 1300, MAC: mac, Group: 7,
	}
	if err := h.AddPortVeth(t.Context(), port, index(n, "br0"), peer); err != nil {
		t.Fatal(err)
	}
	inPod, err := open(t, pod).Link(t.Context(), "net1")
	if err != nil || inPod.MTU != 1300 || inPod.MAC.String() != mac.String() || inPod.Group != 7 ||
		inPod.Kind != "veth" || inPod.Up {
		t.Errorf("%+v, %v", inPod, err)
	}
	onNode, err := h.Link(t.Context(), "port")
	if err != nil || onNode.MTU != 1400 || onNode.MasterIndex != index(n, "br0") ||
		onNode.Group != 0 || onNode.ParentIndex != inPod.Index {
		t.Errorf("%+v, %v", onNode, err)
	}
	before := n.Snapshot() + pod.Snapshot()
	for _, taken := range []struct{ port, peer string }{{"port", "free"}, {"free", "net1"}} {
		port.Name, peer.Name = taken.port, taken.peer
		if err := h.AddPortVeth(t.Context(), port, index(n, "br0"), peer); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%+v: %v", taken, err)
		}
	}
	port.Name, peer.Name = "free", "free"
	if err := h.AddPortVeth(t.Context(), port, 12345, peer); err == nil {
		t.Error("no error without the bridge")
	}
	if after := n.Snapshot() + pod.Snapshot(); after != before {
		t.Errorf("left:\n%s", after)
	}
}

func TestPort(t *testing.T) {
	n := nettest.New(t)
	h := open(t, n)
	n.Bridge("br0")
	n.Veth("port", n, "peer")
	if _, err := h.Port(t.Context(), index(n, "port")); !errors.Is(err, nl.ErrNoLink) {
		t.Errorf("a link that is no port: %v", err)
	}
	n.Master("port", "br0")
	if _, err := h.Port(t.Context(), index(n, "br0")); !errors.Is(err, nl.ErrNoLink) {
		t.Errorf("the bridge is no port: %v", err)
	}
	for _, want := range []nl.Port{
		{Hairpin: true}, {Isolated: true}, {Hairpin: true, Isolated: true}, {},
	} {
		if err := h.SetPort(t.Context(), index(n, "port"), want); err != nil {
			t.Fatal(err)
		}
		got, err := h.Port(t.Context(), index(n, "port"))
		if err != nil || got.Hairpin != want.Hairpin || got.Isolated != want.Isolated {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
}

func TestPortVLANs(t *testing.T) {
	nettest.NeedsLink(t, "bridge-vlan")
	n := nettest.New(t)
	h := open(t, n)
	if err := h.AddBridge(t.Context(), nl.NewLink{Name: "br0"}, true); err != nil {
		t.Fatal(err)
	}
	n.Veth("port", n, "peer")
	n.Master("port", "br0")
	port := index(n, "port")
	for range 2 {
		if err := h.RemovePortVLAN(t.Context(), port, 1); err != nil {
			t.Fatal(err)
		}
	}
	vlans := []nl.PortVLAN{
		{First: 7, Last: 7, PVID: true, Untagged: true}, {First: 20, Last: 29}, {First: 40, Last: 4094},
	}
	err := h.SetPort(t.Context(), port,
		nl.Port{VLANs: append([]nl.PortVLAN{{First: 20, Last: 20, Untagged: true}}, vlans...)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.Port(t.Context(), port)
	if err != nil || !reflect.DeepEqual(got.VLANs, vlans) {
		t.Errorf("%+v, %v, want %+v", got, err, vlans)
	}
}

func TestRemoveAddr(t *testing.T) {
	n := nettest.New(t)
	n.Bridge("br0")
	n.Addr("br0", "10.0.0.1/24", "10.0.0.2/24")
	h := open(t, n)
	for range 2 {
		err := h.RemoveAddr(t.Context(), index(n, "br0"), netip.MustParsePrefix("10.0.0.2/24"))
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := h.Addrs(t.Context(), index(n, "br0"))
	if err != nil || got[0].String() != "10.0.0.1/24" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAwaitCarrier(t *testing.T) {
	n, other := nettest.New(t), nettest.New(t)
	n.Veth("end", other, "end")
	other.Down("end")
	// The kernel reports the state some time after it knows it.
	for end := time.Now().Add(20 * time.Second); n.Link("end").Attrs().
		OperState == netlink.OperUp; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the link stays up without its other end")
		}
	}
	h, ns := open(t, n), at(t, n)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := h.AwaitCarrier(short, ns, index(n, "end")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without carrier: %v", err)
	}
	done := make(chan error)
	go func() { done <- h.AwaitCarrier(t.Context(), ns, index(n, "end")) }()
	// More than a socket's buffer holds may have to be read on the way.
	for range 50 {
		n.Down("lo")
		n.Up("lo")
	}
	other.Up("end")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if state := n.Link("end").Attrs().OperState; state != netlink.OperUp {
		t.Errorf("state %v", state)
	}
	if err := h.AwaitCarrier(t.Context(), ns, 12345); !errors.Is(err, nl.ErrNoLink) {
		t.Errorf("no such link: %v", err)
	}
}

// A port is found also while others come and go, which disturbs the kernel's listing of ports
// without a word.
func TestPortAmongOthers(t *testing.T) {
	const going, staying, readers = 40, 100, 4
	n := nettest.New(t)
	n.Bridge("br0")
	var indexes []int
	for i := range going + staying {
		name := fmt.Sprintf("p%d", i)
		n.Veth(name, n, name+"x")
		n.Master(name, "br0")
		indexes = append(indexes, n.Link(name).Attrs().Index)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for reader := range readers {
		h := open(t, n)
		wg.Go(func() {
			for i := reader; ctx.Err() == nil; i += readers {
				if _, err := h.Port(t.Context(), indexes[going+i%staying]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range going { // those before the others in the kernel's list
		if err := n.Netlink().LinkDel(n.Link(fmt.Sprintf("p%d", i))); err != nil {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
}
