// Package platform knows where the container runtime of a Kubernetes distribution looks for CNI
// configurations and plugins.
//
// Contract: what is detected is a default. The operator overrides the profile or any directory.
package platform

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
)

// Place is where things go on a node. The paths are absolute.
type Place struct {
	// Profile is the name of the profile that it is of.
	Profile string
	// Conf is the runtime's configuration directory, Bin its plugin directory.
	Conf, Bin string
	// Private is a directory for the default network's configuration, where the runtime does not
	// look.
	Private string
}

// profile describes a distribution.
type profile struct {
	name string
	// marks are paths, one of which is there on the distribution's nodes; id is in /etc/os-release.
	marks []string
	id    string
	conf  string
	// bins are the plugin directories of its versions, the latest first.
	bins    []string
	private string
}

const (
	plainConf = "/etc/cni/net.d"
	plainBin  = "/opt/cni/bin"
	rancher   = "/var/lib/rancher"
	snap      = "/var/snap/microk8s/current"
)

// profiles are in the order of detection; the last fits every node.
func profiles() []profile {
	return []profile{
		{
			// Without its own flannel, k3s leaves containerd its defaults.
			name: "k3s", marks: []string{rancher + "/k3s/agent/etc/cni/net.d"},
			conf: rancher + "/k3s/agent/etc/cni/net.d",
			// Since October 2024 the directory is the same for all releases; before, a link named the
			// current one.
			bins: []string{rancher + "/k3s/data/cni", rancher + "/k3s/data/current/bin"},
		},
		{name: "rke2", marks: []string{rancher + "/rke2"}, conf: plainConf, bins: []string{plainBin}},
		{
			name: "microk8s", marks: []string{snap + "/args"}, conf: snap + "/args/cni-network",
			bins: []string{snap + "/opt/cni/bin"},
		},
		{
			// The default network of OpenShift writes to a directory of its own, which is named after
			// Multus.
			name: "openshift", marks: []string{"/etc/kubernetes/cni/net.d"},
			conf: "/etc/kubernetes/cni/net.d",
			bins: []string{"/var/lib/cni/bin"}, private: "/run/multus/cni/net.d",
		},
		{
			name: "gke", marks: []string{"/home/kubernetes/bin"}, conf: plainConf,
			bins: []string{"/home/kubernetes/bin"},
		},
		{name: "talos", id: "talos", conf: plainConf, bins: []string{plainBin}},
		{
			name: "minikube", marks: []string{"/var/lib/minikube"}, conf: plainConf,
			bins: []string{plainBin},
		},
		{name: "plain", conf: plainConf, bins: []string{plainBin}},
	}
}

// Names lists the profiles.
func Names() (all []string) {
	for _, p := range profiles() {
		all = append(all, p.name)
	}
	return all
}

// Find returns the place of things on the node whose root directory that is. override names a
// profile, or directories, that are not to be detected.
func Find(root string, override Place) (Place, error) {
	p, err := choose(root, override.Profile)
	if err != nil {
		return Place{}, err
	}
	place := Place{Profile: p.name, Conf: cmp.Or(override.Conf, p.conf), Bin: override.Bin}
	if place.Bin == "" {
		place.Bin = p.bin(root)
	}
	place.Private = cmp.Or(override.Private, p.privateFor(override.Conf))
	for _, dir := range []struct {
		field string
		path  *string
	}{{"conf-dir", &place.Conf}, {"bin-dir", &place.Bin}, {"private-dir", &place.Private}} {
		if !filepath.IsAbs(*dir.path) {
			return Place{}, invalid(dir.field, "give an absolute path", "%q is not absolute", *dir.path)
		}
		*dir.path = filepath.Clean(*dir.path)
	}
	if place.Private == place.Conf {
		return Place{}, invalid("private-dir", "give a directory of its own", "%s is the runtime's",
			place.Conf)
	}
	return place, nil
}

// privateFor returns the private directory beside the runtime's directory, which is conf if that is
// not empty and the profile's otherwise.
func (p profile) privateFor(conf string) string {
	if p.private != "" && conf == "" {
		return p.private
	}
	return filepath.Join(filepath.Dir(cmp.Or(conf, p.conf)), "braid.d")
}

// invalid is the error of a field of Braid's configuration.
func invalid(field, fix, format string, args ...any) error {
	return &failure.Error{
		Reason: failure.InvalidConfig, Field: field, Err: fmt.Errorf(format, args...), Fix: fix,
	}
}

// choose returns the profile of that name, or that which the node shows.
func choose(root, name string) (profile, error) {
	all := profiles()
	for _, p := range all {
		if name == p.name || name == "" && p.fits(root) {
			return p, nil
		}
	}
	if name == "" {
		return all[len(all)-1], nil
	}
	return profile{}, invalid("platform", "use one of "+strings.Join(Names(), ", "),
		"%q is none that is known", name)
}

// fits reports whether the node has a mark of the profile, or its operating system's ID.
func (p *profile) fits(root string) bool {
	for _, mark := range p.marks {
		if _, err := os.Stat(filepath.Join(root, mark)); err == nil {
			return true
		}
	}
	return p.id != "" && osID(root) == p.id
}

// bin returns the plugin directory of this node's version: the first that is there, else the
// latest.
func (p *profile) bin(root string) string {
	for _, dir := range p.bins {
		if info, err := os.Stat(filepath.Join(root, dir)); err == nil && info.IsDir() {
			return dir
		}
	}
	return p.bins[0]
}

// osID returns the ID of os-release(5).
func osID(root string) string {
	raw, err := os.ReadFile(filepath.Join(root, "etc", "os-release"))
	if err != nil {
		return ""
	}
	id := regexp.MustCompile(`(?m)^ID=["']?([a-z0-9._-]+)["']?\s*$`).FindSubmatch(raw)
	if id == nil {
		return ""
	}
	return string(id[1])
}
