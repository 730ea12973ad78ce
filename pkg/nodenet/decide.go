package nodenet

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/braid-cni/braid/pkg/failure"
)

// View is all that a decision is made of.
type View struct {
	// Node is the name of the Node.
	Node       string
	Interfaces []Interface
	System     System
	Memory     Memory
	// Trials are by network. Decide notes in them what it saw: a NIC that is another, a carrier that
	// is gone.
	Trials map[string]*Trial
	Now    time.Time
}

// Decide returns what to do, and how each network is. Steps of Add, Remove and Forget change the
// Memory when they are taken; an Add is remembered before.
func Decide(v *View) Decision {
	d := Decision{Found: map[string]NIC{}}
	taken := map[int]string{} // by index
	for n := range v.Interfaces {
		i := &v.Interfaces[n]
		one := decider{
			View: v, i: i, kept: v.Memory[i.Network], trial: v.Trials[i.Network],
			taken: taken,
		}
		if one.trial == nil {
			one.trial = &Trial{}
			v.Trials[i.Network] = one.trial
		}
		one.decide()
		d.Steps, d.States = append(d.Steps, one.steps...), append(d.States, one.state)
		d.wake(one.wake)
		if one.found != nil {
			d.Found[i.Network] = *one.found
		}
	}
	for _, network := range slices.Sorted(maps.Keys(v.Memory)) {
		if !slices.ContainsFunc(v.Interfaces,
			func(i Interface) bool { return i.Network == network }) {
			d.Steps = append(d.Steps, takeBack(v, network)...)
			d.Steps = append(d.Steps, Step{Kind: Forget, Network: network})
		}
	}
	return d
}

// wake has the next decision made at a time, or earlier.
func (d *Decision) wake(at time.Time) {
	if !at.IsZero() && (d.Wake.IsZero() || at.Before(d.Wake)) {
		d.Wake = at
	}
}

// takeBack removes the addresses of a network that are remembered and there.
func takeBack(v *View, network string) (steps []Step) {
	kept := v.Memory[network]
	for _, nic := range v.System.NICs {
		if nic.Index != kept.Link {
			continue
		}
		for _, addr := range kept.Addrs {
			if slices.Contains(nic.Addrs, addr) {
				steps = append(steps, Step{Kind: Remove, Network: network, NIC: nic, Addr: addr})
			}
		}
	}
	return steps
}

// decider decides about one interface.
type decider struct {
	*View

	i     *Interface
	kept  *Kept // nil for none
	trial *Trial
	taken map[int]string

	steps []Step
	state State
	found *NIC
	wake  time.Time
}

// decide decides what there is to do, and how the interface is. A NIC that is another than the
// remembered one is taken only by the next decision, when the old one has nothing left.
func (d *decider) decide() {
	d.state = State{Network: d.i.Network, Type: d.i.Type}
	if d.kept != nil && d.kept.Match != d.i.Match.Kept() {
		d.steps = append(takeBack(d.View, d.i.Network), Step{Kind: Forget, Network: d.i.Network})
		d.say(Pending, errors.New("its NIC is another now"))
		d.wake = d.Now
		return
	}
	nic, err := d.findUsable()
	moved := err != nil || d.kept != nil && d.kept.Link != nic.Index
	if moved && d.kept != nil {
		d.steps = append(d.steps, takeBack(d.View, d.i.Network)...)
	}
	if err != nil {
		d.say(cmp.Or(d.state.Condition, Failed), err)
		return
	}
	d.found, d.state.NIC, d.state.MAC = nic, nic.Name, nic.MAC
	if moved {
		d.say(Pending, errors.New("its NIC came back, or is another now"))
		d.wake = d.Now
		return
	}
	d.use(nic)
}

// use decides about a NIC that is the interface's, and stays so.
func (d *decider) use(nic *NIC) {
	d.taken[nic.Index] = d.i.Network
	if d.trial.Link != nic.Index {
		*d.trial = Trial{Link: nic.Index, Busy: d.trial.Busy, Confirm: true}
	}
	if !nic.Up {
		d.trial.Confirm = true
		d.add(Step{Kind: Up, NIC: *nic})
		d.say(Pending, errors.New("the NIC is being set up"))
		return
	}
	d.addresses(nic)
}

// say sets how the interface is. The last call counts.
func (d *decider) say(c Condition, err error) { d.state.Condition, d.state.Err = c, err }

