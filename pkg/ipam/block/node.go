package block

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
)

// countFor is how long the number of nodes is taken to stay as it is.
const countFor = 10 * time.Minute

// self is who this node is.
type self struct {
	Boot string    `json:"boot"`
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
	// Nodes is how many there were at the time Counted.
	Nodes   int       `json:"nodes,omitempty"`
	Counted time.Time `json:"counted,omitzero"`
	// Former are the names that the machine had before in this boot.
	Former []string `json:"former,omitempty"`
	// Seen are the spaces of which the node has learned which blocks it owned before a reboot; All says that of each.
	Seen []string `json:"seen,omitempty"`
	All  bool     `json:"all,omitempty"`
}

// node is the node as the owner of what it got by a claim; "" for what it got otherwise.
func (n *self) node(claim string) *v1alpha1.Node {
	boot := n.Boot
	if claim != "" {
		boot += "/" + claim
	}
	return &v1alpha1.Node{NodeName: n.Name, NodeUID: n.UID, BootID: boot}
}

// newClaim tells one claim of a block from another of the same boot.
func (m *Manager) newClaim() string { return fmt.Sprintf("%08x", m.rand().Uint32()) }

// identity is the same as it is known without asking.
func (n *self) identity() *identity { return &identity{n.Name, n.Boot, n.Former} }

// by says whether the owner of a block took it up in this boot, and whether by the claim of which there is a file.
func (n *self) by(b *local, owner *v1alpha1.Node) (boot, claim bool) {
	return bootOf(owner) == n.Boot, owner.BootID == n.node(b.Claim).BootID
}

// bootOf is the boot in which the node took up what it owns.
func bootOf(owner *v1alpha1.Node) string {
	boot, _, _ := strings.Cut(owner.BootID, "/")
	return boot
}

// self is who this node is; the API is asked once in a boot, and by Inspect.
func (m *Manager) self(ctx context.Context) (*self, error) {
	if n, err := m.known(ctx); err != nil || n != nil {
		return n, err
	}
	return m.ask(ctx)
}

// ask asks the API who this node is.
func (m *Manager) ask(ctx context.Context) (*self, error) {
	boot, err := m.boot()
	if err != nil {
		return nil, err
	}
	node, err := m.Nodes.Node(ctx, m.NodeName)
	if err != nil {
		return nil, fmt.Errorf("node %s, as which this machine is to own addresses: %w", m.NodeName, err)
	}
	n := &self{Boot: boot, Name: m.NodeName}
	return n, m.note(ctx, n, func(me *self) { me.UID = node.UID })
}

// note changes who this node is, in the file and in n. What others have noted meanwhile stays.
func (m *Manager) note(ctx context.Context, n *self, change func(*self)) error {
	return m.locked(ctx, func(s *session) error {
		current := new(self)
		if err := s.read(nodeFile, current); err != nil || current.Boot != n.Boot {
			current = n
		}
		if current.Name != n.Name {
			n.Former = slices.DeleteFunc(append(current.Former, current.Name), func(name string) bool { return name == n.Name })
			current = n
		}
		change(current)
		*n = *current
		return s.write(nodeFile, n)
	})
}

// known is self as far as it was learned in this boot; nil if it was not.
func (m *Manager) known(ctx context.Context) (*self, error) {
	boot, err := m.boot()
	if err != nil {
		return nil, err
	}
	n := new(self)
	err = m.locked(ctx, func(s *session) error { return s.read(nodeFile, n) })
	if err != nil || n.Boot != boot || n.Name != m.NodeName {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.Log.Error("who this node is will be asked again", "error", err)
		}
		return nil, nil
	}
	return n, nil
}

// nodes is how many nodes there are.
func (m *Manager) nodes(ctx context.Context, me *self) (int, error) {
	if age := m.now().Sub(me.Counted); me.Nodes > 0 && age >= 0 && age < countFor {
		return me.Nodes, nil
	}
	n, err := m.Nodes.NodeCount(ctx)
	if err != nil {
		return 0, fmt.Errorf("count nodes: %w", err)
	}
	return n, m.note(ctx, me, func(me *self) { me.Nodes, me.Counted = n, m.now() })
}

// identity is what this machine is called in objects.
type identity struct {
	name, boot string
	// former are the names that it had before in this boot.
	former []string
}

// identity reads what this machine is called. It asks nobody.
func (m *Manager) identity(ctx context.Context) (*identity, error) {
	boot, err := m.boot()
	if err != nil {
		return nil, err
	}
	id, n := &identity{name: m.NodeName, boot: boot}, new(self)
	err = m.locked(ctx, func(s *session) error { return s.read(nodeFile, n) })
	if err == nil && n.Boot == boot {
		id.former = append(slices.Clone(n.Former), n.Name)
	}
	return id, nil //nolint:nilerr // what cannot be read names nobody
}

// named reports whether a node of an object is this machine by a name that it has, or had in this
// boot.
func (id *identity) named(node *v1alpha1.Node) bool {
	return node != nil && (node.NodeName == id.name || bootOf(node) == id.boot && slices.Contains(id.former, node.NodeName))
}

// ran reports whether a container that an entry of a shared block names may have run on this
// machine. A boot is this machine's, whatever its name was; that it is that of another machine,
// too, is next to impossible together with a container ID.
func (id *identity) ran(e v1alpha1.Allocation) bool {
	return id.named(e.Node) || e.Node != nil && bootOf(e.Node) == id.boot
}
