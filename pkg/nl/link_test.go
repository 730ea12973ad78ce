package nl_test

import (
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
)

func TestLinkNames(t *testing.T) {
	n := nettest.New(t)
	n.Bridge("br0")
	got, err := open(t, n).LinkNames(t.Context())
	if want := []string{"lo", "br0"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("LinkNames = %q, %v, want %q", got, err, want)
	}
}

// More links than fit into one message of the kernel, while others come and go.
func TestLinkNamesWhileLinksChange(t *testing.T) {
	n := nettest.New(t)
	for i := range 60 {
		n.Bridge("keep" + string(rune('A'+i)))
	}
	h := open(t, n)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			a := netlink.NewLinkAttrs()
			a.Name = "passing"
			l := &netlink.Bridge{LinkAttrs: a}
			_ = n.Netlink().LinkAdd(l)
			_ = n.Netlink().LinkDel(l)
		}
	}()
	for range 30 {
		got, err := h.LinkNames(t.Context())
		got = slices.DeleteFunc(got, func(s string) bool { return s == "passing" })
		if err != nil || len(got) != 61 {
			t.Fatalf("%d links, %v; want 61", len(got), err)
		}
	}
	close(stop)
	<-done
}

func TestSandboxThatIsGone(t *testing.T) {
	n := nettest.New(t)
	n.Unmount()
	var s nl.Sandbox
	_, links := s.Links(t.Context(), n.Path)
	_, gateways := s.DefaultGateways(t.Context(), n.Path, "net1")
	move := s.MoveDefaultRoute(t.Context(), n.Path, "net1", addrs(net1GW4))
	for _, err := range []error{links, gateways, move} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want fs.ErrNotExist", err)
		}
	}
}

// A handle outlives its namespace's path, and says so when it is closed.
func TestHandleKeepsItsNamespace(t *testing.T) {
	n := nettest.New(t)
	h := open(t, n)
	n.Unmount()
	if got, err := h.LinkNames(t.Context()); err != nil || !slices.Equal(got, []string{"lo"}) {
		t.Errorf("LinkNames = %q, %v", got, err)
	}
	h.Close()
	if _, err := h.LinkNames(t.Context()); err == nil {
		t.Error("a closed handle works")
	}
}
