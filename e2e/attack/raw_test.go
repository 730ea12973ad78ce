package attack_test

import (
	"net"
	"strings"
	"time"

	"github.com/braid-cni/braid/pkg/weaken"
)

func ofRawPods() []attack {
	return []attack{
		{
			"R19 the IPv6 traffic of another pod, by a router advertisement", rawPod, off(weaken.Routers),
			func(n *node) bool {
				n.nad("team/lan", `{"cniVersion":"1.0.0","type":"macvlan","master":"`+uplink+
					`","mode":"bridge"}`)
				victim, evil := n.pod("team/victim", "lan"), n.pod("team/evil", "lan")
				n.begins(victim)
				n.begins(evil)
				evil.Advertise("net1")
				end := time.Now().Add(20 * time.Second)
				for ; victim.Advertisements("net1") == 0; time.Sleep(5 * time.Millisecond) {
					if time.Now().After(end) {
						n.Fatal("no advertisement arrives")
					}
				}
				time.Sleep(50 * time.Millisecond) // from the counter to the route
				return strings.Contains(victim.Routes(), "default via fe80")
			},
		},
		{"M28 frames with the MAC address of another", rawPod, off(weaken.Spoofing), func(n *node) bool {
			n.tenant("team")
			n.nad("team/lan", strings.Replace(harmless, "NAME", "br-team", 1))
			victim, evil := n.pod("team/victim", "lan"), n.pod("team/evil", "lan")
			n.begins(victim)
			n.begins(evil)
			n.must(evil.Netlink().LinkSetHardwareAddr(evil.Link("net1"),
				net.HardwareAddr{2, 0, 0, 0, 0, 0x42}))
			for end := time.Now().Add(3 * time.Second); time.Now().
				Before(end); time.Sleep(50 * time.Millisecond) {
				evil.Advertise("net1")
				if victim.Advertisements("net1") > 0 {
					return true
				}
			}
			return false
		}},
	}
}
