package block

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
)

// countFor is how long the number of nodes is taken to stay as it is.
const countFor = 10 * time.Minute

// nodeState is what is noted of the node.
type nodeState struct {
	identity
	upkeep
}

// identity is who this node is. The names are those of an older Braid's file.
type identity struct {
	Boot string    `json:"boot"`
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
	// Nodes is how many there were at the time Counted.
	Nodes   int       `json:"nodes,omitempty"`
	Counted time.Time `json:"counted,omitzero"`
	// Former are the names that the machine had before in this boot.
	Former []string `json:"former,omitempty"`
}

// node returns the node as the owner of what it got by a claim; "" for what it got otherwise.
func (n *identity) node(claim string) *v1alpha1.Node {
	boot := n.Boot
	if claim != "" {
		boot += "/" + claim
	}
	return &v1alpha1.Node{NodeName: n.Name, NodeUID: n.UID, BootID: boot}
}

// ownerOf returns the node as it was when it took up the object, which asks nobody for the node's
// uid.
func (n *identity) ownerOf(object *v1alpha1.IPBlock) *identity {
	me := *n
	me.Name, me.UID = object.Spec.Owner.NodeName, object.Spec.Owner.NodeUID
	return &me
}

// newClaim returns a text that distinguishes a claim of a block from others of the same boot.
func (m *Manager) newClaim() string { return fmt.Sprintf("%08x", m.rand().Uint32()) }

// by reports whether the owner of a block took it up in this boot, and whether by the claim of
// which there is a file.
func (n *identity) by(b *local, owner *v1alpha1.Node) (boot, claim bool) {
	return bootOf(owner) == n.Boot, owner.BootID == n.node(b.Claim).BootID
}

// bootOf returns the boot in which the node took up what it owns.
func bootOf(owner *v1alpha1.Node) string {
	boot, _, _ := strings.Cut(owner.BootID, "/")
	return boot
}

// self is who this node is; the API is asked once in a boot, and by Inspect.
func (m *Manager) self(ctx context.Context) (*identity, error) {
	n, _, err := m.noted(ctx)
	if err != nil || n != nil && n.Name == m.NodeName {
		return n, err
	}
	return m.ask(ctx)
}

// ask asks the API who this node is.
func (m *Manager) ask(ctx context.Context) (*identity, error) {
	boot, err := m.Boot()
	if err != nil {
		return nil, wrap(err, "read boot ID")
	}
	node, err := m.Nodes.Node(ctx, m.NodeName)
	if err != nil {
		return nil, fmt.Errorf("node %s, as which this machine is to own addresses: %w", m.NodeName, err)
	}
	var me identity
	return &me, m.note(ctx, func(n *nodeState) {
		if n.Boot != boot {
			n.identity = identity{Boot: boot, Name: m.NodeName}
		}
		if n.Name != m.NodeName {
			n.Former = slices.DeleteFunc(append(n.Former, n.Name), func(name string) bool {
				return name == m.NodeName
			})
		}
		n.Name, n.UID = m.NodeName, node.UID
		me = n.identity
	})
}

// noted returns what was noted in this boot of who this node is; nil for nothing.
func (m *Manager) noted(ctx context.Context) (n *identity, boot string, err error) {
	if boot, err = m.Boot(); err != nil {
		return nil, "", wrap(err, "read boot ID")
	}
	noted, err := inside(ctx, m, (*session).node)
	if err != nil || noted.Boot != boot {
		return nil, boot, err
	}
	return &noted.identity, boot, nil
}

// nodes returns how many nodes there are.
func (m *Manager) nodes(ctx context.Context, me *identity) (int, error) {
	if age := m.now().Sub(me.Counted); me.Nodes > 0 && age >= 0 && age < countFor {
		return me.Nodes, nil
	}
	n, err := m.Nodes.NodeCount(ctx)
	if err != nil {
		return 0, fmt.Errorf("count nodes: %w", err)
	}
	return n, m.note(ctx, func(noted *nodeState) { noted.Nodes, noted.Counted = n, m.now() })
}

// names returns what this machine is called in objects. It asks nobody.
func (m *Manager) names(ctx context.Context) (*identity, error) {
	n, boot, err := m.noted(ctx)
	id := &identity{Name: m.NodeName, Boot: boot}
	if n != nil {
		id.Former = append(slices.Clip(n.Former), n.Name)
	}
	return id, err
}

// named reports whether a node of an object is this machine by a name that it has, or had in this
// boot.
func (n *identity) named(node *v1alpha1.Node) bool {
	return node != nil && (node.NodeName == n.Name ||
		bootOf(node) == n.Boot && slices.Contains(n.Former, node.NodeName))
}

// owns reports whether the object is the node's, perhaps under an earlier name; nil is nobody's.
func (n *identity) owns(object *v1alpha1.IPBlock) bool {
	return object != nil && n.named(object.Spec.Owner)
}

// ran reports whether a container that an entry of a shared block names may have run on this
// machine. A boot is this machine's, whatever its name was; that it is that of another machine,
// too, is next to impossible together with a container ID.
func (n *identity) ran(e v1alpha1.Allocation) bool {
	return n.named(e.Node) || e.Node != nil && bootOf(e.Node) == n.Boot
}
