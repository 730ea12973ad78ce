package nodenet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// node is a node with four NICs; eth0 is the primary one.
func node(interfaces ...Interface) *View {
	if problems := Check(interfaces); len(problems) > 0 {
		panic(problems)
	}
	return &View{
		Node: "node-1", Interfaces: interfaces, Memory: Memory{}, Trials: map[string]*Trial{}, Now: now,
		System: System{Primary: []int{2}, NICs: []NIC{
			{
				Index: 5, Name: "ens256", MAC: "02:00:00:00:00:05", PCI: "0000:1b:00.0", Up: true,
				Carrier: true,
			},
			{Index: 2, Name: "eth0", MAC: "02:00:00:00:00:02", PCI: "0000:0b:00.0", Up: true, Carrier: true},
			{
				Index: 4, Name: "ens224", MAC: "02:00:00:00:00:04", PCI: "0000:13:00.0",
				AltNames: []string{"data"}, Up: true, Carrier: true,
			},
			{Index: 9, Name: "veth1", MAC: "02:00:00:00:00:09", Up: true, Carrier: true},
		}},
	}
}

func static(network string, m Match) Interface {
	return Interface{
		Network: network, Match: m, Type: Static,
		Blocks: block("255.255.255.0", "10.0.0.1", Entry{IP: "10.0.0.2", Hostname: "node-1"},
			Entry{IP: "10.0.0.8/29"}),
	}
}

