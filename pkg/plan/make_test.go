package plan_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
)

func TestMakeHoldsItsCallerToTheContract(t *testing.T) {
	one := []plan.Request{{Default: true}}
	node, policy, call := &conf.Node{}, &conf.Policy{}, &conf.Call{}
	two := []plan.Request{{Default: true}, {Default: true}}
	for says, in := range map[string]plan.Input{
		"without a configuration": {Requests: one, Definitions: make([]plan.Definition, 1)},
		"0 definitions":           {Node: node, Policy: policy, Call: call, Requests: one},
		"not the default": {
			Node: node, Policy: policy, Call: call,
			Requests: make([]plan.Request, 1), Definitions: make([]plan.Definition, 1),
		},
		"first network is not": {Node: node, Policy: policy, Call: call},
		"more than one default": {
			Node: node, Policy: policy, Call: call, Requests: two,
			Definitions: make([]plan.Definition, 2),
		},
		"CNI_CONTAINERID": {
			Node: node, Policy: policy, Call: call, Requests: one,
			Definitions: make([]plan.Definition, 1),
		},
	} {
		in.IfName = "eth0"
		_, err := plan.Make(in)
		if failure.ReasonOf(err) == "" || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// The record keeps attachments as JSON, and DEL works from them.
func TestS25AttachmentSurvivesTheRecord(t *testing.T) {
	s := newScenario(`[{"name": "a", "ips": ["10.0.0.5/24"], "default-route": ["10.0.0.1"], ` +
		`"interface": "data0"}]`)
	s.nad("web/a", `{"type": "macvlan", "n": 12345678901234567890, "capabilities": {"ips": true}}`)
	made := s.must(t)[1]
	raw, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	var read plan.Attachment
	if err := json.Unmarshal(raw, &read); err != nil {
		t.Fatal(err)
	}
	made.Origin = nil // the policy was asked before the record was made
	if diff := cmp.Diff(made, read, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("read (-made +read):\n%s", diff)
	}
}
