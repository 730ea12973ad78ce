package plugin

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

	"github.com/braid-cni/braid/pkg/nl"
)

// OnMaster are the keys of plugins whose interface is made on another one, the master: macvlan, ipvlan.
type OnMaster struct {
	Common
	// Master is the interface to make the link on; that of the default route where it is empty.
	Master string `json:"master"`
	// Mode is how links of one master reach each other and what is beyond it: one of the plugin's modes, by default its first.
	Mode string `json:"mode"`
	// MTU in bytes, at most the master's, which it is by default.
	MTU int `json:"mtu"`
	// LinkInContainer is that the master is in the pod's namespace.
	LinkInContainer bool `json:"linkInContainer,omitempty"`
	// EnableDAD is that IPv6 addresses are checked for duplicates, for which ADD waits. Default false, as for the bridge plugin.
	EnableDAD bool `json:"enabledad,omitempty"`
}

// Lower is a link that a pod's interface is made on, and the handle of its namespace.
type Lower struct {
	*nl.Link
	Handle *nl.Handle
}

// Master finds the link of the key master, in the pod's namespace where inPod (linkInContainer) says so, else the node's. Without a name it
// is that of the default route. mtu, the key, may not exceed the master's.
func Master(ctx context.Context, req *Request, name string, inPod bool, mtu int) (*Lower, error) {
	_, handle, err := req.Host()
	if inPod {
		_, handle, err = req.Pod()
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
		return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("field master %q: %v", name, err), "")
	}
	if err != nil {
		return nil, fmt.Errorf("find the master: %w", err)
	}
	if mtu < 0 || mtu > link.MTU {
		return nil, ConfError("mtu", mtu, fmt.Sprintf("must be from 0 to %d, the MTU of %s", link.MTU, link.Name))
	}
	return &Lower{link, handle}, nil
}

// mode is Mode or its default.
func (c *OnMaster) mode(modes []string) (string, error) {
	if c.Mode == "" {
		return modes[0], nil
	}
	if !slices.Contains(modes, c.Mode) {
		return "", ConfError("mode", c.Mode, "give one of "+strings.Join(modes, ", "))
	}
	return c.Mode, nil
}

// Maker makes a link on a master, in one of the plugin's modes.
type Maker func(ctx context.Context, master *Lower, link nl.NewLink, mode string) error

// AttachTo is the ADD of a plugin whose interface is made on a master. The link has the addresses and routes of the IPAM plugin; where
// there is none, those of given; where that is nil, none, and is only set up.
func AttachTo(ctx context.Context, req *Request, c *OnMaster, modes []string, mac net.HardwareAddr, given *types100.Result, build Maker) (*types100.Result, error) {
	mode, err := c.mode(modes)
	if err != nil {
		return nil, err
	}
	ipam, err := c.IPAMType()
	if err != nil {
		return nil, err
	}
	master, err := Master(ctx, req, c.Master, c.LinkInContainer, c.MTU)
	if err != nil {
		return nil, err
	}
	ns, pod, err := req.Pod()
	if err != nil {
		return nil, err
	}
	wanted := nl.NewLink{Name: req.IfName, In: ns, MTU: c.MTU, MAC: mac, Group: Group}
	if err := req.makeNamed(ctx, wanted, func(l nl.NewLink) error { return build(ctx, master, l, mode) }); err != nil {
		return nil, err
	}
	link, described, err := req.NewInterface(ctx)
	if err != nil {
		return nil, err
	}
	result := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, Interfaces: []*types100.Interface{described}, DNS: c.DNS}
	if ipam != "" {
		if given, err = req.Allot(ctx, ipam); err != nil {
			return nil, err
		}
	}
	if given == nil {
		return result, pod.SetUp(ctx, link.Index)
	}
	result.Routes = given.Routes
	for _, ip := range given.IPs {
		result.IPs = append(result.IPs, &types100.IPConfig{Interface: types100.Int(0), Address: ip.Address, Gateway: ip.Gateway})
	}
	return result, Configure(ctx, req, link, result, 0, c.EnableDAD)
}

// makeNamed makes a link in the pod's namespace. Kernels before 6.15 refuse a name that the namespace of the master has too, as eth0; there
// the link gets its name when it is in the pod.
func (r *Request) makeNamed(ctx context.Context, wanted nl.NewLink, build func(nl.NewLink) error) error {
	_, pod, err := r.Pod()
	if err != nil {
		return err
	}
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
	r.Undo.Push(func(ctx context.Context) error { return pod.DeleteLink(ctx, wanted.Name) })
	link, err := pod.Link(ctx, wanted.Name)
	if err != nil {
		return err
	}
	return pod.SetName(ctx, link.Index, name)
}

// CheckAttached is the CHECK that belongs to AttachTo. A master that is named must be there, and the link's.
func CheckAttached(ctx context.Context, req *Request, c *OnMaster, modes []string, kind string) error {
	mode, err := c.mode(modes)
	if err != nil {
		return err
	}
	var master *Lower
	if c.Master != "" {
		if master, err = Master(ctx, req, c.Master, c.LinkInContainer, c.MTU); err != nil {
			return err
		}
	}
	if err := PassOn(ctx, req, &c.Common, "CHECK"); err != nil {
		return err
	}
	link, err := req.CheckInterface(ctx, kind)
	if err != nil {
		return err
	}
	if link.Mode != mode {
		return fmt.Errorf("interface %s is in mode %s, not %s", link.Name, link.Mode, mode)
	}
	if master != nil && link.ParentIndex != master.Index {
		return fmt.Errorf("interface %s is not on %s", link.Name, master.Name)
	}
	return nil
}