// text is a decision in words.
func text(d Decision) string {
	var lines []string
	for _, s := range d.Steps {
		line := fmt.Sprintf("%s %s %s", s.Kind, s.Network, s.NIC.Name)
		if s.Addr.IsValid() {
			line += " " + s.Addr.String()
		}
		if s.Restore {
			line += " restore"
		}
		lines = append(lines, line+string(s.Asking))
	}
	for _, s := range d.States {
		line := fmt.Sprintf("%s: %s %s %v", s.Network, s.Condition, s.NIC, s.Addresses)
		if s.Err != nil {
			line += " " + s.Err.Error()
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// U7, "node interfaces".
func TestU7FindsTheNIC(t *testing.T) {
	for _, c := range []struct {
		match  Match
		change func(*View)
		want   string
	}{
		{Match{Index: 1}, nil, "a: Pending ens224"},
		{Match{Index: 2}, nil, "a: Pending ens256"},
		{Match{Index: 3}, nil, "a: Absent  [] the node has 2 NICs beyond the primary one"},
		{Match{Index: 1}, func(v *View) {
			v.System.Primary = nil
		}, "a: Pending  [] the primary NIC, from which the others are counted, is not known"},
		{Match{Index: 1}, func(v *View) { v.System.Primary = []int{2, 4} }, "a: Pending ens256"},
		// The second NIC stays the second when the first is gone.
		{Match{Index: 2}, func(v *View) {
			v.System.NICs = slices.DeleteFunc(v.System.NICs, func(n NIC) bool { return n.Name == "ens224" })
			v.Memory["a"] = &Kept{Match: "index 2", PCI: "0000:1b:00.0", Link: 5}
		}, "a: Pending ens256"},
		{Match{Index: 1}, func(v *View) {
			v.System.NICs = slices.DeleteFunc(v.System.NICs, func(n NIC) bool { return n.Name == "ens224" })
			v.Memory["a"] = &Kept{Match: "index 1", PCI: "0000:13:00.0", Link: 4}
		}, "a: Absent  [] the NIC at PCI address 0000:13:00.0, which the network had, is gone"},
		{Match{Name: "ens256"}, nil, "a: Pending ens256"},
		{Match{Name: "data"}, nil, "a: Pending ens224"},
		{Match{Name: "veth1"}, nil, "a: Pending veth1"},
		{Match{Name: "ens1"}, nil, "a: Absent  [] no NIC has name ens1"},
		{Match{MAC: MACs{"02:00:00:00:00:05"}}, nil, "a: Pending ens256"},
		{Match{MAC: MACs{"02:00:00:00:07:05", "02:00:00:00:00:04"}}, nil, "a: Pending ens224"},
		{
			Match{MAC: MACs{"02:00:00:00:07:05", "02:00:00:00:07:04"}},
			nil,
			"a: Absent  [] no NIC has any of 2 MACs",
		},
		{Match{PCIAddress: "0000:13:00.0"}, nil, "a: Pending ens224"},
		{Match{Name: "eth0"}, nil, "a: Failed  [] eth0 is the primary NIC"},
		{
			Match{Name: "ens224"},
			func(v *View) {
				v.System.NICs[2].Port = true
			}, "a: Failed  [] ens224 is a port of another interface",
		},
		{
			Match{Name: "ens224"},
			func(v *View) { v.System.NICs[2].Carrier = false }, "a: NoCarrier ens224",
		},
		{
			Match{Name: "ens224"},
			func(v *View) { v.System.NICs[2].Up = false }, "up a ens224\na: Pending ens224",
		},
		{
			Match{Name: "ens224"},
			func(v *View) {
				v.Node = "node-2"
			}, "a: Failed ens224 [] no address of the blocks has the hostname node-2; give the node " +
				"an entry",
		},
	} {
		v := node(static("a", c.match))
		if c.change != nil {
			c.change(v)
		}
		if got := text(Decide(v)); !strings.Contains(got, c.want) {
			t.Errorf("%s:\n%s\nwant\n%s", c.match, got, c.want)
		}
	}
	v := node(static("a", Match{Index: 1}),
		Interface{Network: "b", Match: Match{Name: "ens224"}, Type: DHCP})
	if got := text(Decide(v)); !strings.Contains(got, "b: Failed  [] ens224 is the NIC of a") {
		t.Errorf("two networks of one NIC:\n%s", got)
	}
}

// TestU7Static: an address is probed, set, left alone, put back, and taken back.
func TestU7Static(t *testing.T) {
	v := node(static("a", Match{Index: 1}))
	addr := netip.MustParsePrefix("10.0.0.2/24")
	nic := &v.System.NICs[2]
	want := func(what, want string) Decision {
		t.Helper()
		d := Decide(v)
		if got := text(d); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
		}
		return d
	}
	want("first", "probe a ens224 10.0.0.2/24\na: Pending ens224 []")
	want("waiting", "a: Pending ens224 []")
	trial := v.Trials["a"]
	trial.Busy = false
	trial.Failed(errors.New("in use"), now)
	if d := want("in use", "a: Failed ens224 [] in use"); !d.Wake.Equal(now.Add(firstPause)) {
		t.Errorf("wakes at %v", d.Wake)
	}
	v.Now = now.Add(firstPause)
	want("again", "probe a ens224 10.0.0.2/24\na: Failed ens224 [] in use")
	trial.Busy = false
	trial.Succeeded()
	trial.Free = map[netip.Prefix]bool{addr: true}
	want("free", "add a ens224 10.0.0.2/24\na: Pending ens224 []")
	v.Memory["a"] = &Kept{Match: "index 1", PCI: nic.PCI, Link: nic.Index, Addrs: []netip.Prefix{addr}}
	nic.Addrs = []netip.Prefix{netip.MustParsePrefix("10.9.9.9/24"), addr}
	want("set", "a: Ready ens224 [10.0.0.2/24]")
	nic.Addrs = nic.Addrs[:1]
	want("taken away", "add a ens224 10.0.0.2/24 restore\na: Pending ens224 []")
	v.Now = v.Now.Add(time.Millisecond)
	want("taken away again", "a: Pending ens224 [] address 10.0.0.2/24 was taken away, and is put "+
		"back in a moment")
	v.Now = v.Now.Add(firstPause)
	want("after a pause", "add a ens224 10.0.0.2/24 restore\na: Pending ens224 []")
	nic.Addrs = append(nic.Addrs, addr)
	v.Node = "node-2"
	want("another name", "remove a ens224 10.0.0.2/24\na: Failed ens224 [] no address of the blocks "+
		"has the hostname node-2; "+
		"give the node an entry with its hostname in the IP block file, or use type: dhcp")
	v.Interfaces = nil
	want("no configuration", "remove a ens224 10.0.0.2/24\nforget a ")
	v.Memory["a"].Addrs = nil
	want("a foreign address stays", "forget a ")
}

// TestU7Moved: what was set on a NIC that is not the network's any more is taken back.
func TestU7Moved(t *testing.T) {
	v := node(static("a", Match{Name: "ens256"}))
	addr := netip.MustParsePrefix("10.0.0.2/24")
	v.System.NICs[2].Addrs = []netip.Prefix{addr}
	v.Memory["a"] = &Kept{Match: "name ens256", Link: 4, Addrs: []netip.Prefix{addr}}
	got := text(Decide(v))
	if got != "remove a ens224 10.0.0.2/24\na: Pending ens256 [] its NIC came back, or is "+
		"another now" {
		t.Error(got)
	}
	v.Memory["a"].Match = "name other"
	got = text(Decide(v))
	if got != "remove a ens224 10.0.0.2/24\nforget a \na: Pending  [] its NIC is another now" {
		t.Error(got)
	}
}

// TestU7MoreMACs: nodes that come to the list of MACs change nothing for those that were there.
func TestU7MoreMACs(t *testing.T) {
	addr := netip.MustParsePrefix("10.0.0.2/24")
	v := node(static("a", Match{MAC: MACs{"02:00:00:00:00:04"}}))
	v.System.NICs[2].Addrs = []netip.Prefix{addr}
	v.Memory["a"] = &Kept{Match: v.Interfaces[0].Match.Kept(), Link: 4, Addrs: []netip.Prefix{addr}}
	before := text(Decide(v))
	v.Interfaces[0].Match.MAC = MACs{"02:00:00:00:07:04", "02:00:00:00:00:04"}
	if got := text(Decide(v)); got != before || strings.Contains(got, "remove") {
		t.Errorf("with one MAC\n%s\nwith two\n%s", before, got)
	}
}

// TestU7LeaseTimes: a lease is renewed, rebound, and given up when its times come.
func TestU7LeaseTimes(t *testing.T) {
	v := node(Interface{Network: "d", Match: Match{Index: 2}, Type: DHCP})
	lease := &Lease{
		Prefix: netip.MustParsePrefix("10.0.0.9/24"), Renew: now.Add(10 * time.Second),
		Rebind: now.Add(20 * time.Second), Ends: now.Add(30 * time.Second),
	}
	nic := &v.System.NICs[0]
	step := func(after time.Duration, want string) {
		t.Helper()
		v.Now = now.Add(after)
		if got := text(Decide(v)); got != want {
			t.Errorf("after %v:\n%s\nwant\n%s", after, got, want)
		}
		if trial := v.Trials["d"]; trial != nil {
			trial.Busy = false
		}
	}
	step(0, "ask d ens256discover\nd: Pending ens256 [] a DHCP server is asked")
	v.Trials["d"].Confirm = false
	v.Memory["d"] = &Kept{
		Match: "index 2", PCI: nic.PCI, Link: 5, Lease: lease, Addrs: []netip.Prefix{lease.Prefix},
	}
	nic.Addrs = []netip.Prefix{lease.Prefix}
	ready := "d: Ready ens256 [10.0.0.9/24]"
	step(0, ready)
	if d := Decide(v); !d.Wake.Equal(lease.Renew) {
		t.Errorf("wakes at %v", d.Wake)
	}
	step(10*time.Second, "ask d ens256renew\n"+ready)
	step(20*time.Second, "ask d ens256rebind\n"+ready)
	step(30*time.Second, "remove d ens256 10.0.0.9/24\nask d ens256discover\nd: Pending ens256 [] a "+
		"DHCP server is asked")
	nic.Carrier = false
	step(0, "d: NoCarrier ens256 [10.0.0.9/24] ens256 has no carrier; see the cable, or the port of "+
		"the switch")
	nic.Carrier = true
	step(0, "ask d ens256confirm\n"+ready)
	delete(v.Trials, "d") // the agent is another one
	step(0, "ask d ens256confirm\n"+ready)
}
