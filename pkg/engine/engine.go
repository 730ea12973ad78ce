// Package engine executes the CNI operations of a pod sandbox over all of its networks: ADD, DEL,
// CHECK, GC and STATUS.
//
// Contract:
//   - An ADD attaches every network or none: on any failure all that was attempted is removed,
//     newest first, and what could not be removed stays in the record for the runtime's DEL.
//     Networks are attached one after the other, the default first.
//   - A DEL works from the record alone, past errors, and reports an error as long as anything is
//     left.
//   - Operations on one sandbox are serialised across processes; operations on different sandboxes
//     share nothing.
//   - Whatever kills the engine, at whatever point, the next DEL, ADD or GC of the sandbox cleans
//     up after it.
//   - Errors carry the class (pkg/failure), the pod, the network and the delegate's own code. The
//     engine logs each failure once and reports it once as an event of the pod; callers only hand
//     it to the runtime.
//
// The engine knows neither Kubernetes clients nor netlink: it owns the interfaces through which it
// uses them.
package engine

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/containernetworking/cni/libcni"
	cniinvoke "github.com/containernetworking/cni/pkg/invoke"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/pkg/weaken"
)

// Reporter reports what the engine did to an API server, or to manifests on disk. "Not found",
// "conflict" and "forbidden" are errors of k8s.io/apimachinery/pkg/api/errors.
type Reporter interface {
	// PublishStatus replaces the network-status annotation of pod. It writes nothing and returns a
	// conflict if the pod of that name has another uid by now, or an annotation other than the one in
	// pod.
	PublishStatus(ctx context.Context, pod *metav1.ObjectMeta, annotation string) error
	// Event records an event, "Normal" or "Warning", on the pod. Called concurrently.
	Event(ctx context.Context, pod *metav1.ObjectMeta, eventType, reason, message string) error
}

// Namespaces works in network namespaces, which are named by path.
type Namespaces interface {
	// Identity returns a text that no other network namespace of this boot has or will have. It is
	// empty if path leads to no network namespace, and an error if that cannot be found out.
	Identity(path string) (string, error)
	// IsNode reports whether a path leads to the node's own namespace.
	IsNode(path string) bool
	Links
	// Scratch makes an empty namespace, which lives until release is called.
	Scratch() (path string, release func(), err error)
}

// Links looks up and deletes links in network namespaces, which are named by path.
type Links interface {
	// Links returns the indexes of all links by their names.
	Links(ctx context.Context, path string) (map[string]int, error)
	// DeleteLinks removes the links that in-process plugins made, in one step.
	DeleteLinks(ctx context.Context, path string) error
	// DeleteIndex removes the link with an index. It is no error if there is none.
	DeleteIndex(ctx context.Context, path string, index int) error
}

// Interiors looks at what plugins made in network namespaces, which are named by path.
type Interiors interface {
	// Interface reads the MAC and the addresses of a link. found is false if there is no such link.
	Interface(
		ctx context.Context, path, name string,
	) (mac net.HardwareAddr, addrs []netip.Prefix, found bool, err error)
	// DefaultRoutes returns the default routes as they are now.
	DefaultRoutes(ctx context.Context, path string) (DefaultRoutes, error)
	// MoveDefaultRoute replaces the default routes of the gateways' families by those via ifname.
	MoveDefaultRoute(ctx context.Context, path, ifname string, gateways []netip.Addr) error
	// PreferDefaultRoute removes IPv6 default routes of other links if this one has any.
	PreferDefaultRoute(ctx context.Context, path, ifname string) error
	// RefuseDefaultRouters keeps links from taking default routes from router advertisements, and
	// removes those that they have taken.
	RefuseDefaultRouters(ctx context.Context, path string, links []string) error
}

