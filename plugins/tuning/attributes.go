package tuning

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/braid-cni/braid/pkg/nl"
)

// attributes are the attributes of an interface that are to be changed or put back. The keys are
// those of the reference's backups.
type attributes struct {
	MAC      string `json:"mac,omitempty"`
	Promisc  *bool  `json:"promisc,omitempty"`
	MTU      int    `json:"mtu,omitempty"`
	AllMulti *bool  `json:"allmulti,omitempty"`
	TxQLen   *int   `json:"txQLen,omitempty"`
}

// of returns the values that the link has of the attributes.
func (a attributes) of(link *nl.Link) attributes {
	var have attributes
	if a.MAC != "" {
		have.MAC = link.MAC.String()
	}
	if a.Promisc != nil {
		have.Promisc = &link.Promisc
	}
	if a.MTU != 0 {
		have.MTU = link.MTU
	}
	if a.AllMulti != nil {
		have.AllMulti = &link.AllMulti
	}
	if a.TxQLen != nil {
		have.TxQLen = &link.TxQLen
	}
	return have
}

// change is an attribute with its value, and how a link, by index, gets it.
type change struct {
	key   string
	value any
	set   func(ctx context.Context, h *nl.Handle, index int) error
}

// changeTo returns the change of an attribute to a value, which a method of nl.Handle makes.
func changeTo[T any](
	key string, value T, set func(h *nl.Handle, ctx context.Context, index int, value T) error,
) change {
	return change{key, value, func(ctx context.Context, h *nl.Handle, index int) error {
		return set(h, ctx, index, value)
	}}
}

// changes lists the attributes that are present, in the order in which a link gets them.
func (a attributes) changes() []change {
	var list []change
	if a.MAC != "" {
		list = append(list, changeTo("mac", a.MAC, setMAC))
	}
	if a.Promisc != nil {
		list = append(list, changeTo("promisc", *a.Promisc, (*nl.Handle).SetPromisc))
	}
	if a.MTU != 0 {
		list = append(list, changeTo("mtu", a.MTU, (*nl.Handle).SetMTU))
	}
	if a.AllMulti != nil {
		list = append(list, changeTo("allmulti", *a.AllMulti, (*nl.Handle).SetAllMulti))
	}
	if a.TxQLen != nil {
		list = append(list, changeTo("txQLen", *a.TxQLen, (*nl.Handle).SetTxQLen))
	}
	return list
}

// setMAC is nl.Handle's SetMAC for a MAC as text.
//
//nolint:revive // the context comes second, as in a method expression
func setMAC(h *nl.Handle, ctx context.Context, index int, text string) error {
	mac, err := net.ParseMAC(text)
	if err != nil {
		return err
	}
	return h.SetMAC(ctx, index, mac)
}

// apply gives a link, by index, the attributes, up to the first that it does not take.
func (a attributes) apply(ctx context.Context, h *nl.Handle, index int) error {
	for _, c := range a.changes() {
		if err := c.set(ctx, h, index); err != nil {
			return fmt.Errorf("field %s %v: %w", c.key, c.value, err)
		}
	}
	return nil
}

// restore is apply past errors.
func (a attributes) restore(ctx context.Context, h *nl.Handle, index int) error {
	var errs []error
	for _, c := range a.changes() {
		if err := c.set(ctx, h, index); err != nil {
			errs = append(errs, fmt.Errorf("restore %s %v: %w", c.key, c.value, err))
		}
	}
	return errors.Join(errs...)
}

// check says which of the attributes the link does not have.
func (a attributes) check(link *nl.Link) error {
	have := map[string]any{}
	for _, c := range a.of(link).changes() {
		have[c.key] = c.value
	}
	var errs []error
	for _, c := range a.changes() {
		if have[c.key] != c.value {
			errs = append(errs, fmt.Errorf("interface %s has %s %v, not %v",
				link.Name, c.key, have[c.key], c.value))
		}
	}
	return errors.Join(errs...)
}
