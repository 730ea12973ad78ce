package node

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/ipam/block/blocktest"
	"github.com/braid-cni/braid/pkg/kube/kubelet"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/plugins/ipam/whereabouts"
)

// one is a source of one NAD, in a namespace with labels.
type one struct {
	resolve.Source
	nad    *nadv1.NetworkAttachmentDefinition
	labels map[string]string
	err    error
}

func (o one) NAD(
	_ context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	if o.err == nil && (namespace != o.nad.Namespace || name != o.nad.Name) {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, name)
	}
	return o.nad, o.err
}

func (o one) Namespace(_ context.Context, name string) (*metav1.ObjectMeta, error) {
	return &metav1.ObjectMeta{Name: name, Labels: o.labels}, nil
}

func (one) ThisNode(context.Context) (*metav1.ObjectMeta, error) {
	return &metav1.ObjectMeta{Name: "n", Labels: map[string]string{"pool": "data"}}, nil
}

// roomNode is a node with a NIC, a directory, and the file of its default network.
func roomNode(t *testing.T) (node *nettest.Namespace, dir, pods string) {
	t.Helper()
	node, dir = nettest.New(t), t.TempDir()
	node.Veth("ens224", nettest.New(t), "port")
	pods = filepath.Join(dir, "pods.conflist")
	err := os.WriteFile(pods,
		[]byte(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}]}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return node, dir, pods
}

// whereabouts3 has three addresses for pods.
const whereabouts3 = `"ipam": {"type": "whereabouts", "range": "10.0.0.0/29", ` +
	`"gateway": "10.0.0.6", "exclude": ["10.0.0.4/31"]}`

// roomTests are networks, with how many pods of theirs the node can take.
var roomTests = map[string]struct {
	plugin, selector string
	err              error
	want             uint64
	reason           failure.Reason // of the error; "" for none
}{
	"whereabouts": {plugin: `"type": "macvlan", "master": "ens224", ` + whereabouts3, want: 3},
	"two ranges": {
		plugin: `"type": "macvlan", "master": "ens224", ` +
			`"ipam": {"type": "whereabouts", "range": "10.0.0.0/29", "ipRanges": [{"range": "fd00::/126"}]}`,
		want: 3,
	},
	"host-local": {plugin: `"type": "ipvlan", "master": "ens224", ` +
		`"ipam": {"type": "host-local", "subnet": "10.0.0.0/28"}`, want: 13},
	"a bridge":     {plugin: `"type": "bridge", ` + whereabouts3, want: 3},
	"without IPAM": {plugin: `"type": "macvlan", "master": "ens224"`, want: math.MaxUint64},
	"static": {plugin: `"type": "macvlan", "master": "ens224", ` +
		`"ipam": {"type": "static", "addresses": [{"address": "10.0.0.1/24"}]}`, want: math.MaxUint64},
	"not built in": {plugin: `"type": "sriov", "ipam": {"type": "whereabouts", ` +
		`"range": "10.0.0.0/29"}`, want: math.MaxUint64},
	"a binary": {plugin: `"type": "host-device", "ipam": {"type": "whereabouts", ` +
		`"range": "10.0.0.0/30"}`, want: 2},
	"no master": {
		plugin: `"type": "macvlan", "master": "ens225", ` + whereabouts3,
		reason: failure.PluginFailed,
	},
	"master in pod": {plugin: `"type": "macvlan", "master": "net9", "linkInContainer": true, ` +
		whereabouts3, want: 3},
	"nonsense": {plugin: `"type": "macvlan", "mode": "big"`, reason: failure.NADInvalid},
	"for this node": {
		plugin: `"type": "macvlan", "master": "ens224"`, selector: "pool=data",
		want: math.MaxUint64,
	},
	"for another node": {
		plugin: `"type": "macvlan", "master": "ens224"`, selector: "pool=web",
		reason: failure.NodeNotSelected,
	},
	"not known": {
		plugin: `"type": "macvlan"`,
		err:    &failure.Error{Reason: failure.APIUnavailable}, reason: failure.APIUnavailable,
	},
}

