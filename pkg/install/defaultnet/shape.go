package defaultnet

import (
	"encoding/json"
	"strings"

	"github.com/braid-cni/braid/pkg/netconf"
)

// shape is what tells configurations apart.
type shape struct {
	Name    string
	Type    string
	Plugins []struct {
		Type   string
		Bridge string
	}
	Args struct {
		PodmanLabels json.RawMessage `json:"podman_labels"`
	}
	NerdctlID json.RawMessage `json:"nerdctlID"`
}

// meta returns the type of the first plugin that attaches pods to networks itself.
func (s *shape) meta() string {
	if netconf.IsMeta(s.Type) {
		return s.Type
	}
	for _, p := range s.Plugins {
		if netconf.IsMeta(p.Type) {
			return p.Type
		}
	}
	return ""
}

// stopGap recognises what is on nodes without being a cluster's network: what podman and nerdctl
// made for containers of their own, what CRI-O's package has so that CRI-O starts, and the loopback
// of old runtimes. It is for conflists.
func (s *shape) stopGap() string {
	bridges := 0
	for _, p := range s.Plugins {
		switch {
		case strings.HasPrefix(p.Bridge, "cni-podman"):
			return "is podman's own"
		case p.Type == "bridge":
			bridges++
		case p.Type == "loopback" && len(s.Plugins) == 1:
			return "is a loopback alone"
		}
	}
	switch {
	case s.Name == "podman" && bridges > 0, s.Args.PodmanLabels != nil:
		return "is podman's own"
	case s.Name == "crio" && bridges > 0:
		return "is CRI-O's stop-gap"
	case s.NerdctlID != nil:
		return "is nerdctl's own"
	}
	return ""
}
