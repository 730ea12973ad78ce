package selection

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
)

func TestS9BothForms(t *testing.T) {
	both := []Selection{{Namespace: "pods", Name: "net-a"}, {Namespace: "other", Name: "net-b"}}
	want(t, "net-a,other/net-b", both...)
	want(t, `[{"name":"net-a"},{"name":"net-b","namespace":"other"}]`, both...)
	want(t, "\n\t[\n  {\"name\": \"net-a\"},\r\n  {\"name\": \"net-b\", \"namespace\": \"other\"}\n]\n", both...)
	for _, nothing := range []string{"", " ", "\n\t \r\n", "[]", " [ ] "} {
		if got := good(t, nothing); got != nil {
			t.Errorf("Parse(%q) = %+v, want nil", nothing, got)
		}
	}
	bad(t, `{"name":"net-a"}`, "networks", "wrap it in a list", `name\":\"net-a`)
	for text, say := range map[string]string{
		`[{"name":"a"}`:                                     "line 1 column 13: unexpected end of JSON input",
		"[\n {\"name\": \"a\"},\n]":                         "line 3 column 1: ",
		"[{\"name\":\"a\"}] trailing":                       "line 1 column 16: ",
		"[\n{\"name\":\"a\"} # the first\n]":                `line 2 column 14: a "#" comment, and JSON has no comments`,
		"[{\"name\":\"a\"} // the first\n]":                 `line 1 column 15: a "//" comment, and JSON has no comments`,
		"[{\"name\":\"\xff\"}]":                             "line 1 column 11: byte 0xff is not UTF-8",
		strings.Repeat("[", 100) + strings.Repeat("]", 100): "nested more than",
	} {
		e, err := Parse(text, "pods")
		if err == nil {
			t.Errorf("Parse(%q) = %+v, want an error", text, e)
		} else if !strings.Contains(err.Error(), say) {
			t.Errorf("Parse(%q): %q does not contain %q", text, err, say)
		}
	}
	bad(t, `["a"]`, "networks[0]", `\"a\"`, "is a string, not an object")
	bad(t, `[{"name":"a"},null]`, "networks[1]", "is null, not an object")
}

func TestS10ShortForm(t *testing.T) {
	want(t, "a", Selection{Namespace: "pods", Name: "a"})
	want(t, "ns/a", Selection{Namespace: "ns", Name: "a"})
	want(t, "a@eth1", Selection{Namespace: "pods", Name: "a", Interface: "eth1"})
	want(t, " ns/a.b@eth1 ,\n\tc ", Selection{Namespace: "ns", Name: "a.b", Interface: "eth1"}, Selection{Namespace: "pods", Name: "c"})
	for text, say := range map[string]string{
		",":          "an empty element",
		"x, ,":       "",
		"x,/a":       `"/a": namespace ""`,
		"x,ns/":      `"ns/": name ""`,
		"x,ns/a/b":   `"ns/a/b": name "a/b"`,
		"x,a@":       `"a@": interface "" is empty`,
		"x,a@b\x8bc": `interface "b\x8bc"`,
		"x,a@b c":    `interface "b c" contains ' '`,
		"x,Net":      `name "Net"`,
		"x,a b":      `name "a b"`,
		"x,a_b":      `name "a_b"`,
		"x,-a":       `name "-a"`,
		"x,a..b":     `name "a..b"`,
		"x,a.b/c":    `namespace "a.b"`,
		"x,../a":     `namespace ".."`,
		"x,a\x00b":   `name "a\x00b"`,
		"x,a\x1b[2J": `a\x1b[2J`,
		"x,\"a\"":    `name "\"a\""`,
	} {
		field := "networks[1]"
		if text == "," {
			field = "networks[0]"
		}
		bad(t, text, field, say, "[namespace/]name[@interface]")
	}
}

