// Package lint judges NADs and pods before anybody applies them: what an ADD would refuse, and what
// it would warn of.
//
// Contract: pure. It decides nothing itself: annotations are parsed by pkg/selection, attachments
// are planned by pkg/plan, and chains are judged by the caller's plugins, as in an ADD. What only a
// node knows (links, free addresses, files of networks without spec.config) is not judged.
package lint

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Verdict is what would become of an object.
type Verdict string

// The verdicts.
const (
	Refused Verdict = "refused" // the pod, or each pod that names the NAD, would not start
	Warned  Verdict = "warning" // it would start, and something of it would have no effect
)

// The reasons of warnings of this package.
const (
	NotChecked failure.Reason = "NotChecked" // something could not be judged
	Duplicate  failure.Reason = "Duplicate"  // an object is in more than one place
)

// Finding is one thing that is wrong with an object.
type Finding struct {
	Kind      string         `json:"kind"`
	Namespace string         `json:"namespace"`
	Name      string         `json:"name"`
	Where     string         `json:"where,omitempty"` // file; empty for objects of a cluster
	Verdict   Verdict        `json:"verdict"`
	Reason    failure.Reason `json:"reason"`
	// Field is the key, or path of keys, that is wrong.
	Field   string `json:"field"`
	Message string `json:"message"`
	// Remedy is an imperative; it may be empty.
	Remedy string `json:"remedy,omitempty"`
}

// String reads "object: field: what: remedy", fit for a terminal.
func (f Finding) String() string {
	object := strings.ToLower(f.Kind) + " " + strings.TrimPrefix(f.Namespace+"/"+f.Name, "/")
	if f.Where != "" {
		object += " (" + f.Where + ")"
	}
	what := f.Message
	if f.Verdict == Warned {
		what = "warning: " + what
	}
	parts := []string{strictjson.Printable(object), strictjson.Printable(f.Field), strictjson.Printable(what)}
	if f.Remedy != "" {
		parts = append(parts, strictjson.Printable(f.Remedy))
	}
	return strings.Join(parts, ": ")
}

// NAD is a NetworkAttachmentDefinition and where it was read.
type NAD struct {
	nadv1.NetworkAttachmentDefinition
	// File is empty for an object of a cluster; Where is the place in it.
	File, Where string
}

// Pod is a pod, or the template of pods that another object has.
type Pod struct {
	metav1.ObjectMeta
	// Kind is "Pod", or that of the object with the template.
	Kind string
	// File and Where are as those of a NAD.
	File, Where string
}

// Input is what Check looks at.
type Input struct {
	Config *conf.Config
	// ConfigFile is where it was read; empty for none.
	ConfigFile string
	NADs       []NAD
	Pods       []Pod
	// Complete says that there are no other NADs: one that a pod names and that is not here is
	// missing.
	Complete bool
	// Chain judges the plugins of an attachment, and adds to it what they warn of.
	Chain func(*plan.Attachment) error
}

// Check returns what is wrong with each object, in their order: the node's configuration, NADs,
// each on its own, then pods. What is wrong with a NAD is not repeated for each of its pods.
func Check(in Input) []Finding {
	c := checker{Input: in, nads: map[string][]*NAD{}, refused: map[*NAD]bool{}}
	for i := range in.NADs {
		nad := &in.NADs[i]
		c.nads[keyOf(nad)] = append(c.nads[keyOf(nad)], nad)
	}
	for _, w := range in.Config.Warnings() {
		c.add(Finding{Kind: "Configuration", Name: in.Config.Name, Where: in.ConfigFile}, Warned, w)
	}
	for i := range in.NADs {
		c.checkNAD(&in.NADs[i])
	}
	for i := range in.Pods {
		c.checkPod(&in.Pods[i])
	}
	return c.findings
}

type checker struct {
	Input
	nads     map[string][]*NAD
	refused  map[*NAD]bool // those that are refused themselves
	findings []Finding
}

func keyOf(nad *NAD) string { return nad.Namespace + "/" + nad.Name }

