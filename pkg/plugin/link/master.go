package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/uplink"
	"github.com/braid-cni/braid/pkg/plugin/vlan"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// OnMaster are the keys of plugins whose interface is made on another one, the master: macvlan,
// ipvlan.
type OnMaster struct {
	plugin.Common
	// Master is the interface to make the link on; that of the default route where it is empty.
	Master string `json:"master"`
	// Mode is how links of one master reach each other and what is beyond it: one of the plugin's
	// modes, by default its first.
	Mode string `json:"mode"`
	// MTU in bytes, at most the master's, which it is by default.
	MTU int `json:"mtu"`
	// VLAN is the VLAN of the interface's frames on the master, 1 to 4094; 0 for none.
	VLAN int `json:"vlan,omitempty"`
	// LinkInContainer is true if the master is in the pod's namespace.
	LinkInContainer bool `json:"linkInContainer,omitempty"`
	// EnableDAD is true if IPv6 addresses are checked for duplicates, for which ADD waits. Default
	// false, as for the bridge plugin.
	EnableDAD bool `json:"enabledad,omitempty"`
}

// Lower is a link that a pod's interface is made on, and its namespace.
type Lower struct {
	*nl.Link
	vlan.Place
}

// master finds the link of the key master, in the pod's namespace with linkInContainer, else in the
// node's. Without a name it is that of the default route. The key mtu may not exceed the master's.
func (c *OnMaster) master(ctx context.Context, req *plugin.Request) (*Lower, error) {
	name, inPod := c.Master, c.LinkInContainer
	ns, handle, err := req.Host()
	if inPod {
		ns, handle, err = req.Pod()
	}
	if err != nil {
		return nil, err
	}
	var link *nl.Link
	if name == "" {
		link, err = handle.DefaultLink(ctx)
	} else {
		link, err = handle.Link(ctx, name)
	}
	if errors.Is(err, nl.ErrNoLink) {
		return nil, noMaster(name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("find the master: %w", err)
	}
	names := append([]string{link.Name}, link.AltNames...)
	if !inPod && !req.Limits.MayBeMaster(names...) {
		return nil, plugin.NotAllowed("master",
			fmt.Errorf("%s is none that networks of namespace %s may use", link.Name, req.Limits.Namespace),
			"choose another master", req.Limits, "masters", []string{link.Name})
	}
	lower := &Lower{link, vlan.Place{NS: ns, Handle: handle, InPod: inPod}}
	return lower, lower.bears(c.MTU)
}

// mayUse refuses a link that the attachment would take over and the node lives by.
func mayUse(ctx context.Context, req *plugin.Request, master *Lower, mode string) error {
	if req.Limits == nil || master.InPod || mode != uplink.Passthru {
		return nil
	}
	node, err := uplink.Look(ctx, master.Handle)
	if err != nil || !node.Uplink(master.Index) {
		return err
	}
	return uplink.TakenOver("mode", master.Link)
}

// noMaster returns the error that the kernel has no link for the key master.
func noMaster(name string, err error) error {
	fix := "name the master interface, or give the node a default route"
	if name != "" {
		fix = fmt.Sprintf("see that this node has the master interface %s, or correct the network's "+
			"configuration", strictjson.Quote(name))
	}
	return failure.WithFix(types.NewError(types.ErrInvalidNetworkConfig,
		fmt.Sprintf("field master %q: %v", name, err), ""), fix)
}

// bears refuses an MTU that is greater than the link's.
func (l *Lower) bears(mtu int) error {
	if mtu < 0 || mtu > l.MTU {
		return plugin.ConfError("mtu", mtu,
			fmt.Sprintf("must be from 0 to %d, the MTU of %s", l.MTU, l.Name))
	}
	return nil
}

// Judge judges the keys without the pod and the node. The first of modes is the default.
func (c *OnMaster) Judge(modes []string) error {
	if c.MTU < 0 {
		return plugin.ConfError("mtu", c.MTU, "must be 0 or more")
	}
	_, err := c.checked(modes)
	return err
}

// checked returns the mode, by default the first of modes. It refuses a mode that is none of them,
// and a number that no VLAN has.
func (c *OnMaster) checked(modes []string) (mode string, err error) {
	if mode = c.Mode; mode == "" {
		mode = modes[0]
	}
	if !slices.Contains(modes, mode) {
		return "", plugin.ConfError("mode", c.Mode, "give one of "+strings.Join(modes, ", "))
	}
	if c.VLAN < 0 || c.VLAN > vlan.MaxID {
		return "", plugin.ConfError("vlan", c.VLAN, fmt.Sprintf("must be from 0 to %d", vlan.MaxID))
	}
	return mode, nil
}

// Masters are the operations of a plugin whose interface is made on a master.
type Masters struct {
	// Kind is the kind of the interface.
	Kind string
	// Modes are the modes of the key mode, the default first.
	Modes []string
	// VLANs are the VLANs of the node, which plugins share.
	VLANs vlan.Links
}

// Maker makes a link on a master, in one of the plugin's modes.
type Maker func(ctx context.Context, master *Lower, link nl.NewLink, mode string) error

// Add makes the interface. It has the addresses and routes of the IPAM plugin; where there is none,
// those of given; where that is nil, none, and is only set up.
func (m Masters) Add(
	ctx context.Context, req *plugin.Request, c *OnMaster, mac net.HardwareAddr,
	given *types100.Result, build Maker,
) (*types100.Result, error) {
	mode, err := c.checked(m.Modes)
	if err != nil {
		return nil, err
	}
	ipam, err := c.IPAMType()
	if err != nil {
		return nil, err
	}
	lower, err := m.lower(ctx, req, c, mode)
	if err != nil {
		return nil, err
	}
	wanted := nl.NewLink{Name: req.IfName, MTU: c.MTU, MAC: mac, Group: Group}
	link, described, err := makeInPod(ctx, req, wanted, func(l nl.NewLink) error {
		return build(ctx, lower, l, mode)
	})
	if err != nil {
		return nil, err
	}
	result := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion, Interfaces: []*types100.Interface{described},
		DNS: c.DNS,
	}
	if ipam != "" {
		if given, err = req.Allot(ctx, ipam); err != nil {
			return nil, err
		}
	}
	if given == nil {
		return result, setUp(ctx, req, link)
	}
	result.IPs, result.Routes = ofFirstInterface(given.IPs), given.Routes
	return result, Configure(ctx, req, link, result, 0, c.EnableDAD)
}

