package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/braid-cni/braid/pkg/agent"
	"github.com/braid-cni/braid/pkg/kube"
)

// The states of an interface that this program knows by name; the others are the agent's.
const (
	stateReady   = "Ready"
	stateUnknown = "Unknown"
)

func nodesCommand() command {
	return command{
		name: "nodes", summary: "the nodes' interfaces beside their primary ones",
		text: `Shows for each node the networks of nodeInterfaces: the NIC, its MAC, the addresses that it
has there, and how it is: Ready, Pending, Absent (no NIC matches), NoCarrier or Failed, and why.
A line without network is Invalid: nodeInterfaces is wrong, and what was set before stays.
That of an agent that has not been heard of for ` + agent.Stale.String() + ` is Unknown.

Exits with 0 if all are ready, 1 if one is not, 2 if that could not be found out.`,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			kubeconfig, o := kubeconfigFlag(f), formatFlag(f, formatTable)
			return func(ctx context.Context, out io.Writer) (bool, error) {
				api, err := openAPI(*kubeconfig)
				if err != nil {
					return false, err
				}
				defer api.Close()
				reports, err := api.NodeReports(ctx)
				if err != nil {
					return false, err
				}
				items := nodeInterfaces(reports, time.Now())
				found := false
				for _, i := range items {
					found = found || i.State != stateReady
				}
				return found, write(out, *o, items, "NODE NETWORK NIC MAC ADDRESSES STATE MESSAGE",
					nodeInterface.rows)
			}
		},
	}
}

// nodeInterface is an interface of a node as it is printed.
type nodeInterface struct {
	Node      string   `json:"node"`
	Network   string   `json:"network"`
	Type      string   `json:"type"`
	Interface string   `json:"interface,omitempty"`
	MAC       string   `json:"mac,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	State     string   `json:"state"`
	Message   string   `json:"message,omitempty"`
}

// nodeInterfaces takes the interfaces of an agent that has been silent for long for unknown.
func nodeInterfaces(reports []kube.NodeReport, now time.Time) (items []nodeInterface) {
	for _, r := range reports {
		if r.Report == nil {
			continue
		}
		for _, i := range r.Report.Interfaces {
			item := nodeInterface{
				r.Node, i.Network, i.Type, i.Interface, i.MAC, i.Addresses,
				i.State, i.Message,
			}
			if c := r.Condition; c == nil || now.Sub(c.LastHeartbeatTime.Time) > agent.Stale {
				item.State, item.Message = stateUnknown, "no agent has reported"
				if c != nil {
					item.Message = fmt.Sprintf("the agent was last heard of %s ago; see its pod",
						duration.HumanDuration(now.Sub(c.LastHeartbeatTime.Time)))
				}
			}
			items = append(items, item)
		}
	}
	return items
}

func (i nodeInterface) rows() [][]string {
	return [][]string{{
		i.Node, i.Network, i.Interface, i.MAC, strings.Join(i.Addresses, ","),
		i.State, i.Message,
	}}
}
