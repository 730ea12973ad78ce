package macvlan_test

import (
	"testing"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// A tenant takes over no link that the node lives by, and has the masters that a rule names.
func TestM26Limits(t *testing.T) {
	s := suite()
	n, _ := s.Node(t, s.Ours, plugintest.Dual)
	master, _ := s.Conf()["master"].(string)
	n.Host.Addr(master, "192.0.2.1/24")
	n.Host.Route("default", "192.0.2.2", master, 0)
	limits := &attachment.Limits{Namespace: "team"}
	for _, c := range []struct {
		limits *attachment.Limits
		conf   conf
		want   failure.Reason
	}{
		{limits, conf{}, ""},
		{limits, conf{"mode": "passthru"}, failure.NodeProtected},
		{limits, conf{"mode": "passthru", "master": ""}, failure.NodeProtected},
		{nil, conf{"mode": "passthru"}, ""},
		{&attachment.Limits{Namespace: "team", Masters: []string{}}, conf{}, failure.PolicyRefused},
		{
			&attachment.Limits{Namespace: "team", Masters: []string{}},
			conf{"master": ""},
			failure.PolicyRefused,
		},
		{&attachment.Limits{Namespace: "team", Masters: []string{master}}, conf{"master": ""}, ""},
	} {
		n.Limits = c.limits
		p := n.Pod("a")
		before := p.Snapshot()
		_, err := p.Add(s.Conf().With(c.conf))
		if failure.ReasonOf(err) != c.want || (err == nil) != (c.want == "") {
			t.Errorf("%+v %v: %v", c.limits, c.conf, err)
		}
		if err == nil {
			err = p.Del(s.Conf().With(c.conf))
		} else {
			err = nil
		}
		if err != nil || p.Snapshot() != before {
			t.Errorf("%+v %v: left %s, %v", c.limits, c.conf, p.Snapshot(), err)
		}
	}
}
