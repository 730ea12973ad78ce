package policy_test

import (
	"encoding/json"
	"fmt"

	"github.com/braid-cni/braid/pkg/policy"
)

func ExampleJudge() {
	rules, err := policy.Parse("policy",
		json.RawMessage(`[{"namespaces": ["team-*"], "masters": ["ens224"]}]`))
	if err != nil {
		fmt.Println(err)
		return
	}
	p := policy.Policy{Rules: rules, Operators: []string{"kube-system", "default"}}
	d := p.Of("team-a")
	for _, v := range policy.Judge(d.Rule, &policy.Network{
		Conf: json.RawMessage(`{"name": "lan", "plugins": [{"type": "macvlan", "master": "ens224", ` +
			`"vlan": 7}]}`),
		Runs: []policy.Run{{Index: 0}},
	}) {
		fmt.Println(v.Field, "needs", v.Key)
		fmt.Println(policy.Amend(d.Rule, v))
	}
	// Output:
	// plugins[0].vlan needs vlans
	// {"namespaces": ["team-*"], "masters": ["ens224"], "vlans": ["7"]}
}
