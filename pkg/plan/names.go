package plan

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/utils"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// interfaceNames assigns each request its name in the pod: ifName to the default network, the
// requested name to those that have one, and to the i-th secondary network net<i>, counting all of
// them, as Multus does. A generated name that an earlier network took by request gives way to the
// smallest free net<k>. Some k < i is free then (unless the default network itself is called
// net<k>), so no later network loses its own name, and a name depends on earlier networks only: one
// that is appended to a running pod's annotation changes none.
func interfaceNames(requests []Request, ifName string) ([]string, error) {
	owner := map[string]string{"lo": "the pod's loopback", ifName: "the default network"}
	names := make([]string, len(requests))
	for i, r := range requests {
		wish, err := wishedInterface(r, ifName)
		if err != nil {
			return nil, err
		}
		switch {
		case r.Default:
			names[i] = ifName
			continue
		case wish == "":
			names[i] = freeName(owner, i)
		case owner[wish] != "":
			return nil, &failure.Error{
				Reason: failure.InterfaceConflict, NAD: label(r), Interface: wish, Field: "interface",
				Err: fmt.Errorf("%s has this name already", owner[wish]),
				Fix: `give one of them another name: "interface" in the JSON form, @name in the short form`,
			}
		default:
			names[i] = wish
		}
		owner[names[i]] = label(r)
	}
	return names, nil
}

// wishedInterface returns the interface name that the pod asks for; empty if it leaves the choice.
// The default network's can only be ifName.
func wishedInterface(r Request, ifName string) (string, error) {
	if r.Selection == nil || r.Selection.Interface == "" {
		return "", nil
	}
	wish := r.Selection.Interface
	if err := checkInterface(wish); err != nil {
		return "", &failure.Error{
			Reason: failure.InvalidAnnotation, NAD: label(r), Field: "interface", Err: err,
			Fix: "use 1 to 15 characters without space, '/', ':' and '%'",
		}
	}
	if r.Default && wish != ifName {
		return "", &failure.Error{
			Reason: failure.InvalidAnnotation, NAD: label(r), Field: "interface",
			Err: fmt.Errorf("interface %q: the runtime wants the default network's interface to be %s",
				wish, ifName),
			Fix: "leave the interface of the default network out",
		}
	}
	return wish, nil
}

// freeName is net<i> where it is free, else the smallest net<k> that is.
func freeName(owner map[string]string, i int) string {
	name := fmt.Sprintf("net%d", i)
	for k := 1; owner[name] != ""; k++ {
		name = fmt.Sprintf("net%d", k)
	}
	return name
}

// checkInterface is CNI's rule for CNI_IFNAME and the kernel's beyond it: '%' asks the kernel to
// invent a name, and "all" and "default" are directories of net.ipv4.conf that stand for every
// interface.
func checkInterface(name string) error {
	if err := utils.ValidateInterfaceName(name); err != nil {
		return fmt.Errorf("%s: %s", strictjson.Quote(name), err.Msg)
	}
	if strings.ContainsFunc(name, unicode.IsControl) || strings.Contains(name, "%") ||
		!utf8.ValidString(name) {
		return fmt.Errorf("%s holds '%%', a control character or broken UTF-8", strictjson.Quote(name))
	}
	if name == "all" || name == "default" {
		return fmt.Errorf("%q is reserved by the kernel", name)
	}
	return nil
}

// checkSandbox checks what the runtime passed in the environment.
func checkSandbox(in Input) error {
	if err := utils.ValidateContainerID(in.ContainerID); err != nil {
		return &failure.Error{Reason: failure.InvalidEnvironment, Field: "CNI_CONTAINERID", Err: err}
	}
	if err := checkInterface(in.IfName); err != nil {
		return &failure.Error{Reason: failure.InvalidEnvironment, Field: "CNI_IFNAME", Err: err}
	}
	if in.IfName == "lo" {
		return &failure.Error{
			Reason: failure.InvalidEnvironment, Field: "CNI_IFNAME",
			Err: errors.New(`"lo" is the pod's loopback`),
		}
	}
	return nil
}
