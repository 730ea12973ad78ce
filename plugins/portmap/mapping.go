package portmap

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/plugin"
)

// mapping is an element of runtimeConfig.portMappings.
type mapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// forward is a mapping that was checked.
type forward struct {
	// index is the mapping's place in the list.
	index                   int
	protocol                byte
	hostPort, containerPort uint16
	// hostIP is invalid for addresses of both families, and unspecified for all of one.
	hostIP netip.Addr
}

// mappings returns those that the runtime asks for. With an error, they are those before the first
// wrong one.
func mappings(req *plugin.Request) ([]forward, error) {
	var runtime struct {
		PortMappings []mapping `json:"portMappings"`
	}
	if err := plugin.Part("runtimeConfig", req.Runtime, &runtime); err != nil {
		return nil, err
	}
	forwards := make([]forward, 0, len(runtime.PortMappings))
	for i, m := range runtime.PortMappings {
		f, err := m.forward(fmt.Sprintf("runtimeConfig.portMappings[%d]", i))
		if err != nil {
			return forwards, err
		}
		f.index = i
		forwards = append(forwards, f)
	}
	return forwards, nil
}

// forward checks the mapping, which is the value of key.
func (m mapping) forward(key string) (f forward, err error) {
	if f.protocol = protocolOf(m.Protocol); f.protocol == 0 {
		return f, plugin.ConfError(key+".protocol", m.Protocol, `give "tcp", "udp" or "sctp"`)
	}
	for _, port := range []struct {
		name  string
		value int
		to    *uint16
	}{{"hostPort", m.HostPort, &f.hostPort}, {"containerPort", m.ContainerPort, &f.containerPort}} {
		if port.value < 1 || port.value > math.MaxUint16 {
			return f, plugin.ConfError(key+"."+port.name, port.value,
				fmt.Sprintf("must be from 1 to %d", math.MaxUint16))
		}
		*port.to = uint16(port.value)
	}
	if m.HostIP == "" {
		return f, nil
	}
	f.hostIP, err = netip.ParseAddr(m.HostIP)
	if err != nil || f.hostIP.Zone() != "" {
		return f, plugin.ConfError(key+".hostIP", m.HostIP, "is no IP address")
	}
	f.hostIP = f.hostIP.Unmap()
	return f, nil
}

// protocolOf returns the number of a protocol, in whatever case; 0 if its ports cannot be mapped.
func protocolOf(name string) byte {
	switch strings.ToLower(name) {
	case "tcp":
		return unix.IPPROTO_TCP
	case "udp":
		return unix.IPPROTO_UDP
	case "sctp":
		return unix.IPPROTO_SCTP
	}
	return 0
}

// of reports whether the mapping is for a pod's address of that family.
func (f forward) of(pod netip.Addr) bool {
	return !f.hostIP.IsValid() || f.hostIP.Is4() == pod.Is4()
}
