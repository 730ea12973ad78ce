package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Changes are the steps from the attachments that a pod has to those of another plan.
type Changes struct {
	// Remove are attachments that the pod has, the last first. They go before the others come, which
	// may take over their interface names and devices.
	Remove []Attachment
	// Add are attachments of the plan, in its order. If an attachment that stays has the interface
	// name that the plan chose, or the device, they have another.
	Add []Attachment
}

// Diff returns what is to change so that a pod that has these attachments has those that its
// annotation asks for by now. have are the recorded ones, but those that are owed; want is what
// Make returns for the pod as it is.
//
// An attachment that has what an element of the annotation asks for (Wish) stays, with its
// interface name and its device, in whatever order they are. Of several that are alike the first
// ones stay. Where an element asks by name for the interface of another network, that one goes, and
// comes back under another name if its own was chosen by the plan. Of the possible changes these
// are the fewest.
//
// A network whose definition has changed stays as it was made; with redefine it is removed, and
// added as it is defined now, under the name that it has.
//
// What the annotation does not name is never changed: the default network and those that the node
// gives all pods. Nor is an attachment removed whose record does not know its Wish; it has what any
// element of its network asks for. It is an error of reason InterfaceConflict if an element asks
// for the interface of one of these.
func Diff(have, want []Attachment, redefine bool) (Changes, error) {
	d := &difference{
		have: have, want: want, by: map[int]int{}, keep: map[int]bool{}, taken: make([]bool, len(have)),
	}
	d.match()
	if err := d.conflict(); err != nil {
		return Changes{}, err
	}
	changes := d.changes(redefine)
	return changes, d.place(&changes)
}

// difference is the work of Diff.
type difference struct {
	have, want []Attachment
	// by maps the index of a wanted attachment to that of the one that the pod has for it.
	by map[int]int
	// taken marks the attachments of the pod that are in by.
	taken []bool
	// keep marks indices of Changes.Add whose interface keeps its name.
	keep map[int]bool
}

// match finds the attachments that stay.
func (d *difference) match() {
	d.pass(func(h, w *Attachment) bool { return w.Default && h.Default })
	d.pass(func(h, w *Attachment) bool {
		return w.fixed() && h.fixed() && w.Name == h.Name && w.IfName == h.IfName
	})
	d.pass(func(h, w *Attachment) bool { return w.fixed() && h.fixed() && w.Name == h.Name })
	asked := d.asked()
	d.pass(func(h, w *Attachment) bool {
		return !w.fixed() && w.Wish.IfName == h.IfName && satisfies(h, w)
	})
	d.pass(func(h, w *Attachment) bool {
		return !w.fixed() && w.Wish.IfName == "" && !asked[h.IfName] && satisfies(h, w)
	})
}

// pass matches what is not matched yet, in the order of both lists.
func (d *difference) pass(matches func(h, w *Attachment) bool) {
	for w := range d.want {
		for h := range d.have {
			_, ok := d.by[w]
			if ok || d.taken[h] || d.have[h].Default != d.want[w].Default ||
				!matches(&d.have[h], &d.want[w]) {
				continue
			}
			d.by[w], d.taken[h] = h, true
		}
	}
}

// fixed reports whether Diff must not change an attachment.
func (a *Attachment) fixed() bool { return a.Default || a.Wish == nil }

// satisfies reports whether an attachment that the pod has is what a wanted one asks for, but for
// its interface name.
func satisfies(h, w *Attachment) bool {
	return h.Name == w.Name && (h.Wish == nil || sameJSON(h.Wish.Requests, w.Wish.Requests))
}

// asked returns the interface names that the annotation asks for.
func (d *difference) asked() map[string]bool {
	asked := map[string]bool{}
	for i := range d.want {
		if !d.want[i].fixed() {
			asked[d.want[i].Wish.IfName] = true
		}
	}
	delete(asked, "")
	return asked
}

// conflict returns the error of an element that asks for the interface of an attachment that must
// stay.
func (d *difference) conflict() error {
	for w := range d.want {
		if _, ok := d.by[w]; ok || d.want[w].fixed() {
			continue
		}
		for h := range d.have {
			if d.have[h].fixed() && d.have[h].IfName == d.want[w].Wish.IfName {
				return &failure.Error{
					Reason: failure.InterfaceConflict, NAD: d.want[w].Name, Interface: d.have[h].IfName,
					Field: "interface",
					Err: fmt.Errorf("it belongs to network %s, which cannot be removed from a pod that runs",
						strictjson.Quote(d.have[h].Name)),
					Fix: "choose another interface name in the pod's annotation, or make the pod anew",
				}
			}
		}
	}
	return nil
}

