package main

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/corpus"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// variant is a pod with networks of the kinds that public charts and documentation have, besides
// those of the corpus.
type variant struct {
	// networks is the annotation; nads are the configurations by name, the first one's being
	// "net-a".
	networks string
	nads     map[string]string
	outcome
}

func (v variant) file() corpus.File {
	return corpus.File{
		NAD: nadv1.NetworkAttachmentDefinition{
			TypeMeta:   metav1.TypeMeta{APIVersion: "k8s.cni.cncf.io/v1", Kind: nadv1.Kind},
			ObjectMeta: metav1.ObjectMeta{Name: "net-a", Namespace: "default"},
			Spec:       nadv1.NetworkAttachmentDefinitionSpec{Config: v.nads["net-a"]},
		},
		Pods: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{
			Name: "pod-a", Namespace: "default",
			Annotations: map[string]string{nadv1.NetworksAnnotation: v.networks},
		}}},
	}
}

func becomes(e expectation) outcome { return outcome{pods: []expectation{e}} }

// plainHostLocal is the tutorial's configuration.
const plainHostLocal = `{"type":"macvlan","master":"eth1","ipam":{"type":"host-local",` +
	`"subnet":"10.201.1.0/24"}}`

// keptDefault is the warning about a default route that a NAD has and nobody asked for.
var keptDefault = []string{"DefaultRouteKept"}

