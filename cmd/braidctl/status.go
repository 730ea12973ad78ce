package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/braid-cni/braid/pkg/agent"
	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/kube"
)

func statusCommand() command {
	return command{
		name: "status", summary: "how Braid is on each node",
		text: `Shows for each node what its agent said last: whether pods get their networks there and
since when, the agent's version, when the credential of the CNI plugin ends, the file of the default
network, Braid's own configuration and the files that the runtime would take in its place, the
number of its blocks of addresses, the pods that ask for networks and were started without Braid,
what plugins refuse to remove, what else an operator should see to, calls that the CNI plugin did
without the agent, and how many pods Multus made, which have to be gone before it goes.

An agent that has not been heard of for ` + agent.Stale.String() + ` is unknown; so is a node
without one.

Exits with 0 if all nodes are ready, 1 if one is not, 2 if that could not be found out.`,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			kubeconfig, o := kubeconfigFlag(f), formatFlag(f, formatTable)
			return func(ctx context.Context, out io.Writer) (bool, error) {
				api, err := openAPI(*kubeconfig)
				if err != nil {
					return false, err
				}
				defer api.Close()
				reports, err := api.NodeReports(ctx)
				if err != nil {
					return false, err
				}
				blocks, err := api.Blocks(ctx, metav1.ListOptions{ResourceVersion: "0"})
				if err != nil {
					return false, err
				}
				items := nodeStatuses(reports, blocks, time.Now())
				found := false
				for _, i := range items {
					found = found || i.Ready != metav1.ConditionTrue
				}
				return found, write(out, *o, items,
					"NODE READY SINCE VERSION CREDENTIAL DEFAULT-NETWORK CONFIG BLOCKS MESSAGE", nodeStatus.rows)
			}
		},
	}
}

// nodeStatus is a node as it is printed.
type nodeStatus struct {
	Node string `json:"node"`
	// Ready is "True", "False" or "Unknown", since Since; Message says why.
	Ready   metav1.ConditionStatus `json:"ready"`
	Since   *metav1.Time           `json:"since,omitempty"`
	Message string                 `json:"message,omitempty"`
	// The rest is what an agent reported; empty without one.
	Version           string         `json:"version,omitempty"`
	CredentialExpires *metav1.Time   `json:"credentialExpires,omitempty"`
	DefaultNetwork    string         `json:"defaultNetwork,omitempty"`
	Config            string         `json:"config,omitempty"`
	Before            []string       `json:"before,omitempty"`
	Unattached        []string       `json:"unattached,omitempty"`
	Others            map[string]int `json:"others,omitempty"`
	Owed              int            `json:"owed,omitempty"`
	Fallbacks         map[string]int `json:"fallbacks,omitempty"`
	Warnings          []string       `json:"warnings,omitempty"`
	Blocks            int            `json:"blocks"`

	now time.Time
}

func nodeStatuses(
	reports []kube.NodeReport, blocks []v1alpha1.IPBlock, now time.Time,
) []nodeStatus {
	owned := map[string]int{}
	for i := range blocks {
		if owner := blocks[i].Spec.Owner; owner != nil {
			owned[owner.NodeName]++
		}
	}
	items := make([]nodeStatus, len(reports))
	for i, r := range reports {
		items[i] = statusOf(r, now)
		items[i].Blocks = owned[r.Node]
	}
	return items
}

// statusOf takes a node whose agent has been silent for long for one that nothing is known of.
func statusOf(r kube.NodeReport, now time.Time) nodeStatus {
	s := nodeStatus{
		Node: r.Node, Ready: metav1.ConditionUnknown, Message: "no agent has reported", now: now,
	}
	if c := r.Condition; c != nil {
		s.Ready, s.Since, s.Message = c.Status, &c.LastTransitionTime, c.Message
		if age := now.Sub(c.LastHeartbeatTime.Time); age > agent.Stale {
			s.Ready, s.Since = metav1.ConditionUnknown, &c.LastHeartbeatTime
			s.Message = fmt.Sprintf("the agent was last heard of %s ago; see its pod",
				duration.HumanDuration(age))
		}
	}
	if p := r.Report; p != nil {
		s.Version, s.DefaultNetwork, s.Config, s.Before = p.Version, p.DefaultNetwork, p.Config, p.Before
		s.Unattached, s.Others, s.Owed, s.Fallbacks = p.Unattached, p.Others, p.Owed, p.Fallbacks
		s.Warnings = p.Warnings
		if !p.CredentialExpires.IsZero() {
			s.CredentialExpires = &p.CredentialExpires
		}
	}
	return s
}

// rows are the line of a node, and lines below it for what an operator should see to.
func (s nodeStatus) rows() [][]string {
	since, message := "", s.Message
	if s.Since != nil {
		since = duration.HumanDuration(s.now.Sub(s.Since.Time))
	}
	if s.Ready == metav1.ConditionTrue {
		message = ""
	}
	rows := [][]string{
		{
			s.Node, string(s.Ready), since, s.Version, s.credential(), s.DefaultNetwork, s.Config,
			fmt.Sprint(s.Blocks), message,
		},
	}
	for _, text := range s.remarks() {
		rows = append(rows, []string{"", "", "", "", "", "", "", "", text})
	}
	return rows
}

// credential is how long the credential of the CNI plugin is still good.
func (s nodeStatus) credential() string {
	if s.CredentialExpires == nil {
		return ""
	}
	left := s.CredentialExpires.Sub(s.now)
	if left <= 0 {
		return "ended"
	}
	return duration.HumanDuration(left)
}

// remarks are what an operator should see to.
func (s nodeStatus) remarks() (texts []string) {
	more := func(text string) { texts = append(texts, text) }
	if len(s.Before) > 0 {
		more("taken in place of Braid's configuration: " + strings.Join(s.Before, ", "))
	}
	if len(s.Unattached) > 0 {
		more("pods without their networks: " + strings.Join(s.Unattached, ", "))
	}
	if s.Owed > 0 {
		more(fmt.Sprintf("attachments of pods that are gone that no plugin removes; `braidctl owed` on "+
			"the node lists them: %d", s.Owed))
	}
	for _, warning := range s.Warnings {
		more("warning: " + warning)
	}
	for _, reason := range slices.Sorted(maps.Keys(s.Fallbacks)) {
		more(fmt.Sprintf("calls that the CNI plugin did without the agent (%s): %d",
			reason, s.Fallbacks[reason]))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Others)) {
		more(fmt.Sprintf("pods that %s made, which has to stay until they are gone: %d",
			name, s.Others[name]))
	}
	return texts
}
