package attack_test

import (
	"net"
	"os"
	"strings"

	"github.com/braid-cni/braid/pkg/weaken"
)

// harmless is a network that a tenant may have; NAME is that of its bridge.
const harmless = `{"cniVersion":"1.0.0","type":"bridge","bridge":"NAME","isGateway":true,` +
	`"ipam":{"type":"host-local","dataDir":"DIR/data","subnet":"10.77.0.0/24"}}`

// ported is a network with port mappings.
func ported() string {
	return `{"cniVersion":"1.0.0","plugins":[` + strings.Replace(harmless, "NAME", "br-ports", 1) +
		`,{"type":"portmap","capabilities":{"portMappings":true}}]}`
}

// asks is an annotation that asks for the network ports of the pod's namespace.
func asks(mapping string) string {
	return `[{"name":"ports","portMappings":[{"containerPort":80,"protocol":"tcp",` + mapping + `}]}]`
}

// takesPort reports whether a pod gets a port of the node, which something may use before.
func takesPort(n *node, mapping string) bool {
	n.nad("team/ports", ported())
	p := n.pod("team/p", asks(mapping))
	return n.starts(p)
}

func ofPods() []attack {
	return []attack{
		{"U13 a network of another namespace", podTenant, off(weaken.Isolation), func(n *node) bool {
			n.nad("rival/lan", strings.Replace(harmless, "NAME", "br-rival", 1))
			p := n.pod("team/p", "rival/lan")
			return n.starts(p) && p.HasLink("net1")
		}},
		{
			"M32 a parameter of all interfaces by cni-args", podTenant, off(weaken.Policy),
			func(n *node) bool {
				n.tenant("team")
				n.nad("team/tuned", `{"cniVersion":"1.0.0","plugins":[`+
					strings.Replace(harmless, "NAME", "br-team", 1)+`,{"type":"tuning","dataDir":"DIR/data"}]}`)
				p := n.pod("team/p", `[{"name":"tuned",`+
					`"cni-args":{"sysctl":{"net.ipv4.conf.all.arp_filter":"1"}}}]`)
				n.starts(p)
				var value []byte
				n.must(p.Run(func() (err error) {
					value, err = os.ReadFile("/proc/sys/net/ipv4/conf/all/arp_filter")
					return err
				}))
				return strings.TrimSpace(string(value)) == "1"
			},
		},
		{
			"M32 a MAC by cni-args that it does not get", podTenant, off(weaken.Honoured),
			func(n *node) bool {
				n.plugin("ignorant", "")
				n.nad("team/a", `{"cniVersion":"1.0.0","type":"ignorant"}`)
				return n.starts(n.pod("team/p", `[{"name":"a","cni-args":{"mac":"02:00:00:00:00:01"}}]`))
			},
		},
		{
			"M29 a port that only root has", podTenant, off(weaken.Policy, weaken.HostPorts),
			func(n *node) bool {
				n.tenant("team")
				return takesPort(n, `"hostPort":80`)
			},
		},
		{"M29 the port of a process of the node", podTenant, off(weaken.Listeners), func(n *node) bool {
			n.must(n.host.Run(func() error {
				l, err := (&net.ListenConfig{}).Listen(n.Context(), "tcp", "[::]:10250")
				if err == nil {
					n.Cleanup(func() { l.Close() }) //nolint:errcheck // the test is over
				}
				return err
			}))
			return takesPort(n, `"hostPort":10250`)
		}},
		{"M29 the port of another pod", podTenant, off(weaken.Taken), func(n *node) bool {
			n.nad("rival/ports", strings.NewReplacer("br-ports", "br-rival", "10.77", "10.78").
				Replace(ported()))
			n.begins(n.pod("rival/first", asks(`"hostPort":8080`)))
			return takesPort(n, `"hostPort":8080`)
		}},
		{"M29 a port of the node's own processes", podTenant, off(weaken.Loopback), func(n *node) bool {
			return takesPort(n, `"hostPort":8022,"hostIP":"127.0.0.1"`)
		}},
		{"hundreds of networks", podTenant, off(weaken.Networks), func(n *node) bool {
			n.nad("team/a", `{"cniVersion":"1.0.0","type":"passthru"}`)
			return n.starts(n.pod("team/p", strings.TrimSuffix(strings.Repeat("a,", 200), ",")))
		}},
		{"M35 the terminal of who plans its pod", podTenant, off(weaken.Printing), func(n *node) bool {
			n.object("v1", "Pod", "team/p"+evil, map[string]any{}, nil)
			return shows(n.braidctl("plan", n.path("manifests", "Pod-team-p"+evil+".yaml")))
		}},
	}
}