// variants are pods and NADs in the manner of the corpus, each with what becomes of it.
var variants = map[string]variant{
	"tutorial without cniVersion": {
		`[ {"name": "net-a", "interfaceRequest": "macvi0"} ]`, map[string]string{
			"net-a": plainHostLocal,
		}, becomes(expectation{has: []string{"macvi0 10.201.1."}}),
	},
	"bridge with a key of macvlan": {
		`[{"name":"net-a","mac":"c2:b0:57:49:47:f1","gateway":["10.201.2.1"]}]`,
		map[string]string{
			"net-a": `{"cniVersion":"0.3.1","name":"br0","plugins":[{"type":"bridge","bridge":"br0",` +
				`"mode":"bridge","ipam":{}},{"type":"tuning"}]}`,
		},
		becomes(expectation{
			has: []string{"net1 c2:b0:57:49:47:f1"}, warned: []string{"IgnoredKey", "PluginExecuted"},
		}),
	},
	"management network": {
		"net-a",
		map[string]string{"net-a": `{"type":"macvlan","mode":"bridge","master":"ens18","linkInContainer":false,"ipam":{"type":"host-local",
				"ranges":[[{"subnet":"10.201.3.0/24"}]],"routes":[{"dst":"0.0.0.0/0","gw":"10.201.3.1"}]}}`},
		becomes(expectation{has: []string{"net1 10.201.3."}, warned: keptDefault}),
	},
	"UPF of a 5G core": {
		`[{"name":"net-a","interface":"n3","ips":["10.201.4.33/29"],"gateway":["10.201.4.33"]},
			  {"name":"net-b","interface":"n4","ips":["10.201.4.241/29"],"gateway":["10.201.4.241"]},
			  {"name":"net-c","interface":"n6","ips":["10.201.5.12/24"],"gateway":["10.201.5.1"]}]`,
		map[string]string{
			"net-a": `{"cniVersion":"0.3.1","plugins":[{"type":"macvlan","capabilities":{"ips":true},` +
				`"master":"eth0","mode":"bridge","ipam":{"type":"static","routes":[{"dst":"0.0.0.0/0",` +
				`"gw":"10.201.4.38"}]}},{"capabilities":{"mac":true},"type":"tuning"}]}`,
			"net-b": `{"cniVersion":"0.3.1","plugins":[{"type":"macvlan","capabilities":{"ips":true},` +
				`"master":"eth0","mode":"bridge","ipam":{"type":"static","routes":[{"dst":"0.0.0.0/0",` +
				`"gw":"10.201.4.246"}]}},{"capabilities":{"mac":true},"type":"tuning"}]}`,
			"net-c": `{"cniVersion":"0.3.1","plugins":[{"type":"macvlan","capabilities":{"ips":true},` +
				`"master":"eth1","mode":"bridge","ipam":{"type":"static","routes":[{"dst":"0.0.0.0/0",` +
				`"gw":"10.201.5.1"}]}},{"capabilities":{"mac":true},"type":"tuning"}]}`,
		},
		becomes(expectation{
			has: []string{"n3 10.201.4.33/29", "n4 10.201.4.241/29", "n6 10.201.5.12/24"},
			warned: []string{
				"DefaultRouteKept", "DefaultRouteKept", "DefaultRouteKept", "IgnoredKey", "IgnoredKey",
				"IgnoredKey",
			},
		}),
	},
	"UPF with its default route on n6": {
		`[{"name":"net-a","interface":"n6","ips":["10.201.6.12/24"],"default-route":["10.201.6.1"]}]`,
		map[string]string{
			"net-a": `{"cniVersion":"0.3.1","type":"macvlan","master":"eth1","ipam":{"type":"static"}}`,
		},
		becomes(expectation{
			has: []string{"n6 10.201.6.12/24"}, defaults: []string{"default via 10.201.6.1 dev n6"},
		}),
	},
	"AMF over a VLAN's interface": {
		`[{"name":"net-a","interface":"n2","ips":["10.201.7.2/24"],"gateways":["10.201.7.1"]}]`,
		map[string]string{
			"net-a": `{"cniVersion":"0.3.1","plugins":[{"type":"macvlan","capabilities":{"ips":true},` +
				`"master":"eth1.2","mode":"bridge","ipam":{"type":"static",` +
				`"addresses":[{"address":"10.201.7.9/24","gateway":"10.201.7.1"}]}},` +
				`{"capabilities":{"mac":true},"type":"tuning"}]}`,
		},
		becomes(expectation{has: []string{"n2 10.201.7.2/24"}, warned: []string{"IgnoredKey"}}),
	},
	"storage, public and cluster": {
		"default/net-a@public,default/net-b@cluster",
		map[string]string{
			"net-a": `{"cniVersion":"0.3.1","type":"macvlan","master":"eth0","mode":"bridge",` +
				`"ipam":{"type":"whereabouts","range":"10.201.8.0/24","routes":[{"dst":"10.201.9.0/24"}]}}`,
			"net-b": `{"cniVersion":"0.3.1","type":"macvlan","master":"eth1","mode":"bridge",` +
				`"ipam":{"type":"whereabouts","range":"10.201.10.200-10.201.10.205/24"}}`,
		},
		becomes(expectation{
			has:    []string{"public 10.201.8.", "cluster 10.201.10.20"},
			routes: []string{"10.201.9.0/24 dev public"},
		}),
	},
	"dual stack with default routes": {
		"net-a",
		map[string]string{"net-a": `{"cniVersion":"1.0.0","type":"macvlan","master":"eth1","mtu":1400,"ipam":{"type":"whereabouts","ipRanges":[{"range":"10.201.11.0/25"},
				{"range":"fd00:201::/64"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.201.11.1"},{"dst":"::/0","gw":"fd00:201::1"}]}}`},
		becomes(expectation{
			has:      []string{"net1 10.201.11. fd00:201::"},
			defaults: []string{viaEth0, "default via fd00:201::1 dev net1 metric 1024"}, warned: keptDefault,
		}),
	},
	"two defaults asked for": {
		`[{"name":"net-a","ips":["10.201.12.6/24"],"default-route":["10.201.12.254"]},{"name":"net-b",` +
			`"mac":"02:23:45:67:89:01"}]`,
		map[string]string{
			"net-a": `{"cniVersion":"0.3.1","plugins":[{"type":"macvlan","capabilities":{"ips":true},` +
				`"master":"eth1","mode":"bridge","ipam":{"type":"static"}},{"type":"tuning",` +
				`"capabilities":{"mac":true}}]}`,
			"net-b": `{"cniVersion":"0.3.1","plugins":[{"type":"macvlan","master":"eth1","mode":"bridge",` +
				`"ipam":{"type":"host-local","subnet":"10.201.13.0/24","routes":[{"dst":"0.0.0.0/0"}],` +
				`"gateway":"10.201.13.1"}},{"type":"tuning","capabilities":{"mac":true}}]}`,
		},
		becomes(expectation{
			has:      []string{"net1 10.201.12.6/24", "net2 10.201.13. 02:23:45:67:89:01"},
			defaults: []string{"default via 10.201.12.254 dev net1"}, warned: keptDefault,
		}),
	},
	"bridge as a cluster's own": {
		"net-a",
		map[string]string{"net-a": `{"cniVersion":"0.3.1","type":"bridge","bridge":"mynet0","isDefaultGateway":true,"forceAddress":false,"ipMasq":true,"hairpinMode":true,
				"ipam":{"type":"host-local","subnet":"10.201.14.0/24"}}`},
		becomes(expectation{has: []string{"net1 10.201.14."}, warned: keptDefault}),
	},
	"static address of a NAD": {
		"\n  net-a ,\n  net-a@second\n",
		map[string]string{
			"net-a": `{"cniVersion":"0.3.0","type":"macvlan","master":"bond0","mode":"bridge",` +
				`"ipam":{"type":"static","addresses":[{"address":"10.201.15.3/24"}]}}`,
		},
		becomes(expectation{has: []string{"net1 10.201.15.3/24", "second 10.201.15.3/24"}}),
	},
	"VM on a bridge": {
		`[{"interface":"net1","mac":"02:7e:cb:00:00:00","name":"net-a","namespace":"default"},` +
			`{"interface":"pod0e7b5c3a1ff","name":"net-b","namespace":"default","cni-args":null}]`,
		map[string]string{
			"net-a": `{"cniVersion":"0.3.1","name":"net-a","plugins":[{"type":"bridge","bridge":"br1",` +
				`"macspoofchk":true,"ipam":{}},{"type":"tuning"}]}`,
			"net-b": `{"cniVersion":"0.3.1","name":"br2","type":"bridge","bridge":"br2",` +
				`"disableContainerInterface":false}`,
		},
		becomes(expectation{has: []string{"net1 02:7e:cb:00:00:00", "pod0e7b5c3a1ff"}}),
	},
	"VM in a VLAN": {
		`[{"interface":"net1","mac":"02:7e:cb:00:00:01","name":"net-a","namespace":"default"}]`,
		map[string]string{
			"net-a": `{"cniVersion":"0.3.1","name":"vlan100","type":"bridge","bridge":"br1","vlan":100,` +
				`"preserveDefaultVlan":false,"macspoofchk":true}`,
		},
		outcome{
			kinds: []string{"bridge-vlan"}, pods: []expectation{{has: []string{"net1 02:7e:cb:00:00:01"}}},
		},
	},
	"ipvlan l3 with sysctls": {
		"net-a",
		map[string]string{"net-a": `{"cniVersion":"0.4.0","plugins":[{"type":"ipvlan","master":"eth1","mode":"l3","ipam":{"type":"host-local","subnet":"10.201.16.0/24","routes":[{"dst":"0.0.0.0/0"}]}},
				{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}}]}`},
		outcome{
			kinds: []string{"ipvlan"},
			pods:  []expectation{{has: []string{"net1 10.201.16."}, warned: keptDefault}},
		},
	},
	"source based routing": {
		`[{"name":"net-a","ips":["10.201.17.4/24"]}]`,
		map[string]string{
			"net-a": `{"cniVersion":"0.3.1","plugins":[{"type":"macvlan","master":"eth1",` +
				`"capabilities":{"ips":true},"ipam":{"type":"static","routes":[{"dst":"0.0.0.0/0",` +
				`"gw":"10.201.17.1"}]}},{"type":"sbr"}]}`,
		},
		becomes(expectation{has: []string{"net1 10.201.17.4/24"}}),
	},
	"addresses for nobody": {
		`[{"name":"net-a","ips":["10.201.18.4/24"]}]`,
		map[string]string{"net-a": `{"cniVersion":"0.3.1","type":"bridge","bridge":"br1","ipam":{}}`},
		outcome{refused: "MissingCapability", says: []string{"ips"}},
	},
}

// TestCorpusVariants runs pods that are like those of the corpus.
func TestCorpusVariants(t *testing.T) {
	t.Parallel()
	holdVariants(t, false)
}

// The user-mode kernel, in which some of the others run, has no NAT.
func TestCorpusVariantsWithNAT(t *testing.T) {
	t.Parallel()
	holdVariants(t, true)
}

// holdVariants tries those that need NAT, or all others.
func holdVariants(t *testing.T, nat bool) {
	for name, v := range variants {
		if nat != strings.Contains(v.nads["net-a"], "ipMasq") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v.more = v.nads
			v.hold(t, v.file())
		})
	}
}

// others are the NADs besides the file's own.
func (o outcome) others(h *host) {
	for name, config := range o.more {
		if name != "net-a" {
			h.nad(name, strings.TrimSpace(config))
		}
	}
}
