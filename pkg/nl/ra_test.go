package nl_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
)

// advertise sends a router advertisement for a default route from a link, and waits until it has an
// effect in the pod.
func advertise(t *testing.T, pod, router *nettest.Namespace, podLink, routerLink string) {
	t.Helper()
	write := func(n *nettest.Namespace, key, value string) {
		t.Helper()
		if err := n.Run(func() error {
			return os.WriteFile("/proc/sys/net/ipv6/conf/"+key, []byte(value), 0)
		}); err != nil {
			t.Fatal(err)
		}
	}
	write(pod, podLink+"/accept_ra", "2")
	for end := time.Now().Add(10 * time.Second); !strings.Contains(pod.Routes(),
		"proto ra"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no route by router advertisement:\n%s", pod.Routes())
		}
		router.Advertise(routerLink)
	}
}

// A default route learnt from a router advertisement is one, too.
func TestS22DefaultRouteLearntByAdvertisement(t *testing.T) {
	for _, alone := range []bool{true, false} {
		pod, router := newPod(t)
		if !alone {
			pod.Route("default", eth0GW6, "eth0", 0)
		}
		advertise(t, pod, router, "eth0", "peer0")
		t.Log(defaults(pod))
		if err := open(t, pod).MoveDefaultRoute(t.Context(), "net1", addrs(net1GW6)); err != nil {
			t.Fatal(err)
		}
		same(t, "default routes", defaults(pod),
			[]string{"route6 default via fd00:b::1 dev net1 metric 512"})
	}
}

// R19: a link takes no default route from router advertisements any more, and loses that which it
// has; those of other links stay.
func TestR19RefuseDefaultRouters(t *testing.T) {
	pod, router := newPod(t)
	for link, peer := range map[string]string{"eth0": "peer0", "net1": "peer1"} {
		advertise(t, pod, router, link, peer)
		for end := time.Now().Add(10 * time.Second); !strings.Contains(pod.Routes(),
			"dev "+link+" proto ra"); {
			if time.Now().After(end) {
				t.Fatalf("no route by router advertisement on %s:\n%s", link, pod.Routes())
			}
			router.Advertise(peer)
		}
	}
	for range 2 {
		err := (nl.Sandbox{}).RefuseDefaultRouters(t.Context(), pod.Path, []string{"net1", "absent"})
		if err != nil {
			t.Fatal(err)
		}
	}
	// When the second has been counted, the first has had its effect.
	for range 2 {
		before := pod.Advertisements("net1")
		router.Advertise("peer1")
		for end := time.Now().
			Add(10 * time.Second); pod.Advertisements("net1") == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the advertisement does not arrive")
			}
		}
	}
	routes := pod.Routes()
	if strings.Contains(routes, "dev net1 proto ra") ||
		!strings.Contains(routes, "dev eth0 proto ra") {
		t.Errorf("want the default route by eth0's router alone:\n%s", routes)
	}
}