// DefaultRoutes are the default routes that a namespace had at one moment.
type DefaultRoutes interface {
	// Families reports which families had a default route.
	Families() (v4, v6 bool)
	// Keep undoes what came since: in the given families, if they had a default route, it removes new
	// ones via ifname and puts back what they replaced. It returns the families in which it removed a
	// route. What there is then is what the next Keep compares with.
	Keep(ctx context.Context, ifname string, v4, v6 bool) (removed4, removed6 bool, err error)
}

// Exec runs the plugins of one operation on a sandbox. The operation closes it.
type Exec interface {
	cniinvoke.Exec
	resolve.Finder
	// InProcess reports whether a plugin with this configuration runs in this process.
	InProcess(kind string, config []byte, paths []string, chosen invoke.Chosen) bool
	// Protect returns an error if a binary would run with this configuration and could do to the node
	// what it must not.
	Protect(
		ctx context.Context, kind string, config []byte, paths []string, limits *attachment.Limits,
	) error
	// Force has plugins of these types run as binaries even if they are built in, and no others.
	Force(kinds []string)
	Close()
}

// Said remembers what was reported on this node of late.
type Said interface {
	// First reports whether what is new, and remembers it.
	First(ctx context.Context, what string) bool
}

// Engine is safe for concurrent use. All fields but ThisNode, Remote, RuntimeCache, Observer, Said,
// Trace, Now and Upkeep are required.
//
// An engine outlives the calls that it serves. It keeps nothing of a Request, and changes neither
// Node nor Policy.
type Engine struct {
	Node   *conf.Node
	Policy *conf.Policy
	Source resolve.Source
	// ThisNode has the labels of this node, for NADs with a nodeSelector. Without it, they are
	// ignored.
	ThisNode resolve.ThisNode
	// Remote is true if Source is reached over the network. STATUS does not ask such a source.
	Remote     bool
	Reporter   Reporter
	Devices    resolve.Devices
	Namespaces Namespaces
	Interiors  Interiors
	Records    *record.Store
	// NewExec returns the executor of plugins for one operation. Binaries inherit the lock file, which
	// may be nil.
	NewExec func(lock *os.File) Exec
	Log     *slog.Logger
	// RuntimeCache is the directory of the runtime's libcni cache, or empty. It tells who made a
	// sandbox that Braid has no record of.
	RuntimeCache string
	// Observer, if set, observes operations, for metrics.
	Observer Observer
	// Said, if set, keeps events that are the same for every pod from being repeated.
	Said Said
	// Upkeep, if set, is work for the node that operations do beside their own.
	Upkeep Upkeep
	// Trace, if set, is called with the name of each change of state, before and after it.
	// Fault-injection tests stop the process there.
	Trace func(point string)
	// Now is the clock that bounds how long a plugin's refusal is waited out; time.Now if nil.
	Now func() time.Time

	lists lists
}

// Request is one CNI operation as the runtime asks for it.
type Request struct {
	ContainerID string
	// NetNS is the path of the sandbox's network namespace; on DEL it may be empty or gone.
	NetNS string
	// IfName is the pod's interface of the default network.
	IfName string
	// Args is CNI_ARGS, in its order.
	Args [][2]string
	// Path is CNI_PATH.
	Path []string
	// Runtime is the name of the program that asks, as containerd; empty if it is not known.
	Runtime string
	// Call is what the runtime passed on stdin. The engine does not change it.
	Call *conf.Call
	// Again is true if the result of an earlier ADD may have been lost. An ADD that was finished is
	// then no error, and its result is returned once more.
	Again bool
	// Still, if set, is called before an ADD's first change, with the sandbox locked. It returns an
	// error if nobody waits for the ADD any more: then somebody else may have done it.
	Still func() error
	// places are the places of the sandbox's ADD, in an operation that has its record.
	places record.Places
}

