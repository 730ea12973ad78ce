package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

// firstWithGC is the first version of CNI that has GC.
const firstWithGC = "1.1.0"

// GC removes everything that belongs to no sandbox of the runtime's list (CNI 1.1 "GC"). First it
// removes the recorded sandboxes that are not on the list. Then the plugins' own GC removes what
// each network holds beyond the attachments of those that are. It goes on past errors and joins
// them. Without a list it removes nothing, which is an error if there is a record.
func (e *Engine) GC(ctx context.Context, req *Request) error {
	start := time.Now()
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	defer e.tend(ctx)
	err := e.gc(ctx, req, start)
	e.operationDone(ctx, GC, start, err, "valid", len(req.Call.ValidAttachments))
	return err
}

// gc goes from what is certain to what has to be deduced: recorded sandboxes, cached ones, those
// that are unfinished, and then what networks hold beyond the attachments of the rest.
func (e *Engine) gc(ctx context.Context, req *Request, start time.Time) error {
	ids, err := e.Records.List()
	if err != nil {
		return err
	}
	if req.Call.ValidAttachments == nil {
		if len(ids) == 0 {
			return nil // CRI-O sends none when it starts without pods
		}
		return errNoList()
	}
	live, err := e.collectForgotten(ctx, req, ids, start)
	networks, nerr := e.Records.Networks()
	errs := []error{err, e.collectCached(ctx, req, live, networks)}
	e.resume(ctx, req, false)
	held, err := e.held(ctx, live)
	errs = append(errs, err, nerr, e.collectDefault(ctx, req, held),
		e.collectNetworks(ctx, req, networks, held, start))
	return errors.Join(errs...)
}

// errNoList is the error of a GC whose list of valid attachments is missing.
func errNoList() error {
	return &failure.Error{
		Reason: failure.InvalidConfig, Field: "cni.dev/valid-attachments",
		Err: errors.New("the runtime sent no list of valid attachments"),
		Fix: "an empty list is allowed; a missing one is not taken for it",
	}
}

// collectForgotten removes the recorded sandboxes that the runtime's list does not have. It returns
// the interfaces of the default network of those that are left, by container ID.
func (e *Engine) collectForgotten(
	ctx context.Context, req *Request, ids []string, start time.Time,
) (live map[string]string, err error) {
	live = map[string]string{}
	for _, a := range req.Call.ValidAttachments {
		live[a.ContainerID] = a.IfName
	}
	var errs []error
	for _, id := range ids {
		if _, ok := live[id]; ok {
			continue
		}
		later, err := e.collect(ctx, req, id, start)
		if later != "" {
			live[id] = later
		}
		errs = append(errs, err)
	}
	return live, errors.Join(errs...)
}

// collectNetworks runs the GC of networks, and forgets those that nothing is left of.
func (e *Engine) collectNetworks(
	ctx context.Context, req *Request, networks []record.Network, held *holdings, start time.Time,
) error {
	var clean []record.Network
	var errs []error
	for _, n := range networks {
		err := e.collectNetwork(ctx, req, n, held)
		if err == nil && held.complete && n.Name != held.defaultName { // whose STATUS is asked for
			clean = append(clean, n)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, e.forget(clean, start))...)
}

// collect removes a sandbox that the runtime does not know. If its ADD began after the runtime made
// its list, it is kept, and collect returns the interface of its default network.
func (e *Engine) collect(
	ctx context.Context, req *Request, id string, start time.Time,
) (later string, err error) {
	ctx, cancel := share(ctx)
	defer cancel()
	if err := record.ValidateContainerID(id); err != nil {
		return "", err
	}
	sandbox, err := e.lock(ctx, id)
	if err != nil {
		return "", err
	}
	defer e.unlock(sandbox)
	rec, err := sandbox.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil && addedSince(rec, start) {
		return rec.Attachments[0].IfName, nil
	}
	if errors.Is(err, record.ErrLater) && sandbox.Gone() { // the rest is that one's
		return "", nil
	}
	w := &work{e, ofSandbox(req, id), sandbox, rec}
	if err := w.repair(ctx, err); err != nil {
		return "", err
	}
	err = w.teardownOther(ctx)
	if len(w.rec.Owed()) > 0 {
		err = errors.Join(err, w.ofPod(w.settle(ctx)))
	}
	return "", err
}

