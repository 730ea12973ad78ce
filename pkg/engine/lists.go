package engine

import (
	"encoding/json"
	"sync"

	"github.com/containernetworking/cni/libcni"
	"k8s.io/utils/lru"

	"github.com/braid-cni/braid/pkg/netconf"
)

// maxLists is how many configurations an engine remembers: those of the networks that a node's pods
// have, as a rule.
const maxLists = 64

// lists remembers configurations in libcni's form, by their text. Its zero value is ready; it is
// safe for concurrent use.
type lists struct {
	once  sync.Once
	known *lru.Cache // of string: *libcni.NetworkConfigList
}

// of returns a configuration in libcni's form. The caller does not change it.
func (l *lists) of(raw json.RawMessage) (*libcni.NetworkConfigList, error) {
	l.once.Do(func() { l.known = lru.New(maxLists) })
	if known, ok := l.known.Get(string(raw)); ok {
		return known.(*libcni.NetworkConfigList), nil //nolint:errcheck,forcetypeassert // no other is
	}
	list, err := netconf.Libcni(raw)
	if err == nil {
		l.known.Add(string(raw), list)
	}
	return list, err
}
