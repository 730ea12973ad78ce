package portmap

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nft"
	"github.com/braid-cni/braid/pkg/plugin"
)

// conditions returns those of the family of a pod's address.
func (c *Conf) conditions(pod netip.Addr) (nft.Expr, error) {
	if pod.Is4() {
		return parseConditions("conditionsV4", c.ConditionsV4, true)
	}
	return parseConditions("conditionsV6", c.ConditionsV6, false)
}

// parseConditions reads the conditions that are the value of key, for IPv4 or IPv6. Of the
// languages of nft and iptables it knows matches of a source or destination (address or subnet) and
// of the interface that packets come in by:
//
//	ip|ip6 saddr|daddr [==|!=] ADDRESS    iifname [==|!=] NAME
//	[!] -s|-d ADDRESS                     [!] -i NAME
func parseConditions(key string, words []string, is4 bool) (nft.Expr, error) {
	p := &parser{words: strings.Fields(strings.Join(words, " ")), is4: is4}
	var all nft.Expr
	for len(p.words) > 0 {
		match, err := p.condition()
		if err != nil {
			return nil, plugin.ConfError(key, words, err.Error())
		}
		all = nft.Join(all, match)
	}
	return all, nil
}

// parser takes conditions from words, for one family.
type parser struct {
	words []string
	is4   bool
}

// next takes the next word; it is empty at the end.
func (p *parser) next() (word string) {
	if len(p.words) > 0 {
		word, p.words = p.words[0], p.words[1:]
	}
	return word
}

// either takes the next word if it is one of these.
func (p *parser) either(words ...string) bool {
	if len(p.words) == 0 || !slices.Contains(words, p.words[0]) {
		return false
	}
	p.next()
	return true
}

// condition takes one condition. Its first word shows whose language it is in: iptables has options
// there, nft has names.
func (p *parser) condition() (nft.Expr, error) {
	switch {
	case p.either("!"):
		return p.option(nft.IsNot)
	case len(p.words) > 0 && strings.HasPrefix(p.words[0], "-"):
		return p.option(nft.Is)
	}
	return p.expression()
}

// option takes a condition of iptables.
func (p *parser) option(compare nft.Comparison) (nft.Expr, error) {
	switch p.next() {
	case "-s", "--source":
		return p.address(nft.Source, compare)
	case "-d", "--destination":
		return p.address(nft.Destination, compare)
	case "-i", "--in-interface":
		return p.name(compare)
	}
	return nil, errUnknownCondition
}

// expression takes a condition of nft.
func (p *parser) expression() (nft.Expr, error) {
	family := "ip6"
	if p.is4 {
		family = "ip"
	}
	switch word := p.next(); {
	case word == family && p.either("saddr"):
		return p.address(nft.Source, p.comparison())
	case word == family && p.either("daddr"):
		return p.address(nft.Destination, p.comparison())
	case word == "iifname", word == "meta" && p.either("iifname"):
		return p.name(p.comparison())
	}
	return nil, errUnknownCondition
}

// comparison takes an operator of nft.
func (p *parser) comparison() nft.Comparison {
	if p.either("!=") {
		return nft.IsNot
	}
	p.either("==")
	return nft.Is
}

// address takes an address or a subnet, and matches it.
func (p *parser) address(
	match func(nft.Comparison, netip.Prefix) nft.Expr, compare nft.Comparison,
) (nft.Expr, error) {
	word := p.next()
	prefix, err := netip.ParsePrefix(word)
	if err != nil {
		var a netip.Addr
		if a, err = netip.ParseAddr(word); err == nil && a.Zone() == "" {
			prefix = single(a)
		}
	}
	if !prefix.IsValid() || prefix.Addr().Is4() != p.is4 {
		return nil, errors.New("has no address or subnet of its family where one must be")
	}
	return match(compare, prefix), nil
}

// name takes an interface's name, and matches it. One with a wildcard is not known here.
func (p *parser) name(compare nft.Comparison) (nft.Expr, error) {
	name := strings.Trim(p.next(), `"`)
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, `*+{}@$,"`) {
		return nil, errUnknownCondition
	}
	return nft.InputInterface(compare, name), nil
}

var errUnknownCondition = errors.New("has a condition other than an address or an interface")
