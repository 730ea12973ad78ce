package policy_test

import (
	"testing"

	"github.com/braid-cni/braid/pkg/policy"
)

// BenchmarkEightNetworks judges all of a pod with eight networks.
func BenchmarkEightNetworks(b *testing.B) {
	p := policy.Policy{
		Rules: []policy.Rule{
			*rule(b, `{"namespaces":["team-a"],"masters":["ens2*"],"vlans":["100-199"],`+
				`"prefixes":["10.0.0.0/8"]}`),
		},
	}
	n := network(b, `{"cniVersion":"1.0.0","name":"lan","plugins":[
		{"type":"macvlan","master":"ens224","mode":"bridge","vlan":100,"capabilities":{"ips":true},
		 "ipam":{"type":"whereabouts","range":"10.9.0.0/16","range_start":"10.9.0.10","range_end":"10.9.9.250","gateway":"10.9.0.1","routes":[{"dst":"10.0.0.0/8"}]}},
		{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}},
		{"type":"sbr"}]}`)
	var pod policy.Pod
	for range 8 {
		pod.Requests = append(pod.Requests, policy.Request{IfName: "net1"})
	}
	for b.Loop() {
		d := p.Of("team-a")
		if found := policy.JudgePod(d.Rule, &pod); len(found) > 0 {
			b.Fatal(found)
		}
		for range 8 {
			if found := policy.Judge(p.Of("team-a").Rule, n); len(found) > 0 {
				b.Fatal(said(found))
			}
		}
	}
}
