package block

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/attachment"
)

// eachFile is a file of each kind, with a value for each field.
func eachFile() []file {
	at := time.Unix(1234, 5678)
	b := new(Manager).newLocal("default", netip.MustParsePrefix("fd00::10/124"), owned)
	b.UID, b.Claim, b.Idle, b.Looked = "2f3a", "c1a1", at, []string{"team-x1", "team.r2"}
	by := Holder{attachment.ID{Network: "net", ContainerID: "c", IfName: "net1"}, "uid", "default/pod"}
	b.Used = map[netip.Addr]Holder{
		netip.MustParseAddr("fd00::11"): by,
		netip.MustParseAddr("fd00::12"): {attachment.ID{
			Network: "net", ContainerID: "c2", IfName: "net1",
		}, "", ""},
	}
	b.Freed = map[netip.Addr]time.Time{
		netip.MustParseAddr("fd00::13"): at, netip.MustParseAddr("fd00::14"): time.Unix(-1, 0),
	}
	return []file{
		b,
		&held{
			Holder: by, Got: []netip.Addr{netip.MustParseAddr("fd00::11"), netip.MustParseAddr("10.0.0.1")},
			Local:  []heldAddr{{"default", netip.MustParseAddr("fd00::11")}},
			Shared: []heldAddr{{"team-x1", netip.MustParseAddr("10.0.0.1")}},
		},
		&fullRange{at},
		&nodeState{
			identity{"boot", "n0", "uid", 3, at, []string{"n1", "n2"}},
			upkeep{at, at.Add(1), at.Add(2), at.Add(3), "n1", at.Add(4), 7},
		},
	}
}

// empty is a file of the same kind, without anything.
func empty(f file) file {
	if b, ok := f.(*local); ok {
		return &local{Used: map[netip.Addr]Holder{}, Freed: map[netip.Addr]time.Time{}, prefix: b.prefix}
	}
	return reflect.New(reflect.TypeOf(f).Elem()).Interface().(file)
}

func TestLines(t *testing.T) {
	for _, f := range eachFile() {
		value := reflect.ValueOf(f).Elem()
		for _, field := range reflect.VisibleFields(value.Type()) {
			if field.IsExported() && value.FieldByIndex(field.Index).IsZero() {
				t.Errorf("%T: %s has no value", f, field.Name)
			}
		}
		text, err := encode(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := empty(f); decode(text, got) != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("%s: %+v, want %+v", text, got, f)
		}
		for cut := range text {
			if decode(text[:cut], empty(f)) == nil {
				t.Errorf("%T cut off after %d bytes: taken", f, cut)
			}
		}
		for name, bad := range map[string]string{
			"a key":         "x" + string(text),
			"a time":        "idle 1h\n" + string(text),
			"an address":    "used fd00::1g\n" + string(text),
			"a holder":      "holder net c net1 uid\n" + string(text),
			"an empty line": strings.Replace(string(text), "\n", "\n\n", 1),
			"what follows":  string(text) + "end",
		} {
			if decode([]byte(bad), empty(f)) == nil {
				t.Errorf("%T, %s: taken: %s", f, name, bad)
			}
		}
	}
	b := eachFile()[0].(*local)
	b.Space = "a\nstate lost"
	if text, err := encode(b); err == nil {
		t.Errorf("a line end: %s", text)
	}
	if text, err := encode(&held{Holder: Holder{ID: attachment.ID{Network: "a b"}}}); err == nil {
		t.Errorf("a space: %s", text)
	}
}

// What can be read is written the same.
func FuzzLines(f *testing.F) {
	for i, kind := range eachFile() {
		text, err := encode(kind)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, text)
	}
	f.Fuzz(func(t *testing.T, kind int, data []byte) {
		if kind < 0 || kind >= len(eachFile()) || len(data) > 0 && data[0] == '{' {
			return
		}
		one := empty(eachFile()[kind])
		if decode(data, one) != nil {
			return
		}
		text, err := encode(one)
		if err != nil {
			t.Fatal(err)
		}
		again := empty(one)
		if err := decode(text, again); err != nil || !reflect.DeepEqual(again, one) {
			t.Errorf("%v: %+v, was %+v", err, again, one)
		}
	})
}

// PROTOCOL.md names each state of a block.
func TestProtocolNamesStates(t *testing.T) {
	page, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []state{owned, claiming, dormant, giving, mended, lost} {
		if !strings.Contains(string(page), string(s)) {
			t.Errorf("it does not name %q", s)
		}
	}
}
