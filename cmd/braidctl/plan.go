package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/lint"
)

const planText = `Shows what a pod would get: per network its interface, its NAD, where each plugin
of its chain runs, and the addresses, routes and device that are asked for. It is the code that an
ADD runs, up to its first change; nothing is changed. What only the node finds out, such as which
address or device, is said to be unknown. What would be refused, and what has no effect, is said as
lint says it:

  object: field: what: remedy

POD is a pod of the cluster, FILE a file or directory of manifests with pods, templates of pods as
in Deployments, and their NADs; of NADs without a pod, one is shown that names the NAD. An operand
is a FILE if it is one, or has a slash or the ending of a manifest; with -n it is a POD. NADs that a
FILE does not have are those of the cluster if --kubeconfig is given.

With --config on the node itself, where the configuration's binDir is, networks on the node's disk
are read, and binaries are looked for in binDir; the runtime's own plugin path comes before it
there.

JSON is a list with one object for each pod:

  kind, namespace, name, where    the object, and its file
  attachments                     the default network first; none if there is no plan
    interface, default            the interface in the pod
    nad, network, cniVersion      nad is NAMESPACE/NAME, and missing for what is no NAD
    plugins                       the chain: type; runs: in-process, binary, "not found" or refused;
                                  path of the binary; searched: the directories that do not have it;
                                  ipam: the same, with ranges
    ips, mac                      what the pod asks for
    routes                        dst and gw of the configuration, without default routes
    defaultRoute                  state: own, asked, leftOut, taken, none or unknown;
                                  families; gateways
    resource                      what a device is of
    unknown                       what only the node knows: configuration, addresses, mac, device
  findings                        as those of lint

Exits with 0 if nothing would be refused, 1 if something would, 2 if that could not be found out.`

func planCommand() command {
	return command{
		name: "plan", operands: "POD...|FILE...",
		summary: "what a pod would get: interfaces, networks, plugins, routes",
		text:    planText,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			kubeconfig, o := kubeconfigFlag(f), formatFlag(f, formatText)
			namespace := f.String("n", "", "`namespace` of the pods; default if there is none")
			nodes := nodeFlags(f)
			return func(ctx context.Context, out io.Writer) (bool, error) {
				if f.NArg() == 0 {
					return false, errors.New("name a pod, or files")
				}
				in, err := nodes.input()
				if err != nil {
					return false, err
				}
				nodes.here(in)
				pods := &podOperands{f.Args(), *namespace, *kubeconfig}
				return pods.plan(ctx, in, out, *o)
			}
		},
	}
}

// podOperands name pods of the API server, or files.
type podOperands struct {
	operands              []string
	namespace, kubeconfig string
}

// plan prints the plans of the pods. Files alone need no API server, unless a kubeconfig is given.
func (p *podOperands) plan(
	ctx context.Context, in *lint.Input, out io.Writer, o format,
) (bool, error) {
	named := p.namespace != "" || !slices.ContainsFunc(p.operands, isFile)
	if named || p.kubeconfig != "" {
		api, err := openAPI(p.kubeconfig)
		if err != nil {
			return false, err
		}
		defer api.Close()
		in.Source = api
	}
	var err error
	if named {
		err = podsOf(ctx, p.namespace, p.operands, in)
	} else {
		err = podsIn(ctx, p.operands, in)
	}
	if err != nil {
		return false, err
	}
	return planAll(ctx, in, out, o)
}

// here takes this machine for the node, if it has a directory of plugins that the configuration
// names.
func (n *nodeInput) here(in *lint.Input) {
	if n.config == "" || len(n.pluginDirs) > 0 || !slices.ContainsFunc(in.Config.BinDirs, exists) {
		return
	}
	in.OnNode, in.Paths = true, in.Config.BinDirs
}

// isFile reports whether an operand means a file and not a pod.
func isFile(operand string) bool {
	return exists(operand) || strings.ContainsRune(operand, filepath.Separator) ||
		slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(operand))
}

// podsOf adds pods of the source.
func podsOf(ctx context.Context, namespace string, names []string, in *lint.Input) error {
	for _, name := range names {
		pod, err := in.Source.Pod(ctx, cmp.Or(namespace, "default"), name)
		if err != nil {
			return err
		}
		in.Pods = append(in.Pods, lint.Pod{Kind: "Pod", Pod: *pod})
	}
	return nil
}

// podsIn adds the pods of files; if there are none, one for each NAD.
func podsIn(ctx context.Context, files []string, in *lint.Input) error {
	err := fromFiles(ctx, files, in)
	if len(in.Pods) == 0 {
		for i := range in.NADs {
			in.Pods = append(in.Pods, lint.Only(&in.NADs[i]))
		}
	}
	return err
}

// planAll prints the plans of all pods and reports whether one of them is refused.
func planAll(
	ctx context.Context, in *lint.Input, out io.Writer, o format,
) (refused bool, err error) {
	var plans []*planned
	for _, pod := range in.Pods {
		expected, findings, err := lint.Plan(ctx, *in, pod)
		if err != nil {
			return false, err
		}
		refused = refused || lint.Refuses(findings)
		plans = append(plans, planOf(pod, expected, findings, in))
	}
	return refused, writeTexts(out, o, plans)
}
