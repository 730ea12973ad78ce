// Command multus is a CNI plugin for tests that stands in for the thin plugin of that name, whose
// module no proxy has. It is not Multus, and holds nothing of its code: tests that can, run the
// real binary, which BRAID_MULTUS names. It keeps to what Multus 4.3 does where that matters to a
// node that moves to Braid or back:
//
//   - The first network of its configuration is the pod's default one; those of the annotation
//     follow, in its short form, as net1, net2, ...
//   - ADD writes all of them into the file CNIDIR/CONTAINER before it makes the first, and has
//     libcni run the plugins, with its cache in CNIDIR. One that fails takes the others with it.
//   - DEL reads that file, goes past errors, and removes the file in any case. Without the file it
//     asks the API server what the pod wants; of a pod that is gone, too, it removes nothing.
//   - CHECK looks at the networks of the configuration alone. There is no GC.
//   - All but VERSION need the kubeconfig.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add:   func(args *skel.CmdArgs) error { return operate(args, (*sandbox).add) },
		Del:   func(args *skel.CmdArgs) error { return operate(args, (*sandbox).del) },
		Check: func(args *skel.CmdArgs) error { return operate(args, (*sandbox).check) },
	}, version.All, "Multus of the tests")
}

// config is the plugin's configuration.
type config struct {
	CNIVersion string            `json:"cniVersion"`
	Kubeconfig string            `json:"kubeconfig"`
	CNIDir     string            `json:"cniDir"`
	BinDir     string            `json:"binDir"`
	Delegates  []json.RawMessage `json:"delegates"`
}

// delegate is a network of a pod, as the file of a sandbox has it.
type delegate struct {
	Name   string          `json:"name"`
	IfName string          `json:"ifName"`
	Conf   json.RawMessage `json:"conf"`
}

// sandbox is one operation on a pod's sandbox.
type sandbox struct {
	config
	args   *skel.CmdArgs
	rtArgs [][2]string
	client *kubernetes.Clientset
	cni    *libcni.CNIConfig
}

// operate reads a call, and does it with a client of the API server.
func operate(args *skel.CmdArgs, do func(*sandbox, context.Context) error) error {
	s := &sandbox{args: args, config: config{CNIDir: "/var/lib/cni/multus", BinDir: "/opt/cni/bin"}}
	if err := json.Unmarshal(args.StdinData, &s.config); err != nil {
		return err
	}
	for pair := range strings.SplitSeq(args.Args, ";") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			s.rtArgs = append(s.rtArgs, [2]string{key, value})
		}
	}
	rest, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return fmt.Errorf("get k8s client: %w", err)
	}
	if s.client, err = kubernetes.NewForConfig(rest); err != nil {
		return err
	}
	s.cni = libcni.NewCNIConfigWithCacheDir(
		append([]string{s.BinDir}, filepath.SplitList(args.Path)...), s.CNIDir, nil)
	return do(s, context.Background())
}

// arg returns a value of CNI_ARGS; empty for none.
func (s *sandbox) arg(key string) string {
	for _, pair := range s.rtArgs {
		if pair[0] == key {
			return pair[1]
		}
	}
	return ""
}

// scratch is the file that says what the sandbox's networks are.
func (s *sandbox) scratch() string { return filepath.Join(s.CNIDir, s.args.ContainerID) }

// pod asks the API server for the pod of the sandbox.
func (s *sandbox) pod(ctx context.Context) (*corev1.Pod, error) {
	return s.client.CoreV1().Pods(s.arg("K8S_POD_NAMESPACE")).
		Get(ctx, s.arg("K8S_POD_NAME"), metav1.GetOptions{})
}

// wanted are the networks of the configuration, and those of the annotation if there is a pod.
func (s *sandbox) wanted(ctx context.Context, pod *corev1.Pod) (all []delegate, err error) {
	for i, conf := range s.Delegates {
		all = append(all, delegate{IfName: fmt.Sprintf("net%d", i), Conf: conf})
	}
	all[0].IfName = s.args.IfName
	if pod == nil {
		return all, nil
	}
	for element := range strings.SplitSeq(pod.Annotations[nadv1.NetworksAnnotation], ",") {
		name := strings.TrimSpace(element)
		if name == "" {
			continue
		}
		namespace := pod.Namespace
		if before, after, ok := strings.Cut(name, "/"); ok {
			namespace, name = before, after
		}
		text, err := s.network(ctx, namespace, name)
		if err != nil {
			return nil, err
		}
		all = append(all, delegate{
			Name: namespace + "/" + name, IfName: fmt.Sprintf("net%d", len(all)), Conf: text,
		})
	}
	return all, nil
}

