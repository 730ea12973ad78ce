package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/libcni"
	cniinvoke "github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/status"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// deviceInfoCapability asks a plugin to describe its device in the file that is passed (Device
// Information Specification 1.1.0).
const deviceInfoCapability = "CNIDeviceInfoFile"

// attach runs the ADD of one attachment and checks that the pod got what it asks for. Before the
// ADD the record is saved with the attachment as attempted; the result is saved with the next
// change.
func (w *work) attach(
	ctx context.Context, routing *routing, i int,
) (made status.Result, err error) {
	a := &w.rec.Attachments[i]
	defer func(start time.Time) { w.chainDone(ctx, Add, &a.Attachment, start, err) }(time.Now())
	if err := routing.before(ctx, &a.Attachment); err != nil {
		return status.Result{}, chainError(err, &a.Attachment)
	}
	a.State = record.Attempted
	if err := w.save("attempted " + a.IfName); err != nil {
		return status.Result{}, err
	}
	result, err := w.runAdd(ctx, &a.Attachment)
	if err != nil {
		a.Failure, _ = errors.AsType[*types.Error](err)
		return status.Result{}, w.addError(ctx, err, &a.Attachment)
	}
	a.State = record.Added
	// The result is recorded as the plugins returned it. If something fails from here on, their DEL
	// gets it.
	if a.Result, err = encodeResult(result); err != nil {
		return status.Result{}, err
	}
	routing.open(&a.Attachment, result)
	kept, err := routing.after(ctx, &a.Attachment, result)
	if err == nil && kept != result {
		result = kept
		a.Result, err = encodeResult(result)
	}
	if err != nil {
		return status.Result{}, err
	}
	info, err := w.deviceInfo(&a.Attachment)
	if err != nil {
		return status.Result{}, err
	}
	made = status.Result{Attachment: a.Attachment, CNI: result, DeviceInfo: info}
	if err := w.honoured(ctx, w.req, made); err != nil {
		return status.Result{}, err
	}
	return made, nil
}

func encodeResult(result types.Result) (json.RawMessage, error) {
	data, err := json.Marshal(result)
	if err != nil {
		return nil, fmt.Errorf("encode result: %w", err)
	}
	return data, nil
}

func decodeResult(data json.RawMessage) (types.Result, error) {
	result, err := create.CreateFromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("decode result: %w", err)
	}
	return result, nil
}

