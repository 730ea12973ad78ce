package plan

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/utils"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/selection"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// parse reads a network's definition into a list that has a name and a cniVersion. An omitted name
// becomes the NAD's, or Braid's own for a delegate in Braid's configuration; an omitted cniVersion
// becomes that of Braid's configuration.
func (in *Input) parse(r Request, def Definition) (*netconf.List, error) {
	raw, err := in.rawDefinition(r, def)
	if err != nil {
		return nil, err
	}
	list, err := netconf.Parse(raw)
	if err != nil {
		return nil, unreadable(err, def)
	}
	list.Rename(in.Node.Aliases)
	if list.Name() == "" {
		list.SetName(in.fallbackName(def))
	}
	if err := utils.ValidateNetworkName(list.Name()); err != nil {
		return nil, &failure.Error{
			Reason: failure.NADInvalid, Field: "name",
			Err: fmt.Errorf("%s: %s", strictjson.Quote(list.Name()), err.Msg),
			Fix: "use letters, digits, '_', '.' and '-', beginning with a letter or digit",
		}
	}
	if list.CNIVersion() == "" {
		list.SetCNIVersion(in.Call.CNIVersion)
	}
	if list.CNIVersion() == "" {
		list.SetCNIVersion(netconf.DefaultVersion)
	}
	return list, nil
}

// unreadable is the error of a definition that is no configuration, for those who can mend it: the
// author of the NAD, or the operator of the node.
func unreadable(err error, def Definition) error {
	if def.NAD == nil {
		e := asFailure(err, failure.InvalidConfig)
		e.Reason = failure.InvalidConfig
		return e
	}
	e := asFailure(err, failure.NADInvalid)
	e.Field = cmp.Or(e.Field, "spec.config")
	e.Fix = cmp.Or(e.Fix, "make it a CNI configuration in JSON")
	return e
}

// HasConfig reports whether a NAD has a configuration of its own: blanks are none. Without one it
// is the network of its name on the node's disk (NPWG v1.3 s.3.4.1).
func HasConfig(nad *nadv1.NetworkAttachmentDefinition) bool {
	return strings.TrimSpace(nad.Spec.Config) != ""
}

// rawDefinition returns the text of the network's configuration: spec.config, else what was found
// elsewhere (NPWG v1.3 s.3.4.1).
func (in *Input) rawDefinition(r Request, def Definition) (json.RawMessage, error) {
	switch {
	case def.NAD != nil && HasConfig(def.NAD):
		return json.RawMessage(def.NAD.Spec.Config), nil
	case len(def.Conf) > 0:
		return def.Conf, nil
	case def.NAD != nil:
		return nil, &failure.Error{
			Reason: failure.NADInvalid, Field: "spec.config",
			Err: fmt.Errorf("it is empty, and the node has no network %q in %s",
				def.NAD.Name, in.Node.ConfDir),
			Fix: "put a CNI configuration into spec.config",
		}
	case r.Selection != nil:
		return nil, &failure.Error{
			Reason: failure.NADNotFound, Err: errors.New("there is no such NetworkAttachmentDefinition"),
			Fix: "create it, or correct the pod's annotation",
		}
	}
	return nil, &failure.Error{
		Reason: failure.NetworkNotFound, Err: errors.New("this network is configured nowhere"),
		Fix: fmt.Sprintf("create a NAD of that name in namespace %s, or a CNI configuration in %s",
			in.Node.MultusNamespace, in.Node.ConfDir),
	}
}

// fallbackName is the name of a network whose definition has none.
func (in *Input) fallbackName(def Definition) string {
	if def.NAD != nil {
		return def.NAD.Name
	}
	return in.Call.Name
}

// argIPAMClaim is the key under args.cni that carries the name of an IPAMClaim. Neither CNI nor
// NPWG v1.3 says how a delegate learns it, and the known implementation reads the annotation
// itself; args.cni is where CNI lets an implementation pass what a plugin may ignore, which is what
// NPWG v1.3 s.4.1.2.1.11 asks for.
const argIPAMClaim = "ipam-claim-reference"

// mergeArgs puts the pod's cni-args into args.cni of every plugin, over what the definition has
// there.
func mergeArgs(list *netconf.List, s selection.Selection) error {
	args := map[string]json.RawMessage{}
	for k, v := range s.CNIArgs {
		args[k] = v
	}
	if s.IPAMClaim != "" {
		claim, err := json.Marshal(s.IPAMClaim)
		if err != nil {
			return fmt.Errorf("encode %s: %w", argIPAMClaim, err)
		}
		args[argIPAMClaim] = claim
	}
	if len(args) == 0 {
		return nil
	}
	return list.MergeCNIArgs(args)
}
