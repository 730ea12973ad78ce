package block

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

// Size is the number of addresses of a block.
const Size = 16

const (
	blockBits4 = 32 - 4
	blockBits6 = 128 - 4

	// defaultSpace is that of networks without a network_name.
	defaultSpace = "default"
	maxSpaceName = 63
	keptOfName   = 40
)

// plain are names that stand for themselves: none of them looks like one that was made up below.
var (
	plain  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	madeUp = regexp.MustCompile(`(^|-)x[0-9a-f]{8}$`)
	odd    = regexp.MustCompile(`[^a-z0-9]+`)
	space  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}(\.r[0-9a-f]{8})?$`)
)

// SpaceOf is the space of a network_name, which may be empty, and, where ranges of different NADs may overlap, of a range. It is a DNS-1123
// subdomain.
func SpaceOf(networkName, onlyRange string) string {
	s := networkName
	switch {
	case s == "":
		s = defaultSpace
	case s == defaultSpace || len(s) > maxSpaceName || !plain.MatchString(s) || madeUp.MatchString(s):
		kept := strings.Trim(odd.ReplaceAllString(strings.ToLower(s), "-"), "-")
		kept = strings.TrimRight(kept[:min(len(kept), keptOfName)], "-")
		s = strings.TrimLeft(kept+"-x"+shortHash(s), "-")
	}
	if onlyRange != "" {
		s += ".r" + shortHash(onlyRange)
	}
	return s
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return fmt.Sprintf("%x", sum[:4])
}

// blockOf is the block that has the address.
func blockOf(a netip.Addr) netip.Prefix { return alloc.BlockOf(a, blockBits(a)) }

// blockBits is the prefix length of the blocks of the address's family.
func blockBits(a netip.Addr) int {
	if a.Is4() {
		return blockBits4
	}
	return blockBits6
}

// NameOf is the name of the object of a block.
func NameOf(space string, cidr netip.Prefix) string {
	text := cidr.Addr().String()
	if cidr.Addr().Is6() {
		text = cidr.Addr().StringExpanded()
	}
	return fmt.Sprintf("%s-%s-%d", space, strings.NewReplacer(".", "-", ":", "-").Replace(text), cidr.Bits())
}

// ParseBlock reads the CIDR of a block: aligned, and of a block's size.
func ParseBlock(cidr string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil || p != blockOf(p.Addr()) || p.String() != cidr {
		return netip.Prefix{}, fmt.Errorf("%.64q is no block of %d addresses", cidr, Size)
	}
	return p, nil
}
