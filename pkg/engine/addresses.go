package engine

import (
	"context"
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/resolve"
)

// holdAddresses holds an ADD to the addresses that the rules allow the networks of a namespace on
// this node, by what is recorded. The record is saved before it counts, so that of two ADDs at the
// same time each sees the other: too many are never attached, but both may be refused, and come
// again.
func (w *work) holdAddresses(
	ctx context.Context, pod *metav1.ObjectMeta, attachments []plan.Attachment,
) error {
	resolver := w.resolver()
	bounds := resolver.Bounds(attachments)
	if len(bounds) == 0 {
		return nil
	}
	if err := w.save("planned"); err != nil {
		return err
	}
	records, err := w.Records.Read()
	if err != nil {
		w.Log.WarnContext(ctx, "addresses of sandboxes whose record cannot be read are not counted",
			"error", err)
	}
	crowded := resolver.Crowded(bounds, addressesByNamespace(records), attachments)
	if len(crowded) == 0 {
		return nil
	}
	w.judged(ctx, pod, crowded)
	return resolve.Permit(crowded, attachments)
}

// addressesByNamespace counts the addresses of networks of namespaces, by the namespace.
func addressesByNamespace(records []*record.Record) map[string]int {
	have := map[string]int{}
	for _, r := range records {
		for i := range r.Attachments {
			if a := &r.Attachments[i]; a.Limits != nil {
				have[a.Limits.Namespace] += addressesOf(a)
			}
		}
	}
	return have
}

// addressesOf returns how many addresses an attachment has or, before that is known, is to get.
func addressesOf(a *record.Attachment) int {
	var result struct {
		IPs []json.RawMessage `json:"ips"`
	}
	if len(a.Result) > 0 && json.Unmarshal(a.Result, &result) == nil {
		return len(result.IPs)
	}
	return policy.Addresses(&policy.Network{Conf: a.Conf, IPs: a.IPs})
}
