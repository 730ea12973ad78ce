package strictjson

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, good := range []string{
		"{}", " [1e999, \"#\", \"//\", {\"a\": {\"a\": 1}}, {\"a\": 1}] ", "null", `"\ud800"`,
		`{"a":1,"A":2}`,
		strings.Repeat("[", MaxDepth) + "1" + strings.Repeat("]", MaxDepth),
	} {
		if err := Check([]byte(good)); err != nil {
			t.Errorf("Check(%.80q): %v", good, err)
		}
	}
	for text, want := range map[string]Error{
		"": {
			1, 1, "", "unexpected end of JSON input",
			"the text is cut off: complete it, or close what is open",
		},
		"{\n  # c": {
			2, 3, "", `a "#" comment, and JSON has no comments`,
			"remove the comment",
		},
		"{\n\n\t/* c */}": {
			3, 2, "", `a "/*" comment, and JSON has no comments`,
			"remove the comment",
		},
		"[1 / 2]": {
			1, 4, "", "invalid character '/' after array element",
			"correct the JSON at this place",
		},
		"[\"äöü\" x]": {
			1, 8, "", "invalid character 'x' after array element",
			"correct the JSON at this place",
		},
		"{\"a\":[1,\n]}": {
			2, 1, "", "a comma before ']', and JSON has none there",
			"remove the comma",
		},
		"{\"a\":1 , }": {
			1, 10, "", "a comma before '}', and JSON has none there",
			"remove the comma",
		},
		"{'a':1}": {
			1, 2, "",
			"invalid character '\\'' looking for beginning of object key string",
			"put keys and texts between double quotes",
		},
		"{\"a\":1 \"b\":2}": {
			1, 8, "", "invalid character '\"' after object key:value pair",
			"put a comma, or after a key a colon, before it",
		},
		"[\"a\",\n\"\xc3(\"]": {2, 2, "", "byte 0xc3 is not UTF-8", "store the text as UTF-8"},
		"{\"a\":1,\n \"a\":2}": {
			2, 2, "a", "the key appears twice in one object",
			"keep one of the two",
		},
		`{"a":[0,{"b":1,"\u0062":2}]}`: {
			1, 16, "a[1].b", "the key appears twice in one object",
			"keep one of the two",
		},
		`[{"\n":1,"\n":2}]`: {
			1, 10, `"[0].\n"`, "the key appears twice in one object",
			"keep one of the two",
		},
	} {
		err := Check([]byte(text))
		if got, ok := errors.AsType[*Error](err); !ok || *got != want {
			t.Errorf("Check(%q)\n got %+v\nwant %+v", text, err, &want)
		}
	}
	deep := strings.Repeat("[", MaxDepth+1) + "1" + strings.Repeat("]", MaxDepth+1)
	err := Check([]byte(deep))
	if err == nil || !strings.Contains(err.Error(), "nested more than 64 levels deep") {
		t.Errorf("Check of %d levels: %v", MaxDepth+1, err)
	}
}

func TestDecodeSaysWhatItGot(t *testing.T) {
	for raw, want := range map[string]string{
		`"a"`: "a string", `{}`: "an object", `[]`: "a list", `-1`: "a number", `true`: "a boolean",
		`null`: "null", ``: "null",
	} {
		if got := Kind(json.RawMessage(raw)); got != want {
			t.Errorf("Kind(%s) = %s, want %s", raw, got, want)
		}
	}
	_, err := String(json.RawMessage(`[1]`))
	if err == nil || err.Error() != "is a list, not a string" {
		t.Errorf("String([1]): %v", err)
	}
	if s, err := String(json.RawMessage(`"a\u0062"`)); err != nil || s != "ab" {
		t.Errorf("String: %q, %v", s, err)
	}
}

func TestQuoteIsBounded(t *testing.T) {
	for text, want := range map[string]string{
		"a": `"a"`, "a\x1b\n\"": `"a\x1b\n\""`, "": `""`,
		strings.Repeat("ä", 40): `"` + strings.Repeat("ä", 32) + `..."`,
	} {
		if got := Quote(text); got != want {
			t.Errorf("Quote(%q) = %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"a.b[0]": "a.b[0]", "a b": "a b", "a\n": `"a\n"`, "": `""`,
	} {
		if got := Label(text); got != want {
			t.Errorf("Label(%q) = %s, want %s", text, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a b: ä\"": "a b: ä\"", "\x1b[31mred": `\x1b[31mred`, "a\nb\xff": `a\nb\xff`,
		"\u202e": `\u202e`, "\ufffd": "\ufffd",
	} {
		if got := Printable(text); got != want {
			t.Errorf("Printable(%q) = %s, want %s", text, got, want)
		}
	}
}

// What Braid did not write as it is leaves nothing out of what is decoded.
func TestDecodeLeavesNothingOut(t *testing.T) {
	type file struct {
		A int            `json:"a"`
		B map[string]any `json:"b"`
	}
	for text, want := range map[string]string{
		`{"a":1,"b":{"c":2}} `: "", `{}`: "",
		`{"a":1,"x":2}`: `unknown field "x"`, `{"a":1}{}`: "something follows",
		`{"a":1}}`: "something follows", `{"a":1} 0`: "something follows",
		"": "EOF", `{"a":1`: "unexpected EOF", `[1]`: "cannot unmarshal array",
		`{"a":"1"}`: "cannot unmarshal string",
	} {
		err := Decode([]byte(text), new(file))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Decode(%s): %v, want %q", text, err, want)
		}
	}
}

func TestLookup(t *testing.T) {
	object := map[string]json.RawMessage{
		"": json.RawMessage("0"), "KEY": json.RawMessage("1"), "Key": json.RawMessage("2"),
		"other": json.RawMessage("3"), "OTHER": json.RawMessage("4"),
	}
	for key, want := range map[string]string{
		"key": "1", "kEY": "1", "Key": "2", "other": "3", "absent": "", "": "0",
	} {
		if got := string(Lookup(object, key)); got != want {
			t.Errorf("Lookup(%q) = %q, want %q", key, got, want)
		}
	}
	// A configuration is asked for dozens of keys that it does not have.
	if n := testing.AllocsPerRun(10, func() { Lookup(object, "absent") }); n > 0 {
		t.Errorf("looking for an absent key allocates %v times", n)
	}
}
