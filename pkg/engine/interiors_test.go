package engine_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/braid-cni/braid/pkg/engine"
)

// blind are interiors that cannot be looked at.
type blind struct {
	interiors
	err error
}

func (b blind) Interface(
	context.Context, string, string,
) (net.HardwareAddr, []netip.Prefix, bool, error) {
	return nil, nil, false, b.err
}

func (b blind) DefaultRoutes(context.Context, string) (engine.DefaultRoutes, error) {
	return nil, b.err
}

func (b blind) PreferDefaultRoute(context.Context, string, string) error { return b.err }

// What cannot be held to what was asked for, or kept off the default route, is taken back.
func TestR3InteriorsFail(t *testing.T) {
	for name, tc := range map[string]struct {
		policy, networks string
		calls            []string
	}{
		"default routes": {"keep", "routed", []string{"ADD eth0", "DEL eth0"}},
		"preference":     {"take", "routed", []string{"ADD eth0", "ADD net1", "DEL net1", "DEL eth0"}},
		"interface": {
			"keep", `[{"name":"plain","ips":["192.0.2.9/24"]}]`,
			[]string{"ADD eth0", "ADD net1", "DEL net1", "DEL eth0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.engine.Interiors = blind{err: errors.New("no netlink today")}
			n.conf["braid"].(map[string]any)["secondaryDefaultRoute"] = tc.policy
			n.object("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "routed", nil, map[string]any{
				"config": `{"cniVersion":"1.1.0","name":"routed","type":"pair","routes":[{"dst":"0.0.0.0/0"},` +
					`{"dst":"::/0"}]}`,
			})
			n.nads("plain")
			p := n.pod("p", tc.networks)
			n.fails(n.add(p), 5, "pod default/p", "interface net1", "no netlink today")
			same(t, "calls", n.plugin.called(), tc.calls)
			n.left([]*pod{p})
		})
	}
}
