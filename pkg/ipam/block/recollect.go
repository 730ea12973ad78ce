package block

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/attachment"
)

// What an attachment holds is written before it is held, so a directory without its file says that
// it holds nothing: but only if that directory has been there since the attachment was made. After
// the loss of the state, as after a boot, that is found out once from the API.

// recollected reports whether the local state has all that attachments of this node hold.
func (s *session) recollected() bool {
	inode, ok := s.heldInode()
	return ok && s.tended().Recollected == inode
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
// which there is no local state, and writes that down. orphans are these, also where they could not
// be written. Those under the name of another Node object are not written down, as a GC would free
// them, and are asked for again.
func (m *Manager) recollect(ctx context.Context) (orphans map[attachment.ID]*held, err error) {
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
	orphans = map[attachment.ID]*held{}
	strange := map[string]bool{}
	for i := range shared {
		for _, e := range shared[i].Spec.Allocations {
			addr, err := netip.ParseAddr(e.Address)
			for _, s := range Sandboxes(e) {
				if err == nil && s.ContainerID != "" && s.Node != nil && bootOf(s.Node) == id.Boot {
					a := attachmentOf(s)
					if orphans[a] == nil {
						orphans[a] = &held{Holder: Holder{a, s.PodUID, s.Pod}}
					}
					orphans[a].Shared = append(orphans[a].Shared, heldAddr{shared[i].Spec.Space, addr})
					if !id.named(s.Node) {
						strange[s.Node.NodeName] = true
					}
				}
			}
		}
	}
	for name := range strange {
		if _, err := m.Nodes.Node(ctx, name); !apierrors.IsNotFound(err) {
			return orphans, wrap(err, "node %s, of which containers of this machine are", name)
		}
	}
	return orphans, m.locked(ctx, func(s *session) error { return s.adoptOrphans(orphans) })
}

// fence takes up again the node's blocks of this boot of which local state was lost. What a process
// had sent before that, to share one of them with what containers hold of it, has taken effect when
// fence returns, or never does. A node that has its state, or has no block in this boot, only lists.
func (m *Manager) fence(ctx context.Context, id *identity) error {
	own, err := m.Store.Blocks(ctx, metav1.ListOptions{FieldSelector: "spec.owner.nodeName=" + id.Name})
	errs := []error{wrap(err, "list blocks of node %s", id.Name)}
	for _, object := range own {
		if bootOf(object.Spec.Owner) == id.Boot && placed(&object) {
			errs = append(errs, m.alone(ctx, object.Spec.Space, object.Spec.CIDR, func(cidr netip.Prefix) error {
				_, err := m.mine(ctx, id.ownerOf(&object), object.Spec.Space, cidr)
				return err
			}))
		}
	}
	return errors.Join(errs...)
}

// adoptOrphans writes down what attachments hold, unless another process was quicker: it may have
// taken some of it back since.
func (s *session) adoptOrphans(orphans map[attachment.ID]*held) error {
	if s.recollected() {
		return nil
	}
	for a, h := range orphans {
		if has, err := s.holding(a); has != nil || err != nil {
			continue // it is searched for when it is needed
		}
		if h.Holder.check() != nil {
			continue // no Add made it
		}
		if err := s.write(heldName(a), h); err != nil {
			return err
		}
		s.m.Log.Warn("an attachment holds addresses of which this node's state had been lost", "attachment", a, "pod", h.Holder.Pod)
	}
	if err := s.tree.makeDir(heldDir); err != nil {
		return err
	}
	inode, ok := s.heldInode()
	if !ok {
		return nil
	}
	last := s.tended()
	last.Recollected = inode
	return s.write(tendedFile, &last)
}
