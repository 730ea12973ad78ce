package nl_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
)

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
		Index: a.Index, Name: "net1", Kind: "veth", MTU: 1500, MAC: a.HardwareAddr, Up: true, Operational: true, Carrier: true, TxQLen: 1000,
		ParentIndex: index(router, "peer1"),
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
	for _, err := range []error{second(h.Link(t.Context(), "absent")), second(h.LinkByIndex(t.Context(), 9999))} {
		if !errors.Is(err, nl.ErrNoLink) {
			t.Errorf("a link that is not there: %v", err)
		}
	}
	pod.Bridge("br0")
	pod.Master("eth0", "br0")
	if l := find(t, h, "eth0"); l.MasterIndex != index(pod, "br0") || l.Promisc {
		t.Errorf("a bridge's port: %+v", l) // that a bridge makes its ports promiscuous is not the administrator's wish
	}
}

func second[T any](_ T, err error) error { return err }

func TestAttributes(t *testing.T) {
	pod, _ := newPod(t)
	h := open(t, pod)
	ctx, before := t.Context(), find(t, h, "net1")
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	for _, err := range []error{
		h.SetMTU(ctx, before.Index, 1400), h.SetTxQLen(ctx, before.Index, 0), h.SetMAC(ctx, before.Index, mac),
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
	if err := errors.Join(h.SetPromisc(ctx, before.Index, false), h.SetAllMulti(ctx, before.Index, false)); err != nil {
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
	if err := h.SetName(ctx, before.Index, "net.7"); err != nil || find(t, h, "net.7").Index != before.Index {
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
		if l.Kind != "macvlan" || l.Mode != mode || l.MTU != 1300+i || l.Group != 7 || l.ParentIndex != parent.Index || l.Up {
			t.Errorf("%s: %+v", mode, l)
		}
		if i == 0 && !slices.Equal(l.MAC, mac) {
			t.Errorf("MAC %s", l.MAC)
		}
		if queue := other.Link(name).(*netlink.Macvlan).BCQueueLen; queue != 500 {
			t.Errorf("queue %d", queue)
		}
	}
	if err := h.AddMacvlan(t.Context(), nl.NewLink{Name: "here"}, parent.Index, "bridge", 0); err != nil || find(t, h, "here").Group != 0 {
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
	if err := h.AddMacvlan(t.Context(), nl.NewLink{Name: "here"}, parent.Index, "bridge", 0); !errors.Is(err, fs.ErrExist) {
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
		if err := h.AddIPvlan(t.Context(), nl.NewLink{Name: name, In: at(t, other), MTU: 1300, Group: 7}, parent.Index, mode); err != nil {
			t.Fatal(err)
		}
		l := find(t, there, name)
		if l.Kind != "ipvlan" || l.Mode != mode || l.MTU != 1300 || l.Group != 7 || l.ParentIndex != parent.Index || !slices.Equal(l.MAC, parent.MAC) {
			t.Errorf("%s: %+v", mode, l)
		}
	}
	if l := find(t, there, "ipl2"); l.Mode != "l3s" {
		t.Errorf("the first one is in mode %s, and all of a parent are in that of the last", l.Mode)
	}
	if err := h.AddIPvlan(t.Context(), nl.NewLink{Name: "x"}, parent.Index, "bridge"); err == nil || pod.HasLink("x") {
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

func TestAddrs(t *testing.T) {
	pod, _ := newPod(t)
	h := open(t, pod)
	net1 := index(pod, "net1")
	for _, a := range []string{"10.7.0.2/24", "fd07::2/64", "10.7.0.3/32"} {
		if err := h.AddAddr(t.Context(), net1, netip.MustParsePrefix(a)); err != nil {
			t.Fatal(err)
		}
	}
	list := func(index int) (all []string) {
		addrs, err := h.Addrs(t.Context(), index)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if !a.Addr().IsLinkLocalUnicast() && !a.Addr().IsLoopback() {
				all = append(all, a.String())
			}
		}
		slices.Sort(all)
		return all
	}
	net1Has := []string{"10.0.1.2/24", "10.7.0.2/24", "10.7.0.3/32", "fd00:b::2/64", "fd07::2/64"}
	same(t, "addresses of net1", list(net1), net1Has)
	all := append([]string{"10.0.0.2/24", "fd00:a::2/64"}, net1Has...)
	slices.Sort(all)
	same(t, "all addresses", list(0), all)
	if err := h.AddAddr(t.Context(), net1, netip.MustParsePrefix("10.7.0.2/24")); !errors.Is(err, unix.EEXIST) {
		t.Errorf("an address that is there: %v", err)
	}
	if err := h.AddAddr(t.Context(), 9999, netip.MustParsePrefix("10.8.0.2/24")); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no link: %v", err)
	}
}

func TestAwaitAddrs(t *testing.T) {
	pod, router := newPod(t)
	h, ns := open(t, pod), at(t, pod)
	net1 := index(pod, "net1")
	states := func() (tentative, duplicate bool) {
		list, err := h.Addrs(t.Context(), net1)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			tentative, duplicate = tentative || a.Tentative, duplicate || a.Duplicate
		}
		return tentative, duplicate
	}
	if err := h.AddAddr(t.Context(), net1, netip.MustParsePrefix("fd07::2/64")); err != nil {
		t.Fatal(err)
	}
	if tentative, _ := states(); !tentative {
		t.Error("a new address is not tentative")
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := h.AwaitAddrs(short, ns, net1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("when the context ends: %v", err)
	}
	if err := h.AwaitAddrs(t.Context(), ns, net1); err != nil {
		t.Error(err)
	}
	if tentative, duplicate := states(); tentative || duplicate {
		t.Errorf("after waiting: tentative %v, duplicate %v", tentative, duplicate)
	}
	router.Addr("peer1", "fd07::9/64")
	if err := h.AddAddr(t.Context(), net1, netip.MustParsePrefix("fd07::9/64")); err != nil {
		t.Fatal(err)
	}
	if err := h.AwaitAddrs(t.Context(), ns, net1); err == nil || !strings.Contains(err.Error(), "fd07::9 ") {
		t.Errorf("an address that is in use: %v", err)
	}
	nettest.NoThreadIn(t, pod)
}

func TestRoutes(t *testing.T) {
	pod, _ := newPod(t)
	h := open(t, pod)
	net1 := index(pod, "net1")
	wanted := []nl.Route{
		{Dst: netip.MustParsePrefix("172.16.0.0/12"), Gateway: netip.MustParseAddr(net1GW4), Index: net1, Table: 254, Metric: 7, MTU: 1400, AdvMSS: 1300},
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr(net1GW4b), Index: net1, Table: 300, Src: netip.MustParseAddr("10.0.1.2")},
		{Dst: netip.MustParsePrefix("172.32.0.0/12"), Index: net1, Table: 254, Scope: unix.RT_SCOPE_LINK, Protocol: unix.RTPROT_STATIC},
		{Dst: netip.MustParsePrefix("fd07::/64"), Gateway: netip.MustParseAddr(net1GW6), Index: net1, Table: 254, Metric: 1024},
		{Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr(net1GW6b), Index: net1, Table: 100, Metric: 5},
	}
	for i := range wanted {
		r := wanted[i]
		if r.Table == 254 {
			r.Table = 0 // main
		}
		if err := h.AddRoute(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if wanted[i].Protocol == 0 {
			wanted[i].Protocol = unix.RTPROT_BOOT
		}
	}
	have, err := h.Routes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wanted {
		if !slices.Contains(have, w) {
			t.Errorf("lacks %+v:\n%+v", w, have)
		}
	}
	for _, r := range have {
		if r.Dst.Addr().IsMulticast() || r.Table == unix.RT_TABLE_LOCAL && r.Dst.Addr().Is4() {
			t.Errorf("not a unicast route: %+v", r)
		}
	}
	if err := h.AddRoute(t.Context(), wanted[0]); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a route that is there: %v", err)
	}
	unreachable := nl.Route{Dst: netip.MustParsePrefix("172.48.0.0/12"), Gateway: netip.MustParseAddr("9.9.9.9"), Index: net1}
	if err := h.AddRoute(t.Context(), unreachable); err == nil || !strings.Contains(err.Error(), "172.48.0.0/12 via 9.9.9.9") {
		t.Errorf("a gateway that cannot be reached: %v", err)
	}
	// An IPv6 route to the same destination becomes a second hop.
	more := wanted[3]
	more.Gateway = netip.MustParseAddr(net1GW6b)
	if err := h.AddRoute(t.Context(), more); err != nil {
		t.Fatal(err)
	}
	if have, err = h.Routes(t.Context()); err != nil || !slices.Contains(have, more) || !slices.Contains(have, wanted[3]) {
		t.Errorf("two hops: %v\n%+v", err, have)
	}
}

func TestDefaultLink(t *testing.T) {
	pod := nettest.New(t)
	h := open(t, pod)
	if _, err := h.DefaultLink(t.Context()); !errors.Is(err, nl.ErrNoLink) {
		t.Errorf("without a default route: %v", err)
	}
	other := nettest.New(t)
	pod.Veth("eth0", other, "peer0")
	pod.Veth("net1", other, "peer1")
	pod.Addr("eth0", "10.0.0.2/24")
	pod.Addr("net1", "fd00:b::2/64")
	pod.Route("default", net1GW6, "net1", 0)
	if l, err := h.DefaultLink(t.Context()); err != nil || l.Name != "net1" {
		t.Errorf("IPv6 only: %v, %v", l, err)
	}
	pod.Route("default", eth0GW4, "eth0", 0)
	if l, err := h.DefaultLink(t.Context()); err != nil || l.Name != "eth0" {
		t.Errorf("both: %v, %v", l, err)
	}
}
