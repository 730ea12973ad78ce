package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

// call is one request to the API server. Each may be sent twice: a GET, a PATCH that sets a value,
// a POST of an object with a given name, a PUT or DELETE of one version of an object.
type call struct {
	verb            string // for messages
	scope           scope
	namespace, name string
	request         func(*client) *rest.Request // made anew for each try
}

// send sets the body of a request, an object or a patch. It switches off the server's warnings of
// unknown fields: there are none. That saves the server an eighth of its work for a block.
func send(request *rest.Request, body []byte) *rest.Request {
	return request.Param("fieldValidation", metav1.FieldValidationIgnore).Body(body)
}

// scope is how the object of a call is named.
type scope int

const (
	namespaced scope = iota
	clusterScoped
	collection // nothing does: it is about all of a kind
)

func (c *call) String() string {
	switch c.scope {
	case clusterScoped:
		return c.verb + " " + c.name
	case collection:
		return c.verb
	default:
		return c.verb + " " + c.namespace + "/" + c.name
	}
}

// checkNames returns an error for names that no object can have.
func (c *call) checkNames() error {
	switch c.scope {
	case clusterScoped:
		return objects.CheckName(c.name)
	case collection:
		return nil
	default:
		return objects.CheckNames(c.namespace, c.name)
	}
}

// backoff returns the pauses between tries: 50 ms, 100 ms, ... 2 s, each up to half as much longer,
// by chance, so that the nodes of a cluster do not come back to a restarted server all at once.
func backoff() wait.Backoff {
	return wait.Backoff{
		Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 30, Cap: 2 * time.Second,
	}
}

// do makes a call, with retries within the budget, and returns the body of the answer. client-go's
// own retries know neither the budget nor that our writes may be repeated, and are switched off.
func (a *API) do(ctx context.Context, c *call) ([]byte, error) {
	if err := c.checkNames(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.verb, err)
	}
	client, err := a.connect()
	if err != nil {
		return nil, err
	}
	budget, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	pauses := backoff()
	var last error
	for tries := 1; ; tries++ {
		body, err := a.try(budget, client, c)
		if err == nil {
			return body, nil
		}
		if budget.Err() != nil {
			return nil, a.gaveUp(ctx, c, last, tries)
		}
		if comingUp := last != nil && denied(err); !comingUp && !transient(err) {
			return nil, a.refused(c, err)
		}
		last = err
		after, _ := apierrors.SuggestsClientDelay(err)
		if !sleep(budget, max(time.Duration(after)*time.Second, pauses.Step())) {
			return nil, a.gaveUp(ctx, c, last, tries)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			client.close() // the connection may be dead
		}
	}
}

// try makes a call once. It leaves half of the budget for another try, as a dial or a connection
// may hang.
func (a *API) try(ctx context.Context, client *client, c *call) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout/2)
	defer cancel()
	ctx, leave, err := client.turnstile.pass(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	// what fails is returned, and not logged too
	result := c.request(client).MaxRetries(0).Do(klog.NewContext(ctx, klog.Logger{}))
	if err := result.Error(); err != nil {
		return nil, bare(err)
	}
	return result.Raw()
}

// bare removes the URL from an error. The call is named in a shorter way.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// sleep pauses, and reports whether ctx is not done then. It does not begin a pause that outlasts
// ctx: who has to clean up after a failure can use the time.
func sleep(ctx context.Context, pause time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < pause {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// denied reports whether the server denies the call. Every server does so for a moment after its
// start, before it has loaded accounts and roles.
func denied(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

// transient reports whether the same request may fare better a moment later.
func transient(err error) bool {
	if status, ok := errors.AsType[*apierrors.StatusError](err); ok {
		code := status.ErrStatus.Code
		return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
	}
	// What is left went wrong on the way there or back: refused, reset, timed out, no such host yet. A
	// certificate stays wrong.
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return !untrusted
}

// refused returns the error of a call that no repetition will mend.
func (a *API) refused(c *call, err error) error {
	err = fmt.Errorf("%s: %w", c, err)
	if objects.Answered(err) {
		return err
	}
	return &failure.Error{
		Reason: failure.APIUnavailable, Err: err,
		Fix: "see that the certificate authority of " + a.origin() + " is that of its server",
	}
}

// gaveUp returns the error of a call that ran out of time. last is what went wrong before, or nil.
// A caller that cancelled gets the cancellation alone, one whose time was up gets both.
func (a *API) gaveUp(ctx context.Context, c *call, last error, tries int) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &failure.Error{Reason: failure.TimedOut, Err: fmt.Errorf("%s: %w", c, context.Cause(ctx))}
	}
	n := failure.Count(tries, "try")
	err := fmt.Errorf("%s: no success in %s within %v", c, n, a.opts.Timeout)
	if ctx.Err() != nil {
		err = fmt.Errorf("%s: no success in %s: %w", c, n, context.Cause(ctx))
	}
	if last == nil {
		last = context.DeadlineExceeded
	}
	return &failure.Error{
		Reason: failure.APIUnavailable, Err: fmt.Errorf("%w: %w", err, last),
		Fix: "see whether the node reaches the server of " + a.origin() +
			", and raise braid.timeouts.api if it is only slow",
	}
}
