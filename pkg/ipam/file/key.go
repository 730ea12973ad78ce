package file

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/utils"
)

const (
	// lineBreak separates the container ID from the interface's name in a lease.
	lineBreak = "\r\n"
	// maxLease bounds what is read of a lease, in bytes; what is longer is none.
	maxLease = 4096
	// lastPrefix begins the names of the files with the addresses that were given last.
	lastPrefix = "last_reserved_ip."
)

// Key is who holds addresses: an interface of a container.
type Key struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// old is the key of leases that only have a container ID.
func (k Key) old() Key { return Key{ContainerID: k.ContainerID} }

// owns reports whether a lease is the key's, or may be, as it names no interface.
func (k Key) owns(l *lease) bool { return l.key == k || l.key == k.old() }

// String is for messages.
func (k Key) String() string {
	if k.IfName == "" {
		return "container " + k.ContainerID
	}
	return "container " + k.ContainerID + " interface " + k.IfName
}

// check says whether it can be a key (CNI 1.1 "Parameters"); then it is no other key's when it is read back.
func (k Key) check() error {
	if err := asError(utils.ValidateContainerID(k.ContainerID)); err != nil {
		return err
	}
	return asError(utils.ValidateInterfaceName(k.IfName))
}

// file is the name of the key's file in the index.
func (k Key) file() string {
	sum := sha256.Sum256([]byte(k.ContainerID + "\x00" + k.IfName))
	return hex.EncodeToString(sum[:nameBytes])
}

// lease is a lease as it was read.
type lease struct {
	addr netip.Addr
	key  Key
	// changed is when the file was made, or later; no copying of files makes it earlier.
	changed time.Time
}

// parse reads the content of a lease, with as little regard for white space as the reference.
func parse(content []byte) Key {
	id, ifName, _ := strings.Cut(strings.TrimSpace(string(content)), lineBreak)
	return Key{id, ifName}
}

// leaseName is the address that a file is named by.
func leaseName(name string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(name)
	return addr, err == nil && addr.Zone() == "" && addr.String() == name
}
