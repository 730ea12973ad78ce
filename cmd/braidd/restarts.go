package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/braid-cni/braid/pkg/agent/cri"
	"github.com/braid-cni/braid/pkg/install/defaultnet"
)

const (
	// crio is the name of CRI-O's program.
	crio = "crio"
	// aboutRuntime is what warnings about the runtime are called.
	aboutRuntime = "runtime"
)

// restarts is what decides whether a restart of the runtime costs pods their network. CRI-O, when
// it starts, has the networks of its directory removed from all sandboxes, but for the first one.
type restarts struct {
	mu      sync.Mutex
	runtime string   // the name of its program; empty until it is known
	others  []string // the files of its directory whose pods lose their network
}

// restarting notes what is known now, and warns of it.
func (a *daemon) restarting(note func(*restarts)) {
	a.restarts.mu.Lock()
	defer a.restarts.mu.Unlock()
	note(&a.restarts)
	if a.restarts.runtime != crio || len(a.restarts.others) == 0 {
		a.warn(aboutRuntime)
		return
	}
	a.warn(aboutRuntime, fmt.Sprintf("when CRI-O starts, it takes the network from the pods that %s "+
		"of %s made; set cni.moveDefaultNetwork, and move other meta plugins' files out of there",
		strings.Join(a.restarts.others, ", "), a.place.Conf))
}

// warn has the node's report say what is worth a word of the operator's, and logs it once. Without
// texts it takes back what was said.
func (a *daemon) warn(about string, texts ...string) {
	if !a.health.Warn(about, texts...) {
		return
	}
	for _, text := range texts {
		a.log.Warn("the operator is wanted", "about", about, "warning", text)
	}
}

// otherNetworks returns the names of the files beside Braid's configuration by which pods may have
// been made. A stop-gap counts for none.
func otherNetworks(dir, configuration string) (names []string) {
	files, err := defaultnet.List(dir)
	if err != nil || configuration == "" {
		return nil
	}
	for _, f := range files {
		if f.Path != configuration && (f.Not == "" || f.Meta) {
			names = append(names, filepath.Base(f.Path))
		}
	}
	return names
}

// namedRuntime is the node's runtime, and notes the name of the program.
type namedRuntime struct {
	*cri.Runtime
	named func(program string)
}

// Sandboxes implements reconcile.Runtime.
func (n namedRuntime) Sandboxes(ctx context.Context) (*cri.List, error) {
	list, err := n.Runtime.Sandboxes(ctx)
	if err == nil {
		n.named(list.Runtime)
	}
	return list, err
}
