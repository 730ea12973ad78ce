package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"

	cniinvoke "github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/undo"
)

// Request is one CNI operation of one plugin.
type Request struct {
	// ID is the attachment. For GC only its network is set.
	attachment.ID
	// NetNS is the path of the pod's network namespace; on DEL it may be empty or gone.
	NetNS string
	// Args is CNI_ARGS, as it is.
	Args string
	// Version is the cniVersion of the configuration.
	Version string
	// Config is the whole configuration, as it was received.
	Config json.RawMessage
	// PrevResult is the result of the chain so far; on CHECK and DEL that of the whole chain's ADD.
	// Nil for none.
	PrevResult *types100.Result
	// Runtime and CNIArgs are the objects runtimeConfig and args.cni; empty for none.
	Runtime, CNIArgs json.RawMessage
	// Valid are the attachments of the network that exist. It is for GC, and never nil there.
	Valid []attachment.ID
	// Limits bound what the attachment may do to the node; nil for an operator's network. For GC only
	// the namespace is set.
	Limits *attachment.Limits
	// Undo has the steps that take back what an ADD has done. They run if it fails.
	Undo undo.Stack

	// dataRoots are the data roots of the attachment's ADD; nil where they are not known.
	dataRoots hostfile.Roots

	environ []string
	exec    cniinvoke.Exec
	// path is CNI_PATH.
	path    []string
	session *Session
}

// Host returns the node's network namespace and a handle for it.
func (r *Request) Host() (*netns.NS, *nl.Handle, error) {
	at, err := r.session.at(r.session.host)
	if err != nil {
		return nil, nil, err
	}
	return at.ns, at.handle, nil
}

// Pod returns the pod's network namespace and a handle for it. The error is ErrNoPod if the
// namespace is gone, or if the path is something else by now, such as the file that it was mounted
// on, or the node's own namespace.
func (r *Request) Pod() (*netns.NS, *nl.Handle, error) {
	if r.NetNS == "" {
		return nil, nil, ErrNoPod
	}
	at, err := r.session.at(r.NetNS)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, netns.ErrNotNamespace) {
		return nil, nil, fmt.Errorf("%w: %w", ErrNoPod, err)
	}
	if err != nil {
		return nil, nil, err
	}
	if at.node {
		return nil, nil, fmt.Errorf("%w: CNI_NETNS %q leads to the node's own", ErrNoPod, r.NetNS)
	}
	return at.ns, at.handle, nil
}

// ErrNoPod means that there is no network namespace: on DEL all that was in it is gone too.
var ErrNoPod = errors.New("the pod has no network namespace")

// Env reads CNI_ARGS into a struct that embeds types.CommonArgs and has the values that the plugin
// knows as fields.
func (r *Request) Env(values any) error {
	if err := types.LoadArgs(r.Args, values); err != nil {
		return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: "+err.Error(), "")
	}
	return nil
}

// MACSource is where a pod may ask for a MAC address.
type MACSource string

// The sources, as messages name them.
const (
	EnvMAC     MACSource = "CNI_ARGS MAC"
	ArgsMAC    MACSource = "args.cni.mac"
	RuntimeMAC MACSource = "runtimeConfig.mac"
)

// MAC is MACFrom with CNI_ARGS, args.cni and runtimeConfig.
func (r *Request) MAC(configured string) (net.HardwareAddr, error) {
	return r.MACFrom(configured, EnvMAC, ArgsMAC, RuntimeMAC)
}

// MACFrom returns the MAC address that the pod asks for: that of the last source that has one, else
// the configured one, of the key mac; nil for none.
func (r *Request) MACFrom(configured string, sources ...MACSource) (net.HardwareAddr, error) {
	asked, err := r.askedMACs()
	if err != nil {
		return nil, err
	}
	key, value := "mac", configured
	for _, source := range sources {
		if asked[source] != "" {
			key, value = string(source), asked[source]
		}
	}
	if value == "" {
		return nil, nil
	}
	mac, err := parseMAC(key, value)
	if err != nil && key != "mac" {
		return nil, failure.WithFix(err, "ask for a unicast address of six bytes, as 02:00:00:00:00:01")
	}
	return mac, err
}

// askedMACs reads what each source has; an empty string is for nothing.
func (r *Request) askedMACs() (map[MACSource]string, error) {
	var env struct {
		types.CommonArgs
		MAC types.UnmarshallableString
	}
	if err := r.Env(&env); err != nil {
		return nil, err
	}
	var args, runtime struct {
		MAC string `json:"mac"`
	}
	if err := Part("args.cni", r.CNIArgs, &args); err != nil {
		return nil, err
	}
	if err := Part("runtimeConfig", r.Runtime, &runtime); err != nil {
		return nil, err
	}
	return map[MACSource]string{
		EnvMAC: string(env.MAC), ArgsMAC: args.MAC, RuntimeMAC: runtime.MAC,
	}, nil
}

// parseMAC reads the value of key. A MAC that no interface can have is an error: a group's, or none
// at all.
func parseMAC(key, value string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(value)
	if err != nil || len(mac) != macLength {
		return nil, ConfError(key, value, "is no MAC address of six bytes")
	}
	if mac[0]&1 != 0 || [macLength]byte(mac) == [macLength]byte{} {
		return nil, ConfError(key, value, "is no MAC address that an interface can have")
	}
	return mac, nil
}

// macLength is the length of an Ethernet address, in bytes.
const macLength = 6

// Part decodes the keys that a plugin knows of an object that it shares with others. If raw is
// empty, value is left as it is.
func Part(name string, raw json.RawMessage, value any) error {
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, value); err != nil {
		return badValue(name, raw, err)
	}
	return nil
}

// Result returns the result to go on from: a copy of PrevResult, or an empty one.
func (r *Request) Result() *types100.Result {
	if r.PrevResult == nil {
		return &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	}
	copied := *r.PrevResult
	copied.CNIVersion = types100.ImplementedSpecVersion
	return &copied
}
