// Command braid-controller does what no node can do. It judges pods and their networks when they
// are written (admission). It frees the cluster-wide addresses of nodes and IPAMClaims that are
// gone, and keeps those that whereabouts gave away; it takes the start-up taint from nodes where
// pods get their networks, and believes no agent that has fallen silent. Any number may run; all of
// them serve admission, and one does the rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/kube/lead"
	"github.com/braid-cni/braid/pkg/readiness"
	"github.com/braid-cni/braid/pkg/reap"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// buildVersion is set by the linker.
var buildVersion = "devel"

const (
	leaseName = "braid-controller"
	// timeout bounds one request with its retries: a page of Node objects is megabytes.
	timeout = time.Minute
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// options are the command line.
type options struct {
	kubeconfig, namespace string
	interval, grace       time.Duration
	level                 slog.Level
	adopt, version        bool
	admission             admission
}

const usage = `usage: braid-controller [flags]

Judges pods and NetworkAttachmentDefinitions when they are written, if --admission is given. Frees
the cluster-wide addresses of nodes that were deleted, replaced or tainted
node.kubernetes.io/out-of-service, once none of their pods is left, and of deleted IPAMClaims; keeps
those that whereabouts recorded, while their pods live. Takes the taint braid-cni.io/agent-not-ready
from nodes whose condition BraidReady is true. Of several instances one works at a time, and all
judge.

`

// flags defines the flags.
func (o *options) flags(f *flag.FlagSet) {
	f.StringVar(&o.kubeconfig, "kubeconfig", "",
		"kubeconfig `file`; by default the service account of the pod")
	f.StringVar(&o.namespace, "namespace", "kube-system",
		"`namespace` of the Lease braid-controller, by which instances agree on one")
	f.DurationVar(&o.interval, "interval", time.Minute, "time between two passes")
	f.DurationVar(&o.grace, "grace", reap.DefaultGrace,
		fmt.Sprintf("how long a node has to be gone before its addresses are free, less than %v is "+
			"for tests", reap.DefaultGrace))
	f.TextVar(&o.level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	f.BoolVar(&o.adopt, "adopt-whereabouts", true,
		"keep the addresses that whereabouts recorded, if its CRDs are there")
	o.admission.flags(f)
	f.BoolVar(&o.version, "version", false, "print the version")
}

// parse reads the flags, and prints what is wrong with them.
func parse(args []string, stderr io.Writer) (*options, error) {
	o := new(options)
	f := flag.NewFlagSet("braid-controller", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage) //nolint:errcheck // nobody to tell
		f.PrintDefaults()
	}
	o.flags(f)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	err := errors.Join(positive("interval", o.interval), positive("grace", o.grace))
	if f.NArg() > 0 {
		err = errors.Join(err, fmt.Errorf("argument %q is unknown", f.Arg(0)))
	}
	if err != nil {
		fmt.Fprintln(stderr, err) //nolint:errcheck // nobody to tell
	}
	return o, err
}

func positive(name string, d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("invalid value %q for flag -%s: not positive", d, name)
	}
	return nil
}

// run returns the exit code: 0 when it was asked to stop, 1 when it could not go on, 2 for a wrong
// command line.
func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case o.version:
		fmt.Fprintln(stdout, "braid-controller", buildVersion) //nolint:errcheck // nobody to tell
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log := slog.New(slog.NewTextHandler(strictjson.PrintableWriter(stderr),
		&slog.HandlerOptions{Level: o.level}))
	klog.SetSlogLogger(log) // the election's
	if err := o.work(ctx, log); err != nil {
		log.Error("stopped", "error", err)
		return 1
	}
	return 0
}

func (o *options) work(ctx context.Context, log *slog.Logger) error {
	api, err := kube.NewLastingAPI(kube.APIOptions{
		Kubeconfig: o.kubeconfig, Version: buildVersion, Timeout: timeout,
	})
	if err != nil {
		return err
	}
	defer api.Close()
	group, ctx := errgroup.WithContext(ctx)
	if o.admission.enabled {
		group.Go(func() error { return o.admission.serve(ctx, api, o.namespace, log) })
	}
	group.Go(func() error { return o.lead(ctx, api, log) })
	return group.Wait()
}

// lead does what one instance does for all.
func (o *options) lead(ctx context.Context, api *kube.API, log *slog.Logger) error {
	election := &lead.Election{API: api, Namespace: o.namespace, Name: leaseName, Log: log}
	return election.Run(ctx, func(ctx context.Context) {
		reaper := &reap.Reaper{Blocks: api, Cluster: api, Grace: o.grace, Log: log}
		if o.adopt {
			reaper.Whereabouts = api
		}
		var work sync.WaitGroup
		work.Go(func() { (&readiness.Controller{Nodes: api, Log: log}).Run(ctx) })
		work.Go(func() { reaper.Run(ctx, o.interval) })
		work.Wait()
	})
}
