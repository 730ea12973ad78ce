// Package tuning changes an interface that the plugin before it has made: its MAC, MTU, queue and
// modes, and parameters of the kernel in the pod's network namespace.
//
// Contract: plugin.Interface. How the interface was is kept in a file, and put back by DEL;
// parameters of the kernel, as with the reference, are not. A failed ADD puts both back. DEL and GC
// remove the file also when interface and namespace are gone.
package tuning

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/sysctl"
)

// Plugin is the plugin.
type Plugin struct {
	// Allowlist is the file with the parameters that may be set; "/etc/cni/tuning/allowlist.conf"
	// where it is empty.
	Allowlist string
	// Roots are where the key dataDir may lead to; nil for anywhere.
	Roots hostfile.Roots
}

var _ plugin.Interface[Conf] = Plugin{}

// errNoPrevResult returns the error of a chain without an interface to change.
func errNoPrevResult() error {
	return plugin.ConfError("prevResult", nil,
		"is missing: tuning follows the plugin that makes the interface")
}

// Add sets parameters and attributes. The result is that of the plugin before, with the interface's
// new MAC and MTU.
func (p Plugin) Add(ctx context.Context, req *plugin.Request, c *Conf) (*types100.Result, error) {
	backups, err := p.backups(req, c)
	if err != nil {
		return nil, err
	}
	w, err := p.permitted(req, c)
	if err != nil {
		return nil, err
	}
	if req.PrevResult == nil {
		return nil, errNoPrevResult()
	}
	ns, pod, err := req.Pod()
	if err != nil {
		return nil, err
	}
	before, err := sysctl.Swap(ns, w.sysctls...)
	req.Undo.Push(func(context.Context) error { return sysctl.Set(ns, before...) })
	if err != nil {
		return nil, err
	}
	if w.attributes == (attributes{}) {
		return req.Result(), nil
	}
	if err := w.attributes.exchange(ctx, req, pod, backups); err != nil {
		return nil, err
	}
	return w.attributes.describe(req), nil
}

// permitted returns what the attachment is to have, if the node allows it.
func (p Plugin) permitted(req *plugin.Request, c *Conf) (*wanted, error) {
	w, err := c.wanted(req)
	if err != nil {
		return nil, err
	}
	return w, p.permit(w.keys)
}

// exchange sets the attributes of the interface, and keeps those that it had. An older backup
// stays: it has what was there before the first ADD.
func (a attributes) exchange(
	ctx context.Context, req *plugin.Request, pod *nl.Handle, backups backups,
) error {
	link, err := pod.Link(ctx, req.IfName)
	if err != nil {
		return err
	}
	have := a.of(link)
	made, err := backups.save(req, have)
	if err != nil {
		return err
	}
	req.Undo.Push(func(ctx context.Context) error {
		err := have.restore(ctx, pod, link.Index)
		if made {
			err = errors.Join(err, backups.remove())
		}
		return err
	})
	return a.apply(ctx, pod, link.Index)
}

// describe returns the result with the attributes that it has room for.
func (a attributes) describe(req *plugin.Request) *types100.Result {
	result := req.Result()
	result.Interfaces = slices.Clone(result.Interfaces)
	for i, described := range result.Interfaces {
		if described.Name != req.IfName {
			continue
		}
		changed := *described
		if a.MAC != "" {
			changed.Mac = a.MAC
		}
		if a.MTU != 0 {
			changed.Mtu = a.MTU
		}
		result.Interfaces[i] = &changed
	}
	return result
}

// Del puts the interface's attributes back, where it is still there, and removes the backup. What
// the interface does not take is an error once: there is nothing that a repetition could do about
// it. In a directory that is not allowed there is no backup, unless it was allowed at the time of
// the ADD.
func (p Plugin) Del(ctx context.Context, req *plugin.Request, c *Conf) error {
	backups, err := p.backups(req, c)
	if err != nil {
		return backups.unlessNone(req, c, err)
	}
	b, err := backups.load()
	if isRefused(err) {
		return backups.unlessNone(req, c, err)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err != nil:
		err = fmt.Errorf("interface %s stays as it is: backup: %w", req.IfName, err)
	default:
		err = b.giveBack(ctx, req)
	}
	return errors.Join(err, backups.remove())
}

// unlessNone returns err. It returns nil if err says that no backup may be in the configured
// directory, and none is there.
func (b backups) unlessNone(req *plugin.Request, c *Conf, err error) error {
	if !isRefused(err) {
		return err
	}
	kept, ok := req.Kept(c.DataDir)
	if !ok {
		return nil
	}
	if _, lerr := b.at(kept).load(); lerr != nil {
		return nil //nolint:nilerr // there is none
	}
	return err
}

// isRefused reports whether an error is that of a directory where no backups may be.
func isRefused(err error) bool {
	_, refused := errors.AsType[*plugin.RefusedError](err)
	return refused || errors.Is(err, unix.ELOOP)
}

// giveBack restores the attributes of the interface. One that is gone has taken them with it.
func (a attributes) giveBack(ctx context.Context, req *plugin.Request) error {
	_, pod, err := req.Pod()
	if errors.Is(err, plugin.ErrNoPod) {
		return nil
	}
	if err != nil {
		return err
	}
	link, err := pod.Link(ctx, req.IfName)
	if errors.Is(err, nl.ErrNoLink) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.restore(ctx, pod, link.Index)
}

// Check compares parameters and attributes with those that are wanted.
func (Plugin) Check(ctx context.Context, req *plugin.Request, c *Conf) error {
	w, err := c.wanted(req)
	if err != nil {
		return err
	}
	if req.PrevResult == nil {
		return errNoPrevResult()
	}
	ns, pod, err := req.Pod()
	if err != nil {
		return err
	}
	link, err := pod.Link(ctx, req.IfName)
	if err != nil {
		return err
	}
	return errors.Join(checkSysctls(ns, w.sysctls), w.attributes.check(link))
}

// checkSysctls compares values by their words: the kernel separates several with tabs.
func checkSysctls(ns *netns.NS, settings []sysctl.Setting) error {
	keys := make([]string, len(settings))
	for i, s := range settings {
		keys[i] = s.Key
	}
	values, err := sysctl.Get(ns, keys...)
	if err != nil {
		return err
	}
	var errs []error
	for i, s := range settings {
		if !slices.Equal(strings.Fields(values[i]), strings.Fields(s.Value)) {
			errs = append(errs, fmt.Errorf("sysctl %s is %q, not %q", s.Key, values[i], s.Value))
		}
	}
	return errors.Join(errs...)
}

// GC removes the backups of attachments that are not valid. There are none where none may be.
func (p Plugin) GC(_ context.Context, req *plugin.Request, c *Conf) error {
	place, err := p.place(req, c)
	if err == nil {
		err = collect(place, req)
	}
	if isRefused(err) {
		return nil
	}
	return err
}

// Status knows nothing that an ADD would fail for.
func (Plugin) Status(context.Context, *plugin.Request, *Conf) error { return nil }
