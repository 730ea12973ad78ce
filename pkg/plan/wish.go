package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/braid-cni/braid/pkg/selection"
)

// Wish is what a pod's annotation asks for at one of its elements. With the name of the network it
// is what makes one element another: their order does not, nor what the network is by now.
type Wish struct {
	// IfName is the interface name that the element has; empty where the plan chooses one.
	IfName string `json:"ifName,omitempty"`
	// Requests is all else that it has, as canonical JSON; empty for nothing.
	Requests json.RawMessage `json:"requests,omitempty"`
}

// wishOf returns the wish of an element.
func wishOf(s *selection.Selection) (*Wish, error) {
	wish := &Wish{IfName: s.Interface}
	if !hasRequests(s) {
		return wish, nil
	}
	requests := struct {
		IPs            []string                `json:"ips,omitempty"`
		MAC            string                  `json:"mac,omitempty"`
		InfinibandGUID string                  `json:"infinibandGUID,omitempty"`
		CNIArgs        any                     `json:"cniArgs,omitempty"`
		PortMappings   []selection.PortMapping `json:"portMappings,omitempty"`
		Bandwidth      *selection.Bandwidth    `json:"bandwidth,omitempty"`
		DefaultRoute   *[]netip.Addr           `json:"defaultRoute,omitempty"`
		IPAMClaim      string                  `json:"ipamClaim,omitempty"`
	}{
		IPs: s.IPs, MAC: strings.ToLower(s.MAC), InfinibandGUID: strings.ToLower(s.InfinibandGUID),
		PortMappings: s.PortMappings, Bandwidth: s.Bandwidth, IPAMClaim: s.IPAMClaim,
	}
	if s.DefaultRoute != nil {
		requests.DefaultRoute = &s.DefaultRoute
	}
	if len(s.CNIArgs) > 0 {
		raw, err := json.Marshal(s.CNIArgs)
		if err == nil {
			requests.CNIArgs, err = anyOrder(raw)
		}
		if err != nil {
			return nil, fmt.Errorf("encode cni-args: %w", err)
		}
	}
	var err error
	if wish.Requests, err = json.Marshal(requests); err != nil {
		return nil, fmt.Errorf("encode requests: %w", err)
	}
	return wish, nil
}

// hasRequests reports whether an element asks for more than an interface name.
func hasRequests(s *selection.Selection) bool {
	return len(s.IPs) > 0 || s.MAC != "" || s.InfinibandGUID != "" || len(s.CNIArgs) > 0 ||
		len(s.PortMappings) > 0 || s.Bandwidth != nil || s.DefaultRoute != nil || s.IPAMClaim != ""
}

// anyOrder decodes JSON so that encoded again it is the same text for objects whose keys are in
// another order. Numbers stay as they are written.
func anyOrder(raw json.RawMessage) (value any, err error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	err = dec.Decode(&value)
	return value, err
}

// sameJSON reports whether two texts mean the same; texts that are not JSON do not.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, errX := anyOrder(a)
	y, errY := anyOrder(b)
	if errX != nil || errY != nil {
		return false
	}
	p, errX := json.Marshal(x)
	q, errY := json.Marshal(y)
	return errX == nil && errY == nil && bytes.Equal(p, q)
}
