package bridge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/link"
	"github.com/braid-cni/braid/pkg/sysctl"
)

// nameTries bounds the search for a name that no link of the node has; the first is free as a rule.
const nameTries = 10

// carrierWithin bounds the wait for a port to come up. It takes the kernel well below a
// millisecond, and more than three seconds where 500 pods start on two cores.
const carrierWithin = 10 * time.Second

// attachment is an ADD under way.
type attachment struct {
	*plugin.Request
	plugin Plugin
	conf   *Conf
	// ipam is the type of the IPAM plugin; empty for none.
	ipam string
	// port and mac are what the configuration and the pod ask for.
	port nl.Port
	mac  net.HardwareAddr

	hostNS, podNS *netns.NS
	host, pod     *nl.Handle

	bridge *nl.Bridge
	// portLink and podLink are the two ends of the pod's link.
	portLink, podLink *nl.Link
	interfaces        []*types100.Interface
}

// connect makes the bridge and the pod's link. The pod's end is down.
func (a *attachment) connect(ctx context.Context) (err error) {
	name, err := a.join(ctx)
	if err != nil {
		return err
	}
	podLink, described, err := link.Adopt(ctx, a.Request)
	if err != nil {
		return err
	}
	a.podLink = podLink
	if a.portLink, err = a.host.Link(ctx, name); err != nil {
		return err
	}
	a.interfaces = []*types100.Interface{{Name: a.bridge.Name}, {Name: name}, described}
	return a.setPort(ctx, a.portLink, a.port)
}

