package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

// GC removes everything that belongs to no sandbox of the runtime's list (CNI 1.1 "GC"): first the recorded sandboxes that are
// not on it, then, through the plugins' own GC, what each network holds beyond the attachments of those that are. It goes on
// past errors and joins them.
func (e *Engine) GC(ctx context.Context, req *Request) error {
	start := time.Now()
	ctx, cancel := bounded(ctx, req.Config)
	defer cancel()
	err := e.gc(ctx, req, start)
	e.logDone(ctx, "GC", start, err, "valid", len(req.Config.ValidAttachments))
	return err
}

func (e *Engine) gc(ctx context.Context, req *Request, start time.Time) error {
	if req.Config.ValidAttachments == nil {
		return &failure.Error{
			Reason: failure.InvalidConfig, Field: "cni.dev/valid-attachments", Err: errors.New("the runtime sent no list of valid attachments"),
			Fix: "an empty list is allowed; a missing one is not taken for it",
		}
	}
	ids, err := e.Records.List()
	if err != nil {
		return err
	}
	live := map[string]string{}
	for _, a := range req.Config.ValidAttachments {
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
	e.resume(ctx, req)
	held, err := e.held(ctx, live)
	networks, nerr := e.Records.Networks()
	errs = append(errs, err, nerr, e.collectDefault(ctx, req, held))
	for _, n := range networks {
		errs = append(errs, e.collectNetwork(ctx, req, n, held))
	}
	return errors.Join(errs...)
}

// collect removes a sandbox that the runtime does not know, unless its ADD began after the runtime made its list: then it gives
// the interface of the default network, which the runtime would have named.
func (e *Engine) collect(ctx context.Context, req *Request, id string, start time.Time) (later string, err error) {
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
	if err == nil && rec.Created.After(start) && len(rec.Attachments) > 0 {
		return rec.Attachments[0].IfName, nil
	}
	if err != nil {
		if rec, err = e.reconstruct(ctx, ofSandbox(req, id, ""), sandbox, err); err != nil {
			return "", err
		}
	}
	return "", e.teardownOther(ctx, req, sandbox, rec, id)
}

// ofSandbox is the request for a sandbox by what Braid knows of it, where the runtime named another, or none.
func ofSandbox(req *Request, id, netns string) *Request {
	other := *req
	other.ContainerID, other.NetNS, other.IfName, other.Args = id, netns, "", nil
	return &other
}

// teardownOther removes a sandbox that the runtime did not ask about, and names its pod in the error.
func (e *Engine) teardownOther(ctx context.Context, req *Request, sandbox *sandbox, rec *record.Record, id string) error {
	if err := e.teardown(ctx, ofSandbox(req, id, rec.NetNS), sandbox, rec); err != nil {
		return fmt.Errorf("%s: %w", podName(rec.Pod.Namespace, rec.Pod.Name, id), err)
	}
	return nil
}

// holdings are the attachments of the live sandboxes, by CNI network name.
type holdings struct {
	networks map[string]map[types.GCAttachment]bool
	// byDefault are the runtime's own attachments, by which the default network knows them.
	byDefault map[types.GCAttachment]bool
	// complete says that every live sandbox's attachments are known.
	complete bool
}

// held expands the runtime's list to all interfaces that were made in each sandbox. A live sandbox without a readable record may
// hold anything; of the default network the runtime itself says what it holds.
func (e *Engine) held(ctx context.Context, live map[string]string) (*holdings, error) {
	h := &holdings{networks: map[string]map[types.GCAttachment]bool{}, byDefault: map[types.GCAttachment]bool{}, complete: true}
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
		for _, a := range rec.Attachments {
			if h.networks[a.Network] == nil {
				h.networks[a.Network] = map[types.GCAttachment]bool{}
			}
			h.networks[a.Network][types.GCAttachment{ContainerID: id, IfName: a.IfName}] = true
		}
	}
	return h, errors.Join(errs...)
}

// peek reads a record under its lock.
func (e *Engine) peek(ctx context.Context, id string) (*record.Record, error) {
	sandbox, err := e.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer e.unlock(sandbox)
	return sandbox.Load()
}

// collectDefault runs the GC of the default network as it is configured now, which may never have been used since boot.
func (e *Engine) collectDefault(ctx context.Context, req *Request, held *holdings) error {
	network, err := e.defaultNetwork(ctx, req)
	if err != nil {
		return fmt.Errorf("find the default network: %w", err)
	}
	for a := range held.networks[network.Network] {
		held.byDefault[a] = true
	}
	return e.collectChain(ctx, req, network, held.byDefault)
}

// collectNetwork runs the GC of a network's plugins. While it is not known what some live sandbox holds it does nothing: an
// address is never presumed free because its record cannot be read.
func (e *Engine) collectNetwork(ctx context.Context, req *Request, n record.Network, held *holdings) error {
	if !held.complete {
		e.Log.WarnContext(ctx, "GC of network skipped: there are live sandboxes without a record", "network", n.Name)
		return nil
	}
	return e.collectChain(ctx, req, &plan.Attachment{Name: n.Name, Network: n.Network, Conf: n.Conf}, held.networks[n.Network])
}

func (e *Engine) collectChain(ctx context.Context, req *Request, a *plan.Attachment, valid map[types.GCAttachment]bool) error {
	list, err := conf.ToLibcni(a.Conf)
	if err != nil {
		return chainError(err, a)
	}
	exec := e.NewExec(nil)
	defer exec.Close()
	cni := e.chains(req, lossless(exec, list))
	err = e.trace("GC "+a.Name, func() error {
		return cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: gcAttachments(valid)})
	})
	var errs []error
	for _, err := range each(err) {
		errs = append(errs, chainError(err, a))
	}
	return errors.Join(errs...)
}

// each gives the errors that libcni joined: it goes on past those of single plugins.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // the outermost is meant
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
