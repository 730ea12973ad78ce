package block_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/ipam/block/blocktest"
)

// What a process that was killed had sent to share a block, with what containers hold of it, takes
// no effect after the state of the node was lost and a DEL has succeeded by what is known since.
// Nor does what a process that was not killed sends.
func TestR28NothingSentBeforeALossTakesEffect(t *testing.T) {
	for lost, lose := range map[string]func(m *block.Manager) error{
		"all":    func(m *block.Manager) error { return os.RemoveAll(m.Dir) },
		"blocks": func(m *block.Manager) error { return os.RemoveAll(filepath.Join(m.Dir, "blocks")) },
		"unreadable": func(m *block.Manager) (err error) {
			for _, path := range files(t, m, "blocks") {
				err = errors.Join(err, os.Truncate(path, 0))
			}
			return err
		},
	} {
		for first, do := range map[string]func(m *block.Manager) error{
			"DEL":  func(*block.Manager) error { return nil },
			"ADD":  func(m *block.Manager) error { return addOne(t, m, 2) },
			"GC":   func(m *block.Manager) error { return m.GC(t.Context(), "other", nil) },
			"look": func(m *block.Manager) error { return m.Inspect(t.Context()) },
			"node gone": func(m *block.Manager) error {
				m.Nodes.(*blocktest.Fake).DeleteNode("n0")
				return nil
			},
		} {
			t.Run(lost+", killed, "+first, func(t *testing.T) {
				c, m := sharing(t)
				c.late(t, "update", func() error { return m.Answer(t.Context()) })
				c.delAfter(t, m, lose, do)
				c.api.Arrive()
				c.nothingShared(t, m)
			})
			if lost == "unreadable" { // it has a lock that the others wait for
				continue
			}
			t.Run(lost+", goes on, "+first, func(t *testing.T) {
				c, m := sharing(t)
				before := *m
				before.Step = func(change string) error {
					if change == "give block" {
						c.delAfter(t, m, lose, do)
					}
					return nil
				}
				if err := before.Answer(t.Context()); err == nil {
					t.Error("a block was shared by state that was removed")
				}
				c.nothingShared(t, m)
			})
		}
	}
}

// sharing is a node with a block that another has recalled, and holders 0 and 1.
func sharing(t *testing.T) (*cluster, *block.Manager) {
	t.Helper()
	c := newCluster(t)
	m := c.node("n0")
	c.node("n1")
	for i := range 2 {
		if err := addOne(t, m, i); err != nil {
			t.Fatal(err)
		}
	}
	for _, object := range c.api.All() {
		object.Spec.Recall = &v1alpha1.Recall{By: "n1"}
		if _, err := c.api.UpdateBlock(t.Context(), &object); err != nil {
			t.Fatal(err)
		}
	}
	return c, m
}

// delAfter loses state, does something and frees what holder 0 has.
func (c *cluster) delAfter(t *testing.T, m *block.Manager, lose, do func(*block.Manager) error) {
	t.Helper()
	for _, err := range []error{lose(m), do(m), m.Del(t.Context(), holder(0).ID)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// nothingShared fails the test if a block is shared: the node assigns addresses of them by itself.
func (c *cluster) nothingShared(t *testing.T, m *block.Manager) {
	t.Helper()
	c.api.AddNode("n0", "uid-of-node")
	for i := range 2 * block.Size {
		if err := addOne(t, m, 10+i); err != nil {
			t.Fatal(err)
		}
	}
	for _, object := range c.api.All() {
		if object.Spec.Owner == nil {
			t.Errorf("%s is shared: %+v", object.Name, object.Spec.Allocations)
		}
	}
}

// A DEL frees all that an attachment holds, of the node's own blocks and of shared ones, where
// only what says so was lost, whatever was done before it.
func TestR28DelWithoutWhatIsHeld(t *testing.T) {
	for first, do := range map[string]func(m *block.Manager) error{
		"DEL": func(*block.Manager) error { return nil },
		"ADD": func(m *block.Manager) error { return addOne(t, m, 1) },
		"share": func(m *block.Manager) error {
			return errors.Join(addOne(t, m, 1), m.Answer(t.Context()))
		},
	} {
		t.Run(first, func(t *testing.T) {
			c, m := sharing(t)
			w := []block.Wish{wish(t, "10.0.0.0/24"), wish(t, "fd00::/124")} // the second is shared
			if _, err := m.Add(t.Context(), holder(7), w, nil); err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{
				os.RemoveAll(filepath.Join(m.Dir, "held")), do(m), m.Del(t.Context(), holder(7).ID),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			used, err := m.InUse(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, object := range c.api.All() {
				for _, h := range used[object.UID] {
					if h.ID == holder(7).ID {
						t.Errorf("%s has it: %v", object.Name, used[object.UID])
					}
				}
				for _, e := range object.Spec.Allocations {
					if e.ContainerID == holder(7).ContainerID {
						t.Errorf("%s has it: %+v", object.Name, e)
					}
				}
			}
		})
	}
}

func addOne(t *testing.T, m *block.Manager, i int) error {
	t.Helper()
	_, err := m.Add(t.Context(), holder(i), []block.Wish{wish(t, "10.0.0.0/24")}, nil)
	return err
}

// late runs an operation whose requests of a verb are on their way when it is killed.
func (c *cluster) late(t *testing.T, verb string, do func() error) {
	t.Helper()
	c.api.Fault = func(when, v string) error {
		switch {
		case v != verb:
			return nil
		case when == "before":
			return blocktest.ErrLate
		}
		return errors.New("killed")
	}
	if err := do(); err == nil {
		t.Fatalf("it has sent no %s", verb)
	}
	c.api.Fault = nil
}
