package block

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

// Size is the number of addresses of a block.
const Size = 16

const (
	blockBits4 = 32 - 4
	blockBits6 = 128 - 4

	// defaultSpace is the space of networks without a network_name.
	defaultSpace = "default"
	maxSpaceName = 63
	keptOfName   = 40
)

// The parts of a name that was made up: a hash after a mark. Patterns would be compiled at each
// start of the plugin, for a millisecond.
const (
	nameMark  = 'x'
	rangeMark = 'r'
)

// marked reports whether s is a hash with its mark.
func marked(s string, mark byte) bool {
	return (len(s) == 1+2*hashBytes || len(s) == 1+2*longBytes) && s[0] == mark &&
		strings.Trim(s[1:], "0123456789abcdef") == ""
}

// plain reports whether a name stands for itself: a DNS-1123 label that does not look like one that
// was made up.
func plain(s string) bool {
	last := s[strings.LastIndexByte(s, '-')+1:]
	return len(s) <= maxSpaceName && strings.IndexFunc(s, odd) < 0 && s != "" &&
		strings.Trim(s, "-") == s && !marked(last, nameMark)
}

// odd reports whether a label cannot have the character.
func odd(r rune) bool { return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }

// isSpace reports whether it is one of SpaceOf's.
func isSpace(s string) bool {
	name, onlyRange, ranged := strings.Cut(s, ".")
	return name != "" && len(name) <= maxSpaceName && strings.IndexFunc(name, odd) < 0 &&
		name[0] != '-' && (!ranged || marked(onlyRange, rangeMark))
}

// SpaceOf returns the space of a network_name, which may be empty, and, where ranges of different
// NADs may overlap, of a range. It is a DNS-1123 subdomain.
func SpaceOf(networkName, onlyRange string) string {
	s := networkName
	switch {
	case s == "":
		s = defaultSpace
	case s == defaultSpace || !plain(s):
		sum := shortHash
		if strings.Contains(s, ".") { // it may be that of a tenant, who must not find another's
			sum = longHash
		}
		kept := strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
			return r == '-' || odd(r)
		}), "-")
		kept = strings.TrimRight(kept[:min(len(kept), keptOfName)], "-")
		s = strings.TrimLeft(kept+"-"+string(nameMark)+sum(s), "-")
	}
	if onlyRange != "" {
		s += "." + string(rangeMark) + shortHash(onlyRange)
	}
	return s
}

const (
	hashBytes = 4
	// longBytes is the length of one that nobody can find another name for.
	longBytes = 10
)

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return fmt.Sprintf("%x", sum[:hashBytes])
}

func longHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return fmt.Sprintf("%x", sum[:longBytes])
}

// blockOf returns the block that has the address.
func blockOf(a netip.Addr) netip.Prefix { return alloc.BlockOf(a, blockBits(a)) }

// blockBits returns the prefix length of the blocks of the address's family.
func blockBits(a netip.Addr) int {
	if a.Is4() {
		return blockBits4
	}
	return blockBits6
}

// NameOf returns the name of the object of a block.
func NameOf(space string, cidr netip.Prefix) string {
	text := cidr.Addr().String()
	if cidr.Addr().Is6() {
		text = cidr.Addr().StringExpanded()
	}
	label := strings.Map(func(r rune) rune {
		if odd(r) {
			return '-'
		}
		return r
	}, text)
	return fmt.Sprintf("%s-%s-%d", space, label, cidr.Bits())
}

// ParseBlock reads the CIDR of a block: aligned, and of a block's size.
func ParseBlock(cidr string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil || p != blockOf(p.Addr()) || p.String() != cidr {
		return netip.Prefix{}, fmt.Errorf("%.64q is no block of %d addresses", cidr, Size)
	}
	return p, nil
}
