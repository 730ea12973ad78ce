package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Tag says which attachment a rule is for. It is in the rule's comment: two hashes that tell attachments apart, of the network's name and
// of all three names, and then the names for people, as far as they fit.
type Tag struct{ Network, ContainerID, IfName string }

// Lengths in bytes.
const (
	networkHash    = 8
	attachmentHash = 16
	// maxComment is what nft shows of a comment.
	maxComment = 127
)

// typeComment is NFTNL_UDATA_RULE_COMMENT of libnftnl: what the user data of a rule begins with if it is a comment.
const typeComment = 0

// key is the part of the comment that identifies the attachment.
func (t Tag) key() string {
	return networkPrefix(t.Network) + short(attachmentHash, t.Network, t.ContainerID, t.IfName)
}

func (t Tag) comment() string {
	names := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, t.Network+" "+t.IfName+" "+t.ContainerID)
	comment := t.key() + " " + names
	return comment[:min(len(comment), maxComment)]
}

// networkPrefix is what the keys of all attachments of a network begin with.
func networkPrefix(network string) string { return short(networkHash, network) + "-" }

// userData is a rule's user data with a comment: type, length, text, NUL.
func userData(comment string) []byte {
	return append(append([]byte{typeComment, byte(len(comment) + 1)}, comment...), 0)
}

// parseComment reads a rule's user data; key and names are empty where it holds no tag.
func parseComment(data []byte) (key, names string) {
	if len(data) < 2 || data[0] != typeComment {
		return "", ""
	}
	key, names, found := strings.Cut(strings.TrimRight(string(data[2:]), "\x00"), " ")
	if !found || len(key) != 2*networkHash+1+2*attachmentHash {
		return "", ""
	}
	return key, names
}

// short is a hash of names, which hold no NUL byte, in hexadecimal.
func short(length int, names ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(names, "\x00")))
	return hex.EncodeToString(sum[:length])
}
