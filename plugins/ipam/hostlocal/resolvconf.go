package hostlocal

import (
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/plugin"
)

// maxResolvConf bounds what is read of the file, in bytes.
const maxResolvConf = 64 << 10

// resolvConf reads a file in the format of resolv.conf(5); none for an empty path. Symbolic links are followed: /etc/resolv.conf often is
// one.
func resolvConf(path string) (dns types.DNS, err error) {
	if path == "" {
		return dns, nil
	}
	text, err := hostfile.ReadLinked(path, maxResolvConf)
	if err != nil {
		return dns, plugin.ConfError("ipam.resolvConf", path, err.Error())
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, fields[1])
		case "domain":
			dns.Domain = fields[1]
		case "search":
			dns.Search = append(dns.Search, fields[1:]...)
		case "options":
			dns.Options = append(dns.Options, fields[1:]...)
		}
	}
	return dns, nil
}
