package plugin

import "github.com/braid-cni/braid/pkg/nft"

// Tag is the attachment of the request, as rules of the packet filter name it.
func (r *Request) Tag() nft.Tag {
	return nft.Tag{Network: r.Network, ContainerID: r.ContainerID, IfName: r.IfName}
}

// ValidTags are the attachments of Valid.
func (r *Request) ValidTags() []nft.Tag {
	tags := make([]nft.Tag, len(r.Valid))
	for i, v := range r.Valid {
		tags[i] = nft.Tag{Network: r.Network, ContainerID: v.ContainerID, IfName: v.IfName}
	}
	return tags
}
