package main

import (
	"context"
	"errors"
	"flag"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/cmd/internal/node"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/lint"
)

func lintCommand() command {
	return command{
		name: "lint", operands: "FILE...|-A",
		summary: "which NADs and pods would be refused, or come up with a warning",
		text: `Judges NADs and pods, and the pod templates of Deployments and their like, with the code
that an ADD runs: of files and directories of manifests, or with -A of a whole cluster. With -A on a
cluster with Multus it says before a migration what would not come up. It changes nothing. Each line
reads

  object: field: what: remedy

and a warning, which holds no pod back, has "warning" before what it says. What only a node knows,
such as its links and free addresses, is not judged.

Exits with 0 if nothing would be refused, 1 if something would, 2 if that could not be found out.`,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			judge, o := judging(f), formatFlag(f, formatText)
			return func(ctx context.Context, out io.Writer) (bool, error) {
				return judge(ctx, func(in *lint.Input) (bool, error) {
					findings := lint.Check(ctx, *in)
					return lint.Refuses(findings), writeTexts(out, *o, findings)
				})
			}
		},
	}
}

// nodeInput is what is known of the nodes.
type nodeInput struct {
	config     string
	pluginDirs []string
}

// nodeFlags returns the flags that say what is known of the nodes.
func nodeFlags(f *flag.FlagSet) *nodeInput {
	n := new(nodeInput)
	f.StringVar(&n.config, "config", "",
		"Braid's configuration `file` of the nodes; by default all keys have their defaults")
	f.Func("plugin-dir", "`directory` of the nodes' plugins, which may be given more than once; "+
		"without it every plugin is taken to be installed",
		func(dir string) error { n.pluginDirs = append(n.pluginDirs, dir); return nil })
	return n
}

// input returns an input without objects.
func (n *nodeInput) input() (*lint.Input, error) {
	cfg := conf.Defaults()
	cfg.ClusterNetwork = "/etc/cni/net.d/default.conflist"
	if n.config != "" {
		var err error
		if cfg, err = conf.LoadFile(n.config); err != nil {
			return nil, err
		}
	}
	return &lint.Input{
		Config: cfg, ConfigFile: n.config, Finder: node.Judge(&cfg.Node, &cfg.Policy),
		Paths: n.pluginDirs,
	}, nil
}

// judging returns the flags of a command that judges the objects of files or of a cluster, and what
// has it do so.
func judging(
	f *flag.FlagSet,
) func(ctx context.Context, judge func(*lint.Input) (bool, error)) (bool, error) {
	kubeconfig, nodes := kubeconfigFlag(f), nodeFlags(f)
	all := f.Bool("A", false, "all NADs and pods of the cluster")
	return func(ctx context.Context, judge func(*lint.Input) (bool, error)) (bool, error) {
		in, err := nodes.input()
		switch {
		case err != nil:
			return false, err
		case *all == (f.NArg() > 0):
			return false, errors.New("name files, or -A for the cluster")
		case *all:
			var api *kube.API
			if api, err = openAPI(*kubeconfig); err == nil {
				defer api.Close()
				err = in.AddCluster(ctx, api)
			}
		default:
			err = fromFiles(ctx, f.Args(), in)
		}
		if err != nil {
			return false, err
		}
		return judge(in)
	}
}

// fromFiles adds the NADs, the pods and the templates of pods of files. A broken document is an
// error: what it holds would be missed.
func fromFiles(ctx context.Context, paths []string, in *lint.Input) error {
	objects, err := manifests.Read(ctx, paths)
	errs := []error{err}
	for i := range objects {
		errs = append(errs, addObject(&objects[i], in))
	}
	return errors.Join(errs...)
}

// addObject adds a NAD, a pod, a template of pods, or the labels of a namespace; other objects are
// left out.
func addObject(o *manifests.Object, in *lint.Input) error {
	if o.Kind == nadv1.Kind {
		var nad nadv1.NetworkAttachmentDefinition
		if err := o.Decode(&nad); err != nil {
			return err
		}
		nad.Namespace = o.Namespace
		in.NADs = append(in.NADs,
			lint.NAD{NetworkAttachmentDefinition: nad, File: o.File, Where: o.Where})
		return nil
	}
	if o.Kind == "Namespace" && o.APIVersion == "v1" {
		var namespace struct {
			Metadata metav1.ObjectMeta `json:"metadata"`
		}
		if err := o.Decode(&namespace); err != nil {
			return err
		}
		namespace.Metadata.Name = o.Name
		in.Namespaces = append(in.Namespaces, namespace.Metadata)
		return nil
	}
	pods, err := o.Pods()
	for _, p := range pods {
		in.Pods = append(in.Pods, lint.Pod{Kind: o.Kind, Pod: p, File: o.File, Where: o.Where})
	}
	return err
}
