package uplink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Passthru is the mode of a macvlan that takes its master over: the node has no use of it then.
const Passthru = "passthru"

// Guard keeps binaries from taking the node's links. It is an invoke.Guard, for one operation: it
// looks at the node before the first binary, after each, and where a link is named that was not
// there when it looked last.
type Guard struct {
	// Host returns a handle for the node's network namespace.
	Host func() (*nl.Handle, error)
	// Sysfs is where the kernel's devices are, "/sys".
	Sysfs string
	// Look looks at the node, for tests; nil for what Look of this package does.
	Look func(context.Context, *nl.Handle) (*Node, error)

	mu sync.Mutex
	// last is what the node was when it was looked at last; nil for not yet.
	last *Node
}

// Watch judges the links that a configuration names, by name, alternative name, index, MAC, or the
// path or bus ID of their device. What moves a link may not name one that the node or others use;
// what works on a master may not take over one that the node lives by. after finds uplinks that
// were taken though the configuration did not name them.
func (g *Guard) Watch(
	ctx context.Context, kind string, config []byte, limits *attachment.Limits,
) (after func(context.Context) error, err error) {
	host, err := g.Host()
	if err != nil {
		return nil, err
	}
	named := read(config)
	before, err := g.node(ctx, host, &named)
	if err != nil {
		return nil, err
	}
	for _, at := range named.moved {
		if err := g.judgeMoved(ctx, before, at); err != nil {
			return nil, err
		}
	}
	for _, link := range g.masters(ctx, host, before, kind, &named) {
		if err := judgeMaster(before, link, kind, named.passthru, limits); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) error { return g.compare(ctx, host, before) }, nil
}

// judgeMoved refuses to move a link that the node or others use.
func (g *Guard) judgeMoved(ctx context.Context, node *Node, named at) error {
	for _, link := range g.named(node, named.value) {
		use, err := node.Use(ctx, link)
		if err != nil {
			return err
		}
		if use != "" {
			return protected(named.key, fmt.Errorf("interface %s stays on the node: %s", link.Name, use),
				"choose a device that the node has no use for")
		}
	}
	return nil
}

// compare looks at the node again, and returns an error if an uplink is gone.
func (g *Guard) compare(ctx context.Context, host *nl.Handle, before *Node) error {
	now, err := g.look(ctx, host)
	if err != nil {
		return err
	}
	if link := now.Moved(before); link != nil {
		return protected("",
			fmt.Errorf("it took interface %s, which the node's default route needs", link.Name),
			"let the node's operator write this network")
	}
	return nil
}

// look looks at the node.
func (g *Guard) look(ctx context.Context, host *nl.Handle) (*Node, error) {
	look := g.Look
	if look == nil {
		look = Look
	}
	now, err := look(ctx, host)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = now
	return now, nil
}

// node returns the node as it was when it was looked at last. It looks again for a link that was
// not there: a plugin of this operation may have made it.
func (g *Guard) node(ctx context.Context, host *nl.Handle, named *names) (*Node, error) {
	g.mu.Lock()
	last := g.last
	g.mu.Unlock()
	known := func(value string) bool { return value == "" || len(g.named(last, value)) > 0 }
	if last == nil || slices.ContainsFunc(named.moved, func(a at) bool { return !known(a.value) }) ||
		slices.ContainsFunc(named.masters, func(master string) bool { return !known(master) }) {
		return g.look(ctx, host)
	}
	return last, nil
}

// masters returns the links of the node that a plugin works on.
func (g *Guard) masters(
	ctx context.Context, host *nl.Handle, node *Node, kind string, named *names,
) (links []*nl.Link) {
	switch {
	case named.inPod:
		return nil
	case len(named.masters) == 0 && slices.Contains(onDefault(), kind):
		link, err := host.DefaultLink(ctx)
		if err != nil {
			return nil // the plugin finds none either, and says so
		}
		return []*nl.Link{link}
	}
	for _, value := range named.masters {
		links = append(links, g.named(node, value)...)
	}
	return links
}

// judgeMaster refuses a master that the limits do not allow, and what would take the node's use of
// one that it lives by.
func judgeMaster(
	node *Node, link *nl.Link, kind string, passthru bool, limits *attachment.Limits,
) error {
	if !limits.MayBeMaster(append([]string{link.Name}, link.AltNames...)...) {
		return &failure.Error{
			Reason: failure.PolicyRefused, Field: "master",
			Err: fmt.Errorf("%s is none that networks of namespace %s may use",
				link.Name, limits.Namespace),
			Fix: "choose another master, or let the node's operator allow this one",
		}
	}
	switch {
	case !node.Uplink(link.Index):
	case !slices.Contains(sharing(), kind):
		return protected("master",
			fmt.Errorf("interface %s stays the node's, whose default route needs it, and what plugin %s "+
				"does to it is not known", link.Name, kind),
			"choose a master that the node has no use for")
	case passthru:
		return TakenOver("mode", link)
	}
	return nil
}

