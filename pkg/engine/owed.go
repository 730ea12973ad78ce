package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	cniinvoke "github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/record"
)

// This file holds the one rule of when a DEL may end although a plugin did not do its part. Only a
// refusal counts: the plugin is absent, or says that it will not have the configuration. All else,
// such as a time-out, may be over with the next DEL, which is therefore waited for.
//
//	attachment                       sandbox  the DEL
//	never added                      any      has nothing to remove there, and succeeds
//	never added, fails as its ADD    any      fails for `patience`; then it is owed
//	added                            there    fails
//	added                            gone     fails for `patience`; then it is owed
//	added, with retryDeleteOnError   gone     fails
//
// What is owed stays in the record and fails no DEL. GC tries again until it is removed.

const (
	// patience is how long a plugin's refusal is waited out.
	patience = 10 * time.Minute
	// reasonOwed is the reason of the event for what is owed.
	reasonOwed = "CleanupOwed"
	// maxRefusal bounds what is recorded of the plugins' errors, in bytes.
	maxRefusal = 1 << 10
)

// refusal is the error of a chain in which plugins refused their configuration and all others did
// their part.
type refusal struct {
	errs []error
	// repeated is true if one of them did not refuse, but failed with the very error of its ADD.
	repeated bool
}

func (r *refusal) Error() string { return errors.Join(r.errs...).Error() }

func (r *refusal) Unwrap() []error { return r.errs }

// add adds the error of a plugin that refused, or repeated the error of its ADD.
func (r *refusal) add(err error, repeated bool) {
	r.errs = append(r.errs, err)
	r.repeated = r.repeated || repeated
}

// refuses reports whether an error is nothing but that a plugin is absent, or refuses its
// configuration (CNI 1.1 "Error", codes 1, 2 and 7). Of several errors each must be that.
func refuses(err error) bool {
	switch e := err.(type) { //nolint:errorlint // the chain is followed here
	case nil:
		return false
	case *types.Error:
		return slices.Contains([]uint{
			types.ErrIncompatibleCNIVersion, types.ErrUnsupportedField, types.ErrInvalidNetworkConfig,
		}, e.Code)
	case *failure.Error:
		return e.Reason == failure.PluginNotFound || e.Reason == failure.NADInvalid || refuses(e.Err)
	case interface{ Unwrap() []error }:
		errs := e.Unwrap()
		return len(errs) > 0 && !slices.ContainsFunc(errs, func(err error) bool { return !refuses(err) })
	}
	return refuses(errors.Unwrap(err))
}

// repeats reports whether the DEL of an attachment that was never added fails just as its ADD did,
// with a code that has no meaning in CNI: most plugins tell so of a configuration that they cannot
// use.
func repeats(a *record.Attachment, err error) bool {
	said, ok := errors.AsType[*types.Error](err)
	return ok && a.State == record.Attempted && a.Failure != nil && said.Code >= firstFreeCode &&
		*said == *a.Failure
}

// firstFreeCode is the first code of errors whose meaning CNI does not lay down (CNI 1.1 "Error").
const firstFreeCode = 100

// counted counts the plugins of a chain that were run.
type counted struct {
	cniinvoke.Exec
	done int
}

// ExecPlugin implements libcni's invoke.Exec.
func (c *counted) ExecPlugin(
	ctx context.Context, path string, stdin []byte, environ []string,
) ([]byte, error) {
	out, err := c.Exec.ExecPlugin(ctx, path, stdin, environ)
	if err == nil {
		c.done++
	}
	return out, err
}

// delPast runs the DEL of a chain past plugins that refuse. libcni ends with the first plugin that
// fails, so it is called again for those in front of one that refused. The error is a *refusal if
// nothing else went wrong.
func delPast(ctx context.Context, c *chain, a *record.Attachment) error {
	rest := *c.known
	refused := &refusal{}
	for {
		c.calls.done = 0
		err := c.cni.DelNetworkList(ctx, &rest, c.rt)
		if err == nil {
			break
		}
		again := repeats(a, err)
		if ctx.Err() != nil || !again && !refuses(err) {
			return errors.Join(append(refused.errs, err)...)
		}
		refused.add(err, again)
		rest.Plugins = rest.Plugins[:max(len(rest.Plugins)-1-c.calls.done, 0)]
		if len(rest.Plugins) == 0 {
			break
		}
	}
	if len(refused.errs) > 0 {
		return refused
	}
	return nil
}