// addedSince reports whether the sandbox has attachments of an ADD that began after start.
func addedSince(rec *record.Record, start time.Time) bool {
	return rec.Created.After(start) && len(rec.Attachments) > len(rec.Owed())
}

// collectCached removes what libcni's cache has of sandboxes that have no record and are not live.
// The directory may be shared with others, so only networks that pods of this node had are Braid's.
func (e *Engine) collectCached(
	ctx context.Context, req *Request, live map[string]string, networks []record.Network,
) error {
	entries, err := e.cacheEntries(req)
	errs := []error{err}
	seen := map[string]bool{}
	for _, entry := range entries {
		id := entry.ContainerID
		if _, ok := live[id]; ok || seen[id] || record.ValidateContainerID(id) != nil {
			continue
		}
		if !slices.ContainsFunc(networks, func(n record.Network) bool {
			return cacheName(n.Network, id, entry.IfName) == entry.NetworkName
		}) {
			continue
		}
		seen[id] = true
		errs = append(errs, e.collectLost(ctx, req, id))
	}
	return errors.Join(errs...)
}

// collectLost removes a sandbox without a record, by what libcni's cache has of it.
func (e *Engine) collectLost(ctx context.Context, req *Request, id string) error {
	sandbox, err := e.lock(ctx, id)
	if err != nil {
		return err
	}
	defer e.unlock(sandbox)
	if _, err = sandbox.Load(); !errors.Is(err, fs.ErrNotExist) {
		return nil //nolint:nilerr // it was looked after, or has come since
	}
	w := &work{Engine: e, req: ofSandbox(req, id), sandbox: sandbox}
	if err := w.reconstruct(ctx, err); err != nil {
		return err
	}
	return w.teardownOther(ctx)
}

// ofSandbox returns the request for a sandbox by what Braid has recorded of it, where the runtime
// named another, or none.
func ofSandbox(req *Request, id string) *Request {
	other := *req
	other.ContainerID = id
	other.NetNS, other.IfName, other.Args, other.places = "", "", nil, record.Places{}
	return &other
}

// teardownOther removes a sandbox that the runtime did not ask about, and names its pod in the
// error.
func (w *work) teardownOther(ctx context.Context) error { return w.ofPod(w.teardown(ctx)) }

// ofPod names the sandbox's pod in an error.
func (w *work) ofPod(err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", podName(w.rec.Pod.Namespace, w.rec.Pod.Name, w.req.ContainerID), err)
	}
	return nil
}

// holdings are the attachments of the live sandboxes, by CNI network name.
type holdings struct {
	networks map[string]map[types.GCAttachment]bool
	// byDefault are the runtime's own attachments, by which the default network knows them.
	byDefault map[types.GCAttachment]bool
	// complete is true if every live sandbox's attachments are known.
	complete bool
	// defaultName is the name of the default network.
	defaultName string
}

