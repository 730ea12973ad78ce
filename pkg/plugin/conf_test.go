package plugin_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
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

// wrongConfigurations are those that no plugin can read, with what the error says.
var wrongConfigurations = map[string]struct {
	conf conf
	code uint
	says []string
}{
	"number for string": {
		conf{"master": 5},
		types.ErrInvalidNetworkConfig,
		[]string{"field master 5", "number", "string"},
	},
	"string for number": {
		conf{"mtu": "big"},
		types.ErrInvalidNetworkConfig,
		[]string{"field mtu", "big"},
	},
	"fraction": {
		conf{"mtu": 1.5},
		types.ErrInvalidNetworkConfig,
		[]string{"field mtu 1.5"},
	},
	"too large": {
		conf{"mtu": json.Number("99999999999999999999")},
		types.ErrInvalidNetworkConfig,
		[]string{"mtu 99999999999999999999"},
	},
	"value of a map": {
		conf{"words": conf{"a": 5}},
		types.ErrInvalidNetworkConfig,
		[]string{"field words", "a", "5"},
	},
	"list for map": {
		conf{"words": []int{}},
		types.ErrInvalidNetworkConfig,
		[]string{"field words []"},
	},
	"in a list": {
		conf{"things": []conf{{"id": 1}, {"id": "x"}}},
		types.ErrInvalidNetworkConfig,
		[]string{`field things[1].id "x": is a JSON string, want whole number`},
	},
	"object for list": {
		conf{"things": conf{}},
		types.ErrInvalidNetworkConfig,
		[]string{`field things {}: is a JSON object, want list`},
	},
	"list for object": {
		conf{"things": []any{conf{}, []int{}}},
		types.ErrInvalidNetworkConfig,
		[]string{`field things[1] []: is a JSON array, want object`},
	},
	"in another case": {
		conf{"MTU": "x"},
		types.ErrInvalidNetworkConfig,
		[]string{`field mtu "x": is a JSON string`},
	},
	"common key": {
		conf{"dns": conf{"nameservers": 5}},
		types.ErrInvalidNetworkConfig,
		[]string{"field dns.nameservers 5"},
	},
	"name": {
		conf{"name": 5},
		types.ErrInvalidNetworkConfig,
		[]string{"field name 5"},
	},
	"prevResult of no kind": {
		conf{"prevResult": 5},
		types.ErrDecodingFailure,
		[]string{"prevResult"},
	},
	"prevResult of the wrong": {
		conf{"prevResult": conf{"cniVersion": "0.2.0"}},
		types.ErrDecodingFailure,
		[]string{"prevResult", "0.2.0"},
	},
}

