package plugin

import (
	"errors"

	"github.com/braid-cni/braid/pkg/nft"
)

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

// Unfilter is Filter for what takes something away: of a packet filter that the kernel does not
// have, nothing is there.
func (r *Request) Unfilter(do func(*nft.Conn) error) error {
	err := r.Filter(do)
	if errors.Is(err, nft.ErrUnsupported) {
		return nil
	}
	return err
}
