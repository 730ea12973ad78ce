package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/netconf"
)

// Make turns requests and what was found for them into attachments, in the order of the requests.
// It fails as a whole: a pod gets all its networks or none.
func Make(in Input) ([]Attachment, error) {
	if err := checkInput(in); err != nil {
		return nil, err
	}
	names, err := interfaceNames(in.Requests, in.IfName)
	if err != nil {
		return nil, err
	}
	if err := checkDefaultRoutes(in.Requests); err != nil {
		return nil, err
	}
	devices := newDevices(in)
	out := make([]Attachment, 0, len(in.Requests))
	for i, r := range in.Requests {
		a, err := attach(in, r, in.Definitions[i], names[i], devices)
		if err != nil {
			return nil, atNAD(err, found(r, in.Definitions[i]))
		}
		out = append(out, a)
	}
	return out, nil
}

// checkInput holds the caller to the contract of Input, and the runtime to CNI's.
func checkInput(in Input) error {
	wrong := func(text string) error {
		return &failure.Error{Reason: failure.InvalidConfig, Err: errors.New(text)}
	}
	switch {
	case in.Node == nil || in.Policy == nil || in.Call == nil:
		return wrong("plan without a configuration")
	case len(in.Definitions) != len(in.Requests):
		return wrong(fmt.Sprintf("%d definitions for %d networks", len(in.Definitions), len(in.Requests)))
	case len(in.Requests) == 0 || !in.Requests[0].Default:
		return wrong("the first network is not the default one")
	case slices.ContainsFunc(in.Requests[1:], func(r Request) bool { return r.Default }):
		return wrong("more than one default network")
	}
	return checkSandbox(in)
}

// attach makes one attachment. Later steps see the edits of earlier ones: the check for default
// routes comes last, so that it judges what the plugins will really get.
func attach(
	in Input, r Request, def Definition, ifName string, devices *devices,
) (Attachment, error) {
	list, err := in.parse(r, def)
	if err != nil {
		return Attachment{}, err
	}
	a := Attachment{
		Name: displayName(def, list), Network: list.Name(), Default: r.Default, IfName: ifName,
		Args: argsFor(r, in.Args), DeviceInfo: list.Capabilities()[capDeviceInfo], Unknown: def.Unknown,
		Limits: in.limits(r, def),
	}
	a.Warnings = atInterface(list.Warnings(), a)
	if err := a.holdConfig(in, def, list); err != nil {
		return Attachment{}, err
	}
	if err := a.selected(r, def, list); err != nil {
		return Attachment{}, err
	}
	if err := a.ask(in.Call, r, list); err != nil {
		return Attachment{}, err
	}
	if err := devices.assign(&a, def, list); err != nil {
		return Attachment{}, err
	}
	a.Conf = list.Bytes()
	if !r.Default && in.Policy.SecondaryDefaultRoute == conf.RefuseDefaultRoute {
		return a, a.refuseDefaultRoutes()
	}
	return a, nil
}

// holdConfig holds the configuration of a NAD, which users may write, to what it may say of the
// node. It adds a warning for what it drops.
func (a *Attachment) holdConfig(in Input, def Definition, list *netconf.List) error {
	if def.NAD == nil || !HasConfig(def.NAD) {
		return nil
	}
	ignored, err := list.HoldPaths(in.places())
	if err != nil {
		return err
	}
	a.Warnings = append(a.Warnings, atInterface(append(ignored, list.DropPrevResults()...), *a)...)
	return nil
}

// selected takes over what the pod's annotation says at the element of the network, if it has one,
// beside what plugins have to declare.
func (a *Attachment) selected(r Request, def Definition, list *netconf.List) (err error) {
	s := r.Selection
	if s == nil {
		return nil
	}
	a.Origin = &Origin{
		Namespace: s.Namespace, OnDisk: def.NAD != nil && !HasConfig(def.NAD), Selection: s,
	}
	a.Warnings = append(a.Warnings, atInterface(s.Warnings, *a)...)
	a.WantsDefaultRoute, a.Gateways = s.DefaultRoute != nil, slices.Clone(s.DefaultRoute)
	if err := mergeArgs(list, *s); err != nil {
		return err
	}
	if !r.Default {
		a.Wish, err = wishOf(s)
	}
	return err
}

// places returns where the paths in a NAD may lead to.
func (in *Input) places() netconf.Places {
	operator := hostfile.Roots{"/etc"}
	if in.Node.ConfDir != "" {
		operator = append(operator, in.Node.ConfDir)
	}
	return netconf.Places{Data: append(hostfile.Roots{}, in.Policy.DataRoots...), Operator: operator}
}

// atInterface returns copies of warnings that name the attachment.
func atInterface(warnings []*failure.Error, a Attachment) []*failure.Error {
	var named []*failure.Error
	for _, w := range warnings {
		c := *w
		c.NAD, c.Interface = a.Name, a.IfName
		named = append(named, &c)
	}
	return named
}

// argsFor returns the runtime's CNI_ARGS as an attachment gets them. What the runtime asks for
// there beyond naming the pod (IP, MAC, GATEWAY) is meant for the interface that it knows of, the
// default network's; as runtimeConfig it does not reach the others.
func argsFor(r Request, args [][2]string) [][2]string {
	if r.Default {
		return slices.Clone(args)
	}
	var out [][2]string
	for _, pair := range args {
		if pair[0] == "IgnoreUnknown" || strings.HasPrefix(pair[0], "K8S_") {
			out = append(out, pair)
		}
	}
	return out
}

// displayName returns the network's name in network-status.
func displayName(def Definition, list *netconf.List) string {
	return found(Request{Ref: list.Name()}, def)
}

// found names a request in messages once it is known whether a NAD was meant.
func found(r Request, def Definition) string {
	if def.NAD != nil {
		return def.NAD.Namespace + "/" + def.NAD.Name
	}
	return label(r)
}

// label names a request in messages.
func label(r Request) string {
	if r.Ref == "" && r.Namespace != "" {
		return r.Namespace + "/" + r.Name
	}
	return r.Ref
}