// operate does what all operations on a pod's sandbox have in common. It bounds their time, and
// names the pod in a failure, which it logs and reports as an event once.
func (e *Engine) operate(
	ctx context.Context, verb Verb, req *Request, do func(context.Context, *events) error,
) error {
	start := time.Now()
	ctx, cancel := e.bounded(ctx)
	defer cancel()
	namespace, name, err := podOf(req.Args)
	events := e.newEvents(ctx, namespace, name)
	defer events.wait()
	if err == nil {
		err = do(ctx, events)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", podName(namespace, name, req.ContainerID), err)
		events.failed(err)
	}
	e.operationDone(ctx, verb, start, err, "pod",
		record.Pod{Namespace: namespace, Name: name}.String(), "container", req.ContainerID)
	return err
}

// bounded bounds ctx by the configured time of an operation.
func (e *Engine) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if weaken.Off(weaken.Deadline) {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, e.Node.Timeouts.Operation, &failure.Error{
		Reason: failure.TimedOut, Field: "braid.timeouts.operation",
		Err: fmt.Errorf("not finished within %v", e.Node.Timeouts.Operation),
		Fix: "see the log for what took the time; raise it if the networks are that slow",
	})
}

// share bounds ctx by half of the time that is left, for a step that others wait for.
func share(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	half := time.Until(deadline) / 2
	return context.WithTimeoutCause(ctx, half, &failure.Error{
		Reason: failure.TimedOut, Field: "braid.timeouts.operation",
		Err: fmt.Errorf("not finished within %v, half of the time that was left",
			half.Round(time.Millisecond)),
		Fix: "see the log for what took the time; raise it if the networks are that slow",
	})
}

// trace makes a change of state, with calls of Trace around it.
func (e *Engine) trace(point string, change func() error) error {
	if e.Trace == nil {
		return change()
	}
	e.Trace("before " + point)
	err := change()
	e.Trace("after " + point)
	return err
}

// lock locks a sandbox for one operation.
func (e *Engine) lock(ctx context.Context, containerID string) (*sandbox, error) {
	var locked *record.Sandbox
	err := e.trace("lock "+containerID, func() (err error) {
		locked, err = e.Records.Lock(ctx, containerID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return e.open(locked), nil
}

// sandbox is a locked sandbox, with the executor of its plugins.
type sandbox struct {
	*record.Sandbox
	exec Exec
	// lists are the engine's.
	lists *lists
	// owed are the attachments that an earlier ADD of this container ID left for GC.
	owed []record.Attachment
	// guest is true within an operation on another pod.
	guest bool
}

// open takes over a locked sandbox. Plugins that are exec'd inherit the lock's file, so that it is
// held until the last of them has ended. unlock is owed to it.
func (e *Engine) open(locked *record.Sandbox) *sandbox {
	return &sandbox{
		Sandbox: locked, exec: e.NewExec(locked.File()), lists: &e.lists,
	}
}

// unlock ends what lock or open began.
func (e *Engine) unlock(sandbox *sandbox) {
	sandbox.exec.Close()
	e.trace("unlock", func() error { sandbox.Unlock(); return nil }) //nolint:errcheck // it gives none
}

// podName returns "pod namespace/name" for messages, or the container ID if the runtime names no
// pod.
func podName(namespace, name, containerID string) string {
	if name == "" {
		return "container " + containerID
	}
	return "pod " + namespace + "/" + name
}

// work is an operation at work on a sandbox that is locked.
type work struct {
	*Engine

	// req is what the runtime asks for. What is recorded of the sandbox takes the place of its
	// namespace and of its places (asAdded).
	req     *Request
	sandbox *sandbox
	// rec is what is recorded of the sandbox; nil where that is not known yet.
	rec *record.Record
}

// within returns the work with another path of the network namespace; empty for none.
func (w *work) within(netns string) *work {
	other, req := *w, *w.req
	req.NetNS = netns
	other.req = &req
	return &other
}

// homes returns where an attachment's plugins run.
func (w *work) homes(a *record.Attachment) homes {
	return homes{w.sandbox.exec, w.path(w.req), a.InProcess}
}

// libcni is libcni bound to one request.
func (e *Engine) libcni(req *Request, exec cniinvoke.Exec) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(e.path(req), e.cniDir(req), exec)
}
