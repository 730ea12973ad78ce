package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/strictjson"
)

const allowedNetwork = "name a NAD of multusNamespace or a network in confDir, or give the " +
	"absolute path of a CNI configuration or of a directory of them"

// readNetworks reads the networks of every pod. As in Multus, clusterNetwork goes with
// defaultNetworks, and delegates alone: with clusterNetwork the delegates are ignored and not even
// looked at, without it the defaultNetworks.
func (n *Node) readNetworks(o *object) {
	n.ClusterNetwork = field(o, "clusterNetwork", "", allowedNetwork, optional(network))
	n.AuxiliaryCNIChainName = field(o, "auxiliaryCNIChainName", "", netconf.AllowedName,
		optional(networkName))
	if n.ClusterNetwork != "" {
		n.DefaultNetworks = field(o, "defaultNetworks", nil, allowedNetwork, listOf(network))
	} else {
		n.readDelegates(o)
	}
	if o.err == nil && n.AuxiliaryCNIChainName != "" && !filepath.IsAbs(n.ClusterNetwork) {
		o.err = badConfig("auxiliaryCNIChainName", "set clusterNetwork to the path of a file",
			"its directory lies beside the file of clusterNetwork, which is %s",
			strictjson.Quote(n.ClusterNetwork))
	}
}

// keepNetworks is readNetworks without the errors.
func (n *Node) keepNetworks(o *object) {
	valid := *o
	n.readNetworks(&valid)
	if valid.err != nil && o.err == nil && len(n.Delegates) == 0 && n.ClusterNetwork == "" {
		unchecked := &object{path: o.path, keys: o.keys, anyCase: o.anyCase}
		n.Delegates = field(unchecked, "delegates", nil, "", strictjson.List)
	}
}

func (n *Node) readDelegates(o *object) {
	delegates := field(o, "delegates", nil, "give a list of CNI configurations", strictjson.List)
	if o.err != nil {
		return
	}
	if len(delegates) == 0 {
		o.err = badConfig("clusterNetwork",
			"set one: clusterNetwork to the name or path of the default network, or delegates to its "+
				"configuration",
			"neither clusterNetwork nor delegates is set")
		return
	}
	for i, raw := range delegates {
		if o.err = checkDelegate(i, raw); o.err != nil {
			return
		}
	}
	n.Delegates = delegates
}

// checkDelegate validates an inline network; what is wrong with it is wrong with Braid's
// configuration.
func checkDelegate(i int, raw json.RawMessage) error {
	_, err := netconf.Parse(raw)
	if err == nil {
		return nil
	}
	path := fmt.Sprintf("delegates[%d]", i)
	fe, ok := errors.AsType[*failure.Error](err)
	if !ok {
		return badConfig(path, "", "%w", err)
	}
	if fe.Field != "" {
		path += "." + fe.Field
	}
	bad := badConfig(path, fe.Fix, "%w", fe.Err)
	bad.Plugin = fe.Plugin
	return bad
}
