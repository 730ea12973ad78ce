package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/gke"
	"github.com/braid-cni/braid/pkg/lint"
)

const gkeCheckText = `Judges a cluster configuration and the IP block files that it names:
multipleNetworkInterfaces, enableDataplaneV2, and below network serviceCIDR, podCIDR,
vCenter.networkName and additionalNodeInterfaces. Other keys are left alone. FILEs are manifests,
whose NADs must not give addresses of pods or services of the cluster to pods. Each line reads

  file:line: field: what; remedy

and a warning, with which the cluster works, has "warning" before what it says. With --nodes it also
says whether there are addresses and hostnames for that many nodes, and one address more.

Exits with 0 if nothing is wrong, 1 if something is, 2 if that could not be found out.`

func gkeCheckCommand() command {
	return command{
		name: "gke check", operands: "CLUSTER.yaml [FILE...]",
		summary: "whether a cluster configuration of GKE on VMware fits Braid",
		text:    gkeCheckText,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			o, nodes := formatFlag(f, formatText), f.Int("nodes", 0,
				"`number` of nodes that the cluster is to have")
			return func(ctx context.Context, out io.Writer) (bool, error) {
				if f.NArg() == 0 {
					return false, errors.New("name the file of a cluster configuration")
				}
				c, problems, err := gke.Read(f.Arg(0))
				if err != nil {
					return false, err
				}
				problems = append(problems, c.Check(*nodes)...)
				var in lint.Input
				if f.NArg() > 1 {
					err = fromFiles(ctx, f.Args()[1:], &in)
				}
				for i := range in.NADs {
					nad := &in.NADs[i]
					problems = append(problems, c.CheckNetwork(nad.Where, nad.Spec.Config)...)
				}
				return gke.Wrong(problems), errors.Join(writeTexts(out, *o, problems), err)
			}
		},
	}
}

const gkeRenderText = `Prints what Braid needs for a cluster configuration of GKE on VMware: values
of the Helm chart, with the interfaces of the nodes, their addresses, and the policy of the profile;
or with --networks a NAD for each network, to look at and to complete. What gke check refuses is not
rendered.

Exits with 0, or with 2 if there is nothing to render.`

func gkeRenderCommand() command {
	return command{
		name: "gke render", operands: "CLUSTER.yaml",
		summary: "values of Braid's Helm chart for it, or NADs to begin with",
		text:    gkeRenderText,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			networks := f.Bool("networks", false, "print the NADs")
			masters := map[string]string{}
			f.Func("master",
				"`NETWORK=NIC`, the nodes' interface of a network in its NAD, which may be given more than "+
					"once; by default ens224 and ens256",
				func(text string) error {
					network, nic, ok := strings.Cut(text, "=")
					if !ok || network == "" || nic == "" {
						return errors.New("it is no NETWORK=NIC")
					}
					masters[network] = nic
					return nil
				})
			return func(_ context.Context, out io.Writer) (bool, error) {
				if f.NArg() != 1 {
					return false, errors.New("name the file of one cluster configuration")
				}
				return false, render(out, f.Arg(0), *networks, masters)
			}
		},
	}
}

// render prints nothing if the cluster configuration is refused.
func render(out io.Writer, path string, networks bool, masters map[string]string) error {
	c, problems, err := gke.Read(path)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range append(problems, c.Check(0)...) {
		if !p.Warning {
			errs = append(errs, &failure.Error{Err: errors.New(p.String())})
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	text, err := c.Values()
	if networks {
		text, err = c.Networks(masters)
	}
	if err != nil {
		return err
	}
	if _, err := out.Write(text); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
