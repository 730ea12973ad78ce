package engine

import (
	"fmt"
	"testing"
)

// TestLists: a configuration is parsed once as long as it is among the last ones; a wrong one is an
// error each time.
func TestLists(t *testing.T) {
	var l lists
	conf := func(i int) []byte {
		return fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "n%d", "plugins": [{"type": "macvlan"}]}`, i)
	}
	first, err := l.of(conf(0))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := l.of(conf(0)); err != nil || again != first {
		t.Errorf("the same text is parsed again: %v", err)
	}
	for i := range maxLists {
		if other, err := l.of(conf(i + 1)); err != nil || other.Name != fmt.Sprint("n", i+1) {
			t.Fatalf("%v, %v", other, err)
		}
	}
	if l.known.Len() != maxLists {
		t.Errorf("%d are remembered", l.known.Len())
	}
	if again, err := l.of(conf(0)); err != nil || again == first || again.Name != "n0" {
		t.Errorf("%v, %v, of one that was forgotten", again, err)
	}
	for range 2 {
		if _, err := l.of([]byte(`{"plugins": []}`)); err == nil {
			t.Error("no plugins are no error")
		}
	}
}
