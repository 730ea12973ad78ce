package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// passthru leads the chain of auxiliaryCNIChainName: its ADD makes nothing and returns an empty result, so that plugins that
// only work on what another made can follow it. Its other verbs do nothing.
func passthru(_ context.Context, environ []string, stdin []byte) ([]byte, error) {
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
