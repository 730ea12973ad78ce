// Package attack_test attacks Braid as those do who .github/SECURITY.md names: tenants, pods, local
// users, delegates, and nodes that were broken into.
//
// Each attack runs twice. Against a build in which the mechanism that is to stop it can be switched
// off (tag "weaken", see pkg/weaken), it has to reach its aim: else it would show nothing. Against
// the build that is released it must not, in the same environment.
//
// What the tests find in their environment:
//
//	BRAID_BINARY    braid as it is released; braidctl, braidd and braid-client are beside it
//	BRAID_WEAKENED  the directory of those that can be weakened
//	BRAID_PLUGINS   the reference plugins
//	BRAID_LAB_BIN   etcd and kube-apiserver
package attack_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/nettest"
)

var cluster = lab.NewShared(lab.NewAPI)

func TestMain(m *testing.M) {
	if spawns() {
		os.Exit(spawn())
	}
	if err := nettest.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "isolate the tests:", err)
		os.Exit(1)
	}
	os.Exit(cluster.Main(m))
}