// held expands the runtime's list to all interfaces that were made in each sandbox. A live sandbox
// without a readable record may hold anything, unless it was removed: CRI-O lists those until the
// kubelet has it forget them. What the default network holds is on the list itself.
func (e *Engine) held(ctx context.Context, live map[string]string) (*holdings, error) {
	h := &holdings{
		networks: map[string]map[types.GCAttachment]bool{}, byDefault: map[types.GCAttachment]bool{},
		complete: true,
	}
	var errs []error
	for id, ifname := range live {
		h.byDefault[types.GCAttachment{ContainerID: id, IfName: ifname}] = true
		rec, err := e.peek(ctx, id)
		if err != nil {
			h.complete = false
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		h.add(id, rec.Attachments)
	}
	return h, errors.Join(errs...)
}

// add adds the attachments of a live sandbox, but for those that its DEL left.
func (h *holdings) add(id string, attachments []record.Attachment) {
	for _, a := range attachments {
		if a.State == record.Owed {
			continue
		}
		if h.networks[a.Network] == nil {
			h.networks[a.Network] = map[types.GCAttachment]bool{}
		}
		h.networks[a.Network][types.GCAttachment{ContainerID: id, IfName: a.IfName}] = true
	}
}

// peek reads a record under its lock. That of a sandbox that was removed is empty.
func (e *Engine) peek(ctx context.Context, id string) (*record.Record, error) {
	sandbox, err := e.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer e.unlock(sandbox)
	rec, err := sandbox.Load()
	if errors.Is(err, fs.ErrNotExist) && sandbox.Gone() {
		return &record.Record{}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := sandbox.RememberAgain(rec); err != nil {
		e.Log.WarnContext(ctx, "networks of a sandbox are not remembered", "container", id, "error", err)
	}
	return rec, nil
}

// collectDefault runs the GC of the default network as it is configured now, which may never have
// been used since boot.
func (e *Engine) collectDefault(ctx context.Context, req *Request, held *holdings) error {
	network, err := e.resolver().Default(ctx, req.Call)
	if err != nil {
		return fmt.Errorf("find the default network: %w", err)
	}
	held.defaultName = network.Name
	for a := range held.networks[network.Network] {
		held.byDefault[a] = true
	}
	return e.collectChain(ctx, req, network, held.byDefault)
}

// collectNetwork runs the GC of a network's plugins. It does nothing while the attachments of some
// live sandbox are unknown: an address is never taken for free because a record cannot be read.
func (e *Engine) collectNetwork(
	ctx context.Context, req *Request, n record.Network, held *holdings,
) error {
	if !held.complete {
		e.Log.WarnContext(ctx, "GC of network skipped: there are live sandboxes without a record",
			"network", n.Name)
		return nil
	}
	used := *req
	used.places.Path, used.places.DataRoots = n.Path, n.DataRoots
	a := &plan.Attachment{Name: n.Name, Network: n.Network, Conf: n.Conf, InProcess: n.InProcess}
	valid := held.networks[n.Network]
	if n.Namespace != "" { // who chose the name, which others may use who are not recorded
		a.Limits = &attachment.Limits{Namespace: n.Namespace}
		valid = maps.Clone(held.byDefault)
		maps.Copy(valid, held.networks[n.Network])
	}
	return e.collectChain(ctx, &used, a, valid)
}

// forget forgets networks whose GC left nothing and that no sandbox has. One that a pod got since
// start stays.
func (e *Engine) forget(clean []record.Network, start time.Time) error {
	used, err := e.Records.InUse()
	if err != nil {
		return nil //nolint:nilerr // what cannot be read may be of any network; GC has said so
	}
	var errs []error
	for _, n := range clean {
		if !used[[2]string{n.Name, n.Network}] {
			errs = append(errs, e.trace("forget network "+n.Name, func() error {
				return e.Records.Forget(n, start)
			}))
		}
	}
	return errors.Join(errs...)
}

// collectChain runs the GC of a chain. Plugins that are built in have one whatever the chain's
// version of CNI, which libcni would only ask for from 1.1.0 on. libcni is kept from its cache: it
// would DEL what it finds there by paths that may be another sandbox's by now.
func (e *Engine) collectChain(
	ctx context.Context, req *Request, a *plan.Attachment, valid map[types.GCAttachment]bool,
) error {
	list, err := netconf.Libcni(a.Conf)
	if err != nil {
		return chainError(err, a)
	}
	exec := e.NewExec(nil)
	defer exec.Close()
	own := homes{exec, e.path(req), a.InProcess}
	newEnough, err := version.GreaterThanOrEqualTo(list.CNIVersion, firstWithGC)
	if err != nil || !newEnough {
		list.CNIVersion = firstWithGC
		list.Plugins = slices.DeleteFunc(list.Plugins, func(p *libcni.PluginConfig) bool {
			return !own.builtin(p)
		})
	}
	known, made := asMade(exec, list, list.Name, a, req.places.DataRoots)
	cni := libcni.NewCNIConfigWithCacheDir(e.path(req), filepath.Join(e.Node.CNIDir, "none"), made)
	err = e.trace("GC "+a.Name, func() error {
		return cni.GCNetworkList(ctx, known, &libcni.GCArgs{ValidAttachments: gcAttachments(valid)})
	})
	var errs []error
	for _, err := range each(err) {
		errs = append(errs, chainError(err, a))
	}
	return errors.Join(errs...)
}

// each returns the errors that libcni joined: it goes on past those of single plugins.
func each(err error) []error {
	//nolint:errorlint // only the outermost error is meant
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