// runAdd runs the ADD of an attachment's plugins.
func (w *work) runAdd(ctx context.Context, a *plan.Attachment) (types.Result, error) {
	chain, err := w.prepare(a, w.req.NetNS)
	if err != nil {
		return nil, err
	}
	if a.DeviceInfo {
		err := w.trace("copy device info "+a.IfName, func() error {
			_, err := status.CopyDeviceInfo(w.devicePluginFile(a), w.deviceInfoFile(a))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if err := w.clearCache(a); err != nil {
		return nil, err
	}
	var result types.Result
	err = w.trace("ADD "+a.IfName, func() (err error) {
		result, err = chain.cni.AddNetworkList(ctx, chain.known, chain.rt)
		return err
	})
	return result, err
}

// chain is one attachment, ready for libcni.
type chain struct {
	cni *libcni.CNIConfig
	// known is libcni's list. Its plugins have stand-ins for their configurations, which are in list.
	known, list *libcni.NetworkConfigList
	rt          *libcni.RuntimeConf
	// calls counts the plugins that are run.
	calls *counted
}

// prepare prepares libcni for an attachment, whose plugins are to work in the namespace netns.
func (w *work) prepare(a *plan.Attachment, netns string) (*chain, error) {
	list, err := w.lists.of(a.Conf)
	if err != nil {
		return nil, err
	}
	rt := &libcni.RuntimeConf{
		ContainerID: w.req.ContainerID, NetNS: netns, IfName: a.IfName, Args: a.Args,
		CapabilityArgs: map[string]any{},
	}
	for capability, value := range a.RuntimeConfig {
		rt.CapabilityArgs[capability] = value
	}
	if a.DeviceInfo {
		rt.CapabilityArgs[deviceInfoCapability] = w.deviceInfoFile(a)
	}
	known, exec := asMade(w.sandbox.exec, list, cacheName(list.Name, w.req.ContainerID, a.IfName), a,
		w.req.places.DataRoots)
	calls := &counted{Exec: exec}
	return &chain{cni: w.libcni(w.req, calls), known: known, list: list, rt: rt, calls: calls}, nil
}

// asMade wraps a chain so that libcni runs its plugins as the ADD of the attachment did: with their
// configuration as it was written, and on the terms of that ADD. libcni is called with the list and
// the executor that asMade returns; it knows the network by the name as.
func asMade(
	exec cniinvoke.Exec, list *libcni.NetworkConfigList, as string, a *plan.Attachment,
	dataRoots []string,
) (*libcni.NetworkConfigList, cniinvoke.Exec) {
	known, exec := invoke.Written(exec, list, as)
	return known, invoke.Under(exec,
		invoke.Terms{Chosen: a.InProcess, Limits: a.Limits, DataRoots: dataRoots})
}

// Remedies for plugins that fail and name none.
const (
	adviceConfig = "correct the network's configuration"
	adviceAdd    = adviceConfig + ", or what the plugin lacks on this node"
	adviceCheck  = "the pod's network is not as it was made; delete the pod, so that it is made anew"
	adviceDel    = "mend what the plugin lacks on this node; the runtime will repeat the DEL"
)

// chainError names the attachment in the error of a chain. It drops the text that libcni puts
// around a plugin's error, which repeats that.
func chainError(err error, a *plan.Attachment) error { return adviceError(err, a, adviceAdd) }

// adviceError is chainError with a remedy for errors that name none.
func adviceError(err error, a *plan.Attachment, advice string) error {
	named := failure.Error{Reason: failure.PluginFailed, Err: err}
	if fe, ok := errors.AsType[*failure.Error](err); ok && fe.Reason != "" {
		named = *fe
	}
	named.NAD, named.Interface = a.Name, a.IfName
	if named.Reason != failure.PluginFailed || failure.FixOf(&named) != "" {
		return &named
	}
	if advice == adviceAdd && failure.Code(err) == types.ErrInvalidNetworkConfig {
		advice = adviceConfig
	}
	named.Fix = advice
	return &named
}

// addError is chainError for an ADD. The reference's binaries report a master that the node lacks
// as "Link not found" only, so addError looks for the master.
func (e *Engine) addError(ctx context.Context, err error, a *plan.Attachment) error {
	fe, ok := errors.AsType[*failure.Error](err)
	if !ok || failure.FixOf(err) != "" || fe.Reason != failure.PluginFailed {
		return chainError(err, a)
	}
	master := masterOf(a, fe.Plugin)
	if master == "" {
		return chainError(err, a)
	}
	if _, _, found, ierr := e.Interiors.Interface(ctx, nodeNS, master); found || ierr != nil {
		return chainError(err, a)
	}
	return adviceError(err, a,
		fmt.Sprintf("see that this node has the master interface %s, or correct the network's "+
			"configuration", strictjson.Quote(master)))
}

// nodeNS is the network namespace of this process, the node's.
const nodeNS = "/proc/self/ns/net"

// masterOf returns the interface of the node that a plugin of the chain works on; empty where it
// names none.
func masterOf(a *plan.Attachment, plugin string) string {
	list, err := netconf.Parse(a.Conf)
	if err != nil {
		return ""
	}
	for i, pluginType := range list.Types() {
		var master string
		var inPod bool
		config := list.Plugin(i)
		if pluginType == plugin && json.Unmarshal(config["master"], &master) == nil &&
			(config["linkInContainer"] == nil || json.Unmarshal(config["linkInContainer"], &inPod) == nil) &&
			!inPod {
			return master
		}
	}
	return ""
}

func (w *work) deviceInfoFile(a *plan.Attachment) string {
	return status.CNIFile(w.deviceInfoDir(w.req), w.req.ContainerID, a.Network, a.IfName)
}

func (e *Engine) devicePluginFile(a *plan.Attachment) string {
	return status.DPFile(e.Node.DeviceInfoDir, a.Resource, a.DeviceID)
}

// deviceInfo reads what the delegate, or else the device plugin, says of the device; nil where
// there is none.
func (w *work) deviceInfo(a *plan.Attachment) (*nadv1.DeviceInfo, error) {
	file := w.deviceInfoFile(a)
	switch {
	case a.DeviceInfo:
	case a.DeviceID != "":
		file = w.devicePluginFile(a)
	default:
		return nil, nil
	}
	info, err := status.LoadDeviceInfo(file)
	if err != nil {
		return nil, &failure.Error{
			Reason: failure.PluginFailed, NAD: a.Name, Interface: a.IfName, Err: err,
		}
	}
	return info, nil
}

// gatewaysOf returns the gateways that the pod named, or else those of the network itself: of its
// default routes, then of its addresses, one for each family.
func gatewaysOf(r status.Result) ([]netip.Addr, error) {
	if len(r.Attachment.Gateways) > 0 {
		return r.Attachment.Gateways, nil
	}
	var gateways []netip.Addr
	add := func(gw netip.Addr, ok bool) {
		for _, have := range gateways {
			ok = ok && have.Is4() != gw.Unmap().Is4()
		}
		if ok {
			gateways = append(gateways, gw.Unmap())
		}
	}
	if result, err := types100.NewResultFromResult(r.CNI); err == nil {
		for _, route := range result.Routes {
			if ones, _ := route.Dst.Mask.Size(); ones == 0 {
				add(netip.AddrFromSlice(route.GW))
			}
		}
		for _, ip := range result.IPs {
			add(netip.AddrFromSlice(ip.Gateway))
		}
	}
	if len(gateways) == 0 {
		return nil, &failure.Error{
			Reason: failure.DefaultRouteFailed, NAD: r.Attachment.Name, Interface: r.Attachment.IfName,
			Field: "default-route",
			Err:   errors.New("the network has no gateway of its own"),
			Fix:   `name one: "default-route": ["192.0.2.1"]`,
		}
	}
	return gateways, nil
}
