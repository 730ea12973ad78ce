package nl_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/sysctl"
)

func TestLinkIndexes(t *testing.T) {
	n := nettest.New(t)
	n.Bridge("br0")
	got, err := open(t, n).LinkIndexes(t.Context())
	want := map[string]int{"lo": 1, "br0": n.Link("br0").Attrs().Index}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("LinkIndexes = %v, %v, want %v", got, err, want)
	}
}

func TestDeleteIndex(t *testing.T) {
	n := nettest.New(t)
	n.Bridge("br0")
	n.Bridge("br1")
	var s nl.Sandbox
	index := n.Link("br0").Attrs().Index
	n.Rename("br0", "other")
	for range 2 { // one that is gone is removed already
		if err := s.DeleteIndex(t.Context(), n.Path, index); err != nil {
			t.Fatal(err)
		}
	}
	if n.HasLink("other") || !n.HasLink("br1") {
		t.Errorf("links are %s", n.Links())
	}
}

// More links than fit into one message of the kernel, while others come and go.
func TestLinkIndexesWhileLinksChange(t *testing.T) {
	n := nettest.New(t)
	for i := range 60 {
		n.Bridge("keep" + string(rune('A'+i)))
	}
	h := open(t, n)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			a := netlink.NewLinkAttrs()
			a.Name = "passing"
			l := &netlink.Bridge{LinkAttrs: a}
			_ = n.Netlink().LinkAdd(l)
			_ = n.Netlink().LinkDel(l)
		}
	}()
	for range 30 {
		got, err := h.LinkIndexes(t.Context())
		delete(got, "passing")
		if err != nil || len(got) != 61 {
			t.Fatalf("%d links, %v; want 61", len(got), err)
		}
	}
	close(stop)
	<-done
}

func TestSandboxThatIsGone(t *testing.T) {
	n := nettest.New(t)
	n.Unmount()
	var s nl.Sandbox
	_, links := s.Links(t.Context(), n.Path)
	_, gateways := s.DefaultGateways(t.Context(), n.Path, "net1")
	move := s.MoveDefaultRoute(t.Context(), n.Path, "net1", addrs(net1GW4))
	for _, err := range []error{links, gateways, move} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want fs.ErrNotExist", err)
		}
	}
}

// A handle outlives its namespace's path, and says so when it is closed.
func TestHandleKeepsItsNamespace(t *testing.T) {
	n := nettest.New(t)
	h := open(t, n)
	n.Unmount()
	got, err := h.LinkIndexes(t.Context())
	if err != nil || !maps.Equal(got, map[string]int{"lo": 1}) {
		t.Errorf("LinkIndexes = %v, %v", got, err)
	}
	h.Close()
	if _, err := h.LinkIndexes(t.Context()); err == nil {
		t.Error("a closed handle works")
	}
}

