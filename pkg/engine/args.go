package engine

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
)

// NewRequest returns the request of one call of the CNI protocol. An error has reason
// InvalidEnvironment.
func NewRequest(args *skel.CmdArgs, call *conf.Call) (*Request, error) {
	pairs, err := parseArgs(args.Args)
	if err != nil {
		return nil, err
	}
	return &Request{
		ContainerID: args.ContainerID, NetNS: args.Netns, IfName: args.IfName, Args: pairs,
		Path: filepath.SplitList(args.Path), Call: call,
	}, nil
}

// maxArgs bounds CNI_ARGS, in bytes.
const maxArgs = 8 << 10

// parseArgs reads CNI_ARGS, "KEY=VALUE;KEY=VALUE". Kubernetes' own keys imply IgnoreUnknown=1:
// plugins that do not know them would refuse them (CNI conventions, "CNI_ARGS").
func parseArgs(args string) ([][2]string, error) {
	if len(args) > maxArgs {
		return nil, badArgs(fmt.Errorf("%d bytes, at most %d are allowed", len(args), maxArgs))
	}
	var pairs [][2]string
	for pair := range strings.SplitSeq(args, ";") {
		if pair == "" {
			continue
		}
		keyValue, err := cutArg(pair)
		if err != nil {
			return nil, badArgs(err)
		}
		pairs = append(pairs, keyValue)
	}
	kubernetes := slices.ContainsFunc(pairs, func(p [2]string) bool {
		return strings.HasPrefix(p[0], "K8S_")
	})
	if kubernetes && arg(pairs, "IgnoreUnknown") == "" {
		pairs = append([][2]string{{"IgnoreUnknown", "1"}}, pairs...)
	}
	return pairs, nil
}

// cutArg cuts KEY=VALUE, where the value may be empty, into its two parts.
func cutArg(pair string) (keyValue [2]string, err error) {
	key, value, ok := strings.Cut(pair, "=")
	if !ok || key == "" {
		return keyValue, fmt.Errorf("%.80q is no KEY=VALUE", pair)
	}
	if strings.ContainsFunc(pair, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return keyValue, fmt.Errorf("%.80q has control characters", pair)
	}
	return [2]string{key, value}, nil
}

// badArgs is the error of a CNI_ARGS that cannot be used.
func badArgs(err error) error {
	return &failure.Error{Reason: failure.InvalidEnvironment, Field: "CNI_ARGS", Err: err}
}

// arg returns the value of the first pair that has the key; empty if there is none.
func arg(args [][2]string, key string) string {
	for _, p := range args {
		if p[0] == key {
			return p[1]
		}
	}
	return ""
}

// Pod returns the pod that the runtime names, as it names it; both may be empty.
func (r *Request) Pod() (namespace, name string) {
	return arg(r.Args, "K8S_POD_NAMESPACE"), arg(r.Args, "K8S_POD_NAME")
}

// podOf returns the pod that the runtime names, both empty if it names none. They become parts of
// API paths and of file names.
func podOf(args [][2]string) (namespace, name string, err error) {
	namespace, name = arg(args, "K8S_POD_NAMESPACE"), arg(args, "K8S_POD_NAME")
	if namespace == "" && name == "" {
		return "", "", nil
	}
	if errs := validation.IsDNS1123Label(namespace); len(errs) > 0 {
		return "", "", badArgs(fmt.Errorf("K8S_POD_NAMESPACE %.80q: %w", namespace, errors.New(errs[0])))
	}
	if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
		return "", "", badArgs(fmt.Errorf("K8S_POD_NAME %.80q: %w", name, errors.New(errs[0])))
	}
	return namespace, name, nil
}
