package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/invoke"
)

const (
	pluginType = "pair"
	// farEnd ends the name of the other end of a pair.
	farEnd = "-far"
	// linkGroup is that of links which are removed in one step.
	linkGroup = 7
)

// plugin is an in-process delegate: ADD makes a pair of links in the sandbox, DEL removes it, CHECK
// looks for it.
type plugin struct {
	mu sync.Mutex
	// sandboxes are the pods, by path.
	sandboxes map[string]*pod
	// hooks are run by the calls of these names, on ADD after the link was made, else before anything
	// is done.
	hooks    map[string]hook
	calls    []string
	valid    map[string][]types.GCAttachment
	inside   map[string]string
	overlaps []string
	// read are the configurations that were read.
	read []string
	// group is the link group of the links that it makes.
	group uint32
}

type hook func(context.Context, *call) error

// call is one call of the plugin.
type call struct {
	command, container, netns, ifname string
	conf                              struct {
		Name       string               `json:"name"`
		CNIVersion string               `json:"cniVersion"`
		Valid      []types.GCAttachment `json:"cni.dev/valid-attachments"`
		PrevResult json.RawMessage      `json:"prevResult"`
	}
}

// String is "ADD net1", and "GC pods" for what is asked of a network.
func (c *call) String() string {
	if c.ifname == "" {
		return c.command + " " + c.conf.Name
	}
	return c.command + " " + c.ifname
}

func newPlugin() *plugin {
	return &plugin{
		sandboxes: map[string]*pod{}, hooks: map[string]hook{}, valid: map[string][]types.GCAttachment{},
		inside: map[string]string{},
	}
}

func (p *plugin) knows(sandbox *pod) { p.sandboxes[sandbox.Path] = sandbox }

// on sets what calls do; nil takes it back.
func (p *plugin) on(name string, do hook) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hooks[name] = do
}

// fails has calls fail with a code.
func (p *plugin) fails(name string, code uint) {
	p.on(name, func(context.Context, *call) error {
		return types.NewError(code, "told to fail "+name, "")
	})
}

// called returns the calls so far, in their order, and forgets them.
func (p *plugin) called() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls = nil
	return calls
}

// Prepare takes every configuration for the plugin's own that has no key "foreign".
func (p *plugin) Prepare(config []byte) (*invoke.Prepared, error) {
	p.mu.Lock()
	p.read = append(p.read, string(config))
	p.mu.Unlock()
	prepared := &invoke.Prepared{Run: p.run}
	if bytes.Contains(config, []byte(`"foreign"`)) {
		prepared.Unknown = []string{"foreign"}
	}
	return prepared, nil
}

// run is one call.
func (p *plugin) run(ctx context.Context, asked *invoke.Call) ([]byte, error) {
	c := &call{}
	for _, variable := range asked.Environ {
		key, value, _ := strings.Cut(variable, "=")
		switch key {
		case "CNI_COMMAND":
			c.command = value
		case "CNI_CONTAINERID":
			c.container = value
		case "CNI_NETNS":
			c.netns = value
		case "CNI_IFNAME":
			c.ifname = value
		}
	}
	if err := json.Unmarshal(asked.Stdin, &c.conf); err != nil {
		return nil, err
	}
	do := p.enter(c)
	defer p.leave(c)
	return p.perform(ctx, c, do)
}

// enter notes the call, and if another one of the same sandbox is not over yet.
func (p *plugin) enter(c *call) hook {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, c.String())
	if c.command == "GC" {
		p.valid[c.conf.Name] = c.conf.Valid
	}
	if other, in := p.inside[c.container]; in && c.container != "" {
		p.overlaps = append(p.overlaps, fmt.Sprintf("%s: %v during %s", c.container, c, other))
	}
	p.inside[c.container] = c.String()
	if do := p.hooks[c.String()]; do != nil {
		return do
	}
	return func(context.Context, *call) error { return nil }
}

func (p *plugin) leave(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.inside, c.container)
}

func (p *plugin) perform(ctx context.Context, c *call, do hook) ([]byte, error) {
	sandbox := p.sandboxes[c.netns]
	if c.command == "ADD" {
		link := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: c.ifname, Group: p.group}, PeerName: c.ifname + farEnd,
		}
		if err := sandbox.Netlink().LinkAdd(link); err != nil {
			return nil, err
		}
		result := fmt.Appendf(nil, `{"cniVersion":%q,"interfaces":[{"name":%q,"sandbox":%q}]}`,
			c.conf.CNIVersion, c.ifname, c.netns)
		return result, do(ctx, c)
	}
	if err := do(ctx, c); err != nil || sandbox == nil {
		return nil, err // of a namespace that is gone nothing is left
	}
	link, err := sandbox.Netlink().LinkByName(c.ifname)
	missing := errors.As(err, &netlink.LinkNotFoundError{})
	switch {
	case c.command == "DEL" && missing:
		return nil, nil
	case err != nil:
		return nil, err
	case c.command == "DEL":
		return nil, sandbox.Netlink().LinkDel(link)
	case len(c.conf.PrevResult) == 0:
		return nil, errors.New("CHECK without the result of ADD")
	}
	return nil, nil
}
