package record

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/plan"
)

// TestM36LongUnused: where no GC is run, a network that nobody has used for long is forgotten when
// another one comes.
func TestM36LongUnused(t *testing.T) {
	now := time.Now()
	s := New(filepath.Join(t.TempDir(), "state"))
	s.now = func() time.Time { return now }
	attachment := func(name string) plan.Attachment {
		return plan.Attachment{Name: name, Network: name, IfName: "net1", Conf: json.RawMessage(`{}`)}
	}
	remember := func(names ...string) {
		for _, name := range names {
			for range 2 { // the second pod uses it at the time of this test's clock
				operate(t, s, "c-"+name, func(b *Sandbox) error {
					return b.Remember(attachment(name), Places{})
				})
			}
		}
	}
	known := func() string {
		networks, err := s.Networks()
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, n := range networks {
			names[n.Name] = true
		}
		return fmt.Sprint(names)
	}
	remember("held", "again", "old")
	operate(t, s, "c-held", func(b *Sandbox) error {
		return b.Save(&Record{
			Complete: true, Attachments: []Attachment{{Attachment: attachment("held"), State: Added}},
		})
	})
	now = now.Add(6 * 24 * time.Hour)
	remember("again", "new")
	now = now.Add(2 * 24 * time.Hour)
	if got := known(); got != "map[again:true held:true new:true old:true]" {
		t.Errorf("before another comes: %s", got)
	}
	remember("newer")
	if got := known(); got != "map[again:true held:true new:true newer:true]" {
		t.Errorf("networks %s", got)
	}
	if err := os.Truncate(s.path("c-held"), 1); err != nil { // it may be of any network
		t.Fatal(err)
	}
	now = now.Add(8 * 24 * time.Hour)
	remember("newest")
	if got := known(); got != "map[again:true held:true new:true newer:true newest:true]" {
		t.Errorf("networks while a record cannot be read: %s", got)
	}
}