// network returns the configuration of a NAD. One without a name has the NAD's.
func (s *sandbox) network(ctx context.Context, namespace, name string) (json.RawMessage, error) {
	raw, err := s.client.CoreV1().RESTClient().Get().
		AbsPath("/apis/k8s.cni.cncf.io/v1/namespaces", namespace, "network-attachment-definitions",
			name).DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	var nad nadv1.NetworkAttachmentDefinition
	conf := map[string]any{}
	err = errors.Join(json.Unmarshal(raw, &nad), json.Unmarshal([]byte(nad.Spec.Config), &conf))
	if err != nil {
		return nil, err
	}
	if conf["name"] == nil {
		conf["name"] = name
	}
	return json.Marshal(conf)
}

// chain is a network in libcni's terms. One of a single plugin is a list of one here.
func (s *sandbox) chain(d *delegate) (*libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	list, err := libcni.NetworkConfFromBytes(d.Conf)
	if err == nil && len(list.Plugins) == 0 {
		var head struct{ Name, CNIVersion string }
		if err := json.Unmarshal(d.Conf, &head); err != nil {
			return nil, nil, err
		}
		text, merr := json.Marshal(map[string]any{
			"name": head.Name, "cniVersion": head.CNIVersion, "plugins": []any{d.Conf},
		})
		if merr != nil {
			return nil, nil, merr
		}
		list, err = libcni.NetworkConfFromBytes(text)
	}
	var runtime struct{ RuntimeConfig map[string]any }
	err = errors.Join(err, json.Unmarshal(s.args.StdinData, &runtime))
	rt := &libcni.RuntimeConf{
		ContainerID: s.args.ContainerID, NetNS: s.args.Netns, IfName: d.IfName, Args: s.rtArgs,
	}
	if d.IfName == s.args.IfName {
		rt.CapabilityArgs = runtime.RuntimeConfig
	}
	return list, rt, err
}

// save writes down which networks the sandbox gets, for DEL.
func (s *sandbox) save(all []delegate) error {
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(s.CNIDir, 0o700), os.WriteFile(s.scratch(), text, 0o600))
}

// add attaches the networks in order. After the first that fails, those before it are removed.
func (s *sandbox) add(ctx context.Context) error {
	pod, err := s.pod(ctx)
	if err != nil {
		return err
	}
	all, err := s.wanted(ctx, pod)
	if err != nil {
		return err
	}
	if err := s.save(all); err != nil {
		return err
	}
	var first types.Result
	var status []nadv1.NetworkStatus
	for i, d := range all {
		result, err := s.attach(ctx, &d)
		if err != nil {
			return errors.Join(err, s.detach(ctx, all[:i+1]))
		}
		if i == 0 {
			first = result
		}
		status = append(status, nadv1.NetworkStatus{
			Name: d.Name, Interface: d.IfName, Default: i == 0, IPs: addresses(result),
		})
	}
	if err := s.publish(ctx, pod, status); err != nil {
		return err
	}
	return types.PrintResult(first, s.CNIVersion)
}

func (s *sandbox) attach(ctx context.Context, d *delegate) (types.Result, error) {
	list, rt, err := s.chain(d)
	if err != nil {
		return nil, err
	}
	return s.cni.AddNetworkList(ctx, list, rt)
}

func addresses(result types.Result) (ips []string) {
	r, err := types100.NewResultFromResult(result)
	if err != nil {
		return nil
	}
	for _, ip := range r.IPs {
		ips = append(ips, ip.Address.IP.String())
	}
	return ips
}

// publish writes the pod's network-status.
func (s *sandbox) publish(
	ctx context.Context, pod *corev1.Pod, status []nadv1.NetworkStatus,
) error {
	text, err := json.Marshal(status)
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{nadv1.StatusAnnotation: string(text)}},
	})
	if err != nil {
		return err
	}
	_, err = s.client.CoreV1().Pods(pod.Namespace).
		Patch(ctx, pod.Name, apitypes.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// del removes the networks that ADD wrote down, or if that is lost, those that the pod asks for.
func (s *sandbox) del(ctx context.Context) error {
	var all []delegate
	text, err := os.ReadFile(s.scratch())
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if errors.Is(err, fs.ErrNotExist) {
		pod, perr := s.pod(ctx)
		if perr != nil {
			return nil //nolint:nilerr // as Multus has it
		}
		all, err = s.wanted(ctx, pod)
	}
	if err != nil {
		return err
	}
	err = s.detach(ctx, all)
	if rerr := os.Remove(s.scratch()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// detach removes networks, the last one first.
func (s *sandbox) detach(ctx context.Context, all []delegate) error {
	var errs []error
	for i := len(all) - 1; i >= 0; i-- {
		list, rt, err := s.chain(&all[i])
		if err == nil {
			err = s.cni.DelNetworkList(ctx, list, rt)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *sandbox) check(ctx context.Context) error {
	all, err := s.wanted(ctx, nil)
	if err != nil {
		return err
	}
	for _, d := range all {
		list, rt, err := s.chain(&d)
		if err == nil {
			err = s.cni.CheckNetworkList(ctx, list, rt)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
