package resolve

import (
	"context"
	"errors"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
)

// lookup is the key of one look-up of a NAD.
type lookup struct {
	namespace, name string
	onDisk          bool
}

// definitions looks up all requests at the same time, and each NAD once. Of several errors it
// returns that of the first request, so that the answer is always the same.
func (r *Resolver) definitions(
	ctx context.Context, requests []plan.Request,
) ([]plan.Definition, error) {
	found := make([]plan.Definition, len(requests))
	errs := make([]error, len(requests))
	nads := map[lookup]func() (plan.Definition, error){}
	var group sync.WaitGroup
	for i, request := range requests {
		definition := sync.OnceValues(func() (plan.Definition, error) {
			return r.definition(ctx, request)
		})
		key := (lookup{request.Namespace, request.Name, request.OnDisk})
		if request.IsNAD() && nads[key] == nil {
			nads[key] = definition
		} else if request.IsNAD() {
			definition = nads[key]
		}
		group.Go(func() { found[i], errs[i] = definition() })
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, failure.AtNAD(err, requests[i].Ref)
		}
	}
	return found, nil
}

// definition finds what a network is: what the request itself has, a NAD, or a file on the node.
func (r *Resolver) definition(ctx context.Context, request plan.Request) (plan.Definition, error) {
	switch {
	case request.Inline != nil:
		return plan.Definition{Conf: request.Inline}, nil
	case request.File != "":
		return r.onDisk(nil, func() ([]byte, error) { return netconf.FromFile(request.File) })
	}
	return r.nad(ctx, request)
}

// nad finds the NAD of a network. A file takes the place of one that is not there, if the request
// may be for it, and completes one that has no configuration (NPWG v1.3 s.3.4.1).
func (r *Resolver) nad(ctx context.Context, request plan.Request) (plan.Definition, error) {
	nad, err := r.Source.NAD(ctx, request.Namespace, request.Name)
	switch {
	case request.OnDisk && isNoNAD(err):
		return r.onDisk(nil, func() ([]byte, error) {
			return netconf.OnDisk(r.Node.ConfDir, request.Name)
		})
	case apierrors.IsNotFound(err) && failure.ReasonOf(err) == "":
		return plan.Definition{}, nadNotFound(request, err)
	case err != nil:
		return plan.Definition{}, SourceError("get NAD", err)
	case plan.HasConfig(nad):
		return plan.Definition{NAD: nad}, nil
	}
	d, err := r.onDisk(nad, func() ([]byte, error) { return netconf.OnDisk(r.Node.ConfDir, nad.Name) })
	if fe, ok := errors.AsType[*failure.Error](err); ok {
		named := *fe
		named.NAD, err = request.Ref, &named
	}
	return d, err
}

// isNoNAD reports whether an error of the API server says that there is no NAD of a name. A name of
// a CNI network need not be one that a NAD can have.
func isNoNAD(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsBadRequest(err) }

// nadNotFound is the error of a network whose NAD is not there.
func nadNotFound(request plan.Request, err error) error {
	return &failure.Error{
		Reason: failure.NADNotFound,
		Err: fmt.Errorf("there is no NetworkAttachmentDefinition %q in namespace %q: %w",
			request.Name, request.Namespace, err),
		Fix: fmt.Sprintf("create it, or correct %s; `kubectl get net-attach-def -n %s` lists what "+
			"there is", origin(request), request.Namespace),
	}
}

// onDisk returns the definition on the node's disk, or a stand-in on another machine.
func (r *Resolver) onDisk(
	nad *nadv1.NetworkAttachmentDefinition, read func() ([]byte, error),
) (plan.Definition, error) {
	if r.Elsewhere {
		return plan.Definition{NAD: nad, Conf: standIn(), Unknown: true}, nil
	}
	raw, err := read()
	return plan.Definition{NAD: nad, Conf: raw}, err
}

// standIn returns a network that makes no interface, and takes whatever a pod may ask for.
func standIn() []byte {
	return []byte(`{"cniVersion":"1.0.0","name":"unknown","plugins":[{"type":"` +
		netconf.PassthruType + `","capabilities":
		{"ips":true,"mac":true,"infinibandGUID":true,"portMappings":true,"bandwidth":true}}]}`)
}

// origin says where a network is named.
func origin(request plan.Request) string {
	switch {
	case request.Selection == nil:
		return "Braid's configuration"
	case request.Default:
		return "the pod's annotation " + nadv1.DefaultNetworkAnnotation
	}
	return "the pod's annotation " + nadv1.NetworksAnnotation
}

// SourceError adds a reason to an error of a Source, or of a write to the same place, that has
// none: either it is unavailable or it refuses.
func SourceError(verb string, err error) error {
	if failure.ReasonOf(err) != "" {
		return fmt.Errorf("%s: %w", verb, err)
	}
	fe := &failure.Error{Reason: failure.APIUnavailable, Err: fmt.Errorf("%s: %w", verb, err)}
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		fe.Fix = "give Braid's account the rights of conf/rbac, and see that its kubeconfig holds a " +
			"valid credential"
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		fe.Reason = failure.PodNotFound
		fe.Fix = "the pod was deleted or replaced meanwhile; the runtime will remove the sandbox"
	default:
		fe.Fix = "the runtime will try again; see whether the API server can be reached from the node"
	}
	return fe
}
