// Package lint judges NADs and pods before anybody applies them: what an ADD would refuse, and what
// it would warn of.
//
// Contract: it decides and changes nothing itself: what a pod gets is found out by pkg/resolve, and
// chains are judged by the caller's plugins, as in an ADD. It reads nothing but its Input, the
// Source of that, and OnNode the networks on disk. What only a node knows (links, free addresses,
// devices) is not judged.
package lint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/capacity"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/resolve"
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
	// Network is the pod's network that it is about; empty if it is about none in particular, and
	// for objects that are no pods.
	Network string `json:"network,omitempty"`
	// Remedy is an imperative; it may be empty.
	Remedy string `json:"remedy,omitempty"`
}

// Refuses reports whether one of the findings is a refusal.
func Refuses(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Verdict == Refused })
}

// String reads "object: field: what: remedy", fit for a terminal.
func (f Finding) String() string {
	object := strings.ToLower(f.Kind) + " " + strings.TrimPrefix(f.Namespace+"/"+f.Name, "/")
	if f.Where != "" {
		object += " (" + f.Where + ")"
	}
	if f.Network != "" {
		object += " network " + f.Network
	}
	if f.Verdict == Warned {
		f.Message = "warning: " + f.Message
	}
	var parts []string
	for _, part := range []string{object, f.Field, f.Message, f.Remedy} {
		if part != "" {
			parts = append(parts, strictjson.Printable(part))
		}
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
	podv1.Pod
	// Kind is "Pod", or that of the object with the template.
	Kind string
	// File and Where are as those of a NAD.
	File, Where string
}

// Input is what Check and Plan look at.
type Input struct {
	Config *conf.Config
	// ConfigFile is where it was read; empty for none.
	ConfigFile string
	NADs       []NAD
	Pods       []Pod
	// Namespaces are those whose labels are known.
	Namespaces []metav1.ObjectMeta
	// Complete is true if there are no other NADs: one that a pod names and that is not here is
	// missing.
	Complete bool
	// Source, if set, is where NADs and namespaces are that are not here.
	Source resolve.Source
	// Finder judges plugins. Binaries are looked for in Paths; without any they are taken to be
	// installed.
	Finder resolve.Finder
	Paths  []string
	// OnNode is true if this machine is the node of the configuration, whose networks on disk can be
	// read.
	OnNode bool
}

// Check returns what is wrong with each object, in their order: the node's configuration, NADs,
// each on its own, then pods. What is wrong with a NAD is not repeated for each of its pods.
func Check(ctx context.Context, in Input) []Finding {
	c := newChecker(in)
	for _, w := range in.Config.Warnings() {
		c.add(Finding{Kind: "Configuration", Name: in.Config.Name, Where: in.ConfigFile}, Warned, w)
	}
	for i := range in.NADs {
		c.checkNAD(ctx, &in.NADs[i])
	}
	for _, o := range c.overlaps() {
		c.add(Finding{
			Kind: nadv1.Kind, Namespace: o.nad.Namespace, Name: o.nad.Name, Where: o.nad.Where,
			Field: "spec.config",
		}, Warned, o.failure())
	}
	for i := range in.Pods {
		c.checkPod(ctx, &in.Pods[i])
	}
	return c.findings
}

// Plan returns what a pod would get, and what is wrong with it. The attachments are those that
// could be found out. The error is of reason APIUnavailable or TimedOut: the source could not be
// asked.
func Plan(ctx context.Context, in Input, pod Pod) ([]resolve.Expected, []Finding, error) {
	c := newChecker(in)
	expected, judged, err := c.expect(ctx, pod.Pod, pod.File)
	reason := failure.ReasonOf(err)
	if reason == failure.APIUnavailable || reason == failure.TimedOut {
		return nil, nil, err
	}
	found := pod.finding()
	if err != nil {
		c.add(found, verdictOf(err), err)
	}
	c.addJudged(found, judged)
	for _, e := range expected {
		for _, w := range e.Warnings {
			c.add(found, Warned, w)
		}
	}
	return expected, c.findings, nil
}

// checker is one Check or Report.
type checker struct {
	Input
	nads    map[string][]*NAD
	refused map[*NAD]bool // those that are refused themselves
	// apart are where networks get addresses that their namespace alone knows of.
	apart []source
	// labels are what was asked for of namespaces.
	labels   map[string]func() (*metav1.ObjectMeta, error)
	mu       sync.Mutex // of labels
	findings []Finding
}

func newChecker(in Input) *checker {
	c := &checker{
		Input: in, nads: map[string][]*NAD{}, refused: map[*NAD]bool{},
		labels: map[string]func() (*metav1.ObjectMeta, error){},
	}
	for i := range in.NADs {
		nad := &in.NADs[i]
		c.nads[keyOf(nad)] = append(c.nads[keyOf(nad)], nad)
	}
	return c
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
func (c *checker) checkNAD(ctx context.Context, nad *NAD) {
	found := Finding{
		Kind: nadv1.Kind, Namespace: nad.Namespace, Name: nad.Name, Where: nad.Where,
		Field: "spec.config",
	}
	if first := c.nads[keyOf(nad)][0]; first != nad {
		c.add(found, Warned, &failure.Error{
			Reason: Duplicate, Field: "metadata.name",
			Err: fmt.Errorf("the same object is in %s", first.Where), Fix: "keep one of the two",
		})
	}
	if _, err := capacity.Asks(&nad.ObjectMeta); err != nil { // an ADD does not look at it
		c.add(found, Warned, err)
	}
	if strings.TrimSpace(nad.Spec.Config) == "" {
		c.add(found, Warned, &failure.Error{
			Reason: NotChecked, Err: errors.New("its configuration is a file of each node"),
			Fix: "lint that file on a node, or put its text here",
		})
		return
	}
	expected, judged, err := c.expect(ctx, Only(nad).Pod, nad.File)
	if err != nil {
		c.refused[nad] = true
		c.add(found, Refused, err)
		return
	}
	c.refused[nad] = c.addJudged(found, judged)
	c.apart = append(c.apart, apartOf(nad, &expected[len(expected)-1])...)
	for _, w := range expected[len(expected)-1].Warnings {
		c.add(found, Warned, w)
	}
}

// Only returns a pod that asks for a NAD of its namespace. Nothing else is known of it.
func Only(nad *NAD) Pod {
	meta := metav1.ObjectMeta{
		Namespace: nad.Namespace, Name: "any",
		Annotations: map[string]string{nadv1.NetworksAnnotation: nad.Name},
	}
	return Pod{
		Kind: "Pod", Pod: podv1.Pod{ObjectMeta: meta, MetaOnly: true}, File: nad.File, Where: nad.Where,
	}
}

// finding returns one that is still to say what is wrong with the pod.
func (p *Pod) finding() Finding {
	return Finding{
		Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, Where: p.Where,
		Field: "metadata.annotations." + nadv1.NetworksAnnotation,
	}
}

// checkPod judges a pod with all of its networks.
func (c *checker) checkPod(ctx context.Context, pod *Pod) {
	found := pod.finding()
	expected, judged, err := c.expect(ctx, pod.Pod, pod.File)
	if fe, ok := errors.AsType[*failure.Error](err); ok && c.refused[c.nad(pod.File, fe.NAD)] {
		err = &failure.Error{
			Reason: fe.Reason, Err: fmt.Errorf("NAD %s is refused", fe.NAD), Fix: "correct the NAD",
		}
	}
	if err != nil {
		c.add(found, verdictOf(err), err)
		return
	}
	c.addJudged(found, slices.DeleteFunc(judged, func(j resolve.Judged) bool {
		return c.said(j.NAD, j.Failure())
	}))
	for _, e := range expected {
		for _, w := range e.Warnings {
			if !c.said(e.Name, w) {
				c.add(found, Warned, w)
			}
		}
	}
}

// addJudged adds what the policy does not allow, and reports whether some of it is refused.
func (c *checker) addJudged(found Finding, judged []resolve.Judged) (refused bool) {
	for i := range judged {
		verdict := Warned
		if judged[i].Effect == policy.Enforce {
			verdict, refused = Refused, true
		}
		c.add(found, verdict, judged[i].Failure())
	}
	return refused
}

// said reports whether the findings of a NAD have something.
func (c *checker) said(nad string, fe *failure.Error) bool {
	return slices.ContainsFunc(c.findings, func(f Finding) bool {
		return f.Kind == nadv1.Kind && f.Namespace+"/"+f.Name == nad && f.Reason == fe.Reason &&
			f.Message == message(fe) &&
			(fe.Field == "" || f.Field == fe.Field)
	})
}

// expect returns what a pod of a file gets.
func (c *checker) expect(
	ctx context.Context, pod podv1.Pod, file string,
) ([]resolve.Expected, []resolve.Judged, error) {
	resolver := &resolve.Resolver{
		Node: &c.Config.Node, Policy: &c.Config.Policy, Source: seen{c, file}, Elsewhere: !c.OnNode,
	}
	return resolver.Expect(ctx, resolve.Any(&c.Config.Call), &pod, c.Finder, c.Paths)
}

// seen are the objects as a file sees them.
type seen struct {
	c    *checker
	file string
}

func (s seen) Pod(_ context.Context, _, name string) (*podv1.Pod, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, name)
}

// NAD finds a NAD among the files. One that is not there is looked for elsewhere, unless the files
// are all that there is.
func (s seen) NAD(
	ctx context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	nad := s.c.nad(s.file, namespace+"/"+name)
	none := apierrors.NewNotFound(schema.GroupResource{
		Group: nadv1.GroupName, Resource: nadv1.Resource,
	}, name)
	switch {
	case nad != nil:
		return &nad.NetworkAttachmentDefinition, nil
	case s.c.Complete:
		return nil, none
	case s.c.Source != nil:
		return s.c.Source.NAD(ctx, namespace, name)
	}
	return nil, &failure.Error{
		Reason: NotChecked, Err: fmt.Errorf("%w among the files", none), Fix: "name its file, too",
	}
}

// Namespace returns one that was given, else one of the source. One that is nowhere has no labels.
func (s seen) Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	if i := slices.IndexFunc(s.c.Namespaces, func(n metav1.ObjectMeta) bool {
		return n.Name == name
	}); i >= 0 {
		return &s.c.Namespaces[i], nil
	}
	if s.c.Source == nil {
		return &metav1.ObjectMeta{Name: name}, nil
	}
	s.c.mu.Lock()
	ask, asked := s.c.labels[name]
	if !asked {
		ask = sync.OnceValues(func() (*metav1.ObjectMeta, error) {
			return s.c.Source.Namespace(ctx, name)
		})
		s.c.labels[name] = ask
	}
	s.c.mu.Unlock()
	return ask()
}

// verdictOf returns Warned for what could not be looked at.
func verdictOf(err error) Verdict {
	if failure.ReasonOf(err) == NotChecked {
		return Warned
	}
	return Refused
}

// add adds a finding with what an error says of it.
func (c *checker) add(found Finding, verdict Verdict, err error) {
	fe, ok := errors.AsType[*failure.Error](err)
	if !ok {
		fe = &failure.Error{Reason: failure.NADInvalid, Err: err}
	}
	found.Verdict, found.Reason, found.Message, found.Remedy = verdict, fe.Reason, message(fe), fe.Fix
	found.Field = cmp.Or(fe.Field, found.Field)
	if found.Kind != nadv1.Kind && found.Kind != "Configuration" {
		found.Network = fe.NAD
	}
	c.findings = append(c.findings, found)
}

// message returns the text of a failure without what a finding has fields for.
func message(fe *failure.Error) string {
	if fe.Plugin == "" {
		return fe.Err.Error()
	}
	return "plugin " + strings.Trim(fe.Plugin, `"`) + ": " + fe.Err.Error()
}
