package nettest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A new namespace has the IPv4 parameters of links that the machine's own has, and where
// net.core.devconf_inherit_init_net asks for it, the IPv6 ones. Tests take those of a kernel that
// nobody has configured for granted. Others, as those of connection tracking, are not inherited.

// defaults4 and defaults6 are what machines are configured with otherwise, and the kernel's own
// values of it.
func defaults4() map[string]string {
	return map[string]string{
		"accept_local": "0", "accept_redirects": "1", "arp_accept": "0", "arp_announce": "0",
		"arp_filter": "0", "arp_ignore": "0", "arp_notify": "0",
		"drop_gratuitous_arp": "0", "forwarding": "0", "ignore_routes_with_linkdown": "0",
		"log_martians": "0", "promote_secondaries": "0",
		"proxy_arp": "0", "route_localnet": "0", "rp_filter": "0", "secure_redirects": "1",
		"send_redirects": "1", "shared_media": "1", "src_valid_mark": "0",
	}
}

func defaults6() map[string]string {
	return map[string]string{
		"accept_ra": "1", "accept_ra_defrtr": "1", "accept_ra_pinfo": "1",
		"accept_ra_rt_info_max_plen": "0", "accept_redirects": "1",
		"addr_gen_mode": "0", "autoconf": "1", "dad_transmits": "1", "disable_ipv6": "0",
		"forwarding": "0", "ignore_routes_with_linkdown": "0",
		"keep_addr_on_down": "0", "ndisc_notify": "0", "optimistic_dad": "0", "proxy_ndp": "0",
		"router_solicitations": "-1",
	}
}

// setDefaults sets the kernel's own parameters in the namespace that the thread is in, for the
// loopback link and all links that there will be.
func setDefaults() error {
	errs := []error{set("ipv4/ip_forward", "0")} // changes others
	for _, of := range []string{"all", "default", "lo"} {
		for family, values := range map[string]map[string]string{
			"ipv4": defaults4(), "ipv6": defaults6(),
		} {
			for key, value := range values {
				errs = append(errs, set(family+"/conf/"+of+"/"+key, value))
			}
		}
	}
	for key, values := range map[string][2]string{ // those of all and of default
		"ipv4/conf/%s/accept_source_route": {"0", "1"}, "ipv6/conf/%s/accept_dad": {"0", "1"},
		"ipv6/conf/%s/use_tempaddr": {"0", "0"},
	} {
		errs = append(errs, set(fmt.Sprintf(key, "all"), values[0]),
			set(fmt.Sprintf(key, "default"), values[1]))
	}
	return errors.Join(errs...)
}

// set writes a parameter, if the kernel has it.
func set(key, value string) error {
	f, err := os.OpenFile("/proc/sys/net/"+key, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set %s: %w", key, err)
	}
	return nil
}
