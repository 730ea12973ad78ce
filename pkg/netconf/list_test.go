package netconf

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/internal/checktest"
)

// S3, "spec.config is a conf or a conflist and may omit name".
func TestS3ConfOrConflist(t *testing.T) {
	conf := mustParse(t, `{"cniVersion":"0.3.1","name":"a","disableCheck":true,"type":"macvlan",`+
		`"master":"eth1","ipam":{"type":"static"}}`)
	equal(t, conf.Bytes(), `{"cniVersion":"0.3.1","name":"a","disableCheck":true,`+
		`"plugins":[{"type":"macvlan","master":"eth1","ipam":{"type":"static"}}]}`)
	checktest.Same(t, "Len", conf.Len(), 1)

	const conflist = `{"cniVersion":"1.0.0","name":"b","x.y":[1],"plugins":[{"type":"bridge"},` +
		`{"type":"tuning","name":"mine"}]}`
	list := mustParse(t, " \n"+conflist+"\n")
	equal(t, list.Bytes(), conflist)
	checktest.Same(t, "Types", list.Types(), []string{"bridge", "tuning"})
	checktest.Same(t, "Name", list.Name(), "b")
	checktest.Same(t, "CNIVersion", list.CNIVersion(), "1.0.0")

	for raw, at := range map[string]struct{ field, says string }{
		`{}`:                            {"plugins", "neither type nor plugins"},
		`{"name":"a"}`:                  {"plugins", "neither type nor plugins"},
		`{"type":"a","plugins":[]}`:     {"type", "both type and plugins"},
		`{"plugins":[]}`:                {"plugins", "the list is empty"},
		`{"plugins":{}}`:                {"plugins", "is an object, not a list"},
		`{"plugins":null}`:              {"plugins", "is null, not a list"},
		`{"plugins":["macvlan"]}`:       {"plugins[0]", `"\"macvlan\"" is a string, not an object`},
		`{"plugins":[{"type":"a"},{}]}`: {"plugins[1].type", "the type is missing"},
		`{"plugins":[{"type":null}]}`:   {"plugins[0].type", "the type is missing"},
		`{"type":7}`:                    {"plugins[0].type", `"7" is a number, not a string`},
		`[]`:                            {"", "is a list, not an object"},
		`null`:                          {"", "is null, not an object"},
		`"macvlan"`:                     {"", "is a string, not an object"},
		`{"plugins":[],"Plugins":[{"type":"a"}]}`: {"Plugins", "differ by case alone"},
		`{"type":"a","NAME":"b","name":"c"}`: {
			"NAME",
			`"NAME" and "name" differ by case alone; keep one`,
		},
		`{"type":"a","IPAM":{},"Ipam":{}}`: {"plugins[0].IPAM", "differ by case alone"},
		`{"type":"a","disableCheck":1}`:    {"disableCheck", `"1" is no boolean`},
		`{"type":"a","dns":{"search":1}}`:  {"plugins[0].dns.search", "plugin a: "},
	} {
		badList(t, raw, at.field, at.says)
	}
}

// S7, "an omitted name becomes the NAD's".
func TestS7NameMayBeMissing(t *testing.T) {
	for _, raw := range []string{
		`{"type":"a"}`, `{"name":"","type":"a"}`, `{"name":null,"plugins":[{"type":"a"}]}`,
	} {
		list := mustParse(t, raw)
		checktest.Same(t, raw, list.Name(), "")
		list.SetName("the-nad")
		checktest.Same(t, raw, mustParse(t, string(list.Bytes())).Name(), "the-nad")
	}
	for _, name := range []string{"../x", "a/b", "-a", "a b", "a\\u0000", "ä"} {
		badList(t, `{"type":"a","name":"`+name+`"}`, "name", "is no CNI network name", "letters, digits")
	}
	badList(t, `{"type":"a","name":{}}`, "name", "is an object, not a string")
}

