package tuning

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/sysctl"
)

// Conf is the plugin's configuration.
type Conf struct {
	plugin.Common
	// DataDir is the directory with the backups, beneath one of Plugin.Roots, "/run/cni/tuning" by
	// default. Networks may share it.
	DataDir string `json:"dataDir,omitempty"`
	// Sysctl are parameters below net, written as in sysctl.d(5), and their values. The first
	// IFNAME in a key is the pod's interface.
	Sysctl map[string]string `json:"sysctl"`
	// MAC is the address of the interface; a pod's request overrides it.
	MAC string `json:"mac,omitempty"`
	// Promisc makes the interface take packets for any MAC.
	Promisc bool `json:"promisc,omitempty"`
	// MTU in bytes; 0 leaves it as it is.
	MTU int `json:"mtu,omitempty"`
	// TxQLen is the length of the transmit queue in packets.
	TxQLen *int `json:"txQLen,omitempty"`
	// AllMulti makes the interface take packets for any multicast address, or not.
	AllMulti *bool `json:"allmulti,omitempty"`
}

const (
	defaultDataDir = "/run/cni/tuning"
	// defaultAllowlist has a regular expression in each line; a key that none of them matches
	// somewhere is refused.
	defaultAllowlist = "/etc/cni/tuning/allowlist.conf"
)

// wanted is what an attachment is to have: the configuration with what the pod asks for.
type wanted struct {
	// keys are the keys of sysctls as they were given.
	keys       []string
	sysctls    []sysctl.Setting
	attributes attributes
}

// wanted merges the sources: args.cni comes before the configuration, for the MAC also before
// runtimeConfig and CNI_ARGS.
func (c *Conf) wanted(req *plugin.Request) (*wanted, error) {
	var args struct {
		Sysctl   map[string]string `json:"sysctl"`
		Promisc  *bool             `json:"promisc"`
		MTU      *int              `json:"mtu"`
		AllMulti *bool             `json:"allmulti"`
		TxQLen   *int              `json:"txQLen"`
	}
	if err := plugin.Part("args.cni", req.CNIArgs, &args); err != nil {
		return nil, err
	}
	mac, err := req.MACFrom(c.MAC, plugin.EnvMAC, plugin.RuntimeMAC, plugin.ArgsMAC)
	if err != nil {
		return nil, err
	}
	w := &wanted{attributes: attributes{
		MAC: mac.String(), MTU: *cmp.Or(args.MTU, &c.MTU), TxQLen: cmp.Or(args.TxQLen, c.TxQLen),
		AllMulti: cmp.Or(args.AllMulti, c.AllMulti),
	}}
	// Not to be asked for promiscuous mode leaves it as it is.
	if promisc := cmp.Or(args.Promisc, &c.Promisc); *promisc {
		w.attributes.Promisc = promisc
	}
	for key, value := range map[string]*int{"mtu": &w.attributes.MTU, "txQLen": w.attributes.TxQLen} {
		if value != nil && (*value < 0 || *value > math.MaxInt32) {
			return nil, plugin.ConfError(key, *value, "must be from 0 to 2147483647")
		}
	}
	asked := map[string]string{}
	maps.Copy(asked, c.Sysctl)
	maps.Copy(asked, args.Sysctl)
	return w, w.setSysctls(asked, req.IfName)
}

// setSysctls takes parameters, by their keys, for the pod's interface ifName.
func (w *wanted) setSysctls(asked map[string]string, ifName string) error {
	for _, key := range slices.Sorted(maps.Keys(asked)) {
		path, err := sysctlPath(key, ifName)
		if err != nil {
			return err
		}
		w.keys, w.sysctls = append(w.keys, key), append(w.sysctls,
			sysctl.Setting{Key: path, Value: asked[key]})
	}
	return nil
}

// Validate judges the values and the names of parameters; the allowlist is the node's.
func (c *Conf) Validate() error {
	_, err := c.wanted(&plugin.Request{ID: attachment.ID{IfName: "net1"}})
	return err
}

// sysctlPath returns the path below /proc/sys of a parameter, as sysctl.d(5) reads its key: the
// first separator decides. After a slash, dots are part of names, as in
// net/ipv4/conf/net1.5/arp_announce; after a dot, the two change places, as in
// net.ipv4.conf.net1/5.arp_announce.
func sysctlPath(key, ifName string) (string, error) {
	path := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		path = strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	// An allowlist matches the key: it must lead where it seems to lead.
	ups := func(name string) bool { return name == "." || name == ".." }
	if slices.ContainsFunc(strings.Split(path, "/"), ups) {
		return "", plugin.ConfError("sysctl", key,
			"has a name of dots alone; write the parameter's path without detours")
	}
	path = filepath.Clean(strings.Replace(path, "IFNAME", ifName, 1))
	if _, err := sysctl.Path(path); err != nil {
		return "", plugin.ConfError("sysctl", key, "is no parameter below net")
	}
	return path, nil
}

// parseAllowlist compiles the regular expressions of an allowlist, one in each line.
func parseAllowlist(text string) (patterns []*regexp.Regexp, err error) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		pattern, err := regexp.Compile(line)
		if err != nil {
			return nil, err
		}
		patterns = append(patterns, pattern)
	}
	return patterns, nil
}

// permit refuses parameters that the allowlist does not have. Without a list everything is allowed;
// with one that is empty, nothing.
func (p Plugin) permit(keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	list := cmp.Or(p.Allowlist, defaultAllowlist)
	data, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the allowlist of sysctls: %w", err)
	}
	patterns, err := parseAllowlist(string(data))
	if err != nil {
		return fmt.Errorf("allowlist %s: %w", list, err)
	}
	for _, key := range keys {
		if !slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(key) }) {
			return plugin.ConfError("sysctl", key, "is not on the node's allowlist, "+list)
		}
	}
	return nil
}