// changes returns those of what is matched.
func (d *difference) changes(redefine bool) (c Changes) {
	goes := d.unmatched()
	for w := range d.want {
		h, stays := d.by[w]
		switch {
		case d.want[w].fixed():
		case !stays:
			c.Add = append(c.Add, d.want[w])
		case redefine && isRedefined(&d.have[h], &d.want[w]):
			goes[h], d.keep[len(c.Add)] = true, true
			c.Add = append(c.Add, d.want[w].Renamed(d.have[h].IfName))
		}
	}
	for h := range slices.Backward(d.have) {
		if goes[h] {
			c.Remove = append(c.Remove, d.have[h])
		}
	}
	return c
}

// unmatched marks the attachments of the pod that may be removed and no wanted one stands for.
func (d *difference) unmatched() []bool {
	marks := make([]bool, len(d.have))
	for h := range d.have {
		marks[h] = !d.taken[h] && !d.have[h].fixed()
	}
	return marks
}

// isRedefined reports whether an attachment can be made anew, and its network is not defined as it
// was.
func isRedefined(h, w *Attachment) bool { return !h.fixed() && !sameDefinition(h, w) }

// sameDefinition reports whether the network of an attachment is defined as it was. Which device it
// has is no matter of its definition.
func sameDefinition(h, w *Attachment) bool {
	if h.Resource != w.Resource {
		return false
	}
	moved, err := w.withDevice(h.DeviceID)
	return err == nil && sameJSON(h.Conf, moved.Conf)
}

// place assigns free names and devices to the added attachments. There are enough, unless networks
// stay that the plan does not have.
func (d *difference) place(c *Changes) error {
	names, devices := d.inUse(c)
	d.placeNames(c, names)
	free := d.freeDevices(c, devices)
	for i := range c.Add {
		a := &c.Add[i]
		if !devices[device{a.Resource, a.DeviceID}] {
			continue
		}
		if len(free[a.Resource]) == 0 {
			return &failure.Error{
				Reason: failure.DeviceUnavailable, NAD: a.Name, Interface: a.IfName,
				Err: fmt.Errorf("the pod's devices of resource %s are those of networks that stay",
					strictjson.Quote(a.Resource)),
				Fix: "make the pod anew",
			}
		}
		moved, err := a.withDevice(free[a.Resource][0])
		if err != nil {
			return err
		}
		*a, free[a.Resource] = moved, free[a.Resource][1:]
	}
	return nil
}

// placeNames assigns free names to the added attachments: first to those that ask for a name, then
// to those whose name is free, then to the others.
func (d *difference) placeNames(c *Changes, names map[string]string) {
	placed := make([]bool, len(c.Add))
	for _, may := range []func(i int, a *Attachment) bool{
		func(i int, a *Attachment) bool { return d.keep[i] || a.Wish.IfName == a.IfName },
		func(_ int, a *Attachment) bool { return names[a.IfName] == "" },
		func(_ int, a *Attachment) bool {
			*a = a.Renamed(freeName(names, 1))
			return true
		},
	} {
		for i := range c.Add {
			if a := &c.Add[i]; !placed[i] && may(i, a) {
				placed[i], names[a.IfName] = true, a.Name
			}
		}
	}
}

// device is a device of a resource.
type device struct{ resource, id string }

// inUse returns the interface names of the attachments that stay, with their networks, and the
// devices.
func (d *difference) inUse(c *Changes) (names map[string]string, devices map[device]bool) {
	names, devices = map[string]string{"lo": "the pod's loopback"}, map[device]bool{}
	for h := range d.have {
		if a := &d.have[h]; !slices.ContainsFunc(c.Remove, func(r Attachment) bool {
			return r.IfName == a.IfName
		}) {
			names[a.IfName] = a.Name
			devices[device{a.Resource, a.DeviceID}] = true
		}
	}
	delete(devices, device{})
	return names, devices
}

// freeDevices returns the pod's devices that no attachment has, by resource, in the plan's order.
func (d *difference) freeDevices(c *Changes, used map[device]bool) map[string][]string {
	used = maps.Clone(used)
	for _, a := range c.Add {
		used[device{a.Resource, a.DeviceID}] = true
	}
	free := map[string][]string{}
	for _, a := range d.want {
		if !used[device{a.Resource, a.DeviceID}] {
			free[a.Resource] = append(free[a.Resource], a.DeviceID)
		}
	}
	return free
}

// Renamed returns an attachment at another interface.
func (a Attachment) Renamed(ifName string) Attachment {
	a.IfName = ifName
	a.Warnings = atInterface(a.Warnings, a)
	return a
}

// withDevice returns an attachment with another device of its resource.
func (a Attachment) withDevice(id string) (Attachment, error) {
	if a.DeviceID == id {
		return a, nil
	}
	list, err := netconf.Parse(a.Conf)
	if err != nil {
		return a, fmt.Errorf("move to device %s: %w", cmp.Or(id, "(none)"), err)
	}
	passed := maps.Clone(a.RuntimeConfig)
	if passed == nil {
		passed = map[string]json.RawMessage{}
	}
	a.DeviceID, a.RuntimeConfig = id, passed
	a.passDevice(list)
	a.Conf = list.Bytes()
	return a, nil
}
