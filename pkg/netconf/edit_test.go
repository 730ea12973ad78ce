package netconf

import (
	"encoding/json"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/internal/checktest"
)

// S18, "cni-args become args.cni; the pod's win".
func TestS18PodArgsWin(t *testing.T) {
	list := mustParse(t, `{"plugins":[{"type":"a"},{"type":"b","args":{"cni":{"mine":1,`+
		`"both":"nad"},"other":true}},{"type":"c","args":{"cni":null}},{"type":"d","args":null}]}`)
	args := map[string]json.RawMessage{
		"both": json.RawMessage(`"pod"`), "n": json.RawMessage(`12345678901234567890`),
	}
	if err := list.MergeCNIArgs(args); err != nil {
		t.Fatalf("MergeCNIArgs: %v", err)
	}
	const pod = `{"cni":{"both":"pod","n":12345678901234567890}}`
	equal(t, list.Bytes(), `{"plugins":[{"type":"a","args":`+pod+`},
		{"type":"b","args":{"cni":{"mine":1,"both":"pod","n":12345678901234567890},"other":true}},
		{"type":"c","args":`+pod+`},{"type":"d","args":`+pod+`}]}`)

	for value, say := range map[string]string{`"x"`: "is a string", `{"cni":[]}`: `"cni" is a list`} {
		raw := `{"plugins":[{"type":"a"},{"type":"b","args":` + value + `}]}`
		list := mustParse(t, raw)
		e := checktest.Refused(t, list.MergeCNIArgs(args), failure.NADInvalid, "plugins[1].args", say)
		checktest.Same(t, "Plugin", e.Plugin, "b")
		equal(t, list.Bytes(), raw) // unchanged
	}
	raw := `{"plugins":[{"type":"a"}]}`
	list = mustParse(t, raw)
	if err := list.MergeCNIArgs(nil); err != nil {
		t.Errorf("MergeCNIArgs(nil): %v", err)
	}
	equal(t, list.Bytes(), raw)
	checktest.Refused(t, list.MergeCNIArgs(map[string]json.RawMessage{"a": json.RawMessage(`{`)}),
		failure.NADInvalid, "plugins[0].args", "no JSON")
}

func TestSetAll(t *testing.T) {
	list := mustParse(t, `{"plugins":[{"type":"a","deviceID":"old"},{"type":"b"}]}`)
	list.SetAll("deviceID", json.RawMessage(`"0000:03:02.0"`))
	equal(t, list.Bytes(), `{"plugins":[{"type":"a","deviceID":"0000:03:02.0"},{"type":"b",`+
		`"deviceID":"0000:03:02.0"}]}`)
}

func TestPluginIsACopy(t *testing.T) {
	const raw = `{"plugins":[{"type":"a","mode":"l2"}]}`
	list := mustParse(t, raw)
	plugin := list.Plugin(0)
	copy(plugin["mode"], `"XX"`)
	plugin["type"] = json.RawMessage(`"/evil"`)
	equal(t, list.Bytes(), raw)
}

func TestLibcni(t *testing.T) {
	list := mustParse(t, `{"name":"n","cniVersion":"0.4.0","cniVersions":["1.0.0"],`+
		`"disableCheck":"True","disableGC":true,"plugins":[{"type":"a","ipam":{"type":"b"},`+
		`"capabilities":{"ips":true}},{"type":"c"}]}`)
	got, err := Libcni(list.Bytes())
	if err != nil {
		t.Fatalf("Libcni: %v", err)
	}
	checktest.Same(t, "Name", got.Name, "n")
	checktest.Same(t, "CNIVersion", got.CNIVersion, "1.0.0")
	checktest.Same(t, "switches", [3]bool{got.DisableCheck, got.DisableGC, got.LoadOnlyInlinedPlugins},
		[3]bool{true, true, true})
	checktest.Same(t, "Bytes", string(got.Bytes), string(list.Bytes()))
	checktest.Same(t, "plugins", len(got.Plugins), 2)
	equal(t, got.Plugins[0].Bytes, `{"type":"a","ipam":{"type":"b"},"capabilities":{"ips":true}}`)
	checktest.Same(t, "type", got.Plugins[1].Network.Type, "c")
	checktest.Same(t, "capabilities", got.Plugins[0].Network.Capabilities,
		map[string]bool{"ips": true})

	for _, raw := range []string{`{"type":"a","name":"n"}`, `{"type":"a","cniVersion":"1.0.0"}`} {
		_, err := Libcni(json.RawMessage(raw))
		checktest.Refused(t, err, failure.NADInvalid, "name", "no name or no cniVersion")
	}
	_, err = Libcni(json.RawMessage(`{"name":"n","cniVersion":"1.0.0","type":"../a"}`))
	checktest.Refused(t, err, failure.NADInvalid, "plugins[0].type")
}
