package file_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/ipam/file"
)

// named is a store of the same directory under another name, beside the first.
func named(s *file.Store, name, beside string) *file.Store {
	other := *s
	other.Network, other.Beside = name, beside
	return &other
}

func inNetwork(network, container string) attachment.ID {
	return attachment.ID{Network: network, ContainerID: container, IfName: "net1"}
}

// TestM30OldNamesLeases: what is held under a network's other name is given to nobody, until it is
// free; then the directory goes.
func TestM30OldNamesLeases(t *testing.T) {
	s := store(t)
	wish := []file.Wish{wish("10.0.0.2", "10.0.0.6")}
	plain, own := named(s, "net", "team.net"), named(s, "team.net", "net")
	ctx := t.Context()
	for _, c := range []string{"a", "b"} {
		if _, err := plain.Add(ctx, inNetwork("net", c), wish); err != nil {
			t.Fatal(err)
		}
	}
	taken := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")}
	var got []netip.Addr
	for i := range 3 {
		leases, err := own.Add(ctx, inNetwork("team.net", string(rune('p'+i))), wish)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, leases[0].Addr.Addr())
	}
	for _, a := range got {
		if slices.Contains(taken, a) {
			t.Errorf("%v is held under the old name", a)
		}
	}
	if _, err := own.Add(ctx, inNetwork("team.net", "full"), wish); !errors.Is(err, file.ErrFull) {
		t.Errorf("a range that is full: %v", err)
	}
	asked := []file.Wish{{Set: wish[0].Set, Asked: taken[0]}}
	if _, err := own.Add(ctx, inNetwork("team.net", "asks"), asked); !errors.Is(err, file.ErrTaken) {
		t.Errorf("an address that is held: %v", err)
	}
	// The other way round, as when the label is taken away.
	if _, err := plain.Add(ctx, inNetwork("net", "back"), wish); !errors.Is(err, file.ErrFull) {
		t.Errorf("under the old name: %v", err)
	}
	for _, c := range []string{"a", "b"} {
		if err := plain.Del(ctx, inNetwork("net", c), nil); err != nil {
			t.Fatal(err)
		}
	}
	leases, err := own.Add(ctx, inNetwork("team.net", "next"), wish)
	if err != nil || !slices.Contains(taken, leases[0].Addr.Addr()) {
		t.Errorf("what is free again: %v, %v", leases, err)
	}
	if _, err := os.Stat(filepath.Join(s.DataDir, "net")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of the old name: %v", err)
	}
	if _, err := plain.Add(ctx, inNetwork("net", "new"), wish); err != nil {
		t.Errorf("under the old name again: %v", err)
	}
}

// TestM30BothNamesAtOnce: ADDs under both names at the same time get no address twice.
func TestM30BothNamesAtOnce(t *testing.T) {
	s := store(t)
	wish := []file.Wish{wish("10.0.0.2", "10.0.0.40")}
	var mu sync.Mutex
	by := map[netip.Addr]string{}
	var group sync.WaitGroup
	for _, network := range []struct{ name, other string }{{"net", "team.net"}, {"team.net", "net"}} {
		for _, c := range []string{"a", "b", "c", "d"} {
			group.Go(func() {
				store, id := named(s, network.name, network.other), inNetwork(network.name, c)
				for range 20 {
					leases, err := store.Add(t.Context(), id, wish)
					if err != nil {
						t.Error(err)
						return
					}
					addr := leases[0].Addr.Addr()
					mu.Lock()
					if other := by[addr]; other != "" {
						t.Errorf("%v is that of %s and of %s", addr, other, network.name+c)
					}
					by[addr] = network.name + c
					mu.Unlock()
					time.Sleep(time.Millisecond) // others have their turn
					mu.Lock()
					delete(by, addr)
					mu.Unlock()
					if err := store.Del(t.Context(), id, nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	group.Wait()
}

// TestM30ForeignLeases: a GC of what was made here leaves what others made in the same directory,
// also behind an index that was made of it.
func TestM30ForeignLeases(t *testing.T) {
	s := store(t)
	ctx := t.Context()
	if _, err := s.Add(ctx, key("a"), []file.Wish{wish("10.0.0.2", "10.0.0.40")}); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(s.DataDir, s.Network, "10.0.0.77")
	if err := os.WriteFile(foreign, []byte("podman\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	// reads the foreign one
	if _, err := s.Add(ctx, key("b"), []file.Wish{wish("10.0.0.2", "10.0.0.40")}); err != nil {
		t.Fatal(err)
	}
	if err := s.GCMade(ctx, []attachment.ID{key("b")}); err != nil {
		t.Fatal(err)
	}
	if got := leases(t, s); len(got) != 2 || got["10.0.0.77"] == "" {
		t.Errorf("left: %v", got)
	}
	if err := s.GC(ctx, []attachment.ID{key("b")}); err != nil {
		t.Fatal(err)
	}
	if got := leases(t, s); len(got) != 1 {
		t.Errorf("left by a GC of all: %v", got)
	}
}
