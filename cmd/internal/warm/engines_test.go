package warm

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/kube/manifests"
)

// TestEngines: calls with one configuration have one engine, until its kubeconfig changes; one that
// is dropped lasts as long as its calls.
func TestEngines(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(kubeconfig+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(kubeconfig+".new", kubeconfig); err != nil {
			t.Fatal(err)
		}
	}
	closed := 0
	w := &Engines{Open: func(*conf.Node) (node.Source, error) {
		m, err := manifests.New(dir)
		return closing{m, &closed}, err
	}}
	config := func(call, master string) *conf.Config {
		t.Helper()
		c, err := conf.Load(fmt.Appendf(nil, `{"cniVersion": "1.1.0", "name": %q, "type": "braid", "kubeconfig": %q, "logFile": %q,
			"delegates": [{"cniVersion": "1.0.0", "name": "pods", "type": "bridge"}], "runtimeConfig": {"call": %q},
			"braid": {"policy": [{"namespaces": ["a"], "masters": [%q]}]}}`, call, kubeconfig, filepath.Join(dir, "log"), call, master))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	get := func(c *conf.Config) (*engine.Engine, func()) {
		t.Helper()
		e, release, err := w.get(c)
		if err != nil {
			t.Fatal(err)
		}
		return e, release
	}
	write("one")
	first, releaseFirst := get(config("a", "ens1"))
	same, releaseSame := get(config("b", "ens1"))
	if same != first {
		t.Error("another call has another engine")
	}
	releaseSame()
	other, releaseOther := get(config("a", "ens2"))
	if other == first {
		t.Error("another policy has the same engine")
	}
	releaseOther()
	write("two")
	if renewed, release := get(config("a", "ens1")); renewed == first {
		t.Error("another kubeconfig has the same engine")
	} else {
		release()
	}
	w.Close()
	if closed != 2 {
		t.Errorf("%d are closed, want those that no call uses", closed)
	}
	releaseFirst()
	if closed != 3 {
		t.Errorf("%d are closed in the end", closed)
	}
	for i := range 3 * maxEngines {
		_, release := get(config("a", fmt.Sprint("ens", i)))
		release()
	}
	if len(w.ready) != maxEngines || closed != 3+2*maxEngines {
		t.Errorf("%d are kept, %d closed", len(w.ready), closed)
	}
}

// closing is a source that is closed.
type closing struct {
	node.Source
	closed *int
}

func (c closing) Close() { *c.closed++ }
