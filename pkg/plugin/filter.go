package plugin

import (
	"errors"

	"github.com/braid-cni/braid/pkg/nft"
)

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

// Filter connects to the node's packet filter for as long as do works.
func (r *Request) Filter(do func(*nft.Conn) error) error {
	ns, _, err := r.Host()
	if err != nil {
		return err
	}
	conn, err := nft.Open(ns)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(conn)
}

// Unfilter is Filter for what takes something away: of a packet filter that the kernel does not have, nothing is there.
func (r *Request) Unfilter(do func(*nft.Conn) error) error {
	err := r.Filter(do)
	if errors.Is(err, nft.ErrUnsupported) {
		return nil
	}
	return err
}