// ofFirstInterface returns addresses as those of the first interface of a result.
func ofFirstInterface(given []*types100.IPConfig) (ips []*types100.IPConfig) {
	for _, ip := range given {
		ips = append(ips,
			&types100.IPConfig{Interface: types100.Int(0), Address: ip.Address, Gateway: ip.Gateway})
	}
	return ips
}

// setUp sets up a link of the pod that gets no addresses.
func setUp(ctx context.Context, req *plugin.Request, link *nl.Link) error {
	_, pod, err := req.Pod()
	if err != nil {
		return err
	}
	return pod.SetUp(ctx, link.Index)
}

// lower returns the link to make the interface on, if the attachment may use it in that mode: the
// master or, with a VLAN, the link on the master that is in it.
func (m Masters) lower(
	ctx context.Context, req *plugin.Request, c *OnMaster, mode string,
) (*Lower, error) {
	lower, err := c.master(ctx, req)
	if err != nil {
		return nil, err
	}
	if c.VLAN != 0 {
		if lower, err = m.inVLAN(ctx, req, lower, c); err != nil {
			return nil, err
		}
	}
	return lower, mayUse(ctx, req, lower, mode)
}

// inVLAN returns the link for the VLAN of a master. It makes the link if no attachment has it yet.
func (m Masters) inVLAN(
	ctx context.Context, req *plugin.Request, master *Lower, c *OnMaster,
) (*Lower, error) {
	link, fresh, err := m.VLANs.Use(ctx, master.Place, req.ID, master.Link, c.VLAN)
	if fresh {
		req.Undo.Push(func(ctx context.Context) error { return m.release(ctx, req) })
	}
	if err != nil {
		return nil, err
	}
	lower := &Lower{link, master.Place}
	return lower, lower.bears(c.MTU)
}

// release lets go of the VLAN link that the attachment uses, whatever the configuration says by
// now.
func (m Masters) release(ctx context.Context, req *plugin.Request) error {
	return m.VLANs.Release(ctx, req.ID, handles(req))
}

// handles returns the handles of the node and of the pod; nil for a pod that is gone.
func handles(req *plugin.Request) vlan.Finder {
	return func(inPod bool) (*nl.Handle, error) {
		if !inPod {
			_, host, err := req.Host()
			return host, err
		}
		_, pod, err := req.Pod()
		if errors.Is(err, plugin.ErrNoPod) {
			return nil, nil
		}
		return pod, err
	}
}

// Del removes the interface, then the VLAN link if no other attachment uses it, and gives the
// addresses back. While the interface stays, so does all else.
func (m Masters) Del(ctx context.Context, req *plugin.Request, c *OnMaster) error {
	if err := remove(ctx, req); err != nil {
		return err
	}
	return errors.Join(m.release(ctx, req), plugin.PassOn(ctx, req, &c.Common, "DEL"))
}

