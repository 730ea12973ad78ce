package whereabouts

import (
	"errors"
	"path/filepath"
	"slices"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// LogRoots returns where the key log_file may lead to in a configuration that is not the
// administrator's.
func LogRoots() hostfile.Roots { return hostfile.Roots{"/var/log"} }

// unheeded is a key that names a file of the node and has no effect. Who can write a network's
// configuration need not be trusted with the node's files.
type unheeded struct {
	key, value string
	// clear empties the key.
	clear    func(*Conf)
	why, fix string
}

// unheeded returns those of a configuration.
func (p Plugin) unheeded(c *Conf) []unheeded {
	var list []unheeded
	if c.LogFile != "" && !p.isLog(c.LogFile) {
		list = append(list, unheeded{
			"ipam.log_file", c.LogFile, func(c *Conf) { c.LogFile = "" },
			"is not beneath /var/log",
			"choose a file there, or leave the key out: Braid's own log has it, too",
		})
	}
	if p.Trusting {
		return list
	}
	if c.ConfigurationPath != "" && !slices.Contains(p.Files, filepath.Clean(c.ConfigurationPath)) {
		list = append(list, unheeded{
			"ipam.configuration_path", c.ConfigurationPath, func(c *Conf) { c.ConfigurationPath = "" },
			"is not where this node has the file", "leave the key out",
		})
	}
	if c.Kubernetes.Kubeconfig != "" {
		list = append(list, unheeded{
			"ipam.kubernetes.kubeconfig", c.Kubernetes.Kubeconfig,
			func(c *Conf) { c.Kubernetes.Kubeconfig = "" },
			"is not asked: Braid reaches the API server by its own", "leave the key out",
		})
	}
	return list
}

// isLog reports whether a log file may be at a path.
func (p Plugin) isLog(path string) bool {
	_, ok := p.Logs.Place(path)
	return ok
}

// heeded returns the configuration without the keys that have no effect.
func (p Plugin) heeded(c *Conf) *Conf {
	copied := *c
	for _, u := range p.unheeded(c) {
		u.clear(&copied)
	}
	return &copied
}

// Ignored are warnings of the keys that have no effect.
func (p Plugin) Ignored(c *Conf) []*failure.Error {
	var warnings []*failure.Error
	for _, u := range p.unheeded(c) {
		warnings = append(warnings, &failure.Error{
			Reason: failure.IgnoredKey, Field: u.key, Fix: u.fix,
			Err: errors.New("the key is ignored: " + strictjson.Quote(u.value) + " " + u.why),
		})
	}
	return warnings
}
