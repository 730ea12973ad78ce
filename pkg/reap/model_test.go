package reap_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

// managed is a node that assigns addresses of a range in the default space.
type managed struct {
	*block.Manager
	t    *testing.T
	f    *fake
	cidr string
	// has are the containers, by pod.
	has map[string]attached
	up  bool
}

// attached is what a container was given.
type attached struct {
	holder block.Holder
	addr   netip.Addr
}

func newManaged(t *testing.T, c *controller, f *fake, name, cidr string) *managed {
	f.addNode(name)
	return &managed{
		t: t, f: f, cidr: cidr, up: true, has: map[string]attached{},
		Manager: &block.Manager{
			Store: f, Nodes: f, Dir: t.TempDir(), NodeName: name, Log: c.Log, Now: c.Now, Boot: func() (
				string, error,
			) {
				return "boot", nil
			}, Patience: time.Millisecond,
		},
	}
}

// give makes a new pod and does its ADD; without an address there is no pod.
func (m *managed) give() (netip.Addr, error) {
	m.t.Helper()
	window, err := alloc.NewWindow(netip.MustParsePrefix(m.cidr), netip.Addr{}, netip.Addr{}, nil, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	name := "p" + string(m.f.uid())
	uid := m.f.addPod(pod{namespace: "default", name: name, node: m.NodeName})
	h := block.Holder{
		ID:  attachment.ID{Network: "net", ContainerID: "c" + name, IfName: "net1"},
		Pod: "default/" + name, PodUID: uid,
	}
	got, err := m.Add(m.t.Context(), h,
		[]block.Wish{{Space: block.SpaceOf("", ""), Window: window}}, nil)
	if err != nil {
		m.f.deletePod("default", name)
		return netip.Addr{}, err
	}
	m.has[h.Pod] = attached{h, got[0]}
	return got[0], nil
}

// giveText is "full" for no address.
func (m *managed) giveText() string {
	m.t.Helper()
	a, err := m.give()
	if errors.Is(err, block.ErrFull) {
		return "full"
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return a.String()
}

// end is the DEL of a container.
func (m *managed) end(pod string) {
	m.t.Helper()
	if err := m.Del(m.t.Context(), m.has[pod].holder.ID); err != nil {
		m.t.Fatal(err)
	}
	delete(m.has, pod)
}

// Nodes assign and free addresses, are deleted, lose their pods, come back; requests fail;
// several instances look after it, one as forgetful as the other: no address is ever that of two
// pods that are in the API, and all are free when the pods are gone.
func TestModel(t *testing.T) {
	for seed := range uint64(80) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		f := newFake()
		c := newController(t, f)
		c.Log = slog.New(slog.DiscardHandler)
		// one block, which is shared; or enough for each node to own some
		cidr := []string{"10.9.0.0/28", "10.9.0.0/25"}[seed%2]
		var nodes []*managed
		for _, name := range []string{"a", "b", "c"} {
			nodes = append(nodes, newManaged(t, c, f, name, cidr))
		}
		for range 150 {
			m := nodes[rnd.IntN(len(nodes))]
			switch rnd.IntN(9) {
			case 0, 1, 2:
				_, err := m.giveIf()
				if err != nil && !errors.Is(err, block.ErrFull) && !errors.Is(err, block.ErrLater) {
					t.Fatalf("seed %d: %v", seed, err)
				}
			case 3:
				if pods := slices.Sorted(maps.Keys(m.has)); m.up && len(pods) > 0 {
					gone := pods[rnd.IntN(len(pods))]
					m.end(gone)
					delete(f.pods, gone)
				}
			case 4:
				if m.up {
					m.up = false
					f.deleteNode(m.NodeName)
				}
			case 5:
				m.loseSomePods(rnd)
			case 6:
				m.comeBack()
			case 7:
				if rnd.IntN(4) == 0 {
					c.Reaper = c.reaper()
					c.Log = slog.New(slog.DiscardHandler)
				}
				f.fail = func(string, string) error {
					if rnd.IntN(10) == 0 {
						return errDown
					}
					return nil
				}
				c.clock = c.clock.Add(time.Duration(rnd.IntN(400)) * time.Second)
				if err := c.Pass(t.Context()); err != nil && !errors.Is(err, errDown) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				f.fail = nil
			case 8:
				if m.up {
					if err := errors.Join(m.Answer(t.Context()), m.Inspect(t.Context())); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
			}
			checkUnique(t, seed, f, nodes)
		}
		for _, m := range nodes {
			if m.up {
				m.up = false
				f.deleteNode(m.NodeName)
			}
		}
		clear(f.pods)
		c.pass(0)
		c.pass(grace)
		c.want(fmt.Sprint("seed ", seed, ", all gone"))
	}
}

func (m *managed) giveIf() (netip.Addr, error) {
	if !m.up {
		return netip.Addr{}, nil
	}
	return m.give()
}

// loseSomePods deletes pods of a node that is gone, most often all of them.
func (m *managed) loseSomePods(rnd *rand.Rand) {
	for pod := range m.has {
		if !m.up && rnd.IntN(8) > 0 {
			delete(m.f.pods, pod)
		}
	}
}

// comeBack makes the Node object anew. The kubelet stops what is not in the API any more, and Braid
// looks at its blocks.
func (m *managed) comeBack() {
	m.t.Helper()
	if m.up {
		return
	}
	m.up = true
	m.f.addNode(m.NodeName)
	for pod := range maps.Clone(m.has) {
		if _, ok := m.f.pods[pod]; !ok {
			m.end(pod)
		}
	}
	if err := m.Inspect(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

func checkUnique(t *testing.T, seed uint64, f *fake, nodes []*managed) {
	t.Helper()
	by := map[netip.Addr]string{}
	for _, m := range nodes {
		for pod, has := range m.has {
			if _, listed := f.pods[pod]; !listed {
				continue
			}
			if other, ok := by[has.addr]; ok {
				t.Fatalf("seed %d: pods %s and %s have %v", seed, pod, other, has.addr)
			}
			by[has.addr] = pod
		}
	}
}
