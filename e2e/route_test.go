package e2e_test

import (
	"slices"
	"strings"
	"testing"
)

// mainTable is the main table of a pod that has nothing but eth0 and what more names.
func mainTable(eth0 string, more ...string) []string {
	return append([]string{
		"default via 10.244.0.1 dev eth0",
		"10.244.0.0/16 dev eth0 proto kernel scope link src " + eth0,
	}, more...)
}

// plainRules are the rules that every network namespace has.
func plainRules(more ...string) []string {
	return slices.Concat([]string{"0: from all lookup local"}, more,
		[]string{"32766: from all lookup main", "32767: from all lookup default"})
}

// An attachment adds its connected route and nothing else, although the network has a gateway.
func TestU15RoutesByDefault(t *testing.T) {
	w := newWorkspace(t)
	w.nad("blue", `{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1",
		"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.15.1.0/24", "gateway": "10.15.1.254"}]]}}`)
	pod := w.run(w.pod("p", "blue"))
	net1 := w.hasLinks("p", "net1 10.15.1.0/24")["net1"]
	sameLines(t, "routes", w.ip("p", "route"), mainTable(pod.Status.PodIP,
		"10.15.1.0/24 dev net1 proto kernel scope link src "+net1.Addresses[0].Local))
	equalLines(t, "rules", w.ip("p", "rule"), plainRules())
	equalLines(t, "IPv6 default route", w.ip("p", "-6 route show default"), nil)
}

// Source-based routing as the user guide prints it: conf/gke's own file, with macvlan in place of
// ipvlan.
func TestU16SourceBasedRouting(t *testing.T) {
	w := newWorkspace(t)
	w.apply("gke/gke-network-1-static.yaml")
	pod := w.running(w.namespace, "sample-pod-static")
	w.hasLinks("sample-pod-static", "net1 21.0.104.0/21")
	sameLines(t, "routes", w.ip("sample-pod-static", "route"), mainTable(pod.Status.PodIP))
	equalLines(t, "table 100", w.ip("sample-pod-static", "route list table 100"), []string{
		"default via 21.0.111.254 dev net1",
		"21.0.104.0/21 dev net1 proto kernel scope link src 21.0.111.1",
	})
	equalLines(t, "rules", w.ip("sample-pod-static", "rule"),
		plainRules("32765: from 21.0.111.1 lookup 100 proto 176"))
}

// Static routes are added; the default route stays where it is.
func TestU17StaticRoutes(t *testing.T) {
	w := newWorkspace(t)
	w.apply("gke/routes.yaml", "gke-routes-static", "sample-pod-routes-static")
	pod := w.running(w.namespace, "sample-pod-routes-static")
	sameLines(t, "routes", w.ip("sample-pod-routes-static", "route"), mainTable(pod.Status.PodIP,
		"21.0.104.0/21 dev net1 proto kernel scope link src 21.0.110.2",
		"172.31.0.0/16 via 21.0.111.254 dev net1"))
}

// A secondary network's default route is left out where the pod has one of the family, unless the
// pod asks for it.
func TestU17DefaultRoute(t *testing.T) {
	w := newWorkspace(t)
	const static = `{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1", "ipam": {"type": "static",
		"addresses": [{"address": "ADDRESS", "gateway": "GATEWAY"}], "routes": [{"dst": "DST"}]}}`
	w.nad("v4", strings.NewReplacer("ADDRESS", "10.17.4.2/24", "GATEWAY", "10.17.4.1", "DST",
		"0.0.0.0/0").Replace(static))
	w.nad("v6", strings.NewReplacer("ADDRESS", "fd17::2/64", "GATEWAY", "fd17::1", "DST", "::/0").
		Replace(static))
	w.create(w.pod("p4", "v4"), w.pod("p6", "v6"),
		w.pod("asks", `[{"name": "v4", "default-route": ["10.17.4.1"]}]`))
	p4 := w.running(w.namespace, "p4")
	sameLines(t, "routes", w.ip("p4", "route"),
		mainTable(p4.Status.PodIP, "10.17.4.0/24 dev net1 proto kernel scope link src 10.17.4.2"))
	message := w.warned("p4", "DefaultRouteKept")
	for _, word := range []string{"plugins[0].ipam.routes[0]", "0.0.0.0/0", "default-route"} {
		if !strings.Contains(message, word) {
			t.Errorf("the event does not name %s: %s", word, message)
		}
	}
	w.running(w.namespace, "p6")
	equalLines(t, "IPv6 default route, which the default network has none of",
		w.ip("p6", "-6 route show default"),
		[]string{"default via fd17::1 dev net1 metric 1024 pref medium"})
	w.running(w.namespace, "asks")
	equalLines(t, "default route of the pod that asks", w.ip("asks", "route show default"),
		[]string{"default via 10.17.4.1 dev net1"})
	status := w.status("asks")
	if len(status) != 2 || !slices.Equal(status[1].DefaultRoute, []string{"10.17.4.1"}) ||
		len(status[0].DefaultRoute) != 0 {
		t.Errorf("network-status is %+v, want default-route at the second network", status)
	}
}
