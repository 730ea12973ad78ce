package hostlocal

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/plugin"
)

// maxResolvConf bounds what is read of the file, in bytes.
const maxResolvConf = 64 << 10

// nodeResolvConf is the node's own file. Where it is a symbolic link, the administrator has made
// it.
const nodeResolvConf = "/etc/resolv.conf"

// ResolvConfRoots returns where the key resolvConf may lead to in a configuration that is not
// trusted.
func ResolvConfRoots() hostfile.Roots { return hostfile.Roots{"/etc", "/run/systemd/resolve"} }

// judgeResolvConf refuses a path that is not allowed.
func (p Plugin) judgeResolvConf(path string) error {
	if path == "" {
		return nil
	}
	if _, ok := p.ResolvConf.Place(path); !ok {
		err := plugin.ConfError("ipam.resolvConf", path,
			"is beneath none of the directories "+strings.Join(p.ResolvConf, " and "))
		return failure.WithFix(err, "choose a file there, or leave the key out")
	}
	return nil
}

// resolvConf reads a file in the format of resolv.conf(5); none for an empty path. What the pod
// gets of it are addresses, domains and the resolver's own options: the file may be something else.
func (p Plugin) resolvConf(path string) (dns types.DNS, err error) {
	if path == "" {
		return dns, nil
	}
	if err := p.judgeResolvConf(path); err != nil {
		return dns, err
	}
	text, err := p.readResolvConf(path)
	if err != nil {
		return dns, plugin.ConfError("ipam.resolvConf", path, err.Error())
	}
	return parseResolvConf(string(text)), nil
}

// parseResolvConf returns what it knows of a file in the format of resolv.conf(5). A comment begins
// with a word that is no key.
func parseResolvConf(text string) (dns types.DNS) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, only(isAddress, fields[1:2])...)
		case "domain":
			dns.Domain = strings.Join(only(isDomain, fields[1:2]), "")
		case "search":
			dns.Search = append(dns.Search, only(isDomain, fields[1:])...)
		case "options":
			dns.Options = append(dns.Options, only(isOption, fields[1:])...)
		}
	}
	return dns
}

// readResolvConf reads the file. Where paths are not trusted, a symbolic link is followed only as
// far as it stays where files may be.
func (p Plugin) readResolvConf(path string) ([]byte, error) {
	if p.ResolvConf == nil || filepath.Clean(path) == nodeResolvConf {
		return hostfile.ReadLinked(path, maxResolvConf)
	}
	return p.ResolvConf.Read(path, maxResolvConf)
}

// only returns the words that are allowed.
func only(allowed func(string) bool, words []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(word string) bool { return !allowed(word) })
}

func isAddress(word string) bool {
	_, err := netip.ParseAddr(word)
	return err == nil
}

// isDomain reports whether a word is a domain name: labels of letters, digits, hyphens and
// underscores.
func isDomain(word string) bool {
	const longest = 254 // with the dot at the end
	const label = `[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?`
	domain := regexp.MustCompile(`^(\.|(` + label + `\.)*` + label + `\.?)$`)
	return len(word) <= longest && domain.MatchString(word)
}

// isOption reports whether a word is an option of resolv.conf(5).
func isOption(word string) bool {
	option := regexp.MustCompile(`^(debug|(ndots|timeout|attempts):[0-9]{1,3}|rotate|no-aaaa|` +
		`no-check-names|inet6|ip6-bytestring|(no-)?ip6-dotint|edns0|single-request(-reopen)?|` +
		`no-tld-query|use-vc|no-reload|trust-ad)$`)
	return option.MatchString(word)
}
