package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/admit"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/kube/servecert"
	"github.com/braid-cni/braid/pkg/kube/watch"
	"github.com/braid-cni/braid/pkg/strictjson"
	"github.com/braid-cni/braid/pkg/webhook"
)

// The names of the objects that admission is made of: the Service and the webhook configurations
// have that of the controller.
const (
	admissionName   = "braid-controller"
	admissionSecret = "braid-controller-tls"
)

// admission are the flags of admission.
type admission struct {
	enabled         bool
	address, config string
	hosts           []string
	every           time.Duration
}

func (a *admission) flags(f *flag.FlagSet) {
	f.BoolVar(&a.enabled, "admission", false,
		"judge pods, NADs and templates of pods when they are written")
	f.StringVar(&a.address, "admission-address", ":9443",
		"`address` at which it listens for the API server, and has /readyz and /metrics")
	f.StringVar(&a.config, "config", "",
		"`file` with the nodes' configuration, as the agent has it: a JSON object; by default all keys "+
			"have their defaults")
	f.DurationVar(&a.every, "certificate-interval", time.Minute,
		"time between two looks at the certificate of admission, and whether it is trusted")
	f.Func("admission-host", "another `name` or address by which the API server calls it, beside "+
		"that of the Service; may be given more than once",
		func(host string) error { a.hosts = append(a.hosts, host); return nil })
}

// serve judges what is written until ctx is done.
func (a *admission) serve(
	ctx context.Context, api *kube.API, namespace string, log *slog.Logger,
) error {
	cluster, err := watch.New(api, nil)
	if err != nil {
		return err
	}
	host := admissionName + "." + namespace + ".svc"
	keeper := &servecert.Keeper{
		API: api, Namespace: namespace, Secret: admissionSecret,
		Hosts: append([]string{host}, a.hosts...), Configuration: admissionName,
		Every: a.every, Log: log,
	}
	nodes := &nodesConfig{path: a.config, log: log}
	server := &webhook.Server{
		Reviewer: reviewer{admit.Reviewer{Cluster: cluster, Nodes: nodes.read}}, Address: a.address,
		Certificate: keeper.GetCertificate,
		Ready: func() bool {
			return cluster.Synced() && keeper.Ready()
		}, Kinds: admit.Kinds(), Log: log,
	}
	group, ctx := errgroup.WithContext(ctx)
	// What the server needs goes on while it ends.
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { cluster.Run(lasting, log); return nil })
	group.Go(func() error { keeper.Run(ctx); return nil })
	group.Go(func() error {
		defer end()
		return server.Run(ctx)
	})
	return group.Wait()
}

// reviewer has package admit judge what package webhook serves.
type reviewer struct{ admit.Reviewer }

// Review implements webhook.Reviewer.
func (r reviewer) Review(
	ctx context.Context, req *admissionv1.AdmissionRequest,
) (*admissionv1.AdmissionResponse, string) {
	verdict := r.Reviewer.Review(ctx, req)
	return verdict.Response(req), verdict.Reason()
}

// nodesConfig is the nodes' configuration in a file, which may change.
type nodesConfig struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	seen []byte
	last *admit.Nodes
}

// read returns the present configuration. One that cannot be read changes nothing, as on the nodes.
// Where there was no other before, only what no configuration says anything about is judged: the
// nodes judge the rest.
func (n *nodesConfig) read() (admit.Nodes, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	raw, err := n.raw()
	if n.last != nil && (err != nil || bytes.Equal(raw, n.seen)) {
		return *n.last, nil
	}
	var config *conf.Config
	if err == nil {
		config, err = nodesKeys(raw)
	}
	if err != nil {
		n.log.Error("the nodes' configuration cannot be read: the last one that could counts", "file",
			n.path, "error", err)
	}
	n.seen = raw
	switch {
	case err == nil:
		n.last = nodesOf(config)
	case n.last == nil:
		config = conf.Defaults()
		config.NamespaceIsolation, config.ClusterNetwork = false, anyNetwork
		n.last = nodesOf(config)
	}
	return *n.last, nil
}

// raw returns the file; without one, all keys have their defaults.
func (n *nodesConfig) raw() ([]byte, error) {
	if n.path == "" {
		return []byte("{}"), nil
	}
	return os.ReadFile(n.path)
}

// anyNetwork stands for the default network, which only the nodes know.
const anyNetwork = "/etc/cni/net.d/default.conflist"

func nodesOf(config *conf.Config) *admit.Nodes {
	return &admit.Nodes{Config: config, Finder: node.Judge(&config.Node, &config.Policy)}
}

// nodesKeys reads the keys of an operator, as the agent does.
func nodesKeys(raw []byte) (*conf.Config, error) {
	keys := map[string]json.RawMessage{}
	if err := strictjson.Decode(raw, &keys); err != nil {
		return nil, fmt.Errorf("make it a JSON object with keys of Braid's configuration: %w", err)
	}
	for key, value := range map[string]string{
		"cniVersion": "1.1.0", "name": "braid", "type": "braid", "clusterNetwork": anyNetwork,
	} {
		if keys[key] == nil {
			keys[key] = strictjson.Marshal(value)
		}
	}
	return conf.Load(strictjson.Marshal(keys))
}