func find(t *testing.T, h *nl.Handle, name string) *nl.Link {
	t.Helper()
	l, err := h.Link(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLink(t *testing.T) {
	pod, router := newPod(t)
	h := open(t, pod)
	a := pod.Link("net1").Attrs()
	want := nl.Link{
		Index: a.Index, Name: "net1", Kind: "veth", MTU: 1500, MAC: a.HardwareAddr, Up: true,
		Operational: true, Carrier: true, TxQLen: 1000,
		ParentIndex: index(router, "peer1"), ParentElsewhere: true,
	}
	if diff := cmp.Diff(want, *find(t, h, "net1")); diff != "" {
		t.Error(diff)
	}
	byIndex, err := h.LinkByIndex(t.Context(), a.Index)
	if err != nil || cmp.Diff(want, *byIndex) != "" {
		t.Errorf("by index: %v, %v", byIndex, err)
	}
	router.Down("peer1")
	if l := find(t, h, "net1"); !l.Up || l.Carrier {
		t.Errorf("with its peer down: %+v", l)
	}
	pod.Down("net1")
	if l := find(t, h, "net1"); l.Up {
		t.Errorf("down: %+v", l)
	}
	for _, err := range []error{
		second(h.Link(t.Context(), "absent")), second(h.LinkByIndex(t.Context(), 9999)),
	} {
		if !errors.Is(err, nl.ErrNoLink) {
			t.Errorf("a link that is not there: %v", err)
		}
	}
	if err := pod.Netlink().LinkAddAltName(pod.Link("net1"), "enp7s0"); err != nil {
		t.Fatal(err)
	}
	l := find(t, h, "enp7s0")
	if l.Name != "net1" || !slices.Equal(l.AltNames, []string{"enp7s0"}) || l.Loopback {
		t.Errorf("by its other name: %+v", l)
	}
	if l := find(t, h, "lo"); !l.Loopback {
		t.Errorf("loopback: %+v", l)
	}
	pod.Veth("here0", pod, "here1")
	if l := find(t, h, "here0"); l.ParentIndex != index(pod, "here1") || l.ParentElsewhere {
		t.Errorf("with its other end beside it: %+v", l)
	}
	pod.Bridge("br0")
	pod.Master("eth0", "br0")
	ports, err := h.Ports(t.Context(), index(pod, "br0"))
	if err != nil || len(ports) != 1 || ports[0].Name != "eth0" {
		t.Errorf("ports: %+v, %v", ports, err)
	}
	if l := find(t, h, "eth0"); l.MasterIndex != index(pod, "br0") || l.Promisc {
		// that a bridge makes its ports promiscuous is not the administrator's wish
		t.Errorf("a bridge's port: %+v", l)
	}
}

func second[T any](_ T, err error) error { return err }

func TestAttributes(t *testing.T) {
	pod, _ := newPod(t)
	h := open(t, pod)
	ctx, before := t.Context(), find(t, h, "net1")
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	for _, err := range []error{
		h.SetMTU(ctx, before.Index, 1400), h.SetTxQLen(ctx, before.Index, 0),
		h.SetMAC(ctx, before.Index, mac),
		h.SetPromisc(ctx, before.Index, true), h.SetAllMulti(ctx, before.Index, true),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := *before
	want.MTU, want.TxQLen, want.MAC, want.Promisc, want.AllMulti = 1400, 0, mac, true, true
	if diff := cmp.Diff(want, *find(t, h, "net1")); diff != "" {
		t.Error(diff)
	}
	err := errors.Join(h.SetPromisc(ctx, before.Index, false), h.SetAllMulti(ctx, before.Index, false))
	if err != nil {
		t.Fatal(err)
	}
	want.Promisc, want.AllMulti = false, false
	if diff := cmp.Diff(want, *find(t, h, "net1")); diff != "" {
		t.Error(diff)
	}
	pod.Down("net1") // some kernels rename no link that is up
	if err := h.SetName(ctx, before.Index, "eth0"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	err = h.SetName(ctx, before.Index, "net.7")
	if err != nil || find(t, h, "net.7").Index != before.Index {
		t.Errorf("rename: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for what, err := range map[string]error{
		"MTU that is too small": h.SetMTU(ctx, before.Index, 3),
		"no link":               h.SetMTU(ctx, 9999, 1400),
		"MAC of a group":        h.SetMAC(ctx, before.Index, net.HardwareAddr{1, 0, 0, 0, 0, 9}),
		"context that ended":    h.SetMTU(ended, before.Index, 1300),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if l := find(t, h, "net.7"); l.MTU != 1400 {
		t.Errorf("after failures: %+v", l)
	}
}

func TestAddMacvlan(t *testing.T) {
	pod, _ := newPod(t)
	other := nettest.New(t)
	h, there := open(t, pod), open(t, other)
	parent := find(t, h, "eth0")
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	for i, mode := range []string{"bridge", "private", "vepa"} {
		name := "mac" + mode
		wanted := nl.NewLink{Name: name, In: at(t, other), MTU: 1300 + i, Group: 7}
		if i == 0 {
			wanted.MAC = mac
		}
		if err := h.AddMacvlan(t.Context(), wanted, parent.Index, mode, 500); err != nil {
			t.Fatal(err)
		}
		l := find(t, there, name)
		if l.Kind != "macvlan" || l.Mode != mode || l.MTU != 1300+i || l.Group != 7 ||
			l.ParentIndex != parent.Index || l.Up {
			t.Errorf("%s: %+v", mode, l)
		}
		if i == 0 && !slices.Equal(l.MAC, mac) {
			t.Errorf("MAC %s", l.MAC)
		}
		if queue := other.Link(name).(*netlink.Macvlan).BCQueueLen; queue != 500 {
			t.Errorf("queue %d", queue)
		}
	}
	err := h.AddMacvlan(t.Context(), nl.NewLink{Name: "here"}, parent.Index, "bridge", 0)
	if err != nil || find(t, h, "here").Group != 0 {
		t.Errorf("in the handle's namespace: %v", err)
	}
	for what, err := range map[string]error{
		"mode":   h.AddMacvlan(t.Context(), nl.NewLink{Name: "x"}, parent.Index, "l2", 0),
		"parent": h.AddMacvlan(t.Context(), nl.NewLink{Name: "x"}, 9999, "bridge", 0),
		"MTU":    h.AddMacvlan(t.Context(), nl.NewLink{Name: "x", MTU: 9000}, parent.Index, "bridge", 0),
	} {
		if err == nil || !strings.Contains(err.Error(), "x") || pod.HasLink("x") {
			t.Errorf("%s that there is not: %v", what, err)
		}
	}
	err = h.AddMacvlan(t.Context(), nl.NewLink{Name: "here"}, parent.Index, "bridge", 0)
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
}

func TestAddIPvlan(t *testing.T) {
	nettest.NeedsLink(t, "ipvlan")
	pod, _ := newPod(t)
	other := nettest.New(t)
	h, there := open(t, pod), open(t, other)
	parent := find(t, h, "eth0")
	for _, mode := range []string{"l2", "l3", "l3s"} {
		name := "ip" + mode
		err := h.AddIPvlan(t.Context(), nl.NewLink{Name: name, In: at(t, other), MTU: 1300, Group: 7},
			parent.Index, mode)
		if err != nil {
			t.Fatal(err)
		}
		l := find(t, there, name)
		if l.Kind != "ipvlan" || l.Mode != mode || l.MTU != 1300 || l.Group != 7 ||
			l.ParentIndex != parent.Index || !slices.Equal(l.MAC, parent.MAC) {
			t.Errorf("%s: %+v", mode, l)
		}
	}
	if l := find(t, there, "ipl2"); l.Mode != "l3s" {
		t.Errorf("the first one is in mode %s, and all of a parent are in that of the last", l.Mode)
	}
	err := h.AddIPvlan(t.Context(), nl.NewLink{Name: "x"}, parent.Index, "bridge")
	if err == nil || pod.HasLink("x") {
		t.Errorf("a mode that there is not: %v", err)
	}
}

func TestDeleteLinks(t *testing.T) {
	pod, _ := newPod(t)
	h := open(t, pod)
	for i, name := range []string{"a", "b", "c"} {
		wanted := nl.NewLink{Name: name, Group: 7}
		if i == 2 {
			wanted.Group = 8
		}
		if err := h.AddMacvlan(t.Context(), wanted, index(pod, "eth0"), "bridge", 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := h.DeleteGroup(t.Context(), 7); err != nil {
			t.Error(err)
		}
	}
	if pod.HasLink("a") || pod.HasLink("b") || !pod.HasLink("c") || !pod.HasLink("net1") {
		t.Errorf("after DeleteGroup:\n%s", pod.Links())
	}
	for range 2 {
		if err := h.DeleteLink(t.Context(), "c"); err != nil {
			t.Error(err)
		}
	}
	if pod.HasLink("c") || !pod.HasLink("net1") {
		t.Errorf("after DeleteLink:\n%s", pod.Links())
	}
	if err := h.DeleteLink(t.Context(), "lo"); err == nil {
		t.Error("loopback was deleted")
	}
}

// Changes are made in their order, however many, and the error names the first that failed.
func TestApply(t *testing.T) {
	pod, _ := newPod(t)
	h, net1 := open(t, pod), index(pod, "net1")
	const count = 300
	var changes []nl.Change
	for i := range count {
		changes = append(changes,
			nl.AddAddr(net1, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)}), 32)))
	}
	if err := h.Apply(t.Context(), changes...); err != nil {
		t.Fatal(err)
	}
	has := func(addr string) bool { return strings.Contains(pod.Snapshot(), "addr net1 "+addr+"\n") }
	got := strings.Count(pod.Snapshot(), "addr net1 10.77.")
	if got != count || !has("10.77.1.43/32") {
		t.Errorf("%d addresses, want %d", got, count)
	}
	fresh := netip.MustParsePrefix("10.78.0.1/32")
	err := h.Apply(t.Context(),
		append([]nl.Change{nl.AddAddr(net1, fresh), nl.AddAddr(9999, fresh)}, changes...)...)
	if !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), fresh.String()) ||
		!has(fresh.String()) {
		t.Errorf("the second one fails: %v", err)
	}
	if err := h.Apply(t.Context()); err != nil {
		t.Errorf("no change: %v", err)
	}
	before := pod.Snapshot()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err = h.Apply(ended, nl.AddAddr(net1, netip.MustParsePrefix("10.78.0.2/32")))
	if !errors.Is(err, context.Canceled) || pod.Snapshot() != before {
		t.Errorf("a context that ended: %v", err)
	}
}

func TestAnnounceIPv4(t *testing.T) {
	pod, _ := newPod(t)
	h := open(t, pod)
	for range 2 {
		if err := h.Apply(t.Context(), nl.AnnounceIPv4(index(pod, "net1"))); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[string]string{
		"net1/arp_notify": "1", "eth0/arp_notify": "0", "net1/arp_accept": "0",
	} {
		if got, err := sysctl.Get(at(t, pod), "net/ipv4/conf/"+key); err != nil || got[0] != want {
			t.Errorf("%s %q, %v, want %s", key, got, err, want)
		}
	}
}
