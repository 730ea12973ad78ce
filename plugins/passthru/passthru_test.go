package passthru_test

import (
	"encoding/json"
	"testing"

	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/passthru"
)

func run(t *testing.T, command, stdin string) ([]byte, error) {
	t.Helper()
	session := plugin.NewSession(plugin.HostNS)
	defer session.Close()
	return plugintest.Run(t.Context(), session.Bind(plugin.New(passthru.Plugin{})),
		&invoke.Call{Environ: []string{"CNI_COMMAND=" + command}, Stdin: []byte(stdin)})
}

func TestAddGivesAnEmptyResult(t *testing.T) {
	for _, version := range []string{"0.3.0", "0.4.0", "1.0.0", "1.1.0"} {
		out, err := run(t, "ADD", `{"cniVersion":"`+version+`","name":"n","type":"passthru"}`)
		if err != nil {
			t.Fatal(err)
		}
		var result map[string]any
		if err := json.Unmarshal(out, &result); err != nil {
			t.Fatalf("%s: %v: %s", version, err, out)
		}
		if result["cniVersion"] != version || result["interfaces"] != nil || result["ips"] != nil {
			t.Errorf("%s: %s", version, out)
		}
	}
}

func TestOtherCommandsDoNothing(t *testing.T) {
	for _, command := range []string{"DEL", "CHECK", "GC", "STATUS"} {
		out, err := run(t, command, `{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[]}`)
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %q, %v", command, out, err)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	for _, stdin := range []string{
		"", "{", `{"cniVersion":"7.0.0"}`, `{"cniVersion":"1.1.0","other":1}`,
	} {
		if out, err := run(t, "ADD", stdin); err == nil {
			t.Errorf("%q: no error, but %s", stdin, out)
		}
	}
}

// DEL needs none of the keys: nothing is made.
func TestDelWithoutEachKey(t *testing.T) {
	n := plugintest.New(t, plugintest.Plugins{"passthru": plugin.New(passthru.Plugin{})})
	c := plugintest.Conf{
		"type": "passthru", "ipam": plugintest.Conf{"type": "none"},
		"dns": plugintest.Conf{"domain": "x"},
	}
	plugintest.WithoutEachKey[passthru.Conf](t, "", []plugintest.Conf{c},
		func(t *testing.T, key string, with, without plugintest.Conf) {
			p := n.Pod("a")
			if _, err := p.Add(with); err != nil {
				t.Fatal(err)
			}
			p.Prev = nil
			if err := p.Del(without); err != nil {
				t.Errorf("without %s: %v", key, err)
			}
		})
}
