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

func (p *parser) condition() (nft.Expr, error) {
	family := "ip6"
	if p.is4 {
		family = "ip"
	}
	compare := nft.Is
	if p.either("!") {
		compare = nft.IsNot
	}
	match := nft.Source
	switch word := p.next(); {
	case word == "-s", word == "--source":
	case word == "-d", word == "--destination":
		match = nft.Destination
	case word == "-i", word == "--in-interface":
		return p.name(compare)
	case compare == nft.IsNot:
		return nil, errUnknownCondition
	case word == family && p.either("saddr"):
		compare = p.comparison()
	case word == family && p.either("daddr"):
		match, compare = nft.Destination, p.comparison()
	case word == "iifname", word == "meta" && p.either("iifname"):
		return p.name(p.comparison())
	default:
		return nil, errUnknownCondition
	}
	to, err := p.address()
	if err != nil {
		return nil, err
	}
	return match(compare, to), nil
}

// comparison takes an operator of nft.
func (p *parser) comparison() nft.Comparison {
	if p.either("!=") {
		return nft.IsNot
	}
	p.either("==")
	return nft.Is
}

func (p *parser) address() (netip.Prefix, error) {
	word := p.next()
	prefix, err := netip.ParsePrefix(word)
	if err != nil {
		var a netip.Addr
		if a, err = netip.ParseAddr(word); err == nil && a.Zone() == "" {
			prefix = single(a)
		}
	}
	if !prefix.IsValid() || prefix.Addr().Is4() != p.is4 {
		return prefix, errors.New("has no address or subnet of its family where one must be")
	}
	return prefix, nil
}

// name takes an interface's name; one with a wildcard is not known here.
func (p *parser) name(compare nft.Comparison) (nft.Expr, error) {
	name := strings.Trim(p.next(), `"`)
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, `*+{}@$,"`) {
		return nil, errUnknownCondition
	}
	return nft.InputInterface(compare, name), nil
}

var errUnknownCondition = errors.New("has a condition other than an address or an interface")
