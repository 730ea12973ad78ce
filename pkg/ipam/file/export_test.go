package file

import (
	"net/netip"
	"slices"
)

// Named makes leases as on a file system without O_TMPFILE.
func (s *Store) Named() { s.named = true }

// After is the order in which addresses are given away.
func (s Set) After(last netip.Addr) []netip.Addr { return slices.Collect(s.after(last)) }

// Size is how many there are.
func (s Set) Size() uint64 { return s.size() }

// BootID and BootTime are the kernel's.
var (
	BootID   = Boot{}.id
	BootTime = Boot{}.time
)
