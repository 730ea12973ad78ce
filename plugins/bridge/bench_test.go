package bridge_test

import (
	"testing"

	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// BenchmarkAdd is the plugin's part of an ADD with a gateway and ipMasq: addresses come from an
// IPAM plugin that does nothing, so with ours nothing is exec'd.
func BenchmarkAdd(b *testing.B) {
	for _, bench := range []struct {
		name string
		ipam conf
		run  plugintest.Runner
	}{
		{"ours", ipam("10.1.0.2/24"), ours()},
		{
			"reference",
			conf{"type": "static", "addresses": []conf{{"address": "10.1.0.2/24"}}},
			plugintest.Reference{},
		},
	} {
		b.Run(bench.name, func(b *testing.B) {
			n := plugintest.New(b, bench.run)
			p := n.Pod("a")
			c := conf{"type": "bridge", "isDefaultGateway": true, "ipMasq": true, "ipam": bench.ipam}
			// A node with one pod already: bridge and nftables are there.
			other := conf{"type": "static", "addresses": []conf{{"address": "10.1.0.3/24"}}}
			add(b, n.Pod("b"), c.With(conf{"ipam": other}))
			for b.Loop() {
				add(b, p, c)
				b.StopTimer()
				if err := p.Del(c); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
