package invoke

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	cniinvoke "github.com/containernetworking/cni/pkg/invoke"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
)

// Chosen says where plugins run whose configuration has keys that the built-in one does not know:
// by type, true for in-process and false for a binary. It is recorded with an attachment, so that
// a binary that is installed between ADD and DEL is not asked to remove what it did not make.
type Chosen map[string]bool

// Terms are what the operations on an attachment have of its ADD. They reach the IPAM plugin, too,
// which the interface plugin calls.
type Terms struct {
	Chosen Chosen
	// Limits are what the attachment may do to its node; nil for all.
	Limits *attachment.Limits
	// DataRoots are the directories beneath which plugins may have data; nil for those that the node
	// has now.
	DataRoots []string
}

// Under returns an Exec that runs plugins under the terms.
func Under(inner cniinvoke.Exec, terms Terms) cniinvoke.Exec { return &under{inner, terms} }

// under is an Exec that runs plugins under terms.
type under struct {
	cniinvoke.Exec
	terms Terms
}

// termsKey is the context's key of Terms.
type termsKey struct{}

func (u *under) ExecPlugin(
	ctx context.Context, path string, stdin []byte, environ []string,
) ([]byte, error) {
	return u.Exec.ExecPlugin(context.WithValue(ctx, termsKey{}, u.terms), path, stdin, environ)
}

// termsOf returns those of a call; none without Under.
func termsOf(ctx context.Context) Terms {
	terms, _ := ctx.Value(termsKey{}).(Terms)
	return terms
}

// choice is what runs a configuration of a built-in type.
type choice struct {
	prepared *Prepared
	// path is the binary that runs in the place of the in-process plugin; empty for none.
	path string
}

// prepare reads a configuration of a built-in type, unless it was read before.
func (e *Exec) prepare(kind string, config []byte) (*Prepared, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p, ok := e.prepared[kind][string(config)]; ok {
		return p, nil
	}
	p, err := e.Builtin[kind].Prepare(config)
	if err != nil {
		return nil, err
	}
	if e.prepared == nil {
		e.prepared = map[string]map[string]*Prepared{}
	}
	if e.prepared[kind] == nil {
		e.prepared[kind] = map[string]*Prepared{}
	}
	e.prepared[kind][string(config)] = p
	return p, nil
}

// choose finds out what runs a configuration of a built-in type. What the in-process plugin does
// not know a binary may know. A value that it does not know needs one: the plugin would do
// something else.
func (e *Exec) choose(kind string, config []byte, paths []string, chosen Chosen) (*choice, error) {
	prepared, err := e.prepare(kind, config)
	if err != nil {
		return nil, invalidConfig(kind, err)
	}
	c := &choice{prepared: prepared}
	if prepared.isKnown() {
		return c, nil
	}
	inProcess, decided := chosen[kind]
	if decided && inProcess {
		return c, nil
	}
	if c.path, err = binary(kind, paths); err == nil {
		return c, nil
	}
	where := "install a plugin of type " + kind + " that knows it in " + strings.Join(paths, " or ")
	switch {
	case prepared.Foreign != nil:
		fe := invalidConfig(kind, prepared.Foreign)
		fe.Fix = "correct it, or " + where
		return nil, fe
	case decided:
		return nil, &failure.Error{
			Reason: failure.PluginNotFound, Plugin: kind, Fix: where,
			Err: fmt.Errorf("the binary that knows the key %s is gone: %w", prepared.Unknown[0], err),
		}
	}
	return c, nil
}

// isKnown reports whether the in-process plugin knows all keys and values.
func (p *Prepared) isKnown() bool { return len(p.Unknown) == 0 && p.Foreign == nil }

// decide is choose for one call.
func (e *Exec) decide(
	ctx context.Context, kind string, stdin []byte, environ []string,
) (*choice, error) {
	command, config := variable(environ, "CNI_COMMAND"), sourceOf(ctx, stdin)
	c, err := e.choose(kind, config, filepath.SplitList(variable(environ, "CNI_PATH")),
		termsOf(ctx).Chosen)
	if err != nil && e.Warn != nil && command == "DEL" {
		prepared, perr := e.prepare(kind, config)
		return &choice{prepared: prepared}, perr
	}
	if err != nil || command != "ADD" {
		return c, err
	}
	if err := e.judge(kind, c); err != nil {
		return nil, err
	}
	e.warn(kind, c)
	return c, nil
}

