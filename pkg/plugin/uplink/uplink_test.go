package uplink_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin/uplink"
)

func open(t *testing.T, n *nettest.Namespace) *nl.Handle {
	t.Helper()
	ns, err := netns.Open(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() }) //nolint:errcheck // the test is over
	var handle *nl.Handle
	if err := ns.Do(func() error { handle, err = nl.Open(ns); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(handle.Close)
	return handle
}

// route adds a route by a link.
func route(t *testing.T, n *nettest.Namespace, to, link string, table int) {
	t.Helper()
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		t.Fatal(err)
	}
	r := &netlink.Route{
		Dst: dst, LinkIndex: n.Link(link).Attrs().Index, Scope: netlink.SCOPE_LINK, Table: table,
	}
	if err := n.Netlink().RouteAdd(r); err != nil {
		t.Fatal(err)
	}
}

// uplinks are the names of a node's uplinks among these links.
func uplinks(t *testing.T, n *nettest.Namespace, links ...string) string {
	t.Helper()
	node, err := uplink.Look(t.Context(), open(t, n))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range links {
		if node.Uplink(n.Link(name).Attrs().Index) {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

func is(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A default route of any table and family makes an uplink, and so do two halves of one.
func TestM26Uplinks(t *testing.T) {
	for name, routes := range map[string]func(n *nettest.Namespace){
		"IPv4":            func(n *nettest.Namespace) { route(t, n, "0.0.0.0/0", "a0", 0) },
		"IPv6":            func(n *nettest.Namespace) { route(t, n, "::/0", "a0", 0) },
		"another table's": func(n *nettest.Namespace) { route(t, n, "0.0.0.0/0", "a0", 100) },
		"halves":          func(n *nettest.Namespace) { route(t, n, "0.0.0.0/1", "a0", 0) },
		"several hops": func(n *nettest.Namespace) {
			var hops []*netlink.NexthopInfo
			for _, link := range []string{"a0", "c0"} {
				hops = append(hops, &netlink.NexthopInfo{LinkIndex: n.Link(link).Attrs().Index})
			}
			r := &netlink.Route{
				Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, MultiPath: hops,
				Scope: netlink.SCOPE_LINK,
			}
			if err := n.Netlink().RouteAdd(r); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := nettest.New(t)
			for _, link := range []string{"a", "b", "c"} {
				n.Veth(link+"0", nettest.New(t), link+"1")
			}
			n.Addr("b0", "10.9.0.1/24")
			route(t, n, "10.8.0.0/16", "b0", 0)
			is(t, uplinks(t, n, "a0", "b0", "c0", "lo"), "")
			routes(n)
			want := "a0"
			if name == "several hops" {
				want = "a0 c0"
			}
			is(t, uplinks(t, n, "a0", "b0", "c0", "lo"), want)
		})
	}
}

// What an uplink is built on is one, too, and what it is part of.
func TestM26UplinkIsBuiltOn(t *testing.T) {
	n := nettest.New(t)
	for _, link := range []string{"a", "b", "c"} {
		n.Veth(link+"0", nettest.New(t), link+"1")
	}
	n.Bridge("br0")
	n.Master("a0", "br0")
	n.Add(&netlink.Macvlan{
		LinkAttrs: netlink.LinkAttrs{Name: "mv0", ParentIndex: n.Link("c0").Attrs().Index},
		Mode:      netlink.MACVLAN_MODE_BRIDGE,
	})
	n.Up("mv0")
	n.Veth("v0", n, "v1")
	all := []string{"a0", "b0", "c0", "br0", "mv0", "v0", "v1"}
	route(t, n, "0.0.0.0/0", "br0", 0)
	is(t, uplinks(t, n, all...), "a0 br0")
	route(t, n, "::/0", "mv0", 0)
	is(t, uplinks(t, n, all...), "a0 c0 br0 mv0")
	route(t, n, "0.0.0.0/0", "v0", 7)
	is(t, uplinks(t, n, all...), "a0 c0 br0 mv0 v0 v1")
}

func TestM26UplinkOnBondAndVLAN(t *testing.T) {
	nettest.NeedsLink(t, "bond", "vlan", "vrf", "dummy")
	n := nettest.New(t)
	for _, link := range []string{"a0", "b0", "c0", "d0"} {
		n.Dummy(link)
	}
	bond := netlink.NewLinkBond(netlink.LinkAttrs{Name: "bond0"})
	bond.Mode = netlink.BOND_MODE_ACTIVE_BACKUP
	n.Add(bond)
	for _, slave := range []string{"a0", "b0"} {
		n.Down(slave)
		n.Master(slave, "bond0")
	}
	n.Up("bond0")
	n.Add(&netlink.Vlan{
		LinkAttrs: netlink.LinkAttrs{Name: "bond0.7", ParentIndex: n.Link("bond0").Attrs().Index},
		VlanId:    7, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q,
	})
	n.Up("bond0.7")
	n.Add(&netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Name: "vrf0"}, Table: 77})
	n.Up("vrf0")
	n.Master("c0", "vrf0")
	n.Up("c0")
	route(t, n, "0.0.0.0/0", "bond0.7", 0)
	all := []string{"a0", "b0", "c0", "d0", "bond0", "bond0.7", "vrf0"}
	is(t, uplinks(t, n, all...), "a0 b0 bond0 bond0.7")
	route(t, n, "0.0.0.0/0", "c0", 77)
	is(t, uplinks(t, n, all...), "a0 b0 c0 bond0 bond0.7 vrf0")
}

// watch judges a configuration, and returns the reason, the field, and what looks again.
func watch(
	t *testing.T, n *nettest.Namespace, sysfs, kind, config string, limits *attachment.Limits,
) (string, func(context.Context) error) {
	t.Helper()
	handle := open(t, n)
	guard := &uplink.Guard{Host: func() (*nl.Handle, error) { return handle, nil }, Sysfs: sysfs}
	after, err := guard.Watch(t.Context(), kind, []byte(config), limits)
	if err == nil {
		return "", after
	}
	fe := &failure.Error{}
	if e, ok := err.(*failure.Error); ok { //nolint:errorlint // the outermost is meant
		fe = e
	}
	return fmt.Sprintf("%s %s", fe.Reason, fe.Field), nil
}

// A device is also known by its place on a bus, and by the path of it or of what it is part of.
func TestM26DevicesOfTheUplink(t *testing.T) {
	n := nettest.New(t)
	n.Veth("a0", nettest.New(t), "a1")
	n.Veth("here0", n, "here1")
	route(t, n, "0.0.0.0/0", "a0", 0)
	sysfs := t.TempDir()
	place := func(link, dir string) {
		for _, d := range []string{
			filepath.Join(sysfs, dir, "net", link), filepath.Join(sysfs, "class", "net"),
			filepath.Join(sysfs, "bus", "pci", "devices"), filepath.Join(sysfs, "bus", "virtio", "devices"),
		} {
			if err := os.MkdirAll(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		err := os.Symlink(filepath.Join(sysfs, dir, "net", link),
			filepath.Join(sysfs, "class", "net", link))
		if err != nil {
			t.Fatal(err)
		}
	}
	place("a0", "devices/pci0000:00/0000:00:03.0/virtio0")
	place("here0", "devices/pci0000:00/0000:00:04.0")
	for bus, dir := range map[string]string{
		"pci/devices/0000:00:03.0": "0000:00:03.0", "pci/devices/0000:00:04.0": "0000:00:04.0",
		"virtio/devices/virtio0": "0000:00:03.0/virtio0",
	} {
		err := os.Symlink(filepath.Join(sysfs, "devices/pci0000:00", dir),
			filepath.Join(sysfs, "bus", bus))
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := filepath.EvalSymlinks(sysfs)
	if err != nil {
		t.Fatal(err)
	}
	limits := &attachment.Limits{Namespace: "team"}
	for config, want := range map[string]string{
		`{"pciBusID":"0000:00:03.0"}`: "NodeProtected pciBusID",
		`{"deviceID":"0000:00:03.0"}`: "NodeProtected deviceID",

		`{"runtimeConfig":{"deviceID":"0000:00:03.0"}}`: "NodeProtected runtimeConfig.deviceID",

		`{"deviceID":["0000:00:04.0","0000:00:03.0"]}`:                        "NodeProtected deviceID",
		`{"device":"virtio0"}`:                                                "NodeProtected device",
		`{"kernelpath":"` + root + `/devices/pci0000:00/0000:00:03.0"}`:       "NodeProtected kernelpath",
		`{"kernelpath":"` + root + `/class/../bus/pci/devices/0000:00:03.0"}`: "NodeProtected kernelpath",
		`{"kernelpath":"` + root + `/class/net/a0"}`:                          "NodeProtected kernelpath",

		"{\"pcibu\u017fid\":\"0000:00:03.0\"}": "NodeProtected pcibu\u017fid",

		`{"pciBusID":"0000:00:04.0"}`:                                     "",
		`{"pciBusID":"0000:00:0*"}`:                                       "NodeProtected pciBusID",
		`{"pciBusID":"../devices/0000:00:05.0"}`:                          "",
		`{"kernelpath":"/"}`:                                              "",
		`{"kernelpath":"` + root + `/devices/pci0000:00/0000:00:04.0"}`:   "",
		`{"device":"nothing","hwaddr":"x","deviceID":"","pciBusID":null}`: "",
		`{"device":"here0"}`:                                              "",
	} {
		got, _ := watch(t, n, root, "host-device", config, limits)
		if got != want {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
}

// Children of an uplink are normal, unless the operator's rule leaves them out; what takes it over
// is not.
func TestM26Masters(t *testing.T) {
	n := nettest.New(t)
	n.Veth("a0", nettest.New(t), "a1")
	n.Veth("b0", nettest.New(t), "b1")
	route(t, n, "0.0.0.0/0", "a0", 0)
	if err := n.Netlink().LinkAddAltName(n.Link("a0"), "enp1s0"); err != nil {
		t.Fatal(err)
	}
	safe, none := &attachment.Limits{Namespace: "team"}, &attachment.Limits{
		Namespace: "team", Masters: []string{},
	}
	some := &attachment.Limits{Namespace: "team", Masters: []string{"enp*"}}
	for _, c := range []struct {
		kind, config string
		limits       *attachment.Limits
		want         string
	}{
		{"macvlan", `{"master":"a0","mode":"bridge"}`, safe, ""},
		{"macvlan", `{"master":"a0","mode":"passthru"}`, safe, "NodeProtected mode"},
		{"macvlan", `{"mode":"passthru"}`, safe, "NodeProtected mode"},
		{"macvlan", `{"master":"b0","mode":"passthru"}`, safe, ""},
		{"macvlan", `{"master":"a0","mode":"passthru","linkInContainer":true}`, safe, ""},
		{"vlan", `{"master":"enp1s0","vlanId":7}`, safe, ""},
		{"ipvlan", `{"master":"a0"}`, safe, ""},
		{"unheard-of", `{"master":"a0"}`, safe, "NodeProtected master"},
		{"unheard-of", `{"Master":["b0","enp1s0"]}`, safe, "NodeProtected master"},
		{"unheard-of", `{"master":"b0"}`, safe, ""},
		{"unheard-of", `{}`, none, ""},
		{"vlan", `{"master":"a0"}`, none, "PolicyRefused master"},
		{"ipvlan", `{}`, none, "PolicyRefused master"},
		{"vlan", `{"master":"a0"}`, some, ""},
		{"vlan", `{"master":"b0"}`, some, "PolicyRefused master"},
	} {
		if got, _ := watch(t, n, "/sys", c.kind, c.config, c.limits); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.kind, c.config, got, c.want)
		}
	}
}

// What a plugin did to an uplink without a word in its configuration is seen afterwards; what pods
// come and go with is not.
func TestM26TakenAllTheSame(t *testing.T) {
	limits := &attachment.Limits{Namespace: "team"}
	for name, c := range map[string]struct {
		do    func(n *nettest.Namespace)
		taken bool
	}{
		"nothing": {func(*nettest.Namespace) {}, false},
		"removed": {func(n *nettest.Namespace) { _ = n.Netlink().LinkDel(n.Link("a0")) }, true},
		"enslaved": {func(n *nettest.Namespace) {
			n.Bridge("br1")
			n.Down("a0")
			n.Master("a0", "br1")
		}, true},
		"pod's end": {func(n *nettest.Namespace) { _ = n.Netlink().LinkDel(n.Link("p0")) }, false},
		"new link": {func(n *nettest.Namespace) {
			n.Veth("q0", nettest.New(t), "q1")
			n.Master("q0", "br0")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := nettest.New(t)
			n.Veth("a0", nettest.New(t), "a1")
			n.Bridge("br0")
			n.Veth("p0", nettest.New(t), "p1")
			n.Master("p0", "br0")
			route(t, n, "0.0.0.0/0", "a0", 0)
			route(t, n, "::/0", "br0", 0)
			_, after := watch(t, n, "/sys", "unheard-of", `{}`, limits)
			c.do(n)
			err := after(t.Context())
			if (err != nil) != c.taken || err != nil && failure.ReasonOf(err) != failure.NodeProtected {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestM26LooksOnce: one operation looks at the node once before its binaries, and after each of
// them, but misses no link that was made meanwhile.
func TestM26LooksOnce(t *testing.T) {
	n := nettest.New(t)
	n.Veth("a0", nettest.New(t), "a1")
	route(t, n, "0.0.0.0/0", "a0", 0)
	handle, looks := open(t, n), 0
	guard := &uplink.Guard{Sysfs: "/sys", Host: func() (*nl.Handle, error) {
		return handle, nil
	}, Look: func(ctx context.Context, h *nl.Handle) (*uplink.Node, error) {
		looks++
		return uplink.Look(ctx, h)
	}}
	limits := &attachment.Limits{Namespace: "team"}
	var after func(context.Context) error
	for range 3 {
		var err error
		if after, err = guard.Watch(t.Context(), "vlan", []byte(`{"master":"a0"}`), limits); err != nil {
			t.Fatal(err)
		}
	}
	if looks != 1 {
		t.Errorf("looked %d times before", looks)
	}
	if err := after(t.Context()); err != nil || looks != 2 {
		t.Errorf("looked %d times, %v", looks, err)
	}
	n.Bridge("br0")
	_, err := guard.Watch(t.Context(), "host-device", []byte(`{"device":"br0"}`), limits)
	if failure.ReasonOf(err) != failure.NodeProtected {
		t.Errorf("a link that was made meanwhile: %v", err)
	}
}

func TestMain(m *testing.M) {
	if err := nettest.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "isolate the tests:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