// What a configuration cannot have is an error that names the key, with its path, and the value.
func TestWrongConfigurations(t *testing.T) {
	p := node(t, nil).Pod("a")
	for name, c := range wrongConfigurations {
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

// prepared is a configuration that the plugin can read.
func prepared(t *testing.T, p *plugin.Plugin, text string) *invoke.Prepared {
	t.Helper()
	session := plugin.NewSession(plugin.HostNS)
	defer session.Close()
	prepared, err := session.Bind(p).Prepare([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return prepared
}

// Prepare names the keys that the plugin does not have, by their paths, and leaves the values to
// it.
func TestR32UnknownKeys(t *testing.T) {
	probed := plugin.New(probe(nil))
	for text, unknown := range map[string][]string{
		`{"cniVersion":"1.1.0","name":"n","type":"probe","master":"x","words":{"any":"x"},` +
			`"args":{"a":5},"runtimeConfig":{"b":5}}`: nil,
		`{"capabilities":{"mac":true},"ipam":{"type":"x","y":5},"dns":{},"prevResult":{"x":5},` +
			`"cni.dev/valid-attachments":[]}`: nil,
		// of a list, or Braid's own
		`{"deviceID":"x","pciBusID":"x","cniVersions":["1.0.0"],"disableCheck":true}`: nil,
		`{"first":5,"second":6,"mtu":7}`: {
			"first",
			"second",
		},
		`{"things":[{"id":5,"label":6},{"x.y":1}],` +
			`"\u001b":1}`: {"things[0].label", "things[1].x.y", `"\x1b"`},
		`{"dns":{"servers":[]},"words":null}`: {"dns.servers"},
	} {
		if p := prepared(t, probed, text); !slices.Equal(p.Unknown, unknown) || p.Refused != nil {
			t.Errorf("%s: unknown %q, refused %v, want unknown %q", text, p.Unknown, p.Refused, unknown)
		}
	}
	ipam := plugin.NewIPAM(probe(nil))
	for text, unknown := range map[string][]string{
		`{"unknown":5,"ipam":{"type":"probe","mtu":5,"name":"n"}}`: nil,
		`{"ipam":{"type":"probe","unknown":5}}`:                    {"ipam.unknown"},
	} {
		if p := prepared(t, ipam, text); !slices.Equal(p.Unknown, unknown) {
			t.Errorf("IPAM plugin, %s: unknown %q, want %q", text, p.Unknown, unknown)
		}
	}
}

// A key that is most likely meant for another is refused.
func TestR32Slips(t *testing.T) {
	probed, ipam := plugin.New(probe(nil)), plugin.NewIPAM(probe(nil))
	for text, words := range map[string][]string{
		`{"masters":"x"}`:        {"field masters", "write master"},
		`{"mut":5}`:              {"field mut", "write mtu"},
		`{"word":{}}`:            {"field word", "write words"},
		`{"things":[{"ids":5}]}`: {"field things[0].ids", "write id"},
		`{"mtu":5,"mtu":6}`:      {"field mtu", "twice", "keep one"},
		`{"mtu":5,"MTU":6}`: {
			"field MTU", `"mtu" and "MTU" differ by case alone`,
			"keep one",
		},
		`{"things":[{"ID":5,"id":5}]}`:            {"field things[0].id", "by case alone"},
		`{"runtimeconfig":{},"Runtimeconfig":{}}`: {"by case alone"},
	} {
		p := prepared(t, probed, text)
		for _, word := range words {
			if p.Refused == nil || failure.ReasonOf(p.Refused) != failure.NADInvalid ||
				!strings.Contains(p.Refused.Error(), word) {
				t.Errorf("%s: refused %v, want %q in it", text, p.Refused, word)
			}
		}
	}
	p := prepared(t, ipam, `{"ipam":{"type":"probe","mut":5}}`)
	if p.Refused == nil || !strings.Contains(p.Refused.Error(), "field ipam.mut") {
		t.Errorf("IPAM plugin: refused %v", p.Refused)
	}
}

// Keys match whatever their case, as in the reference.
func TestR34KeysMatchWithoutCase(t *testing.T) {
	for text, want := range map[string][]invoke.Recased{
		`{"cniVersion":"1.1.0","Name":"n","TYPE":"probe","MTU":7,"Things":[{"ID":1}]}`: {
			{Path: "MTU", Key: "mtu"},
			{Path: "Name", Key: "name"},
			{Path: "TYPE", Key: "type"},
			{Path: "Things", Key: "things"},
			{Path: "Things[0].ID", Key: "id"},
		},
		`{"cniVersion":"1.1.0","name":"n","type":"probe","mtu":7,"things":[{"id":1}]}`: nil,
	} {
		p := plugin.New(probe(func(_ context.Context, _ string, req *plugin.Request,
			c *probeConf,
		) (*types100.Result, error) {
			if req.Network != "n" || c.MTU != 7 || len(c.Things) != 1 || *c.Things[0].ID != 1 {
				t.Errorf("%s: configuration %+v", text, c)
			}
			return nil, nil
		}))
		got := prepared(t, p, text).Recased
		slices.SortFunc(got, func(a, b invoke.Recased) int { return strings.Compare(a.Path, b.Path) })
		if !slices.Equal(got, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
		if _, err := runWith(t, t.Context(), &fakeExec{}, p, text, "CNI_COMMAND=CHECK"); err != nil {
			t.Error(err)
		}
	}
	ipam := plugin.NewIPAM(probe(nil))
	p := prepared(t, ipam, `{"IPAM":{"Type":"probe","Name":"n"}}`)
	if len(p.Recased) != 2 || len(p.Unknown) != 0 {
		t.Errorf("IPAM plugin: %+v", p)
	}
}
