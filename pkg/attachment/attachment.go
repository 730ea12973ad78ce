// Package attachment names the attachments of containers to networks, and says what each may do to
// its node.
//
// Contract: two attachments are the same if and only if their IDs are equal. The JSON form and the
// hash of an ID are in files and in comments of rules on nodes: they never change. Limits are in
// records; nil Limits allow everything.
package attachment

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
)

// ID is what names an attachment in CNI: no other one has the same three names.
type ID struct {
	// Network is the name in the network's configuration.
	Network     string `json:"network"`
	ContainerID string `json:"containerID"`
	// IfName is the name of the interface in the container.
	IfName string `json:"ifName"`
}

// InNetwork returns the IDs of attachments that a runtime lists for a network; never nil.
func InNetwork(network string, listed []types.GCAttachment) []ID {
	ids := make([]ID, len(listed))
	for i, a := range listed {
		ids[i] = ID{network, a.ContainerID, a.IfName}
	}
	return ids
}

// String is for messages. Names that are empty are left out.
func (id ID) String() string {
	text := "container " + id.ContainerID
	if id.IfName != "" {
		text += " interface " + id.IfName
	}
	if id.Network != "" {
		text += " in network " + id.Network
	}
	return text
}

// Validate checks that a runtime can have passed these names (CNI 1.1 "Parameters"). Such names
// have no white space, no slash and no NUL byte, so they can be parts of lines and of file names.
func (id ID) Validate() error {
	if err := utils.ValidateNetworkName(id.Network); err != nil {
		return fmt.Errorf("network name %.80q: %w", id.Network, err)
	}
	if err := utils.ValidateContainerID(id.ContainerID); err != nil {
		return err
	}
	if err := utils.ValidateInterfaceName(id.IfName); err != nil {
		return err
	}
	return nil
}

// hashBytes is the length of a hash before it is written in hexadecimal.
const hashBytes = 16

// Hash returns a name for files of the attachment: 32 hexadecimal digits.
func (id ID) Hash() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{id.Network, id.ContainerID, id.IfName}, "\x00")))
	return hex.EncodeToString(sum[:hashBytes])
}
