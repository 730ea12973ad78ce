package install_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/install"
	"github.com/braid-cni/braid/pkg/install/defaultnet"
	"github.com/braid-cni/braid/pkg/install/own"
	"github.com/braid-cni/braid/pkg/install/platform"
)

// A node with flannel gets Braid before it.
func ExampleInstaller() {
	root, err := os.MkdirTemp("", "node")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)
	place := platform.Place{
		Conf: root + "/etc/cni/net.d", Bin: root + "/opt/cni/bin", Private: root + "/etc/cni/braid.d",
	}
	if err := os.MkdirAll(place.Conf, 0o755); err != nil {
		panic(err)
	}
	err = os.WriteFile(filepath.Join(place.Conf, "10-flannel.conflist"), []byte(flannel), 0o600)
	if err != nil {
		panic(err)
	}

	installer := &install.Installer{
		Store: &own.Store{Dir: root + "/var/lib/braid", Self: "agent-1"},
		Place: place,
		Binaries: []*own.File{
			own.Bytes(place.Bin+"/braid", 0o755, install.KindBinary, []byte("a program")),
		},
		Render: func(network *defaultnet.Candidate) ([]byte, error) {
			c := conf.Defaults()
			c.ClusterNetwork = network.Path
			return conf.Render(c)
		},
	}
	if err := installer.Store.Claim(context.Background()); err != nil {
		panic(err)
	}
	out, err := installer.Apply(context.Background())
	fmt.Println(out.Network.Name, len(out.Changed), filepath.Base(out.Configuration), err)
	// Output: cbr0 2 00-braid.conflist <nil>
}
