// Package failure is the one error type of Braid: what went wrong, at which object, in which field,
// and what to do about it.
//
// Contract: the package that knows the class of a failure makes an *Error; those above it add
// context with %w and never change the class. From the chain, Code returns the CNI error code for
// the runtime and ReasonOf the reason of the pod's event. Nothing here logs.
package failure

import (
	"errors"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// Reason is the class of a failure. It is the reason of the pod's Warning event, so it is CamelCase
// and stable.
type Reason string

// The classes, each with the CNI code that goes with it unless a delegate's own code is in the
// chain.
const (
	InvalidConfig      Reason = "InvalidConfig"      // Braid's own configuration; code 7
	InvalidEnvironment Reason = "InvalidEnvironment" // CNI_* variables, CNI_ARGS; code 4
	// the pod's networks or default-network annotation; code 7
	InvalidAnnotation Reason = "InvalidAnnotation"
	NADNotFound       Reason = "NADNotFound"  // code 7
	NADForbidden      Reason = "NADForbidden" // namespace isolation; code 7
	// the node lacks labels that the NAD's nodeSelector asks for; code 7
	NodeNotSelected Reason = "NodeNotSelected"
	// a tenant's network would change or take something of the node; code 7
	NodeProtected Reason = "NodeProtected"
	// spec.config is no usable CNI configuration; code 7
	NADInvalid Reason = "NADInvalid"
	// a request that no plugin of the chain declares; code 7
	MissingCapability Reason = "MissingCapability"
	// a secondary default route that the pod did not ask for; code 7
	DefaultRouteRefused Reason = "DefaultRouteRefused"
	DefaultRouteFailed  Reason = "DefaultRouteFailed" // the default route could not be moved; code 5
	// an interface name used twice or present already; code 4
	InterfaceConflict Reason = "InterfaceConflict"
	// what the policy for a namespace does not allow; code 7
	PolicyRefused Reason = "PolicyRefused"
	// the NAD's resource was not allocated to the pod; code 7
	DeviceUnavailable Reason = "DeviceUnavailable"
	// a default network that is configured nowhere; code 7
	NetworkNotFound Reason = "NetworkNotFound"
	PluginNotFound  Reason = "PluginNotFound" // no such binary in the plugin path; code 7
	PluginFailed    Reason = "PluginFailed"   // a delegate failed; its own code
	// gone, or replaced by another of the same name; code 3
	PodNotFound    Reason = "PodNotFound"
	APIUnavailable Reason = "APIUnavailable" // code 11
	// the default network is not ready; code 50 on STATUS, else 11
	NotReady     Reason = "NotReady"
	StateCorrupt Reason = "StateCorrupt" // a record that cannot be read; code 6
	// a record that cannot be written, a lock that cannot be had; code 5
	StateFailed Reason = "StateFailed"
	// CHECK of a sandbox that Braid did not attach; code 3
	UnknownSandbox Reason = "UnknownSandbox"
	Busy           Reason = "Busy"     // another operation holds the sandbox; code 11
	TimedOut       Reason = "TimedOut" // a deadline or a cancellation; code 11
	// the installer's place is taken by what it did not install; code 5
	FileInTheWay Reason = "FileInTheWay"
)

// The classes of warnings: an *Error of such a class fails nothing. It is an event of the pod and a
// line of the log.
const (
	IgnoredKey       Reason = "IgnoredKey"       // a key that has no effect
	DefaultRouteKept Reason = "DefaultRouteKept" // a secondary default route that was left out
	// DefaultRouteTaken is the reason of a secondary default route that takes precedence.
	DefaultRouteTaken Reason = "DefaultRouteTaken"
	// a key in another case than the documented, read all the same
	MiscasedKey Reason = "MiscasedKey"
	// a value of Braid's own configuration that is not read as it is written
	OddConfig      Reason = "OddConfig"
	PluginExecuted Reason = "PluginExecuted" // a binary runs in the place of a built-in plugin
	PolicyAudited  Reason = "PolicyAudited"  // what the policy would not allow if it were enforced
)

// CNI error codes beyond those that the CNI library names (CNI 1.1 "Error").
const (
	CodePluginNotAvailable        uint = 50
	CodePluginLimitedConnectivity uint = 51
)

// Error says what failed and where. Empty fields are left out of the text.
type Error struct {
	Reason Reason
	// NAD is "namespace/name", or the name or path of a network that is not a NAD.
	NAD string
	// Plugin is the delegate's type.
	Plugin string
	// Interface is the pod's interface name.
	Interface string
	// Field is the key, or path of keys, of the object that is wrong.
	Field string
	// Err is the cause, lower case, no final stop. Never nil.
	Err error
	// Fix says what the reader can do, as an imperative ("create the NAD, or ..."); may be empty.
	Fix string
}

// network returns what the value of NAD is.
func (e *Error) network() string {
	switch before, _, isNAD := strings.Cut(e.NAD, "/"); {
	case !isNAD:
		return "network "
	case before == "":
		return "file "
	}
	return "NAD "
}

// Error reads "NAD default/a: plugin macvlan: field master: cause; fix".
func (e *Error) Error() string {
	var b strings.Builder
	for _, part := range []struct{ label, value string }{
		{e.network(), e.NAD}, {"interface ", e.Interface}, {"plugin ", e.Plugin}, {"field ", e.Field},
	} {
		if part.value != "" {
			b.WriteString(part.label + part.value + ": ")
		}
	}
	b.WriteString(e.Err.Error())
	if e.Fix != "" {
		b.WriteString("; " + e.Fix)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// WithFix adds to err what the reader can do about it. It is for who knows that and not the class,
// as a plugin does.
func WithFix(err error, fix string) error {
	if err == nil {
		return nil
	}
	return &Error{Err: err, Fix: fix}
}

// AtNAD adds the network's name to an *Error that has none.
func AtNAD(err error, nad string) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.NAD != "" {
		return err
	}
	named := *e
	named.NAD = nad
	return &named
}

// FixOf returns the first remedy that err's text names; empty where there is none.
func FixOf(err error) string {
	for e, ok := errors.AsType[*Error](err); ok; e, ok = errors.AsType[*Error](e.Err) {
		if e.Fix != "" {
			return e.Fix
		}
	}
	return ""
}

// ReasonOf returns the class of the outermost *Error in err's chain that has one; empty when there
// is none.
func ReasonOf(err error) Reason {
	for e, ok := errors.AsType[*Error](err); ok; e, ok = errors.AsType[*Error](e.Err) {
		if e.Reason != "" {
			return e.Reason
		}
	}
	return ""
}

// Code returns the CNI error code of err: the code of a delegate's own error where one is in the
// chain (CNI 1.1 "Error": codes below 100 have meanings that the runtime acts on), else the code of
// the class, else 999 as the CNI library has it.
func Code(err error) uint {
	if ce, ok := errors.AsType[*types.Error](err); ok && ce.Code != 0 {
		return ce.Code
	}
	switch ReasonOf(err) {
	case InvalidConfig, InvalidAnnotation, NADNotFound, NADForbidden, NodeNotSelected, NodeProtected,
		NADInvalid, MissingCapability, DefaultRouteRefused,
		PolicyRefused, DeviceUnavailable, NetworkNotFound, PluginNotFound:
		return types.ErrInvalidNetworkConfig
	case InvalidEnvironment, InterfaceConflict:
		return types.ErrInvalidEnvironmentVariables
	case PodNotFound, UnknownSandbox:
		return types.ErrUnknownContainer
	case StateCorrupt:
		return types.ErrDecodingFailure
	case StateFailed, DefaultRouteFailed, FileInTheWay:
		return types.ErrIOFailure
	case APIUnavailable, Busy, TimedOut, NotReady:
		return types.ErrTryAgainLater
	}
	return types.ErrInternal
}

// CNI turns err into the error object that is printed for the runtime, with the whole chain's text,
// fit for its log.
func CNI(err error) *types.Error {
	return types.NewError(Code(err), strictjson.Printable(err.Error()), "")
}
