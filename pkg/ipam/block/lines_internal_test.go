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

// A block that has a value for each field.
func eachField() *local {
	at := time.Unix(1234, 5678)
	b := new(Manager).newLocal("default", netip.MustParsePrefix("fd00::10/124"), owned)
	b.UID, b.Claim, b.Idle, b.Looked = "2f3a", "c1a1", at, []string{"team-x1", "team.r2"}
	b.Used = map[netip.Addr]Holder{
		netip.MustParseAddr("fd00::11"): {
			attachment.ID{Network: "net", ContainerID: "c", IfName: "net1"},
			"uid", "default/pod",
		},
		netip.MustParseAddr("fd00::12"): {attachment.ID{
			Network: "net", ContainerID: "c2", IfName: "net1",
		}, "", ""},
	}
	b.Freed = map[netip.Addr]time.Time{
		netip.MustParseAddr("fd00::13"): at, netip.MustParseAddr("fd00::14"): time.Unix(-1, 0),
	}
	return b
}

func TestLines(t *testing.T) {
	b := eachField()
	for _, field := range reflect.VisibleFields(reflect.TypeFor[local]()) {
		if field.IsExported() && reflect.ValueOf(*b).FieldByIndex(field.Index).IsZero() {
			t.Errorf("%s has no value", field.Name)
		}
	}
	text, err := b.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	got := &local{prefix: b.prefix}
	if err := got.UnmarshalText(text); err != nil || !reflect.DeepEqual(got, b) {
		t.Errorf("%v: %+v, want %+v", err, got, b)
	}
	for cut := range text {
		if got := new(local); got.UnmarshalText(text[:cut]) == nil {
			t.Errorf("cut off after %d bytes: taken", cut)
		}
	}
	for name, bad := range map[string]string{
		"a key":         strings.Replace(string(text), "uid ", "uuid ", 1),
		"a holder":      strings.Replace(string(text), " net1 uid", " net1", 1),
		"an address":    strings.Replace(string(text), "fd00::11", "fd00::1g", 1),
		"a time":        strings.Replace(string(text), "idle ", "idle 1h", 1),
		"an empty line": strings.Replace(string(text), "\n", "\n\n", 1),
		"what follows":  string(text) + "end",
	} {
		if got := new(local); got.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%s: taken: %s", name, bad)
		}
	}
	for _, space := range []string{"a b", "a\nstate lost", "a\u2028"} {
		b.Space = space
		if text, err := b.MarshalText(); err == nil {
			t.Errorf("%q: %s", space, text)
		}
	}
}

// What can be read is written the same.
func FuzzLines(f *testing.F) {
	text, err := eachField().MarshalText()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		b := new(local)
		if b.UnmarshalText(data) != nil {
			return
		}
		text, err := b.MarshalText()
		if err != nil {
			return // white space that only people see
		}
		again := new(local)
		if err := again.UnmarshalText(text); err != nil || !reflect.DeepEqual(again, b) {
			t.Errorf("%v: %+v, was %+v", err, again, b)
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
