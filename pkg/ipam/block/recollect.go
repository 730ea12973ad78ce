package block

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
)

// What an attachment holds is written before it is held, so a directory without its file says that
// it holds nothing: but only if that directory has been there since the attachment was made. After
// the loss of the state, as after a boot, that is found out once from the API.

// recollected reports whether the local state has all that attachments of this node hold.
func (s *session) recollected() bool {
	inode, ok := s.heldInode()
	n, err := s.node()
	return ok && err == nil && n.Recollected == inode
}

// heldInode identifies the directory of what attachments hold; false if there is none.
func (s *session) heldInode() (uint64, bool) {
	dir, err := s.tree.dir(heldDir)
	if err != nil {
		return 0, false
	}
	var st unix.Stat_t
	err = unix.Fstat(dir.FD(), &st)
	return st.Ino, err == nil && st.Nlink > 0
}

// recollect asks the API once which addresses of shared blocks containers of this boot hold of
// which there is no local state, and writes that down; they are asked for again where they cannot
// be written. Those under the name of another Node object are not written down, as a GC would free
// them.
func (m *Manager) recollect(ctx context.Context) (orphans holdings, err error) {
	id, err := m.names(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.fence(ctx, id); err != nil {
		return nil, err
	}
	shared, err := m.sharedBlocks(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	orphans, strange := orphansIn(shared, id)
	for name := range strange {
		if _, err := m.Nodes.Node(ctx, name); !apierrors.IsNotFound(err) {
			return orphans, nil //nolint:nilerr // it may be another machine in the same boot
		}
	}
	if err := m.locked(ctx, func(s *session) error { return s.adoptOrphans(orphans) }); err != nil {
		m.Log.WarnContext(ctx, "what this node's attachments hold is asked for again", "error", err)
	}
	return orphans, nil
}

// orphansIn returns what containers of this boot hold of shared blocks, and the names of nodes,
// other than this one's, under which they do.
func orphansIn(
	shared []v1alpha1.IPBlock, id *identity,
) (orphans holdings, strange map[string]bool) {
	orphans, strange = holdings{}, map[string]bool{}
	for _, object := range shared {
		for _, e := range object.Spec.Allocations {
			addr, err := netip.ParseAddr(e.Address)
			if err != nil {
				continue
			}
			for _, s := range Sandboxes(e) {
				if s.ContainerID == "" || s.Node == nil || bootOf(s.Node) != id.Boot {
					continue
				}
				h := orphans.of(Holder{attachmentOf(s), s.PodUID, s.Pod})
				h.Shared = append(h.Shared, heldAddr{object.Spec.Space, addr})
				if !id.named(s.Node) {
					strange[s.Node.NodeName] = true
				}
			}
		}
	}
	return orphans, strange
}

// fence takes up again the node's blocks of this boot whose local state was lost. What a process
// had sent before that, to share one of them with what containers hold of it, has taken effect when
// fence returns, or never does. A node that has its state, or has no block in this boot, only
// lists.
func (m *Manager) fence(ctx context.Context, id *identity) error {
	own, err := m.Store.Blocks(ctx,
		metav1.ListOptions{FieldSelector: "spec.owner.nodeName=" + id.Name})
	errs := []error{wrap(err, "list blocks of node %s", id.Name)}
	for _, object := range own {
		if bootOf(object.Spec.Owner) == id.Boot && placed(&object) {
			errs = append(errs, m.alone(ctx, object.Spec.Space, object.Spec.CIDR,
				func(cidr netip.Prefix) error {
					_, err := m.ownBlock(ctx, id.ownerOf(&object), object.Spec.Space, cidr)
					return err
				}))
		}
	}
	return errors.Join(errs...)
}

// adoptOrphans writes down what attachments hold, of shared blocks and of the node's own, unless
// another process was quicker: it may have taken some of it back since.
func (s *session) adoptOrphans(orphans holdings) error {
	if s.recollected() {
		return nil
	}
	if err := s.search(orphans); err != nil {
		return err
	}
	for _, h := range orphans.sorted() {
		if has, err := s.holding(h.Holder.ID); has != nil || err != nil || h.Holder.check() != nil {
			continue // it is searched for when it is needed, or no Add made it
		}
		if err := s.write(heldName(h.Holder.ID), h); err != nil {
			return err
		}
		s.m.Log.Warn("an attachment holds addresses of which this node's state had been lost",
			"attachment", h.Holder.ID, "pod", h.Holder.Pod)
	}
	if err := s.tree.makeDir(heldDir); err != nil {
		return err
	}
	inode, ok := s.heldInode()
	if !ok {
		return nil
	}
	return s.note(func(n *nodeState) { n.Recollected = inode })
}