// GC releases the VLAN links that attachments of the network used which are not valid. Interfaces
// live in pods' namespaces and go with them.
func (m Masters) GC(ctx context.Context, req *plugin.Request, c *OnMaster) error {
	return errors.Join(plugin.PassOn(ctx, req, &c.Common, "GC"),
		m.VLANs.Keep(ctx, req.Network, req.Valid, handles(req)))
}

// Room is Unlimited if the node has the master; else it is the error of an ADD.
func (Masters) Room(ctx context.Context, req *plugin.Request, c *OnMaster) (uint64, error) {
	if c.LinkInContainer {
		return plugin.Unlimited, nil
	}
	_, err := c.master(ctx, req)
	return plugin.Unlimited, err
}

// makeInPod makes a link in the pod's namespace and adopts it.
func makeInPod(
	ctx context.Context, req *plugin.Request, wanted nl.NewLink, build func(nl.NewLink) error,
) (*nl.Link, *types100.Interface, error) {
	if err := makeNamed(ctx, req, wanted, build); err != nil {
		return nil, nil, err
	}
	return Adopt(ctx, req)
}

// makeNamed makes a link in the pod's namespace. Kernels before 6.15 refuse a name that the
// namespace of the master has too, as eth0; there the link gets its name when it is in the pod.
func makeNamed(
	ctx context.Context, req *plugin.Request, wanted nl.NewLink, build func(nl.NewLink) error,
) error {
	ns, pod, err := req.Pod()
	if err != nil {
		return err
	}
	wanted.In = ns
	taken := build(wanted)
	if !errors.Is(taken, fs.ErrExist) {
		return taken
	}
	if _, err := pod.Link(ctx, wanted.Name); err == nil {
		return taken
	} else if !errors.Is(err, nl.ErrNoLink) {
		return err
	}
	name := wanted.Name
	wanted.Name = fmt.Sprintf("braid%x", rand.Uint32())
	if err := build(wanted); err != nil {
		return err
	}
	req.Undo.Push(func(ctx context.Context) error { return pod.DeleteLink(ctx, wanted.Name) })
	link, err := pod.Link(ctx, wanted.Name)
	if err != nil {
		return err
	}
	return pod.SetName(ctx, link.Index, name)
}

// Check compares the interface with prevResult and with the configuration. A master that is named
// must be there, and the interface's.
func (m Masters) Check(ctx context.Context, req *plugin.Request, c *OnMaster) error {
	mode, err := c.checked(m.Modes)
	if err != nil {
		return err
	}
	var master *Lower
	if c.Master != "" {
		if master, err = c.master(ctx, req); err != nil {
			return err
		}
	}
	if err := plugin.PassOn(ctx, req, &c.Common, "CHECK"); err != nil {
		return err
	}
	link, err := Check(ctx, req, m.Kind)
	if err != nil {
		return err
	}
	if link.Mode != mode {
		return fmt.Errorf("interface %s is in mode %s, not %s", link.Name, link.Mode, mode)
	}
	return checkLower(ctx, req, c, link, master)
}

// checkLower looks for the link in the VLAN below an interface, if there is to be one, and for the
// master below that. A master that is nil may be any.
func checkLower(
	ctx context.Context, req *plugin.Request, c *OnMaster, link *nl.Link, master *Lower,
) (err error) {
	lower := link.ParentIndex
	if c.VLAN != 0 {
		if lower, err = checkVLANLink(ctx, req, c, link); err != nil {
			return err
		}
	}
	if master != nil && lower != master.Index {
		return fmt.Errorf("interface %s is not on %s", link.Name, master.Name)
	}
	return nil
}

// checkVLANLink finds the VLAN link below an interface, and returns the index of the link below
// that.
func checkVLANLink(
	ctx context.Context, req *plugin.Request, c *OnMaster, link *nl.Link,
) (int, error) {
	handle, err := handles(req)(c.LinkInContainer)
	if err != nil {
		return 0, err
	}
	below, err := handle.LinkByIndex(ctx, link.ParentIndex)
	if err != nil {
		return 0, fmt.Errorf("link of VLAN %d below interface %s: %w", c.VLAN, link.Name, err)
	}
	if below.VLAN != c.VLAN {
		return 0, fmt.Errorf("interface %s is on %s, which is not in VLAN %d",
			link.Name, below.Name, c.VLAN)
	}
	return below.ParentIndex, nil
}
