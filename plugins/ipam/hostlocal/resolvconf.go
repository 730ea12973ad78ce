package hostlocal

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

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
	text, err := readResolvConf(path)
	if err != nil {
		return dns, plugin.ConfError("ipam.resolvConf", path, err.Error())
	}
	for line := range strings.Lines(text) {
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

func readResolvConf(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxResolvConf {
		return "", fmt.Errorf("is not a regular file of at most %d bytes", maxResolvConf)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxResolvConf))
	return string(data), err
}