// TestRooms: of a network there is as much as of the least that its attachments need.
func TestRooms(t *testing.T) {
	node, dir, pods := roomNode(t)
	source, err := manifests.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	config, err := conf.Load(
		fmt.Appendf(nil, `{"cniVersion": "1.1.0", "name": "braid", "clusterNetwork": %q, `+
			`"braid": {"stateDir": %q}}`, pods, dir+"/state"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	addresses := &Addresses{Source: Only(source), Name: "n", StateDir: config.StateDir, Log: log}
	for name, test := range roomTests {
		nad := &nadv1.NetworkAttachmentDefinition{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "team", Name: "a",
				Annotations: map[string]string{nadv1.NodeSelectorAnnotation: test.selector},
			},
			Spec: nadv1.NetworkAttachmentDefinitionSpec{
				Config: `{"cniVersion": "1.0.0", "name": "a", ` + test.plugin + `}`,
			},
		}
		source := one{nad: nad, err: test.err}
		rooms := &Rooms{
			Config: config, Source: source, ThisNode: source, Addresses: addresses, NetNS: node.Path,
			Log: log,
		}
		got, err := rooms.Of(t.Context(), &nad.ObjectMeta)
		if got != test.want && err == nil ||
			failure.ReasonOf(err) != test.reason && (test.reason != failure.PluginFailed || err == nil) {
			t.Errorf("%s: %d, %v; want %d, %q", name, got, err, test.want, test.reason)
		}
	}
}

// TestM26RoomsOfTenant: the addresses of a tenant's network are those that an ADD would give, and
// there is no room for what the policy does not allow.
func TestM26RoomsOfTenant(t *testing.T) {
	node, dir, pods := roomNode(t)
	cluster := blocktest.New()
	cluster.AddNode("n", "uid")
	log := slog.New(slog.DiscardHandler)
	addresses := &Addresses{
		Source: Only(blocks{Store: cluster, Nodes: cluster, IPAMClaims: cluster}), Name: "n",
		StateDir: dir + "/state", Log: log,
	}
	m, err := addresses.Open(&whereabouts.Conf{})
	if err != nil {
		t.Fatal(err)
	}
	window, err := alloc.NewWindow(netip.MustParsePrefix("10.0.0.0/29"), netip.Addr{}, netip.Addr{},
		nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	// One address of the tenant's own, and one of before its networks had a space of their own.
	for i, name := range []string{attachment.OwnSpace("team", ""), ""} {
		wish := block.Wish{Space: block.SpaceOf(name, ""), Window: window}
		_, err = m.Add(t.Context(), block.Holder{
			ID: attachment.ID{Network: "team.a", ContainerID: fmt.Sprint("c", i), IfName: "net1"},
		}, []block.Wish{wish}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		what, namespace, prefix string
		want                    uint64
		reason                  failure.Reason
	}{
		{what: "another tenant", namespace: "web", prefix: "10.0.0.0/8", want: 5},
		{what: "the tenant", namespace: "team", prefix: "10.0.0.0/8", want: 4},
		{what: "not allowed", namespace: "team", prefix: "10.9.0.0/16", reason: failure.PolicyRefused},
	} {
		config, err := conf.Load(fmt.Appendf(nil, `{"cniVersion": "1.1.0", "name": "braid", "clusterNetwork": %q,
			"braid": {"stateDir": %q, "policy": [{"namespaces": [%q], "masters": ["ens224"], "prefixes": [%q]}]}}`, pods, dir+"/state", test.namespace, test.prefix))
		if err != nil {
			t.Fatal(err)
		}
		nad := &nadv1.NetworkAttachmentDefinition{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: test.namespace, Name: "a",
			}, Spec: nadv1.NetworkAttachmentDefinitionSpec{
				Config: `{"cniVersion": "1.0.0", "type": "macvlan", "master": "ens224", ` +
					`"ipam": {"type": "whereabouts", "range": "10.0.0.0/29"}}`,
			},
		}
		source := one{nad: nad, labels: map[string]string{policy.TenantLabel: ""}}
		rooms := &Rooms{Config: config, Source: source, Addresses: addresses, NetNS: node.Path, Log: log}
		got, err := rooms.Of(t.Context(), &nad.ObjectMeta)
		if got != test.want || failure.ReasonOf(err) != test.reason {
			t.Errorf("%s: %d, %v; want %d, %q", test.what, got, err, test.want, test.reason)
		}
	}
}

// blocks is a Source of blocks and nodes.
type blocks struct {
	block.Store
	block.Nodes
	block.IPAMClaims
	rest
}

// rest is what nobody asks for.
type rest interface {
	resolve.Source
	engine.Reporter
	kubelet.Allocations
}
