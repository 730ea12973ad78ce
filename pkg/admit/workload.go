package admit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nodeselect"
)

// workloads are the kinds that make pods of a template.
func workloads() []string {
	return []string{"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"}
}

// workload warns of what would be wrong with the pods of a template. It denies nothing: the NAD
// that is missing may come before the first pod does. A template that does not change is not judged
// again.
func (r *review) workload(ctx context.Context) {
	raw := templateOf(r.req.Object.Raw)
	if raw == nil || bytes.Equal(raw, templateOf(r.req.OldObject.Raw)) {
		return
	}
	var template corev1.PodTemplateSpec
	if json.Unmarshal(raw, &template) != nil {
		return // the API server says so
	}
	c := r.judge(ctx, template.ObjectMeta, &template.Spec)
	if err := r.Denied; err != nil {
		fe, ok := errors.AsType[*failure.Error](err)
		if !ok {
			fe = &failure.Error{Err: err}
		}
		named := *fe
		named.Err = fmt.Errorf("its pods would be refused: %w", fe.Err)
		r.Warnings = append([]*failure.Error{&named}, r.Warnings...)
	}
	r.Denied, r.Unknown = nil, nil
	if r.req.Kind.Kind == "DaemonSet" {
		r.warnDaemonSet(c, &template.Spec)
	}
}

// warnDaemonSet warns of a DaemonSet that makes pods for nodes that a NAD does not select: they
// stay Pending there, as the controller knows the template alone.
func (r *review) warnDaemonSet(c *changes, spec *corev1.PodSpec) {
	for _, d := range c.demands {
		for i := range d.needs {
			value, equal := nodeselect.Equals(&d.needs[i])
			if own, has := spec.NodeSelector[d.needs[i].Key()]; equal && has && own == value {
				continue
			}
			r.warn(&failure.Error{
				Reason: failure.NodeNotSelected, NAD: d.nad, Field: "spec.template.spec.nodeSelector",
				Err: fmt.Errorf("the NAD is for nodes with %s: on others the pods of this DaemonSet stay "+
					"Pending", nodeselect.Text(d.needs)),
				Fix: "select the same nodes in the template",
			})
			break
		}
	}
}

// templateOf returns the template of pods of an object, as it is written; nil for none.
func templateOf(raw []byte) json.RawMessage {
	var o struct {
		Spec struct {
			Template    json.RawMessage `json:"template"`
			JobTemplate struct {
				Spec struct {
					Template json.RawMessage `json:"template"`
				} `json:"spec"`
			} `json:"jobTemplate"`
		} `json:"spec"`
	}
	if json.Unmarshal(raw, &o) != nil {
		return nil
	}
	if o.Spec.Template != nil {
		return o.Spec.Template
	}
	return o.Spec.JobTemplate.Spec.Template
}