// U8, "NADs: versions, name, comments".
func TestU8CommentRefused(t *testing.T) {
	e := badList(t, "{\n  \"type\": \"ipvlan\",\n  \"master\": \"ens224\",   # the node interface\n "+
		" \"mode\": \"l2\"\n}", "")
	checktest.Same(t, "error", e.Error(),
		`line 3 column 25: a "#" comment, and JSON has no comments; remove the comment`)
	for _, raw := range []string{
		"# first\n{\"type\":\"a\"}", "{\"type\":\"a\"} # last", "{\"type\":\"a\" /* in */ }",
		"{// slashes\n\"type\":\"a\"}", "{\"plugins\":[ #\n]}",
	} {
		badList(t, raw, "", "JSON has no comments", "line 1 column ")
	}
	// They are no comments inside strings.
	mustParse(t, `{"type":"a","note":"# // /* */"}`)

	for _, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		checktest.Same(t, version, mustParse(t, `{"type":"a","cniVersion":"`+version+`"}`).CNIVersion(),
			version)
	}
}

func TestSyntaxErrorsHaveAPlace(t *testing.T) {
	for raw, say := range map[string]string{
		"": "line 1 column 1: unexpected end of JSON input",
		"{\"type\": \"a\",\n}": "line 2 column 1: a comma before '}', and JSON has none " +
			"there; remove the comma",
		"{\n \"ä\": tru}":                   "line 2 column 10: ",
		"{\"type\": \"a\"}}":                "line 1 column 14: ",
		"{\n\"type\": \"\xc3\"}":            "line 2 column 10: byte 0xc3 is not UTF-8",
		"{\"type\":\"a\",\n\"type\":\"b\"}": "field type: line 2 column 1: the key appears twice",
		"{\"plugins\":[{\"type\":\"a\",\"ipam\":{\"type\":\"b\",\"type\":\"/c\"}}]}": "field plugins[0].ipam.type: line 1 column",
		strings.Repeat("{\"a\":", 65) + "1" +
			strings.Repeat("}", 65): "nested more than 64 levels deep",
		strings.Repeat("[", 20000):  "exceeded max depth",
		strings.Repeat("a", 10<<20): "has 10485760 bytes; keep it below 1048576 bytes",
	} {
		_, err := Parse([]byte(raw))
		if err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("Parse(%.100q): %v, want %q", raw, err, say)
		}
	}
}

// C2, "versions 0.3.0 to 1.1.0".
func TestC2Versions(t *testing.T) {
	for keys, want := range map[string]string{
		`"x":1`:                           "",
		`"cniVersion":""`:                 "",
		`"cniVersion":"0.4.0"`:            "0.4.0",
		`"cniVersions":["0.3.1","1.0.0"]`: "1.0.0",
		`"cniVersions":["1.1.0","9.0.0"]`: "1.1.0",
		`"cniVersion":"1.0.0","cniVersions":["0.3.1","0.4.0"]`: "1.0.0",
		`"cniVersion":"2.0.0","cniVersions":["0.4.0","0.3.1"]`: "0.4.0",
		`"cniVersion":"1.0.0","cniVersions":[]`:                "1.0.0",
	} {
		list := mustParse(t, `{"type":"a",`+keys+`}`)
		checktest.Same(t, keys, list.CNIVersion(), want)
		list.SetCNIVersion("0.3.0")
		checktest.Same(t, keys+" after SetCNIVersion", mustParse(t, string(list.Bytes())).CNIVersion(),
			"0.3.0")
	}
	for keys, at := range map[string]struct{ field, says string }{
		`"cniVersion":"0.2.0"`: {
			"cniVersion",
			`"0.2.0" is not supported; use one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0`,
		},
		`"cniVersion":"1.2.0"`:      {"cniVersion", `"1.2.0" is not supported`},
		`"cniVersion":"latest"`:     {"cniVersion", `"latest"`},
		`"cniVersion":1.0`:          {"cniVersion", "is a number, not a string"},
		`"cniVersions":["2.0.0"]`:   {"cniVersion", `"2.0.0" is not supported`},
		`"cniVersions":"1.0.0"`:     {"cniVersions", "is a string, not a list"},
		`"cniVersions":["1.0.0",1]`: {"cniVersions[1]", "is a number, not a string"},
	} {
		badList(t, `{"type":"a",`+keys+`}`, at.field, at.says)
	}
}

