package node

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/containernetworking/cni/libcni"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/plugins/builtin"
)

// Rooms finds out how many more attachments of a network this node has room for.
type Rooms struct {
	Config *conf.Config
	// Source has the NADs, and the namespaces as an ADD sees them.
	Source resolve.Source
	// ThisNode is the node, with its labels.
	ThisNode resolve.ThisNode
	// Addresses are the cluster-wide ones. Their Source may be a memory: only blocks are listed, with
	// resourceVersion 0.
	Addresses *Addresses
	// NetNS is the path of the node's network namespace; empty for that of the process.
	NetNS string
	Log   *slog.Logger
}

// Of returns how many more attachments of a NAD there is room for. The scarcest thing that they
// need decides. It is invoke.Unlimited if nothing is known to be limited. The error is that of an
// ADD, or has a reason that says that it is not known.
func (r *Rooms) Of(ctx context.Context, nad *metav1.ObjectMeta) (uint64, error) {
	exec := builtin.NewExec(r.Log, builtin.Node{
		Open: r.Addresses.Open, StateDir: r.Config.StateDir, NetNS: r.NetNS,
		DataRoots: r.Config.DataRoots,
	})
	defer exec.Close()
	exec.ForceExec = r.Config.Exec
	resolver := &resolve.Resolver{
		Node: &r.Config.Node, Policy: &r.Config.Policy, Source: r.Source, ThisNode: r.ThisNode,
	}
	asks := map[string]string{nadv1.NetworksAnnotation: nad.Namespace + "/" + nad.Name}
	pod := &podv1.Pod{MetaOnly: true, ObjectMeta: metav1.ObjectMeta{
		Namespace: nad.Namespace, Name: "any", Annotations: asks,
	}}
	expected, judged, err := resolver.Expect(ctx, resolve.Any(&r.Config.Call), pod, exec, nil)
	if err != nil {
		return 0, err
	}
	for i := range judged {
		if judged[i].Effect == policy.Enforce {
			return 0, judged[i].Failure()
		}
	}
	return scarcest(ctx, exec, expected)
}

// scarcest returns the least room that there is for one of the attachments.
func scarcest(
	ctx context.Context, exec *invoke.Exec, expected []resolve.Expected,
) (uint64, error) {
	room := invoke.Unlimited
	for i := range expected {
		if expected[i].Origin == nil { // the default network, and those that every pod has
			continue
		}
		one, err := roomOf(ctx, exec, &expected[i])
		if err != nil {
			return 0, err
		}
		room = min(room, one)
	}
	return room, nil
}

// roomOf asks the plugins of an attachment's chain.
func roomOf(ctx context.Context, exec *invoke.Exec, e *resolve.Expected) (uint64, error) {
	list, err := netconf.Libcni(e.Conf)
	if err != nil {
		return 0, fmt.Errorf("read the chain: %w", err)
	}
	room := invoke.Unlimited
	for _, place := range e.Places {
		named := map[string]any{"name": list.Name, "cniVersion": list.CNIVersion}
		config, err := libcni.InjectConf(list.Plugins[place.Index], named)
		if err != nil {
			return 0, fmt.Errorf("name the network: %w", err)
		}
		one, err := exec.Room(ctx, place.Type, &invoke.Call{
			Stdin: config.Bytes, Exec: exec, Terms: invoke.Terms{Limits: e.Limits},
		})
		if err != nil {
			return 0, err
		}
		room = min(room, one)
	}
	return room, nil
}
