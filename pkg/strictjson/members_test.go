package strictjson

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Members has every member with its value as it is written, as encoding/json finds them.
func TestMembers(t *testing.T) {
	for _, text := range []string{
		`{}`, ` { } `, `{"a":1}`, "\t{ \"a\" : 1 ,\r\n\"b\":-2.5e3 }\n", `{"a":1,"a":2,"A":null}`,
		`{"a":{"b":[1,{"c":"},]"}],"d":{}},"e":[]}`,
		`{"\u0061\"\\":"x\"y\\","":true,"b":[ [ ] , { } ] , "c" : false}`, `{"a":"\\\\","b":","}`,
		`[1]`, `"{}"`, `null`, ``, `5`,
	} {
		var want []Member
		dec := json.NewDecoder(strings.NewReader(text))
		if token, err := dec.Token(); err == nil && token == json.Delim('{') {
			for dec.More() {
				key, err := dec.Token()
				if err != nil {
					t.Fatal(err)
				}
				m := Member{Key: key.(string)}
				if err := dec.Decode(&m.Value); err != nil {
					t.Fatal(err)
				}
				want = append(want, m)
			}
		}
		if diff := cmp.Diff(want, Members(json.RawMessage(text))); diff != "" {
			t.Errorf("%s: -want +got\n%s", text, diff)
		}
	}
}
