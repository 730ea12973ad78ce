package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/reap"
)

const listText = `Lists blocks of addresses: space, block, owner, address, pod. Of a shared block,
which has no owner, each address in use has a line. What is in use of a node's block the node alone
knows: on that node it is read from its state and listed too; elsewhere USED and FREE are what the
node reported last, some minutes ago perhaps.`

func listCommand() command {
	return command{
		name: "ipam list", summary: "the blocks of cluster-wide addresses, whose they are, and what is " +
			"in use",
		text: listText,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			open, o := sourceFlags(f), formatFlag(f, formatTable)
			space := f.String("space", "", "only blocks of this `space`")
			owner := f.String("node", "", "only blocks that this `node` owns")
			state := f.String("state-dir", conf.DefaultStateDir,
				"`directory` of Braid's state on this node, which may lack it")
			return func(ctx context.Context, out io.Writer) (bool, error) {
				source, err := open()
				if err != nil {
					return false, err
				}
				known, err := inUse(ctx, *state)
				if err != nil {
					return false, err
				}
				blocks, err := source.Blocks(ctx, metav1.ListOptions{FieldSelector: selector(*space, *owner)})
				if err != nil {
					return false, fmt.Errorf("list blocks: %w", err)
				}
				return false, write(out, *o, list(blocks, known), "SPACE BLOCK OWNER USED FREE ADDRESS POD",
					listed.rows)
			}
		},
	}
}

// inUse returns what this machine knows as a node; nothing if it is none.
func inUse(
	ctx context.Context, stateDir string,
) (map[types.UID]map[netip.Addr]block.Holder, error) {
	dir := filepath.Join(stateDir, "ipam")
	if !exists(dir) {
		return nil, nil
	}
	m := &block.Manager{Dir: dir, Log: slog.New(slog.DiscardHandler)}
	known, err := m.InUse(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the state of this node in %s: %w", dir, err)
	}
	return known, nil
}

// selector selects blocks by their fields; empty names select all.
func selector(space, owner string) string {
	terms := fields.Set{"spec.space": space, "spec.owner.nodeName": owner}
	maps.DeleteFunc(terms, func(_, value string) bool { return value == "" })
	return terms.String()
}

// listed is a block as it is printed.
type listed struct {
	Space string `json:"space"`
	Block string `json:"block"`
	// Owner is empty for a shared block.
	Owner      string `json:"owner,omitempty"`
	RecalledBy string `json:"recalledBy,omitempty"`
	// Used and Free are what the owner knows on this machine, else what it reported; it may not have
	// yet.
	Used      int32                 `json:"used"`
	Free      int32                 `json:"free"`
	Addresses []v1alpha1.Allocation `json:"addresses,omitempty"`
}

// list describes the blocks in their order. known is what this machine knows as a node.
func list(blocks []v1alpha1.IPBlock, known map[types.UID]map[netip.Addr]block.Holder) []listed {
	slices.SortFunc(blocks, func(a, b v1alpha1.IPBlock) int {
		p, _ := netip.ParsePrefix(a.Spec.CIDR)
		q, _ := netip.ParsePrefix(b.Spec.CIDR)
		return cmp.Or(strings.Compare(a.Spec.Space, b.Spec.Space), p.Addr().Compare(q.Addr()))
	})
	items := make([]listed, len(blocks))
	for i := range blocks {
		if used, ok := known[blocks[i].UID]; ok && blocks[i].Spec.Owner != nil {
			enter(&blocks[i], used)
		}
		items[i] = describe(&blocks[i])
	}
	return items
}

// enter writes what is in use of a block of this node into the copy of its object that is listed.
func enter(b *v1alpha1.IPBlock, used map[netip.Addr]block.Holder) {
	b.Spec.Allocations = nil
	for addr, h := range used {
		b.Spec.Allocations = append(b.Spec.Allocations, v1alpha1.Allocation{
			Address: addr.String(), Network: h.Network, ContainerID: h.ContainerID, IfName: h.IfName,
			Pod: h.Pod, PodUID: h.PodUID,
		})
	}
	b.Status.Used = int32(len(used)) //nolint:gosec // at most block.Size
	b.Status.Free = block.Size - b.Status.Used
}

// describe takes what is in use of a node's block from its status, where the node reports it.
func describe(b *v1alpha1.IPBlock) listed {
	l := listed{
		Space: b.Spec.Space, Block: b.Spec.CIDR, Used: b.Status.Used, Free: b.Status.Free,
		Addresses: b.Spec.Allocations,
	}
	if b.Spec.Owner != nil {
		l.Owner = b.Spec.Owner.NodeName
	} else {
		l.Used = int32(len(l.Addresses)) //nolint:gosec // at most block.Size
		l.Free = block.Size - l.Used
	}
	slices.SortFunc(l.Addresses, func(x, y v1alpha1.Allocation) int {
		p, _ := netip.ParseAddr(x.Address)
		q, _ := netip.ParseAddr(y.Address)
		return p.Compare(q)
	})
	if b.Spec.Recall != nil {
		l.RecalledBy = b.Spec.Recall.By
	}
	return l
}

// rows are the lines of a block: one for each address that it shows, and one if there is none.
func (l listed) rows() [][]string {
	whose := l.Owner
	if whose == "" {
		whose = "<shared>"
	} else if l.RecalledBy != "" {
		whose += " (recalled by " + l.RecalledBy + ")"
	}
	used, free := fmt.Sprint(l.Used), fmt.Sprint(l.Free)
	if l.Used+l.Free == 0 {
		used, free = "", "" // nobody has reported
	}
	var rows [][]string
	row := func(address, who string) {
		rows = append(rows, []string{l.Space, l.Block, whose, used, free, address, who})
	}
	for _, a := range l.Addresses {
		row(a.Address, holder(a))
		if a.Second != nil {
			row(a.Address, holder(v1alpha1.Allocation{
				ContainerID: a.Second.ContainerID, Pod: a.Second.Pod, Claim: a.Claim,
			}))
		}
	}
	if len(rows) == 0 {
		row("", "")
	}
	return rows
}

// holder says who has an address.
func holder(a v1alpha1.Allocation) string {
	var words []string
	if a.Pod != "" || a.ContainerID != "" {
		words = append(words, cmp.Or(a.Pod, "container "+a.ContainerID))
	}
	if a.Claim != nil {
		words = append(words, "IPAMClaim "+a.Claim.Namespace+"/"+a.Claim.Name)
	}
	if a.Network == reap.Network && a.Node == nil {
		words = append(words, "(recorded by whereabouts)")
	}
	return strings.Join(words, " ")
}
