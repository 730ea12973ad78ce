package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	cniinvoke "github.com/containernetworking/cni/pkg/invoke"

	"github.com/braid-cni/braid/pkg/cnicache"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
)

// This file holds what becomes of a sandbox that another configuration made: Multus's, or that of
// the default network alone, before Braid's file came before theirs.
//
// CNI wants CHECK and DEL to have the configuration of the ADD, which libcni keeps in its cache.
// CRI-O takes it from there. containerd does not: it calls the configuration that it has now, and
// that is Braid's. So Braid looks into the cache in containerd's place, and runs what made the
// sandbox.

// maker is a configuration that made an interface of a sandbox, as the runtime's libcni cached it.
type maker struct {
	list *libcni.NetworkConfigList
	rt   *libcni.RuntimeConf
}

// kinds returns the types of the chain's plugins and of their IPAM.
func (m *maker) kinds() (kinds []string) {
	for _, p := range m.list.Plugins {
		kinds = append(kinds, p.Network.Type)
		if p.Network.IPAM.Type != "" {
			kinds = append(kinds, p.Network.IPAM.Type)
		}
	}
	return kinds
}

// makersOf returns the configurations that made the runtime's interface of a sandbox without a
// record of Braid's. There is none if Braid itself made it, or if nobody did.
func (e *Engine) makersOf(ctx context.Context, req *Request) (makers []*maker, err error) {
	if req.IfName == "" {
		return nil, nil
	}
	entries, err := e.runtimeEntries(req.ContainerID)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		m, err := readMaker(req, &entry)
		switch {
		case err != nil:
			e.Log.WarnContext(ctx, "the runtime's cache has an entry that cannot be used",
				"network", entry.NetworkName, "container", req.ContainerID, "error", err)
		case isBraid(m.list):
			return nil, nil
		case entry.IfName == req.IfName:
			makers = append(makers, m)
		}
	}
	return makers, nil
}

// runtimeEntries returns the entries of the runtime's cache that are of one container.
func (e *Engine) runtimeEntries(containerID string) ([]cnicache.Entry, error) {
	if e.RuntimeCache == "" {
		return nil, nil
	}
	entries, err := cnicache.Read(e.RuntimeCache, func(name string) bool {
		return strings.Contains(name, "-"+containerID+"-")
	})
	if err != nil {
		return nil, &failure.Error{
			Reason: failure.StateFailed, Err: fmt.Errorf("read the runtime's cache: %w", err),
		}
	}
	return slices.DeleteFunc(entries, func(entry cnicache.Entry) bool {
		return entry.ContainerID != containerID
	}), nil
}

// readMaker returns an error if an entry is none that a maker can be called with. Of what the
// runtime may leave out, such as CNI_ARGS, the request's takes the place.
func readMaker(req *Request, entry *cnicache.Entry) (*maker, error) {
	list, err := libcni.NetworkConfFromBytes(entry.Config)
	if err != nil {
		return nil, err
	}
	if list.Name != entry.NetworkName || len(list.Plugins) == 0 {
		return nil, errors.New("its configuration is not that of its network")
	}
	m := &maker{
		list: list, rt: &libcni.RuntimeConf{
			ContainerID: req.ContainerID, NetNS: req.NetNS, IfName: entry.IfName, Args: entry.CNIArgs,
		},
	}
	if m.rt.Args == nil {
		m.rt.Args = req.Args
	}
	if len(entry.CapabilityArgs) > 0 {
		err = json.Unmarshal(entry.CapabilityArgs, &m.rt.CapabilityArgs)
	}
	return m, err
}

// isBraid reports whether a configuration is one of Braid's.
func isBraid(list *libcni.NetworkConfigList) bool {
	return slices.ContainsFunc(list.Plugins, func(p *libcni.PluginConfig) bool {
		return netconf.IsBraid(p.Network.Type)
	})
}

// handOver has those who made a sandbox do an operation on it, and reports whether there were any.
// The sandbox stays locked meanwhile. A maker that calls Braid in turn is refused by it.
func (w *work) handOver(ctx context.Context, verb Verb) (handed bool, err error) {
	makers, err := w.makersOf(ctx, w.req)
	if err != nil || len(makers) == 0 {
		return false, err
	}
	paths := w.path(w.req)
	for _, m := range makers {
		w.sandbox.exec.Force(binaries(m.kinds(), paths))
		for _, p := range m.list.Plugins {
			if _, err := w.sandbox.exec.FindInPath(p.Network.Type, paths); err != nil && verb == Del {
				w.Log.WarnContext(ctx, "what made a sandbox is not on this node any more; its networks are "+
					"removed as Braid would have made them",
					"container", w.req.ContainerID, "network", m.list.Name, "error", err)
				w.sandbox.exec.Force(w.Node.Exec)
				return false, nil
			}
		}
	}
	var errs []error
	for _, m := range makers {
		w.sandbox.exec.Force(binaries(m.kinds(), paths))
		errs = append(errs, w.runMaker(ctx, verb, m, paths, w.sandbox.exec))
	}
	return true, errors.Join(errs...)
}

// runMaker runs CHECK or DEL of a maker's plugins with the runtime's own cache, from which libcni
// takes prevResult.
func (e *Engine) runMaker(
	ctx context.Context, verb Verb, m *maker, paths []string, exec cniinvoke.Exec,
) error {
	cni := libcni.NewCNIConfigWithCacheDir(paths, e.RuntimeCache, exec)
	err := e.trace(string(verb)+" by "+m.list.Name, func() error {
		if verb == Check {
			return cni.CheckNetworkList(ctx, m.list, m.rt)
		}
		return cni.DelNetworkList(ctx, m.list, m.rt)
	})
	switch {
	case verb == Check && errors.Is(err, libcni.ErrorCheckNotSupp):
		return nil
	case err != nil:
		return &failure.Error{
			Reason: failure.PluginFailed, NAD: m.list.Name, Plugin: m.list.Plugins[0].Network.Type,
			Interface: m.rt.IfName, Err: err,
			Fix: "it made the sandbox, before Braid came, and has to stay on the node with its files " +
				"until its pods are gone",
		}
	}
	e.Log.InfoContext(ctx, string(verb)+" of a sandbox that another configuration made",
		"container", m.rt.ContainerID, "network", m.list.Name, "interface", m.rt.IfName)
	return nil
}

// binaries returns those types that are in the paths: what was made by a binary is removed by it,
// also if the type is built in.
func binaries(kinds, paths []string) (found []string) {
	for _, kind := range kinds {
		if _, err := cniinvoke.FindInPath(kind, paths); err == nil {
			found = append(found, kind)
		}
	}
	return found
}

// forgetInRuntime removes Braid's entries of a sandbox from the runtime's cache, where the runtime
// has another configuration by now and looks for that one's.
func (e *Engine) forgetInRuntime(containerID string) error {
	entries, err := e.runtimeEntries(containerID)
	errs := []error{err}
	for _, entry := range entries {
		list, err := libcni.NetworkConfFromBytes(entry.Config)
		if err != nil || !isBraid(list) {
			continue
		}
		path := filepath.Join(cnicache.Results(e.RuntimeCache),
			entry.NetworkName+"-"+entry.ContainerID+"-"+entry.IfName)
		if err := e.trace("remove runtime's cache", func() error {
			return os.Remove(path)
		}); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, cacheFailed(err))
		}
	}
	return errors.Join(errs...)
}