// sharing returns the plugins that make links on a master that it shares with others. onDefault are
// those of them whose master is that of the default route where they name none.
func sharing() []string {
	return append(onDefault(), "vlan", "ipoib", "macvtap", "ipvtap", "sriov", "ib-sriov")
}
func onDefault() []string { return []string{"macvlan", "ipvlan"} }

// TakenOver returns the error that a link would no longer be the node's.
func TakenOver(field string, link *nl.Link) error {
	return protected(field, fmt.Errorf("in mode %s interface %s would no longer be the node's, "+
		"whose default route needs it", Passthru, link.Name),
		"choose mode bridge, or a master that the node has no use for")
}

// protected returns the error that the node would lose something.
func protected(field string, err error, fix string) error {
	return &failure.Error{Reason: failure.NodeProtected, Field: field, Err: err, Fix: fix}
}

// names are what a configuration names links by.
type names struct {
	moved   []at
	masters []string
	inPod   bool
	// passthru is true if some mode is passthru.
	passthru bool
}

// at is a value and its key.
type at struct{ key, value string }

// read reads the keys by which known plugins name links, in whatever case, as they do.
func read(config []byte) (n names) {
	for _, m := range strictjson.Members(config) {
		switch strictjson.Fold(m.Key) {
		case "device", "hwaddr", "kernelpath", "pcibusid", "deviceid":
			n.move(m.Key, m.Value)
		case "runtimeconfig":
			n.runtimeConfig(m)
		case "master":
			isEmpty := func(value string) bool { return value == "" }
			n.masters = append(n.masters, slices.DeleteFunc(texts(m.Value), isEmpty)...)
		case "mode":
			n.passthru = n.passthru || slices.Contains(texts(m.Value), Passthru)
		case "linkincontainer":
			n.inPod = string(bytes.TrimSpace(m.Value)) == "true"
		}
	}
	return n
}

// runtimeConfig reads the key by which a runtime names a link.
func (n *names) runtimeConfig(m strictjson.Member) {
	for _, inner := range strictjson.Members(m.Value) {
		if strings.EqualFold(inner.Key, "deviceID") {
			n.move(m.Key+"."+inner.Key, inner.Value)
		}
	}
}

// move notes that the links that a value names are moved.
func (n *names) move(key string, value json.RawMessage) {
	for _, text := range texts(value) {
		n.moved = append(n.moved, at{key, text})
	}
}

// texts returns the strings and numbers of a value, which may be a list.
func texts(value json.RawMessage) []string {
	if list, err := strictjson.List(value); err == nil {
		var all []string
		for _, v := range list {
			all = append(all, texts(v)...)
		}
		return all
	}
	if text, err := strictjson.String(value); err == nil {
		return []string{text}
	}
	return []string{string(bytes.TrimSpace(value))}
}

// named returns the links that a value may mean.
func (g *Guard) named(node *Node, value string) (links []*nl.Link) {
	if value == "" {
		return nil
	}
	mac, merr := net.ParseMAC(value)
	index, ierr := strconv.Atoi(value)
	devices := g.devices(value)
	for _, link := range node.links {
		switch {
		case link.Name == value, slices.Contains(link.AltNames, value),
			ierr == nil && link.Index == index,
			merr == nil && (bytes.Equal(link.MAC, mac) ||
				bytes.Equal(link.PermanentMAC, mac)), g.of(link.Name, devices):
			links = append(links, link)
		}
	}
	return links
}

// devices returns the directories of the devices that a value may mean: a path, or the ID on a bus.
func (g *Guard) devices(value string) (dirs []string) {
	candidates := []string{value}
	if !strings.Contains(value, "/") && value != "." && value != ".." {
		// A pattern would only find more.
		pattern := filepath.Join(g.Sysfs, "bus", "*", "devices", value)
		candidates, _ = filepath.Glob(pattern) //nolint:errcheck // a malformed one is no ID
	}
	for _, path := range candidates {
		if dir, err := filepath.EvalSymlinks(path); err == nil && strings.HasPrefix(dir, g.Sysfs+"/") {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// of reports whether a link is one of these devices, or of one below them.
func (g *Guard) of(link string, devices []string) bool {
	if len(devices) == 0 {
		return false
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(g.Sysfs, "class", "net", link))
	return err == nil && slices.ContainsFunc(devices, func(d string) bool {
		return dir == d || strings.HasPrefix(dir, d+"/")
	})
}
