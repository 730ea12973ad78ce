// Package passthru is a plugin without a network of its own. It leads the chain of auxiliaryCNIChainName, so that plugins that only
// work on what another made, such as tuning, can follow it.
//
// Contract: ADD changes nothing and gives an empty result in the configuration's cniVersion; every other command does nothing. A Run is
// an invoke.Plugin.
package passthru

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Run is one CNI command. The error is of a configuration that is no JSON, or of a cniVersion that there is no result in.
func Run(_ context.Context, environ []string, stdin []byte) ([]byte, error) {
	if !slices.Contains(environ, "CNI_COMMAND=ADD") {
		return nil, nil
	}
	var conf types.PluginConf
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	empty := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	result, err := empty.GetAsVersion(conf.CNIVersion)
	if err != nil {
		return nil, fmt.Errorf("express an empty result in CNI %s: %w", conf.CNIVersion, err)
	}
	var out bytes.Buffer
	err = result.PrintTo(&out)
	return out.Bytes(), err
}
