package nl_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
)

func TestAddrs(t *testing.T) {
	pod, _ := newPod(t)
	h := open(t, pod)
	net1 := index(pod, "net1")
	for _, a := range []string{"10.7.0.2/24", "fd07::2/64", "10.7.0.3/32"} {
		if err := h.AddAddr(t.Context(), net1, netip.MustParsePrefix(a)); err != nil {
			t.Fatal(err)
		}
	}
	list := func(index int) (all []string) {
		addrs, err := h.Addrs(t.Context(), index)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if !a.Addr().IsLinkLocalUnicast() && !a.Addr().IsLoopback() {
				all = append(all, a.String())
			}
		}
		slices.Sort(all)
		return all
	}
	net1Has := []string{"10.0.1.2/24", "10.7.0.2/24", "10.7.0.3/32", "fd00:b::2/64", "fd07::2/64"}
	same(t, "addresses of net1", list(net1), net1Has)
	all := append([]string{"10.0.0.2/24", "fd00:a::2/64"}, net1Has...)
	slices.Sort(all)
	same(t, "all addresses", list(0), all)
	err := h.AddAddr(t.Context(), net1, netip.MustParsePrefix("10.7.0.2/24"))
	if !errors.Is(err, unix.EEXIST) {
		t.Errorf("an address that is there: %v", err)
	}
	err = h.AddAddr(t.Context(), 9999, netip.MustParsePrefix("10.8.0.2/24"))
	if !errors.Is(err, unix.ENODEV) {
		t.Errorf("no link: %v", err)
	}
}

func TestAwaitAddrs(t *testing.T) {
	pod, router := newPod(t)
	h, ns := open(t, pod), at(t, pod)
	net1 := index(pod, "net1")
	states := func() (tentative, duplicate bool) {
		list, err := h.Addrs(t.Context(), net1)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			tentative, duplicate = tentative || a.Tentative, duplicate || a.Duplicate
		}
		return tentative, duplicate
	}
	if err := h.AddAddr(t.Context(), net1, netip.MustParsePrefix("fd07::2/64")); err != nil {
		t.Fatal(err)
	}
	if tentative, _ := states(); !tentative {
		t.Error("a new address is not tentative")
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := h.AwaitAddrs(short, ns, net1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("when the context ends: %v", err)
	}
	if err := h.AwaitAddrs(t.Context(), ns, net1); err != nil {
		t.Error(err)
	}
	if tentative, duplicate := states(); tentative || duplicate {
		t.Errorf("after waiting: tentative %v, duplicate %v", tentative, duplicate)
	}
	router.Addr("peer1", "fd07::9/64")
	if err := h.AddAddr(t.Context(), net1, netip.MustParsePrefix("fd07::9/64")); err != nil {
		t.Fatal(err)
	}
	err := h.AwaitAddrs(t.Context(), ns, net1)
	if err == nil || !strings.Contains(err.Error(), "fd07::9 ") {
		t.Errorf("an address that is in use: %v", err)
	}
	nettest.NoThreadIn(t, pod)
}