// warn tells who asked for it what the pod's owner should know of a configuration.
func (e *Exec) warn(kind string, c *choice) {
	if e.Warn == nil {
		return
	}
	for _, w := range c.warnings(kind) {
		e.Warn(w)
	}
}

// judge refuses what an ADD does not take.
func (e *Exec) judge(kind string, c *choice) error {
	p := c.prepared
	switch {
	case p.Refused != nil:
		return invalidConfig(kind, p.Refused)
	case c.path != "": // the binary judges the values
		return nil
	case e.RefuseUnknown && len(p.Unknown) > 0:
		fe := invalidConfig(kind, errors.New("the plugin has no such key"))
		fe.Field, fe.Fix = p.Unknown[0], "remove it, or correct its name"
		return fe
	case p.Validate == nil:
		return nil
	}
	if err := p.Validate(); err != nil {
		return invalidConfig(kind, err)
	}
	return nil
}

// invalidConfig returns the failure of a configuration that the plugin of the type refuses.
func invalidConfig(kind string, err error) *failure.Error {
	if fe, ok := errors.AsType[*failure.Error](err); ok {
		named := *fe
		named.Plugin, named.Reason = kind, cmp.Or(fe.Reason, failure.NADInvalid)
		return &named
	}
	return &failure.Error{
		Reason: failure.NADInvalid, Plugin: kind, Err: err, Fix: "correct the network's configuration",
	}
}

// maxWarnings bounds those of one configuration: each becomes an event of the pod.
const maxWarnings = 8

// warnings returns what the pod's owner should know of the keys.
func (c *choice) warnings(kind string) []*failure.Error {
	p := c.prepared
	if c.path != "" {
		return c.executed(kind)
	}
	var all []*failure.Error
	for _, r := range p.Recased {
		all = append(all, &failure.Error{
			Reason: failure.MiscasedKey, Plugin: kind, Field: r.Path,
			Err: fmt.Errorf("the key is read as %s", r.Key), Fix: "write " + r.Key,
		})
	}
	for _, at := range p.Unknown {
		all = append(all, &failure.Error{
			Reason: failure.IgnoredKey, Plugin: kind, Field: at,
			Err: errors.New("the key is ignored: the plugin has no such key"),
			Fix: "remove it, or correct its name",
		})
	}
	for _, w := range p.Ignored {
		named := *w
		named.Plugin = kind
		all = append(all, &named)
	}
	if len(all) > maxWarnings {
		all = all[:maxWarnings]
		all[maxWarnings-1].Fix += "; there are more such keys"
	}
	return all
}

// executed warns that a binary runs in the place of the built-in plugin. A value that only a binary
// knows asks for just that.
func (c *choice) executed(kind string) []*failure.Error {
	unknown := c.prepared.Unknown
	if len(unknown) == 0 {
		return nil
	}
	return []*failure.Error{{
		Reason: failure.PluginExecuted, Plugin: kind, Field: unknown[0],
		Err: fmt.Errorf("the built-in plugin has no such key, so %s is run in its place; that of the "+
			"reference ignores a key that it does not know",
			c.path),
		Fix: "remove the key if the plugin need not have it",
	}}
}

// binary returns the path of the plugin of that type which is not this program: by a link of that
// name it would do what it does in-process. Of directories that have this program only those after
// it count: two copies of it do not call each other for ever.
func binary(kind string, paths []string) (string, error) {
	for i, dir := range slices.Backward(paths) {
		if isSelf(filepath.Join(dir, kind)) {
			paths = paths[i+1:]
			break
		}
	}
	return cniinvoke.FindInPath(kind, paths)
}

// isSelf reports whether a path leads to the program that runs.
func isSelf(path string) bool {
	file, err := os.Stat(path)
	if err != nil {
		return false
	}
	self, err := os.Stat("/proc/self/exe")
	return err == nil && os.SameFile(file, self)
}

// variable returns a variable's value in an environment. The last one counts.
func variable(environ []string, name string) string {
	for _, pair := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}