// C10, "unknown fields are preserved".
func TestC10UnknownFieldsSurvive(t *testing.T) {
	const plugin = `{"type":"vendor","big":12345678901234567890,"exact":1.50,"tiny":-1e-400,` +
		`"html":"<&>\u2028","null":null,"Mixed":{"A":1,"a":2},"list":[[],{}],"x.y/z":true}`
	list := mustParse(t, `{"org.example":{"n":98765432109876543210},"name":"n","cniVersion":"1.0.0",`+
		`"plugins":[`+plugin+`]}`)
	raw := string(list.Bytes())
	for _, text := range []string{
		"12345678901234567890", "1.50", "-1e-400", `"<&>\u2028"`, "98765432109876543210",
	} {
		if !strings.Contains(raw, text) {
			t.Errorf("%s is not in %s", text, raw)
		}
	}
	checktest.Same(t, "number of keys", len(list.Plugin(0)), 9)
	again := mustParse(t, raw)
	checktest.Same(t, "second round", string(again.Bytes()), raw)

	libcni, err := Libcni(json.RawMessage(raw))
	if err != nil {
		t.Fatalf("Libcni: %v", err)
	}
	equal(t, libcni.Plugins[0].Bytes, plugin)
}

// C11, "capabilities".
func TestC11Capabilities(t *testing.T) {
	list := mustParse(t, `{"plugins":[{"type":"a","capabilities":{"ips":true,"mac":false,`+
		`"bandwidth":false}},{"type":"b"},{"type":"c","capabilities":{"mac":true,"ips":false}},`+
		`{"type":"d","capabilities":null}]}`)
	checktest.Same(t, "Capabilities", list.Capabilities(), map[string]bool{"ips": true, "mac": true})
	for i, want := range []bool{true, false, false, false} {
		checktest.Same(t, "PluginHas ips", list.PluginHas(i, "ips"), want)
	}
	badList(t, `{"type":"a","capabilities":["ips"]}`, "plugins[0].capabilities", "plugin a",
		"is a list, not an object")
	badList(t, `{"type":"a","capabilities":{"ips":"true"}}`, "plugins[0].capabilities.ips",
		"is a string, not a boolean")
}

// Braid and Multus would call themselves.
func TestR11MetaPlugins(t *testing.T) {
	for _, name := range []string{"braid", "multus", "multus-shim", "multus-daemon", "braidctl"} {
		for raw, field := range map[string]string{
			`{"type":"%s"}`: "plugins[0].type",
			`{"plugins":[{"type":"a"},{"type":"%s"}]}`:                                   "plugins[1].type",
			`{"type":"a","delegate":{"type":"%s"}}`:                                      "plugins[0].delegate.type",
			`{"type":"a","delegates":[{"type":"b"},{"type":"%s"}]}`:                      "plugins[0].delegates[1].type",
			`{"type":"a","delegates":[{"plugins":[{"type":"b","ipam":{"type":"%s"}}]}]}`: "plugins[0].delegates[0].plugins[0].ipam.type",
			`{"type":"a","ipam":{"type":"%s"}}`:                                          "plugins[0].ipam.type",
		} {
			badList(t, fmt.Sprintf(raw, name), field, `"`+name+`" would call itself`, "name the plugin")
		}
	}
	for _, name := range []string{"Braid", "MULTUS", "multus-x", "braids", "my-braid"} {
		mustParse(t, `{"type":"`+name+`"}`)
	}
}

