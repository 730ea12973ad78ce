package kubelet

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of k8s.io/kubelet/pkg/apis/podresources/v1, in as far as they are of use. The
// generated types cost 5 MB of binary, for the reflection that they are made of.
//
//	GetPodResourcesRequest       { string pod_name = 1; string pod_namespace = 2; }
//	GetPodResourcesResponse      { PodResources pod_resources = 1; }
//	ListPodResourcesResponse     { repeated PodResources pod_resources = 1; }
//	AllocatableResourcesResponse { repeated ContainerDevices devices = 1; }
//	PodResources                 { string name = 1; string namespace = 2;
//	                               repeated ContainerResources containers = 3; }
//	ContainerResources           { string name = 1; repeated ContainerDevices devices = 2; }
//	ContainerDevices             { string resource_name = 1; repeated string device_ids = 2; }
type podResources struct {
	name, namespace string
	devices         map[string][]string // sorted IDs by resource name
}

func encodePodRequest(namespace, pod string) []byte {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendString(b, pod)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendString(b, namespace)
}

// decodeGetResponse returns nil where the answer holds no pod.
func decodeGetResponse(message []byte) (*podResources, error) {
	all, err := decodeListResponse(message)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// decodeListResponse also reads a GetPodResourcesResponse, which is a list of at most one.
func decodeListResponse(message []byte) ([]*podResources, error) {
	var all []*podResources
	err := fields(message, func(number protowire.Number, value []byte) error {
		if number != 1 {
			return nil
		}
		p, err := decodePod(value)
		all = append(all, p)
		return err
	})
	return all, err
}

// decodeAllocatableResponse returns the node's devices as those of a pod without a name.
func decodeAllocatableResponse(message []byte) (*podResources, error) {
	node := &podResources{devices: map[string][]string{}}
	return node, fields(message, func(number protowire.Number, value []byte) error {
		if number != 1 {
			return nil
		}
		return node.addDevices(value)
	})
}

func decodePod(message []byte) (*podResources, error) {
	p := &podResources{devices: map[string][]string{}}
	err := fields(message, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			p.name = string(value)
		case 2:
			p.namespace = string(value)
		case 3:
			return fields(value, func(number protowire.Number, value []byte) error {
				if number != 2 {
					return nil
				}
				return p.addDevices(value)
			})
		}
		return nil
	})
	for name, ids := range p.devices {
		slices.Sort(ids)
		p.devices[name] = slices.Compact(ids)
	}
	return p, err
}

// addDevices adds a ContainerDevices; a resource may come in several, one for each NUMA node and
// container.
func (p *podResources) addDevices(message []byte) error {
	var resource string
	var ids []string
	err := fields(message, func(number protowire.Number, value []byte) error {
		switch number {
		case 1:
			resource = string(value)
		case 2:
			ids = append(ids, string(value))
		}
		return nil
	})
	if len(ids) > 0 {
		p.devices[resource] = append(p.devices[resource], ids...)
	}
	return err
}

// fields calls visit for each field of a message that holds bytes: a string or a message. Others
// are passed over.
func fields(message []byte, visit func(number protowire.Number, value []byte) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return fmt.Errorf("decode answer: %w", protowire.ParseError(n))
		}
		message = message[n:]
		size := protowire.ConsumeFieldValue(number, kind, message)
		if size < 0 {
			return fmt.Errorf("decode answer: %w", protowire.ParseError(size))
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message)
			if err := visit(number, value); err != nil {
				return err
			}
		}
		message = message[size:]
	}
	return nil
}