// owe applies the rule of this file to an attachment that its plugins refuse to remove. removed
// reports whether it counts as removed; err is nil if the DEL may go on without it.
func (w *work) owe(
	ctx context.Context, a *record.Attachment, refused *refusal,
) (removed bool, err error) {
	if a.State == record.Attempted && !refused.repeated {
		w.Log.WarnContext(ctx, "nothing to remove of a network that was never attached",
			"container", w.req.ContainerID, "network", a.Name, "error", refused)
		return true, nil
	}
	a.Refusal = w.waitedFor(a, refused)
	if a.State == record.Owed || !w.outwaited(a.Refusal) {
		var errs []error
		for _, err := range refused.errs {
			errs = append(errs, adviceError(err, &a.Attachment, adviceDel))
		}
		return false, errors.Join(append(errs, w.note(a, "refused "+a.IfName))...)
	}
	a.State = record.Owed
	if err := w.note(a, "owed "+a.IfName); err != nil {
		return false, err
	}
	w.tellOwed(ctx, a)
	return false, nil
}

// waitedFor returns what is recorded of a refusal, and since when; nil if it is not waited out.
func (w *work) waitedFor(a *record.Attachment, refused *refusal) *record.Refusal {
	if w.req.NetNS != "" && a.State != record.Owed && !refused.repeated {
		return nil
	}
	since := w.now().UTC()
	if a.Refusal != nil {
		since = a.Refusal.Since
	}
	return &record.Refusal{Since: since, Text: oneLine(refused)}
}

// outwaited reports whether a DEL goes on without what was refused.
func (w *work) outwaited(r *record.Refusal) bool {
	return r != nil && w.now().Sub(r.Since) >= patience && !w.Node.RetryDeleteOnError
}

// note saves what has become of an attachment.
func (w *work) note(a *record.Attachment, what string) error {
	// Somebody may be going through them.
	w.rec.Attachments = slices.Clone(w.rec.Attachments)
	for i := range w.rec.Attachments {
		if same(&w.rec.Attachments[i], a) {
			w.rec.Attachments[i] = *a
		}
	}
	return w.save(what)
}

// same reports whether two are one attachment. One interface may be of either of two networks of
// the same CNI name.
func same(a, b *record.Attachment) bool {
	return a.IfName == b.IfName && a.Name == b.Name && a.Network == b.Network
}

// tellOwed logs an attachment that a DEL left, and sends its event.
func (w *work) tellOwed(ctx context.Context, a *record.Attachment) {
	rec := w.rec
	w.Log.ErrorContext(ctx, "left for GC", "container", rec.ContainerID, "network", a.Name,
		"interface", a.IfName, "since", a.Refusal.Since, "error", a.Refusal.Text)
	events := w.newEvents(ctx, rec.Pod.Namespace, rec.Pod.Name)
	defer events.wait()
	if rec.Pod.Name == "" {
		return
	}
	events.about(&metav1.ObjectMeta{
		Namespace: rec.Pod.Namespace, Name: rec.Pod.Name, UID: apitypes.UID(rec.Pod.UID),
	})
	events.send("Warning", reasonOwed,
		fmt.Sprintf("NAD %s: interface %s of container %s is not removed, as its plugin refused for %v; "+
			"GC goes on with it, and `braidctl owed` lists it: %s", a.Name, a.IfName, rec.ContainerID,
			patience, a.Refusal.Text))
}

// settle tries once more to remove what is owed, and forgets the sandbox if nothing else is left of
// it.
func (w *work) settle(ctx context.Context) error {
	netns, err := w.namespaceOf(w.req, w.rec)
	if err != nil {
		return err
	}
	w = w.asAdded(netns)
	var errs []error
	for _, a := range w.rec.Owed() {
		errs = append(errs, w.remove(ctx, a))
	}
	if len(w.rec.Attachments) == 0 {
		errs = append(errs, w.trace("record removed", w.sandbox.Remove))
	}
	return errors.Join(errs...)
}

// oneLine returns the text of an error, bounded, without line breaks and other control characters.
func oneLine(err error) string {
	text := err.Error()
	printable := func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return ' '
	}
	return strings.Join(strings.Fields(strings.Map(printable, text[:min(len(text), maxRefusal)])), " ")
}

// now returns the time. Tests set it.
func (e *Engine) now() time.Time {
	if e.Now == nil {
		return time.Now()
	}
	return e.Now()
}
