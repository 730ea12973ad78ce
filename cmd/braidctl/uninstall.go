package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/strictjson"
)

const (
	agentDaemonSet, agentContainer = "braid-agent", "agent"
	// webhooks is the name of the webhook configurations.
	webhooks = "braid-controller"
	// pollEvery is how often nodes are looked at while a command waits for them.
	pollEvery = 2 * time.Second
)

const uninstallText = `Ends admission: its webhook configurations are deleted, so that pods with
networks do not wait for a controller that goes. Then has the agents take Braid off their nodes:
first its configuration, so that new pods have what the runtime finds then, and when the last pod
that Braid attached is gone from the node, the plugin and its credential. Pods that run keep their
networks meanwhile; those with the default network alone count, too. With --restore the
configuration that a node had before, as that of Multus, is put back first.

It waits for all nodes and may be repeated. After it the objects can be deleted: those of
conf/deploy but for 00-crds.yaml, with which all networks would go; or by helm uninstall.

Exits with 0 if Braid is on no node any more, 2 if not.`

func uninstallCommand() command {
	return command{
		name: "uninstall", summary: "take Braid off all nodes, before its objects are deleted",
		text: uninstallText,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			kubeconfig := kubeconfigFlag(f)
			namespace := f.String("n", "kube-system", "`namespace` of the agents")
			restore := f.String("restore", "",
				"`file` of each node with the configuration that it had before")
			keep := f.Bool("keep-files", false,
				"leave the plugin and its credential on the nodes, and do not wait for pods")
			return func(ctx context.Context, out io.Writer) (bool, error) {
				api, err := openAPI(*kubeconfig)
				if err != nil {
					return false, err
				}
				defer api.Close()
				if err := startUninstall(ctx, api, *namespace, *restore, *keep); err != nil {
					return false, err
				}
				return false, awaitUninstalled(ctx, api, out)
			}
		},
	}
}

// startUninstall ends admission, and has the agents take Braid off their nodes.
func startUninstall(
	ctx context.Context, api *kube.API, namespace, restore string, keep bool,
) error {
	if err := api.DeleteWebhooks(ctx, webhooks); err != nil {
		return err
	}
	// All of them are set, as an uninstall before may have set others.
	env := map[string]string{
		"BRAID_UNINSTALL": "1", "BRAID_RESTORE": restore, "BRAID_KEEP_FILES": "",
	}
	if keep {
		env["BRAID_KEEP_FILES"] = "1"
	}
	return api.SetDaemonSetEnv(ctx, namespace, agentDaemonSet, agentContainer, env)
}

// awaitUninstalled waits for all nodes that an agent has reported on, and prints what changes.
func awaitUninstalled(ctx context.Context, api *kube.API, out io.Writer) error {
	said := progress{}
	for {
		reports, err := api.NodeReports(ctx)
		if err != nil {
			return err
		}
		waiting, err := said.print(out, reports)
		if err != nil || waiting == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to be without Braid: %w", failure.Count(waiting, "node"),
				context.Cause(ctx))
		case <-time.After(pollEvery):
		}
	}
}

// progress is what was printed last of each node.
type progress map[string]string

// print prints what has changed, and returns how many nodes have to be waited for.
func (said progress) print(out io.Writer, reports []kube.NodeReport) (waiting int, err error) {
	for _, r := range reports {
		if r.Condition == nil {
			continue
		}
		text := r.Condition.Message
		if r.Condition.Reason != nodev1.Uninstalled {
			waiting++
			text = "waiting: " + text
		}
		if said[r.Node] != text {
			said[r.Node] = text
			_, err := fmt.Fprintf(out, "%s: %s\n", r.Node, strictjson.Printable(text))
			if err != nil {
				return waiting, err
			}
		}
	}
	return waiting, nil
}
