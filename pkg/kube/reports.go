package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
)

// NodeReport is what the agent of a node said last.
type NodeReport struct {
	Node string
	// Condition is nil where no agent has ever set one.
	Condition *nodev1.Condition
	// Report is nil where there is none, or none that can be read.
	Report *nodev1.Report
	// StartupTaint is true if the node has this taint.
	StartupTaint bool
}

// ReportNode sets a condition and the report of a node, with its interfaces in an annotation of
// their own, by one PATCH of nodes/status. Conditions of other types, other annotations and labels
// stay as they are.
func (a *API) ReportNode(
	ctx context.Context, name string, condition nodev1.Condition, report nodev1.Report,
) error {
	text, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	annotations := map[string]any{
		nodev1.ReportAnnotation: string(text), nodev1.InterfacesAnnotation: nil,
	}
	if len(report.Interfaces) > 0 {
		text, err := json.Marshal(report.Interfaces)
		if err != nil {
			return fmt.Errorf("encode interfaces: %w", err)
		}
		annotations[nodev1.InterfacesAnnotation] = string(text)
	}
	return a.patchNodeStatus(ctx, name, map[string]any{
		"metadata": map[string]any{"annotations": annotations},
		"status":   map[string]any{"conditions": []nodev1.Condition{condition}},
	})
}

// SetNodeCondition sets a condition of a node, and leaves its report.
func (a *API) SetNodeCondition(ctx context.Context, name string, condition nodev1.Condition) error {
	return a.patchNodeStatus(ctx, name,
		map[string]any{"status": map[string]any{"conditions": []nodev1.Condition{condition}}})
}

// patchNodeStatus changes a node's status, and metadata with it.
func (a *API) patchNodeStatus(ctx context.Context, name string, patch map[string]any) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	_, err = a.do(ctx, &call{
		verb: "patch status of node", scope: clusterScoped, name: name,
		request: func(c *client) *rest.Request {
			return send(c.core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(name).
				SubResource("status").
				SetHeader("Accept", metadataType), body)
		},
	})
	return err
}

// wireReport is a node as far as its agent speaks of it.
type wireReport struct {
	wireNode

	Status struct {
		Conditions []nodev1.Condition `json:"conditions"`
	} `json:"status"`
}

func (w *wireReport) report() NodeReport {
	r := NodeReport{
		Node: w.Metadata.Name, StartupTaint: slices.Contains(w.taints(), nodev1.StartupTaint),
	}
	for i := range w.Status.Conditions {
		if w.Status.Conditions[i].Type == nodev1.Ready {
			r.Condition = &w.Status.Conditions[i]
		}
	}
	var report nodev1.Report
	text, ok := w.Metadata.Annotations[nodev1.ReportAnnotation]
	if ok && json.Unmarshal([]byte(text), &report) == nil {
		r.Report = &report
		if text, ok := w.Metadata.Annotations[nodev1.InterfacesAnnotation]; ok {
			//nolint:errcheck // what cannot be read is not there
			json.Unmarshal([]byte(text), &report.Interfaces)
		}
	}
	return r
}

// NodeReport returns what the agent of one node said last.
func (a *API) NodeReport(ctx context.Context, name string) (NodeReport, error) {
	var node wireReport
	c := &call{
		verb: "get node", scope: clusterScoped, name: name,
		request: func(c *client) *rest.Request {
			return c.core.Get().Resource("nodes").Name(name)
		},
	}
	if err := a.get(ctx, c, &node, &node.Metadata.ObjectMeta); err != nil {
		return NodeReport{}, err
	}
	return node.report(), nil
}

// NodeReports returns what the agents of all nodes said last, one for each node. It comes from the
// server's memory, and may lack the latest changes.
func (a *API) NodeReports(ctx context.Context) ([]NodeReport, error) {
	nodes, err := listOf[wireReport](ctx, a,
		&call{verb: "list nodes", request: func(c *client) *rest.Request {
			return c.core.Get().Resource("nodes")
		}}, metav1.ListOptions{ResourceVersion: "0"}, "NodeList")
	reports := make([]NodeReport, len(nodes))
	for i := range nodes {
		reports[i] = nodes[i].report()
	}
	return reports, err
}