// add adds a step for the interface.
func (d *decider) add(s Step) {
	s.Network = d.i.Network
	d.steps = append(d.steps, s)
}

// later has the decision made anew at a time.
func (d *decider) later(at time.Time) {
	if d.wake.IsZero() || at.Before(d.wake) {
		d.wake = at
	}
}

// findUsable returns the NIC of the interface; the error says why there is none that it can have.
func (d *decider) findUsable() (*NIC, error) {
	nic, err := d.find()
	if err != nil {
		return nil, err
	}
	return nic, d.usable(nic)
}

// find returns the NIC of the interface; the error says why there is none.
func (d *decider) find() (*NIC, error) {
	m := d.i.Match
	if m.Index > 0 {
		return d.byIndex()
	}
	for n := range d.System.NICs {
		if nic := &d.System.NICs[n]; m.names(nic) {
			return nic, nil
		}
	}
	return nil, d.absent(fmt.Errorf("no NIC has %s", m))
}

// names reports whether a match is one by something that the NIC has itself.
func (m Match) names(nic *NIC) bool {
	return m.Name != "" && (nic.Name == m.Name || slices.Contains(nic.AltNames, m.Name)) ||
		slices.ContainsFunc(m.MAC, func(mac string) bool { return strings.EqualFold(nic.MAC, mac) }) ||
		m.PCIAddress != "" && strings.EqualFold(nic.PCI, m.PCIAddress)
}

// absent returns the error that there is no NIC, which is the interface's condition from now on.
func (d *decider) absent(err error) error {
	d.state.Condition = Absent
	return &failure.Error{
		Err: err,
		Fix: "give the machine the NIC, or correct match in nodeInterfaces",
	}
}

// byIndex counts the NICs beyond the primary one. One that was counted once stays the network's:
// the absence of another does not move it.
func (d *decider) byIndex() (*NIC, error) {
	nics := slices.Clone(d.System.NICs)
	nics = slices.DeleteFunc(nics, func(n NIC) bool { return n.PCI == "" })
	if d.kept != nil && d.kept.PCI != "" {
		for n := range nics {
			if nics[n].PCI == d.kept.PCI {
				return &nics[n], nil
			}
		}
		return nil, d.absent(fmt.Errorf("the NIC at PCI address %s, which the network had, is gone",
			d.kept.PCI))
	}
	if len(d.System.Primary) == 0 {
		d.state.Condition = Pending
		return nil, errors.New("the primary NIC, from which the others are counted, is not known: " +
			"there is no default route")
	}
	nics = slices.DeleteFunc(nics, func(n NIC) bool {
		return slices.Contains(d.System.Primary, n.Index)
	})
	slices.SortFunc(nics, func(a, b NIC) int {
		return cmp.Or(cmp.Compare(len(a.PCI), len(b.PCI)), strings.Compare(a.PCI, b.PCI))
	})
	if d.i.Match.Index > len(nics) {
		return nil, d.absent(fmt.Errorf("the node has %s beyond the primary one",
			failure.Count(len(nics), "NIC")))
	}
	return &nics[d.i.Match.Index-1], nil
}

// usable refuses a NIC that others use.
func (d *decider) usable(nic *NIC) error {
	switch {
	case slices.Contains(d.System.Primary, nic.Index):
		return &failure.Error{
			Err: fmt.Errorf("%s is the primary NIC", nic.Name),
			Fix: "correct match in nodeInterfaces",
		}
	case nic.Port:
		return &failure.Error{
			Err: fmt.Errorf("%s is a port of another interface", nic.Name),
			Fix: "take it out of the bridge or bond, or correct match in nodeInterfaces",
		}
	case d.taken[nic.Index] != "":
		return &failure.Error{
			Err: fmt.Errorf("%s is the NIC of %s", nic.Name, d.taken[nic.Index]),
			Fix: "correct match in nodeInterfaces",
		}
	}
	return nil
}

// addresses decides about a NIC that is up.
func (d *decider) addresses(nic *NIC) {
	want, err := d.wanted(nic)
	d.removeOthers(nic, want)
	for _, addr := range want {
		if slices.Contains(nic.Addrs, addr) {
			d.state.Addresses = append(d.state.Addresses, addr)
		}
	}
	switch {
	case err != nil:
		d.say(Failed, err)
		return
	case !nic.Carrier:
		d.trial.Confirm, d.trial.Free = true, nil
		d.say(NoCarrier, &failure.Error{
			Err: fmt.Errorf("%s has no carrier", nic.Name),
			Fix: "see the cable, or the port of the switch",
		})
		return
	}
	if d.i.Type == DHCP {
		d.lease(nic)
	}
	d.set(nic, want)
}