// nad returns the NAD that a file means: its own, else any other; nil for none.
func (c *checker) nad(file, key string) *NAD {
	all := c.nads[key]
	if i := slices.IndexFunc(all, func(n *NAD) bool { return n.File == file }); i >= 0 {
		return all[i]
	}
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// checkNAD judges a NAD as the only network of a pod of its namespace.
func (c *checker) checkNAD(nad *NAD) {
	found := Finding{Kind: nadv1.Kind, Namespace: nad.Namespace, Name: nad.Name, Where: nad.Where, Field: "spec.config"}
	if first := c.nads[keyOf(nad)][0]; first != nad {
		c.add(found, Warned, &failure.Error{
			Reason: Duplicate, Field: "metadata.name", Err: fmt.Errorf("the same object is in %s", first.Where), Fix: "keep one of the two",
		})
	}
	if strings.TrimSpace(nad.Spec.Config) == "" {
		c.add(found, Warned, &failure.Error{
			Reason: NotChecked, Err: errors.New("its configuration is a file of each node"), Fix: "lint that file on a node, or put its text here",
		})
		return
	}
	pod := &metav1.ObjectMeta{
		Namespace: nad.Namespace, Name: "any", Annotations: map[string]string{nadv1.NetworksAnnotation: nad.Name},
	}
	attachments, err := c.plan(pod, nad.File)
	if err != nil {
		c.refused[nad] = true
		c.add(found, Refused, err)
		return
	}
	for _, w := range attachments[len(attachments)-1].Warnings {
		c.add(found, Warned, w)
	}
}

// checkPod judges a pod with all of its networks.
func (c *checker) checkPod(pod *Pod) {
	found := Finding{
		Kind: pod.Kind, Namespace: pod.Namespace, Name: pod.Name, Where: pod.Where,
		Field: "metadata.annotations." + nadv1.NetworksAnnotation,
	}
	attachments, err := c.plan(&pod.ObjectMeta, pod.File)
	if fe, ok := errors.AsType[*failure.Error](err); ok && c.refused[c.nad(pod.File, fe.NAD)] {
		err = &failure.Error{Reason: fe.Reason, Err: fmt.Errorf("NAD %s is refused", fe.NAD), Fix: "correct the NAD"}
	}
	if err != nil {
		verdict := Refused
		if failure.ReasonOf(err) == NotChecked {
			verdict = Warned
		}
		c.add(found, verdict, err)
		return
	}
	for _, a := range attachments {
		for _, w := range c.beyondNAD(a) {
			c.add(found, Warned, w)
		}
	}
}

// beyondNAD are the warnings of an attachment that its NAD alone does not have.
func (c *checker) beyondNAD(a plan.Attachment) []*failure.Error {
	return slices.DeleteFunc(slices.Clone(a.Warnings), func(w *failure.Error) bool {
		return slices.ContainsFunc(c.findings, func(f Finding) bool {
			return f.Kind == nadv1.Kind && f.Namespace+"/"+f.Name == a.Name && f.Reason == w.Reason && f.Message == message(w)
		})
	})
}

// plan plans the attachments of a pod of a file and has their chains judged.
func (c *checker) plan(pod *metav1.ObjectMeta, file string) ([]plan.Attachment, error) {
	requests, err := plan.Requests(&c.Config.Node, &c.Config.Policy, pod)
	if err != nil {
		return nil, err
	}
	definitions := make([]plan.Definition, len(requests))
	for i, r := range requests {
		if definitions[i], err = c.definition(r, file); err != nil {
			return nil, err
		}
	}
	attachments, err := plan.Make(plan.Input{
		Node: &c.Config.Node, Policy: &c.Config.Policy, Call: &c.Config.Call, Pod: pod, ContainerID: "any", IfName: "eth0",
		Requests: requests, Definitions: definitions, Devices: devices(definitions),
	})
	if err != nil {
		return nil, err
	}
	for i := range attachments {
		if err := c.Chain(&attachments[i]); err != nil {
			return nil, err
		}
		routes, err := attachments[i].ExpectDefaultRoutes(c.Config.SecondaryDefaultRoute)
		if err != nil {
			return nil, err
		}
		attachments[i].Warnings = append(attachments[i].Warnings, routes...)
	}
	return attachments, nil
}

// definition finds a NAD. What the node's configuration names is known to the node.
func (c *checker) definition(r plan.Request, file string) (plan.Definition, error) {
	nad := c.nad(file, r.Namespace+"/"+r.Name)
	switch {
	case r.Inline != nil:
		return plan.Definition{Conf: r.Inline}, nil
	case nad != nil && strings.TrimSpace(nad.Spec.Config) != "":
		return plan.Definition{NAD: &nad.NetworkAttachmentDefinition}, nil
	case nad != nil || r.Selection == nil:
		return plan.Definition{Conf: unknown()}, nil
	case !c.Complete:
		return plan.Definition{}, &failure.Error{
			Reason: NotChecked, Err: fmt.Errorf("NAD %s is not among the files", r.Ref), Fix: "name its file, too",
		}
	}
	return plan.Definition{}, &failure.Error{
		Reason: failure.NADNotFound, Err: fmt.Errorf("there is no NAD %s", r.Ref), Fix: "create it, or correct the name",
	}
}

// unknown stands in for a network that is configured on the nodes.
func unknown() []byte {
	return []byte(`{"cniVersion": "1.0.0", "name": "on-the-node", "plugins": [{"type": "` + netconf.PassthruType + `"}]}`)
}

// devices are as many as the networks need: which ones a pod has, its node knows.
func devices(definitions []plan.Definition) map[string][]string {
	all := map[string][]string{}
	for i, d := range definitions {
		if d.NAD != nil {
			resource := d.NAD.Annotations[nadv1.ResourceNameAnnotation]
			all[resource] = append(all[resource], fmt.Sprintf("0000:00:00.%d", i))
		}
	}
	maps.DeleteFunc(all, func(resource string, _ []string) bool { return resource == "" })
	return all
}

func (c *checker) add(found Finding, verdict Verdict, err error) {
	fe, ok := errors.AsType[*failure.Error](err)
	if !ok {
		fe = &failure.Error{Reason: failure.NADInvalid, Err: err}
	}
	found.Verdict, found.Reason, found.Message, found.Remedy = verdict, fe.Reason, message(fe), fe.Fix
	found.Field = cmp.Or(fe.Field, found.Field)
	c.findings = append(c.findings, found)
}

// message is the text of a failure without what a finding has fields for.
func message(fe *failure.Error) string {
	if fe.Plugin == "" {
		return fe.Err.Error()
	}
	return "plugin " + strings.Trim(fe.Plugin, `"`) + ": " + fe.Err.Error()
}
