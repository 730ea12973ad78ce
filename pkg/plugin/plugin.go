// Package plugin is the contract of a plugin that runs in-process, and its adapter to the CNI
// protocol's wire form.
//
// Contract of a plugin: Add makes all or nothing. For each change it pushes a step on Request.Undo,
// in the line after the change. Del and GC are idempotent: "already gone" is success. Del needs
// neither the network namespace nor the links in it, and goes on past errors. Check changes
// nothing, and returns an error for what is not as Add left it. A plugin works in namespaces
// through the handles of its request, never by moving a thread. It keeps nothing between requests
// but what it writes to disk.
package plugin

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
)

// Interface is a plugin with its configuration C, a struct whose json tags are the keys that the
// plugin knows.
type Interface[C any] interface {
	// Add returns the result of the chain up to this plugin (CNI 1.1 "ADD").
	Add(ctx context.Context, req *Request, conf *C) (*types100.Result, error)
	Del(ctx context.Context, req *Request, conf *C) error
	Check(ctx context.Context, req *Request, conf *C) error
	// GC removes what belongs to no attachment of req.Valid.
	GC(ctx context.Context, req *Request, conf *C) error
	// Status reports whether an ADD could succeed now: code 50 if not (CNI 1.1 "STATUS").
	Status(ctx context.Context, req *Request, conf *C) error
}

// Common are the keys that every configuration of an interface or meta plugin may have (CNI 1.1
// "Plugin configuration objects"). A plugin's configuration embeds it.
type Common struct {
	CNIVersion string `json:"cniVersion"`
	// Name is the network's name. The adapter has checked it.
	Name string `json:"name"`
	Type string `json:"type"`
	// Capabilities tell the runtime what to pass in runtimeConfig.
	Capabilities map[string]bool `json:"capabilities,omitempty"`
	// IPAM is for the IPAM plugin. Only its type counts here.
	IPAM json.RawMessage `json:"ipam,omitempty"`
	// DNS is returned as it is.
	DNS types.DNS `json:"dns"`
	// Args are the arguments of the pod's request, Request.CNIArgs.
	Args json.RawMessage `json:"args,omitempty"`
	// RuntimeConfig holds the values of capabilities, Request.Runtime.
	RuntimeConfig json.RawMessage `json:"runtimeConfig,omitempty"`
	// AllowPersistentIPs is true if pods may name an IPAMClaim. It is for those that make claims, and
	// changes nothing here: a claim that a pod names counts in any case.
	AllowPersistentIPs bool `json:"allowPersistentIPs,omitempty"`
	// PrevResult is the result of the plugin before, Request.PrevResult.
	PrevResult json.RawMessage `json:"prevResult,omitempty"`
	// ValidAttachments are GC's, Request.Valid.
	ValidAttachments json.RawMessage `json:"cni.dev/valid-attachments,omitempty"`
	Attachments      json.RawMessage `json:"cni.dev/attachments,omitempty"`
}

// Plugin is one type of plugin, ready to be run in wire form.
type Plugin struct {
	// ipam plugins have their configuration in the key "ipam" of another plugin's.
	ipam bool
	// prepare reads the plugin's configuration.
	prepare func(conf []byte) (*prepared, error)
}

// operation is a plugin with its configuration.
type operation func(ctx context.Context, command string, req *Request) (*types100.Result, error)

// New makes a Plugin of an interface or meta plugin. C embeds Common.
func New[C any](impl Interface[C]) *Plugin {
	return &Plugin{prepare: preparer(impl, "", listKeys())}
}

// NewIPAM makes a Plugin of an IPAM plugin. C is the object "ipam" in the configuration of the
// plugin that calls it.
func NewIPAM[C any](impl Interface[C]) *Plugin {
	return &Plugin{ipam: true, prepare: preparer(impl, "ipam", ipamKeys())}
}

// prepared is a configuration that was read, see invoke.Prepared.
type prepared struct {
	run      operation
	keys     keys
	foreign  error
	ignored  []*failure.Error
	validate func() error
	// protect is nil where there is nothing to protect.
	protect func(ctx context.Context, req *Request) error
	// room is nil where there is room for any number of attachments.
	room func(ctx context.Context, req *Request) (uint64, error)
}

// preparer returns a reader of configurations, which are the value of the key of.
func preparer[C any](
	impl Interface[C], of string, extra []string,
) func(raw []byte) (*prepared, error) {
	return func(raw []byte) (*prepared, error) {
		conf, p, err := decode[C](of, raw, extra)
		if err != nil {
			return nil, err
		}
		p.run = configured(impl, conf)
		if i, ok := any(impl).(Ignorer[C]); ok {
			p.ignored = i.Ignored(conf)
		}
		if w, ok := any(impl).(Protector[C]); ok {
			p.protect = func(ctx context.Context, req *Request) error { return w.Protect(ctx, req, conf) }
		}
		if r, ok := any(impl).(Roomer[C]); ok {
			p.room = func(ctx context.Context, req *Request) (uint64, error) {
				return r.Room(ctx, req, conf)
			}
		}
		if j, ok := any(impl).(Judge[C]); ok {
			p.validate = both(p.validate, func() error { return j.Judge(conf) })
		}
		return p, nil
	}
}

// both returns the judgement of two together; the first may be nil.
func both(first, second func() error) func() error {
	return func() error {
		if first != nil {
			if err := first(); err != nil {
				return err
			}
		}
		return second()
	}
}

// Validator is a configuration that can be judged without a pod and a node. Validate returns the
// error that an ADD would return. An ADD calls it before its first change, and so does braidctl
// lint.
type Validator interface{ Validate() error }

// Ignorer is a plugin that can do without some values. Ignored returns a warning for each that it
// ignores.
type Ignorer[C any] interface {
	Ignored(conf *C) []*failure.Error
}

// Judge is a plugin that refuses what the node's administrator does not allow. It is called when a
// Validator is.
type Judge[C any] interface{ Judge(conf *C) error }

// Protector is a plugin that protects the node from a binary of its type. Protect returns an error
// if an ADD of the binary could exceed the limits of an attachment.
type Protector[C any] interface {
	Protect(ctx context.Context, req *Request, conf *C) error
}

// Unlimited means room for any number of attachments.
const Unlimited = invoke.Unlimited

// Roomer is a plugin that needs something scarce. Room returns how many more attachments there is
// room for on this node, as far as the plugin knows. The error is that of an ADD.
type Roomer[C any] interface {
	Room(ctx context.Context, req *Request, conf *C) (uint64, error)
}

// configured returns the operations of a plugin with a configuration. Each gets a copy, as some
// fill it in.
func configured[C any](impl Interface[C], read *C) operation {
	return func(ctx context.Context, command string, req *Request) (*types100.Result, error) {
		copied := *read
		conf := &copied
		switch command {
		case "ADD":
			return impl.Add(ctx, req, conf)
		case "DEL":
			return nil, impl.Del(ctx, req, conf)
		case "CHECK":
			return nil, impl.Check(ctx, req, conf)
		case "GC":
			return nil, impl.GC(ctx, req, conf)
		case "STATUS":
			return nil, impl.Status(ctx, req, conf)
		}
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables,
			fmt.Sprintf("unknown CNI_COMMAND %.40q", command), "")
	}
}
