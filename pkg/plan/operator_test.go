package plan_test

import (
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// What a tenant wrote has limits, what the operator wrote has none.
func TestM26LimitsAreOfWhoWroteTheNetwork(t *testing.T) {
	config := `{"cniVersion": "1.0.0", "name": "n", "type": "macvlan"}`
	s := newScenario("a, b, default/open, web/empty")
	s.nad("default/open", config)
	s.nad("web/empty", "")
	s.disk["empty"] = config
	s.nad("kube-system/cluster-wide", config)
	s.nad("web/own", config)
	s.cfg.ClusterNetwork, s.cfg.DefaultNetworks = "cluster-wide", []string{"cluster-wide"}
	check := func(want ...string) {
		t.Helper()
		attachments, err := s.plan()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range attachments {
			namespace := "operator"
			if a.Limits != nil {
				namespace = a.Limits.Namespace
			}
			got = append(got, a.Name+":"+namespace)
		}
		if len(got) != len(want) {
			t.Fatalf("%q, want %q", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s, want %s", got[i], want[i])
			}
		}
	}
	const cluster = "kube-system/cluster-wide:operator"
	check(cluster, cluster, "web/a:web", "web/b:web", "default/open:operator", "web/empty:operator")
	s.pod.Annotations[nadv1.DefaultNetworkAnnotation] = "web/own"
	check("web/own:web", cluster, "web/a:web", "web/b:web", "default/open:operator",
		"web/empty:operator")
	s.pod.Annotations[nadv1.DefaultNetworkAnnotation] = "cluster-wide"
	check(cluster, cluster, "web/a:web", "web/b:web", "default/open:operator", "web/empty:operator")
	// The namespace of the default networks is the operator's, whatever its name; without isolation
	// a pod's own may be any.
	s.cfg.NamespaceIsolation = false
	s.pod.Annotations[nadv1.NetworksAnnotation] = "net/x, kube-system/cluster-wide"
	s.nad("net/x", config)
	check(cluster, cluster, "net/x:net", cluster)
	s.cfg.MultusNamespace = "net"
	s.nad("net/cluster-wide", config)
	check("net/cluster-wide:operator", "net/cluster-wide:operator", "net/x:operator", cluster)
}
