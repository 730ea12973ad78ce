package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/braid-cni/braid/pkg/attachment"
)

// The comment of a rule names the attachment that it is for: by two hashes, of the network's name
// and of the whole ID, and then by the names for people, as far as they fit.

const (
	// networkBytes is the length of the network's hash, keyLength that of both with what is between
	// them as text.
	networkBytes = 8
	keyLength    = 2*networkBytes + 1 + 32
	// maxComment is what nft shows of a comment, in bytes.
	maxComment = 127
)

// typeComment is NFTNL_UDATA_RULE_COMMENT of libnftnl: what the user data of a rule begins with if
// it is a comment.
const typeComment = 0

// keyOf returns the part of the comment that identifies the attachment.
func keyOf(id attachment.ID) string { return networkPrefix(id.Network) + id.Hash() }

// commentOf returns the comment of an attachment's rules: its key, and its names for people, cut
// to what a comment may be long.
func commentOf(id attachment.ID) string {
	names := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, id.Network+" "+id.IfName+" "+id.ContainerID)
	comment := keyOf(id) + " " + names
	return comment[:min(len(comment), maxComment)]
}

// networkPrefix returns what the keys of all attachments of a network begin with.
func networkPrefix(network string) string {
	sum := sha256.Sum256([]byte(network))
	return hex.EncodeToString(sum[:networkBytes]) + "-"
}

// userData returns a rule's user data with a comment: type, length, text, NUL.
func userData(comment string) []byte {
	return append(append([]byte{typeComment, byte(len(comment) + 1)}, comment...), 0)
}

// parseComment reads a rule's user data; key and names are empty where it names no attachment.
func parseComment(data []byte) (key, names string) {
	if len(data) < 2 || data[0] != typeComment {
		return "", ""
	}
	key, names, found := strings.Cut(strings.TrimRight(string(data[2:]), "\x00"), " ")
	if !found || len(key) != keyLength {
		return "", ""
	}
	return key, names
}