// join makes the pod's link on the bridge, and returns the name of the port.
func (a *attachment) join(ctx context.Context) (port string, err error) {
	unlock, err := a.guard(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if a.Limits != nil {
		a.Undo.Push(func(ctx context.Context) error { return a.plugin.release(ctx, a.Request, a.conf) })
	}
	if err := a.ensureBridge(ctx); err != nil {
		return "", err
	}
	peer := nl.NewLink{Name: a.IfName, In: a.podNS, MTU: a.conf.MTU, MAC: a.mac, Group: link.Group}
	return a.addVeth(ctx, peer, a.pod)
}

// ensureBridge makes the bridge where there is none, and sets it up. It stays if the ADD fails:
// others may have joined it by then.
func (a *attachment) ensureBridge(ctx context.Context) (err error) {
	if a.bridge, err = a.findOrAddBridge(ctx); err != nil {
		return err
	}
	if err := a.claim(ctx, a.bridge); err != nil {
		return err
	}
	if err := a.mayJoin(a.bridge); err != nil {
		return err
	}
	if a.conf.filtersVLANs() && !a.bridge.VLANFiltering {
		return plugin.ConfError("bridge", a.bridge.Name,
			"exists and does not filter VLANs, as vlan and vlanTrunk need it")
	}
	if err := a.ensurePromisc(ctx); err != nil {
		return err
	}
	return a.setBridgeUp(ctx)
}

// findOrAddBridge returns the bridge as it is on the node, which may be as others made it. Limits
// that do not allow a new one are an error where there is none.
func (a *attachment) findOrAddBridge(ctx context.Context) (*nl.Bridge, error) {
	name := a.conf.bridge()
	bridge, err := a.host.Bridge(ctx, name)
	if !errors.Is(err, nl.ErrNoLink) {
		return bridge, err
	}
	if err := a.mayJoin(nil); err != nil {
		return nil, err
	}
	// Another ADD may be faster.
	if err := a.addBridge(ctx); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return a.host.Bridge(ctx, name)
}

// ensurePromisc makes the bridge take all frames, if the configuration asks for it.
func (a *attachment) ensurePromisc(ctx context.Context) error {
	if !a.conf.PromiscMode || a.bridge.Promisc {
		return nil
	}
	if !a.own() {
		return a.foreign("promiscMode", "promiscuous mode")
	}
	return a.host.SetPromisc(ctx, a.bridge.Index, true)
}

// setBridgeUp sets the bridge up. One that is up already may be others', and stays as it is.
func (a *attachment) setBridgeUp(ctx context.Context) error {
	if a.bridge.Up {
		return nil
	}
	if err := sysctl.Try(a.hostNS, ignoreRouters(a.bridge.Name)); err != nil {
		return err
	}
	return a.host.SetUp(ctx, a.bridge.Index)
}

// addBridge makes the bridge, which is down. fs.ErrExist is for a name that is taken.
func (a *attachment) addBridge(ctx context.Context) error {
	wanted := nl.NewLink{Name: a.conf.bridge(), MTU: a.conf.MTU, Group: a.group()}
	if a.conf.gateway(a.ipam) {
		// With an address of its own it does not take over those of its ports: a gateway's MAC is in
		// pods' neighbour tables.
		var err error
		if wanted.MAC, err = randomMAC(); err != nil {
			return err
		}
	}
	return a.host.AddBridge(ctx, wanted, a.conf.filtersVLANs())
}

// group returns the link group of what is made for attachments like this one.
func (a *attachment) group() uint32 {
	if a.Limits == nil {
		return 0
	}
	return group
}

// randomMAC returns a MAC that is of one host and locally administered.
func randomMAC() (net.HardwareAddr, error) {
	mac := make(net.HardwareAddr, 6)
	if _, err := rand.Read(mac); err != nil {
		return nil, err
	}
	mac[0] = mac[0]&^1 | 2
	return mac, nil
}

// ignoreRouters keeps a pod from becoming the node's IPv6 router by saying that it is one
// (CVE-2020-10749).
func ignoreRouters(name string) sysctl.Setting {
	return sysctl.Setting{Key: "net/ipv6/conf/" + name + "/accept_ra", Value: "0"}
}

// addVeth makes a pair of links: peer, in the namespace of the handle at, and a port of the bridge,
// whose name it returns.
func (a *attachment) addVeth(
	ctx context.Context, peer nl.NewLink, at *nl.Handle,
) (name string, err error) {
	for range nameTries {
		var random [4]byte
		if _, err := rand.Read(random[:]); err != nil {
			return "", err
		}
		name = fmt.Sprintf("veth%x", random)
		err = a.host.AddPortVeth(ctx, nl.NewLink{Name: name, MTU: peer.MTU}, a.bridge.Index, peer)
		if !errors.Is(err, fs.ErrExist) {
			return name, err
		}
		// Which of the two names is taken, the kernel does not say.
		if _, lerr := at.Link(ctx, peer.Name); !errors.Is(lerr, nl.ErrNoLink) {
			return "", errors.Join(err, lerr)
		}
	}
	return "", err
}

// setPort configures a new port of the bridge, and sets it up.
func (a *attachment) setPort(ctx context.Context, port *nl.Link, p nl.Port) error {
	// A bridge that others made may still listen.
	err := sysctl.Try(a.hostNS, ignoreRouters(a.bridge.Name), ignoreRouters(port.Name))
	if err != nil {
		return err
	}
	if a.leavesDefaultVLAN(p) {
		if err := a.host.RemovePortVLAN(ctx, port.Index, a.bridge.DefaultPVID); err != nil {
			return err
		}
	}
	if p.Hairpin || p.Isolated || len(p.VLANs) > 0 {
		if err := a.host.SetPort(ctx, port.Index, p); err != nil {
			return err
		}
	}
	return a.host.SetUp(ctx, port.Index)
}

// leavesDefaultVLAN reports whether a port is to be taken from the VLAN that the bridge puts every
// new port in.
func (a *attachment) leavesDefaultVLAN(p nl.Port) bool {
	return len(p.VLANs) > 0 && !a.conf.PreserveDefaultVLAN && a.bridge.DefaultPVID != 0
}

// withoutAddresses completes a link without IPAM.
func (a *attachment) withoutAddresses(ctx context.Context) error {
	if err := a.addRules(ctx, nil); err != nil || a.conf.DisableContainerInterface {
		return err
	}
	if err := a.pod.SetUp(ctx, a.podLink.Index); err != nil {
		return err
	}
	return a.awaitPort(ctx)
}

// withAddresses completes the link and the result with what the IPAM plugin gives. The node's own
// part comes last, as it is not taken back.
func (a *attachment) withAddresses(ctx context.Context, result *types100.Result) error {
	allotted, err := a.Allot(ctx, a.ipam)
	if err != nil {
		return err
	}
	result.IPs, result.Routes, result.DNS = allotted.IPs, allotted.Routes, allotted.DNS
	gateways, err := a.complete(result)
	if err != nil {
		return err
	}
	if err := a.addRules(ctx, result.IPs); err != nil {
		return err
	}
	err = link.Configure(ctx, a.Request, a.podLink, result, podInterface, a.conf.EnableDAD)
	if err != nil {
		return err
	}
	if err := a.awaitPort(ctx); err != nil {
		return err
	}
	err = a.setGateways(ctx, gateways)
	result.Interfaces = a.interfaces
	return err
}

// awaitPort waits until the port passes packets.
func (a *attachment) awaitPort(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, carrierWithin)
	defer cancel()
	err := a.host.AwaitCarrier(waiting, a.hostNS, a.portLink.Index)
	if waiting.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("bridge port in error state: %s is not up after %v",
			a.portLink.Name, carrierWithin)
	}
	return err
}

// describe completes the result with the MACs of the node's links, which may have changed since.
func (a *attachment) describe(ctx context.Context) error {
	for i, each := range []*nl.Link{bridgeInterface: a.bridge.Link, portInterface: a.portLink} {
		now, err := a.host.LinkByIndex(ctx, each.Index)
		if err != nil {
			return err
		}
		a.interfaces[i].Mac = now.MAC.String()
	}
	return nil
}
