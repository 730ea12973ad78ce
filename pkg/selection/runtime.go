package selection

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// What is allowed, for messages.
const (
	allowedPortMappings = `give at least one {"hostPort": 8080, "containerPort": 80, ` +
		`"protocol": "tcp"}`
	allowedPort      = "give a number from 1 to 65535"
	allowedProtocol  = "give tcp, udp or sctp"
	allowedHostIP    = "give an address of the node"
	allowedBandwidth = `give at least {"ingressRate": 1000000} or {"egressRate": 1000000}`
	allowedRate      = "give a positive whole number, in bits"
)

func (e *element) parsePortMappings() error {
	values, ok, err := e.list("portMappings", allowedPortMappings)
	if err != nil || !ok {
		return err
	}
	if len(values) == 0 {
		return e.invalid("portMappings", allowedPortMappings, "the list is empty")
	}
	for i, raw := range values {
		if err := e.parsePortMapping(fmt.Sprintf("portMappings[%d]", i), raw); err != nil {
			return err
		}
	}
	return nil
}

func (e *element) parsePortMapping(field string, raw json.RawMessage) error {
	keys, err := strictjson.Object(raw)
	if err != nil {
		return e.invalid(field, allowedPortMappings, "%s %w", strictjson.Quote(string(raw)), err)
	}
	known := []string{"hostPort", "containerPort", "protocol", "hostIP"}
	if err := e.checkUnknown(field+".", keys, known); err != nil {
		return err
	}
	mapping := PortMapping{Protocol: "tcp"}
	for _, one := range []struct {
		key, fix string
		parse    func(json.RawMessage) error
	}{
		{"hostPort", allowedPort, func(raw json.RawMessage) (err error) {
			mapping.HostPort, err = parsePort(raw)
			return
		}},
		{"containerPort", allowedPort, func(raw json.RawMessage) (err error) {
			mapping.ContainerPort, err = parsePort(raw)
			return
		}},
		{"protocol", allowedProtocol, mapping.parseProtocol},
		{"hostIP", allowedHostIP, mapping.parseHostIP},
	} {
		if err := one.parse(keys[one.key]); err != nil {
			return e.invalid(field+"."+one.key, one.fix, "%w", err)
		}
	}
	e.PortMappings = append(e.PortMappings, mapping)
	return nil
}

func parsePort(raw json.RawMessage) (int, error) {
	if strictjson.Null(raw) {
		return 0, errors.New("the port is missing")
	}
	port, err := strconv.ParseUint(string(raw), 10, 16)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("%s is no port", strictjson.Quote(string(raw)))
	}
	return int(port), nil
}

func (m *PortMapping) parseProtocol(raw json.RawMessage) error {
	if strictjson.Null(raw) {
		return nil
	}
	text, err := strictjson.String(raw)
	if err != nil {
		return fmt.Errorf("%s %w", strictjson.Quote(string(raw)), err)
	}
	m.Protocol = strings.ToLower(text)
	if !slices.Contains([]string{"tcp", "udp", "sctp"}, m.Protocol) {
		return fmt.Errorf("%s is no protocol with ports", strictjson.Quote(text))
	}
	return nil
}

func (m *PortMapping) parseHostIP(raw json.RawMessage) error {
	if strictjson.Null(raw) {
		return nil
	}
	text, err := strictjson.String(raw)
	if err == nil && text != "" {
		_, err = parseAddr(text)
	}
	if err != nil {
		return fmt.Errorf("%s %w", strictjson.Quote(string(raw)), err)
	}
	m.HostIP = text
	return nil
}

func (e *element) parseBandwidth() error {
	raw, ok := e.value("bandwidth")
	if !ok {
		return nil
	}
	keys, err := strictjson.Object(raw)
	if err != nil {
		return e.invalid("bandwidth", allowedBandwidth, "%s %w", strictjson.Quote(string(raw)), err)
	}
	known := []string{"ingressRate", "ingressBurst", "egressRate", "egressBurst"}
	if err := e.checkUnknown("bandwidth.", keys, known); err != nil {
		return err
	}
	var b Bandwidth
	for i, into := range []*uint64{&b.IngressRate, &b.IngressBurst, &b.EgressRate, &b.EgressBurst} {
		if *into, err = parseBits(keys[known[i]]); err != nil {
			return e.invalid("bandwidth."+known[i], allowedRate, "%w", err)
		}
	}
	if err := e.checkBandwidth(b); err != nil {
		return err
	}
	b.IngressBurst = burst(b.IngressRate, b.IngressBurst)
	b.EgressBurst = burst(b.EgressRate, b.EgressBurst)
	e.Bandwidth = &b
	return nil
}

// Bounds of a burst that is derived from its rate, in bits. A token bucket lets nothing pass that
// is larger than its burst, so it takes the largest packet that the kernel hands over, 64 KiB. The
// highest is what runtimes pass where a pod names none.
const (
	minBurst        = 64 << 10 * 8
	maxBurst        = math.MaxInt32
	burstsPerSecond = 10
)

// burst returns the given burst, or else a tenth of a second's worth of the rate: the specification
// lets a pod leave it out, the bandwidth plugin does not. Without a rate there is none.
func burst(rate, given uint64) uint64 {
	if given != 0 || rate == 0 {
		return given
	}
	return min(max(rate/burstsPerSecond, minBurst), maxBurst)
}

// parseBits returns 0 for what is absent.
func parseBits(raw json.RawMessage) (uint64, error) {
	if strictjson.Null(raw) {
		return 0, nil
	}
	bits, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil || bits == 0 {
		return 0, fmt.Errorf("%s is no positive whole number", strictjson.Quote(string(raw)))
	}
	return bits, nil
}

func (e *element) checkBandwidth(b Bandwidth) error {
	switch {
	case b == Bandwidth{}:
		return e.invalid("bandwidth", allowedBandwidth, "nothing is limited")
	case b.IngressBurst > 0 && b.IngressRate == 0:
		return e.invalid("bandwidth.ingressBurst", "give ingressRate too",
			"%d is given without ingressRate", b.IngressBurst)
	case b.EgressBurst > 0 && b.EgressRate == 0:
		return e.invalid("bandwidth.egressBurst", "give egressRate too", "%d is given without egressRate",
			b.EgressBurst)
	}
	return nil
}