func TestS11Name(t *testing.T) {
	want(t, `[{"name":"a","namespace":""}]`, Selection{Namespace: "pods", Name: "a"})
	want(t, `[{"name":"a.b-c.9","namespace":null}]`, Selection{Namespace: "pods", Name: "a.b-c.9"})
	long := strings.Repeat("a", 253)
	want(t, `[{"name":"`+long+`"}]`, Selection{Namespace: "pods", Name: long})
	for _, keys := range []string{`{}`, `{"name":""}`, `{"name":null}`, `{"namespace":"ns"}`} {
		bad(t, `[{"name":"a"},`+keys+`]`, "networks[1].name", "the name is missing")
	}
	bad(t, `[{"name":"`+long+`a"}]`, "networks[0].name", "at most 253 bytes", "...")
	bad(t, `[{"name":7}]`, "networks[0].name", `"7" is a number, not a string`)
	bad(t, `[{"name":"../etc"}]`, "networks[0].name", `"../etc"`)
	bad(t, `[{"Name":"a"}]`, "networks[0].Name", "write name")
	badOne(t, `"namespace":"`+strings.Repeat("n", 64)+`"`, "namespace", "at most 63 bytes")
	badOne(t, `"namespace":"a/b"`, "namespace", `"a/b"`)
	badOne(t, `"namespace":["a"]`, "namespace", "is a list, not a string")
}

func TestS12ReservedKeys(t *testing.T) {
	want(t, `[{"name":"a","org.example.key":{"any":[1]},"x.y":null}]`, Selection{Namespace: "pods", Name: "a"})
	badOne(t, `"vlan":5`, "vlan", `unknown key "vlan"`, "use one of name, namespace, ips")
	badOne(t, `"IPs":["10.0.0.1"]`, "IPs", "write ips")
	badOne(t, `"":1`, `""`, `unknown key ""`)
	badOne(t, `"a\nb":1`, `"a\nb"`, `unknown key "a\nb"`)
	badOne(t, `"mac":"02:00:00:00:00:01","mac":"02:00:00:00:00:02"`, "mac", "twice", "line 1 column ")
	badOne(t, `"cni-args":{"a":{"b":1,"b":2}}`, "cni-args.a.b", "twice")
}

func TestS24SameNetworkTwice(t *testing.T) {
	a := Selection{Namespace: "pods", Name: "net-a"}
	want(t, "net-a,net-a,pods/net-a", a, a, a)
	want(t, `[{"name":"net-a"},{"name":"net-a"}]`, a, a)
}

func TestU9Annotation(t *testing.T) {
	gke := []Selection{{Namespace: "default", Name: "gke-network-1"}, {Namespace: "default", Name: "gke-network-2"}}
	want(t, "default/gke-network-1,default/gke-network-2", gke...)
	want(t, "default/gke-network-1, default/gke-network-1", gke[0], gke[0])
	want(t, "gke-network-1", Selection{Namespace: "pods", Name: "gke-network-1"})
	want(t, `[{"name":"gke-network-1","namespace":"default"},{"namespace":"default","name":"gke-network-2"}]`, gke...)
}

// The bounds of "Bad input": ten megabytes, too many elements, and values that would fill a log or drive a terminal.
func TestBounds(t *testing.T) {
	bad(t, strings.Repeat("a", 10<<20), "networks", "10485760 bytes", "262144")
	names := make([]string, MaxNetworks)
	for i := range names {
		names[i] = fmt.Sprintf("net-%d", i)
	}
	if got := good(t, strings.Join(names, ",")); len(got) != MaxNetworks {
		t.Errorf("%d selections, want %d", len(got), MaxNetworks)
	}
	bad(t, strings.Join(append(names, "more"), ","), "networks", "65 networks", "at most 64")
	bad(t, "["+strings.Repeat(`{"name":"a"},`, MaxNetworks)+`{"name":"a"}]`, "networks", "65 networks")
	bad(t, strings.Repeat(",", MaxSize-1), "networks")

	evil := strings.Repeat("\\u001b]0;evil\\u0007\\u202e", 5000)
	for _, key := range []string{"mac", "namespace", "interface", "infiniband-guid", "ipam-claim-reference", "x" + evil} {
		e := bad(t, `[{"name":"a","`+key+`":"`+evil+`"}]`, badField(t, key, evil))
		if len(e.Error()) > 1000 {
			t.Errorf("%s: the error has %d bytes", key, len(e.Error()))
		}
		if i := strings.IndexFunc(e.Error(), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%s: %q in the error", key, e.Error()[i:])
		}
	}
}

// badField finds out the field where the key itself is hostile.
func badField(t *testing.T, key, value string) string {
	t.Helper()
	_, err := Parse(`[{"name":"a","`+key+`":"`+value+`"}]`, "pods")
	if err == nil {
		t.Fatalf("key %.20q is accepted", key)
	}
	if strings.HasPrefix(key, "x") {
		return bareField(err)
	}
	return "networks[0]." + key
}
