package sbr_test

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// Each is an error that says what it is about, and changes nothing.
func TestBadInput(t *testing.T) {
	p, good := pod(t, plugintest.New(t, ours()), "a", dual)
	refused(t, p, map[string]badInput{
		"table 0": {
			good.With(conf{"table": 0}), types.ErrInvalidNetworkConfig,
			[]string{"table 0"},
		},
		"table negative": {
			good.With(conf{"table": -5}), types.ErrInvalidNetworkConfig,
			[]string{"table -5"},
		},
		"table too large": {
			good.With(conf{"table": 4294967296}), types.ErrInvalidNetworkConfig,
			[]string{"table 4294967296"},
		},
		"table a string": {
			good.With(conf{"table": "main"}), types.ErrInvalidNetworkConfig,
			[]string{"table", "main"},
		},
		"gateways a string": {
			good.With(conf{"gateways": "10.1.0.1"}), types.ErrInvalidNetworkConfig,
			[]string{"gateways", "10.1.0.1"},
		},
		"no address": {
			good.With(conf{"gateways": []string{"10.1.0.x"}}),
			types.ErrInvalidNetworkConfig,
			[]string{"gateways", "10.1.0.x"},
		},
		"address with zone": {
			good.With(conf{"gateways": []string{"fe80::1%net1"}}),
			types.ErrInvalidNetworkConfig,
			[]string{"gateways", "fe80::1%net1"},
		},
		"two of a family": {
			good.With(conf{"gateways": []string{"10.1.0.1", "10.1.0.9"}}), types.ErrInvalidNetworkConfig,
			[]string{"gateways", "10.1.0.9"},
		},
		"gateways and table": {
			good.With(conf{"gateways": []string{"10.1.0.1"}, "table": 7}),
			types.ErrInvalidNetworkConfig,
			[]string{"gateways", "10.1.0.1", "table"},
		},
		"hints and table": {
			good.With(conf{"addSourceHints": true, "table": 7}),
			types.ErrInvalidNetworkConfig,
			[]string{"addSourceHints true", "table"},
		},
		"no prevResult": {
			conf{"type": "sbr"},
			types.ErrInvalidNetworkConfig,
			[]string{"prevResult"},
		},
		"prevResult wrong": {
			conf{"type": "sbr", "prevResult": "x"},
			types.ErrDecodingFailure,
			[]string{"prevResult"},
		},
	})
	_, err := p.Add(good.With(conf{"tabel": 7}))
	if err == nil || !strings.Contains(err.Error(), "tabel") {
		t.Errorf("unknown key: %v", err)
	}
	p.IfName = "net9"
	if _, err := p.Add(good); err == nil || !strings.Contains(err.Error(), "net9") {
		t.Errorf("absent interface: %v", err)
	}
}

// A result that does not fit the pod is refused too.
func TestBadPrevResult(t *testing.T) {
	n := plugintest.New(t, ours())
	p, _ := pod(t, n, "a", dual)
	prev := func(change func(prev conf)) conf {
		_, other := pod(t, n, "b", dual)
		change(other["prevResult"].(conf))
		return other
	}
	refused(t, p, map[string]badInput{
		"no addresses": {prev(func(p conf) {
			delete(p, "ips")
		}), types.ErrInternal, []string{"net1"}},
		"others' addresses": {prev(func(p conf) {
			p["interfaces"].([]conf)[0]["name"] = "net2"
		}), types.ErrInternal, []string{"net1"}},
		"gateway elsewhere": {prev(func(p conf) {
			p["ips"].([]conf)[1]["gateway"] = "fd77::1"
		}), types.ErrInternal, []string{"fd77::1"}},
		"gateway of the other family": {
			prev(func(p conf) {
				p["ips"].([]conf)[1]["gateway"] = "10.1.0.1"
			}), types.ErrInternal, []string{"::/0 via 10.1.0.1"},
		},
	})
}

// badInput is a configuration that is refused.
type badInput struct {
	conf conf
	code uint
	says []string
}

// refused fails unless an ADD of the pod refuses each, and changes nothing.
func refused(t *testing.T, p *plugintest.Pod, inputs map[string]badInput) {
	t.Helper()
	before := p.Snapshot()
	for name, c := range inputs {
		_, err := p.Add(c.conf)
		if plugintest.Code(err) != c.code {
			t.Errorf("%s: code %d, want %d: %v", name, plugintest.Code(err), c.code, err)
		}
		for _, text := range c.says {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %q in it", name, err, text)
			}
		}
		if now := p.Snapshot(); now != before {
			t.Fatalf("%s:\n%s", name, now)
		}
	}
}
