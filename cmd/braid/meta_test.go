package main

import (
	"fmt"
	"strings"
	"testing"
)

// R13: nothing of sbr stays after DEL of networks of CNI 0.3.1, whose plugins get no prevResult on DEL. The links of the pod go first.
func TestR13SbrOfOldVersion(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i, table := range []string{"", `,"table":7`} {
		r.nad(fmt.Sprint("n", i), fmt.Sprintf(`{"cniVersion":"0.3.1","plugins":[{"type":"macvlan","master":%q,
			"ipam":{"type":"static","addresses":[{"address":"10.13.%d.2/24","gateway":"10.13.%[2]d.1"},{"address":"fd13:%[2]d::2/64"}]}},
			{"type":"sbr"%[3]s}]}`, nic, i, table))
	}
	for _, networks := range []string{"n0", "n0,n1"} {
		p := r.pod("p-"+strings.ReplaceAll(networks, ",", "-"), networks)
		before := p.Rules()
		r.add(p)
		if p.Rules() == before {
			t.Fatal("ADD made no rule")
		}
		r.must("DEL", p)
		r.clean(p)
		same(t, "rules", p.Rules(), before)
	}
}