// M21, "no plugin outside of the plugin path".
func TestM21TypeWithPath(t *testing.T) {
	for _, name := range []string{
		"../evil", "/bin/sh", "a/b", ".", "..", "", `a\\b`, `a\u0000b`, `a\nb`, `a\u001b[2J`, `\u202eexe`,
		strings.Repeat("a", 256),
	} {
		badList(t, `{"type":"`+name+`"}`, "plugins[0].type", "without a path")
		badList(t, `{"plugins":[{"type":"a"},{"type":"`+name+`"}]}`, "plugins[1].type")
		badList(t, `{"type":"flannel","delegate":{"type":"`+name+`"}}`, "plugins[0].delegate.type",
			"plugin flannel")
		badList(t, `{"type":"calls","delegates":[{"type":"a"},{"type":"`+name+`"}]}`,
			"plugins[0].delegates[1].type")
		badList(t, `{"type":"calls","delegates":[{"plugins":[{"type":"`+name+`"}]}]}`,
			"plugins[0].delegates[0].plugins[0].type")
		if name == "" { // an ipam without a type means none
			continue
		}
		e := badList(t, `{"type":"a","ipam":{"type":"`+name+`"}}`, "plugins[0].ipam.type",
			"is no plain file name")
		checktest.Same(t, "Plugin", e.Plugin, "a")
		badList(t, `{"type":"a","ipam":{"type":"b","ipam":{"type":"`+name+`"}}}`,
			"plugins[0].ipam.ipam.type")
		badList(t, `{"type":"a","delegate":{"ipam":{"type":"`+name+`"}}}`,
			"plugins[0].delegate.ipam.type")
	}
	// encoding/json, with which libcni and the plugins read, would let these win.
	badList(t, `{"type":"macvlan","TYPE":"../evil"}`, "TYPE", "case alone")
	badList(t, `{"TYPE":"../evil"}`, "plugins[0].type", "no plain file name")
	badList(t, `{"type":"macvlan","ipam":{"type":"static","Type":"../evil"}}`, "plugins[0].ipam.Type",
		"case alone")
	badList(t, `{"type":"macvlan","ipam":{"Type":"../evil"}}`, "plugins[0].ipam.type",
		"no plain file name")
	badList(t, `{"type":"macvlan","IPAM":{"type":"../evil"}}`, "plugins[0].ipam.type",
		"no plain file name")
	badList(t, `{"type":"flannel","Delegate":{"type":"../evil"}}`, "plugins[0].delegate.type",
		"no plain file name")
	badList(t, `{"type":"a","DELEGATES":[{"Plugins":[{"TYPE":"braid"}]}]}`,
		"plugins[0].delegates[0].plugins[0].type", "call itself")
	badList(t, `{"type":"a","delegate":{"type":"b"},"Delegate":{"type":"../evil"}}`,
		"plugins[0].Delegate", "case alone")
	badList(t, `{"type":"macvlan","ipam":"static"}`, "plugins[0].ipam", "is a string, not an object")

	list := mustParse(t, `{"plugins":[{"type":"a.b-c_d","ipam":{"type":"whereabouts"}},{"type":"b","ipam":{}},
		{"type":"c","ipam":{"type":""},"delegate":{"ipam":{"type":"static"}},"plugins":"mine"},{"type":"d","ipam":{"type":"whereabouts"}}]}`)
	checktest.Same(t, "IPAMTypes", list.IPAMTypes(), []string{"whereabouts", "static"})
}

// Keys of a list match whatever their case, as with libcni.
func TestR34KeysOfAListMatchWithoutCase(t *testing.T) {
	list := mustParse(t, `{"CNIVersion":"1.0.0","NAME":"n","Plugins":[{"Type":"a",`+
		`"Capabilities":{"ips":true},"IPAM":{"Type":"static"},"Mine":1}]}`)
	equal(t, list.Bytes(), `{"cniVersion":"1.0.0","name":"n","plugins":[{"Mine":1,`+
		`"capabilities":{"ips":true},"ipam":{"Type":"static"},"type":"a"}]}`)
	checktest.Same(t, "IPAMTypes", list.IPAMTypes(), []string{"static"})
	var fields []string
	for _, w := range list.Warnings() {
		if w.Reason != failure.MiscasedKey || w.Fix == "" {
			t.Errorf("warning %#v", w)
		}
		fields = append(fields, w.Field)
	}
	checktest.Same(t, "warnings", fields, []string{
		"CNIVersion", "NAME", "Plugins", "plugins[0].Capabilities", "plugins[0].IPAM", "plugins[0].Type",
	})
	checktest.Same(t, "warnings of what is spelled",
		len(mustParse(t, string(list.Bytes())).Warnings()), 0)
}
