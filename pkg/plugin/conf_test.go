package plugin_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

func TestConfError(t *testing.T) {
	for want, err := range map[string]error{
		`field mtu -1: is bad`:               plugin.ConfError("mtu", -1, "is bad"),
		`field ipam: is bad`:                 plugin.ConfError("ipam", nil, "is bad"),
		`field mode "x\ny": is bad`:          plugin.ConfError("mode", "x\ny", "is bad"),
		`field list "[\"a\",\"b\"]": is bad`: plugin.ConfError("list", []string{"a", "b"}, "is bad"),
		`field promisc true: is bad`:         plugin.ConfError("promisc", true, "is bad"),
	} {
		if plugintest.Code(err) != types.ErrInvalidNetworkConfig || err.Error() != want {
			t.Errorf("code %d, %s, want %s", plugintest.Code(err), err, want)
		}
	}
	if err := plugin.ConfError("long", strings.Repeat("x", 5000), "is bad"); len(err.Error()) > 500 {
		t.Errorf("%d bytes", len(err.Error()))
	}
}

// What a configuration cannot have is an error that names the key, with its path, and the value.
func TestWrongConfigurations(t *testing.T) {
	p := node(t, nil).Pod("a")
	for name, c := range map[string]struct {
		conf conf
		code uint
		says []string
	}{
		"number for string":       {conf{"master": 5}, types.ErrInvalidNetworkConfig, []string{"field master 5", "number", "string"}},
		"string for number":       {conf{"mtu": "big"}, types.ErrInvalidNetworkConfig, []string{"field mtu", "big"}},
		"fraction":                {conf{"mtu": 1.5}, types.ErrInvalidNetworkConfig, []string{"field mtu 1.5"}},
		"too large":               {conf{"mtu": json.Number("99999999999999999999")}, types.ErrInvalidNetworkConfig, []string{"mtu 99999999999999999999"}},
		"value of a map":          {conf{"words": conf{"a": 5}}, types.ErrInvalidNetworkConfig, []string{"field words", "a", "5"}},
		"list for map":            {conf{"words": []int{}}, types.ErrInvalidNetworkConfig, []string{"field words []"}},
		"in a list":               {conf{"things": []conf{{"id": "x"}}}, types.ErrInvalidNetworkConfig, []string{"things", "id"}},
		"common key":              {conf{"dns": conf{"nameservers": 5}}, types.ErrInvalidNetworkConfig, []string{"field dns.nameservers 5"}},
		"name":                    {conf{"name": 5}, types.ErrInvalidNetworkConfig, []string{"field name 5"}},
		"prevResult of no kind":   {conf{"prevResult": 5}, types.ErrDecodingFailure, []string{"prevResult"}},
		"prevResult of the wrong": {conf{"prevResult": conf{"cniVersion": "0.2.0"}}, types.ErrDecodingFailure, []string{"prevResult", "0.2.0"}},
	} {
		_, err := p.Call("ADD", conf{"type": "probe"}.With(c.conf))
		if plugintest.Code(err) != c.code {
			t.Errorf("%s: code %d, want %d: %v", name, plugintest.Code(err), c.code, err)
		}
		for _, text := range c.says {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %q in it", name, err, text)
			}
		}
	}
}

// Prepare names the keys that the plugin does not have, by their paths, and leaves what else is wrong to the operation.
func TestUnknownKeys(t *testing.T) {
	session := plugin.NewSession(plugin.HostNS, nil)
	defer session.Close()
	for text, unknown := range map[string][]string{
		`{"cniVersion":"1.1.0","name":"n","type":"probe","master":"x","words":{"any":"x"},"args":{"a":5},"runtimeConfig":{"b":5}}`: nil,
		`{"capabilities":{"mac":true},"ipam":{"type":"x","y":5},"dns":{},"prevResult":{"x":5},"cni.dev/valid-attachments":[]}`:     nil,
		`{"Master":"x"}`:                 {"Master"},
		`{"a":5,"b":6,"mtu":7}`:          {`"a"`, `"b"`},
		`{"things":[{"id":5,"name":6}]}`: {"things[0].name"},
		`{"mtu":"wrong"}`:                nil,
		`{`:                              nil,
	} {
		err := unknownKeys(session.Bind(plugin.New(probe(nil))), text)
		if (err == nil) != (unknown == nil) {
			t.Errorf("%s: %v", text, err)
		}
		for _, key := range unknown {
			if err != nil && !strings.Contains(err.Error(), key) {
				t.Errorf("%s: %v, want %s in it", text, err, key)
			}
		}
	}
	ipam := session.Bind(plugin.NewIPAM(probe(nil)))
	for text, knows := range map[string]bool{
		`{"unknown":5,"ipam":{"type":"probe","mtu":5}}`: true, `{"ipam":{"type":"probe","unknown":5}}`: false, `{}`: true, `{"ipam":null}`: true,
	} {
		if err := unknownKeys(ipam, text); (err == nil) != knows {
			t.Errorf("IPAM plugin, %s: %v", text, err)
		}
	}
}

// unknownKeys is what a plugin does not know of a configuration; nil also where it cannot be read.
func unknownKeys(p *plugin.Bound, text string) error {
	prepared, err := p.Prepare([]byte(text))
	if err != nil {
		return nil
	}
	return prepared.Unknown
}
