package file

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/braid-cni/braid/pkg/attachment"
)

const (
	// lineBreak separates the container ID from the interface's name in a lease.
	lineBreak = "\r\n"
	// maxLease bounds what is read of a lease, in bytes; what is longer is none.
	maxLease = 4096
	// lastPrefix begins the names of the files with the addresses that were given last.
	lastPrefix = "last_reserved_ip."
)

// The store is of one network: in it, attachments are told apart by the other two names.

// key checks that an attachment can have leases here. What is read back as its key is no other's.
func (s *Store) key(of attachment.ID) (attachment.ID, error) {
	if of.Network != s.Network {
		return attachment.ID{}, fmt.Errorf("%v has no addresses of network %.80q", of, s.Network)
	}
	return attachment.ID{ContainerID: of.ContainerID, IfName: of.IfName}, of.Validate()
}

// withoutInterface returns the key of leases that only have a container ID.
func withoutInterface(key attachment.ID) attachment.ID {
	return attachment.ID{ContainerID: key.ContainerID}
}

// entryName returns the name of the key's file in the index.
func entryName(key attachment.ID) string {
	sum := sha256.Sum256([]byte(key.ContainerID + "\x00" + key.IfName))
	return hex.EncodeToString(sum[:nameBytes])
}

// lease is a lease as it was read.
type lease struct {
	addr netip.Addr
	key  attachment.ID
	// changed is when the file was made, or later; no copying of files makes it earlier.
	changed time.Time
}

// isOf reports whether a lease is the key's, or may be, as it names no interface.
func (l *lease) isOf(key attachment.ID) bool {
	return l.key == key || l.key == withoutInterface(key)
}

// parse reads the content of a lease, with as little regard for white space as the reference.
func parse(content []byte) attachment.ID {
	id, ifName, _ := strings.Cut(strings.TrimSpace(string(content)), lineBreak)
	return attachment.ID{ContainerID: id, IfName: ifName}
}

// leaseName returns the address that a file is named by.
func leaseName(name string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(name)
	return addr, err == nil && addr.Zone() == "" && addr.String() == name
}