// removeOthers removes the addresses that the NIC was given and is not to have any more.
func (d *decider) removeOthers(nic *NIC, want []netip.Prefix) {
	if d.kept == nil || d.kept.Link != nic.Index {
		return
	}
	for _, addr := range d.kept.Addrs {
		if !slices.Contains(want, addr) && slices.Contains(nic.Addrs, addr) {
			d.add(Step{Kind: Remove, NIC: *nic, Addr: addr})
		}
	}
}

// wanted returns the addresses that the NIC is to have now.
func (d *decider) wanted(*NIC) ([]netip.Prefix, error) {
	if d.i.Type == DHCP {
		if d.kept != nil && d.kept.Lease != nil && d.Now.Before(d.kept.Lease.Ends) {
			return []netip.Prefix{d.kept.Lease.Prefix}, nil
		}
		return nil, nil
	}
	want := d.i.Addresses(d.Node)
	if len(want) == 0 {
		return nil, &failure.Error{
			Err: fmt.Errorf("no address of the blocks has the hostname %s", d.Node),
			Fix: "give the node an entry with its hostname in the IP block file, or use type: dhcp",
		}
	}
	return want, nil
}

// lease has a server asked when it is time.
func (d *decider) lease(nic *NIC) {
	var lease *Lease
	if d.kept != nil {
		lease = d.kept.Lease
	}
	asking := Discover
	switch {
	case lease == nil || !d.Now.Before(lease.Ends):
		d.say(Pending, errors.New("a DHCP server is asked"))
	case d.trial.Confirm:
		asking = Confirm
		d.later(lease.Ends)
	case !d.Now.Before(lease.Rebind):
		asking = Rebind
		d.later(lease.Ends)
	case !d.Now.Before(lease.Renew):
		asking = Renew
		d.later(lease.Rebind)
	default:
		d.later(lease.Renew)
		return
	}
	if d.trial.Err != nil && asking == Discover {
		d.say(Failed, d.trial.Err)
	}
	d.try(Step{Kind: Ask, NIC: *nic, Asking: asking})
}

// try takes a step that takes time, unless one is taken already or failed a moment ago.
func (d *decider) try(s Step) {
	switch {
	case d.trial.Busy:
	case d.Now.Before(d.trial.Next):
		d.later(d.trial.Next)
	default:
		d.trial.Busy = true
		d.add(s)
	}
}

// set puts addresses on a NIC that has carrier.
func (d *decider) set(nic *NIC, want []netip.Prefix) {
	if len(want) == 0 {
		return // a lease is waited for
	}
	d.say(Ready, nil)
	for _, addr := range want {
		switch {
		case slices.Contains(nic.Duplicate, addr):
			d.say(Failed, &failure.Error{Err: fmt.Errorf("address %s is in use by another host",
				addr.Addr()), Fix: "free it, or give the node another one"})
		case slices.Contains(nic.Addrs, addr):
		case !d.trial.Free[addr] && addr.Addr().Is4(): // of IPv6 the kernel finds out
			d.say(Pending, d.trial.Err)
			if d.trial.Err != nil {
				d.state.Condition = Failed
			}
			d.try(Step{Kind: Probe, NIC: *nic, Addr: addr})
		default:
			d.putOn(nic, addr)
		}
	}
}

// putOn has an address set; one that somebody took away after a pause.
func (d *decider) putOn(nic *NIC, addr netip.Prefix) {
	s := Step{Kind: Add, NIC: *nic, Addr: addr}
	if d.kept != nil && d.kept.Link == nic.Index && slices.Contains(d.kept.Addrs, addr) {
		if d.Now.Sub(d.trial.Restored) > calm {
			d.trial.RestorePause = 0
		}
		if due := d.trial.Restored.Add(d.trial.RestorePause); d.Now.Before(due) {
			d.say(Pending, fmt.Errorf("address %s was taken away, and is put back in a moment", addr))
			d.later(due)
			return
		}
		s.Restore = addr.Addr().Is4() ||
			!d.trial.Confirm // IPv6 addresses go when the link goes down
		d.trial.Restored, d.trial.RestorePause = d.Now, min(max(2*d.trial.RestorePause, firstPause),
			lastPause)
	}
	d.add(s)
	d.say(Pending, nil)
}
