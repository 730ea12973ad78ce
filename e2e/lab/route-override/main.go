// Command route-override is a chained CNI plugin for tests, in the place of the one of that name
// that users install beside Braid. It knows the key addroutes alone: ADD adds these routes to the
// pod and to the result; a route goes with its interface.
package main

import (
	"context"
	"encoding/json"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
)

func main() {
	nothing := func(*skel.CmdArgs) error { return nil }
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: nothing, Check: nothing}, version.All,
		"route-override of the tests")
}

type config struct {
	types.PluginConf
	AddRoutes []struct {
		Dst netip.Prefix `json:"dst"`
		GW  netip.Addr   `json:"gw"`
	} `json:"addroutes"`
}

func add(args *skel.CmdArgs) error {
	var c config
	if err := json.Unmarshal(args.StdinData, &c); err != nil {
		return err
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return err
	}
	result, err := types100.NewResultFromResult(c.PrevResult)
	if err != nil {
		return err
	}
	ns, err := netns.Open(args.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	var pod *nl.Handle
	if err := ns.Do(func() (err error) { pod, err = nl.Open(ns); return err }); err != nil {
		return err
	}
	defer pod.Close()
	ctx := context.Background()
	link, err := pod.Link(ctx, args.IfName)
	if err != nil {
		return err
	}
	for _, r := range c.AddRoutes {
		if err := pod.AddRoute(ctx, nl.Route{Index: link.Index, Dst: r.Dst, Gateway: r.GW}); err != nil {
			return err
		}
		result.Routes = append(result.Routes, &types.Route{Dst: plugin.IPNet(r.Dst), GW: r.GW.AsSlice()})
	}
	return types.PrintResult(result, c.CNIVersion)
}
