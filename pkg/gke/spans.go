package gke

import (
	"net/netip"
	"slices"

	"github.com/braid-cni/braid/pkg/nodenet"
)

// merged are spans in order, those that touch each other as one.
func merged(spans []nodenet.Span) (all []nodenet.Span) {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b nodenet.Span) int { return a.First.Compare(b.First) })
	for _, s := range spans {
		if n := len(all) - 1; n >= 0 && all[n].Last.Next() == s.First {
			all[n].Last = s.Last
			continue
		}
		all = append(all, s)
	}
	return all
}

// prefixes returns the fewest that are a span together.
func prefixes(s nodenet.Span) (all []string) {
	for at := s.First; at.IsValid() && at.Compare(s.Last) <= 0; {
		p := netip.PrefixFrom(at, at.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(at, p.Bits()-1)
			if wider.Masked().Addr() != at || nodenet.LastOf(wider).Compare(s.Last) > 0 {
				break
			}
			p = wider
		}
		all = append(all, p.String())
		at = nodenet.LastOf(p).Next()
	}
	return all
}
